"""Results of conditions of the last time, kept so that a late one can be put between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from headrace.formula.activity import Rows
from headrace.formula.steps import Keys

CHUNKS_MAX: Final = 256
ALWAYS: Final = int(np.iinfo(np.int64).min)


class Retained:
    """The newest results of all alarms, bounded by time and by number.

    Args:
        horizon_us: how far back from the newest taken time results are kept.
        rows_max: how many at most; 19 bytes each.

    Attributes:
        from_us: results before this time may be missing here.
    """

    def __init__(self, horizon_us: int, rows_max: int) -> None:
        self._horizon_us, self._rows_max = horizon_us, rows_max
        self._chunks: list[Rows] = []
        self._ends: list[int] = []
        self._size = 0
        self.from_us = ALWAYS

    def append(self, rows: Rows) -> None:
        """Keep results; none of the same alarm, time and condition is kept already."""
        if not len(rows.alarm):
            return
        self._chunks.append(rows)
        self._ends.append(int(rows.at_us.max()))
        self._size += len(rows.alarm)
        if len(self._chunks) > CHUNKS_MAX:
            half = len(self._chunks) // 2
            self._chunks[:half] = [_joined(self._chunks[:half])]
            self._ends[:half] = [max(self._ends[:half])]

    def forget(self, known_us: int) -> None:
        """Let go of what is too old, or too much, once results up to a time are known."""
        while self._chunks and (
            self._size > self._rows_max or self._ends[0] < known_us - self._horizon_us
        ):
            self._size -= len(self._chunks.pop(0).alarm)
            self.from_us = max(self.from_us, self._ends.pop(0) + 1)

    def take_out(self, alarms: Keys, count: int) -> Rows:
        """Remove and return all that is kept of some alarms.

        Args:
            alarms: their numbers. count: of all alarms.
        """
        wanted = np.zeros(count, np.bool_)
        wanted[alarms] = True
        taken, kept, ends = [], [], []
        for chunk, end in zip(self._chunks, self._ends, strict=True):
            mine = wanted[chunk.alarm]
            taken.append(chunk.take(mine))
            if not mine.all():
                kept.append(chunk.take(~mine) if mine.any() else chunk)
                ends.append(end)
        self._chunks, self._ends = kept, ends
        self._size = sum(len(chunk.alarm) for chunk in kept)
        return _joined(taken)

    def renumber(self, number: Callable[[Keys], Keys]) -> None:
        """Give alarms other numbers; those that become negative are let go of."""
        for place, chunk in enumerate(self._chunks):
            alarm = number(chunk.alarm)
            self._chunks[place] = chunk._replace(alarm=alarm).take(alarm >= 0)
        self._size = sum(len(chunk.alarm) for chunk in self._chunks)


def _joined(chunks: list[Rows]) -> Rows:
    if not chunks:
        nothing = np.empty(0, np.int64)
        codes = np.empty(0, np.int8)
        return Rows(nothing, nothing, codes, codes, np.empty(0, np.bool_))
    return Rows(
        np.concatenate([chunk.alarm for chunk in chunks]),
        np.concatenate([chunk.at_us for chunk in chunks]),
        np.concatenate([chunk.which for chunk in chunks]),
        np.concatenate([chunk.code for chunk in chunks]),
        np.concatenate([chunk.doubtful for chunk in chunks]),
    )
