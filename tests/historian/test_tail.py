"""The tail alone: bounded memory, spilling, a stream that is made again, a broker that restarts."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from historian_samples import START_US, publish, same, wave
from store import Store

from headrace.bus.broker import BrokerAddress, prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.log import log_info, stored_at_us
from headrace.bus.subjects import SAMPLES_STREAM
from headrace.historian import tail as tail_module
from headrace.historian.commit import Chunk
from headrace.historian.index import TableIndex
from headrace.historian.layout import app_id
from headrace.historian.reader import Reader
from headrace.historian.tail import Tail
from headrace.model.folder import DataFolder
from waiting import until


async def test_what_does_not_fit_in_memory_goes_to_disk_and_is_still_read(
    folder: DataFolder, bus: Bus
) -> None:
    index = TableIndex(folder.table)
    tail = Tail(bus, index, rows_max=2_000)
    await tail.start()
    batches = [wave(10, 50, first=50 * n) for n in range(30)]
    for n, batch in enumerate(batches):
        await publish(bus, batch, epoch=1, sequence=n + 1)
    await tail.catch_up()
    segments = tail.segments(index.refresh()) or []
    assert sum(s.rows for s in segments if s.batch is not None) <= 2_500
    assert any(s.path is not None for s in segments)
    reader = Reader(folder.table, tail, index)
    same(reader.read(range(1, 11), 0, START_US * 2), pl.concat(batches))
    assert reader.last([10])["source_timestamp"].to_physical()[0] == START_US + 1_499_000_000

    store = Store(folder)
    chunk = Chunk(0)
    for n, batch in enumerate(batches[:20]):
        chunk.take(n + 1, batch, 1, 0.0)
    info = await log_info(bus)
    store.committer.commit(chunk, app_id(SAMPLES_STREAM, info.created_us))
    same(reader.read(range(1, 11), 0, START_US * 2), pl.concat(batches))
    assert tail.rows < 15_000, "what the table has is forgotten"
    await tail.close()


async def test_what_the_table_has_is_forgotten_while_nobody_reads(
    folder: DataFolder, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that took its snapshot before looks at the table again, and misses nothing."""
    monkeypatch.setattr(tail_module, "FORGET_ROWS", 1_000)
    index = TableIndex(folder.table)
    tail = Tail(bus, index)
    await tail.start()
    reader = Reader(folder.table, tail, index)
    store = Store(folder)
    app = app_id(SAMPLES_STREAM, (await log_info(bus)).created_us)
    before = index.refresh()
    batches = [wave(10, 50, first=50 * n) for n in range(12)]
    for n, batch in enumerate(batches):
        await publish(bus, batch, epoch=1, sequence=n + 1)
        await tail.catch_up()
        chunk = Chunk(n)
        chunk.take(n + 1, batch, 1, 0.0)
        store.committer.commit(chunk, app)
    assert tail.rows < 3_000, "of 6,000 samples"
    assert tail.segments(before) is None
    same(reader.read(range(1, 11), 0, START_US * 2), pl.concat(batches))
    await tail.close()


async def test_a_stream_made_again_is_followed_from_its_start(folder: DataFolder, bus: Bus) -> None:
    index = TableIndex(folder.table)
    tail = Tail(bus, index)
    await tail.start()
    for n in range(5):
        await publish(bus, wave(1, 10, first=10 * n), epoch=1, sequence=n + 1)
    await tail.catch_up()
    first = tail.app
    await bus.stream.delete_stream(SAMPLES_STREAM)
    await ensure_streams(bus)
    await publish(bus, wave(1, 10, first=900), epoch=2, sequence=1)
    await until(lambda: tail.app != first and tail.rows == 10)
    same(Reader(folder.table, tail, index).read([1], 0, START_US * 2), wave(1, 10, first=900))
    await tail.close()


async def test_the_tail_goes_on_after_the_broker_restarts(folder: DataFolder) -> None:
    address: BrokerAddress = prepare_address(folder)
    process = start_broker(folder, address)
    try:
        async with open_bus(address, "test") as bus:
            await ensure_streams(bus)
            index = TableIndex(folder.table)
            tail = Tail(bus, index)
            await tail.start()
            await publish(bus, wave(1, 10), epoch=1, sequence=1)
            await tail.catch_up()
            stop_broker(process)
            process = start_broker(folder, address)
            async with open_bus(address, "other") as second:
                await publish(second, wave(1, 10, first=10), epoch=1, sequence=2)
            await until(lambda: tail.last_sequence == 2)
            same(Reader(folder.table, tail, index).read([1], 0, START_US * 2), wave(1, 20))
            await tail.close()
    finally:
        stop_broker(process)


@pytest.mark.parametrize("new", [2, 9])
async def test_after_a_restore_reads_have_what_came_since(
    folder: DataFolder, tmp_path: Path, new: int
) -> None:
    """No historian runs: the numbers that the table knows now belong to other messages."""
    address = prepare_address(folder)
    store, backup = folder.broker / "jetstream", tmp_path / "backup"
    process = start_broker(folder, address)
    try:
        async with open_bus(address, "test") as bus:
            await ensure_streams(bus)
            index = TableIndex(folder.table)
            tail = Tail(bus, index)
            await tail.start()
            reader = Reader(folder.table, tail, index)
            for n in range(6):
                if n == 3:
                    stop_broker(process)
                    shutil.copytree(store, backup)
                    process = start_broker(folder, address)
                async with open_bus(address, "sender") as sender:
                    await publish(sender, wave(1, 10, first=10 * n), epoch=1, sequence=n + 1)
            await until(lambda: tail.rows == 60)
            chunk = Chunk(0)
            chunk.take(6, wave(1, 60), 1, 0.0, await stored_at_us(bus, 6) or 0)
            app = app_id(SAMPLES_STREAM, (await log_info(bus)).created_us)
            Store(folder).committer.commit(chunk, app)
            assert reader.last([1])["source_timestamp"].len() == 1
            stop_broker(process)
            shutil.rmtree(store)
            shutil.copytree(backup, store)
            process = start_broker(folder, address)
            async with open_bus(address, "sender") as sender:
                for n in range(6, 6 + new):
                    await publish(sender, wave(1, 10, first=10 * n), epoch=2, sequence=n + 1)
            await until(lambda: tail.generation > 1)
            await tail.catch_up()
            wanted = wave(1, 60 + 10 * new)
            same(reader.read([1], 0, START_US * 2), wanted)
            same(reader.last([1]), wanted.tail(1))
            await tail.close()
    finally:
        stop_broker(process)
