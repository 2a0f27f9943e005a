"""The writer and its log: what is purged and when, and a log that was cut, restored or made anew."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from historian_samples import START_US, SUBJECTS, publish, same, wave

from headrace.bus.broker import BrokerAddress, prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.log import log_info
from headrace.bus.recent import recent_events
from headrace.bus.subjects import SAMPLES_STREAM
from headrace.historian import role
from headrace.historian.commit import Committer
from headrace.historian.index import TableIndex
from headrace.historian.reader import Reader
from headrace.historian.table import open_table
from headrace.historian.writer import Writer, WriterSettings
from headrace.model.desired import HistorianConfig
from headrace.model.folder import DataFolder
from headrace.model.time import US_PER_S, ManualClock
from waiting import until


@dataclass
class Running:
    """A writer under a clock of ours, and what it reported."""

    writer: Writer
    clock: ManualClock
    config: HistorianConfig = field(default_factory=HistorianConfig)
    reported: list[str] = field(default_factory=list)

    async def look(self, seconds: float = 1.0) -> None:
        """Let time go on until the writer has looked at its log after that."""
        before_us = self.clock.now_us()
        self.clock.advance_us(int(seconds * US_PER_S))
        await until(lambda: self.writer.state.at_us > before_us)


@asynccontextmanager
async def writing(folder: DataFolder, bus: Bus, settings: WriterSettings) -> AsyncIterator[Running]:
    clock = ManualClock()
    folder.root.mkdir(parents=True, exist_ok=True)
    table = open_table(folder.table, clock)
    running = Running(writer=None, clock=clock)  # type: ignore[arg-type] # set at once
    running.writer = Writer(
        bus,
        table,
        Committer(table, folder.root / "quarantine", clock),
        clock,
        report=lambda severity, code, text, remedy: running.reported.append(f"{code} {text}"),
        config=lambda: running.config,
        settings=settings,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(running.writer.run(stop))
    try:
        yield running
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


AT_ONCE = WriterSettings(commit_interval_s=0.0, log_keep_s=100.0)


async def test_the_log_forgets_only_what_is_stored_and_old_enough(
    folder: DataFolder, bus: Bus
) -> None:
    async with writing(folder, bus, AT_ONCE) as running:
        for n in range(5):
            last = await publish(bus, wave(1, 10, first=10 * n), epoch=1, sequence=n + 1)
        await until(lambda: running.writer.state.committed_sequence == last)
        await running.look(90)
        assert (await log_info(bus)).messages == 5, "younger than log_keep_s"
        await running.look(20)
        await until_messages(bus, 0)
        running.config = HistorianConfig(stop_free_bytes_min=1 << 60)
        for n in range(5, 8):
            await publish(bus, wave(1, 10, first=10 * n), epoch=1, sequence=n + 1)
        await until(lambda: running.writer.state.state == "disk_full")
        for _ in range(4):
            await running.look(100)
        assert (await log_info(bus)).messages == 3, "nothing of it is in the table"
        running.config = HistorianConfig(stop_free_bytes_min=0)
        await running.look(2)
        await until(lambda: running.writer.state.committed_sequence == last + 3)
    same(Reader(folder.table).read([1], 0, START_US * 2), wave(1, 80))


async def test_a_log_that_fills_up_forgets_what_is_stored_early(
    folder: DataFolder, bus: Bus
) -> None:
    info = await bus.stream.stream_info(SAMPLES_STREAM)
    info.config.max_bytes = 20_000
    await bus.stream.update_stream(info.config)
    async with writing(folder, bus, AT_ONCE) as running:
        for n in range(5):
            last = await publish(bus, wave(10, 20, first=20 * n), epoch=1, sequence=n + 1)
        await until(lambda: running.writer.state.committed_sequence == last)
        assert (await log_info(bus)).bytes > 10_000
        await running.look(2)
        await until_messages(bus, 0)
        assert [text[:9] for text in running.reported] == ["HIST-1024"]


async def test_a_range_that_the_log_lost_is_told_to_the_message(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    async with historian(folder, broker):
        for n in range(3):
            await publish(bus, wave(1, 10, first=10 * n), epoch=1, sequence=n + 1)
        await until(lambda: TableIndex(folder.table).refresh().rows == 30)
    for n in range(3, 10):
        await publish(bus, wave(1, 10, first=10 * n), epoch=1, sequence=n + 1)
    await bus.stream.purge_stream(SAMPLES_STREAM, seq=8)
    async with historian(folder, broker):
        await until(lambda: TableIndex(folder.table).refresh().rows == 60)
        await until_event(bus, "HIST-1022", "the messages 4 to 7,")


async def test_a_log_made_anew_is_followed_from_its_start(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    async with historian(folder, broker):
        for n in range(3):
            await publish(bus, wave(1, 10, first=10 * n), epoch=1, sequence=n + 1)
        await until(lambda: TableIndex(folder.table).refresh().rows == 30)
        await bus.stream.delete_stream(SAMPLES_STREAM)
        await ensure_streams(bus)
        for n in range(2, 5):  # the third once more: an edge repeats what it thinks is lost
            await publish(bus, wave(1, 10, first=10 * n), epoch=2, sequence=n + 1)
        await until(lambda: TableIndex(folder.table).refresh().rows == 50)
    same(Reader(folder.table).read([1], 0, START_US * 2), wave(1, 50))


async def test_an_unreadable_message_is_told_by_event(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    async with historian(folder, broker):
        await bus.publish_frame(SUBJECTS.batch("local", "plc_2"), b"no arrow", {})
        await until_event(bus, "HIST-1021", SUBJECTS.batch("local", "plc_2"))


@contextmanager
def running_broker(folder: DataFolder, address: BrokerAddress) -> Iterator[None]:
    process = start_broker(folder, address)
    try:
        yield
    finally:
        process.kill()
        stop_broker(process)


@pytest.mark.kill
@pytest.mark.parametrize("new", [2, 9])
@pytest.mark.parametrize("restored", [False, True], ids=["killed", "restored to an older state"])
async def test_a_broker_that_dies_under_the_writer(
    folder: DataFolder, tmp_path: Path, restored: bool, new: int
) -> None:
    """The copy of its store, taken between two batches, is what a restored backup holds. What comes after
    the restore may reach beyond the numbers that were stored before the writer is back."""
    address = prepare_address(folder)
    store, backup = folder.broker / "jetstream", tmp_path / "backup"
    with running_broker(folder, address):
        async with open_bus(address, "test") as bus:
            await ensure_streams(bus)
            for n in range(3):
                await publish(bus, wave(1, 10, first=10 * n), epoch=1, sequence=n + 1)
    shutil.copytree(store, backup)
    stop = asyncio.Event()
    settings = WriterSettings(commit_interval_s=0.05)
    task = asyncio.create_task(role.run(folder, address, SUBJECTS, stop, settings=settings))
    try:
        with running_broker(folder, address):
            async with open_bus(address, "test") as bus:
                for n in range(3, 6):
                    await publish(bus, wave(1, 10, first=10 * n), epoch=1, sequence=n + 1)
                await until(lambda: TableIndex(folder.table).refresh().rows == 60)
        if restored:
            shutil.rmtree(store)
            shutil.copytree(backup, store)
        with running_broker(folder, address):
            async with open_bus(address, "test") as bus:
                for n in range(6, 6 + new):
                    await publish(bus, wave(1, 10, first=10 * n), epoch=2, sequence=n + 1)
                await until(lambda: TableIndex(folder.table).refresh().rows == 60 + 10 * new)
                if restored:
                    await until_event(bus, "HIST-1020", "restored to an older state")
            stop.set()
            await asyncio.wait_for(task, 20)
    finally:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
    same(Reader(folder.table).read([1], 0, START_US * 2), wave(1, 60 + 10 * new))


@asynccontextmanager
async def historian(folder: DataFolder, address: BrokerAddress) -> AsyncIterator[None]:
    stop = asyncio.Event()
    settings = WriterSettings(commit_interval_s=0.05)
    task = asyncio.create_task(role.run(folder, address, SUBJECTS, stop, settings=settings))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


async def until_messages(bus: Bus, messages: int) -> None:
    async with asyncio.timeout(20):
        while (await log_info(bus)).messages != messages:
            continue


async def until_event(bus: Bus, code: str, text: str) -> None:
    async with asyncio.timeout(20):
        while not any(e.code == code and text in e.text for e in await recent_events(bus)):
            continue
