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
import shutil
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
    log_info,
    purge_log,
    stored_at_us,
)
from headrace.bus.subjects import SAMPLES_STREAM
from headrace.historian.commit import LOG_AT_US, Chunk, Committed, Committer, runs_of
from headrace.historian.layout import app_id
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
TIME_TOLERANCE_US: Final = 1_000
PURGE_S: Final = 10.0
LOG_FILL_MAX: Final = 0.5
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
        # A disk that refuses this refuses the next commit too, which says so.
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self._committer.begin, self._app, position)
        log = LogReader(self._bus, position)
        self._pending, self._in_flight = Chunk(position), None  # the log gives again what failed
        self._recent.clear()
        self._recent.append((self._clock.monotonic_s(), position))
        if self.state.state == "waiting":
            self.state.state = "running"
        try:
            while not stop.is_set():
                await self._step(log, stop)
                if not await self._look(info):
                    break
            await self._finish()
        finally:
            await self._settle()
            await log.close()

    async def _start(self, info: LogInfo) -> int:
        """The sequence after which to begin."""
        committed = self._table.committed(self._app)
        if committed is None:
            return max(info.first_sequence - 1, 0)
        if await self._is_restored(info, committed):
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

    async def _is_restored(self, info: LogInfo, committed: int) -> bool:
        """Whether the log is not the one that was stored: shorter, or with another message in the place
        of the last one. New messages may have reached the numbers of those that a restore took away."""
        if committed > info.last_sequence:
            return True
        known_us = self._table.counters.get(LOG_AT_US, 0)
        found_us = await stored_at_us(self._bus, committed) if known_us else None
        return found_us is not None and abs(found_us - known_us) > TIME_TOLERANCE_US

    async def _step(self, log: LogReader, stop: asyncio.Event) -> None:
        if self._is_full(self._pending):
            await self._await_commit(stop)
        else:
            for message in await log.next(WAIT_S, self._room()):
                self._take(message)
            self._report_lost(log)
        if self._commit is not None and self._commit.done():
            self._take_result()
        if self._commit is None and (self._in_flight or self._is_due(self._pending)):
            self._start_commit()

    def _take(self, message: LogMessage) -> None:
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
        if free < floor:
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

    async def _look(self, known: LogInfo) -> bool:
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
        await self._purge(info, now_s)
        return True

    async def _purge(self, info: LogInfo, now_s: float) -> None:
        """Let the log forget what the table has, early when the log fills up."""
        filling = info.bytes_max > 0 and info.bytes > LOG_FILL_MAX * info.bytes_max
        if now_s - self._purged_at_s < (LOOK_S if filling else PURGE_S):
            return
        self._purged_at_s = now_s
        keep_s = 0.0 if filling else self._settings.log_keep_s
        target = 0
        while self._recent and self._recent[0][0] <= now_s - keep_s:
            target = self._recent.popleft()[1]
        if target > self._purged and target >= info.first_sequence:
            await purge_log(self._bus, target)
            self._purged = target
        self._tell_full(filling, info)

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
        state.duplicates_total = self._table.counters.get("duplicates_total", 0)
        state.table_version = snapshot.version
        state.files = len(snapshot.files)
        state.bytes = snapshot.bytes
        state.disk_free_bytes = self._free_bytes()

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self._table.path).free

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
