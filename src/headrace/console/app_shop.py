"""The console's side of the catalog: packages by id, and each change of what is installed as one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from headrace.apps.asset_types.catalog import known_types
from headrace.apps.asset_types.proposal import Proposal, propose
from headrace.apps.catalog import Catalog, CatalogEntry
from headrace.apps.package import Package, parse_version
from headrace.model.app_manifest import AppManifest
from headrace.model.errors import HeadraceError, Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.time import Clock
from headrace.security.audit import AuditChain, telling
from headrace.site.edit import SiteEdit

CHANGES: Final = ("install", "upgrade", "rollback", "remove")


class Shelf(msgspec.Struct, frozen=True, kw_only=True):
    """One package with its versions.

    Attributes:
        entries: of this package, the newest last. installed: version; "" when it is not.
        before: version that a rollback leads to; "" when there is none.
    """

    id: str
    entries: tuple[CatalogEntry, ...]
    installed: str = ""
    before: str = ""


class AppShop:
    """What pages do with the catalog; every call blocks.

    Args:
        folder: of the installation. audit: its chain.
    """

    def __init__(self, folder: DataFolder, audit: AuditChain, clock: Clock) -> None:
        self._folder = folder
        shipped = {name: [each.version] for name, each in known_types().items()}
        self._catalog = Catalog(folder, audit, clock, shipped)
        self._audit = audit

    def shelves(self) -> list[Shelf]:
        """All packages, by id.

        Raises:
            HeadraceError: when registry or site file cannot be read.
        """
        installed = self._catalog.installed()
        by_id: dict[str, list[CatalogEntry]] = {}
        for entry in self._catalog.registry.entries():
            by_id.setdefault(entry.id, []).append(entry)
        return [
            Shelf(
                id=name,
                entries=tuple(
                    sorted(entries, key=lambda one: parse_version(one.version) or (0, 0, 0))
                ),
                installed=installed.get(name, ""),
                before=self._before(name) if name in installed else "",
            )
            for name, entries in sorted(by_id.items())
        ]

    def _before(self, app: str) -> str:
        try:
            return self._catalog.rollback(app)
        except HeadraceError:
            return ""  # there is none, which is no failure here

    def package(self, entry: CatalogEntry) -> Package:
        """The package of an entry, to look into.

        Raises:
            HeadraceError: when its file is not the one that was taken.
        """
        return self._catalog.registry.open(entry)

    def take(self, content: bytes, by: str) -> CatalogEntry:
        """Keep a package whose publisher counts here.

        Raises:
            HeadraceError: what :meth:`headrace.apps.catalog.Catalog.take` raises.
        """
        return self._catalog.take(content, by)

    def plan(self, entry: CatalogEntry, change: str, by: str) -> SiteEdit:
        """The edit of the site file that a change is; nothing is written.

        Raises:
            HeadraceError: what the catalog refuses.
        """
        if change == "remove":
            return self._catalog.remove(entry.id)
        return self._catalog.install(entry.id, entry.version, by)

    def act(self, entry: CatalogEntry, change: str, by: str) -> None:
        """Install, upgrade, roll back or remove.

        Raises:
            HeadraceError: what the catalog and the site file refuse; then nothing was done.
        """
        if change not in CHANGES:
            raise Misconfigured(
                "CONS-2320", f"{change!r} is no change", f"One of {', '.join(CHANGES)}."
            )
        edit = self.plan(entry, change, by)
        self._catalog.finish(edit, entry.id, entry.version, change, by)

    def set_enabled(self, app: str, *, by: str, on: bool) -> None:
        """Let an installed app run, or keep all it has and run nothing of it.

        Raises:
            Misconfigured: CONS-2321 when it is not installed; what the site file's check refuses.
        """
        edit = self._edit_of(app)
        edit.set_app(app, enabled=None if on else False)
        self._save(edit, app, "enable" if on else "disable", by)

    def table(self, app: str) -> dict[str, object]:
        """``[app.ID]`` as it is written.

        Raises:
            Misconfigured: CONS-2321 when it is not installed.
        """
        return dict(self._edit_of(app).apps()[app])

    def fit(self, manifest: AppManifest, given: Mapping[str, str]) -> Proposal:
        """What of the site could serve an installed app, with reasons.

        Args:
            given: what somebody said: ``pump`` -> the site's type.

        Raises:
            Misconfigured: CONS-2321 when it is not installed; what the site file's check refuses.
        """
        model = self._edit_of(manifest.id).check()
        return propose(model, manifest, known_types(self._folder.packages), given)

    def bind(self, app: str, *, by: str, bind: object, settings: object, dry: bool = False) -> str:
        """Write what serves the needed types of an app, and its settings; gives the diff.

        Args:
            dry: check and show, write nothing.

        Raises:
            HeadraceError: what the site file's check refuses; then nothing was done.
        """
        edit = self._edit_of(app)
        edit.set_app(app, bind=bind or None, settings=settings or None)
        edit.check()
        diff = edit.diff()
        if not dry:
            self._save(edit, app, "bind", by)
        return diff

    def _edit_of(self, app: str) -> SiteEdit:
        edit = SiteEdit(self._folder)
        if app not in edit.apps():
            what = f"the app {app[:64]} is not installed"
            raise Misconfigured("CONS-2321", what, "Install it from the catalog.")
        return edit

    def _save(self, edit: SiteEdit, app: str, change: str, by: str) -> None:
        edit.check()
        with telling(self._audit, by, f"app.{change}", f"app/{app}"):
            edit.save()
