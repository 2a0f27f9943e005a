"""The table on an object storage: written, read, compacted, cleaned, raced for, and cut off."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from historian_samples import START_US, same, wave
from object_store import ObjectStore, running_object_store
from store import APP

from headrace.historian.commit import Chunk, Committer
from headrace.historian.compaction import Compactor
from headrace.historian.index import TableIndex
from headrace.historian.layout import app_id
from headrace.historian.partition import Partition
from headrace.historian.reader import Reader, open_reader
from headrace.historian.retention import Retention
from headrace.historian.storage import ObjectStorage
from headrace.historian.table import Table, open_table
from headrace.model.desired import HistorianConfig, TagGroupConfig
from headrace.model.errors import Misconfigured, Terminal, Transient
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.time import ManualClock

ALL = range(1, 50)


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with running_object_store() as started:
        yield started


def commit(table: Table, folder: DataFolder, *batches, sequence: int = 0) -> None:  # type: ignore[no-untyped-def]
    committer = Committer(table, folder.root / "quarantine", ManualClock())
    chunk = Chunk(sequence or table.committed(APP) or 0)
    for batch in batches:
        chunk.take(chunk.sequence + 1, batch, 100, 0.0)
    committer.commit(chunk, APP)


def test_a_table_is_made_written_and_read_by_others(store: ObjectStore, folder: DataFolder) -> None:
    storage = store.storage("first")
    table = open_table(storage, ManualClock())
    index = TableIndex(store.storage("first"))
    commit(table, folder, wave(5, 100), wave(5, 100, first=100))
    same(Reader(storage).read(ALL, 0, START_US * 2), wave(5, 200))
    assert index.refresh().committed(APP) == 2
    again = open_table(store.storage("first"), ManualClock())
    assert (again.committed(APP), again.snapshot.rows) == (2, 1000)
    assert again.counters["samples_total"] == 1000
    same(Reader(storage).last([3]), wave(5, 200).filter(tag_id=3)[-1:])


def test_a_copy_is_not_stored_again(store: ObjectStore, folder: DataFolder) -> None:
    table = open_table(store.storage("copies"), ManualClock())
    commit(table, folder, wave(3, 50))
    commit(table, folder, wave(3, 60))
    assert table.snapshot.rows == 180
    assert table.counters["duplicates_total"] == 150


def test_compaction_retention_and_vacuum(store: ObjectStore, folder: DataFolder) -> None:
    storage, clock = store.storage("care"), ManualClock()
    table = open_table(storage, clock)
    for turn in range(16):
        commit(table, folder, wave(2, 10, first=10 * turn))
    done = Compactor(table, clock).step(spare_bytes=1 << 60)
    assert done is not None and (done.files_before, done.files_after) == (16, 1)
    same(Reader(storage).read(ALL, 0, START_US * 2), wave(2, 160))
    assert table.vacuum(0) == 16
    same(Reader(storage).read(ALL, 0, START_US * 2), wave(2, 160))
    old = make_batch(
        np.array([7]), np.array([1]), np.array([1.0]), received_timestamp_us=np.array([1])
    )
    commit(table, folder, old)
    late = ManualClock(START_US + 86_400_000_000)
    config = HistorianConfig(groups={"default": TagGroupConfig(retention_days=400)})
    assert Retention(table, late).step(config) == 1
    same(Reader(storage).read(ALL, 0, START_US * 2), wave(2, 160))


def test_a_reader_whose_file_went_away_looks_again(store: ObjectStore, folder: DataFolder) -> None:
    storage = store.storage("moved")
    table = open_table(storage, ManualClock())
    for turn in range(16):
        commit(table, folder, wave(1, 10, first=10 * turn))
    reader = Reader(storage)
    reader.read([1], 0, START_US * 2)
    Compactor(table, ManualClock()).step()
    table.vacuum(0)
    same(reader.read([1], 0, START_US * 2), wave(1, 160))


def test_two_commits_of_one_version_never_both_succeed(
    store: ObjectStore, folder: DataFolder
) -> None:
    one = open_table(store.storage("raced"), ManualClock())
    other = open_table(store.storage("raced"), ManualClock())
    commit(one, folder, wave(1, 10))
    with pytest.raises(Terminal, match="HIST-1010"):
        commit(other, folder, wave(1, 10, first=10), sequence=1)
    same(Reader(store.storage("raced")).read([1], 0, START_US * 2), wave(1, 10))


def test_two_writers_of_two_parts_follow_each_other(store: ObjectStore, folder: DataFolder) -> None:
    tables = [
        open_table(store.storage("shared"), ManualClock(), Partition(index, 2)) for index in (0, 1)
    ]
    for turn in range(6):
        commit(tables[turn % 2], folder, wave(1, 10, first=10 * turn), sequence=turn)
    same(Reader(store.storage("shared")).read([1], 0, START_US * 2), wave(1, 60))
    assert TableIndex(store.storage("shared")).refresh().committed(APP) == 5


async def test_settings_lead_the_reader_to_it(
    store: ObjectStore, folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = open_table(store.storage("settings"), ManualClock())
    commit(table, folder, wave(2, 10))
    folder.root.mkdir(exist_ok=True)
    (folder.root / "headrace.toml").write_text(
        f"""[historian]
table = "s3://headrace/settings"
[historian.storage]
aws_endpoint_url = "{store.endpoint}"
aws_region = "us-east-1"
"""
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    async with open_reader(folder) as reader:
        same(reader.read(ALL, 0, START_US * 2), wave(2, 10))


def test_a_storage_that_is_away_is_tried_again_later(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_object_store() as gone:
        monkeypatch.setattr("headrace.historian.storage.RETRY_S", 1)
        storage = gone.storage("away")
        table = open_table(storage, ManualClock())
        commit(table, folder, wave(1, 10))
    with pytest.raises(Transient, match="HIST-1201"), storage.write("part") as handle:
        handle.write(b"x")
    with pytest.raises(Transient, match="HIST-1201"):
        storage.exists("part")
    with pytest.raises(Transient, match="HIST-1201"):
        table.commit([], position=(APP, 2))
    with pytest.raises(Transient, match="HIST-1201"):
        Reader(storage).read([1], 0, START_US * 2)


def test_what_is_no_bucket_is_said() -> None:
    with pytest.raises(Misconfigured, match="HIST-1202"):
        ObjectStorage("s4://nowhere/at/all")
    assert app_id("SAMPLES", 1) == APP
