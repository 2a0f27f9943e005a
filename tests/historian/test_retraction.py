"""Samples that a repair took back: no read has them, whatever the order of commits and compactions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from historian_samples import START_US, same
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store import Store

from headrace.historian.compaction import DAY_US, Compactor
from headrace.historian.last import LastKeeper, edge
from headrace.historian.layout import sort_unique
from headrace.historian.reader import Reader
from headrace.historian.tail import FrozenTail
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.status import RETRACTED
from headrace.model.time import US_PER_S, ManualClock

TAGS = (1, 2, 3)
PLACES = 9

Row = tuple[int, int, float | None]
"""Tag, place in time, value; None takes back what is there."""


def rows_of(rows: list[Row], received: int, step_us: int) -> pl.DataFrame:
    gone = np.array([value is None for _, _, value in rows])
    return make_batch(
        np.array([tag for tag, _, _ in rows], np.int64),
        START_US + step_us * np.array([place for _, place, _ in rows], np.int64),
        np.array([value or 0.0 for _, _, value in rows]),
        status=np.where(gone, RETRACTED, 0).astype(np.uint32),
        received_timestamp_us=START_US + received,
        value_is_null=gone,
    )


def tail_of(batches: list[pl.DataFrame], place: Path) -> FrozenTail:
    """What the log has after the table, without a broker."""
    paths = []
    for number, batch in enumerate(batches):
        paths.append(place / f"{number}.parquet")
        batch.write_parquet(paths[-1])
    return FrozenTail(paths)


def check_reads(reader: Reader, batches: list[pl.DataFrame], step_us: int) -> None:
    """Every read against the rows that are there."""
    there = sort_unique(pl.concat(batches)).filter(pl.col("status") != RETRACTED)
    at = pl.col("source_timestamp").to_physical()
    end = START_US + PLACES * step_us
    same(reader.read(TAGS, START_US, end), there)
    same(reader.last(TAGS), edge(there, newest=True))
    for place in (4, PLACES):
        border = START_US + place * step_us
        same(reader.before(TAGS, border), edge(there.filter(at < border), newest=True))
        same(reader.after(TAGS, border), edge(there.filter(at >= border), newest=False))
    for tag in TAGS:
        mine = there.filter(pl.col("tag_id") == tag)
        buckets = reader.downsample(tag, START_US, end, 3)
        assert int(buckets["count"].sum()) == mine.height
        count = reader.aggregate([tag], "Count", START_US, end, 0)["value"].fill_null(0.0)[0]
        assert count == mine.height


ROWS = st.lists(
    st.tuples(
        st.sampled_from(TAGS), st.integers(0, PLACES - 1), st.one_of(st.none(), st.floats(0, 1))
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row[:2],
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(ROWS, min_size=1, max_size=20),
    st.integers(0, 3),
    st.sampled_from([1, US_PER_S, 7_200 * US_PER_S]),
)
def test_samples_and_retractions_in_any_order_give_what_is_there(
    tmp_path_factory: pytest.TempPathFactory, commits: list[list[Row]], tail: int, step_us: int
) -> None:
    folder = DataFolder(tmp_path_factory.mktemp("table"))
    store = Store(folder, ManualClock(START_US + 1))
    batches = [rows_of(rows, number, step_us) for number, rows in enumerate(commits)]
    stored = batches[: len(batches) - tail]
    for batch in stored:
        store.commit(batch)
    rest = tail_of(batches[len(stored) :], tmp_path_factory.mktemp("tail"))
    follower = Reader(folder.table, rest)
    check_reads(follower, batches, step_us)
    Compactor(store.table, ManualClock(START_US + 1)).step()
    LastKeeper(store.table, ManualClock(), store.committer.newest).step()
    check_reads(follower, batches, step_us)
    Compactor(store.table, ManualClock(START_US + 30 * DAY_US)).step()
    check_reads(Reader(folder.table, rest), batches, step_us)


def test_the_newest_before_a_long_run_of_retracted_ones_is_found(folder: DataFolder) -> None:
    """Across files and stretches of time, and with a correction that lies in another file."""
    store = Store(folder)
    count, step_us = 2_000, 60 * US_PER_S
    store.commit(rows_of([(1, n, 1.0) for n in range(count)], 1, step_us))
    for begin in range(0, count, 250):
        places = range(max(begin, 10), begin + 250)
        store.commit(rows_of([(1, n, None) for n in places], 2, step_us))
    store.commit(rows_of([(2, 5, 7.0), (2, 6, 8.0)], 3, step_us))
    reader = Reader(folder.table)
    found = reader.before([1, 2], START_US + count * step_us)
    assert found["tag_id"].to_list() == [1, 2]
    places = (found["source_timestamp"].to_physical() - START_US) // step_us
    assert places.to_list() == [9, 6]
    assert reader.read([1], START_US, START_US * 2).height == 10
    assert reader.last([1])["source_timestamp"].to_physical()[0] == START_US + 9 * step_us
    store.commit(rows_of([(1, 1_500, 3.0)], 4, step_us))
    assert reader.last([1])["value"].to_list() == [3.0], "one that is there again counts"
