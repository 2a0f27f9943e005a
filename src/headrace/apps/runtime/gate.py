"""Between an app's process and the platform: what it gets, what becomes of what it gives.

::

    log ──► only the app's tags ──► process ──► given ──► checked ──► one key-value write ──► log, events
                                                                     state + effects

The write is what makes effects happen once: before it nothing has happened, and the hooks run again on the
same samples; after it the same effects are stored again, under the same ids, which the broker and the
table know.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

import msgspec
import numpy as np
import polars as pl

from headrace.apps.runtime import wire
from headrace.apps.runtime.effects import Problem, Record, Write
from headrace.apps.runtime.frames import as_the_tag
from headrace.apps.runtime.meter import Meter
from headrace.bus import envelope
from headrace.bus.client import Bus
from headrace.bus.log import LogMessage, LogReader, log_info
from headrace.bus.subjects import RUNTIME_BUCKET, RUNTIME_EDGE, Subjects
from headrace.edge.calls import WriteCall
from headrace.model.app_state import AppEvent
from headrace.model.decoding import UNREADABLE
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Corrupt, HeadraceError, Refused, Transient, error_from_dict
from headrace.model.health import Severity
from headrace.model.sample import Int64Array, concat_batches, empty_batch
from headrace.model.time import US_PER_S, Clock

TURN_S: Final = 1.0
LOOK_S: Final = 0.1
MESSAGES_MAX: Final = 16
CALLS_MAX: Final = 100
RETRY_S: Final = 0.5
HOLD_BACK_MAX_S: Final = 30.0
WRITE_AGE_MAX_US: Final = 60 * US_PER_S
FORBIDDEN: Final = frozenset(
    {"APPS-2204", "APPS-2206", "APPS-2207", "APPS-2211", "APPS-2212", "APPS-2224", "APPS-2230"}
)
"""Problems of an app that did what its manifest does not declare: it is stopped."""
M = TypeVar("M", bound=msgspec.Struct)
Tell = Callable[[Severity, str, str, str], None]


class Past(Protocol):
    """Where raw samples of the past come from."""

    async def samples(self, tag_ids: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        """Samples of ``[start, end)`` and the newest of each tag before it."""
        ...


class Alarms(Protocol):
    """The journal of alarms."""

    async def last(self) -> int:
        """Number of its newest line."""
        ...

    async def after(self, number: int) -> list[wire.Told]:
        """The lines after one, some at a time; an alarm's name is that of its path."""
        ...


class Gate:
    """The runtime's side of one app.

    Args:
        bus: open. subjects: of the site. clock: gives receive times.
        deployment: see :class:`headrace.model.deployment.AppDeployment`.
        past: of the historian. alarms: of the site. tell: takes events of the app.

    Attributes:
        life: of the process that is answered; 0 none. meter: of that process.
        position_us: source time up to which hooks ran. calls, samples, records: since this was made.
        holds: what encloses the process. forbidden: what the app did that it may not; None nothing.
        stops: end what answers in its name, at its end.
        has_caught_up: whether the process has all that the log has.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        clock: Clock,
        deployment: AppDeployment,
        past: Past,
        alarms: Alarms,
        tell: Tell,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self.deployment = deployment
        self._word = deployment.manifest.word
        self._history = past
        self._alarms = alarms
        self._alarms_after = -1
        self._alarms_read_s = float("-inf")
        self._tell = tell
        self._tags = np.array(
            sorted({tag for asset in deployment.assets for tag in asset.tags.values()}), np.int64
        )
        self._outputs = {
            tag
            for asset in deployment.assets
            for given in (asset.outputs, asset.shadows, asset.drifts)
            for tag in given.values()
        }
        self._kept: wire.Kept | None = None
        self._log: LogReader | None = None
        self._known_us = 0
        self._calls: deque[wire.Asked] = deque(maxlen=CALLS_MAX)
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._call_number = 0
        self.stops: list[Callable[[], Awaitable[None]]] = []
        self._pasts = 0
        self.life = 0
        self.meter = Meter(deployment.manifest.budgets, clock.monotonic_s())
        self.position_us = self.calls = self.samples = self.records = 0
        self.holds: list[str] = []
        self.forbidden: Problem | None = None
        self.last_error: HeadraceError | None = None
        self.has_caught_up = False

    # -- for who runs it ------------------------------------------------------------------------

    async def open(self) -> None:
        """Begin to answer."""
        await self._bus.key_value(RUNTIME_BUCKET, history=1)
        own = self._subjects.app_own(self._word)
        for verb in wire.VERBS:
            handler = getattr(self, f"_{verb}")
            self.stops.append(await self._bus.answer(f"{own}.ask.{verb}", handler))
        for service in self.deployment.manifest.services:

            async def ask(body: bytes, name: str = service.name) -> bytes:
                return await self.ask_service(name, body)

            subject = self._subjects.app_call(self._word, service.name)
            self.stops.append(await self._bus.answer(subject, ask))

    def new_life(self) -> int:
        """A process is to start; older ones are answered no more."""
        self.life += 1
        self.meter = Meter(self.deployment.manifest.budgets, self._clock.monotonic_s())
        self.forbidden, self.holds, self._pasts = None, [], 0
        self.has_caught_up = False
        return self.life

    def end_life(self) -> None:
        """The process is gone: who waits for an answer of it is told so."""
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(
                    Transient("APPS-2231", f"{self._word} ended before it answered", "Ask again.")
                )
        self._waiting.clear()
        self._calls.clear()

    async def close(self) -> None:
        """Answer no more."""
        self.life = -1
        for stop in self.stops:
            await stop()
        self.stops = []
        self.end_life()
        if self._log is not None:
            await self._log.close()

    async def ask_service(self, name: str, body: bytes) -> bytes:
        """The answer of a service.

        Raises:
            Transient: APPS-2231 the app is not there or does not answer in the service's time, APPS-2232
                too many wait for it.
            HeadraceError: what the app raised.
        """
        service = next(s for s in self.deployment.manifest.services if s.name == name)
        if not self.holds:
            raise Transient("APPS-2231", f"{self._word} does not run now", "See its page.")
        if len(self._calls) >= CALLS_MAX or len(self._waiting) >= CALLS_MAX:
            raise Transient("APPS-2232", f"{len(self._waiting)} calls wait for {self._word}")
        self._call_number += 1
        call_id = f"{self.life}/{self._clock.now_us()}/{self._call_number}"
        waiting = self._waiting[call_id] = asyncio.get_running_loop().create_future()
        self._calls.append(
            wire.Asked(id=call_id, service=name, body=body, at_us=self._clock.now_us())
        )
        try:
            return await asyncio.wait_for(waiting, service.timeout_s)
        except TimeoutError as error:
            raise Transient(
                "APPS-2231",
                f"{self._word} did not answer {name} within {service.timeout_s:g} s",
                "See its page; it may be slowed down by its budget.",
            ) from error
        finally:
            self._waiting.pop(call_id, None)

    # -- what the process asks ------------------------------------------------------------------

    async def _begin(self, raw: bytes) -> bytes:
        begin = self._asked(raw, wire.Begin)
        kept = await self._load()
        await self._store(kept)  # what a crash between write and publication left undone
        self.holds = begin.holds or ["nothing"]
        begun = wire.Begun(state=kept.state, start_us=self._clock.now_us())
        return msgspec.msgpack.encode(begun)

    async def _turn(self, raw: bytes) -> bytes:
        turn = self._asked(raw, wire.Turn)
        await self._hold_back(0)
        if turn.after >= 0:
            await self._follow(turn.after)
            self._alarms_after = turn.events_after
            if not turn.events_after:
                self._alarms_after = (await self._load()).events_from
        assert self._log is not None, "the first turn says from where"
        batches: list[pl.DataFrame] = []
        sequence, told = 0, await self._journal()
        for _ in range(int(TURN_S / LOOK_S)):
            messages = await self._messages()
            batches += [each for each in map(self._wanted, messages) if each.height]
            sequence = messages[-1].sequence if messages else sequence
            if batches or told or self._calls or self.life != turn.life:
                break
        work = wire.Work(
            samples=envelope.encode(concat_batches(batches)) if batches else b"",
            sequence=sequence,
            known_us=self._known_us,
            told=told,
            calls=[self._calls.popleft() for _ in range(len(self._calls))],
        )
        return msgspec.msgpack.encode(work)

    async def _give(self, raw: bytes) -> bytes:
        given = self._asked(raw, wire.Given)
        rows = envelope.decode(given.samples) if given.samples else empty_batch()
        await self._hold_back(rows.height)
        self._check(given, rows)
        kept = await self._load()
        received_us = max(self._clock.now_us(), kept.received_us + 1)
        rows = _last_of_each(rows, received_us)
        next_ = wire.Kept(
            number=kept.number + 1,
            epoch_us=kept.epoch_us,
            frames=kept.frames + len(self._frames(kept)),
            events_from=kept.events_from,
            received_us=received_us,
            state=given.state,
            samples=envelope.encode(rows) if rows.height else b"",
            records=given.records,
            writes=given.writes,
        )
        await self._keep(next_)
        await self._store(next_)
        self.position_us = given.to_us
        self.calls += given.calls
        self.samples += rows.height
        self.records += len(given.records)
        self._told(given)
        return b""

    async def _past(self, raw: bytes) -> bytes:
        past = self._asked(raw, wire.Past)
        tag_ids = np.array(past.tag_ids, np.int64)
        self._pasts += 1
        may = self.deployment.manifest.permissions.history or self._pasts == 1
        if not may or not np.isin(tag_ids, self._tags).all():
            raise Refused("APPS-2204", f"{self._word} may not read that past")
        return envelope.encode(await self._past_of(tag_ids, past.start_us, past.end_us))

    async def _past_of(self, tag_ids: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        try:
            return await self._history.samples(tag_ids, start_us, end_us)
        except OSError as error:
            raise Transient("APPS-2205", f"the history cannot be read: {error}") from error

    async def _call(self, raw: bytes) -> bytes:
        call = self._asked(raw, wire.Call)
        name = f"{call.app}.{call.service}"
        if name not in self.deployment.manifest.permissions.calls:
            raise Refused("APPS-2207", f"{self._word} may not call {name}")
        subject = self._subjects.app_call(call.app.replace("-", "_"), call.service)
        return await self._bus.request(subject, call.body, timeout_s=wire.CALL_S)

    # -- samples --------------------------------------------------------------------------------

    async def _follow(self, after: int) -> None:
        """Read the log from a place on; 0 at the first time: from its end."""
        if self._log is not None:
            await self._log.close()
        if not after:
            after = (await log_info(self._bus)).last_sequence
        self._log = LogReader(self._bus, after)

    async def _journal(self) -> list[wire.Told]:
        """Alarms of the app's assets that changed, under the app's own names; looked for each second."""
        now_s = self._clock.monotonic_s()
        if self._alarms_after < 0 or now_s - self._alarms_read_s < TURN_S:
            return []
        self._alarms_read_s = now_s
        lines = await self._alarms.after(self._alarms_after)
        if lines:
            self._alarms_after = lines[-1].sequence
        paths = {asset.path for asset in self.deployment.assets}
        found = []
        for line in lines:
            if line.alarm is not None and line.alarm.asset in paths:
                name = line.alarm.name.removeprefix(f"{self._word}_")
                line.alarm = msgspec.structs.replace(line.alarm, name=name)
                found.append(line)
        return found

    async def _messages(self) -> list[LogMessage]:
        assert self._log is not None, "followed before"
        try:
            messages = await self._log.next(LOOK_S, MESSAGES_MAX)
            now_us = self._clock.now_us()
            if messages:
                self._known_us = max(self._known_us, min(messages[-1].at_us, now_us))
            elif await self._log.has_all():
                self._known_us = max(self._known_us, now_us)
                self.has_caught_up = True
        except Transient:
            await asyncio.sleep(RETRY_S)
            return []
        if self._log.lost:
            first, last = self._log.lost[0][0], self._log.lost[-1][1]
            self._log.lost.clear()
            text = f"the log has messages {first} to {last} no more, which {self._word} did not see"
            self._tell("warning", "APPS-2246", text, "Its windows of that time may lack samples.")
        return messages

    def _wanted(self, message: LogMessage) -> pl.DataFrame:
        try:
            batch = envelope.decode(message.body)
        except Corrupt:
            return empty_batch()  # the historian puts it aside and tells
        read = np.isin(batch["tag_id"].to_numpy(), self._tags)
        return batch if read.all() else batch.filter(pl.Series(read))

    # -- effects --------------------------------------------------------------------------------

    def _check(self, given: wire.Given, rows: pl.DataFrame) -> None:
        """Whether that is the app's to give; the process itself is not believed.

        Raises:
            Refused: APPS-2230.
        """
        manifest = self.deployment.manifest
        paths = {asset.path: asset for asset in self.deployment.assets}
        foreign = set(rows["tag_id"].unique().to_list()) - self._outputs
        wrong = f"samples of tag {min(foreign)}" if foreign else ""
        for record in given.records:
            if record.app != manifest.id or record.body.get("asset") not in paths:
                wrong = f"a record of {record.body.get('asset')!r}"
        for write in given.writes:
            bound = paths.get(write.asset)
            own = (
                bound is not None
                and f"{bound.type}.{write.quantity}" in manifest.permissions.writes
            )
            if not own or bound is None or write.quantity not in bound.writes:
                wrong = f"a write of {write.quantity} of {write.asset!r}"
        if wrong:
            what = f"{manifest.id} gave {wrong}, which its manifest does not declare"
            self.forbidden = Problem(
                code="APPS-2230",
                what=what,
                remedy="Ask who wrote it.",
                hook="",
                at_us=self._clock.now_us(),
            )
            raise Refused("APPS-2230", what, "Ask who wrote it.")

    async def _load(self) -> wire.Kept:
        if self._kept is None:
            raw = await self._bus.get(RUNTIME_BUCKET, self._word)
            if raw:
                self._kept = msgspec.msgpack.decode(raw, type=wire.Kept)
            else:
                last = await self._alarms.last()
                self._kept = wire.Kept(number=0, epoch_us=self._clock.now_us(), events_from=last)
        return self._kept

    async def _keep(self, kept: wire.Kept) -> None:
        await _again(
            lambda: self._bus.put(RUNTIME_BUCKET, self._word, msgspec.msgpack.encode(kept))
        )
        self._kept = kept

    def _frames(self, kept: wire.Kept) -> list[pl.DataFrame]:
        if not kept.samples:
            return []
        rows = envelope.decode(kept.samples)
        return list(rows.iter_slices(envelope.FRAME_ROWS_MAX))

    async def _store(self, kept: wire.Kept) -> None:
        """Let the effects happen; what happened already is known by its id."""
        subject = self._subjects.batch(RUNTIME_EDGE, self._word)
        for place, frame in enumerate(self._frames(kept)):
            headers = envelope.headers(
                RUNTIME_EDGE, self._word, kept.epoch_us, kept.frames + place + 1, frame.height
            )
            await self._publish(subject, envelope.encode(frame), headers)
        events = self._subjects.prefix + f".event.app.{self._word}"
        for record in kept.records:
            event = msgspec.json.encode(self._event_of(record))
            await self._publish(events, event, {envelope.HEADER_ID: record.id})
        if kept.writes and not kept.written:
            # Said before it happens: a device is rather left alone than written to twice.
            await self._keep(msgspec.structs.replace(kept, written=True))
            for write in kept.writes:
                await self._write(write)

    async def _publish(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        await _again(lambda: self._bus.publish_frame(subject, body, headers))

    def _event_of(self, record: Record) -> AppEvent:
        text = str(record.body.get("title") or record.body.get("kind") or record.kind)
        return AppEvent(
            at_us=record.at_us,
            severity="info",
            code="APPS-2250" if record.kind == "work_request" else "APPS-2251",
            source=f"app/{record.app}",
            text=f"{record.body.get('asset')}: {text}",
            remedy=str(record.body.get("reason", "")),
            record=msgspec.to_builtins(record),
        )

    async def _write(self, write: Write) -> None:
        """Through the edge's guard; an old one is not made up for."""
        if self._clock.now_us() - write.at_us > WRITE_AGE_MAX_US or isinstance(write.value, bool):
            text = f"{write.quantity} of {write.asset} is not written: it is too old, or no number"
            self._tell("warning", "APPS-2247", text, "")
            return
        bound = next(asset for asset in self.deployment.assets if asset.path == write.asset)
        needed = self.deployment.manifest.types[bound.type]
        subject = self._subjects.edge_call(write.edge, "write")
        try:
            value = write.value
            if not isinstance(value, str):
                value = as_the_tag(needed, bound, write.quantity, value)
            tag_id = bound.tags[write.quantity]
            call = WriteCall(tag_id=tag_id, value=value, actor=f"app/{self._word}")
            await self._bus.request(subject, msgspec.json.encode(call), timeout_s=10)
            text = f"{write.quantity} of {write.asset} was set to {write.value}"
            self._tell("info", "APPS-2248", text, "")
        except HeadraceError as error:
            self._tell("warning", error.code, error.what, error.remedy)

    def _told(self, given: wire.Given) -> None:
        for problem in given.problems:
            self.last_error = Refused(problem.code, problem.what, problem.remedy)
            self._tell("warning", problem.code, problem.what, problem.remedy)
            if problem.code in FORBIDDEN:
                self.forbidden = problem
        for answer in given.answers:
            waiting = self._waiting.get(answer.id)
            if waiting is not None and not waiting.done():
                if answer.error is None:
                    waiting.set_result(answer.body)
                else:
                    waiting.set_exception(error_from_dict(answer.error))

    async def _hold_back(self, rows: int) -> None:
        """Wait as long as the budget says, before the answer: the process asks no faster then."""
        wait_s = min(self.meter.message(rows, self._clock.monotonic_s()), HOLD_BACK_MAX_S)
        if wait_s:
            self.meter.held(wait_s)
            await asyncio.sleep(wait_s)

    def _asked(self, raw: bytes, kind: type[M]) -> M:
        try:
            asked = msgspec.msgpack.decode(raw, type=kind)
        except UNREADABLE as error:
            raise Corrupt("APPS-2233", f"{self._word} asks what nobody understands") from error
        if asked.life != self.life:  # type: ignore[attr-defined] # each question has one
            raise Refused("APPS-2234", f"this process of {self._word} is not the newest one")
        return asked


async def _again(what: Callable[[], Awaitable[Any]]) -> None:
    """Until the broker has it, as long as that takes; cancelled with the process' life."""
    while True:
        try:
            await what()
            return
        except Transient:
            await asyncio.sleep(RETRY_S)


def _last_of_each(rows: pl.DataFrame, received_us: int) -> pl.DataFrame:
    """One row an identity, the later of two; received now."""
    if not rows.height:
        return rows
    kept = rows.unique(("tag_id", "source_timestamp"), keep="last", maintain_order=True)
    received = pl.lit(received_us).cast(rows.schema["received_timestamp"])
    return kept.with_columns(received_timestamp=received)
