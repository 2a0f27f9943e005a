"""Nodes that remember: what a quantity was, and since when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from headrace.formula.aggregate import increments
from headrace.formula.plan import US_PER_S, Context, Node
from headrace.formula.steps import (
    BAD_FROM,
    Bools,
    Grid,
    Keys,
    Series,
    Steps,
    finish,
    merge,
    worst,
)
from headrace.model import status as st

EWMA_REACH: Final = 40.0


@dataclass(frozen=True, slots=True, eq=False)
class _Reaching:
    """A node that looks back a set time from what it reads."""

    operand: Node
    duration_us: int

    @property
    def back_us(self) -> int:
        return self.operand.back_us + self.duration_us


@dataclass(frozen=True, slots=True, eq=False)
class _Differing:
    """A node that compares what it reads with the usable value before, however old that is."""

    operand: Node

    @property
    def back_us(self) -> int:
        return self.operand.back_us


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
        true, began = x.value == 1.0, self.began(x, grid)
        keys = np.union1d(x.keys, self._due(x.keys, true, began, context))
        at = np.searchsorted(x.keys, keys, "right") - 1
        known = (at >= 0) & (x.keys[at] >= grid.first_of_asset(keys))
        keys, at = keys[known], at[known]
        long_enough = true[at] & (keys - began[at] >= self.duration_us)
        value = np.where(np.isnan(x.value[at]), np.nan, long_enough.astype(np.float64))
        return Steps(keys, value, x.status[at])

    def began(self, x: Steps, grid: Grid) -> Keys:
        """For each key the key at which it last became true; its own where it is not."""
        return _run_starts(x.keys, x.value == 1.0, grid)

    def _due(self, keys: Keys, true: Bools, began: Keys, context: Context) -> Keys:
        """When it has been true for long enough, where it still is."""
        if not true.any():
            return keys[:0]
        due = np.unique(began[true]) + self.duration_us
        due = due[context.grid.at_us(due) < context.end_us]
        at = np.searchsorted(keys, due, "right") - 1
        still = true[at] & (began[at] + self.duration_us == due)
        return np.asarray(due[still], np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class NoData(_Reaching):
    """``no data from x for d``: true once no usable sample came for so long; false again with the next.

    Before the first sample there is no result. A sample without a usable value is no data, but time
    counts from it when it is the first.
    """

    def evaluate(self, context: Context) -> Series:
        x, grid = context.steps(self.operand), context.grid
        if not len(x.keys):
            return Steps(x.keys, x.value, x.status)
        due = x.keys + self.duration_us
        usable = x.keys[x.status < BAD_FROM]
        silent = np.searchsorted(usable, due, "right") == np.searchsorted(usable, x.keys, "right")
        keys = np.union1d(x.keys, due[silent & (grid.at_us(due) < context.end_us)])
        first = grid.first_of_asset(keys)
        since = np.maximum(keys - self.duration_us, first)
        got = np.searchsorted(usable, keys, "right") > np.searchsorted(usable, since, "right")
        began = np.searchsorted(x.keys, since, "right") > np.searchsorted(x.keys, first, "left")
        began &= since > first
        return Steps(keys, (began & ~got).astype(np.float64), np.zeros(len(keys), np.uint32))


def _run_starts(keys: Keys, true: Bools, grid: Grid) -> Keys:
    """For each key the key at which the run of true that it is in began; its own where it is false."""
    if not len(keys):
        return keys
    begins = np.ones(len(keys), np.bool_)
    begins[1:] = ~(true[1:] & true[:-1]) | (grid.asset(keys[1:]) != grid.asset(keys[:-1]))
    return keys[np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0))]


@dataclass(frozen=True, slots=True, eq=False)
class Lag(_Reaching):
    def evaluate(self, context: Context) -> Series:
        x = context.steps(self.operand)
        keys = x.keys + self.duration_us
        inside = context.grid.asset(keys) == context.grid.asset(x.keys)
        inside &= context.grid.at_us(keys) < context.end_us
        return x._replace(keys=keys[inside], value=x.value[inside], status=x.status[inside])


@dataclass(frozen=True, slots=True, eq=False)
class Hold(_Reaching):
    """A value that grows old: after the duration without a new one it is UncertainLastUsableValue."""

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
class Derivative(_Differing):
    """Difference to the usable value before, per second."""

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
class Increments(_Differing):
    """What a counter counted since its usable value before."""

    rollover: float

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
