"""The chain world: devices, edge, broker, historian and reader, and what goes wrong between them.

Real: agent, connection hosts, pipelines, lanes, the bus client, the log reader, writer, committer, layout,
tail and reader. Simulated: the devices, the broker behind the client library, time, and (in small worlds)
the table's log on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress
from headrace.bus.subjects import Subjects, parse_batch
from headrace.edge.agent import Agent
from headrace.historian.commit import Committer
from headrace.historian.ledger_store import LedgerStore, open_ledger
from headrace.historian.reader import Reader
from headrace.historian.scan import US_MAX, US_MIN, read_files
from headrace.historian.tail import Tail
from headrace.historian.writer import Writer, WriterSettings
from headrace.model.desired import ConnectionConfig, EdgeConfig, HistorianConfig, TagConfig
from headrace.model.errors import Corrupt, Terminal, Transient
from headrace.model.ledger import LedgerPage
from headrace.model.tasks import end_tasks
from headrace.model.time import US_PER_S, Clock, ManualClock
from headrace.sim.world import checks
from headrace.sim.world.broker import SimBroker, Stored
from headrace.sim.world.checks import Facts, Frame, Row, Violation, rows_of
from headrace.sim.world.clock import START_US, MachineClock
from headrace.sim.world.devices import Message, SimConnectorType, SimDevice
from headrace.sim.world.disk import RealStore, SimDisk, SimStore
from headrace.sim.world.link import SimClient, open_sim_bus
from headrace.sim.world.loop import Killed, Process, VirtualLoop
from headrace.sim.world.plan import Fault, Plan
from headrace.sim.world.trace import Trace

DRAIN_MAX_S: Final = 120.0
LOOK_S: Final = 1.0
STOP_MAX_S: Final = 3.0
NOTICE_S: Final = 3.0
READ_S: Final = 2.5
RESTART_S: Final = 0.5
CATCH_UP_S: Final = 5.0
_ADDRESS: Final = BrokerAddress(0, 0, 0, "", "")
_SUBJECTS: Final = Subjects("acme", "mill")
_FLOOR: Final = 1 << 62
_MUCH_LATER_US: Final = START_US + 86_400 * US_PER_S


@dataclass
class Unit:
    """A process that is killed and started again."""

    name: str
    main: Callable[[Unit], Any]
    process: Process
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    client: SimClient | None = None
    ended: bool = False


class ChainWorld:
    """One run; see :func:`headrace.sim.world.runner.run_plan`.

    Args:
        plan: what happens.
        folder: empty; for data files.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self._noise = Random(f"noise/{plan.seed}")
        work = Random(f"work/{plan.seed}")
        self.loop = VirtualLoop(  # type: ignore[abstract] # sockets and signals are not of this world
            lambda: (work.uniform(0.0, 0.02), work.uniform(0.0, 0.1))
        )
        self.trace = Trace(self.loop)
        self.facts = Facts()
        self.violations: list[Violation] = []
        self._clocks = {
            name: MachineClock(self.loop, offset_us=self._noise.randint(-2_000_000, 2_000_000))
            for name in ("edge", "broker", "historian")
        }
        self._broker = SimBroker(self.loop, self._clocks["broker"], self.trace, self._accept)
        self._folder = folder
        self._table = folder / "table"
        self._table.mkdir()
        self._disk = SimDisk(self.trace)
        self._store = (
            RealStore(self._table, self._disk, self._clocks["historian"])
            if plan.real_table
            else SimStore(self._table, self._disk)
        )
        self._floor = 0
        self._devices: dict[str, SimDevice] = {}
        self._connections: list[ConnectionConfig] = []
        for number, source in enumerate(plan.sources):
            self._add_source(number, source)
        self._agent: Agent | None = None
        self._writer: Writer | None = None
        self._reader: tuple[Tail, Reader] | None = None
        self._ledgers: list[LedgerStore] = []
        self._largest = 0
        self._is_calm = False
        self._units = {
            name: Unit(name, main, self.loop.process(name))
            for name, main in (
                ("edge", self._edge_main),
                ("historian", self._historian_main),
                ("reader", self._reader_main),
            )
            if name != "reader" or plan.reads
        }
        self._disk.on_kill = lambda: self._come_back("historian", RESTART_S)

    def _add_source(self, number: int, source: Any) -> None:
        tags = tuple(
            TagConfig(
                tag_id=1_000 * (number + 1) + place,
                path=f"{source.name}/tag_{place}",
                address=str(place),
                scan_interval_ms=round(source.interval_s * 1_000),
                scale=source.scale if place % 2 else 1.0,
                deadband=source.deadband if place % 2 else 0.0,
            )
            for place in range(source.tags)
        )
        device = SimDevice(
            source.name,
            source.kind,
            tags,
            source.interval_s,
            self.loop,
            MachineClock(self.loop, offset_us=self._noise.randint(-5_000_000, 5_000_000)),
            self.trace,
            Random(f"{source.name}/{self.plan.seed}"),
            made=self.facts.made,
            owed=self.facts.owed,
            acknowledged=self._acknowledged,
        )
        if source.kind == "poll":
            self.facts.polled_tags.update(tag.tag_id for tag in tags)
        self._devices[source.name] = device
        self._connections.append(
            ConnectionConfig(
                name=source.name, protocol=source.name, endpoint=source.name, tags=tags
            )
        )

    # -- what the world sees --------------------------------------------------------------------

    def _accept(self, stored: Stored) -> None:
        _, _, _, connection = parse_batch(stored.subject)
        epoch, number = envelope.parse_sequence(stored.headers)
        try:
            rows = rows_of(envelope.decode(stored.body))
        except Corrupt:
            return  # a foreign publisher's
        self._largest = max(self._largest, len(rows))
        self.facts.accept(Frame(connection, epoch, number, tuple(rows)))

    def _acknowledged(self, device: SimDevice, messages: list[Message]) -> None:
        ids = {(tag, at) for m in messages for tag, at in zip(m.tag_id, m.source_us, strict=True)}
        self.trace.note(device.name, f"acknowledged {[message.number for message in messages]}")
        self._complain(checks.check_acknowledged(self.facts, ids))

    def _complain(self, violations: list[Violation]) -> None:
        for violation in violations:
            self.trace.note("CHECKER", f"{violation.checker}: {violation.text}")
        self.violations += violations

    # -- processes ------------------------------------------------------------------------------

    async def _edge_main(self, unit: Unit) -> None:
        bus = await self._open_bus(unit)
        agent = Agent(
            bus,
            _ADDRESS,
            _SUBJECTS,
            edge="local",
            certificates=self._folder,
            clock=self._clocks["edge"],
            types=lambda protocol: SimConnectorType(self._devices[protocol]),
        )
        self._agent = agent
        if self.plan.ledger:
            await agent.begin_ledger()
        await agent.apply(
            EdgeConfig(
                enterprise="acme",
                site="mill",
                edge="local",
                connections=tuple(self._connections),
            )
        )
        tasks = [
            asyncio.create_task(agent.publish_events()),
            asyncio.create_task(agent.keep_marks()),
        ]
        if self.plan.ledger:
            tasks.append(asyncio.create_task(agent.keep_ledger()))
        await unit.stop.wait()
        await agent.stop()
        await end_tasks(*tasks)
        await agent.end_ledger()

    async def _historian_main(self, unit: Unit) -> None:
        clock = self._clocks["historian"]
        table = self._store.open(clock)
        ledger = self._open_ledger(clock) if self.plan.ledger else None
        committer = Committer(table, self._folder / "quarantine", clock, ledger)
        bus = await self._open_bus(unit)
        self._writer = Writer(
            bus,
            table,
            committer,
            clock,
            report=lambda severity, code, text, _: self.trace.note("writer", f"{code} {text}"),
            config=lambda: HistorianConfig(stop_free_bytes_min=self._floor),
            settings=WriterSettings(
                commit_interval_s=self.plan.commit_interval_s,
                commit_rows_max=self.plan.commit_rows_max,
                log_keep_s=self.plan.log_keep_s,
            ),
        )
        await self._writer.run(unit.stop)

    def _open_ledger(self, clock: Clock) -> LedgerStore:
        self._ledgers.append(open_ledger(self._folder / "ledger.db", clock))
        return self._ledgers[-1]

    async def _reader_main(self, unit: Unit) -> None:
        bus = await self._open_bus(unit)
        index = self._store.index()
        tail = Tail(bus, index)
        await tail.start()
        reader = Reader(self._table, tail, index)
        self._reader = (tail, reader)
        while True:
            await asyncio.sleep(READ_S)
            await self._read_now(tail, reader)

    async def _open_bus(self, unit: Unit) -> Any:
        noise = Random(f"{unit.name}/{self.plan.seed}/{self.loop.time()}")
        bus, unit.client = open_sim_bus(self.loop, self._broker, self.trace, unit.name, noise)
        while not unit.client.is_connected:  # noqa: ASYNC110 - as the client library does
            await asyncio.sleep(0.1)
        return bus

    async def _run_unit(self, unit: Unit) -> None:
        """As the supervisor does: what ends by an error is started again."""
        try:
            await unit.main(unit)
            self.trace.note(unit.name, "ended")
            unit.ended = True
        except (Terminal, Transient, OSError) as error:
            self.trace.note(unit.name, f"crashed: {error}")
            unit.process.kill()
            self._come_back(unit.name, RESTART_S)

    def _start(self, unit: Unit) -> None:
        unit.process = self.loop.process(unit.name)
        unit.stop = asyncio.Event()
        unit.ended = False
        if unit.name == "historian":
            self._disk.process = unit.process
        self.trace.note(unit.name, "starts")
        task = self.loop.spawn(unit.process, self._run_unit(unit))
        task.add_done_callback(lambda done: self._note_end(unit.name, done))

    def _note_end(self, name: str, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Killed):
            self._complain([Violation("crash", f"{name}: {type(error).__name__}: {error}")])

    def _kill(self, unit: Unit) -> None:
        unit.process.kill()
        if unit.client is not None:
            unit.client.closed = True
        self.trace.note(unit.name, "killed")

    def _come_back(self, name: str, after_s: float) -> None:
        unit = self._units[name]

        def again() -> None:
            if not unit.process.alive:
                self._start(unit)

        self.loop.run_outside(again, after_s)

    # -- the run ----------------------------------------------------------------------------------

    def run(self) -> None:
        """Let everything happen; :attr:`violations` says what was broken."""
        try:
            self.loop.run_until_complete(self._main())
        finally:
            self.loop.close()
            for ledger in self._ledgers:
                ledger.close()

    async def _main(self) -> None:
        for unit in self._units.values():
            self._start(unit)
        for device in self._devices.values():
            if device.keeps:
                asyncio.create_task(device.run())  # noqa: RUF006 - the loop keeps them
        for fault in self.plan.faults:
            asyncio.create_task(self._suffer(fault))  # noqa: RUF006 - same
        while self.loop.time() < self.plan.faulty_s:
            await asyncio.sleep(LOOK_S)
            self._look()
        await self._calm()
        await self._drain()
        self._look()
        waits = self._in_motion()
        if waits:
            self._complain([Violation("progress", waits)])
        else:
            await self._check_end()

    async def _calm(self) -> None:
        """All faults end, and every process runs."""
        self._is_calm = True
        self.trace.note("world", "calm")
        self._broker.refuses = False
        self._broker.start()
        self._disk.full_at = self._disk.kill_at = ""
        self._floor = 0
        for device in self._devices.values():
            device.away = device.refuses = device.mute = False
            device.delay_s, device.bad_tags, device.garbles = 0.0, 0, 0
            device.tell()
        for unit in self._units.values():
            if unit.client is not None:
                unit.client.ack_delay_s = 0.0
            self._begin_again(unit)
        await asyncio.sleep(1.0)
        for device in self._devices.values():
            device.silent = True

    async def _drain(self) -> None:
        """Wait until everything is where it belongs, but not for ever."""
        end_s = self.loop.time() + DRAIN_MAX_S
        while self.loop.time() < end_s:
            if not self._waits():
                # After a restore the writer may not have noticed yet that its place is another one.
                await asyncio.sleep(NOTICE_S if self.facts.restored else 0.0)
                if not self._waits():
                    return
            await asyncio.sleep(0.25)

    def _waits(self) -> bool:
        return bool(self._in_motion() or self.facts.owed - self.facts.accepted_ids)

    def _in_motion(self) -> str:
        """What is on its way and not in the table; "" for nothing."""
        last = self._broker.samples.last_sequence
        writer = self._writer
        waits = []
        if writer is None or writer.state.committed_sequence != last:
            waits.append(f"the table is not at {last}")
        for state in self._agent.state().connections if self._agent is not None else ():
            if state.buffered:
                waits.append(f"{state.buffered} samples wait in the lane of {state.connection}")
        return "; ".join(waits)

    # -- checks -----------------------------------------------------------------------------------

    def _look(self) -> None:
        """What must hold at any time."""
        if self._agent is not None:
            for state in self._agent.state().connections:
                self._complain(checks.check_books(state))
        writer = self._writer
        if writer is not None:
            # The writer shows only its state; its bound on memory is a promise all the same.
            rows = writer._pending.rows
            if rows >= self.plan.commit_rows_max + max(self._largest, 1):
                text = f"the writer holds {rows} samples, its bound is {self.plan.commit_rows_max}"
                self._complain([Violation("bounded", text)])

    async def _read_now(self, tail: Tail, reader: Reader) -> None:
        """A read sees everything that the log had accepted when it began."""
        known = set(self.facts.accepted_ids)
        try:
            await tail.catch_up(CATCH_UP_S)
        except Transient:
            return
        rows = rows_of(self._read(reader))
        self.trace.note("reader", f"read {len(rows)}")
        lost = known - self.facts.forgiven - {row.identity for row in rows}
        if lost and self._broker.is_up and not self.facts.restored:
            self._complain([Violation("fresh", f"a read lacks {sorted(lost)[:3]}")])
        self._complain(checks.check_doubled(rows, "a read", by_identity=True))

    def _read(self, reader: Reader) -> Any:
        tags = [tag.tag_id for each in self._connections for tag in each.tags]
        return reader.read(tags, US_MIN, US_MAX)

    async def _check_end(self) -> None:
        facts = self.facts
        table = self._rows_of_table()
        read = rows_of(self._read(Reader(self._table, None, self._store.index())))
        self.trace.note("world", f"{len(table)} rows, {len(facts.accepted)} frames")
        self._complain(checks.check_lost(facts, read, "the table"))
        self._complain(checks.check_owed(facts, read))
        self._complain(checks.check_doubled(table, "the table", by_identity=False))
        self._complain(checks.check_doubled(read, "the end's read", by_identity=True))
        self._complain(checks.check_content(facts, table, "the table"))
        self._complain(checks.check_order(facts))
        self._complain(checks.check_writer_books(facts, self._store.counters()))
        if self._reader is not None:
            await self._read_now(*self._reader)
        if self.plan.ledger and not self.facts.restored:
            await self._check_ledger()  # else what the backup lacks is unexplained, and an alarm

    async def _check_ledger(self) -> None:
        """Close the books as an edge that stops does, and lay both sides beside each other."""
        edge = self._units["edge"]
        edge.stop.set()
        end_s = self.loop.time() + DRAIN_MAX_S
        while not edge.ended or self._in_motion():
            await asyncio.sleep(0.25)
            if self.loop.time() > end_s:
                self._complain(
                    [Violation("progress", f"the edge has not ended; {self._in_motion()}")]
                )
                return
        pages = [msgspec.json.decode(page, type=LedgerPage) for page in self._broker.pages]
        books = self._open_ledger(ManualClock(_MUCH_LATER_US))
        books.take_pages(pages)
        self._complain(checks.check_ledger(books.accounts()))

    def _rows_of_table(self) -> list[Row]:
        """Every row of every file, as it lies there."""
        files = self._store.index().refresh(force=True).files
        return rows_of(read_files(self._table, files, None, US_MIN, US_MAX + 1))

    # -- faults -----------------------------------------------------------------------------------

    async def _suffer(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_s)
        if self._is_calm:
            return
        self.trace.note("fault", f"{fault.kind} {fault.target} {fault.for_s:g} {fault.amount:g}")
        _FAULTS[fault.kind](self, fault)

    def _later(self, fault: Fault, undo: Callable[[], None]) -> None:
        def end() -> None:
            if not self._is_calm:
                undo()

        self.loop.run_outside(end, fault.for_s)

    def _kill_for(self, fault: Fault) -> None:
        if fault.target == "broker":
            self._broker.stop()
            self._later(fault, self._broker.start)
            return
        unit = self._units[fault.target]
        if unit.process.alive:
            self._kill(unit)
            self._come_back(unit.name, fault.for_s)

    def _restart(self, fault: Fault) -> None:
        """Stopped as a service is, and started again."""
        unit = self._units[fault.target]
        unit.stop.set()

        def again() -> None:
            if not self._is_calm:
                self._begin_again(unit)

        self.loop.run_outside(again, STOP_MAX_S + fault.for_s)

    def _begin_again(self, unit: Unit) -> None:
        """Start what was stopped; what did not end in time is killed first."""
        if unit.process.alive and unit.stop.is_set():
            self._kill(unit)
        if not unit.process.alive:
            self._start(unit)

    def _link(self, fault: Fault) -> None:
        unit = self._units.get(fault.target)
        client = unit.client if unit is not None else None
        if client is None:
            return
        count = int(fault.amount)
        if fault.kind == "reset":
            client.reset()
        elif fault.kind == "stall":
            client.stall(fault.for_s)
        elif fault.kind == "lose_ack":
            client.lose_acks += count
        elif fault.kind == "double":
            client.double += count
        elif fault.kind == "lose_delivery":
            client.lose_deliveries += count
        else:
            client.ack_delay_s = 6.0 if count > 2 else 1.0
            self._later(fault, lambda: setattr(client, "ack_delay_s", 0.0))

    def _device(self, fault: Fault) -> None:
        device, kind = self._devices[fault.target], fault.kind
        if kind == "device_clock":
            if device.kind != "history":  # its memory is asked for by time
                device.clock.step_us(round(fault.amount * US_PER_S))
        elif kind == "garble":
            device.garbles += 1
        elif kind == "death":
            device.deaths += 1
            device.tell()
        elif kind in ("bad", "slow"):
            name, value = ("bad_tags", int(fault.amount)) if kind == "bad" else ("delay_s", 0.7)
            setattr(device, name, value)
            self._later(fault, lambda: setattr(device, name, 0))
        else:
            name = {"away": "away", "refuse": "refuses", "mute": "mute"}[kind]
            setattr(device, name, True)
            device.tell()
            self._later(fault, lambda: device.recover(name))

    def _disk_fault(self, fault: Fault) -> None:
        if fault.kind == "kill_in_commit":
            self._disk.kill_at = fault.place
        elif fault.kind == "disk_full":
            self._disk.full_at = fault.place
            self._later(fault, lambda: setattr(self._disk, "full_at", ""))
        else:
            self._floor = _FLOOR
            self._later(fault, lambda: setattr(self, "_floor", 0))

    def _clock(self, fault: Fault) -> None:
        self._clocks[fault.target].step_us(round(fault.amount * US_PER_S))
        # The broker knows copies by its clock, so it may store one now; the writer drops it.
        self.facts.copies_known = self.facts.copies_known and fault.target != "broker"

    def _log_fault(self, fault: Fault) -> None:
        if fault.kind == "foreign":
            subject = _SUBJECTS.batch("other", "foreign")
            if self._broker.is_up:
                self._broker.publish(subject, {}, b"this is no batch")
            return
        self._broker.refuses = True
        self._later(fault, lambda: setattr(self._broker, "refuses", False))

    def _restore(self, fault: Fault) -> None:
        self._broker.stop()
        gone = self._broker.restore()
        stored = {row.identity for row in self._rows_of_table()}
        for message in gone:
            try:
                rows = rows_of(envelope.decode(message.body))
            except Corrupt:
                continue
            self.facts.forgiven.update({row.identity for row in rows} - stored)
        self.facts.restored = True
        self._later(fault, self._broker.start)


_FAULTS: Final[dict[str, Callable[[ChainWorld, Fault], None]]] = {
    "kill": ChainWorld._kill_for,
    "restart": ChainWorld._restart,
    **dict.fromkeys(
        ("reset", "stall", "lose_ack", "delay_ack", "double", "lose_delivery"), ChainWorld._link
    ),
    **dict.fromkeys(
        ("away", "refuse", "mute", "slow", "bad", "garble", "death", "device_clock"),
        ChainWorld._device,
    ),
    **dict.fromkeys(("disk_full", "disk_floor", "kill_in_commit"), ChainWorld._disk_fault),
    "clock": ChainWorld._clock,
    **dict.fromkeys(("log_full", "foreign"), ChainWorld._log_fault),
    "snapshot": lambda world, _: world._broker.take_snapshot(),
    "restore": ChainWorld._restore,
}
