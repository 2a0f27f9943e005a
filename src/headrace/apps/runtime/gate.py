"""Between an app's process and the platform: what it gets, what becomes of what it gives.

::

    log ──► only the app's tags ──► process ──► given ──► checked ──► one key-value write ──► log, events
                                                                     state + effects

The write is what makes effects happen once (:mod:`headrace.apps.runtime.keeping`): before it nothing has
happened, and the hooks run again on the same samples; after it the same effects are stored again, under the
same ids, which the broker and the table know.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol, TypeVar

import msgspec
import numpy as np
import polars as pl

from headrace.app.records import Order
from headrace.apps.runtime import wire
from headrace.apps.runtime.beginning import arrival, beginning
from headrace.apps.runtime.effects import Problem
from headrace.apps.runtime.keeping import Keeping
from headrace.apps.runtime.meter import Meter
from headrace.apps.runtime.tail import Part, Reading, Tail
from headrace.apps.runtime.writing import Writing
from headrace.bus import envelope
from headrace.bus.client import Bus
from headrace.bus.log import LogReader
from headrace.bus.services import Endpoint, serve
from headrace.bus.subjects import ORDERS_STREAM, Subjects
from headrace.model.decoding import UNREADABLE
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Corrupt, HeadraceError, Refused, Transient, error_from_dict
from headrace.model.health import Severity
from headrace.model.operations_request import OperationsRequest
from headrace.model.sample import Int64Array, concat_batches, empty_batch
from headrace.model.time import Clock

TURN_S: Final = 1.0
LOOK_S: Final = 0.1
ORDERS_S: Final = 0.01
MESSAGES_MAX: Final = 16
CALLS_MAX: Final = 100
RETRY_S: Final = 0.5
HOLD_BACK_MAX_S: Final = 30.0
FORBIDDEN: Final = frozenset(
    {"APPS-2204", "APPS-2206", "APPS-2207", "APPS-2211", "APPS-2212", "APPS-2224", "APPS-2230"}
)
"""Problems of an app that did what its manifest does not declare: it is stopped."""
M = TypeVar("M", bound=msgspec.Struct)
Tell = Callable[[Severity, str, str, str], None]


class Past(Protocol):
    """Where raw samples of the past come from.

    Attributes:
        kept_us: source time from which every sample is there; 0: from the first one on.
    """

    @property
    def kept_us(self) -> int: ...

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
        keeping: of the app, the same for each gate of it. writing: of its writes.
        tail: the newest of the log, shared; None: it reads for itself.

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
        keeping: Keeping,
        writing: Writing,
        tail: Tail | None = None,
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
        self._keeping = keeping
        self._writing = writing
        self._tail = tail
        self._log: Reading | None = None
        self._requests: LogReader | None = None
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
        """Let happen what a crash of the runtime left undone, and begin to answer."""
        await self._settled()
        own = self._subjects.app_own(self._word)
        for verb in wire.VERBS:
            handler = getattr(self, f"_{verb}")
            self.stops.append(await self._bus.answer(f"{own}.ask.{verb}", handler))
        await self._serve()

    async def _serve(self) -> None:
        """The app's services, where requests find them and tools of NATS too."""
        manifest, edge = self.deployment.manifest, self.deployment.edge
        if not manifest.services:
            return
        endpoints = [
            Endpoint(
                name=each.name,
                subject=self._subjects.app_call(self._word, each.name, edge),
                handler=partial(self.ask_service, each.name),
                metadata={"title": each.title.get("en", ""), "dangerous": str(each.dangerous)},
            )
            for each in manifest.services
        ]
        stop = await serve(
            self._bus,
            manifest.id,
            manifest.version,
            endpoints,
            description=manifest.title.get("en", ""),
            metadata={"kind": "app", "edge": edge},
        )
        self.stops.append(stop)

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
        if self._requests is not None:
            await self._requests.close()

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
        kept = await self._settled()
        self._current(begin.life)
        self.holds = begin.holds or ["nothing"]
        begun = await beginning(self._bus, self._clock, self.deployment, kept)
        return msgspec.msgpack.encode(begun)

    async def _turn(self, raw: bytes) -> bytes:
        turn = self._asked(raw, wire.Turn)
        await self._hold_back(0)
        if turn.after >= 0:
            await self._follow(turn.after)
            self._alarms_after = turn.events_after
            if not turn.events_after:
                self._alarms_after = (await self._keeping.load()).events_from
            await self._hear_orders(turn.orders_after)
        assert self._log is not None, "the first turn says from where"
        batches: list[pl.DataFrame] = []
        sequence, told = 0, [*await self._journal(), *await self._orders()]
        for _ in range(int(TURN_S / LOOK_S)):
            part = await self._look()
            batches += part.rows
            sequence = part.sequence or sequence
            if batches or told or self._calls or self.life != turn.life:
                break
        known_us, until_us = self._known_us, self.deployment.until_us
        work = wire.Work(
            samples=envelope.encode(concat_batches(batches)) if batches else b"",
            sequence=sequence,
            known_us=min(known_us, until_us) if until_us else known_us,
            told=told,
            calls=[self._calls.popleft() for _ in range(len(self._calls))],
        )
        return msgspec.msgpack.encode(work)

    async def _give(self, raw: bytes) -> bytes:
        given = self._asked(raw, wire.Given)
        rows = envelope.decode(given.samples) if given.samples else empty_batch()
        await self._hold_back(rows.height)
        self._check(given, rows)
        async with self._keeping.lock:
            self._current(given.life)  # it may have ended while it was held back
            moved_us = arrival(self.deployment)
            await self._keeping.take(given, rows, self._writing, moved_us)
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
        if start_us < self._history.kept_us:
            text = f"{self._word} looks back farther than the log of its edge knows every sample"
            self._tell("warning", "APPS-2274", text, "What it gives of that time may lack some.")
        try:
            return await self._history.samples(tag_ids, start_us, end_us)
        except OSError as error:
            raise Transient("APPS-2205", f"the history cannot be read: {error}") from error

    async def _call(self, raw: bytes) -> bytes:
        call = self._asked(raw, wire.Call)
        name = f"{call.app}.{call.service}"
        if name not in self.deployment.manifest.permissions.calls:
            raise Refused("APPS-2207", f"{self._word} may not call {name}")
        word, edge = call.app.replace("-", "_"), self.deployment.edge
        subject = self._subjects.app_call(word, call.service, edge)
        return await self._bus.request(subject, call.body, timeout_s=wire.CALL_S)

    # -- samples --------------------------------------------------------------------------------

    async def _follow(self, after: int) -> None:
        """Read the log from a place on."""
        if self._log is not None:
            await self._log.close()
        self._log = Reading(self._bus, self._clock, self._tail, self._tags, after)
        self._known_us = 0  # as far as this process is told again, not as far as the one before was

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

    async def _hear_orders(self, after: int) -> None:
        """From a place of the stream on; -1: none. The process is not believed: the manifest asks."""
        if self._requests is not None:
            await self._requests.close()
        self._requests = None
        if after >= 0 and self.deployment.manifest.permissions.orders:
            after = after or (await self._keeping.load()).orders_from
            self._requests = LogReader(self._bus, after, ORDERS_STREAM)

    async def _orders(self) -> list[wire.Told]:
        """Operations requests that came and concern an asset of the app."""
        if self._requests is None:
            return []
        try:
            messages = await self._requests.next(ORDERS_S, MESSAGES_MAX)
        except Transient:
            return []
        found = []
        for message in messages:
            try:
                request = msgspec.json.decode(message.body, type=OperationsRequest)
            except UNREADABLE:
                continue  # none of ours
            if any(request.concerns(asset.path) for asset in self.deployment.assets):
                body = msgspec.to_builtins(request)
                order = Order(id=request.id, at_us=request.at_us, body=body)
                found.append(wire.Told(sequence=message.sequence, order=order))
        return found

    async def _look(self) -> Part:
        assert self._log is not None, "followed before"
        try:
            part = await self._log.next(MESSAGES_MAX)
        except Transient:
            await asyncio.sleep(RETRY_S)
            return Part()
        self._known_us = max(self._known_us, part.known_us)
        self.has_caught_up |= part.is_all
        if part.lost:
            first, last = part.lost[0][0], part.lost[-1][1]
            text = f"the log has messages {first} to {last} no more, which {self._word} did not see"
            self._tell("warning", "APPS-2246", text, "Its windows of that time may lack samples.")
        return part

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
            error = Refused("APPS-2230", what, "Ask who wrote it.")
            self.forbid(error)
            raise error

    def forbid(self, error: HeadraceError) -> None:
        """It did what it may not: whoever runs it stops it."""
        self.forbidden = Problem(
            code=error.code,
            what=error.what,
            remedy=error.remedy,
            hook="",
            at_us=self._clock.now_us(),
        )

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
        self._current(asked.life)  # type: ignore[attr-defined] # each question has one
        return asked

    def _current(self, life: int) -> None:
        if life != self.life:
            raise Refused("APPS-2234", f"this process of {self._word} is not the newest one")

    async def _settled(self) -> wire.Kept:
        async with self._keeping.lock:
            return await self._keeping.settle(self._writing)
