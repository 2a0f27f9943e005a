"""Trends: every bucket's numbers equal those of a plain loop over its samples."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.historian.downsample import bucket_edges, downsample

samples = st.lists(
    st.tuples(
        st.integers(0, 1000),
        st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))),
        st.sampled_from([0, 0x40000000, 0x80340000]),
    ),
    max_size=60,
    unique_by=lambda sample: sample[0],
).map(sorted)


@given(samples, st.integers(1, 40))
def test_each_bucket_equals_a_plain_loop(points: list[tuple[int, float, int]], count: int) -> None:
    edges = bucket_edges(0, 1001, count)
    assert len(edges) - 1 <= count
    found = downsample(
        np.array([p[0] for p in points], np.int64),
        np.array([p[1] for p in points], np.float64),
        np.array([p[2] for p in points], np.uint32),
        edges,
    )
    rows = iter(found.iter_rows(named=True))
    for low, high in itertools.pairwise(edges):
        inside = [p for p in points if low <= p[0] < high]
        if not inside:
            continue
        row = next(rows)
        numbers = [p for p in inside if p[2] < 0x80000000 and not np.isnan(p[1])]
        assert row["count"] == len(inside)
        assert row["bad"] == sum(p[2] >= 0x80000000 for p in inside)
        assert row["status_worst"] == max(p[2] for p in inside)
        if not numbers:
            assert row["minimum"] is row["maximum"] is row["first"] is row["last"] is None
            assert row["minimum_timestamp"] is row["maximum_timestamp"] is None
            continue
        values = [p[1] for p in numbers]
        assert (row["minimum"], row["maximum"]) == (min(values), max(values))
        assert (row["first"], row["last"]) == (values[0], values[-1])
        when = {p[0]: p[1] for p in numbers}
        assert when[_us(row["minimum_timestamp"])] == row["minimum"]
        assert when[_us(row["maximum_timestamp"])] == row["maximum"]
    assert next(rows, None) is None


def _us(at: object) -> int:
    return round(at.timestamp() * 1e6)  # type: ignore[attr-defined] # a datetime
