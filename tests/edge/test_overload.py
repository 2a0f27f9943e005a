"""Offered five times what it can take, an edge takes what it can, sheds by its rule, and says so.

Time is virtual: a wait ends at once and moves the clock, and work that keeps the event loop busy moves it
too. So five minutes of overload take no time, and every run is the same.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scripted import Device, ScriptedType

from headrace.bus import envelope
from headrace.edge import publisher
from headrace.edge.books import Books
from headrace.edge.contract import ConnectorContext, Reading, ScanGroup
from headrace.edge.host import ConnectionHost
from headrace.edge.load import CALM_S, OVER_S, TICK_S, Load
from headrace.edge.publisher import Lane
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.health import Event
from headrace.model.sample import make_batch
from headrace.model.tasks import end_tasks

SECONDS = 60


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only by waiting, and then at once."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())
        self.now_s = 0.0
        select = self._selector.select  # type: ignore[attr-defined] # of every selector loop

        def jump(timeout: float | None) -> Any:
            assert timeout is not None, "nothing will ever happen again"
            self.now_s += timeout
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined] # as above

    def time(self) -> float:
        return self.now_s


class VirtualClock:
    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop

    def now_us(self) -> int:
        return 1_700_000_000_000_000 + round(self._loop.now_s * 1e6)

    def monotonic_s(self) -> float:
        return self._loop.now_s


def run(work: Coroutine[Any, Any, None], loop: VirtualLoop) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work)


class SlowLog:
    """A log that needs some time for each frame."""

    def __init__(self, frame_s: float) -> None:
        self._frame_s = frame_s
        self.rows = 0

    async def publish_frame(self, subject: str, body: bytes, headers: dict[str, str]) -> int:
        await asyncio.sleep(self._frame_s)
        self.rows += int(headers[envelope.HEADER_ROWS])
        return self.rows


class Polled(ScriptedType):
    """A device that always answers; the answer keeps the event loop busy for ``busy_s``."""

    def __init__(self, loop: VirtualLoop, busy_s: float) -> None:
        super().__init__(Device(), "poll")
        self._loop = loop
        self._busy_s = busy_s
        self.polls = 0

    def open(self, connection: ConnectionConfig, context: ConnectorContext) -> Any:
        connector = super().open(connection, context)
        connector.read = self._read
        return connector

    async def _read(self, group: ScanGroup) -> Reading:
        self.polls += 1
        self._loop.now_s += self._busy_s
        await asyncio.sleep(0)
        at_us = VirtualClock(self._loop).now_us()
        ids = np.array([tag.tag_id for tag in group.tags], np.int64)
        times = np.full(len(ids), at_us, np.int64)
        return Reading(
            make_batch(ids, times, np.ones(len(ids)), received_timestamp_us=at_us), len(ids)
        )


class Rig:
    """Hosts with their lanes on one virtual loop."""

    def __init__(self, loop: VirtualLoop, log: SlowLog, tags: int, interval_ms: int) -> None:
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.log = log
        self.load = Load(self.clock)
        self.books = Books("e", self.clock)
        self.events: list[Event] = []
        self.kinds: list[Polled] = []
        self.hosts: list[ConnectionHost] = []
        self.lanes: list[Lane] = []
        self._tags, self._interval_ms = tags, interval_ms

    def add(self, busy_s: float = 0.0) -> None:
        name = f"plc_{len(self.hosts)}"
        config = ConnectionConfig(
            name=name,
            protocol="scripted",
            endpoint="x",
            tags=tuple(
                TagConfig(
                    tag_id=i + 1,
                    path=f"a/t{i}",
                    address=f"t{i}",
                    scan_interval_ms=self._interval_ms,
                )
                for i in range(self._tags)
            ),
        )
        lane = Lane(
            self.log, name, edge="e", connection=name, epoch=1, on_trouble=lambda error: None
        )

        async def context(resume_us: int) -> ConnectorContext:
            return ConnectorContext(clock=self.clock, certificates=Path(), secret=str)

        kind = Polled(self.loop, busy_s)
        self.kinds.append(kind)
        self.lanes.append(lane)
        self.hosts.append(
            ConnectionHost(
                config,
                kind,
                context=context,
                lane=lane,
                clock=self.clock,
                report=self.events.append,
                edge="e",
                account=self.books.account(name),
                load=self.load,
            )
        )

    async def go(self, seconds: float) -> int:
        """Run for some virtual seconds; gives the most samples that ever waited in a lane."""
        tasks = [asyncio.create_task(each.run()) for each in (*self.lanes, *self.hosts)]
        tasks.append(asyncio.create_task(self.load.watch()))
        most, end_s = 0, self.loop.now_s + seconds
        while self.loop.now_s < end_s:
            await asyncio.sleep(0.01)
            most = max(most, *(lane.buffered for lane in self.lanes))
        await end_tasks(*tasks)
        return most

    def check_books(self) -> None:
        for host in self.hosts:
            state = host.state()
            assert state.expected == state.read + state.missed
            assert state.read == state.published + state.buffered
        told = [cell.counts for cell in self.books.page().cells]
        assert sum(counts.missed_overload for counts in told) == sum(
            host.state().missed for host in self.hosts
        ), "what was shed has one name"

    def codes(self) -> list[str]:
        return [event.code for event in self.events if event.code != "EDGE-1010"]


def test_a_log_five_times_too_slow_is_kept_busy_and_the_rest_is_shed_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(envelope, "FRAME_ROWS_MAX", 500)
    monkeypatch.setattr(publisher, "LANE_ROWS_MAX", 5_000)
    loop = VirtualLoop()
    log = SlowLog(0.05)  # takes 10,000 samples a second
    rig = Rig(loop, log, tags=500, interval_ms=10)  # 50,000 a second are due
    rig.add()

    async def work() -> None:
        most = await rig.go(SECONDS)
        assert most <= 5_000 + 500 + 500, "the bound, the reading that reached it, the frame"

    run(work(), loop)
    state = rig.hosts[0].state()
    assert log.rows >= 0.9 * 10_000 * SECONDS
    assert state.expected >= 0.99 * 50_000 * SECONDS
    assert rig.codes() == ["EDGE-1602"], "told once"
    assert state.last_error_code == "EDGE-1602"
    assert state.state == "degraded"
    rig.check_books()


def test_an_edge_with_five_times_its_work_polls_as_much_as_it_can_and_fairly() -> None:
    loop = VirtualLoop()
    rig = Rig(loop, SlowLog(0.001), tags=10, interval_ms=40)
    for _ in range(5):
        rig.add(busy_s=0.04)  # one alone would fill the time

    async def work() -> None:
        await rig.go(SECONDS)

    run(work(), loop)
    polls = [kind.polls for kind in rig.kinds]
    assert sum(polls) >= 0.9 * SECONDS / 0.04
    assert min(polls) >= 0.5 * max(polls), f"all connections get their turn: {polls}"
    assert rig.load.is_over
    assert set(rig.codes()) == {"EDGE-1601"}, "no device is blamed"
    assert len(rig.codes()) == 5
    for host in rig.hosts:
        state = host.state()
        assert state.expected >= 0.95 * SECONDS / 0.04 * 10
        assert state.expected == state.read + state.missed


def test_a_slow_device_on_a_calm_edge_is_still_the_device() -> None:
    loop = VirtualLoop()
    rig = Rig(loop, SlowLog(0.001), tags=10, interval_ms=10)
    rig.add()
    kind = rig.kinds[0]
    read = kind._read

    async def slow(group: ScanGroup) -> Reading:
        await asyncio.sleep(0.05)
        return await read(group)

    kind._read = slow  # type: ignore[method-assign] # the device takes its time

    async def work() -> None:
        await rig.go(5)

    run(work(), loop)
    assert rig.codes() == ["EDGE-1018"]
    assert not rig.load.is_over


@given(some.lists(some.floats(0, 1), max_size=50))
def test_overload_begins_above_one_mark_and_ends_below_another(late: list[float]) -> None:
    load = Load(VirtualClock(VirtualLoop()))
    for each in late:
        before = load.is_over
        load.note(each)
        if load.late_s > OVER_S:
            assert load.is_over
        elif load.late_s <= CALM_S:
            assert not load.is_over
        else:
            assert load.is_over == before
    assert TICK_S > OVER_S > CALM_S
