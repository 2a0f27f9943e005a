"""The log as the apps of a runtime read it: its newest messages come and are decoded once for all of them.

::

    log ──► Tail: one reader, one decoding, the tags of all apps ──► ring ──► Reading of each app: its own tags
    log ──► Reading's own reader, while the app is further back than the ring

An app that was away, or is slower than the log, reads for itself until it has reached the ring: nobody waits
for it, and the ring has a bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from headrace.bus import envelope
from headrace.bus.client import Bus
from headrace.bus.log import LogMessage, LogReader, log_info
from headrace.model.errors import Corrupt, Transient
from headrace.model.sample import Int64Array, empty_batch
from headrace.model.time import Clock

LOOK_S: Final = 0.1
RETRY_S: Final = 0.5
RING_MESSAGES_MAX: Final = 512
RING_ROWS_MAX: Final = 400_000
TAIL_MESSAGES_MAX: Final = 64
NO_TAGS: Final = np.empty(0, np.int64)


@dataclass(frozen=True)
class _Passed:
    """A message of the log, or a stretch that the log has no more (``lost``: first, last)."""

    sequence: int
    at_us: int
    rows: pl.DataFrame
    lost: tuple[int, int] | None = None


@dataclass
class Part:
    """What came of the log.

    Attributes:
        rows: samples of the app's tags, by message. sequence: of the newest message read; 0 none was.
        known_us: source time up to which all that was on time is known. is_all: the log has no more.
        lost: stretches that the log has no more, first and last sequence.
    """

    rows: list[pl.DataFrame] = field(default_factory=list)
    sequence: int = 0
    known_us: int = 0
    is_all: bool = False
    lost: list[tuple[int, int]] = field(default_factory=list)


class Tail:
    """The newest messages of the log with the samples that any app reads.

    Args:
        bus: open. clock: says when all of the log was seen.
    """

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._ring: deque[_Passed] = deque()  # bounded by RING_MESSAGES_MAX, RING_ROWS_MAX
        self._rows = 0
        self._numbers = itertools.count(1)
        self._members: dict[int, Int64Array] = {}
        self._tags = NO_TAGS
        self._news = asyncio.Event()
        self._joined = asyncio.Event()
        self.first_sequence = self.next_sequence = 0  # what the ring covers: [first, next)
        self.known_us = 0
        self.is_all = False

    def join(self, tag_ids: Int64Array) -> tuple[int, int]:
        """Read these tags too; gives a number for :meth:`leave`, and the first sequence that has them."""
        number = next(self._numbers)
        self._members[number] = tag_ids
        self._count()
        self._joined.set()
        return number, self.next_sequence

    def leave(self, number: int) -> None:
        """One app less."""
        self._members.pop(number, None)
        self._count()

    async def run(self) -> None:
        """Read for ever, while there is an app; nothing is asked of the broker while there is none."""
        reader: LogReader | None = None
        try:
            while True:
                if not self._members:
                    self._forget()
                    if reader is not None:
                        await reader.close()
                        reader = None
                    self._joined.clear()
                    await self._joined.wait()
                try:
                    if reader is None:
                        reader = await self._begin()
                    await self._read(reader)
                except Transient:
                    await asyncio.sleep(RETRY_S)
        finally:
            if reader is not None:
                await reader.close()

    async def after(self, sequence: int) -> list[_Passed]:
        """Entries after a place, oldest first; where there is none yet, what comes within 100 ms."""
        if sequence + 1 >= self.next_sequence:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._news.wait()
        found = list(itertools.takewhile(lambda e: e.sequence > sequence, reversed(self._ring)))
        return found[::-1]

    # -- reading --------------------------------------------------------------------------------

    async def _begin(self) -> LogReader:
        last = (await log_info(self._bus)).last_sequence
        self.first_sequence = self.next_sequence = last + 1
        return LogReader(self._bus, last)

    async def _read(self, reader: LogReader) -> None:
        messages = await reader.next(LOOK_S, TAIL_MESSAGES_MAX)
        now_us = self._clock.now_us()
        for first, last in reader.lost:
            self._put(_Passed(last, 0, empty_batch(), (first, last)))
        reader.lost.clear()
        for message in messages:
            self._put(_Passed(message.sequence, message.at_us, _only(message, self._tags)))
        if messages:
            self.known_us = max(self.known_us, min(messages[-1].at_us, now_us))
            self.is_all = False
        elif await reader.has_all():
            self.known_us, self.is_all = max(self.known_us, now_us), True
        self._news.set()

    def _put(self, entry: _Passed) -> None:
        self.next_sequence = entry.sequence + 1
        if not entry.rows.height and entry.lost is None:
            return  # nobody reads a sample of it: that it came stands in next_sequence
        self._ring.append(entry)
        self._rows += entry.rows.height
        while len(self._ring) > RING_MESSAGES_MAX or self._rows > RING_ROWS_MAX:
            gone = self._ring.popleft()
            self._rows -= gone.rows.height
            self.first_sequence = gone.sequence + 1

    def _forget(self) -> None:
        self._ring.clear()
        self._rows = 0
        self.first_sequence = self.next_sequence = 0
        self.is_all = False

    def _count(self) -> None:
        every = [NO_TAGS, *self._members.values()]
        self._tags = np.unique(np.concatenate(every))


class Reading:
    """One app's way through the log.

    Args:
        tail: shared; None: it reads for itself throughout. after: the last sequence that it has.
        tag_ids: whose samples it wants, sorted.
    """

    def __init__(
        self, bus: Bus, clock: Clock, tail: Tail | None, tag_ids: Int64Array, after: int
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._tail = tail
        self._tags = tag_ids
        self._after = after
        self._own: LogReader | None = None
        self._number, self._joined = tail.join(tag_ids) if tail is not None else (0, 0)

    async def next(self, messages_max: int) -> Part:
        """What came after the last one; nothing when there is nothing new within 100 ms.

        Raises:
            Transient: BUS-1032 when the broker is away.
        """
        tail = self._tail
        if tail is None or not self._is_near(tail):
            return await self._alone(messages_max)
        await self._close_own()
        found = await tail.after(self._after)
        if not self._is_near(tail):
            return Part()  # the ring went on without us meanwhile
        if len(found) > messages_max:
            found = found[:messages_max]
            part = Part([], found[-1].sequence, found[-1].at_us)
        else:
            part = Part([], tail.next_sequence - 1, tail.known_us, tail.is_all)
        part.lost = [entry.lost for entry in found if entry.lost is not None]
        part.rows = [rows for entry in found if (rows := _of(entry.rows, self._tags)).height]
        part.sequence = part.sequence if part.sequence > self._after else 0
        self._after = max(self._after, part.sequence)
        return part

    def _is_near(self, tail: Tail) -> bool:
        """Whether the ring has all that comes next."""
        first = max(tail.first_sequence, self._joined)
        return tail.next_sequence > 0 and self._after + 1 >= first

    async def close(self) -> None:
        """Read no more; safe to call twice."""
        if self._tail is not None:
            self._tail.leave(self._number)
        await self._close_own()

    async def _alone(self, messages_max: int) -> Part:
        if self._own is None:
            self._own = LogReader(self._bus, self._after)
        messages = await self._own.next(LOOK_S, messages_max)
        now_us, part = self._clock.now_us(), Part()
        if messages:
            part.sequence = self._after = messages[-1].sequence
            part.known_us = min(messages[-1].at_us, now_us)
            found = [_only(message, self._tags) for message in messages]
            part.rows = [rows for rows in found if rows.height]
        elif await self._own.has_all():
            part.known_us, part.is_all = now_us, True
        part.lost = list(self._own.lost)
        self._own.lost.clear()
        return part

    async def _close_own(self) -> None:
        if self._own is not None:
            own, self._own = self._own, None
            await own.close()


def _only(message: LogMessage, tags: Int64Array) -> pl.DataFrame:
    try:
        return _of(envelope.decode(message.body), tags)
    except Corrupt:
        return empty_batch()  # the historian puts it aside and tells


def _of(batch: pl.DataFrame, tags: Int64Array) -> pl.DataFrame:
    read = np.isin(batch["tag_id"].to_numpy(), tags)
    return batch if read.all() else batch.filter(pl.Series(read))
