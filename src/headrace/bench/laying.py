"""An app laid on a scenario's site: what the keeper makes of a site file, made of a scenario's ``bind``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import msgspec

from headrace.bench.scenario import Bind, Scenario
from headrace.formula.grammar import parse_file
from headrace.formula.tree import AlarmStatement
from headrace.model.app_manifest import AppManifest, NeededType
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.errors import Misconfigured
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig, FormulaConfig
from headrace.model.units import parse_unit, same_dimension

_PLAIN = ("", "text", "condition")


@dataclass(frozen=True)
class Laid:
    """An app on a site.

    Attributes:
        config: its formulas and alarms. deployment: what its Python gets.
        outputs: tag_id of each Python output -> (asset, name).
    """

    config: AppsConfig
    deployment: AppDeployment
    outputs: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def assets(self) -> int:
        """How many assets it is bound to."""
        return len(self.deployment.assets)


class _Ids:
    """Fresh tag ids, above those of the site."""

    def __init__(self, site: AppsConfig) -> None:
        used = [i for a in site.assets for i in (*a.tags.values(), *a.outputs.values())]
        self._last = max(used, default=0)

    def next(self) -> int:
        self._last += 1
        return self._last


def lay_app(manifest: AppManifest, site: AppsConfig, scenario: Scenario, sha256: str = "") -> Laid:
    """Bind an app to the assets of a scenario's site.

    Raises:
        Misconfigured: APPS-2410 there is no such type, or no asset that has what the app needs; APPS-2411 a
            quantity is in a unit that is not the app's; APPS-2412 a setting that the app has not.
        FormulaProblem: when its formulas cannot be read.
    """
    ids, word = _Ids(site), manifest.word
    types, assets, bound = list[AssetTypeConfig](), list[AssetConfig](), list[BoundAsset]()
    formulas, outputs = list[FormulaConfig](), dict[int, tuple[str, str]]()
    settings = _settings(manifest, scenario.settings)
    for name, needed in manifest.types.items():
        bind = scenario.bind.get(name, Bind())
        kind, found = _chosen(name, needed, bind, site, scenario)
        names = _names(needed, bind, kind)
        texts = _formulas(manifest, name)
        formulas += texts
        types.append(_type(manifest, name, needed, bind, kind, names))
        for asset in found:
            config = AssetConfig(
                path=asset.path,
                type=f"{word}.{name}",
                title=asset.title,
                tags={n: asset.tags[of] for n, of in names.items() if of in asset.tags},
                attributes=_attributes(manifest, needed, bind, asset, settings),
                relations={n: asset.relations[n] for n in needed.relations if n in asset.relations},
                outputs={each.name: ids.next() for each in texts if each.kind == "formula"},
            )
            assets.append(config)
            given = {o.name: ids.next() for o in manifest.outputs if o.type == name}
            outputs.update({tag: (asset.path, each) for each, tag in given.items()})
            units = {n: types[-1].quantities[n] for n in config.tags}
            bound.append(_bound(config, name, units, given, bind))
    app_config = msgspec.structs.replace(
        site, types=tuple(types), assets=tuple(assets), formulas=tuple(formulas)
    )
    deployment = AppDeployment(
        enterprise=site.enterprise,
        site=site.site,
        manifest=manifest,
        package_sha256=sha256,
        assets=tuple(bound),
        settings=settings,
        calendar=site.calendar,
    )
    return Laid(app_config, deployment, outputs)


def _bound(
    config: AssetConfig, name: str, units: dict[str, str], given: dict[str, int], bind: Bind
) -> BoundAsset:
    return BoundAsset(
        path=config.path,
        type=name,
        title=config.title,
        tags=config.tags,
        units=units,
        attributes=config.attributes,
        relations=config.relations,
        outputs=given,
        settings=bind.settings,
    )


def _chosen(
    name: str, needed: NeededType, bind: Bind, site: AppsConfig, scenario: Scenario
) -> tuple[AssetTypeConfig, list[AssetConfig]]:
    wanted = bind.type or needed.package or name
    kind = next((each for each in site.types if each.name == wanted), None)
    if kind is None:
        raise Misconfigured(
            "APPS-2410",
            f"the site of scenario {scenario.name} has no assets of type {wanted}, which the app needs"
            f" as {name}; it has {', '.join(each.name for each in site.types)}",
            f"Name the type in the scenario: [bind.{name}] type = ...",
        )
    names = _names(needed, bind, kind)
    patterns = bind.assets or ["*"]
    alike = [
        asset
        for asset in site.assets
        if asset.type == wanted and any(fnmatchcase(asset.path, each) for each in patterns)
    ]
    found = [a for a in alike if all(names[n] in a.tags for n in needed.quantities)]
    if not found:
        lacking = sorted(n for n in needed.quantities if not any(names[n] in a.tags for a in alike))
        raise Misconfigured(
            "APPS-2410",
            f"no {wanted} of scenario {scenario.name} has what the app needs as {name}"
            + (f": no {', '.join(lacking)}" if lacking else f"; of {len(alike)} that are meant"),
            f"Map names in the scenario: [bind.{name}.quantities]",
        )
    return kind, found


def _names(needed: NeededType, bind: Bind, kind: AssetTypeConfig) -> dict[str, str]:
    """The app's quantity -> the site's; optional ones that the type has not are left out."""
    found = {name: bind.quantities.get(name, name) for name in needed.quantities}
    for name in needed.optional:
        if (of := bind.quantities.get(name, name)) in kind.quantities:
            found[name] = of
    return found


def _type(
    manifest: AppManifest,
    name: str,
    needed: NeededType,
    bind: Bind,
    kind: AssetTypeConfig,
    names: dict[str, str],
) -> AssetTypeConfig:
    units = {}
    for quantity, of in names.items():
        wanted = {**needed.quantities, **needed.optional}[quantity]
        have = kind.quantities[of]
        units[quantity] = _unit(f"{quantity} of {name}", wanted, have)
    attributes = dict(needed.attributes)
    for setting, each in manifest.settings.items():
        if each.kind == "number" and setting not in attributes and setting not in units:
            attributes[setting] = each.unit
    return AssetTypeConfig(
        name=f"{manifest.word}.{name}",
        quantities=units,
        attributes=attributes,
        relations={n: f"{manifest.word}.{to}" for n, to in needed.relations.items()},
    )


def _unit(what: str, wanted: str, have: str) -> str:
    """The site's unit, in which the tag's values are; formulas and frames convert it."""
    if have == wanted or (wanted in _PLAIN and have in _PLAIN and "text" not in (have, wanted)):
        return have
    if not have and parse_unit(wanted) is not None:
        return wanted  # a recording that says no unit is taken by the app's word
    if same_dimension(have, wanted):
        return have
    raise Misconfigured(
        "APPS-2411",
        f"{what} is in {have or 'no unit'}, and the app needs {wanted or 'no unit'}",
        "Correct the unit in app.toml, or map another quantity.",
    )


def _attributes(
    manifest: AppManifest,
    needed: NeededType,
    bind: Bind,
    asset: AssetConfig,
    settings: Mapping[str, float | str | bool],
) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for name in needed.attributes:
        given = bind.attributes.get(name, name)
        value = asset.attributes.get(given) if isinstance(given, str) else given
        if value is None and name in bind.attributes:
            value = bind.attributes[name]
        if value is not None:
            found[name] = value
    for name, setting in manifest.settings.items():
        value = bind.settings.get(name, settings[name])
        if setting.kind == "number" and name not in found and not isinstance(value, str):
            found[name] = float(value)
    return found


def _settings(
    manifest: AppManifest, given: Mapping[str, float | str | bool]
) -> dict[str, float | str | bool]:
    unknown = sorted(given.keys() - manifest.settings.keys())
    if unknown:
        raise Misconfigured(
            "APPS-2412",
            f"the app {manifest.id} has no setting {unknown[0]}",
            f"It has {', '.join(manifest.settings) or 'none'}.",
        )
    return {name: given.get(name, each.default) for name, each in manifest.settings.items()}


def _formulas(manifest: AppManifest, name: str) -> list[FormulaConfig]:
    text = manifest.formulas.get(name, "")
    return [
        FormulaConfig(
            asset_type=f"{manifest.word}.{name}",
            name=each.name,
            kind="alarm" if isinstance(each, AlarmStatement) else "formula",
            text=each.source,
            line=each.line,
        )
        for each in parse_file(text)
    ]
