"""What the role runs, made of what engineers wrote: bound formulas in order, and why others do not run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from headrace.apps.position import definition
from headrace.formula.binding import check_all, lay
from headrace.formula.bound import Bound
from headrace.formula.placing import BEFORE, at_place
from headrace.model.errors import HeadraceError
from headrace.model.knowledge import AppsConfig
from headrace.model.sample import Int64Array


class Stopped(NamedTuple):
    """Why a formula is not evaluated.

    Attributes:
        since_us: when that was found.
    """

    code: str
    what: str
    remedy: str
    since_us: int


@dataclass(frozen=True, slots=True)
class Knowledge:
    """One configuration, ready to run.

    Attributes:
        config: what was written.
        bounds: in order of evaluation; those that are stopped, or read one that is, are left out.
        ended: those that moved to another place: what comes late for the time before is worked out here.
        edge: the place; empty: the platform.
        definitions: key of each bound -> a hash of what an engineer says of it.
        stopped: key -> why it does not run.
        missing: key -> on how many assets it lacks a quantity.
    """

    config: AppsConfig
    bounds: tuple[Bound, ...] = ()
    definitions: Mapping[str, str] = field(default_factory=dict)
    stopped: Mapping[str, Stopped] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    ended: tuple[Bound, ...] = ()
    edge: str = ""

    @property
    def every(self) -> tuple[Bound, ...]:
        """Those that are evaluated, and those that ended."""
        return (*self.ended, *self.bounds)

    @property
    def inputs(self) -> Int64Array:
        """Tags that some formula reads, sorted, each once."""
        found = [ids for bound in self.every for ids in bound.inputs.values()]
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)

    @property
    def outputs(self) -> Int64Array:
        """Derived tags, sorted, each once."""
        found = [bound.outputs for bound in self.every if bound.role == "formula"]
        return np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)

    @property
    def assets(self) -> int:
        """How many have a formula."""
        return len({path for bound in self.bounds for path in bound.assets})

    def bound(self, key: str) -> Bound | None:
        """The bound formula of this key; None when it does not run."""
        return next((bound for bound in self.bounds if bound.key == key), None)

    def born(self, births: Mapping[str, int]) -> Knowledge:
        """The same, where formulas that are told no beginning have one: what was before is not theirs."""
        bounds = tuple(
            dataclasses.replace(bound, start_us=bound.start_us or births.get(bound.key, 0))
            for bound in self.bounds
        )
        ended = []
        for bound in self.ended:
            birth_us = births.get(_of_place(bound.key), 0)
            # An edge has no results of the platform from before it began, so it works out none of those.
            start_us = max(bound.start_us, birth_us) if self.edge else bound.start_us or birth_us
            ended.append(dataclasses.replace(bound, start_us=start_us))
        return dataclasses.replace(self, bounds=bounds, ended=tuple(ended))

    def readers(self, bound: Bound) -> Iterator[Bound]:
        """The formulas that read its results."""
        if bound.role == "formula":
            for other in self.every:
                if any(np.isin(ids, bound.outputs).any() for ids in other.inputs.values()):
                    yield other


def know(
    config: AppsConfig, broken: Mapping[str, Stopped], now_us: int, edge: str = ""
) -> Knowledge:
    """Check and bind what can be evaluated.

    Args:
        broken: formulas that failed when they were evaluated.
        now_us: since when what is wrong with the others is known.
        edge: on whose machine; empty: on the platform.
    """
    stopped = dict(broken)
    checked, problems = check_all(config)
    for found in problems:
        told = found.problem
        key = f"{found.asset_type}.{found.name}"
        stopped[key] = Stopped(told.code, told.what, told.remedy, now_us)
    able = {f"{each.formula.asset_type}.{each.formula.name}" for each in checked}
    for each in config.formulas:
        key = f"{each.asset_type}.{each.name}"
        if key not in able and key not in stopped and each.state != "off":
            stopped[key] = _reads_stopped(key, "a formula", now_us)
    binding = lay(config, checked)
    bounds, dead = [], np.empty(0, np.int64)
    for bound in binding.bound:
        reads = [name for name, ids in bound.inputs.items() if np.isin(ids, dead).any()]
        if reads and bound.key not in stopped:
            stopped[bound.key] = _reads_stopped(bound.key, reads[0], now_us)
        if bound.key in stopped or statement(bound.key) in stopped:
            dead = np.union1d(dead, bound.outputs[bound.outputs != 0])
        else:
            bounds.append(bound)
    texts = {f"{each.asset_type}.{each.name}": each.text for each in config.formulas}
    missing: dict[str, set[str]] = {}
    for path, key, _ in binding.missing:
        missing.setdefault(key, set()).add(path)
    placed = at_place(bounds, config, edge)
    return Knowledge(
        config=config,
        bounds=placed.live,
        ended=placed.ended,
        edge=edge,
        definitions={
            bound.key: definition(bound, texts[statement(bound.key)]) for bound in placed.live
        },
        stopped=stopped,
        missing={key: len(paths) for key, paths in missing.items()},
    )


def _reads_stopped(key: str, name: str, now_us: int) -> Stopped:
    text = f"{key} reads {name} that is stopped"
    return Stopped("APPS-1003", text, "Mend that one; this one follows.", now_us)


def statement(key: str) -> str:
    """The key of the statement that a bound is of: an alarm's end belongs to the alarm.

    Example:
        >>> statement("pump.hot/off")
        'pump.hot'
    """
    return key.partition("/")[0]


def _of_place(key: str) -> str:
    """The key that a formula had before it was moved."""
    return key.removesuffix(BEFORE)


def stopped_by(error: Exception, now_us: int) -> Stopped:
    """Why a formula stops that failed when it was evaluated."""
    if isinstance(error, HeadraceError):
        return Stopped(error.code, error.what, error.remedy, now_us)
    text = f"it cannot be evaluated: {type(error).__name__}: {error}"
    return Stopped("APPS-1004", text, "It is an error of ours: report it.", now_us)


def windows_of(bound: Bound) -> set[str]:
    """Names of the calendar windows that a formula uses."""
    return set(_names(bound.plan.root, set()))


def _names(node: object, seen: set[int]) -> Iterator[str]:
    if id(node) in seen or not dataclasses.is_dataclass(node):
        return
    seen.add(id(node))
    if hasattr(node, "longest_us"):
        yield node.name  # type: ignore[union-attr] # a window of the calendar
    for each in dataclasses.fields(node):
        value = getattr(node, each.name)
        for part in value if isinstance(value, tuple) else (value,):
            yield from _names(part, seen)
