"""Install, upgrade, roll back, remove: a version in the registry, a line in the audit chain, and a table
``[app.ID]`` in the site file, which the keeper follows. Bindings, settings and state stay with the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from headrace import __version__
from headrace.apps.catalog.certified import check_certificate, check_publishable
from headrace.apps.catalog.entries import CatalogEntry
from headrace.apps.catalog.publishers import Publishers
from headrace.apps.catalog.registry import Registry, check_needs
from headrace.apps.catalog.seen import Seen
from headrace.apps.package import newest, read_package
from headrace.apps.package.versions import parse_version
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.time import Clock
from headrace.security.audit import AuditChain, telling
from headrace.security.files import write_whole
from headrace.security.settings import load_settings
from headrace.security.shared_files import FASTER, SharedFiles
from headrace.site.app_package import FOLDER
from headrace.site.edit import SiteEdit
from headrace.site.notes import near

HISTORY: Final = "installed.json"
HISTORY_MAX: Final = 1_000
_TOLD: Final = ("version", "sha256", "publisher", "is_signed")


class Installation(msgspec.Struct, frozen=True, kw_only=True):
    """What was done with an app: ``what`` is install, upgrade, rollback or remove."""

    app: str
    version: str
    what: str
    at_us: int
    by: str


class Catalog:
    """What this installation can have and has.

    Args:
        folder: of the installation. audit: its chain. clock: for times.
        builtin: packages of asset types that come with Headrace -> their versions.

    Attributes:
        registry: packages that are here. publishers: whose count. seen: of other catalogs.
    """

    def __init__(
        self,
        folder: DataFolder,
        audit: AuditChain,
        clock: Clock,
        builtin: dict[str, list[str]] | None = None,
    ) -> None:
        self._folder = folder
        self._audit = audit
        self._clock = clock
        self._builtin = builtin or {}
        self._files = SharedFiles(folder, FOLDER)
        self.registry = Registry(folder)
        self.publishers = Publishers(folder, audit)
        self.seen = Seen(folder)

    def installed(self) -> dict[str, str]:
        """App -> version that the site file names."""
        return {
            name: str(table.get("version", ""))
            for name, table in SiteEdit(self._folder).apps().items()
        }

    def history(self, app: str = "") -> list[Installation]:
        """What was done, oldest first."""
        path = self._folder.packages / HISTORY
        if not path.exists():
            return []
        found = msgspec.json.decode(path.read_bytes(), type=list[Installation])
        return [each for each in found if app in ("", each.app)]

    def available(self) -> dict[str, list[str]]:
        """Packages that are here, with those of asset types that come with Headrace."""
        found = self.registry.versions()
        for name, versions in self._builtin.items():
            found[name] = [*found.get(name, ()), *versions]
        return found

    def take(self, content: bytes, by: str) -> CatalogEntry:
        """Keep a package, without installing it: for asset types, and for apps to choose from.

        Raises:
            HeadraceError: what :func:`headrace.apps.package.read_package` and :meth:`Registry.add` raise.
        """
        package = read_package(content, self.publishers.trust())
        about = {name: getattr(package, name) for name in _TOLD}
        with telling(self._audit, by, "app.take", f"app/{package.id}", **about):
            return self.registry.add(package)

    def publish(
        self, content: bytes, by: str, scenarios: Mapping[str, str] | None = None
    ) -> CatalogEntry:
        """Keep a package for others to install: it must be signed and have passed the bench.

        Args:
            scenarios: see :func:`check_certificate`.

        Raises:
            HeadraceError: what :func:`check_publishable` and :meth:`take` raise.
        """
        package = read_package(content, self.publishers.trust())
        check_publishable(package, self._benches(), scenarios)
        return self.take(content, by)

    def install(self, app: str, version: str, by: str, *, enabled: bool = True) -> SiteEdit:
        """The edit that installs or upgrades an app of the registry; ``finish`` it, or do nothing.

        Raises:
            Misconfigured: APPS-2044 when there is no such package, APPS-2057 when it is no app.
            Refused: APPS-2048, APPS-2049 when it cannot run here; APPS-2027, APPS-2028 when its
                publisher does not count any more; APPS-2056, APPS-2065, APPS-2066 when this installation
                names benches, and none of them certified it.
        """
        package = self.registry.read(app, version, self.publishers.trust())
        if package.manifest is None:
            raise Misconfigured(
                "APPS-2057",
                f"{app} is a package of asset types",
                "It is here for apps to use; there is nothing to install.",
            )
        if benches := self._benches():
            check_certificate(package, benches)
        entry = self.registry.find(app, package.version)
        check_needs(entry, self.available(), __version__)
        edit = SiteEdit(self._folder)
        if app in edit.apps():
            edit.set_app(app, version=package.version)
        else:
            edit.set_app(app, version=package.version, enabled=None if enabled else False)
        return edit

    def upgrade(self, app: str, version: str = "") -> str:
        """The version that an upgrade leads to: the newest here, or a given one.

        Raises:
            Misconfigured: APPS-2058 when the app is not installed; APPS-2059 when there is no newer one.
        """
        now = self._now(app)
        found = version or newest(self.registry.versions().get(app, ())) or now
        if (parse_version(found) or (0, 0, 0)) <= (parse_version(now) or (0, 0, 0)):
            raise Misconfigured(
                "APPS-2059",
                f"{app} {now} is installed, and {found} is not newer",
                f"Add a newer package, or go back: headrace app rollback {app}",
            )
        return found

    def rollback(self, app: str) -> str:
        """The version that was installed before the one of now.

        Raises:
            Misconfigured: APPS-2058 when the app is not installed; APPS-2060 when there was none before.
        """
        now, way = self._now(app), list[str]()
        for each in self.history(app):
            if each.what == "remove":
                way.clear()
            elif each.what == "rollback":
                del way[way.index(each.version) + 1 if each.version in way else 0 :]
            elif not way or way[-1] != each.version:
                way.append(each.version)
        if way and way[-1] == now:
            way.pop()
        if not way:
            raise Misconfigured(
                "APPS-2060",
                f"no version of {app} was installed before {now}",
                f"Name one: headrace app install {app} --version VERSION",
            )
        return way[-1]

    def remove(self, app: str) -> SiteEdit:
        """The edit that takes an app from the site; its history, state and package stay.

        Raises:
            Misconfigured: APPS-2058 when the app is not installed.
            Refused: APPS-2061 when another installed app needs it.
        """
        self._now(app)
        users = [
            name
            for name, version in self.installed().items()
            if name != app and app in self._requires(name, version)
        ]
        if users:
            raise Refused(
                "APPS-2061", f"{app} is needed by {', '.join(users)}", "Remove these first."
            )
        edit = SiteEdit(self._folder)
        edit.remove_app(app)
        return edit

    def finish(self, edit: SiteEdit, app: str, version: str, what: str, by: str) -> None:
        """Tell it, write the site file, and remember it: the chain says done when it is.

        Args:
            what: install, upgrade, rollback or remove.

        Raises:
            SiteProblems: when the site file would not be right; nothing was done.
            Refused: SITE-1416 when somebody else changed it meanwhile; nothing was done, which is told.
        """
        edit.check()
        with telling(self._audit, by, f"app.{what}", f"app/{app}", version=version):
            edit.save()
        self._remember(
            Installation(app=app, version=version, what=what, at_us=self._clock.now_us(), by=by)
        )

    def _remember(self, entry: Installation) -> None:
        """Append to the history. It is done: a console that was faster is no reason to fail."""
        for last in (False, False, True):
            try:
                with self._files.changing():
                    history = [*self.history(), entry][-HISTORY_MAX:]
                    path = self._folder.packages / HISTORY
                    write_whole(path, msgspec.json.encode(history), mode=0o644)
            except Refused as error:
                if last or error.code != FASTER:
                    raise
            else:
                return

    def drop(self, name: str, version: str, by: str) -> None:
        """Take a version out of the registry.

        Raises:
            Misconfigured: APPS-2044 when there is none.
            Refused: APPS-2061 when it is installed.
        """
        entry = self.registry.find(name, version)
        if self.installed().get(name) == entry.version:
            raise Refused(
                "APPS-2061", f"{name} {entry.version} is installed", f"headrace app remove {name}"
            )
        with telling(self._audit, by, "app.drop", f"app/{name}", version=entry.version):
            self.registry.remove(name, entry.version)

    def _benches(self) -> tuple[str, ...]:
        return load_settings(self._folder).apps.benches

    def _requires(self, app: str, version: str) -> dict[str, str]:
        found = [
            each for each in self.registry.entries() if (each.id, each.version) == (app, version)
        ]
        return {**found[0].requires, **found[0].types} if found else {}

    def _now(self, app: str) -> str:
        installed = self.installed()
        if app not in installed:
            raise Misconfigured(
                "APPS-2058",
                f"the app {app} is not installed",
                near(app, installed) or "See: headrace app list",
            )
        return installed[app]
