"""What a site's engineers wrote, brought together: formulas checked against assets and tags, the derived
tags that they give, and the config that the apps role runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from headrace.formula.binding import Binding, Checked, check_all, lay
from headrace.formula.bound import Bound
from headrace.formula.measure import conversion, measure_of
from headrace.model.knowledge import (
    APP_DOT,
    LOCAL_EDGE,
    AppsConfig,
    AssetConfig,
    AssetTypeConfig,
    FormulaConfig,
    given_name,
)
from headrace.site.app_assets import (
    app_of,
    app_types,
    asset_config,
    note_app_formula,
    output_tags,
    shadow_tags,
    type_config,
)
from headrace.site.asset_sections import note_formula
from headrace.site.model import (
    DERIVED,
    PLAIN_UNITS,
    AssetType,
    Formula,
    Protection,
    SiteModel,
    Tag,
    parent_of,
)
from headrace.site.notes import Notes
from headrace.site.placement import edges_of, result_name
from headrace.site.tags import TagColumns

T = TypeVar("T")
Key = tuple[str, str]
"""(asset type, formula)."""


class FormulaVersion(NamedTuple):
    """Which text of a formula gives the results of a time.

    Attributes:
        version: from 1; each other text has the next one, also one that was there before.
        start_us: source time from which it gives the results.
        accepted_us: when the site file had it first.
        retired_us: when the formula left the site file; None while it is there.
    """

    asset_type: str
    name: str
    version: int
    kind: str
    text: str
    start_us: int
    accepted_us: int
    retired_us: int | None


def apps_config(
    model: SiteModel, ids: Mapping[str, int], versions: Mapping[Key, FormulaVersion]
) -> AppsConfig:
    """What the apps role runs.

    Args:
        ids: path -> tag_id, also of derived tags.
        versions: of each formula the one in force.
    """
    return _config(
        model,
        ids,
        {key: (found.version, found.start_us) for key, found in versions.items()},
    )


def _config(
    model: SiteModel, ids: Mapping[str, int], versions: Mapping[Key, tuple[int, int]]
) -> AppsConfig:
    kinds = {kind.name: kind for kind in (*model.asset_types, *app_types(model))}
    return AppsConfig(
        enterprise=model.enterprise,
        site=model.name,
        calendar=model.calendar,
        types=(
            *(_type_config(kind) for kind in model.asset_types),
            *(type_config(app, kind) for app in model.apps for kind in app.types),
        ),
        assets=tuple(
            msgspec.structs.replace(
                asset,
                outputs=_by_formula(asset.path, kinds[asset.type], ids),
                edges=_by_formula(asset.path, kinds[asset.type], model.on_edges),
            )
            for asset in _assets(model, kinds, ids)
        ),
        formulas=tuple(
            _formula_config(kind, formula, *versions.get((kind.name, formula.name), (1, 0)))
            for kind in kinds.values()
            for formula in kind.formulas
        ),
    )


def _assets(
    model: SiteModel, kinds: Mapping[str, AssetType], ids: Mapping[str, int]
) -> Iterable[AssetConfig]:
    """Those of the site, then each again as the apps see it; without what formulas give. What challengers
    give is no quantity of anything: no formula and no alarm can be of it."""
    tried = {tag.path for app in model.apps for tag in shadow_tags(app)}
    ids = {path: tag_id for path, tag_id in ids.items() if path not in tried} if tried else ids
    for asset in model.assets:
        yield AssetConfig(
            path=asset.path,
            type=asset.type,
            title=asset.title,
            title_zh=asset.title_zh,
            tags=_below(asset.path, kinds[asset.type].quantities, ids),
            attributes=asset.attributes,
            relations=asset.relations,
        )
    for app in model.apps:
        for each in app.assets:
            yield asset_config(app, each, ids)


def _type_config(kind: AssetType) -> AssetTypeConfig:
    return AssetTypeConfig(
        name=kind.name,
        title=kind.title,
        title_zh=kind.title_zh,
        quantities=kind.quantities,
        attributes=kind.attributes,
        relations=kind.relations,
        max_age_us=kind.max_age_us,
    )


def _formula_config(
    kind: AssetType, formula: Formula, version: int, start_us: int
) -> FormulaConfig:
    return FormulaConfig(
        asset_type=kind.name,
        name=formula.name,
        kind=formula.kind,
        text=formula.text,
        line=formula.line,
        version=version,
        start_us=start_us,
        state=formula.state,
        placement=formula.placement,
    )


def _by_formula(path: str, kind: AssetType, of_tags: Mapping[str, T]) -> dict[str, T]:
    """Formula -> what is said of its derived tag on an asset."""
    names = {each.name: each.state for each in kind.formulas if each.kind == "formula"}
    tags = {
        name: f"{path}/{given_name(kind.name, result_name(name, state))}"
        for name, state in names.items()
    }
    return {name: of_tags[tag] for name, tag in tags.items() if tag in of_tags}


def _below(path: str, names: Iterable[str], ids: Mapping[str, int]) -> dict[str, int]:
    return {name: ids[f"{path}/{name}"] for name in names if f"{path}/{name}" in ids}


def check_formulas(notes: Notes, model: SiteModel, columns: Sequence[TagColumns]) -> SiteModel:
    """Note what is wrong with formulas on these assets and tags; the site with the derived tags that they
    give, and with the edges that give some of them.

    Args:
        model: without its derived tags. columns: its tags with their lines.
    """
    kinds = (*model.asset_types, *app_types(model))
    given = [tag for app in model.apps for tag in output_tags(app)]
    if not given and not any(kind.formulas for kind in kinds):
        return model
    tags = {tag.path: tag for tag in model.tags}
    config = _config(model, dict.fromkeys((*tags, *(tag.path for tag in given)), 1), {})
    checked, problems = check_all(config)
    for found in problems:
        if (app := app_of(model, found.asset_type)) is not None:
            needed = found.asset_type.rpartition(APP_DOT)[2]
            note_app_formula(notes, app.manifest, needed, found.problem)
        else:
            note_formula(notes, found.asset_type, found.problem)
    binding = lay(config, checked, with_off=True)
    _note_units(notes, config, checked, columns)
    _note_protected(notes, config, checked, model.protections)
    derived = [*_derived_tags(model, binding), *given]
    _note_clashes(notes, model, derived, tags)
    edges, misplaced = edges_of(model, config, checked, binding.bound)
    for wrong in misplaced:
        app = app_of(model, wrong.asset_type)
        if app is not None:
            key: tuple[str, ...] = ("app", app.manifest.id)
        else:
            key = ("asset_type", wrong.asset_type, "placement", wrong.name)
        notes.at(key, wrong.code, wrong.what, wrong.remedy)
    apart = {path: edge for path, edge in edges.items() if edge != LOCAL_EDGE}
    return msgspec.structs.replace(model, derived=tuple(derived), on_edges=apart)


def _note_units(
    notes: Notes, config: AppsConfig, checked: Sequence[Checked], columns: Sequence[TagColumns]
) -> None:
    """A tag in another unit than its quantity would be counted wrongly: nothing converts it."""
    kinds = {kind.name: kind for kind in config.types}
    used = {
        _quantity_of(kinds, each.formula.asset_type, n) for each in checked for n in each.inputs
    }  # of an app's quantities the tags may be in other units
    types = {asset.path: asset.type for asset in config.assets if APP_DOT not in asset.type}
    for each in columns:
        for line, tag in zip(each.lines, each.tags, strict=True):
            place, _, name = tag.path.rpartition("/")
            kind = types.get(place, "")
            if (kind, name) not in used:
                continue
            unit = kinds[kind].quantities.get(name, "")
            if not _is_same(tag.unit, unit):
                what = f"{tag.path} is in {tag.unit or 'no unit'}, formulas count {kind}.{name} in {unit}"
                remedy = f"Give the tag the unit {unit}, with scale and offset that make it so."
                notes.add(
                    each.file, each.line_of(notes, line, "unit"), "unit", "SITE-1112", what, remedy
                )


def _note_protected(
    notes: Notes,
    config: AppsConfig,
    checked: Sequence[Checked],
    protections: Sequence[Protection],
) -> None:
    """What stays on the edge, or leaves for a tenant's key only, never reaches a formula: it would wait for
    ever, and nobody would know why."""
    kept = {
        path: each
        for each in protections
        if each.rule in ("stays", "encrypted")
        for path in each.paths
    }
    if not kept:
        return
    assets = {asset.path: asset for asset in config.assets}
    for each in checked:
        asset_type, name = each.key
        for asset in config.assets:
            read = [] if asset.type != asset_type else [_path_of(asset, n) for n in each.inputs]
            found = next((path for path in read if path in kept and _has(assets, path)), "")
            if found:
                by = kept[found]
                does = "stays on its edge" if by.rule == "stays" else "leaves its edge encrypted"
                what = f"{asset_type}.{name} reads {found}, which {does} (protection {by.name})"
                remedy = "Read another tag, or let it leave aggregated: see docs/protection.md."
                line = notes.text_line(("asset_type", asset_type, "formulas"), each.formula.line)
                field = f"asset_type.{asset_type}.formulas"
                notes.add(notes.file, line, field, "SEC-1545", what, remedy)
                break


def _path_of(asset: AssetConfig, name: str) -> str:
    """The tag that a name in a formula means on an asset."""
    relation, dot, rest = name.rpartition(".")
    return f"{asset.relations.get(relation, '')}/{rest}" if dot else f"{asset.path}/{name}"


def _has(assets: Mapping[str, AssetConfig], path: str) -> bool:
    place, _, name = path.rpartition("/")
    return place in assets and name in assets[place].tags


def _quantity_of(kinds: Mapping[str, AssetTypeConfig], kind: str, name: str) -> Key:
    relation, dot, rest = name.rpartition(".")
    return (kinds[kind].relations[relation], rest) if dot else (kind, name)


def _is_same(unit: str, other: str) -> bool:
    if other in PLAIN_UNITS or unit == other:
        return True
    one, two = measure_of(unit or "1"), measure_of(other or "1")
    if one is None or two is None or one.dimension != two.dimension:
        return one is None or two is None  # said before
    return conversion(one, two) == (1.0, 0.0)


def _derived_tags(model: SiteModel, binding: Binding) -> list[Tag]:
    """One for each asset of each formula; see :func:`result_name`."""
    former = _former_places(model)
    titles = {
        f"{kind.name}.{name}": title
        for kind in (*model.asset_types, *app_types(model))
        for name, title in kind.titles.items()
    }
    found = []
    for bound in binding.bound:
        if bound.role == "formula":
            title = titles.get(bound.key, ("", ""))
            found += [_derived(bound, path, former, title) for path in bound.assets]
    paths = {tag.path for tag in found}
    return [tag if paths.isdisjoint(tag.was) else _without_was(tag) for tag in found]


def _derived(
    bound: Bound, path: str, former: Mapping[str, tuple[str, ...]], title: tuple[str, str]
) -> Tag:
    kind, _, formula = bound.key.rpartition(".")
    name = given_name(kind, result_name(formula, bound.state))
    tried, tried_zh = (" (shadow)", "（影子）") if bound.state == "shadow" else ("", "")
    unit = bound.plan.unit if bound.plan.kind == "number" else ""
    return Tag(
        path=f"{path}/{name}",
        connection=DERIVED,
        address=bound.key,
        unit="" if unit == "1" else unit,
        title=(title[0] or formula[:1].upper() + formula[1:].replace("_", " ")) + tried,
        title_zh=title[1] and title[1] + tried_zh,
        scan_interval_ms=0,
        was=tuple(f"{place}/{name}" for place in former.get(path, ())),
    )


def _former_places(model: SiteModel) -> dict[str, tuple[str, ...]]:
    """Asset -> where it was earlier, as the ``was`` of its tags says; of one place one asset."""
    assets = {asset.path for asset in model.assets}
    found: dict[str, dict[str, None]] = {}
    for tag in model.tags:
        place = parent_of(tag.path)
        if tag.was and place in assets:
            for old in tag.was:
                if parent_of(old) != place:
                    found.setdefault(place, {})[parent_of(old)] = None
    claims = Counter(old for places in found.values() for old in places)
    return {
        place: tuple(old for old in places if claims[old] == 1) for place, places in found.items()
    }


def _without_was(tag: Tag) -> Tag:
    return Tag(
        tag.path, tag.connection, tag.address, tag.unit, tag.title, tag.title_zh,
        scan_interval_ms=tag.scan_interval_ms,
    )  # fmt: skip


def _note_clashes(
    notes: Notes, model: SiteModel, derived: Iterable[Tag], tags: Mapping[str, Tag]
) -> None:
    """A derived tag whose path a tag or equipment has; each formula is told once."""
    lines = {
        f"{kind.name}.{formula.name}": (kind.name, formula.line)
        for kind in (*model.asset_types, *app_types(model))
        for formula in kind.formulas
    }
    places = {item.path for item in model.equipment}
    said = set[str]()
    for tag in derived:
        other = "tag" if tag.path in tags else "equipment" if tag.path in places else ""
        if other and tag.address not in said:
            said.add(tag.address)
            kind, line = lines.get(tag.address, (tag.address.rpartition(APP_DOT)[0], 1))
            app = app_of(model, kind)
            if app is not None:
                what = f"{app.manifest.id} would give {tag.path}, which is {_article(other)}"
                remedy = "Rename that one: what an app gives is named by the app."
                notes.at(("app", app.manifest.id), "SITE-1111", what, remedy)
                continue
            key = ("asset_type", kind, "formulas")
            what = f"the formula {tag.address} would give {tag.path}, which is {_article(other)}"
            remedy = "Give the formula another name."
            notes.add(
                notes.file, notes.text_line(key, line), ".".join(key), "SITE-1111", what, remedy
            )


def _article(other: str) -> str:
    return "a tag already" if other == "tag" else "equipment"


def next_versions(
    known: Mapping[Key, FormulaVersion], model: SiteModel, now_us: int
) -> list[FormulaVersion]:
    """Versions that differ from the newest known ones: new texts, other starts, formulas that left.

    The first version of a formula gives results from the beginning, a later one from when it was
    accepted; ``start`` in the site file says otherwise.
    """
    found = []
    wanted = {
        (kind.name, formula.name): formula
        for kind in (*model.asset_types, *app_types(model))
        for formula in kind.formulas
    }
    for key, formula in wanted.items():
        last = known.get(key)
        if last is None or last.text != formula.text:
            number = last.version + 1 if last else 1
            default_us = now_us if last else 0
            start_us = default_us if formula.start_us is None else formula.start_us
            found.append(
                FormulaVersion(*key, number, formula.kind, formula.text, start_us, now_us, None)
            )
            continue
        start_us = last.start_us if formula.start_us is None else formula.start_us
        same = last._replace(start_us=start_us, retired_us=None)
        if same != last:
            found.append(same)
    found += [
        last._replace(retired_us=now_us)
        for key, last in known.items()
        if key not in wanted and last.retired_us is None
    ]
    return found
