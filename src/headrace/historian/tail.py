"""The tail: samples of the log that the table does not have yet, held by a reader.

A read is the table at its committed sequence plus the tail after that sequence. The reader takes the table's
snapshot first and then the tail; the tail forgets only what such a snapshot already had. So nothing is
missing at the moment of a commit, and what both have is one sample after de-duplication.

Memory is bounded: above ``rows_max`` the oldest part goes to temporary files on disk, and above
``spill_rows_max`` the tail stops following until the writer has caught up, and says so.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from headrace.bus import envelope
from headrace.bus.client import Bus
from headrace.bus.log import LogInfo, LogMessage, LogReader, is_restored, log_info
from headrace.bus.subjects import SAMPLES_STREAM
from headrace.historian.index import Snapshot, TableIndex
from headrace.historian.layout import app_id, sort_unique
from headrace.historian.partition import WHOLE
from headrace.historian.scan import matching
from headrace.model.errors import Corrupt, HeadraceError, Transient
from headrace.model.health import Severity
from headrace.model.tasks import check_cancelled, end_tasks

ROWS_MAX: Final = 2_000_000
SPILL_ROWS_MAX: Final = 200_000_000
SEGMENTS_MERGE: Final = 8
WAIT_S: Final = 0.25
FORGET_ROWS: Final = 100_000
_log = logging.getLogger(__name__)

Report = Callable[[Severity, str, str, str], None]
"""(severity, code, text, remedy) of something that happened."""


@dataclass(frozen=True)
class Segment:
    """Samples of the sequences ``first`` to ``last``; in memory, or in a temporary file. ``at_us`` is the
    broker's time of storing the last."""

    first: int
    last: int
    at_us: int
    rows: int
    start_us: int
    end_us: int
    batch: pl.DataFrame | None = None
    path: Path | None = None

    def lazy(self) -> pl.LazyFrame:
        """The samples as a query."""
        if self.batch is not None:
            return self.batch.lazy()
        assert self.path is not None, "a segment without a batch is a file"
        return pl.scan_parquet(self.path, glob=False)

    def read(self, tag_ids: list[int] | None, start_us: int, end_us: int) -> pl.DataFrame:
        """The matching samples."""
        return self.lazy().filter(matching(tag_ids, start_us, end_us)).collect()


class FrozenTail:
    """What the log had after the table at one moment, kept as files: for readers in other processes.

    Args:
        paths: Parquet files of batches, oldest first.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.app, self.generation, self.paused = "frozen", 0, False
        found = [(path, pl.read_parquet(path)) for path in paths]
        self._segments = [
            _segment(number, number, 0, batch, path)
            for number, (path, batch) in enumerate(found, 1)
        ]

    def segments(self, _: Snapshot) -> list[Segment]:
        """All of it: what the table has got meanwhile is de-duplicated."""
        return self._segments

    async def catch_up(self, _: float = 0.0) -> None:
        """Nothing comes any more."""


def freeze(segments: Sequence[Segment], folder: Path) -> list[Path]:
    """Write segments as files that :class:`FrozenTail` takes."""
    paths = []
    for number, segment in enumerate(segments):
        path = folder / f"tail-{number:04d}.parquet"
        segment.lazy().collect().write_parquet(path, compression="lz4", row_group_size=65_536)
        paths.append(path)
    return paths


class Tail:
    """Follows the log from what the table has; belongs to one reader. A log that was restored to an
    older state is known by the broker's times, and taken from its start.

    Args:
        bus: open.
        index: of the same table; the tail begins at its committed sequence.
        rows_max: samples in memory, about. spill_rows_max: in temporary files.
        report: told when it pauses and when it follows again; None writes to the log.
    """

    def __init__(
        self,
        bus: Bus,
        index: TableIndex,
        *,
        rows_max: int = ROWS_MAX,
        spill_rows_max: int = SPILL_ROWS_MAX,
        report: Report | None = None,
    ) -> None:
        self._report = report or _to_log
        self._spill_rows_max = spill_rows_max
        self._bus = bus
        self._index = index
        self._rows_max = rows_max
        self._lock = threading.Lock()
        self._segments: list[Segment] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._spilled = 0
        self._forgotten_version = -1
        self._last_at_us = 0
        self._reconnects = 0
        self._forget_at_rows = FORGET_ROWS
        self._task: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self.app = ""
        self.generation = 0
        self.last_sequence = 0
        self.paused = False

    async def start(self) -> None:
        """Begin to follow; returns at once."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop following and forget everything."""
        if self._task is not None:
            await end_tasks(self._task)
            self._task = None
        with self._lock:
            self._segments = []
            if self._temporary is not None:
                self._temporary.cleanup()
                self._temporary = None

    async def catch_up(self, timeout_s: float = 10.0) -> None:
        """Wait until the tail has everything that the log has now.

        Raises:
            Transient: HIST-1030 when that takes longer than ``timeout_s``.
        """
        try:
            async with asyncio.timeout(timeout_s):
                target = (await log_info(self._bus)).last_sequence
                while not self.app or self.last_sequence < target:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError as error:
            raise Transient(
                "HIST-1030",
                f"the tail is at {self.last_sequence} and does not reach the end of the log",
                "See whether the broker is well: headrace status",
            ) from error

    def segments(self, snapshot: Snapshot) -> list[Segment] | None:
        """What the table of ``snapshot`` has not got, oldest first; forgets the rest. None when more was
        forgotten meanwhile, for somebody who knew a newer state of the table: look at that first."""
        with self._lock:
            if snapshot.version < self._forgotten_version:
                return None
            self._forget(snapshot)
            return list(self._segments)

    @property
    def rows(self) -> int:
        """Samples held now."""
        return sum(segment.rows for segment in self._segments)

    def _forget(self, snapshot: Snapshot) -> None:
        """The lock is held. Files of forgotten segments go with the temporary folder's next use.

        The number alone does not tell: a restored log gives the numbers of stored messages to new ones.
        """
        committed = snapshot.committed(self.app)
        if committed is None:
            return
        stored_us = snapshot.log_time_us(self.app, WHOLE)
        kept = []
        for segment in self._segments:
            if segment.last > committed or (stored_us and segment.at_us > stored_us):
                kept.append(segment)
            elif segment.path is not None:
                self._spilled -= segment.rows
                segment.path.unlink(missing_ok=True)  # open scans keep their descriptor
        self._segments = kept
        self._forgotten_version = snapshot.version

    async def _run(self) -> None:
        while True:
            check_cancelled()
            try:
                await self._follow()
            except HeadraceError as error:
                _log.warning("%s", error)
                await asyncio.sleep(WAIT_S)

    async def _follow(self) -> None:
        """Follow one stream for as long as it is the same one."""
        self._reconnects = self._bus.reconnects
        info = await log_info(self._bus)
        app = app_id(SAMPLES_STREAM, info.created_us)
        if app != self.app or await is_restored(
            self._bus, info, self.last_sequence, self._last_at_us
        ):
            await self._begin(info, app)
        log = LogReader(self._bus, self.last_sequence)
        try:
            while True:
                check_cancelled()
                messages = [] if self._is_paused() else await log.next(WAIT_S)
                if self._bus.reconnects != self._reconnects:
                    return  # it may be another log: see first which one
                if messages:
                    self._take(messages)
                    await self._let_go()
                elif not await self._same_stream(info.created_us):
                    return
        finally:
            await log.close()

    async def _begin(self, info: LogInfo, app: str) -> None:
        """Forget what was held, and begin after what the table has."""
        snapshot = await asyncio.to_thread(self._index.refresh, force=True)
        committed = snapshot.committed(app)
        stored_us = snapshot.log_time_us(app, WHOLE)
        start = max(info.first_sequence - 1, 0)
        if committed is None or await is_restored(self._bus, info, committed, stored_us):
            committed, stored_us = start, 0
        with self._lock:
            self._segments, self._spilled = [], 0
            self.generation += 1
            self.app = app
        self.last_sequence, self._last_at_us = committed, stored_us
        self._arrived.set()

    async def _let_go(self) -> None:
        """Forget now and then what the table has: nobody may be reading for days."""
        if self.rows > self._forget_at_rows:
            snapshot = await asyncio.to_thread(self._index.refresh)
            self.segments(snapshot)
            self._forget_at_rows = self.rows + FORGET_ROWS

    async def _same_stream(self, created_us: int) -> bool:
        if self.paused:
            await asyncio.sleep(WAIT_S)
        info = await log_info(self._bus)
        return info.created_us == created_us and info.last_sequence >= self.last_sequence

    def _is_paused(self) -> bool:
        if self.paused or self._spilled > self._spill_rows_max:
            self.segments(self._index.refresh())
            full = self._spilled > self._spill_rows_max
            if full and not self.paused:
                text = f"reads lack the newest: {self.rows:,} samples wait for the writer"
                remedy = "See whether the historian keeps up: headrace status"
                self._report("warning", "HIST-1031", text, remedy)
            elif self.paused and not full:
                self._report("info", "HIST-1801", "reads have the newest samples again", "")
            self.paused = full
        return self.paused

    def _take(self, messages: list[LogMessage]) -> None:
        batches = []
        for message in messages:
            try:
                batches.append(envelope.decode(message.body))
            except Corrupt:
                continue  # the writer reports it and keeps it
        filled = [batch for batch in batches if batch.height]
        last = messages[-1]
        if filled:
            batch = pl.concat(filled, rechunk=True)
            segment = _segment(messages[0].sequence, last.sequence, last.at_us, batch)
            with self._lock:
                self._segments.append(segment)
                self._merge()
                self._spill()
        self.last_sequence, self._last_at_us = last.sequence, last.at_us
        self._arrived.set()

    def _merge(self) -> None:
        """Keep few segments: join neighbours of like size, so each sample is copied O(log n) times."""
        parts = self._segments
        while len(parts) > SEGMENTS_MERGE:
            older, newer = parts[-2], parts[-1]
            if older.batch is None or newer.batch is None or older.rows > 2 * newer.rows:
                break
            joined = pl.concat([older.batch, newer.batch], rechunk=True)
            parts[-2:] = [_segment(older.first, newer.last, newer.at_us, joined)]

    def _spill(self) -> None:
        """Bring memory back below its bound by writing the oldest half to one file."""
        held = [segment for segment in self._segments if segment.batch is not None]
        if sum(segment.rows for segment in held) <= self._rows_max:
            return
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="headrace-tail-")
        chosen: list[Segment] = []
        while held and sum(segment.rows for segment in chosen) < self._rows_max // 2:
            chosen.append(held.pop(0))
        batch = sort_unique(pl.concat([s.batch for s in chosen if s.batch is not None]))
        path = Path(self._temporary.name) / f"{chosen[0].first}.parquet"
        batch.write_parquet(path, compression="lz4", row_group_size=65_536)
        last = chosen[-1]
        spilled = _segment(chosen[0].first, last.last, last.at_us, batch, path)
        self._spilled += spilled.rows
        place = self._segments.index(chosen[0])
        self._segments[place : place + len(chosen)] = [spilled]


def _to_log(severity: Severity, code: str, text: str, _remedy: str) -> None:
    _log.log(logging.INFO if severity == "info" else logging.WARNING, "%s %s", code, text)


def _segment(
    first: int, last: int, stored_us: int, batch: pl.DataFrame, path: Path | None = None
) -> Segment:
    at_us = batch["source_timestamp"].to_physical()
    return Segment(
        first=first,
        last=last,
        at_us=stored_us,
        rows=batch.height,
        start_us=int(at_us.min()),  # type: ignore[arg-type] # a segment is never empty
        end_us=int(at_us.max()),  # type: ignore[arg-type] # same
        batch=batch if path is None else None,
        path=path,
    )
