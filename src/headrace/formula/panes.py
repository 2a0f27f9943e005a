"""Sliding windows as samples come: what :mod:`.windows` sums over a whole window, kept pane by pane.

A window ``(t - w, t]`` is the end of one pane and the beginning of the next. Of the pane that is over, the
running results from the right are kept for each sample; of the pane that is open only the last result from
the left. So a new sample costs one step for each thing that is summed, whatever the length of the window,
and the additions are those of :class:`headrace.formula.windows.Ranges`, in the same order.

A function asks its windows always for the same things in the same order; each is a channel.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from headrace.formula.steps import Bools, Floats, Keys
from headrace.formula.track import ALWAYS, Track, spread
from headrace.formula.windows import (
    Combine,
    Moments,
    joined,
    moments_of,
    moments_of_time,
    running,
)

FUNCTIONS: Final = frozenset(
    {"count", "sum", "mean", "min", "max", "std", "slope", "delta", "transitions"}
)
NEW_MAX: Final = 16
_EMPTY: Final = {"sum": 0.0, "min": np.inf, "max": -np.inf}
_JOIN: Final[dict[Combine, np.ufunc]] = {"sum": np.add, "min": np.fmin, "max": np.fmax}


class Panes:
    """What is kept of each asset.

    Attributes:
        last_us: the sample up to which it is kept; ALWAYS where nothing is.
        right: results from the boundary to that sample, one array for each channel.
        left: results from each sample of the pane before to the boundary, one array for each channel.
        left_at_us: times of these samples, those of an asset from ``begin`` to ``end``.
    """

    def __init__(self, assets: int, length_us: int) -> None:
        self.length_us = length_us
        self.last_us = np.full(assets, ALWAYS)
        self.right: list[Floats] = []
        self.left: list[Floats] = []
        self.left_at_us = np.empty(0, np.int64)
        self.begin = np.zeros(assets, np.int64)
        self.end = np.zeros(assets, np.int64)

    @property
    def nbytes(self) -> int:
        """Of what is kept."""
        return self.left_at_us.nbytes + sum(each.nbytes for each in (*self.left, *self.right))

    def locate(self, who: Keys, at_us: Keys) -> Keys:
        """The place of each one's first sample of the pane before that is not before a time."""
        low, high = self.begin[who], self.end[who]
        while (open_ := low < high).any():
            middle = (low + high) >> 1
            before = open_ & (self.left_at_us[np.minimum(middle, len(self.left_at_us) - 1)] < at_us)
            low, high = np.where(before, middle + 1, low), np.where(open_ & ~before, middle, high)
        return low

    def goes_on(self, track: Track, who: Keys, members: Keys, from_us: Keys) -> Bools:
        """For which assets what is new are some samples of the pane that is open."""
        last_us = self.last_us[who]
        same = (last_us > ALWAYS) & (from_us > last_us) & (track.last_us(members) >= from_us)
        same &= track.last_us(members) // self.length_us == last_us // self.length_us
        if not same.any():
            return same
        place = np.maximum(track.end[members] - NEW_MAX, track.begin[members])
        few = (place == track.begin[members]) | (track.at_us[np.maximum(place - 1, 0)] < from_us)
        return np.asarray(same & few, np.bool_)

    def forget(self, who: Keys) -> None:
        """What is kept of these assets no longer holds."""
        self.last_us[who] = ALWAYS
        self.begin[who] = self.end[who] = 0


class Live:
    """The windows that end with new samples of the open panes, for the functions of :mod:`.aggregate`.

    Args:
        new: places of the new samples among all rows that the function sees.
        asset: of each new sample.
    """

    def __init__(self, panes: Panes, new: Keys, asset: Keys, at_us: Keys) -> None:
        self._panes, self._new, self._at_us = panes, new, at_us
        self._asset = asset
        rank = np.arange(len(asset)) - np.searchsorted(asset, asset)
        self._rounds = [np.flatnonzero(rank == n) for n in range(int(rank.max()) + 1)]
        place = panes.locate(asset, at_us - panes.length_us + 1)
        self._some = place < panes.end[asset]
        self._place = np.where(self._some, place, 0)
        self._next_left = self._next_right = 0

    @property
    def count(self) -> Floats:
        return self._both(np.ones(len(self._new)), "sum")

    def count_of(self, marked: Bools) -> Floats:
        return self._both(marked[self._new].astype(np.float64), "sum")

    def sum(self, values: Floats) -> Floats:
        return self._both(values[self._new], "sum")

    def min(self, values: Floats) -> Floats:
        return self._both(values[self._new], "min")

    def max(self, values: Floats) -> Floats:
        return self._both(values[self._new], "max")

    def moments(self, x: Floats, y: Floats, good: Floats) -> Moments:
        x_ = x[self._new]
        y_ = x_ if y is x else y[self._new]
        sides = (_Before(self), _After(self))
        return joined([moments_of(side, x_, y_, good[self._new]) for side in sides])

    def moments_of_time(self, at_us: Keys, y: Floats, good: Floats) -> Moments:
        sides = (_Before(self), _After(self))
        at_us, y, good = at_us[self._new], y[self._new], good[self._new]
        return joined([moments_of_time(side, at_us, y, good) for side in sides])

    def _both(self, values: Floats, how: Combine) -> Floats:
        join = {"sum": np.add, "min": np.minimum, "max": np.maximum}[how]
        return np.asarray(join(self.before(_EMPTY[how]), self.after(values, how)), np.float64)

    def before(self, empty: float) -> Floats:
        """The next channel of the panes that are over, from where each window begins."""
        channel = self._panes.left[self._next_left]
        self._next_left += 1
        if not len(channel):
            return np.full(len(self._new), empty)
        return np.where(self._some, channel[self._place], empty)

    def after(self, values: Floats, how: Combine) -> Floats:
        """The next channel of the open panes, up to each new sample."""
        channel, join = self._panes.right[self._next_right], _JOIN[how]
        self._next_right += 1
        result, values = np.empty(len(values)), values + 0.0  # one zero, as in running
        for some in self._rounds:
            asset = self._asset[some]
            result[some] = channel[asset] = join(channel[asset], values[some])
        return result

    def kept(self) -> Floats:
        """The next channel of the open panes, of which new samples change nothing."""
        self._next_right += 1
        return self._panes.right[self._next_right - 1][self._asset]

    def since_us(self, at_us: Keys, *, before: bool) -> Keys:
        length_us = self._panes.length_us
        return at_us - at_us // length_us * length_us - (length_us if before else 0)


class _Before:
    """The part of each window before the boundary: all of it is known."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def since_us(self, at_us: Keys) -> Keys:
        return self._live.since_us(at_us, before=True)

    def centred(self, values: Floats, good: Floats) -> tuple[Floats, Floats]:
        return values, self._live.before(0.0)

    def sum(self, values: Floats) -> Floats:
        return self._live.before(0.0)


class _After:
    """The part after it."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def since_us(self, at_us: Keys) -> Keys:
        return self._live.since_us(at_us, before=False)

    def centred(self, values: Floats, good: Floats) -> tuple[Floats, Floats]:
        reference = self._live.kept()
        return np.where(good > 0, values - reference, 0.0), reference

    def sum(self, values: Floats) -> Floats:
        return self._live.after(values, "sum")


class Recorder:
    """Windows that give nothing but note, of each thing that is asked for, what :class:`Panes` keeps.

    Args:
        slot: of each row, the place of its asset in ``who``.
        at_us: of each row; only the panes of the last row and the one before count.
    """

    def __init__(self, panes: Panes, who: Keys, slot: Keys, at_us: Keys, last_us: Keys) -> None:
        self._panes, self._who = panes, who
        pane = at_us // panes.length_us
        open_ = (last_us // panes.length_us)[slot]
        self.left, self.right = np.flatnonzero(pane == open_ - 1), np.flatnonzero(pane == open_)
        self._slots = {True: slot[self.left], False: slot[self.right]}
        self._last = np.flatnonzero(np.append(np.diff(self._slots[False]) != 0, True))
        self._left: list[Floats] = []
        self._right: list[Floats] = []
        panes.last_us[who] = last_us
        self._left_at_us = at_us[self.left]

    @property
    def count(self) -> Floats:
        return self._note(np.ones(len(self.left)), np.ones(len(self.right)), "sum")

    def count_of(self, marked: Bools) -> Floats:
        return self.sum(marked.astype(np.float64))

    def sum(self, values: Floats) -> Floats:
        return self._note(values[self.left], values[self.right], "sum")

    def min(self, values: Floats) -> Floats:
        return self._note(values[self.left], values[self.right], "min")

    def max(self, values: Floats) -> Floats:
        return self._note(values[self.left], values[self.right], "max")

    def _note(self, left: Floats, right: Floats, how: Combine) -> Floats:
        self.note_left(running(left, self._slots[True], how, reverse=True))
        self.note_right(running(right, self._slots[False], how, reverse=False))
        return np.zeros(len(self._who))

    def note_left(self, channel: Floats) -> None:
        self._left.append(channel)

    def note_right(self, channel: Floats) -> None:
        self._right.append(channel[self._last])

    def moments(self, x: Floats, y: Floats, good: Floats) -> Moments:
        made = []
        for before, rows in ((True, self.left), (False, self.right)):
            x_ = x[rows]
            y_ = x_ if y is x else y[rows]
            made.append(moments_of(_Noted(self, before), x_, y_, good[rows]))
        return made[0]

    def moments_of_time(self, at_us: Keys, y: Floats, good: Floats) -> Moments:
        made = []
        for before, rows in ((True, self.left), (False, self.right)):
            side = _Noted(self, before)
            made.append(moments_of_time(side, at_us[rows], y[rows], good[rows]))
        return made[0]

    def side(self, before: bool) -> Keys:
        """Slots of the rows on a side of the boundary."""
        return self._slots[before]

    @property
    def windows(self) -> int:
        return len(self._who)

    @property
    def length_us(self) -> int:
        return self._panes.length_us

    def finish(self) -> None:
        """Put what was noted in place of what was kept of these assets."""
        panes, who = self._panes, self._who
        if not panes.right:
            panes.right = [np.zeros(len(panes.last_us)) for _ in self._right]
            panes.left = [np.empty(0) for _ in self._left]
        for channel, noted in zip(panes.right, self._right, strict=True):
            channel[who] = noted
        counts = np.bincount(self._slots[True], minlength=len(who))
        others = np.ones(len(panes.last_us), np.bool_)
        others[who] = False
        others &= panes.end > panes.begin
        kept = np.flatnonzero(others)
        places = spread(panes.begin[kept], panes.end[kept])
        panes.left_at_us = np.concatenate([panes.left_at_us[places], self._left_at_us])
        panes.left = [
            np.concatenate([old[places], new])
            for old, new in zip(panes.left, self._left, strict=True)
        ]
        assets = np.r_[kept, who]
        ends = np.cumsum(np.r_[panes.end[kept] - panes.begin[kept], counts])
        panes.begin[:] = panes.end[:] = 0
        panes.end[assets] = ends
        panes.begin[assets] = np.r_[0, ends[:-1]][: len(assets)]


class _Noted:
    """One side of the boundary, see :class:`headrace.formula.windows._Side`."""

    def __init__(self, recorder: Recorder, before: bool) -> None:
        self._recorder, self._before = recorder, before

    def since_us(self, at_us: Keys) -> Keys:
        length_us = self._recorder.length_us
        return at_us - at_us // length_us * length_us - (length_us if self._before else 0)

    def centred(self, values: Floats, good: Floats) -> tuple[Floats, Floats]:
        slot = self._recorder.side(self._before)
        edge = np.flatnonzero(
            np.append(np.diff(slot) != 0, True)
            if self._before
            else np.append(True, np.diff(slot) != 0)
        )[: len(slot)]
        of_edge = np.where(good[edge] > 0, values[edge], 0.0)
        lengths = (
            np.diff(np.flatnonzero(np.r_[True, np.diff(slot) != 0, True])) if len(slot) else slot
        )
        reference = np.repeat(of_edge, lengths)
        note = self._recorder.note_left if self._before else self._recorder.note_right
        note(reference)
        return np.where(good > 0, values - reference, 0.0), np.zeros(self._recorder.windows)

    def sum(self, values: Floats) -> Floats:
        slot = self._recorder.side(self._before)
        made = running(values, slot, "sum", reverse=self._before)
        (self._recorder.note_left if self._before else self._recorder.note_right)(made)
        return np.zeros(self._recorder.windows)
