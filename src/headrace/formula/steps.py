"""Quantities of many assets as steps: each value holds from its time until the next one.

One :class:`Grid` maps (asset, time) to one integer, so that a whole enterprise is one sorted array and
every operation is a few NumPy calls, whatever the number of assets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.model import status as st

Keys = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Statuses = npt.NDArray[np.uint32]
Bools = npt.NDArray[np.bool_]

CODE_MASK: Final = np.uint32(0xFFFF_0000)
UNCERTAIN_FROM: Final = np.uint32(0x4000_0000)
BAD_FROM: Final = np.uint32(0x8000_0000)


@dataclass(frozen=True, slots=True)
class Grid:
    """(asset, time) as one number: ``asset * span_us + (time - base_us)``.

    Attributes:
        assets: how many there are; they are numbered from 0.
        base_us: a time before every time of the evaluation, in UTC microseconds.
        span_us: longer than the whole evaluation; a power of two, so that a key is taken apart with masks.
    """

    assets: int
    base_us: int
    span_us: int

    def __post_init__(self) -> None:
        assert self.span_us & (self.span_us - 1) == 0, "a power of two"

    def keys(self, asset: Keys | int, at_us: Keys | int) -> Keys:
        return np.asarray(asset * self.span_us + (at_us - self.base_us), np.int64)

    def at_us(self, keys: Keys) -> Keys:
        return (keys & (self.span_us - 1)) + self.base_us

    def asset(self, keys: Keys) -> Keys:
        return keys >> (self.span_us.bit_length() - 1)

    def first_of_asset(self, keys: Keys) -> Keys:
        """The lowest key of each key's asset."""
        return keys & -self.span_us


class Steps(NamedTuple):
    """A quantity: keys ascending and unique; NaN where there is no value.

    Attributes:
        keys: int64, shape (n,), of the evaluation's :class:`Grid`.
        value: float64, shape (n,): a number, 1 or 0 for a condition, an index into ``words`` for a text.
        status: uint32, shape (n,), OPC UA StatusCodes.
        words: what the numbers of a text mean; None for numbers and conditions.
        hold_us: how long the last value may be used; 0 for ever.
    """

    keys: Keys
    value: Floats
    status: Statuses
    words: tuple[str, ...] | None = None
    hold_us: int = 0


class Constant(NamedTuple):
    """A number that is the same at all times: one for all assets, or one for each."""

    value: Floats
    words: tuple[str, ...] | None = None


Series = Steps | Constant


def worst(*statuses: Statuses) -> Statuses:
    """Of aligned statuses the worst: the numerically greatest code, so Bad before Uncertain before Good,
    and GoodClamped before Good. Info bits of the inputs say nothing of a result and are left out."""
    result = statuses[0] & CODE_MASK
    for other in statuses[1:]:
        result = np.maximum(result, other & CODE_MASK)
    return result


def finish(
    keys: Keys, value: Floats, status: Statuses, words: tuple[str, ...] | None = None
) -> Steps:
    """Steps of a result: no value where it is Bad, and Bad where arithmetic gave no number."""
    bad = status >= BAD_FROM
    strange = ~np.isfinite(value) & ~bad
    if strange.any():
        status = np.where(strange, np.uint32(st.BAD_OUT_OF_RANGE), status)
        bad = bad | strange
    return Steps(keys, np.where(bad, np.nan, value), status, words)


def times_of(series: list[Series]) -> Keys:
    """Every time at which one of them changes."""
    found = [each.keys for each in series if isinstance(each, Steps)]
    first = found[0]
    if all(each is first or np.array_equal(each, first) for each in found[1:]):
        return first
    return np.unique(np.concatenate(found))


def sample(series: Series, keys: Keys, grid: Grid) -> tuple[Floats, Statuses]:
    """Value and status of a quantity at given keys: the last one at or before (sample and hold).

    Before its first value it has BadWaitingForInitialData; longer after its last one than it may be
    held, BadNoData.
    """
    if isinstance(series, Constant):
        value = series.value if len(series.value) == 1 else series.value[grid.asset(keys)]
        values = np.broadcast_to(value, keys.shape)
        missing = np.isnan(values)
        return values, np.where(missing, np.uint32(st.BAD_NOT_FOUND), np.uint32(0))
    if series.keys is keys or np.array_equal(series.keys, keys):
        return series.value, series.status
    at = np.searchsorted(series.keys, keys, "right") - 1
    known = at >= 0
    at[~known] = 0
    if not len(series.keys):
        nothing = np.full(len(keys), st.BAD_WAITING_FOR_INITIAL_DATA, np.uint32)
        return np.full(len(keys), np.nan), nothing
    known &= series.keys[at] >= grid.first_of_asset(keys)
    value = np.where(known, series.value[at], np.nan)
    status = np.where(known, series.status[at], np.uint32(st.BAD_WAITING_FOR_INITIAL_DATA))
    if series.hold_us:
        old = known & (keys - series.keys[at] > series.hold_us)
        value = np.where(old, np.nan, value)
        status = np.where(old, np.uint32(st.BAD_NO_DATA), status)
    return value, status


def merge(one: Steps, other: Steps) -> Steps:
    """Both quantities' samples in one; where both have one at the same key, the first one's."""
    keys = np.concatenate([one.keys, other.keys])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.ones(len(keys), np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    order, keys = order[first], keys[first]
    value = np.concatenate([one.value, other.value])[order]
    return Steps(keys, value, np.concatenate([one.status, other.status])[order], one.words)


def clip(steps: Steps, start_us: int, end_us: int, grid: Grid) -> Steps:
    """What lies in ``[start, end)``."""
    at_us = grid.at_us(steps.keys)
    inside = (at_us >= start_us) & (at_us < end_us)
    if inside.all():
        return steps
    return steps._replace(
        keys=steps.keys[inside], value=steps.value[inside], status=steps.status[inside]
    )
