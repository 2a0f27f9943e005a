"""What runs of an installed app on this site: its assets with their tags under the app's own names.

The keeper makes it of the site file and the package, and puts it to the ``desired`` bucket under
``app.<word>``; the runtime follows it. Formulas of an app travel in ``AppsConfig`` beside the site's own.
"""

from __future__ import annotations

import hashlib

import msgspec

from headrace.model.app_manifest import AppManifest
from headrace.model.calendar import PlantCalendar


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


class AppDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """One installed app on one site.

    Attributes:
        package_sha256: of the ``.hrapp`` file, hex; where it lies: ``DataFolder.packages``.
        enabled: false keeps all it has and runs nothing.
        settings: name -> value, defaults of the manifest filled in.
        unserved: assets of a bound type that the app cannot serve, ``<type> <path>`` -> why.
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

    def content_hash(self) -> str:
        """SHA-256 of the canonical JSON, in hex; equal content has an equal hash."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()
