"""The books close after an edge's own full log dropped what the hub did not have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from apart import SUBJECTS, Apart, frame
from headrace.bus.log import log_info
from headrace.edge.books import Books
from headrace.edge.ledger import LedgerTeller
from headrace.edge.publisher import Lane
from headrace.historian.commit import Committer
from headrace.historian.ledger_keeper import LedgerKeeper
from headrace.historian.ledger_store import LedgerStore, open_ledger
from headrace.historian.table import open_table
from headrace.historian.writer import Writer, WriterSettings
from headrace.model.ledger import MINUTE_US
from headrace.model.ledger_view import shares, total
from headrace.model.time import ManualClock
from waiting import until

ROWS = 4_000


class NorthEdge:
    """Books and the lane of one connection, over the edge's own broker."""

    def __init__(self, pair: Apart, clock: ManualClock) -> None:
        self.clock = clock
        self.pair = pair
        self.books = Books("north", clock)
        self.teller = LedgerTeller(pair.edge.bus, SUBJECTS, self.books)
        self.lane = Lane(
            pair.edge.bus,
            SUBJECTS.batch("north", "plc"),
            edge="north",
            connection="plc",
            epoch=self.books.epoch,
            on_trouble=lambda _: None,
        )
        self.running = asyncio.create_task(self.lane.run())
        self.frames = 0

    async def read(self, frames: int) -> None:
        """So many frames in one minute, of two tag groups in turn."""
        for _ in range(frames):
            self.frames += 1
            cell = self.books.account("plc").cell("1000ms" if self.frames % 3 else "100ms")
            cell.take(ROWS, 0)
            self.lane.offer(frame(self.frames, ROWS), cell=cell)
            await until(lambda: self.lane.buffered == 0)
        self.clock.advance_us(MINUTE_US)
        await self.teller.tell([])

    async def end(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.teller.end()


@asynccontextmanager
async def historian(
    pair: Apart, clock: ManualClock, reported: list[str]
) -> AsyncIterator[tuple[Writer, LedgerStore]]:
    """A writer and a keeper of the ledger at the hub."""
    folder, bus = pair.hub.folder, pair.hub.bus
    table = open_table(folder.table, clock)
    store = open_ledger(folder.ledger_file, clock)

    def report(severity: str, code: str, text: str, remedy: str) -> None:
        reported.append(f"{code} {text}")

    committer = Committer(table, folder.root / "quarantine", clock, store)
    settings = WriterSettings(commit_interval_s=0.0)
    writer = Writer(bus, table, committer, clock, report=report, settings=settings)
    keeper = LedgerKeeper(bus, SUBJECTS, store, clock, report=report)
    stop, done = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(writer.run(stop)), asyncio.create_task(keeper.run(done))]
    try:
        yield writer, store
    finally:
        stop.set()
        await asyncio.wait_for(tasks[0], 20)
        done.set()
        await asyncio.wait_for(tasks[1], 20)
        store.close()


async def test_what_an_edges_full_log_dropped_is_said_and_has_its_cause(tmp_path: Path) -> None:
    clock = ManualClock()
    reported: list[str] = []
    async with Apart(tmp_path, bytes_max=2 << 20, on_full="drop_oldest") as pair:
        open_ledger(pair.hub.folder.ledger_file, clock).close()
        north = NorthEdge(pair, clock)
        await north.teller.begin()
        await north.read(3)
        await pair.arrived(3)
        await pair.wire.cut()
        for _ in range(12):
            await north.read(5)
            await pair.keeper.look()
        await north.end()
        state = pair.keeper.state()
        assert state.dropped_samples == state.dropped_frames * ROWS > 0
        assert state.bytes < 2 << 20
        said = [event.text for event in pair.events if event.code == "EDGE-1903"]
        assert f"{state.dropped_samples} samples in all" in said[-1]
        await pair.stop_edge()
        await pair.start_edge()
        await pair.wire.connect()
        await until(lambda: pair.keeper.state().stored_sequence == north.frames, 60, "all is sent")
        numbers = [int(m.headers["Nats-Msg-Id"].split("/")[-1]) for m in await pair.in_hub()]
        assert numbers == sorted(set(numbers))
        dropped = (north.frames - len(numbers)) * ROWS
        assert pair.keeper.state().dropped_samples == dropped
        async with historian(pair, clock, reported) as (writer, store):
            log = await log_info(pair.hub.bus)
            state_of = writer.state
            await until(lambda: state_of.committed_sequence >= log.last_sequence, 60)

            def settled() -> bool:
                clock.advance_us(MINUTE_US)
                return bool(store.edges()) and store.unsettled().height == 0

            await until(settled, 60, "the ledger has nothing left to look at")
            sums = total(store.accounts())
            assert sums["edge_log_full"] == dropped
            assert sums["stored"] + dropped == sums["expected"] == north.frames * ROWS
            assert sums["lost"] == sums["unexplained"] == sums["in_log"] == 0
            assert shares(sums)["dropped"] == dropped
    assert not [text for text in reported if text.startswith("HIST-17")]
