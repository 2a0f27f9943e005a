"""The edge pipeline over whole columns equals a sample-by-sample one, and its books close."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from headrace.edge.pipeline import SILENCE_MAX_US, STEP_BACK_US, Pipeline
from headrace.model import status as st
from headrace.model.desired import TagConfig
from headrace.model.errors import Corrupt
from headrace.model.sample import make_batch

BANDS = {1: 0.0, 2: 0.5, 3: 2.0}


def tags(**extra: float) -> tuple[TagConfig, ...]:
    return tuple(
        TagConfig(tag_id=i, path=f"a/t{i}", address=str(i), deadband=band, **extra)
        for i, band in BANDS.items()
    )


def batch_of(rows: Sequence[tuple]):
    columns = list(zip(*rows, strict=True))
    return make_batch(
        np.array(columns[0]),
        np.array(columns[1], np.int64),
        np.array(columns[2], float),
        status=np.array(columns[3], np.uint32),
        received_timestamp_us=np.array(columns[4], np.int64) if len(columns) > 4 else 1,
    )


Row = tuple[int, int, float, int, int]
sample = some.tuples(
    some.sampled_from([1, 2, 3]),
    some.integers(0, 200).map(lambda s: s * 1_000_000),
    some.sampled_from([0.0, 0.4, 0.5, 0.6, 1.0, 2.4, 5.0, math.nan, math.inf, -math.inf]),
    some.sampled_from([st.GOOD, st.GOOD, st.GOOD, st.UNCERTAIN, st.BAD]),
    some.integers(0, 8).map(lambda s: s * 1_000_000),
)


def received_in_order(rows: list[Row]) -> list[Row]:
    """Each sample so many seconds after the one before it."""
    at_us = 0
    made = []
    for tag, source_us, value, status, later_us in rows:
        at_us += later_us
        made.append((tag, source_us, value, status, at_us))
    return made


samples = some.lists(sample, min_size=1, max_size=60).map(received_in_order)


@dataclass
class OneByOne:
    """The rules, written for one sample at a time."""

    newest: dict[int, tuple[int, float, int]] = field(default_factory=dict)
    older_since: dict[int, int] = field(default_factory=dict)

    def is_fresh(self, tag: int, at_us: int, received_us: int) -> bool:
        if tag not in self.newest or at_us >= self.newest[tag][0]:
            self.older_since.pop(tag, None)
            return True
        since = self.older_since.setdefault(tag, received_us)
        if received_us - since < STEP_BACK_US:
            return False
        del self.older_since[tag]
        return True


def one_by_one(rows: list[Row]) -> tuple[list[bool], OneByOne]:
    """Which samples pass, and what is the newest of each tag in the end."""
    last: dict[int, tuple[float, int, int]] = {}
    keep = []
    model = OneByOne()
    for tag, at_us, value, status, received_us in rows:
        if not model.is_fresh(tag, at_us, received_us):
            keep.append(True)
            continue
        model.newest[tag] = (at_us, value, status)
        passes = BANDS[tag] == 0.0 or tag not in last
        if not passes:
            old, old_us, old_status = last[tag]
            unsure = math.isnan(value) or math.isnan(old)
            silent = abs(at_us - old_us) >= SILENCE_MAX_US
            passes = unsure or abs(value - old) > BANDS[tag] or status != old_status or silent
        if passes:
            last[tag] = (value, at_us, status)
        keep.append(passes)
    return keep, model


@given(samples, some.integers(1, 7))
def test_any_chunking_filters_what_the_plain_rule_filters(rows, chunks):
    pipeline = Pipeline(tags())
    passed = []
    for part in np.array_split(np.arange(len(rows)), chunks):
        if len(part):
            passed += pipeline.process(batch_of([rows[i] for i in part])).rows()
    keeps, model = one_by_one(rows)
    kept = [row for row, keep in zip(rows, keeps, strict=True) if keep]
    assert [row[0] for row in passed] == [row[0] for row in kept]
    np.testing.assert_array_equal([row[2] for row in passed], [row[2] for row in kept])
    assert pipeline.counts.read == len(rows) == len(passed) + pipeline.counts.filtered
    assert pipeline.counts.bad == sum(st.is_bad(row[3]) for row in rows)
    usable = {
        tag: (value,) for tag, (_, value, status) in model.newest.items() if not st.is_bad(status)
    }
    marked = pipeline.stale((1, 2, 3), now_us=9)
    found = {tag: (math.nan if v is None else v,) for tag, v in marked[["tag_id", "value"]].rows()}
    assert found.keys() == usable.keys()
    for tag, value in usable.items():
        np.testing.assert_array_equal(found[tag], value)


def test_history_neither_is_the_last_value_nor_meets_the_band():
    pipeline = Pipeline(tags())
    second = 1_000_000
    pipeline.process(batch_of([(3, 100 * second, 50.0, st.GOOD, 0)]))
    past = [(3, s * second, 50.1, st.BAD if s == 9 else st.GOOD, 1) for s in range(10)]
    assert pipeline.process(batch_of(past)).height == 10
    assert not pipeline.is_bad(3)
    assert pipeline.process(batch_of([(3, 101 * second, 51.0, st.GOOD, 2)])).height == 0
    assert pipeline.stale((3,), now_us=9)["value"].to_list() == [51.0]


def test_a_clock_that_was_set_back_is_believed_after_ten_seconds():
    pipeline = Pipeline(tags())
    second = 1_000_000
    pipeline.process(batch_of([(1, 7_200 * second, 1.0, st.GOOD, 0)]))
    for s in range(12):
        pipeline.process(batch_of([(1, s * second, 2.0 + s, st.BAD if s else st.GOOD, s * second)]))
        assert pipeline.is_bad(1) == (s >= 10)


def test_scale_drops_the_exact_digits_that_no_longer_hold():
    pipeline = Pipeline((TagConfig(tag_id=1, path="a/b", address="x", scale=0.1, offset=1.0),))
    raw = make_batch(
        np.array([1]),
        np.array([0]),
        np.array([2.0**60]),
        received_timestamp_us=1,
        text=[str(2**60)],
    )
    out = pipeline.process(raw)
    assert out["text"][0] is None
    assert out["value"][0] == 2.0**60 * 0.1 + 1.0


def test_an_infinite_value_that_stays_is_filtered_as_any_other():
    pipeline = Pipeline(tags())
    first = batch_of([(2, 1, math.inf, st.GOOD)])
    assert pipeline.process(first)["value"].to_list() == [math.inf]
    assert pipeline.process(batch_of([(2, 2, math.inf, st.GOOD)])).height == 0
    assert pipeline.process(batch_of([(2, 3, -math.inf, st.GOOD)])).height == 1


def test_a_lost_connection_marks_each_tag_once():
    pipeline = Pipeline(tags())
    pipeline.process(batch_of([(1, 0, 5.0, st.GOOD), (2, 0, 6.0, st.BAD)]))
    lost = pipeline.lost(now_us=9)
    assert lost["tag_id"].to_list() == [1]
    assert lost["status"].to_list() == [st.BAD_NO_COMMUNICATION]
    assert lost["value"].to_list() == [None]
    assert pipeline.lost(now_us=10).height == 0
    assert pipeline.tags_bad == 3


def test_stale_repeats_the_last_value_as_uncertain_once():
    pipeline = Pipeline(tags())
    pipeline.process(batch_of([(1, 0, 5.0, st.GOOD)]))
    stale = pipeline.stale((1, 2), now_us=9)
    assert stale.select("tag_id", "value", "status").rows() == [
        (1, 5.0, st.UNCERTAIN_LAST_USABLE_VALUE)
    ]
    assert pipeline.stale((1, 2), now_us=10).height == 0


def test_a_foreign_tag_is_refused_and_nothing_is_counted():
    pipeline = Pipeline(tags())
    with pytest.raises(Corrupt, match="EDGE-1005"):
        pipeline.process(batch_of([(1, 0, 5.0, st.GOOD), (99, 0, 6.0, st.GOOD)]))
    assert pipeline.counts.read == 0


def test_retag_keeps_what_it_knows_of_tags_that_stay():
    pipeline = Pipeline(tags())
    pipeline.process(batch_of([(2, 0, 1.0, st.GOOD)]))
    pipeline.retag((*tags(), TagConfig(tag_id=0, path="a/new", address="n")))
    assert pipeline.process(batch_of([(2, 1, 1.1, st.GOOD)])).height == 0
    assert pipeline.process(batch_of([(0, 1, 1.1, st.GOOD)])).height == 1
