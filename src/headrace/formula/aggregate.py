"""Functions over windows: one value of all samples of a window, or of the steps through it.

Each takes a :class:`View` and gives value and status of every window. Bad samples do not count; a
window with some of them is UncertainDataSubNormal, a window of nothing else BadNoData.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from headrace.formula.spectrum import band_mean_square
from headrace.formula.steps import (
    BAD_FROM,
    UNCERTAIN_FROM,
    Bools,
    Floats,
    Grid,
    Keys,
    Series,
    Statuses,
    Steps,
    sample,
)
from headrace.formula.windows import Moments, Ranges
from headrace.model import status as st

_US: Final = 1e-6


@dataclass(frozen=True, slots=True)
class View:
    """Windows on samples.

    Attributes:
        x: the samples.
        y: a second quantity, sampled at the times of the first; the same when there is none.
        ranges: which samples lie in each window.
        start, end: keys of each window's edges.
        grid: of the keys.
        usable: bool, shape (n,): samples that count.
        options: numbers that the function was given by name or place.
    """

    x: Steps
    y: Floats
    ranges: Ranges
    start: Keys
    end: Keys
    grid: Grid
    usable: Bools
    options: tuple[float, ...] = ()

    @property
    def good(self) -> Floats:
        """1 for samples that count."""
        return self.usable.astype(np.float64)


Aggregate = Callable[[View], tuple[Floats, Statuses]]


def view(
    x: Steps,
    y: Series | None,
    ranges: Ranges,
    edges: tuple[Keys, Keys],
    grid: Grid,
    *options: float,
) -> View:
    """Windows on one quantity or two."""
    usable = x.status < BAD_FROM
    if y is None:
        return View(x, x.value, ranges, *edges, grid, usable, options)
    value, status = sample(y, x.keys, grid)
    return View(x, value, ranges, *edges, grid, usable & (status < BAD_FROM), options)


def _status(view: View, used: Floats, all_of_it: Floats) -> Statuses:
    """From how much of each window counts."""
    doubtful = view.ranges.count_of(view.x.status >= UNCERTAIN_FROM)
    status = np.where(
        (used < all_of_it) | (doubtful > 0), np.uint32(st.UNCERTAIN_DATA_SUB_NORMAL), np.uint32(0)
    )
    return np.where(used > 0, status, np.uint32(st.BAD_NO_DATA))


def _by_samples(view: View, value: Floats, least: int = 1) -> tuple[Floats, Statuses]:
    used = view.ranges.count_of(view.usable)
    status = _status(view, used, view.ranges.count.astype(np.float64))
    return value, np.where(used >= least, status, np.uint32(st.BAD_NO_DATA))


def _usable(view: View, empty: float) -> Floats:
    return view.x.value if view.usable.all() else np.where(view.usable, view.x.value, empty)


def count(view: View) -> tuple[Floats, Statuses]:
    used = view.ranges.count_of(view.usable)
    return used, np.zeros(len(used), np.uint32)


def total(view: View) -> tuple[Floats, Statuses]:
    return _by_samples(view, view.ranges.sum(_usable(view, 0.0)))


def mean(view: View) -> tuple[Floats, Statuses]:
    used = view.ranges.count_of(view.usable)
    return _by_samples(view, view.ranges.sum(_usable(view, 0.0)) / np.maximum(used, 1.0))


def least(view: View) -> tuple[Floats, Statuses]:
    return _by_samples(view, view.ranges.min(_usable(view, np.inf)))


def most(view: View) -> tuple[Floats, Statuses]:
    return _by_samples(view, view.ranges.max(_usable(view, -np.inf)))


def first(view: View) -> tuple[Floats, Statuses]:
    """The first sample that counts."""
    return _pick(view, next_usable(view.usable), view.ranges.low)


def last(view: View) -> tuple[Floats, Statuses]:
    return _pick(view, last_usable(view.usable), view.ranges.high - 1)


def _pick(view: View, usable: Keys, at: Keys) -> tuple[Floats, Statuses]:
    n = len(view.x.keys)
    if not n:
        return np.full(len(at), np.nan), np.full(len(at), st.BAD_NO_DATA, np.uint32)
    chosen = usable[np.clip(at, 0, n - 1)]
    inside = (chosen >= view.ranges.low) & (chosen < view.ranges.high)
    return _by_samples(view, np.where(inside, view.x.value[np.clip(chosen, 0, n - 1)], np.nan))


def next_usable(usable: Bools) -> Keys:
    """For each place the first usable one from there on; the length when there is none."""
    n = len(usable)
    places = np.where(usable, np.arange(n), n)
    return np.minimum.accumulate(places[::-1])[::-1]


def last_usable(usable: Bools) -> Keys:
    """For each place the last usable one up to there; -1 when there is none."""
    return np.asarray(np.maximum.accumulate(np.where(usable, np.arange(len(usable)), -1)), np.int64)


def std(view: View) -> tuple[Floats, Statuses]:
    """Of a sample: divided by n - 1."""
    m = _moments(view, view.x.value, view.x.value)
    return _by_samples(view, np.sqrt(m.xx / np.maximum(m.n - 1, 1)), 2)


def slope(view: View) -> tuple[Floats, Statuses]:
    """Least squares, per second."""
    good = view.good
    y = np.where(good > 0, view.x.value, 0.0)
    m = view.ranges.moments_of_time(view.grid.at_us(view.x.keys), y, good)
    with np.errstate(all="ignore"):
        return _by_samples(view, m.xy / m.xx, 2)


def correlation(view: View) -> tuple[Floats, Statuses]:
    """Of Pearson, between -1 and 1."""
    m = _moments(view, view.x.value, view.y)
    with np.errstate(all="ignore"):
        value = np.clip(m.xy / np.sqrt(m.xx * m.yy), -1.0, 1.0)
    return _by_samples(view, value, 2)


def _moments(view: View, x: Floats, y: Floats) -> Moments:
    good = view.good
    usable_x = np.where(good > 0, x, 0.0)
    usable_y = usable_x if y is x else np.where(good > 0, y, 0.0)
    return view.ranges.moments(usable_x, usable_y, good)


def percentile(view: View) -> tuple[Floats, Statuses]:
    """With linear interpolation between order statistics (Hyndman and Fan 1996, type 7)."""
    share = view.options[0] / 100.0
    usable = np.flatnonzero(view.usable)
    values = view.x.value[usable]
    low = np.searchsorted(usable, view.ranges.low, "left")
    high = np.searchsorted(usable, view.ranges.high, "left")
    result = np.full(len(low), np.nan)
    for at in np.flatnonzero(high > low):
        result[at] = np.quantile(values[low[at] : high[at]], share)
    return _by_samples(view, result)


def band_energy(view: View) -> tuple[Floats, Statuses]:
    """Mean square in a band of frequencies; see :mod:`headrace.formula.spectrum`."""
    ranges, at_us = view.ranges, view.grid.at_us(view.x.keys)
    length_us = view.end - view.start
    whole = ranges.sum(view.good) == ranges.count
    value = band_mean_square(
        view.x.value, at_us, (ranges.low, ranges.high), np.where(whole, length_us, 0), view.options
    )
    status = _by_samples(view, value)[1]
    return value, np.where(np.isnan(value), np.uint32(st.BAD_NO_DATA), status)


def integral(view: View) -> tuple[Floats, Statuses]:
    """Of the steps, in value times seconds."""
    return _by_time(view, _area(view, view.x.value)[0])


def time_mean(view: View) -> tuple[Floats, Statuses]:
    area, used_s = _area(view, view.x.value)
    with np.errstate(all="ignore"):
        return _by_time(view, area / used_s)


def duration(view: View) -> tuple[Floats, Statuses]:
    """How long a condition was true, in seconds."""
    return _by_time(view, _area(view, (view.x.value == 1.0).astype(np.float64))[0])


def _by_time(view: View, value: Floats) -> tuple[Floats, Statuses]:
    used_s = _area(view, np.ones(len(view.x.keys)))[1]
    length_s = (view.end - view.start) * _US
    whole = used_s >= length_s - 0.5e-6
    status = np.where(whole, np.uint32(0), np.uint32(st.UNCERTAIN_DATA_SUB_NORMAL))
    doubtful = view.ranges.count_of(view.x.status >= UNCERTAIN_FROM)
    status = np.where(doubtful > 0, np.uint32(st.UNCERTAIN_DATA_SUB_NORMAL), status)
    return value, np.where(used_s > 0, status, np.uint32(st.BAD_NO_DATA))


def _area(view: View, value: Floats) -> tuple[Floats, Floats]:
    """Area below the steps and the time with a usable value, in seconds, in each window."""
    keys, grid = view.x.keys, view.grid
    n = len(keys)
    if not n:
        return np.zeros(len(view.start)), np.zeros(len(view.start))
    good = view.x.status < BAD_FROM
    height = np.where(good, value, 0.0)
    length_s = np.zeros(n)
    same_asset = grid.asset(keys[1:]) == grid.asset(keys[:-1])
    length_s[:-1] = np.where(same_asset, (keys[1:] - keys[:-1]) * _US, 0.0)
    ranges = view.ranges
    low, high = ranges.low, ranges.high
    inner_high = np.maximum(high - 1, low)
    middle = None if ranges.middle is None else np.minimum(ranges.middle, inner_high)
    inner = Ranges(low, inner_high, middle, ranges.pane)
    area = inner.sum(height * length_s)
    used = inner.sum(good * length_s)
    # What holds at the window's start, up to the first sample in it or the end.
    before = np.clip(low - 1, 0, n - 1)
    held = (low > 0) & (keys[before] >= grid.first_of_asset(view.start)) & good[before]
    until = np.where(high > low, keys[np.clip(low, 0, n - 1)], view.end)
    head_s = np.where(held, (until - view.start) * _US, 0.0)
    # The last sample of the window, up to its end.
    at_last = np.clip(high - 1, 0, n - 1)
    tail_s = np.where((high > low) & good[at_last], (view.end - keys[at_last]) * _US, 0.0)
    area = area + height[before] * head_s + height[at_last] * tail_s
    return area, used + head_s + tail_s


def transitions(view: View) -> tuple[Floats, Statuses]:
    """How often the value changed, from one usable sample to the next."""
    return _by_samples(view, view.ranges.sum(changes(view.x, view.grid)))


def changes(x: Steps, grid: Grid) -> Floats:
    """1 where a usable value differs from the usable one before it."""
    return np.asarray(_steps_up(x, grid) != 0, np.float64)


def _steps_up(x: Steps, grid: Grid) -> Floats:
    """Difference of each usable value to the usable one before it; 0 without one."""
    good = x.status < BAD_FROM
    at = np.flatnonzero(good)
    difference = np.zeros(len(x.keys))
    same = grid.asset(x.keys[at][1:]) == grid.asset(x.keys[at][:-1])
    difference[at[1:]] = np.where(same, np.diff(x.value[at]), 0.0)
    return difference


def increments(x: Steps, grid: Grid, rollover: float) -> Floats:
    """What a counter counted between its usable samples.

    A counter that falls has rolled over when that explains it with less than half a turn, else it was
    reset and began at 0.
    """
    difference = _steps_up(x, grid)
    fell = difference < 0
    turned = difference + rollover
    rolled = (rollover > 0) & (turned >= 0) & (turned < rollover / 2)
    return np.asarray(np.where(fell, np.where(rolled, turned, x.value), difference), np.float64)


def delta(view: View) -> tuple[Floats, Statuses]:
    """What a counter counted in the window."""
    gained = increments(view.x, view.grid, view.options[0])
    return _by_samples(view, view.ranges.sum(gained))


AGGREGATES: Final[dict[str, Aggregate]] = {
    "count": count,
    "sum": total,
    "mean": mean,
    "time_mean": time_mean,
    "min": least,
    "max": most,
    "first": first,
    "last": last,
    "std": std,
    "slope": slope,
    "correlation": correlation,
    "percentile": percentile,
    "band_energy": band_energy,
    "integral": integral,
    "duration": duration,
    "transitions": transitions,
    "delta": delta,
}
