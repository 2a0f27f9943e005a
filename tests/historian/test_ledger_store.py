"""The kept ledger: what became of each run, whatever ends the historian between two of its files."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from store import APP

from headrace.historian.commit import Chunk, Committer
from headrace.historian.ledger_store import LedgerStore, Wanted, open_ledger, read_ledger
from headrace.historian.reader import Reader
from headrace.historian.table import open_table
from headrace.model.errors import Transient
from headrace.model.folder import DataFolder
from headrace.model.ledger import (
    COUNTS,
    HOUR_US,
    MINUTE_US,
    CellKey,
    EdgeCounts,
    LedgerPage,
    PageCell,
    Removed,
    Taken,
)
from headrace.model.sample import make_batch
from headrace.model.time import ManualClock

MINUTE = 28_333_334 * MINUTE_US
KEYS = [
    CellKey("e", "plc", group, MINUTE + n * MINUTE_US, 5)
    for group in ("1000ms", "10ms")
    for n in range(2)
]


class Kept:
    """A table and its ledger; frames are committed as a historian would."""

    def __init__(self, root: Path) -> None:
        self.folder = DataFolder(root)
        root.mkdir(parents=True, exist_ok=True)
        self.clock = ManualClock(MINUTE)
        self.sent: Counter[CellKey] = Counter()
        self.open()

    def open(self) -> None:
        self.ledger = open_ledger(self.folder.ledger_file, self.clock)
        self.table = open_table(self.folder.table, self.clock)
        quarantine = self.folder.root / "quarantine"
        self.committer = Committer(self.table, quarantine, self.clock, self.ledger)

    def reopen(self) -> None:
        self.ledger.close()
        self.open()

    def chunk(self, frames: list[list[tuple[CellKey, pl.DataFrame]]]) -> Chunk:
        chunk = Chunk(self.table.committed(APP) or 0)
        for frame in frames:
            runs = []
            for key, batch in frame:
                runs.append(Taken(key, self.sent[key], batch.height))
                self.sent[key] += batch.height
            batch = pl.concat([batch for _, batch in frame])
            chunk.take(chunk.sequence + 1, batch, 100, 0.0, runs=runs)
        return chunk

    def counts(self) -> dict[CellKey, dict[str, int]]:
        """The historian's side: every edge row is missing, which is no matter here."""
        rows = self.ledger.accounts(Wanted()).iter_rows(named=True)
        return {CellKey(*(row[name] for name in CellKey._fields)): row for row in rows}


def batch(samples: list[tuple[int, int, int]]) -> pl.DataFrame:
    tags, times, received = (np.array(column, np.int64) for column in zip(*samples, strict=True))
    return make_batch(tags, times, received * 1.0, received_timestamp_us=received)


sample = some.tuples(some.integers(1, 3), some.integers(0, 6), some.integers(0, 9))
run = some.tuples(some.sampled_from(KEYS), some.lists(sample, min_size=1, max_size=5).map(batch))
frames = some.lists(some.lists(run, min_size=1, max_size=3), min_size=1, max_size=3)


@settings(max_examples=30, deadline=None)
@given(some.lists(frames, min_size=1, max_size=4))
def test_what_is_counted_as_stored_is_what_the_table_has(
    commits: list[list[list[tuple[CellKey, pl.DataFrame]]]],
) -> None:
    with tempfile.TemporaryDirectory() as root:
        kept = Kept(Path(root))
        for each in commits:
            kept.committer.commit(kept.chunk(each), APP)
        found = kept.counts()
        rows = Reader(kept.folder.table).read([1, 2, 3], -(2**62), 2**62)
        assert sum(row["stored"] for row in found.values()) == rows.height
        for key, row in found.items():
            assert row["stored"] + row["duplicate"] == kept.sent[key]
            assert row["lost"] == row["redelivered"] == 0
            assert row["late"] <= row["stored"]
        kept.ledger.close()


def test_a_sample_that_is_not_newer_than_the_table_is_late(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.committer.commit(kept.chunk([[(KEYS[0], batch([(1, 10, 1), (2, 10, 1)]))]]), APP)
    later = batch([(1, 5, 2), (1, 11, 2), (1, 10, 1), (1, 10, 3)])
    kept.committer.commit(kept.chunk([[(KEYS[1], later)]]), APP)
    row = kept.counts()[KEYS[1]]
    assert (row["stored"], row["late"], row["duplicate"]) == (2, 1, 2)


class Killed(Exception):
    pass


@pytest.mark.parametrize("where", ["before the commit", "after the commit"])
def test_a_kill_between_table_and_ledger_loses_no_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    kept = Kept(tmp_path)
    first = [[(KEYS[0], batch([(1, 1, 1), (1, 2, 1)]))]]
    kept.committer.commit(kept.chunk(first), APP)
    chunk = kept.chunk([[(KEYS[0], batch([(1, 2, 1), (1, 3, 1)]))]])

    def die(*_: object, **__: object) -> None:
        raise Killed

    target = kept.table if where == "before the commit" else kept.ledger
    monkeypatch.setattr(target, "commit" if target is kept.table else "settle", die)
    with pytest.raises(Killed):
        kept.committer.commit(chunk, APP)
    monkeypatch.undo()
    assert kept.counts()[KEYS[0]]["stored"] == 2, "not yet counted"
    kept.reopen()
    if kept.table.committed(APP) != chunk.sequence:
        kept.committer.commit(chunk, APP)  # the log gives it again
    row = kept.counts()[KEYS[0]]
    assert (row["stored"], row["duplicate"], row["redelivered"]) == (3, 1, 0)


def test_a_commit_that_is_only_synced_again_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(tmp_path)
    chunk = kept.chunk([[(KEYS[0], batch([(1, 1, 1)]))]])

    def fail() -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(kept.table, "_sync_log", fail)
    with pytest.raises(OSError, match="no space"):
        kept.committer.commit(chunk, APP)
    monkeypatch.undo()
    kept.committer.commit(chunk, APP)
    assert kept.counts()[KEYS[0]]["stored"] == 1


def page(sequence: int, read: int, *, end: str = "", final: bool = False) -> LedgerPage:
    key = KEYS[0]
    counts = EdgeCounts(expected=read, read=read, published=read, final=final)
    cell = PageCell(
        connection=key.connection,
        group=key.group,
        minute_us=key.minute_us,
        epoch=key.epoch,
        counts=counts,
    )
    return LedgerPage(
        edge="e", epoch=5, sequence=sequence, at_us=MINUTE, cells=[cell], end=end, epochs=[5]
    )


@given(some.permutations([1, 2, 3, 4]), some.lists(some.integers(1, 4), max_size=4))
@settings(max_examples=20, deadline=None)
def test_pages_in_any_order_and_number_give_the_last_one(
    order: list[int], again: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as root:
        store = open_ledger(Path(root) / "ledger.db", ManualClock(MINUTE))
        for sequence in [*order, *again]:
            store.take_pages([page(sequence, 10 * sequence)])
        assert store.accounts()["read"].to_list() == [40]
        store.close()


@pytest.fixture
def store(tmp_path: Path) -> LedgerStore:
    return open_ledger(tmp_path / "ledger.db", ManualClock(MINUTE))


def test_a_killed_edge_is_explained_and_a_clean_one_is_not(store: LedgerStore) -> None:
    store.take_pages([page(1, 10)])
    store.prepare(APP, 1, [Taken(KEYS[0], 0, 14, stored=14)])
    store.settle(APP, 1)
    assert store.accounts(grace_us=-(10**12))["unexplained"].to_list() == [4]
    store.take_pages([page(1, 10, end="killed")])
    row = store.accounts(grace_us=-(10**12)).row(0, named=True)
    assert (row["unexplained"], row["read_untold"], row["expected"]) == (0, 4, 14)
    store.take_pages([page(2, 14, end="clean")])
    assert store.accounts(grace_us=-(10**12)).row(0, named=True)["read_untold"] == 0


def test_the_position_in_the_stream_is_of_that_stream(store: LedgerStore) -> None:
    assert store.followed(7) == 0
    store.take_pages([page(1, 10)], (7, 44))
    assert (store.followed(7), store.followed(8)) == (44, 0)


def test_old_minutes_become_hours_with_the_same_sums(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    for n, key in enumerate(KEYS):
        samples = [(1, 10 * n + i, 1) for i in range(n + 1)]
        kept.committer.commit(kept.chunk([[(key, batch(samples))]]), APP)
    kept.ledger.take_pages([page(1, 3)])
    kept.clock.advance_us(24 * HOUR_US)
    before = kept.ledger.accounts()
    assert kept.ledger.roll_up() == 0
    kept.clock.advance_us(31 * 24 * HOUR_US)
    before = kept.ledger.accounts()
    assert kept.ledger.roll_up() == len(KEYS)
    after = kept.ledger.accounts()
    assert after.height == 2
    assert after.select(COUNTS).sum().row(0) == before.select(COUNTS).sum().row(0)
    assert kept.ledger.roll_up() == 0
    kept.clock.advance_us(380 * 24 * HOUR_US)
    kept.ledger.roll_up()
    assert kept.ledger.accounts().height == 0


def test_a_damaged_ledger_is_put_aside_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"no database" * 1000)
    store = open_ledger(path, ManualClock(MINUTE))
    assert store.accounts().height == 0
    assert store.put_aside is not None and store.put_aside.read_bytes() == b"no database" * 1000
    store.prepare(APP, 1, [Taken(KEYS[0]._replace(minute_us=MINUTE - MINUTE_US), 40, 1, stored=1)])
    store.settle(APP, 1)
    assert store.accounts()["skipped"].to_list() == [40], "what the old one had is not lost"


def test_a_ledger_that_is_not_there_says_so(tmp_path: Path) -> None:
    with (
        pytest.raises(Transient, match="HIST-1703"),
        read_ledger(tmp_path / "ledger.db", ManualClock(MINUTE)),
    ):
        raise AssertionError("not reached")


def removed(start: int, end: int) -> LedgerPage:
    rows = Removed(
        connection="plc_1", group="1000ms", minute_us=MINUTE, epoch=7, start=start, end=end
    )
    return LedgerPage(edge="north", epoch=0, sequence=0, at_us=MINUTE, removed=[rows])


@settings(max_examples=15, deadline=None)
@given(
    spans=some.lists(
        some.tuples(some.integers(0, 60), some.integers(1, 30)), min_size=1, max_size=12
    )
)
def test_rows_that_an_edge_removed_count_once_however_often_they_are_told(
    spans: list[tuple[int, int]],
) -> None:
    with tempfile.TemporaryDirectory() as root:
        store = open_ledger(Path(root) / "ledger.db", ManualClock(MINUTE))
        counts = EdgeCounts(expected=100, read=100, published=100, final=True)
        cell = PageCell(
            connection="plc_1", group="1000ms", minute_us=MINUTE, epoch=7, counts=counts
        )
        page = LedgerPage(edge="north", epoch=7, sequence=1, at_us=MINUTE, cells=[cell])
        store.take_pages([page])
        for start, count in [*spans, *spans]:
            store.take_pages([removed(start, start + count)])
        rows = {row for start, count in spans for row in range(start, start + count)}
        assert store.accounts()["edge_log_full"].to_list() == [len(rows)]
        store.close()


def test_a_ledger_of_an_older_version_gets_the_counts_that_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    open_ledger(path, ManualClock(MINUTE)).close()
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE hour DROP COLUMN edge_log_full")
        db.execute("ALTER TABLE edge_cell DROP COLUMN missed_foreign")
    db.close()
    store = open_ledger(path, ManualClock(MINUTE))
    store.take_pages([removed(0, 5)])
    assert "edge_log_full" in store.accounts().columns
    assert store.roll_up() == 0
    store.close()
