"""What a checked formula does: nodes that turn series into series, for all assets at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np

from headrace.formula.pointwise import Kernel
from headrace.formula.steps import (
    BAD_FROM,
    Constant,
    Grid,
    Series,
    Steps,
    finish,
    sample,
    times_of,
)
<<<<<<< HEAD
from headrace.formula.windows import between, sliding
from headrace.model import status as st
from headrace.model.calendar import PlantCalendar
=======
>>>>>>> main

US_PER_S: Final = 1_000_000


class Calendar(Protocol):
    """The site's calendar, as far as windows need it."""

    def windows(self, name: str, start_us: int, end_us: int) -> Sequence[tuple[int, int]]:
        """(start, end) in UTC microseconds of each window that ends in ``[start_us, end_us)``."""
        ...

    def longest_us(self, name: str) -> int:
        """No window of this name is longer."""
        ...


@dataclass(slots=True)
class Context:
    """One evaluation.

    Attributes:
        grid: of all keys.
        inputs: quantities and attributes by name.
        start_us, end_us: what is known: from the earliest sample to where time has come.
        calendar: for ``per shift`` and the like.
    """

    grid: Grid
    inputs: Mapping[str, Series]
    start_us: int
    end_us: int
    calendar: Calendar | None = None
    done: dict[int, Series] = field(default_factory=dict)

    def get(self, node: Node) -> Series:
        """What a node gives; each is worked out once."""
        found = self.done.get(id(node))
        if found is None:
            found = self.done[id(node)] = node.evaluate(self)
        return found

    def steps(self, node: Node) -> Steps:
        found = self.get(node)
        assert isinstance(found, Steps), "the check refuses constants here"
        return found


class Node(Protocol):
    """``back_us``: how far before a time the inputs matter to what the node gives at that time."""

    @property
    def back_us(self) -> int: ...

    def evaluate(self, context: Context) -> Series: ...


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    name: str
    back_us: int = 0

    def evaluate(self, context: Context) -> Series:
        return context.inputs[self.name]


@dataclass(frozen=True, slots=True, eq=False)
class Literal_:
    value: float
    words: tuple[str, ...] | None = None
    back_us: int = 0

    def evaluate(self, context: Context) -> Series:
        return Constant(np.array([self.value]), self.words)


@dataclass(frozen=True, slots=True, eq=False)
class Pointwise:
    """A kernel on the values of one time; it gives one whenever an operand changes."""

    kernel: Kernel
    operands: tuple[Node, ...]
    words: tuple[str, ...] | None = None

    @property
    def back_us(self) -> int:
        return int(max(operand.back_us for operand in self.operands))

    def evaluate(self, context: Context) -> Series:
        series = [context.get(operand) for operand in self.operands]
        if not any(isinstance(each, Steps) for each in series):
            return self._constant(series)
        keys = times_of(series)
        values = [sample(each, keys, context.grid) for each in series]
        return finish(keys, *self.kernel(*values), self.words)

    def _constant(self, series: list[Series]) -> Constant:
        size = max(len(each.value) for each in series)
        pairs = [
            (np.broadcast_to(each.value, (size,)), np.where(np.isnan(each.value), BAD_FROM, 0))
            for each in series
        ]
        pairs = [(value, np.broadcast_to(s, (size,)).astype(np.uint32)) for value, s in pairs]
        value, status = self.kernel(*pairs)
        return Constant(np.where(status >= BAD_FROM, np.nan, value), self.words)


@dataclass(frozen=True, slots=True, eq=False)
class Recode:
    """A text in the words of the place where it is used."""

    operand: Node
    words: tuple[str, ...]

    @property
    def back_us(self) -> int:
        return self.operand.back_us

    def evaluate(self, context: Context) -> Series:
        series = context.get(self.operand)
        table = np.array([self._code(word) for word in series.words or ()] or [-1.0])
        codes = np.where(np.isnan(series.value), 0, series.value).astype(np.int64)
        value = np.where(np.isnan(series.value), np.nan, table[codes])
        return series._replace(value=value, words=self.words)

    def _code(self, word: str) -> float:
        return float(self.words.index(word)) if word in self.words else -1.0


@dataclass(frozen=True, slots=True, eq=False)
class SharedWords:
    """A measured text in words that it shares with another one."""

    operand: Node
    other: Node

    @property
    def back_us(self) -> int:
        return max(self.operand.back_us, self.other.back_us)

    def evaluate(self, context: Context) -> Series:
        mine, others = context.get(self.operand).words, context.get(self.other).words
        words = tuple(sorted({*(mine or ()), *(others or ())}))
        return Recode(self.operand, words).evaluate(context)


<<<<<<< HEAD
@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """``condition for d``: true once it was true without a break for so long."""

    condition: Node
    duration_us: int

    @property
    def back_us(self) -> int:
        return self.condition.back_us + self.duration_us

    def evaluate(self, context: Context) -> Series:
        x, grid = context.steps(self.condition), context.grid
        true = x.value == 1.0
        began = _run_starts(x.keys, true, grid)
        due = np.unique(began[true]) + self.duration_us
        due = due[grid.at_us(due) < context.end_us] if len(due) else due
        keys = np.union1d(x.keys, due)
        at = np.searchsorted(x.keys, keys, "right") - 1
        known = (at >= 0) & (x.keys[at] >= grid.first_of_asset(keys))
        keys, at = keys[known], at[known]
        long_enough = true[at] & (keys - began[at] >= self.duration_us)
        value = np.where(np.isnan(x.value[at]), np.nan, long_enough.astype(np.float64))
        return Steps(keys, value, x.status[at])


def _run_starts(keys: Keys, true: Bools, grid: Grid) -> Keys:
    """For each key the key at which the run of true that it is in began; its own where it is false."""
    if not len(keys):
        return keys
    begins = np.ones(len(keys), np.bool_)
    begins[1:] = ~(true[1:] & true[:-1]) | (grid.asset(keys[1:]) != grid.asset(keys[:-1]))
    return keys[np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0))]


@dataclass(frozen=True, slots=True, eq=False)
class Lag:
    operand: Node
    duration_us: int

    @property
    def back_us(self) -> int:
        return self.operand.back_us + self.duration_us

    def evaluate(self, context: Context) -> Series:
        x = context.steps(self.operand)
        keys = x.keys + self.duration_us
        inside = context.grid.asset(keys) == context.grid.asset(x.keys)
        inside &= context.grid.at_us(keys) < context.end_us
        return x._replace(keys=keys[inside], value=x.value[inside], status=x.status[inside])


@dataclass(frozen=True, slots=True, eq=False)
class Hold:
    """A value that grows old: after the duration without a new one it is UncertainLastUsableValue."""

    operand: Node
    duration_us: int

    @property
    def back_us(self) -> int:
        return self.operand.back_us + self.duration_us

    def evaluate(self, context: Context) -> Series:
        x, grid = context.steps(self.operand), context.grid
        if not len(x.keys):
            return x
        until = np.append(x.keys[1:], np.iinfo(np.int64).max)
        end = grid.first_of_asset(x.keys) + (context.end_us - grid.base_us)
        due = x.keys + self.duration_us
        old = (due < np.minimum(until, end)) & (x.status < BAD_FROM)
        status = np.maximum(worst(x.status[old]), np.uint32(st.UNCERTAIN_LAST_USABLE_VALUE))
        return merge(x, Steps(due[old], x.value[old], status))._replace(words=x.words)


@dataclass(frozen=True, slots=True, eq=False)
class Derivative:
    """Difference to the usable value before, per second."""

    operand: Node

    @property
    def back_us(self) -> int:
        return self.operand.back_us

    def evaluate(self, context: Context) -> Series:
        x, grid = context.steps(self.operand), context.grid
        at = np.flatnonzero(x.status < BAD_FROM)
        value = np.full(len(x.keys), np.nan)
        status = np.where(x.status < BAD_FROM, np.uint32(st.BAD_WAITING_FOR_INITIAL_DATA), x.status)
        if len(at) > 1:
            step = np.diff(x.keys[at])
            same = grid.asset(x.keys[at][1:]) == grid.asset(x.keys[at][:-1])
            later = at[1:][same]
            value[later] = np.diff(x.value[at])[same] / (step[same] / US_PER_S)
            status[later] = worst(x.status[later], x.status[at[:-1][same]])
        return finish(x.keys, value, status)


@dataclass(frozen=True, slots=True, eq=False)
class Increments:
    """What a counter counted since its usable value before."""

    operand: Node
    rollover: float

    @property
    def back_us(self) -> int:
        return self.operand.back_us

    def evaluate(self, context: Context) -> Series:
        x = context.steps(self.operand)
        value = np.where(x.status < BAD_FROM, increments(x, context.grid, self.rollover), np.nan)
        return finish(x.keys, value, worst(x.status))


@dataclass(frozen=True, slots=True, eq=False)
class Ewma:
    """Exponentially weighted mean of the samples, by their times; weights below e^-40 do not count."""

    operand: Node
    duration_us: int

    @property
    def back_us(self) -> int:
        return self.operand.back_us + int(EWMA_REACH * self.duration_us)

    def evaluate(self, context: Context) -> Series:
        x, grid = context.steps(self.operand), context.grid
        good = x.status < BAD_FROM
        frame = pl.DataFrame(
            {
                "value": x.value[good],
                "at": pl.Series(grid.at_us(x.keys[good]) * 1000).cast(pl.Datetime("ns")),
                "asset": grid.asset(x.keys[good]),
            }
        )
        half_life = f"{round(self.duration_us * 1000 * np.log(2))}ns"
        mean = pl.col("value").ewm_mean_by("at", half_life=half_life)
        value = np.full(len(x.keys), np.nan)
        if len(frame):
            value[good] = frame.select(mean.over("asset"))["value"].to_numpy()
        return finish(x.keys, value, worst(x.status))


@dataclass(frozen=True, slots=True, eq=False)
class Sliding:
    """A function over the window ``(t - w, t]`` at each sample."""

    function: str
    operand: Node
    other: Node | None
    duration_us: int
    options: tuple[float, ...] = ()

    @property
    def back_us(self) -> int:
        behind = max(self.operand.back_us, self.other.back_us if self.other else 0)
        return behind + self.duration_us

    def evaluate(self, context: Context) -> Series:
        x, grid = context.steps(self.operand), context.grid
        y = context.get(self.other) if self.other else None
        if isinstance(y, Steps):
            x = _at_all_times(x, y, grid)
        ranges = sliding(x.keys, self.duration_us, grid)
        start = np.maximum(x.keys - self.duration_us, grid.first_of_asset(x.keys))
        made = AGGREGATES[self.function](view(x, y, ranges, (start, x.keys), grid, *self.options))
        return finish(x.keys, *made, x.words if self.function in _KEEPS_WORDS else None)


_KEEPS_WORDS: Final = frozenset({"first", "last"})


def _at_all_times(x: Steps, y: Steps, grid: Grid) -> Steps:
    keys = times_of([x, y])
    value, status = sample(x, keys, grid)
    return Steps(keys, value, status, x.words)


@dataclass(frozen=True, slots=True, eq=False)
class PerCalendar:
    """A function over each window of the calendar, given at the window's end."""

    function: str
    operand: Node
    other: Node | None
    name: str
    longest_us: int
    options: tuple[float, ...] = ()

    @property
    def back_us(self) -> int:
        behind = max(self.operand.back_us, self.other.back_us if self.other else 0)
        return behind + 2 * self.longest_us

    def evaluate(self, context: Context) -> Series:
        calendar = context.calendar or PlantCalendar()  # windows of a length need no site
        x, grid = context.steps(self.operand), context.grid
        y = context.get(self.other) if self.other else None
        if isinstance(y, Steps):
            x = _at_all_times(x, y, grid)
        windows = calendar.windows(self.name, context.start_us, context.end_us)
        spans = np.array(windows, np.int64).reshape(-1, 2)
        assets = np.unique(grid.asset(x.keys))
        start = grid.keys(np.repeat(assets, len(spans)), np.tile(spans[:, 0], len(assets)))
        end = grid.keys(np.repeat(assets, len(spans)), np.tile(spans[:, 1], len(assets)))
        first = (
            x.keys[np.searchsorted(x.keys, grid.first_of_asset(start), "left")]
            if len(x.keys)
            else start
        )
        began = end > first  # an asset has no window before its first sample
        start, end = start[began], end[began]
        ranges = between(x.keys, start, end)
        made = AGGREGATES[self.function](view(x, y, ranges, (start, end), grid, *self.options))
        words = x.words if self.function in _KEEPS_WORDS else None
        return finish(end, *made, words)._replace(hold_us=self.longest_us)


@dataclass(frozen=True, slots=True, eq=False)
class PerCycle:
    """A function over each time that a condition was true, or a value the same; given at its end."""

    function: str
    operand: Node
    other: Node | None
    of: Node
    kind: Literal["cycle", "value"]
    options: tuple[float, ...] = ()

    @property
    def back_us(self) -> int:
        nodes = (self.operand, self.of, *((self.other,) if self.other else ()))
        return int(max(node.back_us for node in nodes)) + 2 * CYCLE_MAX_US

    def evaluate(self, context: Context) -> Series:
        x, grid = context.steps(self.operand), context.grid
        y = context.get(self.other) if self.other else None
        if isinstance(y, Steps):
            x = _at_all_times(x, y, grid)
        start, end = self._cycles(context.steps(self.of), grid)
        ranges = between(x.keys, start, end)
        made = AGGREGATES[self.function](view(x, y, ranges, (start, end), grid, *self.options))
        words = x.words if self.function in _KEEPS_WORDS else None
        return finish(end, *made, words)._replace(hold_us=CYCLE_MAX_US)

    def _cycles(self, of: Steps, grid: Grid) -> tuple[Keys, Keys]:
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


=======
>>>>>>> main
@dataclass(frozen=True, slots=True)
class Plan:
    """A checked formula.

    Attributes:
        root: what gives the result.
        inputs: names of the quantities and attributes it reads.
        back_us: how far before a time inputs matter; see :func:`headrace.formula.evaluate.evaluate`.
        kind: ``number``, ``condition`` or ``text``.
        unit: of a number; ``1`` for a bare one.
    """

    root: Node
    inputs: tuple[str, ...]
    back_us: int
    kind: Literal["number", "condition", "text"]
    unit: str
