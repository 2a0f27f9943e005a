"""What an expression means that is no formula of the site yet: on equipment, or on an asset type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import polars as pl

from headrace.formula.binding import check_all, lay, lay_plan, names_in
from headrace.formula.bound import Bound
from headrace.formula.check import Kind, Quantity, compile_formula
from headrace.formula.plan import Plan
from headrace.historian.formulas import AssetTags, Progress, evaluate_history, kinds_of
from headrace.historian.reader import Reader
from headrace.model.calendar import PlantCalendar
from headrace.model.errors import Misconfigured
from headrace.model.knowledge import APP_DOT, AppsConfig, AssetConfig, AssetTypeConfig
from headrace.site.notes import near
from headrace.site.registry import compile_pattern

Tags = Sequence[tuple[str, int, str]]
"""Path, id and unit of each tag of the site."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where an expression is evaluated.

    Attributes:
        config: of the site, with ``asset_type`` in it.
        asset_type: the kind of asset whose names it uses.
    """

    config: AppsConfig
    asset_type: str

    @property
    def calendar(self) -> PlantCalendar:
        """The site's."""
        return self.config.calendar

    def names(self) -> dict[str, Quantity]:
        """What it may name, with units and kinds."""
        return names_in(self.config, self.asset_type)

    def compile(self, text: str) -> Plan:
        """The plan of an expression.

        Raises:
            FormulaProblem: what is wrong with it, with its place.
        """
        return compile_formula(
            text,
            self.names(),
            subject=self.asset_type,
            calendar=self.calendar,
            calendar_names=self.calendar.names(),
        )

    def lay(self, plan: Plan) -> Laid:
        """The plan on all assets that have what it reads.

        Raises:
            Misconfigured: SITE-2003 when there is none.
        """
        bound, binding = lay_plan(self.config, self.asset_type, plan)
        lacking = tuple((path, lacks) for path, key, lacks in binding.missing if key.endswith(".?"))
        if bound is None:
            shown = ", ".join(f"{path} lacks {name}" for path, name in lacking[:3])
            raise Misconfigured(
                "SITE-2003",
                f"no asset of {self.asset_type} has all that the formula reads",
                shown + "." if shown else "Give an asset this type in the site file.",
            )
        return Laid(bound, lacking, self.calendar)


@dataclass(frozen=True, slots=True)
class Laid:
    """A plan on its assets.

    Attributes:
        lacking: (asset path, name that it lacks) of assets on which it is not evaluated.
    """

    bound: Bound
    lacking: tuple[tuple[str, str], ...]
    calendar: PlantCalendar

    @property
    def assets(self) -> list[AssetTags]:
        """Those it is evaluated on, with the tags of its inputs."""
        columns = {name: ids.tolist() for name, ids in self.bound.inputs.items()}
        return [
            AssetTags(path, {name: ids[place] for name, ids in columns.items()})
            for place, path in enumerate(self.bound.assets)
        ]

    @property
    def tag_ids(self) -> list[int]:
        """Every tag that it reads."""
        return [tag_id for ids in self.bound.inputs.values() for tag_id in ids.tolist()]

    def on_history(
        self, reader: Reader, start_us: int, end_us: int, progress: Progress | None = None
    ) -> Iterator[pl.DataFrame]:
        """Its samples; see :func:`headrace.historian.formulas.evaluate_history`."""
        return evaluate_history(
            reader,
            self.bound.plan,
            self.assets,
            start_us,
            end_us,
            attributes=self.bound.attributes,
            calendar=self.calendar,
            progress=progress,
        )


class FormulaLine(msgspec.Struct, frozen=True, kw_only=True):
    """A formula or alarm of the site in one line.

    Attributes:
        unit: of its results, ``condition`` or ``text``.
        assets: on how many it is evaluated.
        missing: (asset path, name that it lacks) of the others.
        edges: that evaluate it on their own machines. on_platform: the platform evaluates it, on some
            assets at least.
    """

    asset_type: str
    name: str
    kind: str
    version: int
    state: str
    text: str
    start_us: int
    unit: str
    assets: int
    missing: tuple[tuple[str, str], ...] = ()
    edges: tuple[str, ...] = ()
    on_platform: bool = True


def formula_lines(config: AppsConfig | None) -> list[FormulaLine]:
    """Every formula and alarm of the site, in the order of the site file."""
    if config is None:
        return []
    checked, _ = check_all(config)
    binding = lay(config, checked, with_off=True)
    counts = {bound.key: len(bound.assets) for bound in binding.bound}
    places = _places(config, binding.bound)
    missing: dict[str, list[tuple[str, str]]] = {}
    for path, name, lacks in binding.missing:
        missing.setdefault(name, []).append((path, lacks))
    plans = {each.key: next(iter(each.plans.values())) for each in checked}
    found = []
    for formula in config.formulas:
        key = formula.asset_type, formula.name
        plan = plans.get(key)
        found.append(
            FormulaLine(
                asset_type=formula.asset_type,
                name=formula.name,
                kind=formula.kind,
                version=formula.version,
                state=formula.state,
                text=formula.text,
                start_us=formula.start_us,
                unit="" if plan is None else plan.unit if plan.kind == "number" else plan.kind,
                assets=counts.get(".".join(key), 0),
                missing=tuple(missing.get(".".join(key), ())),
                edges=tuple(sorted(places.get(".".join(key), {""}) - {""})),
                on_platform="" in places.get(".".join(key), {""}),
            )
        )
    return found


def _places(config: AppsConfig, bounds: Iterable[Bound]) -> dict[str, set[str]]:
    """Formula -> the edges that evaluate it; "" is the platform."""
    assets = {(asset.type, asset.path): asset for asset in config.assets}
    found: dict[str, set[str]] = {}
    for bound in bounds:
        if bound.role == "formula":
            kind, _, name = bound.key.rpartition(".")
            found[bound.key] = {assets[kind, path].edges.get(name, "") for path in bound.assets}
    return found


def ground_of_type(config: AppsConfig | None, asset_type: str) -> Ground:
    """An asset type of the site file, on all its assets.

    Raises:
        Misconfigured: SITE-2004 when there is none of this name.
    """
    known = [kind.name for kind in config.types] if config else []
    if config is None or asset_type not in known:
        raise Misconfigured(
            "SITE-2004",
            f"there is no asset type {asset_type!r}",
            near(asset_type, known) or "Declare it in the site file: [asset_type.NAME]",
        )
    return Ground(config, asset_type)


def ground_of_equipment(
    config: AppsConfig | None, pattern: str, tags: Tags, reader: Reader
) -> Ground:
    """Equipment whose path matches, with the tags right below it; and, where all of it is of one asset
    type, with that type's attributes and relations.

    Args:
        pattern: glob over equipment paths, such as ``utilities/*/pump_*``.

    Raises:
        Misconfigured: SITE-2001 when nothing matches; SITE-2002 when assets have one quantity in
            different units.
    """
    config = config or AppsConfig(enterprise="", site="")
    found = equipment_of(((path, tag_id) for path, tag_id, _ in tags), pattern)
    names = quantities_of(found, {tag_id: unit for _, tag_id, unit in tags}, reader)
    own = [asset for asset in config.assets if APP_DOT not in asset.type]
    by_path = {asset.path: asset for asset in own}
    kinds = {by_path[each.path].type if each.path in by_path else "" for each in found}
    base = next((kind for kind in config.types if kinds == {kind.name}), None)
    known = names_in(config, base.name) if base else {}
    units = {name: _unit(names[name], known.get(name)) for name in names}
    name = f"equipment {pattern}"  # no asset type is called so
    kind = AssetTypeConfig(name=name, quantities=units)
    if base is not None:
        kind = msgspec.structs.replace(
            kind,
            attributes={n: unit for n, unit in base.attributes.items() if n not in units},
            relations=base.relations,
            max_age_us={n: age_us for n, age_us in base.max_age_us.items() if n in units},
        )
    assets = {
        each.path: msgspec.structs.replace(
            by_path.get(each.path) or AssetConfig(path=each.path, type=""),
            type=name,
            tags=each.tags,
        )
        for each in found
    }
    others = (asset for asset in own if asset.path not in assets)
    return Ground(
        msgspec.structs.replace(
            config, types=(*config.types, kind), assets=(*others, *assets.values())
        ),
        name,
    )


def _unit(found: Quantity, declared: Quantity | None) -> str:
    """As an asset type says it: the tag's own unit, but whether it is a number as declared."""
    kind: Kind = found.kind
    if declared is not None and (declared.kind != "number" or found.kind == "number"):
        kind = declared.kind
    return found.unit if kind == "number" else kind


def equipment_of(paths: Iterable[tuple[str, int]], pattern: str) -> list[AssetTags]:
    """Equipment whose path matches, with the tags right below it.

    Args:
        paths: path and id of each tag.
        pattern: glob over equipment paths, such as ``utilities/*/pump_*``.

    Raises:
        Misconfigured: SITE-2001 when nothing matches.

    Example:
        >>> equipment_of([("hall/pump_1/flow", 7), ("hall/pump_2/flow", 8)], "hall/pump_*")[1].tags
        {'flow': 8}
    """
    matches = compile_pattern(pattern)
    found: dict[str, dict[str, int]] = {}
    for path, tag_id in paths:
        equipment, _, name = path.rpartition("/")
        if matches.fullmatch(equipment):
            found.setdefault(equipment, {})[name] = tag_id
    if not found:
        raise Misconfigured(
            "SITE-2001", f"no equipment matches {pattern!r}", "See it with: headrace site show"
        )
    return [AssetTags(path, tags) for path, tags in sorted(found.items())]


def quantities_of(
    assets: Sequence[AssetTags], units: dict[int, str], reader: Reader
) -> dict[str, Quantity]:
    """What formulas may name on all of the assets, with units and kinds.

    Args:
        units: of tags by id.

    Raises:
        Misconfigured: SITE-2002 when assets have one quantity in different units.
    """
    names = set(assets[0].tags).intersection(*(asset.tags for asset in assets[1:]))
    kinds = kinds_of(reader, [asset.tags[name] for asset in assets for name in names])
    found = {}
    for name in sorted(names):
        ids = [asset.tags[name] for asset in assets]
        different = sorted({units.get(tag_id, "") for tag_id in ids})
        if len(different) > 1:
            raise Misconfigured(
                "SITE-2002",
                f"{name} is in {' and '.join(different)} on {assets[0].path} and others",
                "Evaluate the formula on assets whose quantities have one unit.",
            )
        kind = "text" if any(kinds[tag_id] == "text" for tag_id in ids) else "number"
        found[name] = Quantity(kind, different[0] or "1")  # type: ignore[arg-type] # one of the two
    return found
