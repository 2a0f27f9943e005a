"""Rows of many members (tags, assets), those of each in order of time, for what changes at the end.

::

    columns  |a a a a . .|c c . .|b b b . . . . .|      each member has a block with room behind its rows
              ^begin  ^end

To change something is to cut a member's rows off at a time and to append what comes instead: a sample
that comes in order costs itself, a late one what lies behind it. No loop over members or rows.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.formula.steps import BAD_FROM, Floats, Keys, Statuses

NEVER: Final = int(np.iinfo(np.int64).max)
ALWAYS: Final = int(np.iinfo(np.int64).min)
_ROOM_MIN: Final = 4


class Rows(NamedTuple):
    """Rows of some members, one member after the other.

    Attributes:
        counts: how many each member has, shape (members,).
        at_us, value, status: of each row; at_us ascending in a member.
    """

    counts: Keys
    at_us: Keys
    value: Floats
    status: Statuses

    @property
    def slot(self) -> Keys:
        """For each row the place of its member among the members."""
        if len(self.at_us) == len(self.counts) and (self.counts == 1).all():
            return np.arange(len(self.counts))
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def where(self, keep: npt.NDArray[np.bool_]) -> Rows:
        counts = np.bincount(self.slot[keep], minlength=len(self.counts))
        return Rows(counts, self.at_us[keep], self.value[keep], self.status[keep])


def spread(low: Keys, high: Keys) -> Keys:
    """``low .. high-1`` of each pair, one after the other."""
    lengths = high - low
    if (lengths == 1).all():
        return low
    total = int(lengths.sum())
    return np.repeat(low - (np.cumsum(lengths) - lengths), lengths) + np.arange(total)


class Track:
    """See the module.

    Attributes:
        begin, end: where each member's rows lie.
        changed_us: of each member the first time at which the current advance changed something.
        since_us: of each member the time from which all its rows are here.
        hold_us: how long a last row may be used; 0 for ever.
        is_text: whether values are codes of words.
    """

    def __init__(self, members: int, *, received: bool = False) -> None:
        self.begin = np.zeros(members, np.int64)
        self.end = np.zeros(members, np.int64)
        self._block = np.zeros(members, np.int64)
        self._room = np.zeros(members, np.int64)
        self._used = 0
        self.at_us = np.empty(0, np.int64)
        self.value = np.empty(0, np.float64)
        self.status = np.empty(0, np.uint32)
        self.received_us = np.empty(0, np.int64) if received else None
        self.changed_us = np.full(members, NEVER)
        self.since_us = np.full(members, ALWAYS)
        self.hold_us = 0
        self.is_text = False

    @property
    def rows(self) -> int:
        """How many it has."""
        return int((self.end - self.begin).sum())

    @property
    def nbytes(self) -> int:
        """Of its columns."""
        return sum(each.nbytes for each in self._columns())

    def _columns(self) -> list[npt.NDArray[np.generic]]:
        made: list[npt.NDArray[np.generic]] = [self.at_us, self.value, self.status]
        return made if self.received_us is None else [*made, self.received_us]

    def last_us(self, members: Keys) -> Keys:
        """Time of each one's last row; ALWAYS without one."""
        end = self.end[members]
        some = end > self.begin[members]
        if not len(self.at_us):
            return np.full(len(members), ALWAYS)
        return np.where(some, self.at_us[np.maximum(end - 1, 0)], ALWAYS)

    def locate(self, members: Keys, at_us: Keys) -> Keys:
        """The place of each one's first row that is not before the time."""
        low, high = self.begin[members].copy(), self.end[members].copy()
        after = self.last_us(members) < at_us
        low[after] = high[after]
        searched = np.flatnonzero(low < high)
        low_, high_, at_ = low[searched], high[searched], at_us[searched]
        while len(low_) and (open_ := low_ < high_).any():
            middle = (low_ + high_) >> 1
            before = open_ & (self.at_us[np.minimum(middle, len(self.at_us) - 1)] < at_)
            low_ = np.where(before, middle + 1, low_)
            high_ = np.where(open_ & ~before, middle, high_)
        low[searched] = low_
        return low

    @staticmethod
    def places(low: Keys, high: Keys) -> Keys:
        """Of all rows from ``low`` to ``high`` of each member."""
        return spread(low, high)

    def take(self, low: Keys, high: Keys) -> Rows:
        """The rows at given places."""
        at = self.places(low, high)
        return Rows(high - low, self.at_us[at], self.value[at], self.status[at])

    def reach_back(self, members: Keys, from_us: Keys, *, usable: bool = False) -> Keys:
        """The place of the row that holds just before a time, or of the last usable one by then."""
        low = np.maximum(self.locate(members, from_us) - 1, self.begin[members])
        return self._usable(members, low) if usable else low

    def last_usable(self, members: Keys) -> Keys:
        """The place of each one's last usable row; of its first one where none is."""
        begin = self.begin[members]
        return self._usable(members, np.maximum(self.end[members] - 1, begin))

    def _usable(self, members: Keys, low: Keys) -> Keys:
        begin, end = self.begin[members], self.end[members]
        bad = (low < end) & (low > begin)
        if not bad.any():
            return low
        bad[bad] = self.status[low[bad]] >= BAD_FROM
        for at in np.flatnonzero(bad):
            good = np.flatnonzero(self.status[begin[at] : low[at]] < BAD_FROM)
            low[at] = begin[at] + (good[-1] if len(good) else 0)
        return low

    def cut(self, members: Keys, place: Keys) -> None:
        """Drop each one's rows from a place on."""
        self.end[members] = place

    def append(self, members: Keys, new: Rows, received_us: Keys | None = None) -> None:
        """Rows that come after those that are there.

        Args:
            members: each once.
        """
        counts = new.counts
        tight = self.end[members] + counts > self._room[members]
        if tight.any():
            rows = self.end[members[tight]] - self.begin[members[tight]] + counts[tight]
            sizes = np.maximum(2 * rows, _ROOM_MIN)
            if self._used + int(sizes.sum()) > len(self.at_us):
                self._grow(members, counts)
            else:
                self._make_room(members[tight], counts[tight], sizes)
        end = self.end[members]
        at = spread(end, end + counts)
        self.at_us[at], self.value[at], self.status[at] = new.at_us, new.value, new.status
        if self.received_us is not None:
            self.received_us[at] = 0 if received_us is None else received_us
        self.end[members] = end + counts

    def _make_room(self, members: Keys, counts: Keys, sizes: Keys) -> None:
        """By moving rows to the front of their block, or to a larger one behind all others."""
        wanted = self.end[members] - self.begin[members] + counts
        shift = 4 * wanted <= 3 * (self._room[members] - self._block[members])
        self._move(members[shift], self._block[members[shift]])
        moved, sizes = members[~shift], sizes[~shift]
        block = self._used + np.cumsum(sizes) - sizes
        self._used += int(sizes.sum())
        self._move(moved, block)
        self._block[moved], self._room[moved] = block, block + sizes

    def _move(self, members: Keys, to: Keys) -> None:
        begin, end = self.begin[members], self.end[members]
        source, target = spread(begin, end), spread(to, to + end - begin)
        for column in self._columns():
            column[target] = column[source]
        self.begin[members], self.end[members] = to, to + end - begin

    def _grow(self, members: Keys, counts: Keys) -> None:
        """New columns with room for what comes, without the blocks that were left."""
        live = self.end - self.begin
        wanted = live.copy()
        wanted[members] += counts
        sizes = np.where(wanted > 0, np.maximum(wanted + wanted // 2, _ROOM_MIN), 0)
        block = np.cumsum(sizes) - sizes
        source, target = spread(self.begin, self.end), spread(block, block + live)
        self._used = int(sizes.sum())
        room = self._used + self._used // 2
        names = ["at_us", "value", "status"]
        for name in names if self.received_us is None else [*names, "received_us"]:
            old = getattr(self, name)
            column = np.empty(room, old.dtype)
            column[target] = old[source]
            setattr(self, name, column)
        self.begin, self.end = block, block + live
        self._block, self._room = block.copy(), block + sizes

    def forget(self, members: Keys, before_us: Keys) -> None:
        """Drop what lies before the row that holds at a time, but for the last usable one before it."""
        low = np.maximum(self.locate(members, before_us + 1) - 1, self.begin[members])
        good = self._usable(members, low.copy())
        gap = np.flatnonzero(good < low)
        gap = gap[self.status[good[gap]] < BAD_FROM]
        for column in self._columns():
            column[low[gap] - 1] = column[good[gap]]
        low[gap] -= 1
        dropped = low > self.begin[members]
        some = members[dropped]
        self.begin[some] = low[dropped]
        self.since_us[some] = self.at_us[low[dropped]]
