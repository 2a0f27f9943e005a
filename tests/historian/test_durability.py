"""What a kill or a power cut at any point leaves behind, and that it is repaired without loss."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from historian_samples import START_US, SUBJECTS, publish, same, wave
from store import APP, Store

from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.historian import role
from headrace.historian.index import TableIndex
from headrace.historian.reader import Reader, open_reader
from headrace.historian.table import open_table
from headrace.historian.writer import WriterSettings
from headrace.model.desired import HistorianConfig
from headrace.model.errors import Refused
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock
from waiting import until

HISTORIAN = """
import asyncio, json, pathlib, sys
from headrace.bus.broker import BrokerAddress
from headrace.bus.subjects import Subjects
from headrace.historian.role import run
from headrace.historian.writer import WriterSettings
from headrace.model.folder import DataFolder

folder, address, interval_s = sys.argv[1:]
settings = WriterSettings(commit_interval_s=float(interval_s), commit_rows_max=2_000)
asyncio.run(run(DataFolder(pathlib.Path(folder)), BrokerAddress(**json.loads(address)),
                Subjects("acme", "mill"), asyncio.Event(), settings=settings))
"""


@contextmanager
def running_historian(folder: DataFolder, broker: BrokerAddress) -> Iterator[None]:
    """A historian process that is killed with SIGKILL at the end of the block."""
    arguments = [str(folder.root), json.dumps(asdict(broker)), "0.02"]
    process = subprocess.Popen([sys.executable, "-c", HISTORIAN, *arguments])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def parquet_files(folder: DataFolder) -> int:
    return sum(entry.name.endswith(".parquet") for entry in os.scandir(folder.table))


@pytest.mark.kill
async def test_kill_9_at_any_point_loses_nothing_and_doubles_nothing(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    """Ten kills: some at a file that no commit names yet, some at a fresh commit, some anywhere."""
    rng = np.random.default_rng(20261122)
    index = TableIndex(folder.table)
    sent = 0

    async def send_until(stop: asyncio.Event) -> None:
        nonlocal sent
        while not stop.is_set():
            await publish(bus, wave(10, 20, first=20 * sent), epoch=1, sequence=sent + 1)
            sent += 1

    for turn in range(10):
        killed = asyncio.Event()
        publisher = asyncio.create_task(send_until(killed))
        version, rows = index.refresh().version, index.refresh().rows
        wanted = version + int(rng.integers(2, 8))
        conditions: list[Callable[[], bool]] = [
            lambda: folder.table.exists() and parquet_files(folder) > len(index.refresh().files),
            lambda w=wanted: index.refresh().version >= w,
            lambda r=rows: index.refresh().rows > r + 3_000,
        ]
        with running_historian(folder, broker):
            await until(conditions[turn % 3], what=f"turn {turn}")
        killed.set()
        await publisher
    with running_historian(folder, broker):
        await until(lambda: index.refresh().rows >= 200 * sent, 120)
        async with open_reader(folder, bus) as reader:
            expected = wave(10, 20 * sent)
            same(reader.read(range(1, 11), 0, START_US * 2), expected)
    assert index.refresh().rows == expected.height, "each sample is in the files once"


async def test_two_historians_on_one_folder_are_refused(
    folder: DataFolder, broker: BrokerAddress
) -> None:
    stop = asyncio.Event()
    first = asyncio.create_task(role.run(folder, broker, SUBJECTS, stop))
    await until((folder.table / "_delta_log").exists)
    with pytest.raises(Refused, match="HIST-1050"):
        await role.run(folder, broker, SUBJECTS, stop)
    stop.set()
    await first


def _tear_json(path: Path, newest: Path) -> None:
    newest.write_bytes(newest.read_bytes()[:40])


def _empty_json(path: Path, newest: Path) -> None:
    newest.write_bytes(b"")


def _short_data_file(path: Path, newest: Path) -> None:
    data = max(path.glob("*.parquet"))
    data.write_bytes(data.read_bytes()[:100])


def _no_data_file(path: Path, newest: Path) -> None:
    max(path.glob("*.parquet")).unlink()


@pytest.mark.parametrize("tear", [_tear_json, _empty_json, _short_data_file, _no_data_file])
def test_an_entry_torn_by_a_power_cut_is_put_aside(
    folder: DataFolder, tear: Callable[[Path, Path], None]
) -> None:
    store = Store(folder)
    store.commit(wave(2, 10))
    before = store.table.committed(APP)
    store.commit(wave(2, 10, first=10))
    tear(folder.table, max((folder.table / "_delta_log").glob("*.json")))
    reader = Reader(folder.table)
    same(reader.read([1, 2], 0, START_US * 2), wave(2, 10))  # and nothing was repaired by a reader
    again = Store(folder)
    assert again.table.committed(APP) == before, "the log gives again what came after"
    again.commit(wave(2, 10, first=10))
    same(Reader(folder.table).read([1, 2], 0, START_US * 2), wave(2, 20))
    same(reader.read([1, 2], 0, START_US * 2), wave(2, 20))


def test_a_torn_checkpoint_does_not_stop_the_historian(folder: DataFolder) -> None:
    store = Store(folder)
    for n in range(102):
        store.commit(wave(1, 2, first=2 * n))
    (checkpoint,) = (folder.table / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:50])
    opened = open_table(folder.table, ManualClock())
    assert opened.snapshot.rows == 204
    assert opened.committed(APP) == store.table.committed(APP)


def test_files_are_synced_before_the_commit_names_them(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(folder)
    store.commit(wave(1, 1))
    happened: list[str] = []
    real_sync = os.fsync

    def fsync(descriptor: int) -> None:
        entries = len(list((folder.table / "_delta_log").glob("*.json")))
        target = Path(f"/proc/self/fd/{descriptor}").readlink().name
        happened.append(f"{target.split('.')[-1]} {entries}")
        real_sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    store.commit(wave(1, 1, first=1))
    entries = len(list((folder.table / "_delta_log").glob("*.json")))
    assert happened == [
        f"parquet {entries - 1}",
        f"table {entries - 1}",
        f"json {entries}",
        f"_delta_log {entries}",
    ]


async def test_a_full_disk_stops_commits_and_nothing_else(
    folder: DataFolder, broker: BrokerAddress, bus: Bus
) -> None:
    stop = asyncio.Event()
    full = HistorianConfig(stop_free_bytes_min=1 << 60)
    await bus.put("desired", "historian", json.dumps(_plain(full)).encode())
    settings = WriterSettings(commit_interval_s=0.05)
    task = asyncio.create_task(role.run(folder, broker, SUBJECTS, stop, settings=settings))
    states: list[str] = []

    async def take(message) -> None:  # type: ignore[no-untyped-def] # nats message
        states.append(json.loads(message.data)["state"])

    await bus.subscribe(SUBJECTS.historian_health(), take)
    await publish(bus, wave(2, 10), epoch=1, sequence=1)
    await until(lambda: "disk_full" in states)
    async with open_reader(folder, bus) as reader:
        same(reader.read([1, 2], 0, START_US * 2), wave(2, 10))
        assert not TableIndex(folder.table).refresh().rows
        await bus.put("desired", "historian", json.dumps(_plain(HistorianConfig(
            stop_free_bytes_min=0))).encode())  # fmt: skip
        await until(lambda: TableIndex(folder.table).refresh().rows == 20)
        same(reader.read([1, 2], 0, START_US * 2), wave(2, 10))
    await until(lambda: states[-1] == "running")
    stop.set()
    await task


def _plain(config: HistorianConfig) -> dict[str, object]:
    return {"groups": {"default": {}}, "stop_free_bytes_min": config.stop_free_bytes_min}
