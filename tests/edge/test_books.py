"""Whatever a device, the log and the schedule do: every sample of a connection is in one account."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scripted import Device, ScriptedType

from headrace.bus import envelope
from headrace.edge import publisher
from headrace.edge.books import Books
from headrace.edge.contract import ConnectorContext
from headrace.edge.host import ConnectionHost
from headrace.edge.publisher import Lane
from headrace.model import status as st
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Transient
from headrace.model.health import ConnectionState
from headrace.model.ledger import (
    MINUTE_US,
    CellKey,
    EdgeCounts,
    LedgerPage,
    Taken,
    WriterCounts,
    edge_frame,
    explain,
    tally,
    writer_frame,
)
from headrace.model.time import ManualClock, SystemClock
from waiting import until

TAGS = tuple(
    TagConfig(
        tag_id=i, path=f"a/t{i}", address=f"t{i}", deadband=0.5 * (i == 2), scan_interval_ms=1
    )
    for i in (1, 2, 3)
)
CONFIG = ConnectionConfig(name="plc", protocol="scripted", endpoint="x", tags=TAGS)
READING, STALE, FAILURE, FOREIGN = "reading", "stale", "failure", "foreign"
GAP, STRANGE = "gap", "strange"


class RoughLog:
    """A log that takes a frame only at every n-th try, and looks at the books each time."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.tries = 0
        self.rows = 0
        self.look: Any = None
        self.cells: dict[CellKey, WriterCounts] = {}

    async def publish_frame(self, subject: str, body: bytes, headers: dict[str, str]) -> int:
        self.tries += 1
        self.look()
        await asyncio.sleep(0)
        self.look()
        if self.tries % self.every:
            raise Transient("BUS-1020", "no acknowledgement")
        rows = int(headers["Headrace-Rows"])
        self.rows += rows
        runs = envelope.parse_runs(headers)
        assert sum(run.rows for run in runs) == rows
        for run in runs:
            key = CellKey("e", "plc", run.group, run.minute_us, run.epoch)
            tally(self.cells, [Taken(key, run.before, run.rows, stored=run.rows)])
        return self.tries


def check(state: ConnectionState) -> None:
    assert state.expected == state.read + state.missed
    assert (
        state.read + state.marked
        == state.filtered + state.published + state.buffered + state.dropped
    )


def cells(page: LedgerPage) -> dict[CellKey, EdgeCounts]:
    return {
        CellKey(page.edge, c.connection, c.group, c.minute_us, c.epoch): c.counts
        for c in page.cells
    }


def check_cells(books: Books, state: ConnectionState, log: RoughLog) -> None:
    """The cells are the connection's counts, cut up; and with the log they leave nothing open."""
    page = books.page()
    rows = explain(edge_frame(cells(page)), writer_frame(log.cells))
    assert rows["unexplained"].sum() == 0, rows.to_dicts()
    for name in ("expected", "read", "bad", "marked", "filtered", "published", "buffered"):
        assert rows[name].sum() == getattr(state, name), name
    assert rows["stored"].sum() == state.published
    assert rows["lost"].sum() == rows["redelivered"].sum() == 0


class Stepping(ManualClock):
    """The wall clock goes on, and back, at each look; the monotonic one is real."""

    def __init__(self, steps: list[int]) -> None:
        super().__init__()
        self.steps = steps
        self.real = SystemClock()

    def now_us(self) -> int:
        if self.steps:
            self.step_us(self.steps.pop() * MINUTE_US // 4)
        return super().now_us()

    def monotonic_s(self) -> float:
        return self.real.monotonic_s()


step = some.tuples(
    some.sampled_from([READING, READING, READING, STALE, FAILURE, FOREIGN, GAP, STRANGE]),
    some.lists(some.integers(1, 3), unique=True, max_size=3),
    some.sampled_from([0.0, 0.4, 2.0]),
    some.sampled_from([st.GOOD, st.BAD]),
)


def play(device: Device, steps: list[tuple[str, list[int], float, int]]) -> None:
    for at, (what, ids, value, status) in enumerate(steps):
        if what == FAILURE:
            device.fail(Transient("EDGE-9001", "the cable is out", retry_after_s=0.001))
        elif what == FOREIGN:
            device.give([1, 99], at, value, status)
        else:
            extra = {
                STALE: {"stale": tuple(ids)},
                GAP: {"missed": {"gap": 2, "device": 1}},
                STRANGE: {"missed": {"because": 2}},
            }.get(what, {})
            device.give(ids, at, value, status, **extra)


async def run(
    mode: str, steps: list[tuple[str, list[int], float, int]], every: int, clock_steps: list[int]
) -> None:
    device, log, clock = Device(), RoughLog(every), Stepping(clock_steps)
    books = Books("e", clock)
    lane = Lane(log, "s", edge="e", connection="plc", epoch=1, on_trouble=lambda _: None)

    async def context(resume_us: int) -> Any:
        return ConnectorContext(clock, None, str, resume_us=resume_us)  # type: ignore[arg-type]

    host = ConnectionHost(
        CONFIG,
        ScriptedType(device, mode),  # type: ignore[arg-type] # a test's double
        context=context,
        lane=lane,
        clock=clock,
        report=lambda _: check(host.state()),
        edge="e",
        account=books.account("plc"),
    )
    log.look = lambda: check(host.state())
    play(device, steps)
    tasks = [asyncio.create_task(host.run()), asyncio.create_task(lane.run())]
    await until(device.script.empty)
    left = await lane.drain(2)
    assert not tasks[1].done(), tasks[1].exception()
    assert not left
    check(host.state())
    assert log.rows == host.state().published
    check_cells(books, host.state(), log)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    check(host.state())


@settings(max_examples=25, deadline=None)
@given(
    some.sampled_from(["poll", "subscribe"]),
    some.lists(step, max_size=12),
    some.integers(1, 3),
    some.lists(some.integers(-2, 6), max_size=60),
)
def test_the_books_of_a_connection_close_at_all_times(
    mode: str,
    steps: list[tuple[str, list[int], float, int]],
    every: int,
    clock_steps: list[int],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publisher, "FRAME_WAIT_S", 0.001)
        patch.setattr(publisher, "RETRY_FIRST_S", 0.001)
        patch.setattr("headrace.edge.host.BACK_OFF_FIRST_S", 0.001)
        patch.setattr("headrace.edge.host.REFUSED_WAIT_S", 0.001)
        asyncio.run(run(mode, steps, every, clock_steps))


async def test_polls_that_a_lost_device_did_not_get_are_missed() -> None:
    """Three tags at 1 ms: an outage of a tenth of a second misses about 300 samples, not none."""
    device = Device()
    clock = SystemClock()
    lane = Lane(RoughLog(1), "s", edge="e", connection="plc", epoch=1, on_trouble=lambda _: None)

    async def context(resume_us: int) -> Any:
        return ConnectorContext(clock, None, str, resume_us=resume_us)  # type: ignore[arg-type]

    host = ConnectionHost(
        CONFIG,
        ScriptedType(device, "poll"),  # type: ignore[arg-type] # a test's double
        context=context,
        lane=lane,
        clock=clock,
        report=lambda _: None,
        edge="e",
    )
    device.fail(Transient("EDGE-9001", "the cable is out", retry_after_s=0.1))
    device.give([1, 2, 3], 1, 1.0)
    task = asyncio.create_task(host.run())
    await until(lambda: host.state().read == 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert host.state().missed >= 3 * (1 + 99)
