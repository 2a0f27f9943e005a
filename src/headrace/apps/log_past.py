"""The past as an edge on its own machine has it: the newest part of its own log, of the tags that its
formulas read and give. There is no table.

::

    log:   │ may have left │ read once, folded │ kept                      │ now
           └───────────────┴─ of each tag one ─┴─ every sample ────────────┘
                              sample: ``base``    ``segments``

What windows may look back to is kept whole, an hour at least, up to :data:`ROWS_MAX` samples; of what is
older the newest sample of each tag, since a value holds until the next one. Both are noted with the place in
the log (a *mark*), so that a start reads the log from there and not from its beginning.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final

import msgspec
import numpy as np
import polars as pl

from headrace.bus import envelope
from headrace.bus.client import Bus
from headrace.bus.log import LogInfo, LogMessage, LogReader, log_info, stored_at_us
from headrace.bus.subjects import APPS_BUCKET
from headrace.historian.index import Snapshot
from headrace.historian.last import edge as newest_of_each
from headrace.historian.layout import sort_unique
from headrace.historian.scan import without_retracted
from headrace.historian.tail import Segment
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, HeadraceError, Refused, Transient
from headrace.model.sample import Int64Array, empty_batch, microseconds
from headrace.model.tasks import check_cancelled, end_tasks
from headrace.model.time import US_PER_S, Clock

ROWS_MAX: Final = 4_000_000
KEEP_MIN_US: Final = 3_600 * US_PER_S
SEGMENT_ROWS_MAX: Final = 200_000
SEGMENT_SPAN_US: Final = 300 * US_PER_S
SEGMENTS_MERGE: Final = 8
SEGMENTS_ABOUT: Final = 64
TEND_S: Final = 30.0
WAIT_S: Final = 0.25
_log = logging.getLogger(__name__)


class PastMark(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the log up to a message.

    Attributes:
        log_us: when the log was made. sequence: of the message.
        kept_us: source time from which every sample is known.
        tags: of which. base: the newest sample of each of them up to the message, as on the wire.
    """

    log_us: int
    sequence: int
    kept_us: int
    tags: list[int]
    base: bytes


class LogPast:
    """Follows an edge's log; a reader takes it as its tail (:class:`headrace.historian.reader.Reader`).

    Args:
        bus: of the edge's own broker. clock: wall-clock.
        key: of the mark, in ``bucket``.
        rows_max: samples in memory.

    Attributes:
        app: empty until it has begun. generation: another one each time it began anew.
        paused: never.
        kept_us: source time from which every sample is known; 0: there is no older one.
    """

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        key: str,
        *,
        rows_max: int = ROWS_MAX,
        bucket: str = APPS_BUCKET,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._key = key
        self._bucket = bucket
        self._rows_max = rows_max
        self._lock = threading.Lock()
        self._tags: Int64Array = np.empty(0, np.int64)
        self._keep_us = KEEP_MIN_US
        self._done_us: Callable[[], int] = clock.now_us
        self._base = empty_batch()
        self._base_sequence = 0
        self._segments: list[Segment] = []
        self._sequence = 0
        self._log_us = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.app = ""
        self.generation = 0
        self.paused = False
        self.kept_us = 0

    async def want(self, tags: Int64Array, back_us: int, done_us: Callable[[], int]) -> None:
        """From now on know these tags; begins anew where some of them were not known.

        Args:
            tags: sorted. back_us: how far formulas look back.
            done_us: source time up to which results are out.
        """
        self._done_us = done_us
        self._keep_us = max(KEEP_MIN_US, 2 * back_us + KEEP_MIN_US)
        if self._task is not None and np.isin(tags, self._tags).all():
            return
        await self.close()
        self._tags = tags
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Note the mark and stop following."""
        if self._task is not None:
            await end_tasks(self._task)
            self._task = None
            if self.app:
                with contextlib.suppress(Transient):
                    await self._save()
        with self._lock:
            self._segments, self._base, self.app = [], empty_batch(), ""

    async def catch_up(self, timeout_s: float = 10.0) -> None:
        """Wait until all is known that the log has now.

        Raises:
            Transient: APPS-1409 when that takes longer; what was read until then stays.
        """
        try:
            async with asyncio.timeout(timeout_s):
                target = (await log_info(self._bus)).last_sequence
                while not self.app or self._sequence < target:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError as error:
            raise Transient(
                "APPS-1409",
                f"the log of the edge is read up to the message {self._sequence}, not to its end yet",
                "It goes on by itself.",
            ) from error

    def segments(self, _: Snapshot) -> list[Segment]:
        """What is known, oldest first."""
        with self._lock:
            base = [_segment(0, self._base_sequence, 0, self._base)] if self._base.height else []
            return base + self._segments

    @property
    def rows(self) -> int:
        """Samples in memory."""
        with self._lock:
            return sum(segment.rows for segment in self._segments) + self._base.height

    async def _run(self) -> None:
        while True:
            check_cancelled()
            try:
                await self._follow()
            except HeadraceError as error:
                _log.warning("%s", error)
                await asyncio.sleep(WAIT_S)

    async def _follow(self) -> None:
        """Follow one log for as long as it is the same one."""
        info = await log_info(self._bus)
        if not self.app or info.created_us != self._log_us or info.last_sequence < self._sequence:
            await self._begin(info)
        log = LogReader(self._bus, self._sequence)
        tended_s = self._clock.monotonic_s()
        try:
            while True:
                check_cancelled()
                messages = await log.next(WAIT_S)
                for _, last in log.lost:
                    self.kept_us = max(self.kept_us, await stored_at_us(self._bus, last + 1) or 0)
                log.lost.clear()
                if messages:
                    self._take(messages)
                if self._clock.monotonic_s() - tended_s >= TEND_S or self._is_full():
                    self._forget()
                    await self._save()
                    tended_s = self._clock.monotonic_s()
                if not messages:
                    info = await log_info(self._bus)
                    if info.created_us != self._log_us or info.last_sequence < self._sequence:
                        return
        finally:
            await log.close()

    async def _begin(self, info: LogInfo) -> None:
        """Go on from the mark where it is one of this log and these tags; else from the log's start."""
        known = await self._load(info)
        with self._lock:
            self._segments = []
            self._log_us = info.created_us
            if known is not None:
                self._base, self._sequence = envelope.decode(known.base), known.sequence
                self.kept_us = known.kept_us
            else:
                self._base, self._sequence = empty_batch(), max(info.first_sequence - 1, 0)
                self.kept_us = 0
            self._base_sequence = self._sequence
            self.generation += 1
        if known is None and self._sequence:
            self.kept_us = await stored_at_us(self._bus, info.first_sequence) or info.created_us
        self.app = self._key
        self._arrived.set()

    async def _load(self, info: LogInfo) -> PastMark | None:
        await self._bus.key_value(self._bucket, history=1)
        raw = await self._bus.get(self._bucket, self._key)
        try:
            found = msgspec.msgpack.decode(raw, type=PastMark) if raw else None
        except UNREADABLE:
            return None  # of another version of ours
        if found is None or found.log_us != info.created_us:
            return None
        if not info.first_sequence - 1 <= found.sequence <= info.last_sequence:
            return None
        return found if np.isin(self._tags, found.tags).all() else None

    async def _save(self) -> None:
        """Keep what a start needs; where it is too long, a start reads the log from its beginning."""
        first = self._segments[0].first - 1 if self._segments else self._sequence
        made = PastMark(
            log_us=self._log_us,
            sequence=first,
            kept_us=self.kept_us,
            tags=self._tags.tolist(),
            base=envelope.encode(self._base),
        )
        with contextlib.suppress(Refused):
            await self._bus.put(self._bucket, self._key, msgspec.msgpack.encode(made))

    def _take(self, messages: list[LogMessage]) -> None:
        batches = []
        for message in messages:
            try:
                batch = envelope.decode(message.body)
            except Corrupt:
                continue  # the feed counts it, the hub's writer keeps it
            batch = batch.filter(pl.Series(np.isin(batch["tag_id"].to_numpy(), self._tags)))
            if batch.height:
                batches.append(batch)
        last = messages[-1]
        if batches:
            batch = pl.concat(batches, rechunk=True)
            with self._lock:
                made = _segment(messages[0].sequence, last.sequence, last.at_us, batch)
                self._segments.append(made)
                self._merge()
        self._sequence = last.sequence
        self._arrived.set()

    def _merge(self) -> None:
        """Keep few segments, none of them of many samples or of a long time."""
        parts = self._segments
        span_us = max(SEGMENT_SPAN_US, self._keep_us // SEGMENTS_ABOUT)
        while len(parts) > SEGMENTS_MERGE:
            older, newer = parts[-2], parts[-1]
            assert older.batch is not None and newer.batch is not None, "all are in memory"
            rows = older.rows + newer.rows
            if older.rows > 2 * newer.rows or rows > SEGMENT_ROWS_MAX:
                break
            if newer.at_us - older.at_us > span_us:
                break
            joined = pl.concat([older.batch, newer.batch], rechunk=True)
            parts[-2:] = [_segment(older.first, newer.last, newer.at_us, joined)]

    def _is_full(self) -> bool:
        return sum(segment.rows for segment in self._segments) > self._rows_max

    def _forget(self) -> None:
        """Fold what is older than anything that formulas look back to, and the oldest where all is too
        much."""
        floor_us = min(self._clock.now_us(), self._done_us()) - self._keep_us
        with self._lock:
            folded, kept_us = [self._base], self.kept_us
            while self._segments and (self._segments[0].at_us < floor_us or self._is_full()):
                gone = self._segments.pop(0)
                assert gone.batch is not None, "all are in memory"
                folded.append(gone.batch)
                kept_us = max(kept_us, min(gone.end_us, gone.at_us) + 1)
                self._base_sequence = gone.last
            if len(folded) > 1:
                rows = without_retracted(sort_unique(pl.concat(folded)))
                self._base = newest_of_each(rows, newest=True)
                self.kept_us = kept_us


def _segment(first: int, last: int, stored_us: int, batch: pl.DataFrame) -> Segment:
    at_us = microseconds(batch["source_timestamp"])
    return Segment(
        first=first,
        last=last,
        at_us=stored_us,
        rows=batch.height,
        start_us=int(at_us.min()),
        end_us=int(at_us.max()),
        batch=batch,
    )
