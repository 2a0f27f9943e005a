"""Any order of births, data, deaths, losses and delays: no value ever reaches a wrong tag.

Each value says which metric it is of (metric * 1,000,000 + count). Births deal the aliases anew. A
message may overtake others except those on its own topic, as MQTT promises (3.1.1, 4.6). Any message
may be lost but an NBIRTH; none may overtake an NBIRTH, and an NBIRTH none but an NDEATH (a will is the
broker's message, and may come late). For when a message meets births that are not its own, and its
sequence number happens to fit them, no host can see it: the protocol gives no such promise.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sparkplug_wire import DEVICE, NODE, NOW_US, Bench, bd_seq, birth_metric, datum, payload

MARK = 1_000_000
METRICS = {1: ("", "a"), 2: ("", "b"), 3: ("d1", "a"), 4: ("d1", "c"), 5: ("d2", "a")}


class SparkplugMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(*((device, name, tag) for tag, (device, name) in METRICS.items()))
        self.wire: list[tuple[str, bytes]] = []
        self.alias = {tag: tag for tag in METRICS}
        self.count = 0
        self.seq = 0
        self.bd_seq = -1
        self.alive = False
        self.devices: set[str] = set()
        self.clock_ms = NOW_US // 1_000
        self.stale: set[int] = set()
        self.asked = 0

    # -- the edge node ------------------------------------------------------------------------

    def send(self, topic: str, *metrics: dict[str, object], seq: bool = True) -> None:
        self.clock_ms += 1
        number = self.seq if seq else None
        self.wire.append((topic, payload(number, *metrics, timestamp_ms=self.clock_ms)))
        if seq:
            self.seq = (self.seq + 1) % 256

    def value(self, tag: int) -> float:
        self.count += 1
        return float(tag * MARK + self.count)

    def births(self, device: str) -> list[dict[str, object]]:
        return [
            birth_metric(name, self.alias[tag], self.value(tag))
            for tag, (owner, name) in METRICS.items()
            if owner == device
        ]

    def bear(self) -> None:
        self.seq = 0
        self.send(NODE.format("NBIRTH"), bd_seq(self.bd_seq), *self.births(""))
        for device in sorted(self.devices):
            self.send(DEVICE.format("DBIRTH", device), *self.births(device))

    @rule(deal=st.permutations(sorted(METRICS)), devices=st.sets(st.sampled_from(["d1", "d2"])))
    def new_session(self, deal: list[int], devices: set[str]) -> None:
        if self.alive:
            self.send(NODE.format("NDEATH"), bd_seq(self.bd_seq), seq=False)
        self.alive, self.devices = True, devices
        self.bd_seq = (self.bd_seq + 1) % 256
        self.alias = dict(zip(sorted(METRICS), deal, strict=True))
        self.bear()

    @precondition(lambda self: self.alive)
    @rule(deal=st.permutations(sorted(METRICS)))
    def rebirth(self, deal: list[int]) -> None:
        self.alias = dict(zip(sorted(METRICS), deal, strict=True))
        self.bear()

    @precondition(lambda self: self.alive)
    @rule(tag=st.sampled_from(sorted(METRICS)))
    def data(self, tag: int) -> None:
        device, _ = METRICS[tag]
        if device and device not in self.devices:
            return
        topic = DEVICE.format("DDATA", device) if device else NODE.format("NDATA")
        self.send(topic, datum(self.alias[tag], self.value(tag)))

    @precondition(lambda self: self.alive)
    @rule(device=st.sampled_from(["d1", "d2"]))
    def device_comes_or_goes(self, device: str) -> None:
        if device in self.devices:
            self.devices.discard(device)
            self.send(DEVICE.format("DDEATH", device))
        else:
            self.devices.add(device)
            self.send(DEVICE.format("DBIRTH", device), *self.births(device))

    @precondition(lambda self: self.alive)
    @rule()
    def death(self) -> None:
        self.alive, self.devices = False, set()
        self.send(NODE.format("NDEATH"), bd_seq(self.bd_seq), seq=False)

    # -- the network --------------------------------------------------------------------------

    @precondition(lambda self: self.wire)
    @rule(pick=st.integers(0, 5))
    def deliver(self, pick: int) -> None:
        index = min(pick, self.last_free())
        topic = self.wire[index][0]
        first = next(i for i, (each, _) in enumerate(self.wire) if each == topic)
        self.take(*self.wire.pop(first))

    def last_free(self) -> int:
        """The last place on the wire that may be delivered next."""
        kinds = [topic.split("/")[2] for topic, _ in self.wire]
        if "NBIRTH" not in kinds:
            return len(kinds) - 1
        birth = kinds.index("NBIRTH")
        return birth if set(kinds[:birth]) <= {"NDEATH"} else birth - 1

    @precondition(lambda self: self.wire)
    @rule()
    def deliver_all(self) -> None:
        while self.wire:
            self.take(*self.wire.pop(0))

    @precondition(lambda self: self.wire)
    @rule(pick=st.integers(0, 5))
    def lose(self, pick: int) -> None:
        index = min(pick, len(self.wire) - 1)
        if "/NBIRTH/" not in self.wire[index][0]:
            self.wire.pop(index)

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.5, 11.0]))
    def pass_time(self, seconds: float) -> None:
        self.bench.wait(seconds)

    def take(self, topic: str, body: bytes) -> None:
        node = self.bench.session.nodes["hall", "node_1"]
        was_online = node.online
        self.bench.session.receive(topic, body, NOW_US, self.bench.now_s)
        for tag, value in self.bench.samples():
            if value is not None:
                assert value // MARK == tag, f"{topic}: the value of {value // MARK} went to {tag}"
                assert tag not in node.stale or tag in self.bench.out.stale, "fresh, and said stale"
        died = self.bench.stale()
        if was_online and not node.online:
            assert died == set(METRICS), "a death left tags fresh"

    # -- what always holds --------------------------------------------------------------------

    @invariant()
    def buffers_are_bounded(self) -> None:
        node = self.bench.session.nodes["hall", "node_1"]
        assert len(node.reorder) < 256
        assert len(node.orphans) <= 2_000

    def teardown(self) -> None:
        """Once the network is whole again: in order, or births were asked for."""
        self.deliver_all()
        self.bench.wait(3.0)
        self.bench.rebirths()
        if self.alive:
            self.data(1)
            self.deliver_with_check()

    def deliver_with_check(self) -> None:
        node = self.bench.session.nodes["hall", "node_1"]
        topic, body = self.wire.pop()
        self.bench.session.receive(topic, body, NOW_US, self.bench.now_s)
        used = [value for tag, value in self.bench.samples() if tag == 1]
        waiting = bool(node.reorder)
        if not used:
            if waiting:
                self.bench.wait(2.5)
            assert node.rebirth_due or self.bench.rebirths(), "neither in order nor asked"
            self.bench.wait(400.0)
            assert self.bench.rebirths() >= 1, "births were never asked for"


TestSparkplugMachine = SparkplugMachine.TestCase
TestSparkplugMachine.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
