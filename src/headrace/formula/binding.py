"""From what engineers wrote to what evaluators take: each formula checked, put in order, and laid on the
assets that have what it needs.

::

    AppsConfig ──► parse ──► order (what is read comes first) ──► check ──► Plan ──► assets ──► Bound

A formula is checked once for its asset type and evaluated for all assets of it at once; so a type's
formula cannot need itself, not even by way of another asset.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np

from headrace.formula.alarm_check import OFF, SUPPRESSED, check_alarm
from headrace.formula.bound import Bound, Role
from headrace.formula.check import Kind, Quantity, check, is_scale
from headrace.formula.grammar import name_place, parse_statement
from headrace.formula.plan import Plan
from headrace.formula.problems import FormulaProblem
from headrace.formula.steps import Constant
from headrace.formula.tree import AlarmStatement, Name, Statement
from headrace.model.calendar import PlantCalendar
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig, FormulaConfig

_SUFFIXES: Final[Mapping[Role, str]] = {"alarm_off": OFF, "alarm_suppressed": SUPPRESSED}
Key = tuple[str, str]
"""(asset type, formula)."""
_OTHERS: Final = (
    ("quantities", "a quantity", "测量量"),
    ("attributes", "an attribute", "属性"),
    ("relations", "a relation", "关系"),
)


class Binding(NamedTuple):
    """What evaluators take.

    Attributes:
        bound: in order of evaluation: what reads another's output comes after it.
        missing: (asset path, formula's key, name that it lacks there): not evaluated there.
    """

    bound: tuple[Bound, ...]
    missing: tuple[tuple[str, str, str], ...]


class Found(NamedTuple):
    """A problem, with the formula that has it."""

    asset_type: str
    name: str
    problem: FormulaProblem


@dataclass(slots=True)
class Checked:
    """A formula with its plans: of an alarm that of its condition, and those of its end and of its
    suppression when it has them."""

    formula: FormulaConfig
    plans: dict[Role, Plan] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        return self.formula.asset_type, self.formula.name

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it reads, each once."""
        names = (name for plan in self.plans.values() for name in plan.inputs)
        return tuple(dict.fromkeys(name for name in names if not is_scale(name)))


def bind(config: AppsConfig, *, with_off: bool = False) -> Binding:
    """Lay all formulas on their assets.

    Args:
        with_off: also those that are switched off, to try them on history.

    Raises:
        FormulaProblem: the first that is wrong, with its place in the text of its type's formulas.

    Example:
        >>> pump = AssetTypeConfig(name="pump", quantities={"flow": "m3/h"})
        >>> twice = FormulaConfig(asset_type="pump", name="twice", text="twice = flow * 2")
        >>> one = AssetConfig(path="hall/p1", type="pump", tags={"flow": 7}, outputs={"twice": 8})
        >>> bind(AppsConfig(enterprise="acme", site="mill", types=(pump,), assets=(one,),
        ...                 formulas=(twice,))).bound[0].inputs["flow"].tolist()
        [7]
    """
    checked, problems = check_all(config)
    if problems:
        raise problems[0].problem
    return lay(config, checked, with_off=with_off)


def check_all(config: AppsConfig) -> tuple[list[Checked], list[Found]]:
    """Each formula with its plans, in order of evaluation; and what is wrong with the others.

    A formula that reads one with a problem is neither among the first nor among the second.
    """
    return _Check(config).run()


def lay(config: AppsConfig, checked: Iterable[Checked], *, with_off: bool = False) -> Binding:
    """The assets that have what each formula needs; see :func:`bind`."""
    layer, missing = _Layer(config), list[tuple[str, str, str]]()
    bound: list[Bound] = []
    for each in checked:
        assets = layer.assets_of(each, missing)
        if assets and (with_off or each.formula.state != "off"):
            bound += (layer.bound(each, role, assets) for role in each.plans)
    return Binding(tuple(bound), tuple(missing))


def names_in(config: AppsConfig, asset_type: str) -> dict[str, Quantity]:
    """What a formula of an asset type may name: quantities, attributes, formulas that are right, and
    those of the types that relations lead to."""
    run = _Check(config)
    run.run()
    return run.names(asset_type)


def lay_plan(config: AppsConfig, asset_type: str, plan: Plan) -> tuple[Bound | None, Binding]:
    """A plan that is no formula of the site yet, on the assets of a type.

    Returns:
        The plan on the assets that have what it reads, None when there are none; and the binding of all
        formulas, whose ``missing`` says for the key ``<asset type>.?`` what others lack.
    """
    checked, _ = check_all(config)
    formula = FormulaConfig(asset_type=asset_type, name="?", text="")
    binding = lay(config, [*checked, Checked(formula, {"formula": plan})], with_off=True)
    found = (bound for bound in binding.bound if bound.key == f"{asset_type}.?")
    return next(found, None), binding


def names_of(
    kind: AssetTypeConfig, formulas: Mapping[str, Plan], prefix: str = ""
) -> dict[str, Quantity]:
    """What formulas of a type may name, without its relations.

    Args:
        formulas: name -> plan of those that are checked.
        prefix: of each name, such as ``upstream.``.
    """
    found: dict[str, Quantity] = {}
    for name, unit in kind.quantities.items():
        age_us = kind.max_age_us.get(name, 0)
        converted = name in kind.converted
        found[prefix + name] = Quantity(
            _kind(unit), _unit(unit), max_age_us=age_us, converted=converted
        )
    for name, unit in kind.attributes.items():
        found[prefix + name] = Quantity(_kind(unit), _unit(unit), constant=True)
    for name, plan in formulas.items():
        found[prefix + name] = Quantity(plan.kind, plan.unit)
    return found


def _kind(unit: str) -> Kind:
    return unit if unit in ("text", "condition") else "number"  # type: ignore[return-value] # a kind


def _unit(unit: str) -> str:
    return "1" if unit in ("", "text", "condition") else unit


class _Check:
    """One run over all formulas of a site."""

    def __init__(self, config: AppsConfig) -> None:
        self.calendar: PlantCalendar = config.calendar
        self.types = {kind.name: kind for kind in config.types}
        self.formulas = {(each.asset_type, each.name): each for each in config.formulas}
        self.statements: dict[Key, Statement | AlarmStatement] = {}
        self.plans: dict[str, dict[str, Plan]] = {}
        self.problems: list[Found] = []

    def run(self) -> tuple[list[Checked], list[Found]]:
        for key, formula in self.formulas.items():
            try:
                self.statements[key] = parse_statement(formula.text, line=formula.line)
                self._no_clash(key)
            except FormulaProblem as problem:
                self._wrong(key, problem)
        checked = []
        for key in self._ordered():
            each = Checked(self.formulas[key])
            try:
                self._no_shadow(key)
                each.plans.update(self._plans(key))
            except FormulaProblem as problem:
                self._wrong(key, problem)
                continue
            checked.append(each)
            if "formula" in each.plans:
                self.plans.setdefault(key[0], {})[key[1]] = each.plans["formula"]
        places = {key: place for place, key in enumerate(self.formulas)}
        self.problems.sort(key=lambda found: places[found.asset_type, found.name])
        return checked, self.problems

    def _wrong(self, key: Key, problem: FormulaProblem) -> None:
        self.statements.pop(key, None)
        self.problems.append(Found(*key, problem))

    def type_of(self, name: str) -> AssetTypeConfig:
        return self.types.get(name) or AssetTypeConfig(name=name)

    def _no_clash(self, key: Key) -> None:
        kind, statement = self.type_of(key[0]), self.statements[key]
        for table, other, other_zh in _OTHERS:
            if key[1] in getattr(kind, table):
                raise FormulaProblem(
                    "FORM-1035", statement.source, name_place(statement), statement.line,
                    name=key[1], type=key[0], other=other, other_zh=other_zh,
                )  # fmt: skip

    def target(self, key: Key, name: str) -> Key | None:
        """The formula that a name means, if it means one."""
        relation, dot, rest = name.rpartition(".")
        kind = self.type_of(key[0]).relations.get(relation, "") if dot else key[0]
        found = self.formulas.get((kind, rest))
        return (kind, rest) if found is not None and found.kind == "formula" else None

    def _needs(self, key: Key) -> dict[Key, Name]:
        found: dict[Key, Name] = {}
        for name in _names_in(self.statements[key]):
            target = self.target(key, name.name)
            if target is not None:
                found.setdefault(target, name)
        return found

    def _no_shadow(self, key: Key) -> None:
        """What is in operation must not rest on what is only tried."""
        if self.formulas[key].state != "live":
            return
        for target, name in self._needs(key).items():
            if self.formulas[target].state == "shadow":
                statement = self.statements[key]
                raise FormulaProblem(
                    "FORM-1112", statement.source, name.place, statement.line,
                    name=key[1], read=".".join(target),
                )  # fmt: skip

    def _ordered(self) -> Iterator[Key]:
        """Formulas with what they read before them; what reads one with a problem is left out."""
        needs = {key: self._needs(key) for key in self.statements}
        for way in _cycles(needs):
            key, place = way[0], needs[way[0]][way[1]].place
            statement = self.statements[key]
            shown = " → ".join(".".join(each) for each in way)
            self._wrong(
                key,
                FormulaProblem(
                    "FORM-1034", statement.source, place, statement.line, name=key[1], way=shown
                ),
            )
        done: set[Key] = set()
        waiting = [key for key in needs if key in self.statements]
        while waiting:
            later = []
            for key in waiting:
                if needs[key].keys() <= done:
                    yield key
                    if key in self.statements:  # it was right
                        done.add(key)
                else:
                    later.append(key)
            if len(later) == len(waiting):
                return
            waiting = later

    def names(self, asset_type: str) -> dict[str, Quantity]:
        """See :func:`names_in`; of formulas those that were checked until now."""
        kind = self.type_of(asset_type)
        names = names_of(kind, self.plans.get(kind.name, {}))
        for relation, leads_to in kind.relations.items():
            plans = self.plans.get(leads_to, {})
            names |= names_of(self.type_of(leads_to), plans, f"{relation}.")
        return names

    def _plans(self, key: Key) -> dict[Role, Plan]:
        statement, names = self.statements[key], self.names(key[0])
        options = {
            "line": statement.line,
            "subject": key[0],
            "calendar": self.calendar,
            "calendar_names": self.calendar.names(),
        }
        if isinstance(statement, AlarmStatement):
            checked = check_alarm(statement, names, **options)
            return {role: plan for _, role, plan in checked.roles()}
        tree = statement.expression
        return {"formula": check(tree, statement.source, names, **options)}  # type: ignore[arg-type] # those of check


def _names_in(tree: object) -> Iterator[Name]:
    """Each name in a tree, in the order of the text."""
    if isinstance(tree, Name):
        yield tree
    elif isinstance(tree, tuple):
        for part in tree:
            yield from _names_in(part)
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for each in dataclasses.fields(tree):
            yield from _names_in(getattr(tree, each.name))


def _cycles(needs: Mapping[Key, Mapping[Key, Name]]) -> list[list[Key]]:
    """Ways that lead back to where they begin, each cycle once: ``[a, b, a]``."""
    found, done = list[list[Key]](), set[Key]()
    for start in needs:
        way: list[Key] = []
        ways = [iter([start])]
        while ways:
            key = next(ways[-1], None)
            if key is None:
                ways.pop()
                if way:
                    done.add(way.pop())
            elif key in way:
                found.append([*way[way.index(key) :], key])
            elif key not in done and key in needs:
                way.append(key)
                ways.append(iter(needs[key]))
    return found


class _Layer:
    """Names of formulas as tags and attributes of assets."""

    def __init__(self, config: AppsConfig) -> None:
        self.by_place = {(asset.type, asset.path): asset for asset in config.assets}
        self.by_type: dict[str, list[AssetConfig]] = {}
        for asset in config.assets:
            self.by_type.setdefault(asset.type, []).append(asset)
        self.formulas = {(each.asset_type, each.name) for each in config.formulas}
        self.types = {kind.name: kind for kind in config.types}
        self.served: dict[Key, frozenset[str]] = {}

    def assets_of(self, each: Checked, missing: list[tuple[str, str, str]]) -> list[AssetConfig]:
        """Those that have all that it reads."""
        found = []
        for asset in self.by_type.get(each.formula.asset_type, ()):
            lacks = [name for name in each.inputs if self._value(asset, name) is None]
            missing += ((asset.path, ".".join(each.key), name) for name in lacks)
            if not lacks:
                found.append(asset)
        self.served[each.key] = frozenset(asset.path for asset in found)
        return found

    def _value(self, asset: AssetConfig, name: str) -> int | float | str | None:
        """The tag of a quantity or formula, or the value of an attribute; None when it has none."""
        relation, dot, rest = name.rpartition(".")
        kind = self.types[asset.type]
        if dot:
            place = kind.relations[relation], asset.relations.get(relation, "")
            other = self.by_place.get(place)
            return None if other is None else self._value(other, rest)
        if is_scale(name):
            return asset.conversions.get(name[:-2], (1.0, 0.0))[name.endswith("+")]
        if name in kind.quantities:
            return asset.tags.get(name)
        if name in kind.attributes:
            return asset.attributes.get(name)
        served = self.served.get((asset.type, name), frozenset())
        return asset.outputs.get(name, 0) if asset.path in served else None

    def _is_attribute(self, kind: AssetTypeConfig, name: str) -> bool:
        relation, dot, rest = name.rpartition(".")
        if dot:
            kind, name = self.types[kind.relations[relation]], rest
        return name in kind.attributes or is_scale(name)

    def bound(self, each: Checked, role: Role, assets: list[AssetConfig]) -> Bound:
        formula, plan = each.formula, each.plans[role]
        kind = self.types[formula.asset_type]
        values = {name: [self._value(asset, name) for asset in assets] for name in plan.inputs}
        fixed = {name for name in plan.inputs if self._is_attribute(kind, name)}
        outputs = [asset.outputs.get(formula.name, 0) for asset in assets]
        return Bound(
            key=f"{formula.asset_type}.{formula.name}{_SUFFIXES.get(role, '')}",
            role=role,
            plan=plan,
            assets=tuple(asset.path for asset in assets),
            inputs={n: np.array(v, np.int64) for n, v in values.items() if n not in fixed},
            outputs=np.array(outputs if role == "formula" else [0] * len(assets), np.int64),
            attributes={n: _constant(v) for n, v in values.items() if n in fixed},
            version=formula.version,
            state=formula.state,
            start_us=formula.start_us,
        )


def _constant(values: list[int | float | str | None]) -> Constant:
    """One value for each asset; of texts the number of its word."""
    words = tuple(dict.fromkeys(value for value in values if isinstance(value, str)))
    if not words:
        return Constant(np.array(values, np.float64))
    return Constant(np.array([words.index(str(value)) for value in values], np.float64), words)
