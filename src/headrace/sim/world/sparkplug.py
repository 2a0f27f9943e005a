"""The Sparkplug world: edge nodes, a network that loses, doubles, swaps and delays, and our host session.

Real: :class:`headrace.edge.connectors.sparkplug.session.HostSession` with its decoders. Simulated: the edge
nodes, the MQTT broker between (QoS 0 both ways, wills), and time. Each value names its metric, so a sample
under the wrong tag is seen at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from headrace.edge.connectors.mqtt.columns import Gathered
from headrace.edge.connectors.sparkplug.config import BD_SEQ, REBIRTH, MetricAddress, topic
from headrace.edge.connectors.sparkplug.payload import quality_status, set_quality
from headrace.edge.connectors.sparkplug.schema import DataType, Payload
from headrace.edge.connectors.sparkplug.session import ORPHANS_MAX, SEQ_COUNT, HostSession
from headrace.model import status as st
from headrace.model.time import US_PER_S
from headrace.sim.world import checks
from headrace.sim.world.checks import Facts, Row, Violation
from headrace.sim.world.clock import MachineClock
from headrace.sim.world.devices import Content, Identity, bits_of
from headrace.sim.world.loop import VirtualLoop
from headrace.sim.world.plan import Fault, Plan
from headrace.sim.world.trace import Trace

GROUP: Final = "hall"
DEVICE: Final = "press"
TICK_S: Final = 0.1
REBIRTH_S: Final = 10.0
REORDER_S: Final = 2.0
GRACE_S: Final = 1.0
SYNC_MAX_S: Final = 90.0
LATENCY_S: Final = (0.001, 0.02)
LATE_S: Final = (0.5, 6.0)
HARMLESS: Final = frozenset({"rebirth", "realias"})
"""With these alone not one sample may be lost; with swaps alone neither, once births are known."""
BORN_S: Final = 1.5
IN_ORDER: Final = frozenset({"rebirth", "realias", "node_cut", "kill", "device_death"})
"""With these alone samples come in the order of their times."""


@dataclass
class Metric:
    """One metric of an edge node, and its newest value."""

    device_id: str
    name: str
    tag_id: int
    alias: int
    count: int = 0
    at_ms: int = 0
    value: float | None = 0.0
    quality: int = 0

    @property
    def identity(self) -> Identity:
        return self.tag_id, self.at_ms * 1_000


@dataclass
class Wire:
    """What is wrong with the next messages of one edge node."""

    lose: int = 0
    double: int = 0
    swap: int = 0
    late: int = 0
    held: tuple[str, bytes] | None = None
    last_s: float = 0.0


@dataclass
class SimNode:
    """One edge node (Sparkplug 3.0, chapter 5)."""

    name: str
    metrics: list[Metric]
    clock: MachineClock
    noise: Random
    publish: Callable[[SimNode, str, bytes], None]
    facts: Facts
    wire: Wire = field(default_factory=Wire)
    online: bool = False
    bd_seq: int = -1
    seq: int = 0
    device_alive: bool = True
    realiased: bool = False

    def now_ms(self) -> int:
        """The node's own time: odd, so that no birth has the time of a sample."""
        return self.clock.now_us() // 1_000 | 1

    def measure(self, metric: Metric) -> None:
        """A new value, that says whose it is."""
        metric.count += 1
        metric.at_ms = self.now_ms() + 1
        while metric.identity in self.facts.made:
            metric.at_ms += 2
        metric.value = metric.tag_id * 1e6 + metric.count
        metric.quality = self.noise.choice((0, 0, 0, 0, st.BAD, st.UNCERTAIN_LAST_USABLE_VALUE))
        if self.noise.random() < 0.05:
            metric.value = None
        status = metric.quality
        if metric.value is None:
            status = metric.quality if st.is_bad(metric.quality) else st.BAD_NO_DATA
        self.facts.made[metric.identity] = Content(bits_of(metric.value), None, status)

    def _add(self, payload: Any, metric: Metric, *, birth: bool) -> None:
        made = payload.metrics.add(timestamp=metric.at_ms, alias=metric.alias)
        if birth:
            made.name, made.datatype = metric.name, int(DataType.DOUBLE)
        if metric.value is None:
            made.is_null = True
        else:
            made.double_value = metric.value
        if metric.quality:
            set_quality(made, metric.quality)
            assert quality_status(made) == metric.quality

    def _send(self, kind: str, payload: Any, device_id: str = "", *, seq: bool = True) -> None:
        payload.timestamp = payload.timestamp or self.now_ms()
        if seq:
            payload.seq = self.seq
            self.seq = (self.seq + 1) % SEQ_COUNT
        where = topic(kind, GROUP, self.name, device_id)
        self.publish(self, where, payload.SerializeToString())

    def connect(self) -> None:
        """A new session: the next bdSeq, and births."""
        self.bd_seq = (self.bd_seq + 1) % SEQ_COUNT
        self.online = True
        self.births()

    def will(self) -> tuple[str, bytes]:
        """What the broker publishes when this session ends."""
        payload = Payload(timestamp=self.now_ms())
        payload.metrics.add(name=BD_SEQ, datatype=int(DataType.INT64), long_value=self.bd_seq)
        return topic("NDEATH", GROUP, self.name), payload.SerializeToString()

    def births(self) -> None:
        """NBIRTH and DBIRTH; the sequence begins again."""
        self.seq = 0
        payload = Payload()
        payload.metrics.add(name=BD_SEQ, datatype=int(DataType.INT64), long_value=self.bd_seq)
        payload.metrics.add(name=REBIRTH, datatype=int(DataType.BOOLEAN), boolean_value=False)
        self._birth("NBIRTH", "", payload)
        if self.device_alive and any(metric.device_id for metric in self.metrics):
            self._birth("DBIRTH", DEVICE, Payload())

    def _birth(self, kind: str, device_id: str, payload: Any) -> None:
        payload.timestamp = self.now_ms()
        for metric in self.metrics:
            if metric.device_id == device_id:
                self._add(payload, metric, birth=True)
                # A value that was stale is true again from its birth on.
                again = (metric.tag_id, payload.timestamp * 1_000)
                self.facts.confirmed[again] = self.facts.made[metric.identity]
        self._send(kind, payload, device_id)

    def data(self) -> None:
        """New values of some metrics."""
        device_id = self.noise.choice(("", DEVICE))
        mine = [metric for metric in self.metrics if metric.device_id == device_id]
        if not mine or not self.online or (device_id and not self.device_alive):
            return
        payload = Payload()
        for metric in mine if len(mine) > 9 else self.noise.sample(mine, max(1, len(mine) // 2)):
            self.measure(metric)
            self._add(payload, metric, birth=False)
        self._send("DDATA" if device_id else "NDATA", payload, device_id)

    def death_of_device(self) -> None:
        """DDEATH."""
        if self.online and self.device_alive and any(m.device_id for m in self.metrics):
            self.device_alive = False
            self._send("DDEATH", Payload(), DEVICE)

    def birth_of_device(self) -> None:
        """DBIRTH, without births of all."""
        if self.online and not self.device_alive:
            self.device_alive = True
            self._birth("DBIRTH", DEVICE, Payload())
        self.device_alive = True

    def realias(self) -> None:
        """Births in which the same aliases mean other metrics."""
        aliases = [metric.alias for metric in self.metrics]
        self.noise.shuffle(aliases)
        for metric, alias in zip(self.metrics, aliases, strict=True):
            metric.alias = alias
        self.realiased = True
        if self.online:
            self.births()


class SparkplugWorld:
    """One run; see :func:`headrace.sim.world.runner.run_plan`.

    Args:
        plan: what happens.
        folder: not used.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        del folder
        self.plan = plan
        self.loop = VirtualLoop()  # type: ignore[abstract] # sockets are not of this world
        self.trace = Trace(self.loop)
        self.facts = Facts()
        self.violations: list[Violation] = []
        self._noise = Random(f"noise/{plan.seed}")
        self._clock = MachineClock(self.loop)
        self._nodes = {
            source.name: self._make_node(number, source.name, source.tags)
            for number, source in enumerate(plan.sources)
        }
        self._wanted = [
            (MetricAddress(GROUP, node.name, metric.device_id, metric.name), metric.tag_id, 0)
            for node in self._nodes.values()
            for metric in node.metrics
        ]
        self._gathered = Gathered()
        self._host: HostSession | None = None
        self._sessions = 0
        self._taken = 0
        self._got: set[Identity] = set()
        self._newest: dict[int, int] = {}
        self._fresh: dict[int, bool] = {}
        self._asked_s: dict[str, float] = {}
        self._is_calm = False
        kinds = {fault.kind for fault in plan.faults}
        self._is_ordered = kinds <= IN_ORDER or self._only_swaps()
        self._interval_s = {source.name: source.interval_s for source in plan.sources}

    def _make_node(self, number: int, name: str, tags: int) -> SimNode:
        metrics = [
            Metric(
                DEVICE if place % 2 else "", f"metric_{place}", 100 * (number + 1) + place, place
            )
            for place in range(tags)
        ]
        noise = Random(f"{name}/{self.plan.seed}")
        clock = MachineClock(self.loop, offset_us=noise.randint(-2_000_000, 2_000_000))
        node = SimNode(name, metrics, clock, noise, self._from_node, self.facts)
        for metric in metrics:
            node.measure(metric)
        return node

    def run(self) -> None:
        """Let everything happen; :attr:`violations` says what was broken."""
        try:
            self.loop.run_until_complete(self._main())
        finally:
            self.loop.close()

    # -- network ----------------------------------------------------------------------------------

    def _from_node(self, node: SimNode, where: str, payload: bytes) -> None:
        wire = node.wire
        # Births that change aliases come in time: else the next messages may by chance carry the numbers
        # that the host waits for, and nothing in the protocol would tell.
        spared = node.realiased and "NBIRTH" in where
        if wire.lose > 0 and not spared:
            wire.lose -= 1
            self.trace.note(node.name, f"lost {where}")
            return
        if wire.late > 0 and not spared:
            wire.late -= 1
            self.loop.call_later(self._noise.uniform(*LATE_S), self._arrive, where, payload)
            return
        if wire.swap > 0 and wire.held is None and not spared:
            wire.held = (where, payload)
            self.loop.call_later(REORDER_S / 2, self._release, node)
            return
        copies = 1
        if wire.double > 0:
            wire.double -= 1
            copies = 2
        for _ in range(copies):
            self._carry(wire, where, payload)
        if wire.held is not None:
            wire.swap -= 1
            self._release(node)

    def _release(self, node: SimNode) -> None:
        held, node.wire.held = node.wire.held, None
        if held is not None:
            self._carry(node.wire, *held)

    def _carry(self, wire: Wire, where: str, payload: bytes) -> None:
        wire.last_s = max(self.loop.time() + self._noise.uniform(*LATENCY_S), wire.last_s + 1e-4)
        self.loop.call_at(wire.last_s, self._arrive, where, payload)

    def _arrive(self, where: str, payload: bytes) -> None:
        if self._host is None:
            return
        parts = where.split("/")
        self.trace.note("host", f"{parts[2]} {'/'.join(parts[3:])} {len(payload)}")
        self._host.receive(where, payload, self._clock.now_us(), self.loop.time())
        self._after()

    def _after(self) -> None:
        """Carry what the host wants to say, and look at what it says to have."""
        host = self._host
        assert host is not None
        for message in host.outbox:
            parts = message.topic.split("/")
            if parts[1] != "STATE":
                self._command(parts[3])
        host.outbox.clear()
        self._take()
        for node in host.nodes.values():
            fresh = [tag for tag in node.stale if self._fresh.get(tag)]
            if not node.online:
                every = [tag for device in node.wanted for tag in node.tag_ids(device)]
                fresh += [tag for tag in every if self._fresh.get(tag)]
            if fresh:
                text = f"{node.title} is dead, and its tags {fresh[:3]} are not told to be stale"
                self._complain([Violation("stale", text)])
            if len(node.orphans) > ORPHANS_MAX or len(node.reorder) > SEQ_COUNT:
                self._complain([Violation("bounded", f"{node.title} holds too many messages")])

    def _command(self, name: str) -> None:
        now_s = self.loop.time()
        self.trace.note("host", f"asks {name} for births")
        last_s = self._asked_s.get(name)
        at_once = any(code == "EDGE-4216" for code, _ in self._gathered.notices)
        if last_s is not None and now_s - last_s < REBIRTH_S - 1e-6 and not at_once:
            text = f"{name} was asked for births twice within {now_s - last_s:.3f} s"
            self._complain([Violation("storm", text)])
        self._asked_s[name] = now_s
        node = self._nodes[name]

        def rebirth() -> None:
            if node.online:
                node.births()

        if node.wire.lose > 0:
            node.wire.lose -= 1
            return
        self.loop.call_later(self._noise.uniform(*LATENCY_S), rebirth)

    # -- what the host gathers ----------------------------------------------------------------------

    def _take(self) -> None:
        columns = self._gathered.columns
        rows = []
        for at in range(self._taken, len(columns.tag_id)):
            value = None if columns.is_null[at] else columns.value[at]
            content = Content(bits_of(value), columns.text.get(at), columns.status[at])
            identity = (columns.tag_id[at], columns.source_us[at])
            rows.append(Row(identity, content, columns.received_us[at]))
        self._taken = len(columns.tag_id)
        for row in rows:
            tag_id = row.identity[0]
            self._fresh[tag_id] = True
            if row.identity not in self._got:  # births tell again what they told before
                self._got.add(row.identity)
                self._check_order(row.identity)
        for tag_id in self._gathered.stale:
            self._fresh[tag_id] = False
        self._gathered.stale.clear()
        self._gathered.notices.clear()
        if rows:
            self._complain(checks.check_content(self.facts, rows, "the host"))

    def _check_order(self, identity: Identity) -> None:
        tag_id, at_us = identity
        if self._is_ordered and at_us < self._newest.get(tag_id, 0):
            self._complain([Violation("order", f"{tag_id}@{at_us} came after a newer one")])
        self._newest[tag_id] = max(self._newest.get(tag_id, 0), at_us)

    def _complain(self, violations: list[Violation]) -> None:
        for violation in violations:
            self.trace.note("CHECKER", f"{violation.checker}: {violation.text}")
        self.violations += violations

    # -- the run ------------------------------------------------------------------------------------

    def _open_host(self) -> None:
        self._gathered = Gathered()
        self._taken = 0
        self._asked_s.clear()
        self._fresh.clear()
        self._sessions += 1
        self._host = HostSession(
            "scada", self._gathered, reorder_timeout_s=REORDER_S, rebirth_interval_s=REBIRTH_S
        )
        self._host.will(self._clock.now_us() // 1_000)
        self._host.subscribed()
        self._host.declare(self._wanted, self.loop.time(), GRACE_S)
        self.trace.note("host", "session")
        self._after()

    async def _run_node(self, node: SimNode) -> None:
        await asyncio.sleep(node.noise.uniform(0.0, 0.5))
        node.connect()
        while not self._is_done:
            await asyncio.sleep(self._interval_s[node.name] * node.noise.uniform(0.7, 1.3))
            node.data()

    async def _main(self) -> None:
        self._is_done = False
        self._open_host()
        tasks = [asyncio.create_task(self._run_node(node)) for node in self._nodes.values()]
        tasks += [asyncio.create_task(self._suffer(fault)) for fault in self.plan.faults]
        while self.loop.time() < self.plan.faulty_s:
            await self._tick()
        self._calm()
        settled_s = self.loop.time() + LATE_S[1] + REORDER_S
        end_s = settled_s + SYNC_MAX_S
        while self.loop.time() < settled_s:
            await self._tick()
        while self._out_of_step() and self.loop.time() < end_s:
            await self._tick()
        self._is_done = True
        for _ in range(10):
            await self._tick()
        self._check_end()
        for task in tasks:
            task.cancel()

    async def _tick(self) -> None:
        await asyncio.sleep(TICK_S)
        if self._host is not None:
            self._host.tick(self._clock.now_us(), self.loop.time())
            self._after()

    def _calm(self) -> None:
        self.trace.note("world", "calm")
        self._is_calm = True
        if self._host is None:
            self._open_host()
        for node in self._nodes.values():
            self._release(node)
            node.wire.lose = node.wire.double = node.wire.swap = node.wire.late = 0
            node.birth_of_device()
            if not node.online:
                node.connect()

    def _out_of_step(self) -> str:
        """Why the host does not know the newest of all metrics; "" when it does."""
        host = self._host
        assert host is not None, "calm opens one"
        for node in self._nodes.values():
            seen = host.nodes.get((GROUP, node.name))
            if seen is None or not seen.online or seen.in_doubt or seen.reorder:
                return f"{node.name} is not online and in sequence"
            stale = [m.tag_id for m in node.metrics if not self._fresh.get(m.tag_id)]
            if stale:
                return f"the tags {stale[:3]} have no fresh value"
        return ""

    def _check_end(self) -> None:
        reason = self._out_of_step()
        if reason:
            self._complain([Violation("progress", reason)])
            return
        for node in self._nodes.values():
            behind = [m.identity for m in node.metrics if m.identity not in self._got]
            if behind:
                text = f"the newest sample {behind[0]} never came"
                self._complain([Violation("lost", text)])
        if self._is_harmless():
            lost = {*self.facts.made} - self._got - self._first_values()
            if lost:
                text = f"{len(lost)} samples never came, such as {min(lost)}"
                self._complain([Violation("lost", text)])

    def _is_harmless(self) -> bool:
        return {fault.kind for fault in self.plan.faults} <= HARMLESS or self._only_swaps()

    def _only_swaps(self) -> bool:
        return all(fault.kind == "swap" and fault.at_s > BORN_S for fault in self.plan.faults)

    def _first_values(self) -> set[Identity]:
        """What each metric was before its first birth: overtaken before it could be told."""
        first: dict[int, Identity] = {}
        for identity in self.facts.made:
            first.setdefault(identity[0], identity)
        return set(first.values())

    # -- faults -------------------------------------------------------------------------------------

    async def _suffer(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_s)
        if self._is_calm:
            return
        self.trace.note("fault", f"{fault.kind} {fault.target} {fault.for_s:g} {fault.amount:g}")
        node, count = self._nodes[fault.target], int(fault.amount)
        if fault.kind in ("lose", "double", "swap", "late"):
            setattr(node.wire, fault.kind, getattr(node.wire, fault.kind) + count)
        elif fault.kind == "host_cut":
            self._host = None
            await asyncio.sleep(fault.for_s)
            if self._host is None:
                self._open_host()
        elif fault.kind in ("node_cut", "kill", "will_late"):
            await self._cut(node, fault)
        elif fault.kind == "rebirth":
            if node.online:
                node.births()
        elif fault.kind == "realias":
            node.realias()
        elif fault.kind == "device_death":
            node.death_of_device()
            await asyncio.sleep(fault.for_s)
            node.birth_of_device()
        elif fault.kind == "clock":
            node.clock.step_us(round(fault.amount * US_PER_S))
        else:
            self._garbage(node)

    async def _cut(self, node: SimNode, fault: Fault) -> None:
        """The node's session ends; the broker publishes its will, sometimes after the next births."""
        if not node.online:
            return
        will = node.will()
        node.online = False
        delay_s = fault.for_s + 0.5 if fault.kind == "will_late" else 0.05
        self.loop.call_later(delay_s, lambda: self._carry(node.wire, *will))
        await asyncio.sleep(fault.for_s)
        if node.online:
            return
        if fault.kind == "kill":
            node.wire.held = None
            node.noise.shuffle(node.metrics)
            for alias, metric in enumerate(node.metrics):
                metric.alias = alias
            node.realiased = True
        node.connect()

    def _garbage(self, node: SimNode) -> None:
        kind = node.noise.choice(("NDATA", "NBIRTH", "NDEATH"))
        body = bytes(node.noise.randrange(256) for _ in range(node.noise.randrange(1, 40)))
        self._carry(node.wire, topic(kind, GROUP, node.name), body)
