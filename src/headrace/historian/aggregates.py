"""OPC UA aggregates by name, as OPC 10000-13 (1.05.07) clause 5.4.3 defines them.

Each takes the :class:`~headrace.historian.intervals.Raw` of one tag and gives one value and StatusCode an
interval. Good values are what most work on; Uncertain and Bad ones show in the StatusCode, whose low bits say
Calculated, Interpolated, Partial and MultipleValues. Durations are milliseconds, totals are per second.

Checked against the examples of Annex A (the 1.05.07 CSV, and 1.04 tables where the CSV has none); where an
example contradicts the text, the text wins. For Range, Delta, Total, NumberOfTransitions, WorstQuality and
EndBound we found no example: they are checked against the words of their clauses. See the tests
``test_aggregates.py`` and ``test_aggregate_clauses.py`` in ``tests/historian``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from headrace.historian.intervals import (
    AggregateConfiguration,
    BoolArray,
    Bound,
    Float64Array,
    Int64Array,
    Raw,
    StatusArray,
    regions_of,
)
from headrace.model.errors import Misconfigured
from headrace.model.status import (
    BAD,
    BAD_NO_DATA,
    GOOD,
    HISTORIAN_CALCULATED,
    HISTORIAN_MULTI_VALUE,
    HISTORIAN_PARTIAL,
    UNCERTAIN_DATA_SUB_NORMAL,
)


@dataclass(frozen=True)
class Result:
    """One aggregate over n intervals. ``value`` is NaN where there is none."""

    at_us: Int64Array
    value: Float64Array
    status: StatusArray


def calculate(name: str, raw: Raw) -> Result:
    """The aggregate of this name.

    Raises:
        Misconfigured: HIST-1061 when there is no such aggregate.
    """
    return _function(name)(raw)


def check_name(name: str) -> str:
    """The name itself when there is such an aggregate.

    Raises:
        Misconfigured: HIST-1061 when not.

    Example:
        >>> check_name("TimeAverage")
        'TimeAverage'
    """
    _function(name)
    return name


def _function(name: str) -> Callable[[Raw], Result]:
    if name not in AGGREGATES:
        raise Misconfigured(
            "HIST-1061",
            f"there is no aggregate {name!r}",
            f"Use one of {', '.join(AGGREGATES)}.",
        )
    return AGGREGATES[name]


# ---- StatusCodes -----------------------------------------------------------------------------


def _finish(
    raw: Raw,
    value: Float64Array,
    severe: npt.NDArray[np.uint32],
    *,
    at_us: Int64Array | None = None,
    bits: int | npt.NDArray[np.uint32] = HISTORIAN_CALCULATED,
) -> Result:
    """Put the bits on; intervals without data are Bad_NoData whatever was calculated."""
    status = severe | np.where(severe >= BAD, 0, bits).astype(np.uint32)
    partial = raw.is_partial & (severe < BAD)
    status = np.where(partial, status | HISTORIAN_PARTIAL, status)
    status = np.where(raw.has_data, status, BAD_NO_DATA).astype(np.uint32)
    value = np.where(status >= BAD, np.nan, value)
    return Result(raw.starts if at_us is None else at_us, value, status)


def _grade(raw: Raw, bad: Float64Array, good: Float64Array, unsure: BoolArray) -> StatusArray:
    """StatusCode from the percentages of Bad and Good data (5.4.3.2.1)."""
    configuration = raw.configuration
    result = np.where(unsure, UNCERTAIN_DATA_SUB_NORMAL, GOOD)
    some = bad > 0
    enough = good >= configuration.percent_data_good
    spoilt = bad >= configuration.percent_data_bad
    mixed = np.where(spoilt, BAD, UNCERTAIN_DATA_SUB_NORMAL)
    return np.where(some & ~enough, mixed, result).astype(np.uint32)


def _by_values(raw: Raw) -> StatusArray:
    """PercentValues: by counting raw values."""
    count = np.maximum(raw.count, 1)
    bad = raw.count_of(raw.bad) * 100.0 / count
    return _grade(raw, bad, 100.0 - bad, raw.count_of(~raw.bad & ~raw.good) > 0)


def _by_skipping(raw: Raw) -> StatusArray:
    """Uncertain when values that are not Good were skipped."""
    skipped = raw.count_of(~raw.good) > 0
    return np.where(skipped, UNCERTAIN_DATA_SUB_NORMAL, GOOD).astype(np.uint32)


def _or_no_data(status: StatusArray, there: BoolArray) -> StatusArray:
    return np.where(there, status, BAD_NO_DATA).astype(np.uint32)


# ---- values in an interval -------------------------------------------------------------------


def _sums(raw: Raw, of: Float64Array) -> Float64Array:
    """Sum of an array over the Good values of each interval."""
    interval = np.searchsorted(raw.edges, raw.at_us, side="right") - 1
    inside = raw.good & (raw.at_us >= raw.edges[0]) & (raw.at_us < raw.edges[-1])
    return np.bincount(interval[inside], of[inside], minlength=len(raw.starts)).astype(np.float64)


def _average(raw: Raw) -> Result:
    count = raw.count_of(raw.good)
    value = _sums(raw, raw.value) / np.maximum(count, 1)
    result = _finish(raw, value, _or_no_data(_by_values(raw), count > 0))
    whole = result.status & ~np.uint32(HISTORIAN_PARTIAL & 0xFF)  # Partial is never set on it
    return Result(result.at_us, result.value, np.where(count > 0, whole, result.status))


def _count(raw: Raw) -> Result:
    return _finish(raw, raw.count_of(raw.good).astype(np.float64), _by_values(raw))


def _variance_of(raw: Raw) -> tuple[Float64Array, Int64Array]:
    count = raw.count_of(raw.good)
    mean = _sums(raw, raw.value) / np.maximum(count, 1)
    interval = np.clip(np.searchsorted(raw.edges, raw.at_us, side="right") - 1, 0, len(mean) - 1)
    with np.errstate(invalid="ignore"):
        squares = (raw.value - mean[interval]) ** 2
    return _sums(raw, squares) / np.maximum(count - 1, 1), count


def _variance_sample(raw: Raw) -> Result:
    value, count = _variance_of(raw)
    return _finish(raw, value, _or_no_data(_by_skipping(raw), count > 0))


def _deviation_sample(raw: Raw) -> Result:
    value, count = _variance_of(raw)
    return _finish(raw, np.sqrt(value), _or_no_data(_by_skipping(raw), count > 0))


@dataclass(frozen=True)
class _Extreme:
    """The lowest (or highest) Good value of each interval: its place among the raw values."""

    place: Int64Array
    there: BoolArray
    value: Float64Array
    status: StatusArray
    multiple: BoolArray


def _extreme(raw: Raw, sign: int) -> _Extreme:
    places = np.flatnonzero(raw.good)
    values = sign * raw.value[places]
    cuts = np.searchsorted(places, raw.places)
    there = cuts[1:] > cuts[:-1]
    lowest = np.full(len(raw.starts), np.nan)
    where = np.zeros(len(raw.starts), np.int64)
    multiple = np.zeros(len(raw.starts), np.bool_)
    if there.any():
        first, end = cuts[:-1][there], cuts[1:][there]
        inner = slice(first[0], end[-1])
        lowest[there] = np.minimum.reduceat(values[inner], first - first[0])
        hits = np.flatnonzero(values[inner] == np.repeat(lowest[there], end - first)) + first[0]
        spot = np.searchsorted(hits, first)
        where[there] = places[hits[spot]]
        multiple[there] = np.searchsorted(hits, end) - spot > 1
    status = _beaten(raw, sign, lowest)
    return _Extreme(where, there, sign * lowest, _or_no_data(status, there), multiple)


def _beaten(raw: Raw, sign: int, lowest: Float64Array) -> StatusArray:
    """Uncertain where Bad values exist, or an Uncertain value lies beyond the extreme (5.4.3.10)."""
    worse = raw.count_of(raw.bad) > 0
    unsure = np.flatnonzero((raw.severity == 1) & ~raw.bad)
    inside = unsure[(raw.at_us[unsure] >= raw.edges[0]) & (raw.at_us[unsure] < raw.edges[-1])]
    interval = np.searchsorted(raw.edges, raw.at_us[inside], side="right") - 1
    beyond = interval[sign * raw.value[inside] < lowest[interval]]
    worse[beyond] = True
    return np.where(worse, UNCERTAIN_DATA_SUB_NORMAL, GOOD).astype(np.uint32)


def _extreme_at_start(raw: Raw, sign: int) -> Result:
    found = _extreme(raw, sign)
    at_us = raw.at_us[found.place] if len(raw.at_us) else raw.starts
    bits = np.where(found.there & (at_us == raw.starts), 0, HISTORIAN_CALCULATED)
    bits = np.where(found.multiple, bits | HISTORIAN_MULTI_VALUE, bits)
    return _finish(raw, found.value, found.status, bits=bits.astype(np.uint32))


def _extreme_actual_time(raw: Raw, sign: int) -> Result:
    found = _extreme(raw, sign)
    at_us = raw.at_us[found.place] if len(raw.at_us) else raw.starts
    bits = np.where(found.multiple, HISTORIAN_MULTI_VALUE, 0).astype(np.uint32)
    when = np.where(found.there & raw.has_data, at_us, raw.starts)
    return _finish(raw, found.value, found.status, at_us=when, bits=bits)


def _range(raw: Raw) -> Result:
    low, high = _extreme(raw, 1), _extreme(raw, -1)
    return _finish(raw, high.value - low.value, np.maximum(low.status, high.status))


def _raw_at(raw: Raw, place: Int64Array) -> Result:
    """A raw value as it is; a Bad one has no value (5.4.3.25, 5.4.3.26)."""
    if not len(raw.at_us):
        nothing = np.full(len(raw.starts), np.nan)
        return _finish(raw, nothing, np.full(len(raw.starts), BAD_NO_DATA, np.uint32))
    place = np.clip(place, 0, len(raw.at_us) - 1)
    there = raw.count > 0
    at_us = np.where(there, raw.at_us[place], raw.starts)
    status = _or_no_data(raw.status[place], there)
    return _finish(raw, raw.value[place], status, at_us=at_us, bits=0)


def _start(raw: Raw) -> Result:
    return _raw_at(raw, raw.places[:-1])


def _end(raw: Raw) -> Result:
    return _raw_at(raw, raw.places[1:] - 1)


def _delta(raw: Raw) -> Result:
    good = np.flatnonzero(raw.good)
    cuts = np.searchsorted(good, raw.places)
    there = cuts[1:] > cuts[:-1]
    if not len(good):
        nothing = np.full(len(there), np.nan)
        return _finish(raw, nothing, np.full(len(there), BAD_NO_DATA, np.uint32))
    first = good[np.minimum(cuts[:-1], len(good) - 1)]
    last = good[np.maximum(cuts[1:] - 1, 0)]
    skipped = there & ((first != raw.places[:-1]) | (last != raw.places[1:] - 1))
    status = np.where(skipped, UNCERTAIN_DATA_SUB_NORMAL, GOOD).astype(np.uint32)
    return _finish(raw, raw.value[last] - raw.value[first], _or_no_data(status, there))


def _transitions(raw: Raw) -> Result:
    usable = np.flatnonzero(~raw.bad)
    changed = np.zeros(len(raw.at_us), np.bool_)
    values = raw.value[usable]
    changed[usable] = np.append(True, values[1:] != values[:-1])[: len(usable)]
    return _finish(raw, raw.count_of(changed).astype(np.float64), _by_values(raw))


def _worst_quality(raw: Raw) -> Result:
    """The worst StatusCode as value: the highest severity, the first of it."""
    n = len(raw.starts)
    there = raw.count > 0
    value, multiple = np.full(n, np.nan), np.zeros(n, np.bool_)
    if there.any():
        first, end = raw.places[:-1][there], raw.places[1:][there]
        severity = np.minimum(raw.status >> 30, 2)[first[0] : end[-1]]
        worst = np.maximum.reduceat(severity, first - first[0])
        hits = np.flatnonzero(severity == np.repeat(worst, end - first)) + first[0]
        spot = np.searchsorted(hits, first)
        value[there] = raw.status[hits[spot]]
        multiple[there] = np.searchsorted(hits, end) - spot > 1
    bits = HISTORIAN_CALCULATED | np.where(multiple, HISTORIAN_MULTI_VALUE, 0)
    status = _or_no_data(np.zeros(n, np.uint32), there)
    return _finish(raw, value, status, bits=bits.astype(np.uint32))


# ---- bounds and time -------------------------------------------------------------------------


def _bound_result(raw: Raw, bound: Bound, bits: int) -> Result:
    return _finish(raw, bound.value, bound.status, bits=bits)


def _interpolative(raw: Raw) -> Result:
    """The only one that goes on after the end of data (5.4.3.4)."""
    bound = raw.interpolated(raw.starts, stepped=raw.configuration.stepped)
    return Result(raw.starts, bound.value, bound.status)


def _start_bound(raw: Raw) -> Result:
    result = _bound_result(raw, raw.simple(raw.starts), 0)
    before = raw.has_data & raw.is_partial & (result.status == BAD_NO_DATA)
    status = np.where(before, BAD_NO_DATA | HISTORIAN_PARTIAL, result.status)
    return Result(result.at_us, result.value, status.astype(np.uint32))


def _end_bound(raw: Raw) -> Result:
    """The value at the end, told at the start: Calculated is always set (5.4.3.29)."""
    return _bound_result(raw, raw.simple(raw.ends), HISTORIAN_CALCULATED)


def _time_average(raw: Raw) -> Result:
    """Area under lines between non-Bad values, whatever Stepped says (5.4.3.6)."""
    usable = np.flatnonzero(~raw.bad)
    n = len(raw.starts)
    if not len(usable):
        return _finish(raw, np.full(n, np.nan), np.full(n, BAD_NO_DATA, np.uint32))
    first_us = raw.at_us[usable[0]]
    inside = raw.at_us[usable]
    inside = inside[(inside > raw.edges[0]) & (inside < raw.edges[-1])]
    cuts = np.unique(np.concatenate([raw.edges, inside]))
    cuts = cuts[cuts >= first_us]
    if len(cuts) < 2:
        return _finish(raw, np.full(n, np.nan), np.full(n, BAD_NO_DATA, np.uint32))
    values = raw.interpolated(cuts, stepped=False).value
    lengths = np.diff(cuts).astype(np.float64)
    interval = np.searchsorted(raw.edges, cuts[:-1], side="right") - 1
    area = np.bincount(interval, lengths * (values[1:] + values[:-1]) / 2, minlength=n)
    width = np.bincount(interval, lengths, minlength=n)
    value = np.divide(area, width, out=np.full(n, np.nan), where=width > 0)
    return _finish(raw, value, _or_no_data(_time_average_status(raw, usable), width > 0))


def _time_average_status(raw: Raw, usable: Int64Array) -> StatusArray:
    """Uncertain when Bad values are skipped, Uncertain ones used, or the interval is partial."""
    times = raw.at_us[usable]
    low = np.maximum(np.searchsorted(times, raw.starts, side="right") - 1, 0)
    high = np.minimum(np.searchsorted(times, raw.ends), len(usable) - 1)
    skipped = usable[high] - usable[low] > high - low
    unsure = np.append(0, np.cumsum(raw.severity[usable] == 1))
    worse = skipped | (unsure[high + 1] > unsure[low]) | raw.is_partial
    return np.where(worse, UNCERTAIN_DATA_SUB_NORMAL, GOOD).astype(np.uint32)


def _time_average2(raw: Raw) -> Result:
    """Area under the regions that are not Bad, divided by their duration (5.4.3.7)."""
    regions, n = regions_of(raw), len(raw.starts)
    usable = regions.severity < 2
    mean = np.where(usable, (regions.start + regions.end) / 2, 0.0)
    area = np.bincount(regions.interval, mean * regions.duration_us, minlength=n)
    used = regions.total_us(usable, n)
    width = (raw.ends - raw.starts).astype(np.float64)
    unsure = regions.total_us(usable & ((regions.severity == 1) | regions.doubtful), n) > 0
    bad = (width - used) * 100.0 / width
    status = _grade(raw, bad, 100.0 - bad, unsure | raw.is_partial)
    value = np.divide(area, used, out=np.full(n, np.nan), where=used > 0)
    return _finish(raw, value, _or_no_data(status, used > 0))


def _per_second(average: Callable[[Raw], Result], raw: Raw) -> Result:
    result = average(raw)
    seconds = (raw.ends - raw.starts) / 1e6
    return Result(result.at_us, result.value * seconds, result.status)


def _durations(raw: Raw, severities: tuple[int, ...]) -> tuple[Float64Array, Float64Array]:
    """(duration of these regions, duration of all regions) of each interval, us."""
    regions, n = regions_of(raw), len(raw.starts)
    everything = np.ones(len(regions.severity), np.bool_)
    chosen = np.isin(regions.severity, severities)
    return regions.total_us(chosen, n), regions.total_us(everything, n)


def _duration(raw: Raw, severity: int) -> Result:
    chosen, _ = _durations(raw, (severity,))
    return _finish(raw, chosen / 1000.0, np.zeros(len(chosen), np.uint32))


def _percent(raw: Raw, severity: int) -> Result:
    chosen, all_of_it = _durations(raw, (severity,))
    return _finish(raw, chosen * 100.0 / np.maximum(all_of_it, 1), np.zeros(len(chosen), np.uint32))


def _duration_in_state(raw: Raw, *, zero: bool) -> Result:
    """Time in which the value at a region's start is (not) zero (5.4.3.22, 5.4.3.23)."""
    regions, n = regions_of(raw), len(raw.starts)
    usable = regions.severity < 2
    chosen = usable & ((regions.start == 0) == zero)
    everything = regions.total_us(np.ones(len(usable), np.bool_), n)
    bad = regions.total_us(~usable, n) * 100.0 / np.maximum(everything, 1)
    unsure = regions.total_us(regions.severity == 1, n) > 0
    return _finish(raw, regions.total_us(chosen, n) / 1000.0, _grade(raw, bad, 100.0 - bad, unsure))


AGGREGATES: Final[dict[str, Callable[[Raw], Result]]] = {
    "Interpolative": _interpolative,
    "Average": _average,
    "TimeAverage": _time_average,
    "TimeAverage2": _time_average2,
    "Total": lambda raw: _per_second(_time_average, raw),
    "Total2": lambda raw: _per_second(_time_average2, raw),
    "Minimum": lambda raw: _extreme_at_start(raw, 1),
    "Maximum": lambda raw: _extreme_at_start(raw, -1),
    "MinimumActualTime": lambda raw: _extreme_actual_time(raw, 1),
    "MaximumActualTime": lambda raw: _extreme_actual_time(raw, -1),
    "Range": _range,
    "Count": _count,
    "DurationInStateZero": lambda raw: _duration_in_state(raw, zero=True),
    "DurationInStateNonZero": lambda raw: _duration_in_state(raw, zero=False),
    "NumberOfTransitions": _transitions,
    "Start": _start,
    "End": _end,
    "Delta": _delta,
    "StartBound": _start_bound,
    "EndBound": _end_bound,
    "DurationGood": lambda raw: _duration(raw, 0),
    "DurationBad": lambda raw: _duration(raw, 2),
    "PercentGood": lambda raw: _percent(raw, 0),
    "PercentBad": lambda raw: _percent(raw, 2),
    "WorstQuality": _worst_quality,
    "StandardDeviationSample": _deviation_sample,
    "VarianceSample": _variance_sample,
}

STATUS_AGGREGATES: Final = frozenset(
    {"Count", "DurationGood", "DurationBad", "PercentGood", "PercentBad", "WorstQuality"}
)
"""Those that look at StatusCodes alone, so they work on text too."""

__all__ = [
    "AGGREGATES",
    "STATUS_AGGREGATES",
    "AggregateConfiguration",
    "Raw",
    "Result",
    "calculate",
    "check_name",
]
