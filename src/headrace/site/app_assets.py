"""Assets of the site as an app sees them: under its own names, in its own units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from headrace.formula.measure import conversion, measure_of
from headrace.formula.problems import FormulaProblem
from headrace.model.app_manifest import AppManifest, NeededType, Output, drift_name
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.knowledge import APP_DOT, AssetConfig, AssetTypeConfig, given_name
from headrace.site.app_places import AppPlace, misplaced, with_places
from headrace.site.model import (
    DERIVED,
    PLAIN_UNITS,
    AppAsset,
    AppBind,
    Asset,
    AssetType,
    SiteApp,
    SiteModel,
    Tag,
    Unserved,
)
from headrace.site.notes import Notes

_SAME: Final = (1.0, 0.0)


class _Laid(NamedTuple):
    assets: tuple[AppAsset, ...]
    unserved: tuple[Unserved, ...]
    twice: tuple[tuple[AppBind, str], ...]


def lay_app(app: SiteApp, model: SiteModel) -> _Laid:
    """The assets that an app serves; those of its types that it cannot, and why; and those that are bound
    to one of its types by two tables."""
    by_path = {asset.path: asset for asset in model.assets}
    types = {kind.name: kind for kind in model.asset_types}
    tags = {tag.path: tag for tag in model.tags}
    edges = {each.name: each.edge for each in model.connections}
    found: dict[tuple[str, str], AppAsset] = {}
    unserved, twice = [], []
    for bind in app.bind:
        fitting = _Fitting(app.manifest.types[bind.needed], bind, types[bind.type], tags)
        for path in bind.assets:
            made = fitting.fit(by_path[path])
            if isinstance(made, AppAsset) and app.placement == "edge" and app.manifest.python:
                why = misplaced(made, tags, edges)
                made = Unserved(path=path, type=bind.needed, why=why) if why else made
            if isinstance(made, Unserved):
                unserved.append(made)
            elif (bind.needed, path) in found:
                twice.append((bind, path))
            else:
                found[bind.needed, path] = made
    return _Laid(tuple(found.values()), tuple(unserved), tuple(twice))


class _Fitting:
    """One table of ``bind``."""

    def __init__(
        self, kind: NeededType, bind: AppBind, its: AssetType, tags: Mapping[str, Tag]
    ) -> None:
        self._kind, self._bind, self._its, self._tags = kind, bind, its, tags

    def fit(self, asset: Asset) -> AppAsset | Unserved:
        tags: dict[str, str] = {}
        units: dict[str, str] = {}
        conversions: dict[str, tuple[float, float]] = {}
        for name, unit in {**self._kind.quantities, **self._kind.optional}.items():
            why, path, its = self._quantity(asset, name, unit)
            if why and name in self._kind.quantities:
                return Unserved(path=asset.path, type=self._bind.needed, why=why)
            if not why:
                tags[name], units[name] = path, its
                scale = scale_of(its, unit)
                if scale is not None and scale != _SAME:
                    conversions[name] = scale
        attributes: dict[str, float | str] = {}
        for name, unit in self._kind.attributes.items():
            value = self._attribute(asset, name, unit)
            if isinstance(value, Unserved):
                return value
            attributes[name] = value
        return AppAsset(
            path=asset.path,
            type=self._bind.needed,
            title=asset.title,
            title_zh=asset.title_zh,
            tags=tags,
            units=units,
            conversions=conversions,
            attributes=attributes,
            relations={
                name: asset.relations[its]
                for name, its in self._bind.relations.items()
                if its in asset.relations
            },
            settings=self._bind.settings.get(asset.path, {}),
        )

    def _quantity(self, asset: Asset, name: str, unit: str) -> tuple[str, str, str]:
        """(why it cannot be used, path of its tag, unit of that)."""
        its = self._bind.quantities.get(name)
        if its is None:
            return f"its type has no {name}", "", ""
        tag = self._tags.get(f"{asset.path}/{its}")
        if tag is None:
            return f"there is no tag {asset.path}/{its}, which is {name}", "", ""
        said = self._its.quantities[its]
        actual = said if said in PLAIN_UNITS else tag.unit or said
        if scale_of(actual, unit) is None:
            shown = actual or "no unit"
            return f"{tag.path} is in {shown}, and {name} cannot be: {unit or '1'}", "", ""
        return "", tag.path, actual

    def _attribute(self, asset: Asset, name: str, unit: str) -> float | str | Unserved:
        if name in self._bind.values:
            return self._bind.values[name]
        its = self._bind.attributes.get(name, "")
        value = asset.attributes.get(its)
        said = self._its.attributes.get(its, "")
        scale = scale_of(said, unit)
        why = ""
        if value is None:
            why = f"it has no attribute {its or name}, which is {name}"
        elif scale is None:
            why = f"its attribute {its} is in {said or '1'}, and {name} cannot be: {unit or '1'}"
        if why:
            return Unserved(path=asset.path, type=self._bind.needed, why=why)
        assert value is not None and scale is not None, "said above"
        return value * scale[0] + scale[1] if isinstance(value, float) else value


def scale_of(unit: str, other: str) -> tuple[float, float] | None:
    """(factor, offset) from one unit to another; None when it is of another dimension or kind.

    Example:
        >>> scale_of("bar", "kPa"), scale_of("text", "m3/h")
        ((100.0, 0.0), None)
    """
    if unit in PLAIN_UNITS or other in PLAIN_UNITS:
        return _SAME if unit == other else None
    if unit == other:
        return _SAME
    one, two = measure_of(unit or "1"), measure_of(other or "1")
    if one is None or two is None or one.dimension != two.dimension:
        return None
    return conversion(one, two)


def note_app_formula(
    notes: Notes, manifest: AppManifest, needed: str, problem: FormulaProblem
) -> None:
    """Note a formula of an app that is not right on this site, at the app's section."""
    field = f"app.{manifest.id}.formulas.{needed}"
    notes.formula(notes.line_of(("app", manifest.id)), field, problem)


def app_types(model: SiteModel) -> tuple[AssetType, ...]:
    """The needed types of all apps, as asset types ``<word>.<type>``."""
    return tuple(kind for app in model.apps for kind in app.types)


def app_of(model: SiteModel, asset_type: str) -> SiteApp | None:
    """The app whose needed type it is; None when it is a type of the site."""
    word = asset_type.rpartition(APP_DOT)[0]
    return next((app for app in model.apps if app.manifest.word == word), None)


def type_config(app: SiteApp, kind: AssetType) -> AssetTypeConfig:
    """A needed type as the apps role has it."""
    needed = kind.name.rpartition(APP_DOT)[2]
    own = [asset for asset in app.assets if asset.type == needed]
    return AssetTypeConfig(
        name=kind.name,
        title=kind.title,
        title_zh=kind.title_zh,
        quantities=kind.quantities,
        attributes=kind.attributes,
        relations=kind.relations,
        converted=tuple(
            name for name in kind.quantities if any(name in asset.conversions for asset in own)
        ),
    )


def asset_config(app: SiteApp, asset: AppAsset, ids: Mapping[str, int]) -> AssetConfig:
    """An asset as the apps role has it, without the tags that formulas give."""
    return AssetConfig(
        path=asset.path,
        type=app.manifest.word + APP_DOT + asset.type,
        title=asset.title,
        title_zh=asset.title_zh,
        tags={
            name: ids[path]
            for name, path in {
                **given_paths(app.manifest, asset),
                **_drifts_by_name(app, asset),
                **asset.tags,
            }.items()
            if path in ids
        },
        attributes={
            name: float(value) if isinstance(value, bool) else value
            for name, value in {**app.settings, **asset.settings, **asset.attributes}.items()
        },
        relations=asset.relations,
        conversions=asset.conversions,
    )


def output_tags(app: SiteApp) -> list[Tag]:
    """The tags that the app's Python gives, on each of its assets, and those that its models have there."""
    word = app.manifest.word
    given = [
        _given(
            app,
            asset,
            each.name,
            f"{word}{APP_DOT}{each.type}{APP_DOT}{each.name}",
            "" if each.unit in ("1", *PLAIN_UNITS) else each.unit,
            (_title(each), each.title.get("zh", "")),
        )
        for each in app.manifest.outputs
        for asset in app.assets
        if asset.type == each.type
    ]
    return [*given, *shadow_tags(app), *drift_tags(app)]


def shadow_tags(app: SiteApp) -> list[Tag]:
    """The tags of what challengers of the app's models give."""
    word = app.manifest.word
    return [
        _given(
            app,
            asset,
            each.shadow,
            f"{word}{APP_DOT}{each.type}{APP_DOT}{each.shadow}",
            "" if each.unit in ("1", *PLAIN_UNITS) else each.unit,
            (f"{_title(each)} (challenger)", _in_chinese(each, "（挑战者）")),
        )
        for each in app.manifest.outputs
        for asset in app.assets
        if asset.type == each.type and each.model
    ]


def drift_tags(app: SiteApp) -> list[Tag]:
    """The tags of how unlike the training the inputs of the app's models are."""
    word = app.manifest.word
    return [
        _given(
            app,
            asset,
            drift_name(model),
            f"{word}{APP_DOT}{asset.type}{APP_DOT}{drift_name(model)}",
            "",
            (f"Drift of the model {model}", f"模型{model}的漂移"),
        )
        for asset in app.assets
        for model in app.manifest.models_of(asset.type)
    ]


def _given(
    app: SiteApp, asset: AppAsset, name: str, address: str, unit: str, title: tuple[str, str]
) -> Tag:
    return Tag(
        path=_place(app, asset, name),
        connection=DERIVED,
        address=address,
        unit=unit,
        title=title[0],
        title_zh=title[1],
        scan_interval_ms=0,
    )


def _place(app: SiteApp, asset: AppAsset, name: str) -> str:
    return f"{asset.path}/{given_name(app.manifest.word + APP_DOT, name)}"


def _title(output: Output) -> str:
    return output.title.get("en") or output.name[:1].upper() + output.name[1:].replace("_", " ")


def _in_chinese(output: Output, more: str) -> str:
    title = output.title.get("zh", "")
    return title and title + more


def _drifts_by_name(app: SiteApp, asset: AppAsset) -> dict[str, str]:
    """Quantity of a drift -> path of its tag, so that an alarm and views find it as they find others."""
    names = map(drift_name, app.manifest.models_of(asset.type))
    return {name: _place(app, asset, name) for name in names}


def deployments(
    model: SiteModel, ids: Mapping[str, int], places: Mapping[str, AppPlace] | None = None
) -> dict[str, AppDeployment]:
    """Word of each app -> what runs of it.

    Args:
        ids: path -> tag_id, also of derived tags. places: word -> where it is placed, and was.
    """
    edges = {each.name: each.edge for each in model.connections}
    tags = {tag.path: tag for tag in model.tags}
    made = {
        app.manifest.word: AppDeployment(
            enterprise=model.enterprise,
            site=model.name,
            manifest=app.manifest,
            package_sha256=app.sha256,
            enabled=app.enabled,
            assets=tuple(_bound_asset(app, asset, ids, edges, tags) for asset in app.assets),
            settings=app.settings,
            calendar=model.calendar,
            unserved={f"{each.type} {each.path}": each.why for each in app.unserved},
        )
        for app in model.apps
    }
    known = places or {}
    for app in model.apps:
        word = app.manifest.word
        made[word] = with_places(app, made[word], known.get(word), tags, edges)
    return made


def given_paths(manifest: AppManifest, asset: AppAsset) -> dict[str, str]:
    """Output of the app's Python -> path of its tag on an asset."""
    return {
        each.name: f"{asset.path}/{given_name(manifest.word + APP_DOT, each.name)}"
        for each in manifest.outputs
        if each.type == asset.type
    }


def _bound_asset(
    app: SiteApp,
    asset: AppAsset,
    ids: Mapping[str, int],
    edges: Mapping[str, str],
    tags: Mapping[str, Tag],
) -> BoundAsset:
    models = app.manifest.models_of(asset.type)
    writable = {
        name: tags[path]
        for name, path in asset.tags.items()
        if f"{asset.type}.{name}" in app.manifest.permissions.writes and tags[path].writable
    }
    return BoundAsset(
        path=asset.path,
        type=asset.type,
        title=asset.title,
        title_zh=asset.title_zh,
        tags={name: ids[path] for name, path in asset.tags.items()},
        units=asset.units,
        attributes=asset.attributes,
        relations=asset.relations,
        outputs={name: ids[path] for name, path in given_paths(app.manifest, asset).items()},
        shadows={
            each.name: ids[_place(app, asset, each.shadow)]
            for each in app.manifest.outputs
            if each.type == asset.type and each.model
        },
        drifts={model: ids[_place(app, asset, drift_name(model))] for model in models},
        writes={
            name: (edges[tag.connection], tag.connection, tag.path)
            for name, tag in writable.items()
        },
        settings=asset.settings,
    )
