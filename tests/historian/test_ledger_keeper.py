"""The ledger over the real bus: it closes, it tells what was tampered with, and what a kill leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import polars as pl
from historian_samples import SUBJECTS, wave

from headrace.bus.client import Bus
from headrace.bus.log import LogReader, log_info
from headrace.bus.subjects import LEDGER_BUCKET, LEDGER_STREAM, SAMPLES_STREAM
from headrace.edge.books import Books
from headrace.edge.ledger import LedgerTeller
from headrace.edge.publisher import Lane
from headrace.historian.commit import Committer
from headrace.historian.ledger_keeper import LedgerKeeper
from headrace.historian.ledger_store import LedgerStore, open_ledger
from headrace.historian.table import open_table
from headrace.historian.writer import Writer, WriterSettings
from headrace.model.folder import DataFolder
from headrace.model.ledger import MINUTE_US, WriterPage
from headrace.model.ledger_view import total
from headrace.model.time import ManualClock
from waiting import until

AT_ONCE = WriterSettings(commit_interval_s=0.0)


class Edge:
    """An edge's books and the lane of its one connection, without a device."""

    def __init__(self, bus: Bus, clock: ManualClock) -> None:
        self.books = Books("local", clock)
        self.teller = LedgerTeller(bus, SUBJECTS, self.books)
        self.lane = Lane(
            bus,
            SUBJECTS.batch("local", "plc_1"),
            edge="local",
            connection="plc_1",
            epoch=self.books.epoch,
            on_trouble=lambda _: None,
        )
        self.running = asyncio.create_task(self.lane.run())
        self.first = 0

    async def read(self, samples: int = 4) -> None:
        """Read and publish a frame."""
        cell = self.books.account("plc_1").cell("1000ms")
        cell.take(samples, 0)
        self.lane.offer(wave(1, samples, first=self.first), cell=cell)
        self.first += samples
        await until(lambda: self.lane.buffered == 0)

    async def kill(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)


@dataclass
class Historian:
    """A writer and a keeper under a clock of ours, and what they reported."""

    bus: Bus
    store: LedgerStore
    clock: ManualClock
    writer: Writer
    reported: list[str] = field(default_factory=list)

    def codes(self) -> list[str]:
        return [text[:9] for text in self.reported]

    def sums(self) -> dict[str, int]:
        return total(self.store.accounts())

    async def caught_up(self) -> None:
        log = await log_info(self.bus, SAMPLES_STREAM)
        state = self.writer.state
        await until(lambda: not log.messages or state.committed_sequence >= log.last_sequence)
        pages = await log_info(self.bus, LEDGER_STREAM)
        self.clock.advance_us(10_000_000)  # so that the keeper's next turn is due
        await until(lambda: self.store.followed(pages.created_us) >= pages.last_sequence)

    async def settled(self) -> None:
        """Let time go on until the keeper has nothing left to look at."""

        def look() -> bool:
            self.clock.advance_us(6_000_000)
            return self.store.unsettled().height == 0

        await until(look)

    async def after_the_grace(self) -> None:
        await self.caught_up()
        self.clock.advance_us(5 * MINUTE_US)


@asynccontextmanager
async def keeping(folder: DataFolder, bus: Bus, clock: ManualClock) -> AsyncIterator[Historian]:
    folder.root.mkdir(parents=True, exist_ok=True)
    table = open_table(folder.table, clock)
    store = open_ledger(folder.ledger_file, clock)
    reported: list[str] = []

    def report(severity: str, code: str, text: str, remedy: str) -> None:
        reported.append(f"{code} {text}")

    committer = Committer(table, folder.root / "quarantine", clock, store)
    writer = Writer(bus, table, committer, clock, report=report, settings=AT_ONCE)
    keeper = LedgerKeeper(bus, SUBJECTS, store, clock, report=report)
    stop, done = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(writer.run(stop)), asyncio.create_task(keeper.run(done))]
    try:
        yield Historian(bus, store, clock, writer, reported)
    finally:
        stop.set()
        await asyncio.wait_for(tasks[0], 10)
        done.set()
        await asyncio.wait_for(tasks[1], 10)
        store.close()


async def test_the_books_of_a_quiet_day_close_and_nothing_is_told(
    folder: DataFolder, bus: Bus
) -> None:
    clock = ManualClock()
    edge = Edge(bus, clock)
    assert await edge.teller.begin() == {}
    async with keeping(folder, bus, clock) as historian:
        for _ in range(3):
            await edge.read()
            clock.advance_us(MINUTE_US)
            await edge.teller.tell([])
        await historian.after_the_grace()
        await edge.kill()
        await edge.teller.end()
        await historian.after_the_grace()
        await historian.settled()
    sums = total(open_ledger(folder.ledger_file, clock).accounts())
    assert (sums["expected"], sums["stored"], sums["unexplained"]) == (12, 12, 0)
    assert historian.codes() == []


async def test_a_message_taken_from_the_log_is_lost_by_name_and_told(
    folder: DataFolder, bus: Bus
) -> None:
    clock = ManualClock()
    edge = Edge(bus, clock)
    await edge.teller.begin()
    for _ in range(3):
        await edge.read()
    await bus.stream.delete_msg(SAMPLES_STREAM, 2)
    clock.advance_us(MINUTE_US)
    await edge.teller.tell([])
    async with keeping(folder, bus, clock) as historian:
        await historian.after_the_grace()
        await until(lambda: "HIST-1707" in historian.codes())
        sums = historian.sums()
        assert (sums["lost"], sums["stored"], sums["unexplained"]) == (4, 8, 0)
    assert historian.codes() == ["HIST-1022", "HIST-1707"]
    await edge.kill()


async def test_the_end_of_a_log_that_is_purged_is_an_alarm_told_once(
    folder: DataFolder, bus: Bus
) -> None:
    clock = ManualClock()
    open_ledger(folder.ledger_file, clock).close()
    clock.advance_us(MINUTE_US)
    edge = Edge(bus, clock)
    await edge.teller.begin()
    await edge.read()
    await edge.read(3)
    await bus.stream.purge_stream(SAMPLES_STREAM)
    clock.advance_us(MINUTE_US)
    await edge.teller.tell([])
    async with keeping(folder, bus, clock) as historian:
        await historian.after_the_grace()
        await until(lambda: "HIST-1701" in historian.codes())
        text = next(text for text in historian.reported if "HIST-1701" in text)
        assert "plc_1 (edge local), group 1000ms" in text and "7 samples are unexplained" in text
        assert "published 7" in text and "stored 0" in text
        assert historian.sums()["unexplained"] == 7
    async with keeping(folder, bus, clock) as again:
        await again.after_the_grace()
        await again.settled()
        assert "HIST-1701" not in again.codes()
        await edge.read(1)  # the next frame closes the minute: the log itself says what it lost
        await edge.teller.tell([])
        await again.after_the_grace()
        await again.settled()
        assert again.sums()["unexplained"] == 0
        assert again.sums()["lost"] == 7
    await edge.kill()


async def test_a_count_that_is_wrong_is_an_alarm_until_it_is_put_right(
    folder: DataFolder, bus: Bus
) -> None:
    clock = ManualClock()
    edge = Edge(bus, clock)
    await edge.teller.begin()
    await edge.read()
    cell = edge.books.account("plc_1").cell("1000ms")
    cell.counts.published += 2
    cell.counts.read += 2
    cell.counts.expected += 2
    clock.advance_us(MINUTE_US)
    edge.books.turn()
    page = edge.books.page([cell])
    await bus.publish_page(SUBJECTS.edge_ledger("local"), page)
    async with keeping(folder, bus, clock) as historian:
        await historian.after_the_grace()
        await until(lambda: "HIST-1701" in historian.codes())
        assert historian.sums()["unexplained"] == 2
        cell.counts.published -= 2
        cell.counts.read -= 2
        cell.counts.expected -= 2
        await edge.teller.tell([])
        await historian.after_the_grace()
        await until(lambda: "HIST-1702" in historian.codes())
        assert historian.sums()["unexplained"] == 0
    assert historian.codes() == ["HIST-1701", "HIST-1702"]
    await edge.kill()


async def test_a_killed_edge_leaves_named_causes_once_it_is_back(
    folder: DataFolder, bus: Bus
) -> None:
    clock = ManualClock()
    edge = Edge(bus, clock)
    await edge.teller.begin()
    await edge.read()
    waiting = edge.books.account("plc_1").cell("1000ms")
    waiting.take(5, 0)
    waiting.buffer(5)  # read, and never in the log
    await edge.teller.tell([])
    await edge.read(3)  # in the log, and never told
    await edge.kill()
    clock.advance_us(MINUTE_US)
    async with keeping(folder, bus, clock) as historian:
        await historian.after_the_grace()
        await historian.settled()
        assert historian.codes() == [], "an edge that is silent has not lost what it last did"
        after = Edge(bus, clock)
        down = await after.teller.begin()
        assert down == {}, "nothing was polled"
        after.first = 100
        await after.read(2)
        await after.teller.end()
        await historian.after_the_grace()
        await until(lambda: historian.sums()["dropped_edge_killed"] > 0)
        sums = historian.sums()
    assert (sums["stored"], sums["dropped_edge_killed"], sums["unexplained"]) == (9, 2, 0)
    assert sums["expected"] == 9 + 2, "four told, five waiting of which three are the untold ones"
    assert historian.codes() == []
    await after.kill()


async def test_both_sides_travel_on_the_bus(folder: DataFolder, bus: Bus) -> None:
    clock = ManualClock()
    edge = Edge(bus, clock)
    await edge.teller.begin()
    assert await bus.get(LEDGER_BUCKET, "local") is not None
    async with keeping(folder, bus, clock) as historian:
        await edge.read()
        await historian.caught_up()
    reader = LogReader(bus, 0, LEDGER_STREAM)
    messages = await reader.next(5)
    await reader.close()
    pages = [
        msgspec.json.decode(message.body, type=WriterPage)
        for message in messages
        if message.subject == SUBJECTS.historian_ledger()
    ]
    assert [(key.connection, counts.stored) for key, counts in pages[-1].cells] == [("plc_1", 4)]
    await edge.kill()


async def test_a_frame_that_names_no_cells_is_foreign(folder: DataFolder, bus: Bus) -> None:
    clock = ManualClock()
    edge = Edge(bus, clock)
    edge.lane.offer(wave(1, 6))
    await until(lambda: edge.lane.buffered == 0)
    async with keeping(folder, bus, clock) as historian:
        await historian.caught_up()
        await until(lambda: historian.sums()["stored"] == 6)
        rows = historian.store.accounts()
        assert rows.select("connection", "group", "foreign", "unexplained").rows() == [
            ("plc_1", "foreign", 6, 0)
        ]
        assert isinstance(rows, pl.DataFrame)
    await edge.kill()
