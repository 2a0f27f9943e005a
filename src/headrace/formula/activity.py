"""From conditions to when an alarm is active: what sets it, what ends it, and what holds it.

The same code serves live operation, shadow and back-tests::

    on true                       active
    on false, off true            not active      (off: what ends it; without one, on false ends it)
    on false, off false           as before       (the dead zone between the two limits)
    on or off Bad or not there    as before, unless on is true: bad data never end an alarm
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.formula.steps import BAD_FROM, UNCERTAIN_FROM, Bools, Floats, Keys, Statuses

Codes = npt.NDArray[np.int8]
FALSE: Final = np.int8(0)
TRUE: Final = np.int8(1)
UNKNOWN: Final = np.int8(2)
ON: Final = np.int8(0)
OFF: Final = np.int8(1)


class Rows(NamedTuple):
    """Results of conditions, n of them.

    Attributes:
        alarm: int64, number of the alarm, from 0.
        at_us: int64, source time.
        which: int8, :data:`ON` or :data:`OFF`.
        code: int8, :data:`FALSE`, :data:`TRUE` or :data:`UNKNOWN`.
        doubtful: bool, the status is not Good.
    """

    alarm: Keys
    at_us: Keys
    which: Codes
    code: Codes
    doubtful: Bools

    def take(self, chosen: Bools | Keys) -> Rows:
        return Rows(
            self.alarm[chosen],
            self.at_us[chosen],
            self.which[chosen],
            self.code[chosen],
            self.doubtful[chosen],
        )


class Changes(NamedTuple):
    """When alarms became active or ceased to be, or became doubtful; sorted by alarm and time."""

    alarm: Keys
    at_us: Keys
    active: Bools
    doubtful: Bools
    active_changed: Bools


def rows_of(frames: Sequence[tuple[int, np.int8, pl.DataFrame]]) -> tuple[Rows, Statuses]:
    """Results of many conditions as one, with their statuses.

    Args:
        frames: number of the first asset's alarm, :data:`ON` or :data:`OFF`, and a frame of
            ``formula.evaluate.SCHEMA``.
    """
    frames = [each for each in frames if each[2].height]
    if not frames:
        nothing = np.empty(0, np.int64)
        codes = np.empty(0, np.int8)
        return Rows(nothing, nothing, codes, codes, np.empty(0, np.bool_)), np.empty(0, np.uint32)
    heights = [frame.height for _, _, frame in frames]
    whole = pl.concat([frame for _, _, frame in frames])  # one by one costs ten times as much
    alarm = whole["asset"].to_numpy() + np.repeat(
        np.array([base for base, _, _ in frames], np.int64), heights
    )
    at_us = whole["at_us"].to_numpy()
    which = np.repeat(np.array([which for _, which, _ in frames], np.int8), heights)
    value = whole["value"].fill_null(np.nan).to_numpy()
    status = whole["status"].to_numpy()
    return Rows(alarm, at_us, which, codes_of(value, status), status >= UNCERTAIN_FROM), status


def codes_of(value: Floats, status: Statuses) -> Codes:
    """What a condition's samples say."""
    code = np.where(value == 1.0, TRUE, FALSE)
    return np.where((status >= BAD_FROM) | np.isnan(value), UNKNOWN, code).astype(np.int8)


class Activity:
    """What many alarms were last, and what new results make of them.

    Args:
        has_off: bool, shape (alarms,): whether something of its own ends each.

    Attributes:
        codes: what on and off last said, each int8, shape (alarms,).
        doubts: whether their status was not Good, each bool, shape (alarms,).
        active: bool, shape (alarms,).
        known_us: int64, shape (alarms,): time of the last result of each.

    Example:
        >>> activity = Activity(np.array([False]))
        >>> ones = np.zeros(2, np.int64)
        >>> rows = Rows(ones, np.array([10, 20]), ones.astype(np.int8), np.array([0, 1], np.int8), ones > 0)
        >>> activity.take(rows).at_us.tolist()
        [20]
    """

    def __init__(self, has_off: Bools) -> None:
        count = len(has_off)
        self.has_off = has_off
        self.codes = [np.full(count, UNKNOWN, np.int8) for _ in (ON, OFF)]
        self.doubts = [np.zeros(count, np.bool_) for _ in (ON, OFF)]
        self.active = np.zeros(count, np.bool_)
        self.known_us = np.full(count, np.iinfo(np.int64).min)

    def take(self, rows: Rows) -> Changes:
        """The changes that results bring; each is newer than the last one of its alarm and condition.

        Args:
            rows: in any order; no two have the same alarm, time and condition.
        """
        if not len(rows.alarm):
            return Changes(rows.alarm, rows.at_us, rows.doubtful, rows.doubtful, rows.doubtful)
        rows = rows.take(np.lexsort((rows.which, rows.at_us, rows.alarm)))
        alarm, size = rows.alarm, len(rows.alarm)
        index = np.arange(size)
        first = np.ones(size, np.bool_)
        first[1:] = alarm[1:] != alarm[:-1]
        begin = np.maximum.accumulate(np.where(first, index, 0))
        same = np.zeros(size, np.bool_)  # on and off of one time count together
        same[:-1] = ~first[1:] & (rows.at_us[1:] == rows.at_us[:-1])
        codes, doubts = [], []
        for which in (ON, OFF):
            at = np.maximum.accumulate(np.where(rows.which == which, index, -1))
            here = at >= begin
            codes.append(np.where(here, rows.code[at], self.codes[which][alarm]))
            doubts.append(np.where(here, rows.doubtful[at], self.doubts[which][alarm]))
        active = self._held(alarm, codes, begin, same)
        doubtful = doubts[0] | doubts[1]
        changes = self._changes(rows, active, doubtful, ~same)
        ends = np.flatnonzero(np.append(first[1:], True))
        for which in (ON, OFF):
            self.codes[which][alarm[ends]] = codes[which][ends]
            self.doubts[which][alarm[ends]] = doubts[which][ends]
        self.active[alarm[ends]] = active[ends]
        self.known_us[alarm[ends]] = rows.at_us[ends]
        return changes

    def _held(self, alarm: Keys, codes: list[Codes], begin: Keys, same: Bools) -> Bools:
        on, off = codes
        ends = (off == TRUE) | ~self.has_off[alarm]
        said = ((on == TRUE) | ((on == FALSE) & ends)) & ~same
        at = np.maximum.accumulate(np.where(said, np.arange(len(on)), -1))
        return np.where(at >= begin, on[at] == TRUE, self.active[alarm])

    def _changes(self, rows: Rows, active: Bools, doubtful: Bools, whole: Bools) -> Changes:
        at = np.flatnonzero(whole)
        alarm, at_us, active, doubtful = rows.alarm[at], rows.at_us[at], active[at], doubtful[at]
        first = np.ones(len(at), np.bool_)
        first[1:] = alarm[1:] != alarm[:-1]
        doubted = self.doubts[0][alarm] | self.doubts[1][alarm]
        active_before = np.where(first, self.active[alarm], np.roll(active, 1))
        doubtful_before = np.where(first, doubted, np.roll(doubtful, 1))
        changed = active != active_before
        chosen = changed | (doubtful != doubtful_before)
        return Changes(
            alarm[chosen], at_us[chosen], active[chosen], doubtful[chosen], changed[chosen]
        )
