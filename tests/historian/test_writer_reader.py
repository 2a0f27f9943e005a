"""Writer, tail and reader together, over a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import polars as pl
from historian_samples import START_US, SUBJECTS, publish, same, wave

from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.historian import role
from headrace.historian.index import TableIndex
from headrace.historian.reader import Reader, open_reader
from headrace.historian.writer import WriterSettings
from headrace.model.folder import DataFolder
from waiting import until

QUICK = WriterSettings(commit_interval_s=0.2)


@asynccontextmanager
async def historian(
    folder: DataFolder, address: BrokerAddress, settings: WriterSettings = QUICK
) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    task = asyncio.create_task(role.run(folder, address, SUBJECTS, stop, settings=settings))
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(3):
            await task


async def test_what_is_published_is_read_back(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    batches = [wave(5, 200, first=200 * n) for n in range(10)]
    async with historian(folder, broker):
        for n, batch in enumerate(batches):
            await publish(bus, batch, epoch=1, sequence=n + 1)
        async with open_reader(folder, bus) as reader:
            found = reader.read(range(1, 6), START_US, START_US + 10**10)
        await until(lambda: TableIndex(folder.table).refresh().rows == 10_000)
    same(found, pl.concat(batches))
    same(Reader(folder.table).read(range(1, 6), START_US, START_US + 10**10), pl.concat(batches))


async def test_fresh_samples_are_seen_before_they_are_committed(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    async with historian(folder, broker, WriterSettings(commit_interval_s=3600)):
        await publish(bus, wave(3, 10), epoch=1, sequence=1)
        async with open_reader(folder, bus) as reader:
            same(reader.read([1, 2, 3], START_US, START_US + 10**9), wave(3, 10))
            assert not Reader(folder.table).read([1, 2, 3], 0, START_US * 2).height
    async with historian(folder, broker):
        await until(lambda: TableIndex(folder.table).refresh().rows == 30)
    same(Reader(folder.table).read([1, 2, 3], 0, START_US * 2), wave(3, 10))


async def test_reads_during_commits_miss_nothing_and_double_nothing(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    """One writer commits every 10 ms; each read must hold exactly all that was published before it."""
    settings = WriterSettings(commit_interval_s=0.01)
    async with historian(folder, broker, settings), open_reader(folder, bus) as reader:
        for n in range(120):
            await publish(bus, wave(4, 25, first=25 * n), epoch=1, sequence=n + 1)
            await reader._tail.catch_up()  # type: ignore[union-attr] # opened with a bus
            found = await asyncio.to_thread(reader.read, [1, 2, 3, 4], 0, START_US * 2)
            assert found.height == 100 * (n + 1)
            assert (
                reader.last([4])["value"].to_list()
                == wave(4, 25, first=25 * n)["value"][-1:].to_list()
            )
        version = TableIndex(folder.table).refresh().version
        assert version > 5, "the writer committed meanwhile"


async def test_copies_are_counted_and_corrections_win(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    first = wave(2, 50)
    correction = first.head(2).with_columns(
        pl.lit(99.0).alias("value"), pl.col("received_timestamp") + pl.duration(seconds=5)
    )
    older = first.head(2).with_columns(
        pl.lit(-1.0).alias("value"), pl.col("received_timestamp") - pl.duration(seconds=5)
    )
    async with historian(folder, broker):
        for n, batch in enumerate((first, first, correction, older)):
            await publish(bus, batch, epoch=1, sequence=n + 1)
            version = TableIndex(folder.table).refresh().version
            await until(lambda seen=version: TableIndex(folder.table).refresh().version > seen)
    found = Reader(folder.table).read([1, 2], 0, START_US * 2)
    same(found, pl.concat([correction, first.tail(98)]))
    assert TableIndex(folder.table).refresh().rows == 102


async def test_a_corrupt_message_is_kept_apart_and_blocks_nothing(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    async with historian(folder, broker):
        await publish(bus, wave(1, 5), epoch=1, sequence=1)
        await bus.publish_frame(SUBJECTS.batch("local", "plc_2"), b"no arrow", {})
        await publish(bus, wave(1, 5, first=5), epoch=1, sequence=2)
        await until(lambda: Reader(folder.table).read([1], 0, START_US * 2).height == 10)
    assert [path.read_bytes() for path in (folder.root / "quarantine").glob("*.body")] == [
        b"no arrow"
    ]


async def test_a_restarted_historian_goes_on_where_the_table_ends(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    for turn in range(3):
        async with historian(folder, broker):
            await publish(bus, wave(2, 20, first=20 * turn), epoch=1, sequence=turn + 1)
            await until(
                lambda t=turn: (
                    Reader(folder.table).read([1], 0, START_US * 2).height == 20 * (t + 1)
                )
            )
    same(Reader(folder.table).read([1, 2], 0, START_US * 2), wave(2, 60))
    assert TableIndex(folder.table).refresh().rows == 120


async def test_last_before_after(folder: DataFolder, broker: BrokerAddress, bus: Bus) -> None:
    async with historian(folder, broker), open_reader(folder, bus) as reader:
        for n in range(5):
            await publish(bus, wave(3, 10, first=10 * n), epoch=1, sequence=n + 1)
            version = TableIndex(folder.table).refresh().version
            await until(lambda seen=version: TableIndex(folder.table).refresh().version > seen)
        at = START_US + 25_500_000
        assert reader.before([1, 3, 77], at)["tag_id"].to_list() == [1, 3]
        assert set(reader.before([1, 2], at)["source_timestamp"].to_physical()) == {at - 500_000}
        assert set(reader.after([1, 2], at)["source_timestamp"].to_physical()) == {at + 500_000}
        assert set(reader.last([1, 2, 3])["source_timestamp"].to_physical()) == {
            START_US + 49_000_000
        }
        late = wave(1, 1, first=45).with_columns(
            pl.col("source_timestamp") + pl.duration(milliseconds=1)
        )
        await publish(bus, late, epoch=1, sequence=9)
        await reader._tail.catch_up()  # type: ignore[union-attr] # opened with a bus
        assert reader.last([1])["source_timestamp"].to_physical()[0] == START_US + 49_000_000
        assert reader.read([1], START_US + 45_000_001, START_US + 45_001_001).height == 1
        assert np.isclose(reader.last([3])["value"][0], wave(3, 50)["value"][-1])
