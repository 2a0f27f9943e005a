"""What runs of an installed app on this site: its assets with their tags under the app's own names.

The keeper makes it of the site file and the package, and puts it to the ``desired`` bucket under
``app.<word>``; the runtime follows it. Formulas of an app travel in ``AppsConfig`` beside the site's own.
"""

from __future__ import annotations

import hashlib

import msgspec

from headrace.model.app_manifest import AppManifest
from headrace.model.calendar import PlantCalendar
from headrace.model.errors import Refused


class BoundAsset(msgspec.Struct, frozen=True, kw_only=True):
    """An asset of the site, as the app sees it.

    Attributes:
        path: of the asset. type: the app's own name of the needed type.
        tags: the app's quantity -> tag_id. units: the app's quantity -> unit of that tag; the frame that
            the app gets is in the unit of its manifest.
        attributes: in the manifest's units. relations: relation -> path of another asset.
        outputs: output -> tag_id. shadows: output -> tag_id of what a challenger gives instead.
        drifts: model -> tag_id of its drift.
        writes: quantity -> (edge, connection, tag path) that it may write.
        settings: of this asset, where they are not those of the app.
        edge: on whose machine the app serves it; empty: on the platform.
        left: where it was served before the app moved, as ``edge``; None: it never moved.
    """

    path: str
    type: str
    title: str = ""
    title_zh: str = ""
    tags: dict[str, int] = {}
    units: dict[str, str] = {}
    attributes: dict[str, float | str] = {}
    relations: dict[str, str] = {}
    outputs: dict[str, int] = {}
    shadows: dict[str, int] = {}
    drifts: dict[str, int] = {}
    writes: dict[str, tuple[str, str, str]] = {}
    settings: dict[str, float | str | bool] = {}
    edge: str = ""
    left: str | None = None


class AppDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """One installed app on one site.

    Attributes:
        package_sha256: of the ``.hrapp`` file, hex; where it lies: ``DataFolder.packages``.
        enabled: false keeps all it has and runs nothing.
        settings: name -> value, defaults of the manifest filled in.
        unserved: assets of a bound type that the app cannot serve, ``<type> <path>`` -> why.
        edge: on whose machine this part of it runs; empty: on the platform, or it is the whole.
        moved_us: source time from which each asset is served where it is now; 0: always.
        until_us: this part gives nothing after it, since it moved; 0: it goes on.
    """

    enterprise: str
    site: str
    manifest: AppManifest
    package_sha256: str
    enabled: bool = True
    assets: tuple[BoundAsset, ...] = ()
    settings: dict[str, float | str | bool] = {}
    calendar: PlantCalendar = PlantCalendar()
    unserved: dict[str, str] = {}
    edge: str = ""
    moved_us: int = 0
    until_us: int = 0

    def content_hash(self) -> str:
        """SHA-256 of the canonical JSON, in hex; equal content has an equal hash."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    @property
    def edges(self) -> tuple[str, ...]:
        """Where it is served now, sorted; the empty name, which comes first, is the platform."""
        return tuple(sorted({asset.edge for asset in self.assets}))

    def place(self, asked: str = "") -> str:
        """Where a question to it goes: to the edge that is asked for, else to the only place where it runs,
        else to the platform.

        Raises:
            Refused: APPS-2273 when it does not run there, or nobody can know where it is meant to go.
        """
        known = self.edges or ("",)
        if asked in known and (asked or not known[0]):
            return asked
        if not asked and len(known) == 1:
            return known[0]
        shown = ", ".join(edge or "the platform" for edge in known)
        raise Refused(
            "APPS-2273",
            f"{self.manifest.id} runs on {shown}, not on {asked or 'the platform'}",
            "Say the edge that is meant.",
        )

    def part(self, edge: str) -> AppDeployment | None:
        """What the machine of an edge has to know of it: the assets that are served there, or were before
        they moved; None when that is nothing.

        Args:
            edge: its name; empty: the platform.
        """
        own = tuple(asset for asset in self.assets if edge in (asset.edge, asset.left))
        if not own:
            return None
        return msgspec.structs.replace(self, assets=own, unserved={}, edge=edge)

    def stage(self, position_us: int) -> AppDeployment | None:
        """Of a part, what is to run now; None when nothing is.

        Args:
            position_us: up to where it ran here; 0: it never did.
        """
        if not self.assets:
            return self
        before = tuple(each for each in self.assets if each.left == self.edge)
        after = tuple(each for each in self.assets if each.edge == self.edge)
        if self.moved_us and before and position_us < self.moved_us:
            return msgspec.structs.replace(self, assets=before, until_us=self.moved_us)
        return msgspec.structs.replace(self, assets=after) if after else None
