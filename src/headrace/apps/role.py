"""The apps process: runs the newest configuration, says how it does each second, and answers requests.

Of several on one site, one at a time works, by a lease; the others wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Final

import msgspec
import numpy as np

from headrace.alarms.notify.service import run_notify
from headrace.apps.changes import Changes
from headrace.apps.desk import Desk
from headrace.apps.feed import SETTLE_US
from headrace.apps.knowledge import Knowledge, Stopped, know, statement, stopped_by
from headrace.apps.log_past import LogPast
from headrace.apps.outlet import Outlet
from headrace.apps.position import Position, load_position, save_position
from headrace.apps.session import Failed, Session, Tools
from headrace.apps.tally import Tally
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus, open_bus
from headrace.bus.lease import Lease
from headrace.bus.log import LogInfo, log_info
from headrace.bus.outbox import Outbox
from headrace.bus.subjects import DESIRED_BUCKET, FORMULA_CALL, Subjects, apps_edge
from headrace.historian.reader import Reader, open_reader
from headrace.model.apps import AppsState, DerivedFacts, FormulaHealth
from headrace.model.desired import EdgeConfig
from headrace.model.errors import HeadraceError, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.health import Severity
from headrace.model.knowledge import AppsConfig
from headrace.model.tasks import end_tasks
from headrace.model.time import Clock, SystemClock
from headrace.security.files import hold_lock, make_folder

CONFIG_KEY: Final = "apps"
NOTIFY_KEY: Final = "notify"
HEALTH_S: Final = 1.0
NOTIFY_STOP_S: Final = 3.0
RETRY_S: Final = 0.5
PUZZLED_S: Final = 5.0
BROKER_WAIT_S: Final = 30.0
_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_log = logging.getLogger(__name__)


async def run(
    folder: DataFolder,
    address: BrokerAddress,
    subjects: Subjects,
    stop: asyncio.Event,
    *,
    clock: Clock | None = None,
    edge: str = "",
) -> None:
    """Evaluate what engineers wrote until ``stop`` is set; what was evaluated is in the log then.

    Args:
        edge: beside which it runs, with the formulas that are placed there and no alarms; empty: on the
            platform.

    Raises:
        Refused: APPS-1001 when another apps role runs on this folder.
        Transient: BUS-1025 when the broker does not come within 30 s.
    """
    with _one_at_a_time(folder, edge):
        async with open_bus(address, "apps", wait_s=BROKER_WAIT_S) as bus:
            role = _Role(folder, bus, subjects, clock or SystemClock(), edge)
            await role.run(stop)


class _Role:
    def __init__(
        self, folder: DataFolder, bus: Bus, subjects: Subjects, clock: Clock, edge: str
    ) -> None:
        self._edge = edge
        self._folder = folder
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._tally = Tally(clock)
        self._outbox = Outbox(bus, subjects.event("apps"), apps_edge(edge), clock)
        self._changes = Changes(bus, subjects, clock)
        self._desk = Desk(folder, clock, self._report)
        place = f"{socket.gethostname()}:{folder.root}"
        self._lease = Lease(bus, apps_edge(edge), place, clock)
        self._log_past = LogPast(bus, clock, f"past.{edge}") if edge else None
        self._config = AppsConfig(enterprise="", site="")
        self._knowledge = Knowledge(self._config)
        self._broken: dict[str, Stopped] = {}
        self._told: set[tuple[str, str]] = set()
        self._again = asyncio.Event()
        self._outlet: Outlet | None = None
        self._session: Session | None = None
        self._puzzled = 0
        self._is_telling = False
        self._info: LogInfo | None = None

    async def run(self, stop: asyncio.Event) -> None:
        await self._serve()
        tasks = [
            asyncio.create_task(self._watch()),
            asyncio.create_task(self._tell()),
            asyncio.create_task(self._outbox.run()),
            asyncio.create_task(_set_when(stop, self._again)),
        ]
        telling = asyncio.create_task(self._notify(stop))
        telling.add_done_callback(lambda _: self._again.set())
        books: list[asyncio.Task[None]] = []
        try:
            while not stop.is_set():
                await self._work(stop, books)
                if telling.done() and not stop.is_set():
                    telling.result()  # an error of ours ends the role, which is started anew
            if self._is_telling:
                await asyncio.wait({telling}, timeout=NOTIFY_STOP_S)
        finally:
            await end_tasks(*tasks, *books, telling)
            await self._desk.close()
            if self._outlet is not None:
                await self._outlet.end()
            if self._log_past is not None:
                await self._log_past.close()
            await self._lease.release()

    async def _serve(self) -> None:
        """Answer who asks; alarms are the platform's."""

        def may() -> bool:
            return self._lease.is_held

        if self._edge:
            call = self._subjects.edge_call(self._edge, FORMULA_CALL)
            await self._bus.answer(call, self._why, when=may)
        else:
            await self._bus.answer(self._subjects.apps_call("why"), self._why, when=may)
            await self._desk.serve(self._bus, self._subjects, may)

    async def _notify(self, stop: asyncio.Event) -> None:
        """Tell people of alarms; begins when there are settings for it."""
        async for _ in self._bus.watch(DESIRED_BUCKET, NOTIFY_KEY):
            break
        self._is_telling = True
        await run_notify(
            self._folder,
            self._bus,
            self._clock,
            stop,
            report=self._outbox.put,
            may_work=lambda: self._lease.is_held,
        )

    async def _watch(self) -> None:
        """Take over each changed desired state; a broken one is reported and the old one stays."""
        key = f"edge.{self._edge}" if self._edge else CONFIG_KEY
        async for raw in self._bus.watch(DESIRED_BUCKET, key):
            try:
                config = _edge_config(raw) if self._edge else _config(raw)
            except msgspec.MsgspecError as error:
                text = f"the desired state of the apps role cannot be read: {error}"
                self._report("error", "APPS-1002", text, "Update this machine: headrace --version")
                continue
            if config != self._config or self._broken:
                self._config, self._broken = config, {}
                self._learn()
                self._again.set()

    def _learn(self) -> None:
        """Bind what can run of the configuration; say what cannot."""
        self._knowledge = know(self._config, self._broken, self._clock.now_us(), self._edge)
        stopped = self._knowledge.stopped
        for key, why in stopped.items():
            if (key, why.what) not in self._told:
                self._report("error", why.code, f"{key} is not evaluated: {why.what}", why.remedy)
        self._told = {(key, why.what) for key, why in stopped.items()}

    async def _work(self, stop: asyncio.Event, books: list[asyncio.Task[None]]) -> None:
        """One session, for as long as the configuration is the same."""
        self._again.clear()
        try:
            if not await self._lease.hold():
                self._tally.state = "waiting"
                await _wait(self._again, HEALTH_S)
                return
            if self._config.enterprise and not self._edge:
                await self._desk.bind(self._knowledge)
            if not self._knowledge.every:
                await self._idle()
            else:
                if self._outlet is None:
                    await self._open_outlet(books)
                async with AsyncExitStack() as stack:
                    await self._run_session(await self._tools(stack), stop)
        except Failed as failed:
            await self._stop_formula(failed)
        except (HeadraceError, OSError) as error:
            await self._wait_for(error)
        finally:
            self._session = None

    async def _idle(self) -> None:
        """Nothing to evaluate; what comes after this begins anew. Where the configuration has not been
        read yet, what ran before goes on when it has."""
        self._tally.state = "idle"
        known = await self._position() if self._config.enterprise else None
        if known is not None and known.definitions:
            none = msgspec.structs.replace(known, definitions={}, spans=())
            await save_position(self._bus, none, self._edge)
        while not self._again.is_set() and await self._lease.hold():
            await _wait(self._again, HEALTH_S)

    async def _position(self) -> Position | None:
        return await load_position(self._bus, self._edge)

    async def _open_outlet(self, books: list[asyncio.Task[None]]) -> None:
        """Give times after those of the last life; open the books."""
        known = await self._position()
        received_us = known.received_us if known is not None else 0
        self._outlet = Outlet(
            self._bus,
            self._subjects,
            self._clock,
            received_us,
            self._lane_trouble,
            edge=self._edge,
        )
        await self._outlet.begin()
        books.append(asyncio.create_task(self._outlet.keep_books()))

    async def _tools(self, stack: AsyncExitStack) -> Tools:
        assert self._outlet is not None, "opened before there is something to evaluate"
        self._tally.state = "catching_up"
        past = self._log_past
        if past is None:
            reader: Reader = await stack.enter_async_context(
                open_reader(self._folder, self._bus, report=self._report)
            )
        else:
            reader = await self._edge_reader(past)
        return Tools(
            bus=self._bus,
            clock=self._clock,
            reader=reader,
            outlet=self._outlet,
            changes=self._changes,
            tally=self._tally,
            report=self._report,
            desk=self._desk,
            kept_us=(lambda: past.kept_us) if past is not None else int,
        )

    async def _edge_reader(self, past: LogPast) -> Reader:
        """A reader of the edge's own log, where there is no table."""
        knowledge, position = self._knowledge, await self._position()
        known_us = position.done_us if position is not None else self._clock.now_us()

        def done_us() -> int:
            return self._session.done_us if self._session is not None else known_us

        tags = np.union1d(knowledge.inputs, knowledge.outputs)
        back_us = max((bound.plan.back_us for bound in knowledge.every), default=0)
        await past.want(tags, back_us, done_us)
        return Reader(self._folder.root / "no_table", past)

    async def _run_session(self, tools: Tools, stop: asyncio.Event) -> None:
        session = Session(self._knowledge, await self._position(), tools)
        await session.begin()
        self._session, self._tally.state = session, "running"
        while not self._again.is_set() and not stop.is_set():
            try:
                await session.turn()
                await self._changes.tell()
                self._tally.state, self._puzzled = "running", 0
            except Transient as error:
                await self._wait_for(error)
            if not await self._lease.hold():
                break
        await session.close()
        with contextlib.suppress(Transient):
            await self._changes.tell(all_now=True)

    async def _stop_formula(self, failed: Failed) -> None:
        """Go on without a formula that failed. Where all failed at once, history tells which it was."""
        if failed.key:
            key = statement(failed.key)
            self._broken[key] = stopped_by(failed.error, self._clock.now_us())
            _log.warning("%s failed", failed.key, exc_info=failed.error)
            self._learn()
            return
        if isinstance(failed.error, Transient):
            return
        self._puzzled += 1
        _log.warning("the evaluation failed", exc_info=failed.error)
        if self._puzzled > 1:
            text = f"the evaluation fails: {type(failed.error).__name__}: {failed.error}"
            self._report("error", "APPS-1006", text, "It is an error of ours: report it.")
            await _wait(self._again, PUZZLED_S)

    async def _wait_for(self, error: HeadraceError | OSError) -> None:
        """Something outside is away: say so, and try again soon."""
        known = (
            error
            if isinstance(error, HeadraceError)
            else Transient("APPS-1007", f"the history cannot be read: {error}")
        )
        _log.info("%s", known)
        self._tally.state = "waiting"
        self._tally.fail(known)
        await asyncio.sleep(RETRY_S)

    # -- what it says ---------------------------------------------------------------------------

    async def _tell(self) -> None:
        """Health each second, for ever."""
        while True:
            with contextlib.suppress(Transient):
                self._info = await log_info(self._bus)
                if self._session is not None and not self._session.follows(self._info):
                    self._again.set()
            with contextlib.suppress(Transient):
                await self._desk.tick()
            with contextlib.suppress(Transient):
                await self._bus.publish(self._subjects.apps_health(self._edge), self._state())
            await asyncio.sleep(HEALTH_S)

    def _state(self) -> AppsState:
        outlet, session = self._outlet, self._session
        state = self._tally.health(
            self._knowledge,
            outlet.latencies_us if outlet is not None else (),
            session.samples if session is not None else 0,
        )
        state.edge = self._edge
        state.last_sequence = self._info.last_sequence if self._info is not None else 0
        if session is not None:
            state.done_us, state.sequence = session.done_us, session.sequence
            state.lag_us = max(0, state.at_us - SETTLE_US - session.done_us)
            state.repairs = session.repairs
        elif state.state == "catching_up":
            state.done_us = self._tally.caught_up_us
        return state

    async def _why(self, body: bytes) -> bytes:
        """What is known here of one derived tag."""
        tag_id = msgspec.json.decode(body, type=dict[str, int])["tag_id"]
        state = self._state()
        facts = DerivedFacts(
            at_us=state.at_us,
            state=state.state,
            done_us=state.done_us,
            lag_us=state.lag_us,
            sequence=state.sequence,
            edge=self._edge,
        )
        for bound in self._knowledge.bounds:
            at = np.flatnonzero(bound.outputs == tag_id)
            if bound.role == "formula" and len(at):
                place = int(at[0])
                facts.has_tag, facts.asset = True, bound.assets[place]
                facts.formula = self._tally.formula(self._knowledge, bound)
                facts.inputs = [int(ids[place]) for ids in bound.inputs.values()]
                self._add_way(facts, bound.key.rpartition(".")[0])
        if not facts.has_tag:
            facts.formula = self._stopped_formula(tag_id)
        return msgspec.json.encode(facts)

    def _stopped_formula(self, tag_id: int) -> FormulaHealth | None:
        for asset in self._config.assets:
            for name, output in asset.outputs.items():
                if output == tag_id:
                    key = f"{asset.type}.{name}"
                    found = self._tally.formulas(self._knowledge)
                    return next((each for each in found if each.key == key), None)
        return None

    def _add_way(self, facts: DerivedFacts, asset_type: str) -> None:
        standing = self._outlet.standing(asset_type) if self._outlet is not None else None
        if standing is None:
            return
        facts.buffered = standing.buffered
        if standing.acknowledged_s is not None:
            facts.acknowledged_us = facts.at_us - int(standing.acknowledged_s * 1e6)
        if standing.trouble is not None:
            facts.trouble_code, facts.trouble = standing.trouble.code, standing.trouble.what
            facts.trouble_remedy = standing.trouble.remedy

    def _lane_trouble(self, asset_type: str, error: HeadraceError | None) -> None:
        if error is None:
            self._report("info", "APPS-1102", f"the log takes results of {asset_type} again", "")
        else:
            self._report("warning", error.code, error.what, error.remedy)

    def _report(self, severity: Severity, code: str, text: str, remedy: str) -> None:
        _log.log(_LEVELS[severity], "%s %s", code, text)
        self._outbox.report(severity, code, text, remedy)


async def _wait(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()


async def _set_when(first: asyncio.Event, then: asyncio.Event) -> None:
    await first.wait()
    then.set()


@contextmanager
def _one_at_a_time(folder: DataFolder, edge: str) -> Iterator[None]:
    """Hold the role's lock file."""
    make_folder(folder.run, 0o700)
    refused = Refused(
        "APPS-1001", f"another apps role runs on {folder.root}", "Stop it first: headrace down"
    )
    with hold_lock(folder.run / f"{apps_edge(edge)}.lock", refused):
        yield


def _config(raw: bytes) -> AppsConfig:
    return msgspec.json.decode(raw, type=AppsConfig)


def _edge_config(raw: bytes) -> AppsConfig:
    """What an edge is to evaluate, of all that it is to run."""
    found = msgspec.json.decode(raw, type=EdgeConfig)
    return found.apps or AppsConfig(enterprise=found.enterprise, site=found.site)
