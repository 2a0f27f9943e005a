"""Last values beside the table: a fresh reader gives what the files give, whatever state the help is in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from historian_samples import START_US, same, wave
from hypothesis import given, settings
from hypothesis import strategies as st
from store import Store

from headrace.historian import last, reader
from headrace.historian.care import Care
from headrace.historian.compaction import DAY_US
from headrace.historian.index import TableIndex
from headrace.historian.last import KEEP_FILES, NAMES, LastKeeper, LastValues, edge, load
from headrace.historian.layout import sort_unique
from headrace.historian.reader import Reader
from headrace.model.desired import HistorianConfig, TagGroupConfig
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.time import ManualClock

TAGS = range(1, 9)


def kept_store(folder: DataFolder, commits: int) -> tuple[Store, LastKeeper, list[pl.DataFrame]]:
    """A table of so many commits whose last values were kept once."""
    store = Store(folder)
    batches = [wave(5, 3, first=3 * n) for n in range(commits)]
    for batch in batches:
        store.commit(batch)
    keeper = LastKeeper(store.table, ManualClock(), store.committer.newest)
    assert keeper.step()
    return store, keeper, batches


def expected(batches: list[pl.DataFrame]) -> pl.DataFrame:
    return edge(sort_unique(pl.concat(batches)), newest=True)


def only_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nobody may look for last values in the table's old files."""

    def forbidden(*_: object, **__: object) -> pl.DataFrame:
        raise AssertionError("the kept values were not used")

    monkeypatch.setattr(Reader, "_nearest", forbidden)


def test_a_fresh_reader_takes_them_without_a_look_at_old_files(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, batches = kept_store(folder, KEEP_FILES)
    only_kept(monkeypatch)
    same(Reader(folder.table).last(TAGS), expected(batches))
    assert Reader(folder.table).last([7]).height == 0, "a tag without samples has none"


def test_what_came_after_they_were_kept_counts(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, keeper, batches = kept_store(folder, KEEP_FILES)
    newer = [wave(3, 2, first=900), wave(8, 1, first=500)]
    for batch in newer:
        store.commit(batch)
    assert not keeper.step(), "two files can wait"
    only_kept(monkeypatch)
    found = Reader(folder.table)
    same(found.last([1, 6]), expected([*batches, *newer]).filter(pl.col("tag_id").is_in([1, 6])))
    store.commit(wave(8, 1, first=2_000))
    same(found.last(TAGS), expected([wave(8, 1, first=2_000)]))


def test_the_keeper_waits_for_enough_files_or_a_minute(folder: DataFolder) -> None:
    store = Store(folder)
    clock = ManualClock()
    keeper = LastKeeper(store.table, clock)
    assert not keeper.step(), "an empty table has nothing to keep"
    store.commit(wave(2, 1))
    assert not keeper.step()
    clock.advance_us(int(last.KEEP_S * 1e6))
    assert keeper.step()
    assert not keeper.step(), "nothing is new"


def test_files_of_this_process_are_not_read_again(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> pl.DataFrame:
        raise AssertionError("the writer knew these samples")

    monkeypatch.setattr(last, "read_files", forbidden)
    _, _, batches = kept_store(folder, KEEP_FILES)
    kept = load(folder.table)
    assert kept is not None
    same(kept.rows, expected(batches))


def test_a_torn_one_is_not_used_and_the_other_is(
    folder: DataFolder, caplog: pytest.LogCaptureFixture
) -> None:
    store, keeper, batches = kept_store(folder, KEEP_FILES)
    more = [wave(5, 3, first=100 + 3 * n) for n in range(KEEP_FILES)]
    for batch in more:
        store.commit(batch)
    assert keeper.step()
    newest = max((folder.table / name for name in NAMES), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-1])
    kept = load(folder.table)
    assert kept is not None
    same(kept.rows, expected(batches))
    assert "HIST-1501" in caplog.text
    same(Reader(folder.table).last(TAGS), expected([*batches, *more]))


def test_both_torn_is_as_if_there_were_none(folder: DataFolder) -> None:
    _, _, batches = kept_store(folder, KEEP_FILES)
    for name in NAMES:
        (folder.table / name).write_bytes(b"")
    assert load(folder.table) is None
    same(Reader(folder.table).last(TAGS), expected(batches))


def test_very_old_ones_give_way_to_the_files(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, batches = kept_store(folder, KEEP_FILES)
    monkeypatch.setattr(reader, "FRESH_FILES_MAX", 0)
    store.commit(wave(5, 1, first=700))
    same(Reader(folder.table).last(TAGS), expected([*batches, wave(5, 1, first=700)]))


def test_a_restart_goes_on_from_what_was_kept(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _, batches = kept_store(folder, KEEP_FILES)
    newest = wave(5, 1, first=700)
    store.commit(newest)
    clock = ManualClock()
    keeper = LastKeeper(store.table, clock)
    clock.advance_us(int(last.KEEP_S * 1e6))
    taken: list[str] = []
    take = LastValues.take_files
    monkeypatch.setattr(
        LastValues,
        "take_files",
        lambda self, table, files, tags=None, known=None: (
            taken.extend(file.path for file in files),
            take(self, table, files, tags, known),
        ),
    )
    assert keeper.step()
    assert taken == [store.table.snapshot.files[-1].path]
    same(Reader(folder.table).last(TAGS), expected([*batches, newest]))


def test_a_commit_that_comes_after_a_higher_ordinal_is_seen() -> None:
    """Two writers: one took its ordinal first and committed last."""
    from headrace.historian.index import Snapshot
    from headrace.historian.layout import DataFile, file_name

    def file(ordinal: int, part: int, rewritten: str = "") -> DataFile:
        return DataFile(file_name(ordinal, part, rewritten), 1, 1, 1, 1, 0, 0)

    first = Snapshot(0, (file(8, 0), file(10, 0)))
    values = LastValues()
    values.take_files(Path(), values.fresh(first), [])
    late = Snapshot(1, (file(8, 0), file(9, 1), file(10, 0)))
    assert [f.path for f in values.fresh(late)] == [file_name(9, 1)]
    closed = Snapshot(2, (file(10, 0, "d5"),))
    assert values.fresh(closed) == [], "a closed file has nothing that is new"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=40
    )
)
def test_folding_in_any_order_of_files_gives_the_newest(rows: list[tuple[int, int, int]]) -> None:
    values = LastValues()
    batches = []
    for tag_id, at, received in rows:
        batch = make_batch(
            np.array([tag_id]),
            np.array([START_US + at]),
            np.array([float(at)]),
            received_timestamp_us=np.array([START_US + at + received]),
        )
        values.fold(batch)
        batches.append(batch)
    again = LastValues.decode(values.encode())
    assert again is not None
    same(again.rows, expected(batches))


def test_what_retention_took_is_no_last_value(folder: DataFolder) -> None:
    clock = ManualClock(START_US)
    store = Store(folder, clock)
    store.commit(wave(2, 3))
    clock.advance_us(3 * DAY_US)
    fresh = wave(1, 1, first=3 * 86_400)
    store.commit(fresh)
    config = HistorianConfig(groups={"default": TagGroupConfig(retention_days=1)})
    care = Care(store.table, clock, lambda: config)
    clock.advance_us(int(last.KEEP_S * 1e6))
    assert care.step(), "last values are kept"
    kept = load(folder.table)
    assert kept is not None and kept.rows["tag_id"].to_list() == [1, 2]
    assert care.step(), "retention"
    assert care.step(), "and kept again"
    same(Reader(folder.table).last(TAGS), fresh)


def test_a_full_disk_leaves_the_old_ones_and_stops_nothing(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, keeper, batches = kept_store(folder, KEEP_FILES)
    more = [wave(5, 1, first=100 + n) for n in range(KEEP_FILES)]
    for batch in more:
        store.commit(batch)

    def full(_: object) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LastValues, "encode", full)
        assert not keeper.step()
    assert "HIST-1502" in caplog.text
    kept = load(folder.table)
    assert kept is not None
    same(kept.rows, expected(batches))
    assert keeper.step(), "it goes on when there is room again"
    same(Reader(folder.table).last(TAGS), expected([*batches, *more]))


def test_engines_that_read_the_folder_leave_them_alone(folder: DataFolder) -> None:
    store, _, batches = kept_store(folder, KEEP_FILES)
    store.table.vacuum(0)
    assert load(folder.table) is not None
    assert TableIndex(folder.table).refresh().rows == pl.concat(batches).height
