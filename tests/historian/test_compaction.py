"""Compaction and retention: fewer files, the same samples; only expired ones go."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from historian_samples import START_US, same, wave
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store import APP, Store

from headrace.historian.compaction import DAY_US, MERGE_FILES_MIN, Compactor
from headrace.historian.layout import is_closed, sort_unique
from headrace.historian.reader import Reader
from headrace.historian.retention import Retention
from headrace.historian.table import open_table
from headrace.model.desired import HistorianConfig, TagGroupConfig
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.time import ManualClock

ALL = range(1, 20)


def everything(folder: DataFolder) -> pl.DataFrame:
    return Reader(folder.table).read(ALL, 0, START_US * 2)


def test_small_files_become_one_with_the_same_samples(folder: DataFolder) -> None:
    store = Store(folder, ManualClock(START_US + 1))
    batches = [wave(5, 10, first=10 * n) for n in range(MERGE_FILES_MIN + 3)]
    for batch in batches:
        store.commit(batch)
    position = store.table.committed(APP)
    done = Compactor(store.table, ManualClock(START_US + 1)).step()
    assert done is not None
    assert (done.files_before, done.files_after) == (MERGE_FILES_MIN + 3, 1)
    assert store.table.committed(APP) == position, "the writer's place is not touched"
    same(everything(folder), pl.concat(batches))
    assert open_table(folder.table, ManualClock()).counters == store.table.counters


def test_a_time_that_is_over_is_laid_out_by_tag(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.historian.compaction.CLOSE_ROWS_MIN", 1000)
    store = Store(folder)
    batches = [wave(8, 200, first=200 * n) for n in range(8)]
    for batch in batches:
        store.commit(batch)
    assert Compactor(store.table, ManualClock(START_US + 1)).step() is None, "it is not over yet"
    compactor = Compactor(store.table, ManualClock(START_US + 2 * DAY_US))
    assert compactor.step() is not None
    assert all(is_closed(file.path) for file in store.table.snapshot.files)
    assert compactor.step() is None, "what is closed stays"
    same(everything(folder), pl.concat(batches))


def test_a_time_too_large_for_one_go_is_cut_by_tag(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.historian.compaction.CLOSE_ROWS_MIN", 1000)
    monkeypatch.setattr("headrace.historian.compaction.MERGE_ROWS_MAX", 1000)
    monkeypatch.setattr("headrace.historian.compaction.FILE_ROWS", 500)
    store = Store(folder)
    batches = [wave(8, 200, first=200 * n) for n in range(8)]
    for batch in batches:
        store.commit(batch)
    Compactor(store.table, ManualClock(START_US + 2 * DAY_US)).step()
    files = store.table.snapshot.files
    assert len(files) >= 8
    assert max(file.rows for file in files) <= 750, "half as many again at most"
    same(everything(folder), pl.concat(batches))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(1, 3), st.integers(0, 9), st.floats(0, 1), st.integers(0, 3)),
            min_size=1,
            max_size=8,
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 29),
)
def test_any_order_of_corrections_and_compactions_gives_one_truth(
    tmp_path_factory, commits: list[list[tuple[int, int, float, int]]], turn: int
) -> None:  # type: ignore[no-untyped-def]
    """The last received sample of each identity counts, before and after compaction."""
    folder = DataFolder(tmp_path_factory.mktemp("table"))
    store = Store(folder, ManualClock(START_US + 1))
    batches = []
    for number, rows in enumerate(commits):
        columns = np.array(rows)
        batches.append(
            make_batch(
                columns[:, 0].astype(np.int64),
                START_US + columns[:, 1].astype(np.int64),
                columns[:, 2],
                received_timestamp_us=START_US + columns[:, 3].astype(np.int64),
            )
        )
        store.commit(batches[-1])
        if number == turn:
            Compactor(store.table, ManualClock(START_US + 1)).step()
    expected = sort_unique(pl.concat(batches))
    same(everything(folder), expected)
    Compactor(store.table, ManualClock(START_US + 3 * DAY_US)).step()
    same(everything(folder), expected)


def test_retention_removes_what_its_group_no_longer_keeps(folder: DataFolder) -> None:
    days = [wave(3, 5, first=86_400 * day) for day in range(4)]
    store = Store(folder)
    for batch in days:
        store.commit(batch)
    config = HistorianConfig(
        groups={
            "default": TagGroupConfig(),
            "short": TagGroupConfig(retention_days=1),
            "longer": TagGroupConfig(retention_days=2),
        },
        tag_groups={1: "short", 2: "longer", 3: "no such group"},
    )
    now = START_US + 3 * DAY_US
    retention = Retention(store.table, ManualClock(now))
    while retention.step(config) is not None:
        pass
    left = everything(folder)
    at_us = left["source_timestamp"].to_physical()
    for tag_id, kept_days in ((1, 1), (2, 2), (3, 99)):
        oldest = (now // DAY_US - kept_days) * DAY_US
        expected = pl.concat(days).filter(pl.col("tag_id") == tag_id)
        expected = expected.filter(expected["source_timestamp"].to_physical() >= oldest)
        same(left.filter(pl.col("tag_id") == tag_id), expected)
    assert at_us.len() < 60


def test_vacuum_takes_what_no_version_needs(folder: DataFolder) -> None:
    store = Store(folder, ManualClock(START_US + 1))
    for n in range(MERGE_FILES_MIN):
        store.commit(wave(2, 10, first=10 * n))
    reader = Reader(folder.table)
    assert reader.read([1], 0, START_US * 2).height == 160
    (folder.table / "part-99999999999999999999-0000.parquet").write_bytes(b"left by a crash")
    Compactor(store.table, ManualClock(START_US + 1)).step()
    store.table.vacuum(0)
    assert len(list(folder.table.glob("*.parquet"))) == 1
    assert reader.read([1], 0, START_US * 2).height == 160, "a reader with an old view reads again"
    assert Store(folder).table.counters["samples_total"] == 320, "totals survive a vacuum"
