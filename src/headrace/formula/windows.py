"""Sums, extremes and moments over windows, for many windows at once.

Sliding windows ``(t - w, t]`` hold exactly one boundary of panes of length ``w`` that are aligned to
the epoch. So a window is the end of one pane and the beginning of the next: a running sum from the
right of the one and from the left of the other. It costs O(n) for any length of window, nothing but
samples inside the window goes into its result, and the order of additions depends on nothing but them:
results are the same to the bit however history is cut (van Herk 1992 and Gil and Werman 1993, for
minima; here for sums as well).

Other windows (shifts, cycles) do not overlap and are summed one by one.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
import polars as pl

from headrace.formula.steps import Bools, Floats, Grid, Keys

Combine = Literal["sum", "min", "max"]
LONG_PANES: Final = 64
GUESS_STRIDE: Final = 64


@dataclass(frozen=True, slots=True)
class Ranges:
    """Samples ``low`` to ``high`` (exclusive) of an array, for each window.

    Attributes:
        low, high: int64, shape (m,).
        middle: index of the first sample after the pane boundary in each window; None when the
            windows do not overlap.
        pane: int64, shape (n,): number of the pane of each sample, ascending.
        length_us: of a pane, and so of a window.
        ends_at_each: window i ends with sample i.
    """

    low: Keys
    high: Keys
    middle: Keys | None = None
    pane: Keys | None = None
    length_us: int = 0
    ends_at_each: bool = False

    @property
    def count(self) -> Keys:
        return np.asarray(np.maximum(self.high - self.low, 0), np.int64)

    def count_of(self, marked: Bools) -> Floats:
        """How many of the samples in each window are marked; whole numbers, so any order of adding does."""
        if not marked.any():
            return np.zeros(len(self.low))
        if marked.all():
            return self.count.astype(np.float64)
        before = np.zeros(len(marked) + 1, np.int64)
        np.cumsum(marked, out=before[1:])
        found = before[np.maximum(self.high, self.low)] - before[self.low]
        return np.asarray(found, np.float64)

    def sum(self, values: Floats) -> Floats:
        return self._combined(values, "sum", 0.0)

    def min(self, values: Floats) -> Floats:
        """The least; inf for a window without samples."""
        return self._combined(values, "min", np.inf)

    def max(self, values: Floats) -> Floats:
        return self._combined(values, "max", -np.inf)

    def _combined(self, values: Floats, how: Combine, empty: float) -> Floats:
        join = {"sum": np.add, "min": np.minimum, "max": np.maximum}[how]
        if self.middle is None or self.pane is None:
            return _reduced(join, values, self.low, self.high, empty)
        left = running(values, self.pane, how, reverse=True)
        right = running(values, self.pane, how, reverse=False)
        first = left[np.minimum(self.low, max(len(left) - 1, 0))] if len(left) else left
        first[self.low >= self.middle] = empty
        last = right
        if not self.ends_at_each:
            last = np.where(self.high > self.middle, right[np.maximum(self.high - 1, 0)], empty)
        return np.asarray(join(first, last, out=first), np.float64)

    def moments(self, x: Floats, y: Floats, good: Floats) -> Moments:
        """Numbers, means and sums of products of deviations of the samples where ``good`` is 1."""
        return joined([moments_of(part, x, y, good) for part in self._parts()])

    def moments_of_time(self, at_us: Keys, y: Floats, good: Floats) -> Moments:
        """The same with the samples' times in seconds as x; its mean counts from a time of each window."""
        return joined([moments_of_time(part, at_us, y, good) for part in self._parts()])

    def _parts(self) -> list[_OneByOne | _Side]:
        if self.middle is None or self.pane is None:
            return [_OneByOne(self.low, self.high)]
        return [_Side(self, before=True), _Side(self, before=False)]


@dataclass(frozen=True, slots=True)
class Moments:
    """Of pairs (x, y): their number, their means, and sums of products of deviations from them."""

    n: Floats
    x: Floats
    y: Floats
    xx: Floats
    xy: Floats
    yy: Floats

    def joined(self, other: Moments) -> Moments:
        """Of both together (Chan, Golub and LeVeque 1979, equation 2.1)."""
        n = self.n + other.n
        share = other.n / np.maximum(n, 1)
        dx, dy = other.x - self.x, other.y - self.y
        weight = self.n * share
        return Moments(
            n,
            self.x + dx * share,
            self.y + dy * share,
            self.xx + other.xx + dx * dx * weight,
            self.xy + other.xy + dx * dy * weight,
            self.yy + other.yy + dy * dy * weight,
        )


class _OneByOne:
    """Windows that do not overlap; values are taken relative to the first of each."""

    def __init__(self, low: Keys, high: Keys) -> None:
        self.low, self.high = low, high

    def since_us(self, at_us: Keys) -> Keys:
        """Times since the first sample of each one's window."""
        some = self.high > self.low
        return np.asarray(at_us - self._spread(at_us[self.low[some]], len(at_us)), np.int64)

    def centred(self, values: Floats, good: Floats) -> tuple[Floats, Floats]:
        reference = np.zeros(len(self.low))
        some = self.high > self.low
        at = self.low[some]
        reference[some] = np.where(good[at] > 0, values[at], 0.0)
        shift = self._spread(reference[some], len(values))
        return np.where(good > 0, values - shift, 0.0), reference

    def _spread(self, of_window: Floats | Keys, n: int) -> Any:
        """A value of each window that has samples, at each of them; 0 elsewhere."""
        some = self.high > self.low
        spread = np.zeros(n, of_window.dtype)
        lengths = np.maximum(self.high - self.low, 0)[some]
        starts = self.low[some] - np.r_[0, np.cumsum(lengths)[:-1]]
        spread[np.repeat(starts, lengths) + np.arange(lengths.sum())] = np.repeat(
            of_window, lengths
        )
        return spread

    def sum(self, values: Floats) -> Floats:
        return _reduced(np.add, values, self.low, self.high, 0.0)


class _Side:
    """The part of each sliding window before its pane boundary, or after it."""

    def __init__(self, ranges: Ranges, *, before: bool) -> None:
        assert ranges.pane is not None and ranges.middle is not None, "of sliding windows"
        self.pane, self.before = ranges.pane, before
        self.low = ranges.low if before else ranges.middle
        self.high = ranges.middle if before else ranges.high
        self.some = self.high > self.low
        n = len(self.pane)
        self.at = np.clip(self.low if before else self.high - 1, 0, max(n - 1, 0))
        starts = np.flatnonzero(np.r_[True, np.diff(self.pane) != 0]) if n else np.empty(0, int)
        ends = np.r_[starts[1:], n] - 1
        reference = ends if before else starts
        self.reference = np.repeat(reference, np.diff(np.r_[starts, n])) if n else starts
        self.length_us = ranges.length_us

    def since_us(self, at_us: Keys) -> Keys:
        """Times since the pane boundary in the window: before it, after it."""
        start = at_us // self.length_us * self.length_us
        return at_us - start - (self.length_us if self.before else 0)

    def centred(self, values: Floats, good: Floats) -> tuple[Floats, Floats]:
        reference = np.where(good[self.reference] > 0, values[self.reference], 0.0)
        return np.where(good > 0, values - reference, 0.0), reference[self.at]

    def sum(self, values: Floats) -> Floats:
        made = running(values, self.pane, "sum", reverse=self.before)
        return np.where(self.some, made[self.at], 0.0)


class Part(Protocol):
    """Windows, or the one end or the other of each of them."""

    def since_us(self, at_us: Keys) -> Keys:
        """Times relative to one of each window."""
        ...

    def centred(self, values: Floats, good: Floats) -> tuple[Floats, Floats]:
        """Values relative to a reference of each window, and the reference."""
        ...

    def sum(self, values: Floats) -> Floats: ...


def moments_of(part: Part, x: Floats, y: Floats, good: Floats) -> Moments:
    """See :meth:`Ranges.moments`."""
    dx, x0 = part.centred(x, good)
    dy, y0 = (dx, x0) if x is y else part.centred(y, good)
    return _part_moments(part, (dx, x0), (dy, y0), good)


def moments_of_time(part: Part, at_us: Keys, y: Floats, good: Floats) -> Moments:
    """See :meth:`Ranges.moments_of_time`."""
    seconds = np.where(good > 0, part.since_us(at_us) * 1e-6, 0.0)
    dy, y0 = part.centred(y, good)
    return _part_moments(part, (seconds, np.zeros(len(y0))), (dy, y0), good)


def joined(parts: list[Moments]) -> Moments:
    """Of windows from those of their parts."""
    return parts[0] if len(parts) == 1 else parts[0].joined(parts[1])


def _part_moments(
    part: Part,
    x: tuple[Floats, Floats],
    y: tuple[Floats, Floats],
    good: Floats,
) -> Moments:
    """Of values that are given relative to a reference of each window, and that reference."""
    n = part.sum(good)
    (dx, x0), (dy, y0) = x, y
    some = np.maximum(n, 1)
    sx, sxx = part.sum(dx), part.sum(dx * dx)
    if dx is dy:
        sy, sxy, syy = sx, sxx, sxx
    else:
        sy, sxy, syy = part.sum(dy), part.sum(dx * dy), part.sum(dy * dy)
    return Moments(
        n,
        x0 + sx / some,
        y0 + sy / some,
        np.maximum(sxx - sx * sx / some, 0.0),
        sxy - sx * sy / some,
        np.maximum(syy - sy * sy / some, 0.0),
    )


def _reduced(join: np.ufunc, values: Floats, low: Keys, high: Keys, empty: float) -> Floats:
    result = np.full(len(low), empty)
    some = high > low
    if some.any():
        # One more element: an index may point behind the last; every second result is a window's.
        bounds = np.stack([low[some], high[some]], axis=1).ravel()
        padded = np.append(values, empty)
        result[some] = join.reduceat(padded, bounds)[::2]
    return result


def running(values: Floats, pane: Keys, how: Combine, *, reverse: bool) -> Floats:
    """Running sums, minima or maxima that begin anew with each pane."""
    if not len(values):
        return values
    values = values + 0.0  # there is one zero: which of the two came first must not show
    begins = np.flatnonzero(pane[1:] != pane[:-1]) + 1
    if len(values) >= LONG_PANES * (len(begins) + 1):
        return _running_in_slices(values, begins.tolist(), how, reverse=reverse)
    column = pl.col("value")
    made = {"sum": column.cum_sum, "min": column.cum_min, "max": column.cum_max}[how](
        reverse=reverse
    )
    frame = pl.DataFrame({"value": values, "pane": pane})
    return frame.select(made.over("pane"))["value"].to_numpy()


def _running_in_slices(values: Floats, begins: list[int], how: Combine, *, reverse: bool) -> Floats:
    """The same for panes of many samples: one call for each is less work than to group them."""
    join = {"sum": np.add, "min": np.fmin, "max": np.fmax}[how]
    running = np.empty(len(values))
    step = -1 if reverse else 1
    for begin, end in itertools.pairwise([0, *begins, len(values)]):
        join.accumulate(values[begin:end][::step], out=running[begin:end][::step])
    return running


def sliding(keys: Keys, length_us: int, grid: Grid) -> Ranges:
    """The windows ``(t - length, t]`` that end at each key.

    Args:
        keys: of samples, ascending.
    """
    asset, at_us = grid.asset(keys), grid.at_us(keys)
    per_asset = grid.span_us // length_us + 2
    pane = asset * per_asset + (at_us // length_us - grid.base_us // length_us)
    low = _places(keys, np.maximum(keys - (length_us - 1), grid.first_of_asset(keys)))
    begins = np.append(0, np.flatnonzero(pane[1:] != pane[:-1]) + 1)[: len(keys)]
    middle = np.repeat(begins, np.diff(np.append(begins, len(keys))))
    middle = np.maximum(middle, low)
    return Ranges(low, np.arange(1, len(keys) + 1), middle, pane, length_us, ends_at_each=True)


def _places(keys: Keys, wanted: Keys) -> Keys:
    """``np.searchsorted(keys, wanted)`` for wanted keys that ascend in steps like the keys themselves.

    Most samples come at an even pace, so that windows begin one sample later each: every so many are
    searched, those between are guessed, and looked up where the guess is wrong.
    """
    if len(keys) < GUESS_STRIDE:
        return np.searchsorted(keys, wanted)
    searched = np.searchsorted(keys, wanted[::GUESS_STRIDE])
    guess = (searched[:, None] + np.arange(GUESS_STRIDE)).ravel()[: len(wanted)]
    np.minimum(guess, len(keys) - 1, out=guess)
    right = (keys[guess] >= wanted) & ((guess == 0) | (keys[guess - 1] < wanted))
    wrong = np.flatnonzero(~right)
    guess[wrong] = np.searchsorted(keys, wanted[wrong])
    return guess


def between(keys: Keys, start: Keys, end: Keys) -> Ranges:
    """The windows ``[start, end)`` of keys; they do not overlap."""
    return Ranges(np.searchsorted(keys, start, "left"), np.searchsorted(keys, end, "left"))
