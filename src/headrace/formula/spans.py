"""Nodes that give one value of a whole window: sliding, of the calendar, of a cycle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from headrace.formula.aggregate import AGGREGATES, view
from headrace.formula.plan import US_PER_S, Context, Node
from headrace.formula.steps import Grid, Keys, Series, Steps, finish, sample, times_of
from headrace.formula.windows import Ranges, between, sliding

CYCLE_MAX_US: Final = 7 * 86_400 * US_PER_S
_KEEPS_WORDS: Final = frozenset({"first", "last"})


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A function of the samples of a window, whatever the window is.

    Attributes:
        function: name in :data:`headrace.formula.aggregate.AGGREGATES`.
        other: a second quantity, sampled at the times of both.
    """

    function: str
    operand: Node
    other: Node | None
    options: tuple[float, ...] = ()

    @property
    def back_us(self) -> int:
        return max(self.operand.back_us, self.other.back_us if self.other else 0)

    def read(self, context: Context) -> tuple[Steps, Series | None]:
        """The samples of the windows, and the second quantity."""
        x = context.steps(self.operand)
        y = context.get(self.other) if self.other else None
        return (at_all_times(x, y, context.grid) if isinstance(y, Steps) else x), y

    def over(
        self,
        read: tuple[Steps, Series | None],
        ranges: Ranges,
        edges: tuple[Keys, Keys],
        grid: Grid,
    ) -> Steps:
        """One value of each window, at its end."""
        x, y = read
        made = AGGREGATES[self.function](view(x, y, ranges, edges, grid, *self.options))
        return finish(edges[1], *made, x.words if self.function in _KEEPS_WORDS else None)


def at_all_times(x: Steps, y: Steps, grid: Grid) -> Steps:
    """One quantity at the times of both."""
    keys = times_of([x, y])
    value, status = sample(x, keys, grid)
    return Steps(keys, value, status, x.words)


@dataclass(frozen=True, slots=True, eq=False)
class Sliding:
    """A function over the window ``(t - w, t]`` at each sample."""

    fold: Fold
    duration_us: int

    @property
    def back_us(self) -> int:
        return self.fold.back_us + self.duration_us

    def evaluate(self, context: Context) -> Series:
        grid, read = context.grid, self.fold.read(context)
        end = read[0].keys
        start = np.maximum(end - self.duration_us, grid.first_of_asset(end))
        return self.fold.over(read, sliding(end, self.duration_us, grid), (start, end), grid)


@dataclass(frozen=True, slots=True, eq=False)
class PerCalendar:
    """A function over each window of the calendar, given at the window's end."""

    fold: Fold
    name: str
    longest_us: int

    @property
    def back_us(self) -> int:
        return self.fold.back_us + 2 * self.longest_us

    def evaluate(self, context: Context) -> Series:
        assert context.calendar is not None, "the check asks for one"
        grid, read = context.grid, self.fold.read(context)
        keys = read[0].keys
        windows = context.calendar.windows(self.name, context.start_us, context.end_us)
        start, end = windows_of_assets(keys, windows, grid)
        made = self.fold.over(read, between(keys, start, end), (start, end), grid)
        return made._replace(hold_us=self.longest_us)


def windows_of_assets(
    keys: Keys, windows: Sequence[tuple[int, int]], grid: Grid
) -> tuple[Keys, Keys]:
    """Start and end of each window on each asset; an asset has none before its first sample."""
    spans = np.array(windows, np.int64).reshape(-1, 2)
    assets = np.unique(grid.asset(keys))
    start = grid.keys(np.repeat(assets, len(spans)), np.tile(spans[:, 0], len(assets)))
    end = grid.keys(np.repeat(assets, len(spans)), np.tile(spans[:, 1], len(assets)))
    if not len(keys):
        return start, end
    first = keys[np.searchsorted(keys, grid.first_of_asset(start), "left")]
    return start[end > first], end[end > first]


@dataclass(frozen=True, slots=True, eq=False)
class PerCycle:
    """A function over each time that a condition was true, or a value the same; given at its end."""

    fold: Fold
    of: Node
    kind: Literal["cycle", "value"]

    @property
    def back_us(self) -> int:
        return max(self.fold.back_us, self.of.back_us) + 2 * CYCLE_MAX_US

    def evaluate(self, context: Context) -> Series:
        grid, read = context.grid, self.fold.read(context)
        start, end = self.cycles(context.steps(self.of), grid)
        made = self.fold.over(read, between(read[0].keys, start, end), (start, end), grid)
        return made._replace(hold_us=CYCLE_MAX_US)

    def cycles(self, of: Steps, grid: Grid) -> tuple[Keys, Keys]:
        """Keys where cycles begin and where they end, of those that have ended."""
        keys, value = of.keys, of.value
        if len(keys) < 2:
            return keys[:0], keys[:0]
        begins = np.ones(len(keys), np.bool_)
        same = (value[1:] == value[:-1]) & (grid.asset(keys[1:]) == grid.asset(keys[:-1]))
        begins[1:] = ~same
        at = np.flatnonzero(begins)
        start, after = keys[at][:-1], keys[at][1:]
        ended = grid.asset(start) == grid.asset(after)
        wanted = value[at][:-1] == 1.0 if self.kind == "cycle" else ~np.isnan(value[at][:-1])
        # The first run of an asset may have begun before what is known; one that is too long is none.
        known = np.r_[False, grid.asset(start[1:]) == grid.asset(start[:-1])]
        chosen = ended & wanted & known & (after - start <= CYCLE_MAX_US)
        return start[chosen], after[chosen]
