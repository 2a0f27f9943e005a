"""The writer: follows the log of samples and commits what it takes, each sample exactly once.

::

    log ── LogReader ──► pending chunk ── full, due or stop ──► chunk in flight ──► table (a thread)
                          (bounded)                              (at most one)        │
    purge ◄── committed and older than log_keep_s ◄────────────────────────────────────┘

The place in the log lives in the table alone, in the same atomic commit as the samples. A commit that
fails (disk full) keeps its chunk and is tried again; meanwhile at most one more chunk is collected and
then nothing more is taken, the log keeps it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from headrace.bus import envelope
from headrace.bus.client import Bus
from headrace.bus.log import (
    LogInfo,
    LogMessage,
    LogReader,
    is_restored,
    log_info,
    log_subjects,
    purge_log,
    stored_at_us,
)
from headrace.bus.subjects import SAMPLES_STREAM
from headrace.historian.commit import Chunk, Committed, Committer, runs_of
from headrace.historian.layout import app_id
from headrace.historian.partition import slot_of
from headrace.historian.table import Table
from headrace.model.desired import HistorianConfig
from headrace.model.errors import Corrupt, Transient
from headrace.model.health import HistorianState
from headrace.model.time import Clock

Severity = Literal["info", "warning", "error"]
Report = Callable[[Severity, str, str, str], None]
"""(severity, code, text, remedy) of something that happened."""

RETRY_S: Final = 1.0
LOOK_S: Final = 1.0
WAIT_S: Final = 0.2
TAKE_MAX: Final = 8
PURGE_S: Final = 10.0
LOG_FILL_MAX: Final = 0.5
NO_SUBJECT: Final = "v1.-.-.batch.-.-"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WriterSettings:
    """When the writer commits, whichever comes first, and how long the log keeps what is committed.

    Attributes:
        commit_rows_max: samples in one commit, about.
        commit_bytes_max: bytes of messages in one commit.
        commit_interval_s: age of the oldest sample that waits.
        log_keep_s: committed messages stay in the log so long, while it is less than half full.
    """

    commit_rows_max: int = 1_000_000
    commit_bytes_max: int = 256 << 20
    commit_interval_s: float = 20.0
    log_keep_s: float = 3600.0


class Writer:
    """One writer of one table.

    Args:
        bus: open; the stream may appear later.
        committer: of the open table.
        report: takes what happens, for people; must not block.
        config: gives the historian's desired state as it is now.
    """

    def __init__(
        self,
        bus: Bus,
        table: Table,
        committer: Committer,
        clock: Clock,
        *,
        report: Report,
        config: Callable[[], HistorianConfig] = HistorianConfig,
        settings: WriterSettings | None = None,
    ) -> None:
        self._bus = bus
        self._table = table
        self._committer = committer
        self._clock = clock
        self._report = report
        self._config = config
        self._settings = settings or WriterSettings()
        self._app = ""
        self._pending = Chunk(0)
        self._in_flight: Chunk | None = None
        self._commit: asyncio.Task[Committed] | None = None
        self._retry_at_s = 0.0
        self._looked_at_s = float("-inf")
        self._purged_at_s = float("-inf")
        self._recent: deque[tuple[float, int]] = deque(maxlen=10_000)
        self._purged = 0
        self._reconnects = 0
        self._log_full = False
        self._partition = table.partition
        self._subjects: frozenset[str] = frozenset()
        self._known: dict[int, int] = {}
        self.state = HistorianState(
            state="waiting", at_us=clock.now_us(), started_us=clock.now_us()
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Write until ``stop``, then commit what was taken; goes on by itself after any outage.

        Raises:
            Terminal: HIST-1010 when another process commits to the table.
        """
        while not stop.is_set():
            try:
                await self._follow(stop)
            except Transient as error:
                self._fail("waiting", error.code, error.what)
                await _wait(stop, RETRY_S)

    async def _follow(self, stop: asyncio.Event) -> None:
        """Follow one stream for as long as it is the same one."""
        info = await log_info(self._bus)
        self._app = app_id(SAMPLES_STREAM, info.created_us)
        self._reconnects = self._bus.reconnects
        position = await self._start(info)
        is_new = position < (self._table.committed(self._app) or 0)
        self._known = {} if is_new else self._table.snapshot.slot_positions(self._app)
        # A disk that refuses this refuses the next commit too, which says so.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._committer.begin, self._app, position)
        log = await self._open_log(position)
        self._pending, self._in_flight = Chunk(position), None  # the log gives again what failed
        self._recent.clear()
        if self._partition.is_whole:
            self._recent.append((self._clock.monotonic_s(), position))
        if self.state.state == "waiting":
            self.state.state = "running"
        try:
            while not stop.is_set():
                if not await self._step(log, stop) or not await self._look(info, log):
                    break
            if await self._has_all_subjects():
                await self._finish()
        finally:
            await self._settle()
            await log.close()

    async def _open_log(self, position: int) -> LogReader:
        """A writer of a part reads its own subjects alone. A new one may have messages before what was
        read of the others, so the list is compared before each commit, see _has_all_subjects."""
        if self._partition.is_whole:
            return LogReader(self._bus, position)
        self._subjects = await self._own_subjects()
        return LogReader(self._bus, position, only=sorted(self._subjects) or [NO_SUBJECT])

    async def _own_subjects(self) -> frozenset[str]:
        return frozenset(s for s in await log_subjects(self._bus) if self._partition.owns(s))

    async def _has_all_subjects(self) -> bool:
        """False when this part has subjects that are not read: what was taken is no whole chunk."""
        return self._partition.is_whole or await self._own_subjects() <= self._subjects

    async def _start(self, info: LogInfo) -> int:
        """The sequence after which to begin."""
        committed = self._table.committed(self._app)
        if committed is None:
            return max(info.first_sequence - 1, 0)
        known_us = self._table.snapshot.log_time_us(self._app, self._table.partition)
        if await is_restored(self._bus, info, committed, known_us):
            self._report(
                "error",
                "HIST-1020",
                f"the log, which ends at {info.last_sequence}, does not hold what was stored from it "
                f"up to {committed}: it was restored to an older state",
                "Nothing to do: the log is taken from its start and copies are dropped.",
            )
            self.state.committed_sequence = max(info.first_sequence - 1, 0)
            return self.state.committed_sequence
        self.state.committed_sequence = committed
        return committed

    async def _step(self, log: LogReader, stop: asyncio.Event) -> bool:
        """Take, and commit what is due; False when the log must be followed anew."""
        if self._is_full(self._pending):
            await self._await_commit(stop)
        else:
            messages = await log.next(WAIT_S, self._room())
            if self._bus.reconnects != self._reconnects:
                # They may be of another log than what was taken so far: see first which one it is.
                return False
            for message in messages:
                self._take(message)
            self._report_lost(log)
        if self._commit is not None and self._commit.done():
            self._take_result()
        if self._commit is None and (self._in_flight or self._is_due(self._pending)):
            if not await self._has_all_subjects():
                return False
            self._start_commit()
        return True

    def _take(self, message: LogMessage) -> None:
        if message.sequence <= self._known.get(slot_of(message.subject), 0):
            return  # another writer stored it, when this slot was its own
        now_s = self._clock.monotonic_s()
        try:
            batch = envelope.decode(message.body)
        except Corrupt as error:
            self._pending.take_corrupt(message, str(error), now_s)
            self._report(
                "error",
                "HIST-1021",
                f"message {message.sequence} on {message.subject} is no batch: {error.what}",
                "It is kept in the quarantine folder with the reason; see what publishes it.",
            )
            return
        runs = runs_of(message, batch.height)
        self._pending.take(message.sequence, batch, len(message.body), now_s, message.at_us, runs)

    def _report_lost(self, log: LogReader) -> None:
        for first, last in log.lost:
            self._report(
                "error",
                "HIST-1022",
                f"the log no longer has the messages {first} to {last}, which were not stored",
                "See who purged the stream SAMPLES; give the log more room if it was its bound.",
            )
        log.lost.clear()

    def _room(self) -> int:
        """How many messages to take at once, so that a chunk is hardly above its bound."""
        frames = (self._settings.commit_rows_max - self._pending.rows) // envelope.FRAME_ROWS_MAX
        return min(max(frames, 1), TAKE_MAX)

    def _is_full(self, chunk: Chunk) -> bool:
        limits = self._settings
        return chunk.rows >= limits.commit_rows_max or chunk.bytes >= limits.commit_bytes_max

    def _is_due(self, chunk: Chunk) -> bool:
        if chunk.since_s is None:
            return False
        age_s = self._clock.monotonic_s() - chunk.since_s
        return self._is_full(chunk) or age_s >= self._settings.commit_interval_s

    def _start_commit(self) -> None:
        """Begin the next commit, or the failed one again, if the disk allows."""
        if self._clock.monotonic_s() < self._retry_at_s:
            return
        free, floor = self._free_bytes(), self._config().stop_free_bytes_min
        if free is not None and free < floor:
            self._disk_full(f"{free} bytes are free on the table's disk, less than {floor}")
            return
        if self._in_flight is None:
            self._in_flight, self._pending = self._pending, Chunk(self._pending.sequence)
        self._commit = asyncio.create_task(
            asyncio.to_thread(self._committer.commit, self._in_flight, self._app)
        )

    def _take_result(self) -> None:
        """Take the outcome of the commit that is done.

        Raises:
            Terminal: HIST-1010 when another process commits to the table.
        """
        assert self._commit is not None, "called only when a commit is done"
        task, self._commit = self._commit, None
        try:
            result = task.result()
        except OSError as error:
            self._disk_full(f"the disk refused a commit: {error.strerror or error}")
            return
        self._in_flight = None
        if self._partition.is_whole:
            self._recent.append((self._clock.monotonic_s(), result.sequence))
        self.state.committed_sequence = result.sequence
        self.state.last_commit_us = self._clock.now_us()
        self._recover()
        if result.dropped_quarantine:
            self._report(
                "warning",
                "HIST-1023",
                f"the quarantine is full: {result.dropped_quarantine} old messages were deleted",
                "See what publishes messages that are no batches.",
            )

    async def _await_commit(self, stop: asyncio.Event) -> None:
        if self._commit is not None:
            await asyncio.wait({self._commit}, timeout=WAIT_S)
        else:
            await _wait(stop, WAIT_S)  # a failed one waits for its retry, a full disk for room

    async def _finish(self) -> None:
        """The last commit of a clean stop."""
        await self._settle()
        for _ in range(2):  # the one that failed before, then the pending one
            if self._in_flight is None and self._pending.is_empty:
                return
            self._retry_at_s = 0.0
            self._start_commit()
            await self._settle()

    async def _settle(self) -> None:
        if self._commit is not None:
            await asyncio.wait({self._commit})
            self._take_result()

    async def _look(self, known: LogInfo, log: LogReader) -> bool:
        """Once a second: how the log and the table are; False when the stream is another one."""
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_at_s < LOOK_S:
            return True
        self._looked_at_s = now_s
        info = await log_info(self._bus)
        self.refresh_state()
        self.state.last_sequence = info.last_sequence
        if info.created_us != known.created_us or info.last_sequence < self._pending.sequence:
            return False
        if self._bus.reconnects != self._reconnects:
            return False  # it may have been restored meanwhile: begin as at a start
        if not self._partition.is_whole:
            await self._advance(info, log, now_s)
        if self._partition.cares:
            await self._purge(info, now_s)
        return True

    async def _advance(self, info: LogInfo, log: LogReader, now_s: float) -> None:
        """Let the position of a part follow the log when only others' messages come: what the log may
        forget, and what readers must hold, goes by the part that is furthest behind."""
        idle = self._pending.is_empty and self._in_flight is None and self._commit is None
        if idle and info.last_sequence > self._pending.sequence and await log.has_all():
            at_us = await stored_at_us(self._bus, info.last_sequence)
            self._pending.pass_by(info.last_sequence, now_s, at_us or 0)

    async def _purge(self, info: LogInfo, now_s: float) -> None:
        """Let the log forget what the table has, early when the log fills up."""
        filling = info.bytes_max > 0 and info.bytes > LOG_FILL_MAX * info.bytes_max
        if now_s - self._purged_at_s < (LOOK_S if filling else PURGE_S):
            return
        self._purged_at_s = now_s
        await self._see_others(now_s)
        keep_s = 0.0 if filling else self._settings.log_keep_s
        target = 0
        while self._recent and self._recent[0][0] <= now_s - keep_s:
            target = self._recent.popleft()[1]
        if target > self._purged and target >= info.first_sequence:
            await purge_log(self._bus, target)
            self._purged = target
        self._tell_full(filling, info)

    async def _see_others(self, now_s: float) -> None:
        """What all writers have, where there are several."""
        if self._partition.is_whole:
            return
        snapshot = await asyncio.to_thread(self._table.refresh)
        self._recent.append((now_s, snapshot.committed(self._app) or 0))

    def _tell_full(self, filling: bool, info: LogInfo) -> None:
        if filling and not self._log_full:
            self._report(
                "warning",
                "HIST-1024",
                f"the log holds {info.bytes} of {info.bytes_max} bytes; stored messages leave it early",
                "See whether the historian keeps up: headrace status",
            )
        self._log_full = filling

    def refresh_state(self) -> None:
        """Bring the published state up to date with the table and the disk."""
        snapshot, state = self._table.snapshot, self.state
        state.at_us = self._clock.now_us()
        state.samples_total = snapshot.rows
        state.partition = "" if self._partition.is_whole else str(self._partition)
        state.duplicates_total = self._table.counters.get("duplicates_total", 0)
        state.table_version = snapshot.version
        state.files = len(snapshot.files)
        state.bytes = snapshot.bytes
        state.disk_free_bytes = self._free_bytes() or 0

    def _free_bytes(self) -> int | None:
        return self._table.storage.free_bytes()

    def _disk_full(self, text: str) -> None:
        self._retry_at_s = self._clock.monotonic_s() + RETRY_S
        if self.state.state != "disk_full":
            self._report(
                "error",
                "HIST-1025",
                f"the historian stopped writing: {text}",
                "Free space on that disk; writing goes on by itself, and the log keeps what arrives.",
            )
        self._fail("disk_full", "HIST-1025", text)

    def _fail(self, state: Literal["waiting", "disk_full"], code: str, text: str) -> None:
        if self.state.state != state:
            _log.warning("%s %s", code, text)
        self.state.state = state
        self.state.last_error_code, self.state.last_error = code, text

    def _recover(self) -> None:
        if self.state.state == "disk_full":
            self._report("info", "HIST-1026", "the historian writes again", "")
        self.state.state = "running"


async def _wait(stop: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), timeout_s)
    except TimeoutError:
        return
