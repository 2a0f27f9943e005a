"""The live columns, the roll-up of equipment, and the reduction for the screen."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from headrace.console.history import for_screen, of_buckets
from headrace.console.live import LiveValues
from headrace.console.site_view import TagView, build_view, roll_up
from headrace.historian.downsample import bucket_edges, downsample
from headrace.model.sample import make_batch
from headrace.model.status import BAD_NO_COMMUNICATION, BAD_SENSOR_FAILURE, UNCERTAIN
from headrace.model.time import US_PER_S

samples = st.lists(
    st.tuples(st.integers(1, 6), st.integers(0, 50), st.floats(-1e6, 1e6)), max_size=80
)


def batch_of(rows: list[tuple[int, int, float]], **more: Any) -> pl.DataFrame:
    return make_batch(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float64),
        received_timestamp_us=more.pop("received_us", 100),
        **more,
    )


@given(samples, st.integers(1, 20))
def test_the_newest_sample_wins_however_it_is_cut(
    rows: list[tuple[int, int, float]], size: int
) -> None:
    live = LiveValues()
    for start in range(0, len(rows), size):
        live.update(batch_of(rows[start : start + size]))
    expected: dict[int, tuple[int, float]] = {}
    for tag_id, at, value in rows:
        if tag_id not in expected or at >= expected[tag_id][0]:
            expected[tag_id] = (at, value)
    slots = live.slots(list(expected))
    assert live.source_us[slots].tolist() == [at for at, _ in expected.values()]
    assert live.value[slots].tolist() == [value for _, value in expected.values()]
    assert live.samples_total == len(rows)


@given(st.lists(samples, min_size=1, max_size=8))
def test_asking_for_changes_gives_each_change_once(batches: list[Any]) -> None:
    live = LiveValues()
    slots, version, seen = live.slots(list(range(1, 7))), 0, {}
    for rows in batches:
        live.update(batch_of(rows))
        change = live.changes(slots, version)
        seen.update(zip(change.index.tolist(), change.value.tolist(), strict=True))
        assert not len(live.changes(slots, change.version).index)
        version = change.version
    everything = live.changes(slots, 0)
    assert seen == dict(zip(everything.index.tolist(), everything.value.tolist(), strict=True))


def test_slots_stay_when_the_columns_grow() -> None:
    live = LiveValues()
    ids = np.arange(1, 5_000, dtype=np.int64) * 7
    first = live.slots(ids[:10]).tolist()
    live.update(batch_of([(int(i), 1, float(i)) for i in ids]))
    assert live.slots(ids[:10]).tolist() == first
    assert live.value[live.slots(ids)].tolist() == ids.astype(float).tolist()


def test_texts_come_and_go() -> None:
    live = LiveValues()
    live.update(batch_of([(1, 1, 0.0)], text=["RUN"], value_is_null=np.array([True])))
    slots = live.slots([1])
    assert live.changes(slots, 0).text == {0: "RUN"}
    live.update(batch_of([(1, 2, 5.0)]))
    assert live.changes(slots, 0).text == {}


def test_the_rate_counts_full_seconds() -> None:
    live = LiveValues()
    for second, count in ((100, 3), (101, 5), (103, 2)):
        rows = [(1, i, 0.0) for i in range(count)]
        live.update(batch_of(rows, received_us=second * US_PER_S))
    assert live.rate(104 * US_PER_S, 5) == [0, 3, 5, 0, 2]
    live.restore(batch_of([(2, 1, 1.0)], received_us=103 * US_PER_S))
    assert live.rate(104 * US_PER_S, 5) == [0, 3, 5, 0, 2]
    assert live.rate(1_000 * US_PER_S, 5) == [0] * 5


def test_a_unit_shows_its_worst_value_and_stale_is_not_bad() -> None:
    live = LiveValues()
    tags = [TagView(tag_id=i, path=f"a/b/u/t{i}") for i in (1, 2, 3)]
    unit = build_view(tags, {}, live).units[0]
    now_us = 1_000 * US_PER_S
    assert roll_up(unit, live, now_us).state == "idle"
    live.update(batch_of([(1, 1, 1.0), (2, 1, 1.0), (3, 1, 1.0)], received_us=now_us))
    assert roll_up(unit, live, now_us).state == "good"
    live.update(batch_of([(2, 2, 1.0)], status=UNCERTAIN, received_us=now_us))
    assert roll_up(unit, live, now_us).state == "warn"
    live.update(batch_of([(3, 2, 1.0)], status=BAD_SENSOR_FAILURE, received_us=now_us))
    counts = roll_up(unit, live, now_us)
    assert (counts.state, counts.good, counts.uncertain, counts.bad) == ("bad", 1, 1, 1)
    assert roll_up(unit, live, now_us + 60 * US_PER_S).state == "stale"


def screen(values: Any, *, points: int = 50, status: Any = 0, step_us: int = US_PER_S) -> Any:
    count = len(values)
    times = np.arange(count, dtype=np.int64) * step_us
    batch = make_batch(
        np.ones(count, np.int64),
        times,
        np.asarray(values, float),
        status=status,
        received_timestamp_us=0,
    )
    end_us = count * step_us
    if count > 2 * points:
        times_us, status = times, np.broadcast_to(np.asarray(status, np.uint32), count)
        buckets = downsample(
            times_us, np.asarray(values, float), status, bucket_edges(0, end_us, points)
        )
        found = of_buckets(buckets, end_us / points, 1_000)
    else:
        found = for_screen(batch, 1_000)
    msgspec.json.encode(found)
    return found


@given(st.integers(500, 3_000), st.integers(0, 2**32 - 1), st.integers(10, 60))
def test_reduction_keeps_the_extremes_of_every_bucket(count: int, seed: int, points: int) -> None:
    values = np.random.default_rng(seed).normal(0, 1, count)
    found = screen(values, points=points)
    shown = [v for v in found["v"] if v is not None]
    assert max(shown) == values.max() and min(shown) == values.min()
    assert found["samples"] == count
    assert found["t"] == sorted(found["t"])
    assert set(shown) <= set(values.tolist())
    if count > 2 * points:
        assert not found["raw"] and len(shown) <= 2 * (points + 1)


def test_few_samples_are_shown_as_they_are() -> None:
    found = screen([1.0, 2.0, 3.0])
    assert found["raw"] and found["v"] == [1.0, 2.0, 3.0] and found["t"] == [0, 1_000, 2_000]


def test_a_gap_breaks_the_line_and_bad_samples_are_shaded() -> None:
    times = np.array([0, 1, 2, 100, 101], np.int64) * US_PER_S
    batch = make_batch(np.ones(5, np.int64), times, np.arange(5.0), received_timestamp_us=0)
    found = for_screen(batch, 1_000)
    assert found["v"] == [0.0, 1.0, 2.0, None, 3.0, 4.0]
    status = np.zeros(6, np.uint32)
    status[2:4] = BAD_SENSOR_FAILURE
    found = screen(np.arange(6.0), status=status)
    assert found["v"] == [0.0, 1.0, None, 4.0, 5.0]
    assert found["bad"] == [[2_000.0, 4_000.0, 2]]
    assert screen([])["v"] == []


def test_a_lost_connection_is_shaded_until_it_returns() -> None:
    times = np.array([0, 1, 2, 3, 60, 61], np.int64) * US_PER_S
    status = np.array([0, 0, 0, BAD_NO_COMMUNICATION, 0, 0], np.uint32)
    values = np.arange(6.0)
    batch = make_batch(np.ones(6, np.int64), times, values, status=status, received_timestamp_us=0)
    assert for_screen(batch, 1_000)["bad"] == [[3_000.0, 60_000.0, 2]]


def test_a_gap_and_a_bad_time_show_in_reduced_data_too() -> None:
    values = np.arange(4_000.0)
    status = np.zeros(4_000, np.uint32)
    status[1_000:2_000] = BAD_SENSOR_FAILURE
    found = screen(values, status=status)
    assert not found["raw"] and None in found["v"]
    ((begin, end, severity),) = found["bad"]
    assert severity == 2 and begin <= 1_000_000 and 1_900_000 <= end <= 2_300_000
    assert not any(1_000 <= v < 2_000 for v in found["v"] if v is not None)


def test_the_reduced_data_are_small() -> None:
    found = screen(np.random.default_rng(1).normal(0, 1, 1_000_000), points=1_000, step_us=1_000)
    assert len(found["t"]) <= 2_000 and found["samples"] == 1_000_000
