"""Two writers of one table, each with its part of the log: whatever is killed, each sample is stored once."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

import numpy as np
import polars as pl
import pytest
from historian_samples import START_US, SUBJECTS, same, wave

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.log import log_info, log_subjects
from headrace.historian import role
from headrace.historian.index import TableIndex
from headrace.historian.layout import app_id
from headrace.historian.partition import SLOTS, Partition, parse_partition, slot_of
from headrace.historian.reader import Reader, open_reader
from headrace.historian.writer import WriterSettings
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.health import HistorianState
from headrace.model.historians import together
from headrace.model.tasks import end_tasks
from waiting import until

PROCESS = """
import asyncio, json, pathlib, sys
from headrace.bus.broker import BrokerAddress
from headrace.bus.subjects import Subjects
from headrace.historian.partition import parse_partition
from headrace.historian.role import run
from headrace.historian.writer import WriterSettings
from headrace.model.folder import DataFolder

folder, address, part = sys.argv[1:]
settings = WriterSettings(commit_interval_s=0.05, commit_rows_max=2_000)
asyncio.run(run(DataFolder(pathlib.Path(folder)), BrokerAddress(**json.loads(address)),
                Subjects("acme", "mill"), asyncio.Event(), settings=settings,
                partition=parse_partition(part)))
"""
QUICK = WriterSettings(commit_interval_s=0.05)
LINES = 6


def start(folder: DataFolder, broker: BrokerAddress, part: str) -> subprocess.Popen[bytes]:
    arguments = [str(folder.root), json.dumps(asdict(broker)), part]
    return subprocess.Popen([sys.executable, "-c", PROCESS, *arguments])


async def send(bus: Bus, line: int, turn: int) -> pl.DataFrame:
    """Frame ``turn`` of connection ``line``; its tag has the line's number."""
    batch = wave(1, 20, first=20 * turn).with_columns(tag_id=pl.lit(line + 1, pl.Int64))
    headers = envelope.headers("local", f"plc_{line}", 1, turn + 1, batch.height)
    await bus.publish_frame(SUBJECTS.batch("local", f"plc_{line}"), envelope.encode(batch), headers)
    return batch


def expected(line: int, turns: int) -> pl.DataFrame:
    return wave(1, 20 * turns).with_columns(tag_id=pl.lit(line + 1, pl.Int64))


def check(folder: DataFolder, turns: dict[int, int]) -> None:
    found = Reader(folder.table).read(range(1, LINES + 1), 0, START_US * 2)
    same(found, pl.concat([expected(line, count) for line, count in turns.items() if count]))
    assert TableIndex(folder.table).refresh().rows == found.height, "stored twice, if read once"


@asynccontextmanager
async def writers(
    folder: DataFolder, broker: BrokerAddress, count: int
) -> AsyncIterator[list[asyncio.Event]]:
    """All writers of a table in this process; they end at the end of the block."""
    stops = [asyncio.Event() for _ in range(count)]
    tasks = [
        asyncio.create_task(
            role.run(
                folder, broker, SUBJECTS, stop, settings=QUICK, partition=Partition(index, count)
            )
        )
        for index, stop in enumerate(stops)
    ]
    try:
        yield stops
        for stop in stops:
            stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
    finally:
        await end_tasks(*tasks)


@pytest.mark.kill
@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.soak)])
async def test_kill_9_of_either_or_both(
    folder: DataFolder, broker: BrokerAddress, bus: Bus, kills: int
) -> None:
    """Connections appear while it runs, also ones of a part that had none."""
    rng = np.random.default_rng(20261122)
    parts = ["0/2", "1/2"]
    running = {part: start(folder, broker, part) for part in parts}
    index = TableIndex(folder.table)
    turns = dict.fromkeys(range(LINES), 0)
    stopped = asyncio.Event()

    async def load() -> None:
        while not stopped.is_set():
            lines = min(LINES, 1 + sum(turns.values()) // 40)
            line = int(rng.integers(lines))
            await send(bus, line, turns[line])
            turns[line] += 1

    loading = asyncio.create_task(load())
    try:
        await until(lambda: index.refresh().rows > 100, 60)
        for _ in range(kills):
            seen = index.refresh().rows
            await until(lambda seen=seen: index.refresh().rows > seen, 60)  # type: ignore[misc]
            for part in [parts, parts[:1], parts[1:]][int(rng.integers(3))]:
                running[part].kill()
                running[part].wait()
                running[part] = start(folder, broker, part)
        stopped.set()
        await loading
        rows = 20 * sum(turns.values())
        await until(lambda: index.refresh().rows >= rows, 60)
    finally:
        stopped.set()
        await end_tasks(loading)
        for process in running.values():
            process.kill()
            process.wait()
    assert min(turns.values()) > 0, "every connection was seen"
    check(folder, turns)


async def test_a_part_without_messages_follows_the_log_and_lets_it_forget(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    own = [line for line in range(40) if slot_of(SUBJECTS.batch("local", f"plc_{line}")) % 2 == 0]
    app = app_id("SAMPLES", (await log_info(bus)).created_us)
    index = TableIndex(folder.table)
    async with writers(folder, broker, 2):
        for turn in range(5):
            await send(bus, own[0], turn)
        await until(lambda: index.refresh().committed(app) == 5, 30)
        assert index.refresh().committed(app, Partition(1, 2).slots) == 5


async def test_the_number_of_writers_may_change_at_any_start(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    turns = dict.fromkeys(range(LINES), 0)
    index = TableIndex(folder.table)
    for count in (1, 3, 2, 1, 2):
        async with writers(folder, broker, count):
            for line in range(LINES):
                await send(bus, line, turns[line])
                turns[line] += 1
            rows = 20 * sum(turns.values())
            await until(lambda rows=rows: index.refresh().rows >= rows, 60)  # type: ignore[misc]
    check(folder, turns)


async def test_reads_meanwhile_are_whole(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    async with writers(folder, broker, 2), open_reader(folder, bus) as reader:
        for turn in range(15):
            for line in (0, 1):
                await send(bus, line, turn)
            tail = reader._tail
            assert tail is not None
            await tail.catch_up()
            found = reader.read([1, 2], 0, START_US * 2)
            same(found, pl.concat([expected(line, turn + 1) for line in (0, 1)]))
            newest = reader.last([1, 2])
            assert (
                newest["source_timestamp"].to_physical().to_list()
                == [START_US + (20 * turn + 19) * 1_000_000] * 2
            )


async def test_one_part_has_one_writer(folder: DataFolder, broker: BrokerAddress) -> None:
    async with writers(folder, broker, 2):
        await until((folder.root / "table.1of2.lock").exists)
        for taken in (Partition(1, 2), Partition(0, 1)):
            with pytest.raises(Refused, match="HIST-1050"):
                await role.run(folder, broker, SUBJECTS, asyncio.Event(), partition=taken)


async def test_the_log_tells_its_subjects(bus: Bus) -> None:
    assert await log_subjects(bus) == []
    for line in (3, 1):
        await send(bus, line, 0)
    assert await log_subjects(bus) == [SUBJECTS.batch("local", f"plc_{line}") for line in (1, 3)]


def test_every_subject_has_one_writer() -> None:
    for count in range(1, SLOTS + 1):
        parts = [Partition(index, count) for index in range(count)]
        assert sorted(slot for part in parts for slot in part.slots) == list(range(SLOTS))
        subject = SUBJECTS.batch("local", f"plc_{count}")
        assert sum(part.owns(subject) for part in parts) == 1


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "a/b", "0/17", "0/0", ""])
def test_what_is_no_partition(text: str) -> None:
    with pytest.raises(Misconfigured, match="HIST-1206"):
        parse_partition(text)


def test_the_states_of_all_are_one() -> None:
    states = [
        HistorianState(
            state=state, at_us=1, started_us=1, committed_sequence=9 - n, table_version=n,
            partition=f"{n}/2", last_error_code=code,
        )
        for n, (state, code) in enumerate([("running", ""), ("disk_full", "HIST-1025")])
    ]  # fmt: skip
    whole = together(states)
    assert whole is not None
    assert (whole.state, whole.committed_sequence, whole.last_error_code) == (
        "disk_full", 8, "HIST-1025",
    )  # fmt: skip
    assert together([]) is None
