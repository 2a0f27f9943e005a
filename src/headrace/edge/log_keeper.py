"""The log of an edge on its own machine: what the hub has of it, its bound, and what happens there.

::

    0 %          50 %                    80 %      90 %        100 % of log_bytes_max
    ├─────────────┼───────────────────────┼─────────┼─────────────┤
     all is kept   what the hub has        a warning  on_full      nothing more fits
                   leaves, oldest first               decides

What the hub has stays while there is room: a hub that was restored to an older state takes it again.
At the bound ``stop`` (the default) lets the broker refuse new frames: nothing that was acknowledged is
lost, polls are missed and counted, sources that keep their data keep it. ``drop_oldest`` removes the
oldest frames that the hub does not have, and says exactly which and how many samples.

A removal is written down before it is made, so a kill in between neither hides nor repeats it, and its
rows are told to the loss ledger, so that the historian can name what it misses.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.bus.client import Bus
from headrace.bus.envelope import HEADER_ROWS, number_of, parse_runs
from headrace.bus.leaf import Joined
from headrace.bus.log import LogInfo, LogMessage, LogReader, log_info, purge_log, stored_at_us
from headrace.bus.subjects import DESIRED_BUCKET, EDGE_BUCKET, Subjects, parse_batch
from headrace.model.decoding import UNREADABLE
from headrace.model.desired import EdgeConfig
from headrace.model.errors import Corrupt, Misconfigured, Transient
from headrace.model.health import EdgeLog, Event
from headrace.model.ledger import LedgerPage, Removed
from headrace.model.time import Clock

LOOK_S: Final = 1.0
TRIM_ABOVE: Final = 0.5
TRIM_TO: Final = 0.4
WARN_ABOVE: Final = 0.8
WARN_BELOW: Final = 0.7
DROP_ABOVE: Final = 0.9
DROP_TO: Final = 0.85
FULL_ABOVE: Final = 0.98
DESIRED_BYTES_MAX: Final = 64 << 20
READ_WAIT_S: Final = 2.0
REMOVED_PAGE_MAX: Final = 2_000
"""Spans of rows in one page of the ledger: some 200 KB."""
IN_DOUBT_MAX: Final = 1_000
"""Frames after the hub's last word, which comes each second: ten a second and connection are normal."""


Spans = dict[tuple[str, str, int, int, int], Removed]
"""Cell and end -> rows that are about to be removed."""


class StoredCall(msgspec.Struct, kw_only=True):
    """The hub tells up to where it has this edge's log, each second.

    Attributes:
        sequence: up to which it has the samples; 0 when it cannot tell.
        at_loss: up to which it had them before this connection; 0 when it cannot tell.
        connection: identity of this connection.
    """

    sequence: int
    at_loss: int
    connection: str


class HubPosition(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of the hub's last word: see :class:`StoredCall`."""

    sequence: int = 0
    connection: str = ""


class Removal(msgspec.Struct, kw_only=True):
    """What was removed at the bound before the hub had it.

    Attributes:
        first, last: sequences of the newest removal. frames, samples: of that one.
        samples_of: connection -> samples, of that one.
        frames_total, samples_total: of all removals from this log.
        in_doubt: sequence, connection and samples of removed frames that were perhaps on their way
            when the connection was lost; the hub's next word decides.
        done: it was made and said; else a kill came between.
    """

    first: int = 0
    last: int = 0
    frames: int = 0
    samples: int = 0
    samples_of: dict[str, int] = {}
    frames_total: int = 0
    samples_total: int = 0
    in_doubt: list[tuple[int, str, int]] = []
    done: bool = True


class LogKeeper:
    """Keeps one edge's log within its bound.

    Args:
        bus: of the edge's own broker. subjects: of the site. own: what the edge knows of its hub.
        report: takes what happens. disk: a path on the disk of the log.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        own: Joined,
        clock: Clock,
        *,
        report: Callable[[Event], None],
        disk: Path,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._own = own
        self._clock = clock
        self._report = report
        self._disk = disk
        self._state = EdgeLog(bytes_max=own.log_bytes_max)
        self._hub = HubPosition()
        self._kept = HubPosition()
        self._turn = asyncio.Lock()
        self._removal: Removal | None = None
        self._oldest: tuple[int, int] = (0, 0)
        self._warned = False
        self._full_said = False

    def state(self) -> EdgeLog:
        """The log as it was at the last look."""
        return self._state

    async def serve(self) -> None:
        """Answer the hub's calls ``stored`` and ``desired``."""
        edge = self._own.edge
        await self._bus.answer(self._subjects.edge_call(edge, "stored"), self.stored)
        await self._bus.answer(self._subjects.edge_call(edge, "desired"), self.desired)

    async def stored(self, body: bytes) -> bytes:
        """The hub tells how far it is; less than before when it was restored to an older state."""
        try:
            call = msgspec.json.decode(body, type=StoredCall)
        except UNREADABLE as error:
            raise _bad_call("stored", error) from error
        async with self._turn:
            if self._removal is None:
                await self._remember()
            known = self._hub
            if call.connection != known.connection and call.at_loss:
                if call.at_loss < known.sequence:
                    self._name_gap(call.at_loss)
                await self._decide(call.at_loss)
            self._hub = HubPosition(
                sequence=call.sequence or known.sequence, connection=call.connection
            )
        return b"{}"

    async def desired(self, body: bytes) -> bytes:
        """The hub gives the configuration to run: kept here, so that it runs without the hub too.

        Raises:
            Misconfigured: EDGE-1905 when it is none, or that of another edge.
            Transient: BUS-1027 when our own broker is away.
        """
        try:
            text = zlib.decompressobj().decompress(body, DESIRED_BYTES_MAX)
            config = msgspec.json.decode(text, type=EdgeConfig)
        except (zlib.error, *UNREADABLE) as error:
            raise _bad_call("desired", error) from error
        own = self._own
        if (config.enterprise, config.site, config.edge) != (own.enterprise, own.site, own.edge):
            raise _bad_call("desired", f"it is for {config.enterprise}/{config.site}/{config.edge}")
        await self._bus.put(DESIRED_BUCKET, f"edge.{own.edge}", text)
        return b"{}"

    async def run(self) -> None:
        """Look each second for ever; an absent broker is waited for."""
        while True:
            with contextlib.suppress(Transient):
                await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """One look, and what must be done.

        Raises:
            Transient: when the broker is away.
        """
        async with self._turn:
            if self._removal is None:
                await self._remember()
            info = await log_info(self._bus)
            await self._keep_position()
            info = await self._trim(info)
            info = await self._bound(info)
            await self._refresh(info)

    async def _remember(self) -> None:
        """What was known before the start; a removal that a kill cut short is made now."""
        raw = await self._bus.get(EDGE_BUCKET, self._key("log_hub"))
        self._hub = self._kept = msgspec.json.decode(raw or b"{}", type=HubPosition)
        raw = await self._bus.get(EDGE_BUCKET, self._key("log_removed"))
        removal = msgspec.json.decode(raw, type=Removal) if raw else Removal()
        if not removal.done:
            await self._make(removal)
        self._removal = removal

    @property
    def _stored(self) -> int:
        return self._hub.sequence

    async def _keep_position(self) -> None:
        position = self._hub
        if position != self._kept:
            await self._bus.put(EDGE_BUCKET, self._key("log_hub"), msgspec.json.encode(position))
            self._kept = position

    async def _trim(self, info: LogInfo) -> LogInfo:
        """Let what the hub has leave when the log is half full."""
        excess = info.bytes - TRIM_TO * self._own.log_bytes_max
        if info.bytes <= TRIM_ABOVE * self._own.log_bytes_max or self._stored < info.first_sequence:
            return info
        frames = int(excess * info.messages / max(info.bytes, 1)) + 1
        await purge_log(self._bus, min(self._stored, info.first_sequence + frames - 1))
        return await log_info(self._bus)

    async def _bound(self, info: LogInfo) -> LogInfo:
        part = info.bytes / self._own.log_bytes_max
        if part >= WARN_ABOVE and not self._warned:
            self._warned = True
            self._say(
                "warning",
                "EDGE-1901",
                f"the log of edge {self._own.edge} is {part:.0%} full of {info.bytes_max} bytes "
                "that the hub does not have",
                "Bring the connection to the hub back, or give the log more room: headrace edge set",
            )
        if part < WARN_BELOW:
            self._warned = self._full_said = False
        if part >= DROP_ABOVE and self._own.on_full == "drop_oldest":
            await self._drop_oldest(info)
            return await log_info(self._bus)
        if part >= FULL_ABOVE and not self._full_said:
            self._full_said = True
            self._say(
                "error",
                "EDGE-1902",
                f"the log of edge {self._own.edge} is full: it reads no more until there is room",
                "Bring the connection to the hub back, or give the log more room: headrace edge set",
            )
        return info

    async def _drop_oldest(self, info: LogInfo) -> None:
        assert self._removal is not None  # look() remembered it
        excess = info.bytes - DROP_TO * self._own.log_bytes_max
        wanted = int(excess * info.messages / max(info.bytes, 1)) + 1
        earlier = self._removal
        removal = Removal(
            first=info.first_sequence,
            frames_total=earlier.frames_total,
            samples_total=earlier.samples_total,
            in_doubt=list(earlier.in_doubt),
            done=False,
        )
        reader = LogReader(self._bus, info.first_sequence - 1, headers_only=True)
        taken = 0
        spans: Spans = {}
        try:
            while taken < wanted and (found := await reader.next(READ_WAIT_S)):
                for message in found[: wanted - taken]:
                    self._count(message, removal)
                    if message.sequence > self._stored:
                        _note_rows(message, spans)
                taken += len(found)
                await self._tell_rows(spans, REMOVED_PAGE_MAX)
            await self._tell_rows(spans, 1)
        finally:
            await reader.close()
        if removal.last:
            await self._put_removal(removal)
            await self._make(removal)
            self._removal = removal

    async def _tell_rows(self, spans: Spans, enough: int) -> None:
        """Tell the ledger which rows are about to go, when there are enough of them."""
        while len(spans) >= enough:
            keys = list(spans)[:REMOVED_PAGE_MAX]
            page = LedgerPage(
                edge=self._own.edge,
                epoch=0,
                sequence=0,
                at_us=self._clock.now_us(),
                removed=[spans.pop(key) for key in keys],
            )
            await self._bus.publish_page(self._subjects.edge_ledger(self._own.edge), page)

    def _count(self, message: LogMessage, removal: Removal) -> None:
        removal.last = message.sequence
        if message.sequence <= self._stored:
            return
        samples = number_of(message.headers.get(HEADER_ROWS, "0"))
        _, _, _, connection = parse_batch(message.subject)
        removal.samples_of[connection] = removal.samples_of.get(connection, 0) + samples
        removal.frames += 1
        removal.frames_total += 1
        removal.samples += samples
        removal.samples_total += samples
        if len(removal.in_doubt) < IN_DOUBT_MAX:
            removal.in_doubt.append((message.sequence, connection, samples))

    async def _make(self, removal: Removal) -> None:
        await purge_log(self._bus, removal.last)
        if removal.frames:
            each = ", ".join(
                f"{name} {count}" for name, count in sorted(removal.samples_of.items())
            )
            self._say(
                "error",
                "EDGE-1903",
                f"the log of edge {self._own.edge} was full: {removal.samples} samples in "
                f"{removal.frames} frames (to {removal.last} of its log) were removed before the hub "
                f"had them: {each}; {removal.samples_total} samples in all",
                "This is what on_full = drop_oldest asks for. Give the log more room: headrace edge set",
            )
        removal.done = True
        await self._put_removal(removal)

    async def _decide(self, stored: int) -> None:
        """Take back from the count what had reached the hub before the connection was lost."""
        removal = self._removal
        if removal is None or not removal.in_doubt:
            return
        arrived = [each for each in removal.in_doubt if each[0] <= stored]
        samples = sum(each[2] for each in arrived)
        removal.in_doubt = []
        removal.frames_total -= len(arrived)
        removal.samples_total -= samples
        await self._put_removal(removal)
        if arrived:
            self._say(
                "info",
                "EDGE-1906",
                f"{samples} samples in {len(arrived)} frames, the last of them {arrived[-1][0]}, that "
                f"were counted as removed from the log of edge {self._own.edge} had reached the hub; "
                f"{removal.samples_total} samples in all were lost",
                "",
            )

    async def _put_removal(self, removal: Removal) -> None:
        await self._bus.put(EDGE_BUCKET, self._key("log_removed"), msgspec.json.encode(removal))

    def _name_gap(self, stored: int) -> None:
        """The hub has less than it had: it was restored. What has left here since then is named."""
        removed = self._removal.last if self._removal is not None else 0
        gone = self._state.first_sequence - 1
        if gone <= max(stored, removed):
            return
        self._say(
            "error",
            "EDGE-1904",
            f"the hub's log has that of edge {self._own.edge} only up to {stored}, and had it up to "
            f"{self._stored}: it was restored to an older state; the frames {stored + 1} to {gone} "
            "have left here since",
            "They are in the hub's table if that is newer; else only a newer backup has them.",
        )

    async def _refresh(self, info: LogInfo) -> None:
        removal = self._removal or Removal()
        first_unsent = max(self._stored + 1, info.first_sequence)
        unsent = max(info.last_sequence - first_unsent + 1, 0)
        self._state = EdgeLog(
            first_sequence=info.first_sequence,
            last_sequence=info.last_sequence,
            bytes=info.bytes,
            bytes_max=self._own.log_bytes_max,
            stored_sequence=self._stored,
            unsent_frames=unsent,
            unsent_bytes=info.bytes * unsent // max(info.messages, 1),
            oldest_unsent_us=await self._oldest_unsent_us(first_unsent) if unsent else 0,
            dropped_frames=removal.frames_total,
            dropped_samples=removal.samples_total,
            disk_free_bytes=shutil.disk_usage(self._disk).free,
        )

    async def _oldest_unsent_us(self, sequence: int) -> int:
        if self._oldest[0] != sequence:
            self._oldest = (sequence, await stored_at_us(self._bus, sequence) or 0)
        return self._oldest[1]

    def _key(self, name: str) -> str:
        # A connection's mark has two parts (edge/marks.py), this has three.
        return f"{self._own.edge}.own.{name}"

    def _say(self, severity: Any, code: str, text: str, remedy: str) -> None:
        self._report(
            Event(
                at_us=self._clock.now_us(),
                severity=severity,
                code=code,
                source=f"edge/{self._own.edge}",
                text=text,
                remedy=remedy,
            )
        )


def _note_rows(message: LogMessage, spans: Spans) -> None:
    """The rows of a frame by their cells; what goes on where an earlier frame ended is one span."""
    connection = parse_batch(message.subject)[3]
    try:
        runs = parse_runs(message.headers)
    except Corrupt:
        return  # not a frame of ours; the historian counts it as foreign
    for run in runs:
        if not run.rows:
            continue  # it closes its cell
        cell = (connection, run.group, run.minute_us, run.epoch)
        span = spans.pop((*cell, run.before), None) or Removed(
            connection=connection,
            group=run.group,
            minute_us=run.minute_us,
            epoch=run.epoch,
            start=run.before,
            end=run.before,
        )
        span.end = run.before + run.rows
        spans[(*cell, span.end)] = span


def _bad_call(verb: str, reason: object) -> Misconfigured:
    return Misconfigured(
        "EDGE-1905",
        f"the hub's call {verb} cannot be used: {reason}",
        "Use the same version on both.",
    )
