"""An app's names laid on the tags of an asset, as far as the actor may see them."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.apps.views import ShownName, shown_names
from headrace.console.app_board import AppView
from headrace.console.site_view import SiteView, TagView, readable
from headrace.console.texts import Texts
from headrace.model.deployment import BoundAsset
from headrace.model.views import Limit, View
from headrace.site.app_assets import scale_of


@dataclass(frozen=True)
class Shown:
    """A name on an asset: its tag, what it is called, and how a number of the app becomes one of the tag."""

    name: str
    title: str
    tag: TagView | None
    scale: tuple[float, float] = (1.0, 0.0)

    def number(self, value: float) -> float:
        """A limit of the view in the tag's unit."""
        return value * self.scale[0] + self.scale[1]


@dataclass(frozen=True)
class Place:
    """Where a view is drawn: the assets of its type that the actor sees, one of them for a single asset."""

    app: AppView
    view: View
    site: SiteView
    texts: Texts
    assets: tuple[BoundAsset, ...]

    @property
    def asset(self) -> BoundAsset:
        """The one asset of a view with that scope."""
        return self.assets[0]

    @property
    def names(self) -> dict[str, ShownName]:
        """What the view may show."""
        return shown_names(self.app.manifest, self.view.type)

    def title(self, asset: BoundAsset) -> str:
        """What an asset is called."""
        return self.site.title_of(asset.path, self.texts.language)

    def shown(self, asset: BoundAsset, name: str) -> Shown:
        """A name of the app on an asset."""
        about = self.names.get(name)
        tag = tag_of(self.site, self.app.manifest.word, asset, name)
        title = self.texts.title(about.title, "") if about is not None else ""
        if tag is not None and not title:
            zh = self.texts.language == "zh"
            title = (tag.title_zh if zh else "") or tag.title
        scale = None
        if tag is not None and about is not None and about.unit:
            scale = scale_of(about.unit, tag.unit)
        return Shown(name, title or readable(name), tag, scale or (1.0, 0.0))

    def limits(self, shown: Shown, limits: list[Limit]) -> list[tuple[float, str]]:
        """Limits in the unit of the tag, rising."""
        return sorted((shown.number(limit.at), limit.state) for limit in limits)


def assets_of(app: AppView, site: SiteView, view: View) -> tuple[BoundAsset, ...]:
    """The assets of a view's type of which the actor sees any tag, in the order of their paths."""
    seen = {tag.unit_path for tag in site.tags}
    found = [
        asset
        for asset in app.deployment.assets
        if (not view.type or asset.type == view.type) and asset.path in seen
    ]
    return tuple(sorted(found, key=lambda asset: asset.path))


def tag_of(site: SiteView, word: str, asset: BoundAsset, name: str) -> TagView | None:
    """The tag of a quantity, or the one that a formula or output of the app gives."""
    for tag_id in (asset.tags.get(name), asset.outputs.get(name)):
        if tag_id is not None:
            return site.by_id.get(tag_id)
    return site.by_path.get(f"{asset.path}/{word}_{name}")
