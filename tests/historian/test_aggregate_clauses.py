"""Aggregates without a worked example against the words of their clauses (OPC 10000-13, 1.05), value by value.

Where the data begin and end, and which intervals are partial, is common to all and is tested by the
examples of Annex A; here only what each clause itself says.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from test_aggregates import HISTORIANS, NOON_US

from headrace.historian.aggregates import calculate
from headrace.historian.intervals import AggregateConfiguration, Raw, interval_edges
from headrace.model import status as codes

GOOD, UNSURE, BAD = codes.GOOD, codes.UNCERTAIN, codes.BAD
DOUBT, NOTHING = codes.UNCERTAIN_DATA_SUB_NORMAL, codes.BAD_NO_DATA
CALCULATED, MULTIPLE = codes.HISTORIAN_CALCULATED, codes.HISTORIAN_MULTI_VALUE
Sample = tuple[int, float, int]
Answer = tuple[float, int]
"""Value and StatusCode; NaN for none."""


def range_of(inside: list[Sample], before: list[Sample], raw: Raw) -> Answer:
    """5.4.3.14: maximum minus minimum Good value; Uncertain_DataSubNormal when Bad values exist or an
    Uncertain value is beyond the Good ones."""
    good = [v for _, v, s in inside if s == GOOD]
    if not good:
        return math.nan, NOTHING
    treated_bad = raw.configuration.treat_uncertain_as_bad
    spoilt = any(
        s == BAD or (s == UNSURE and (treated_bad or not min(good) <= v <= max(good)))
        for _, v, s in inside
    )
    return max(good) - min(good), (DOUBT if spoilt else GOOD) | CALCULATED


def delta(inside: list[Sample], before: list[Sample], raw: Raw) -> Answer:
    """5.4.3.27: latest minus earliest Good value; Uncertain_DataSubNormal when values that are not Good were
    skipped while looking for the first or last; Bad_NoData without Good values."""
    good = [v for _, v, s in inside if s == GOOD]
    if not good:
        return math.nan, NOTHING
    skipped = inside[0][2] != GOOD or inside[-1][2] != GOOD
    return good[-1] - good[0], (DOUBT if skipped else GOOD) | CALCULATED


def transitions(inside: list[Sample], before: list[Sample], raw: Raw) -> Answer:
    """5.4.3.24: changes between non-Bad values, the first compared with the non-Bad value before the
    interval; without one it is a transition. The status by PercentValues (5.4.3.2.1)."""
    worst_used = GOOD if raw.configuration.treat_uncertain_as_bad else UNSURE
    usable = [v for _, v, s in before if s <= worst_used][-1:]
    known = len(usable)
    usable += [v for _, v, s in inside if s <= worst_used]
    count = sum(a != b for a, b in itertools.pairwise(usable))
    count += not known and len(usable) > 0
    bad = sum(s > worst_used for _, _, s in inside) * 100 / max(len(inside), 1)
    status = GOOD
    if any(s == UNSURE for _, _, s in inside) and worst_used == UNSURE:
        status = DOUBT
    if bad > 0 and 100 - bad < raw.configuration.percent_data_good:
        status = BAD if bad >= raw.configuration.percent_data_bad else DOUBT
    return (math.nan, status) if status == BAD else (count, status | CALCULATED)


def worst_quality(inside: list[Sample], before: list[Sample], raw: Raw) -> Answer:
    """5.4.3.35: the worst severity's first StatusCode; MultipleValues when several have it;
    TreatUncertainAsBad is ignored; always Good, Calculated."""
    if not inside:
        return math.nan, NOTHING
    worst = max(s >> 30 for _, _, s in inside)
    hits = [s for _, _, s in inside if s >> 30 == worst]
    return hits[0], GOOD | CALCULATED | (MULTIPLE if len(hits) > 1 else 0)


CLAUSES = {
    "Range": range_of,
    "Delta": delta,
    "NumberOfTransitions": transitions,
    "WorstQuality": worst_quality,
}


def check(name: str, samples: list[Sample], raw: Raw) -> None:
    result = calculate(name, raw)
    partial = codes.HISTORIAN_PARTIAL
    for index, (start, end) in enumerate(zip(raw.starts, raw.ends, strict=True)):
        told = f"{name}, interval {index} of {samples}"
        if not raw.has_data[index]:
            assert result.status[index] == NOTHING, told
            continue
        inside = [each for each in samples if start <= each[0] < end]
        before = [each for each in samples if each[0] < start]
        value, status = CLAUSES[name](inside, before, raw)
        np.testing.assert_equal(float(result.value[index]), float(value), told)
        assert result.status[index] & ~np.uint32(partial & 0xFF) == status & ~(partial & 0xFF), told
        assert result.at_us[index] == start, told


def raw_of(samples: list[Sample], configuration: AggregateConfiguration, step: int) -> Raw:
    at_us, value, status = (np.array(column) for column in zip(*samples, strict=True))
    edges = interval_edges(0, 60_000_000, step * 1_000_000)
    numbers = np.where(status == BAD, math.nan, value.astype(float))
    return Raw(at_us.astype(np.int64), numbers, status.astype(np.uint32), edges, configuration)


samples = some.lists(
    some.tuples(
        some.integers(0, 59).map(lambda s: s * 1_000_000),
        some.sampled_from([0.0, 1.0, 2.0, 5.0]),
        some.sampled_from([GOOD, GOOD, GOOD, UNSURE, BAD]),
    ),
    min_size=1,
    max_size=25,
    unique_by=lambda each: each[0],
).map(sorted)
configurations = some.builds(
    AggregateConfiguration,
    treat_uncertain_as_bad=some.booleans(),
    percent_data_bad=some.sampled_from([50.0, 100.0]),
    percent_data_good=some.sampled_from([50.0, 100.0]),
    stepped=some.booleans(),
)


@pytest.mark.parametrize("name", CLAUSES)
@given(samples, configurations, some.integers(3, 60))
def test_the_words_of_the_clause(
    name: str, samples: list[Sample], configuration: AggregateConfiguration, step: int
) -> None:
    check(name, samples, raw_of(samples, configuration, step))


@given(samples, configurations, some.integers(3, 60))
def test_total_is_the_time_average_by_seconds(
    samples: list[Sample], configuration: AggregateConfiguration, step: int
) -> None:
    """5.4.3.8 and 5.4.3.9: the (second) time average multiplied by the interval's length in seconds."""
    raw = raw_of(samples, configuration, step)
    for total, average in (("Total", "TimeAverage"), ("Total2", "TimeAverage2")):
        found, mean = calculate(total, raw), calculate(average, raw)
        np.testing.assert_allclose(found.value, mean.value * (raw.ends - raw.starts) / 1e6)
        assert found.status.tolist() == mean.status.tolist()


@pytest.mark.parametrize("historian", HISTORIANS)
def test_an_end_bound_is_the_next_start_bound_and_calculated(historian: str) -> None:
    """5.4.3.29: the simple bounding value at EndTime, told at the start, Calculated always set."""
    configuration, values = HISTORIANS[historian]
    raw = Raw(
        np.array([v.at_us for v in values], np.int64),
        np.array([v.value for v in values]),
        np.array([v.status for v in values], np.uint32),
        interval_edges(NOON_US, NOON_US + 100_000_000, 5_000_000),
        configuration,
    )
    start, end = calculate("StartBound", raw), calculate("EndBound", raw)
    assert end.at_us.tolist() == raw.starts.tolist()
    compared = 0
    for index in range(len(raw.starts) - 1):
        if not (raw.has_data[index] and raw.has_data[index + 1]):
            continue
        compared += 1
        np.testing.assert_equal(end.value[index], start.value[index + 1])
        assert end.status[index] >> 16 == start.status[index + 1] >> 16
        if end.status[index] < codes.BAD:
            assert end.status[index] & CALCULATED == CALCULATED
    assert compared > 10
