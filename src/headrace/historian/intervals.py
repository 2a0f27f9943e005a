"""What all OPC UA aggregates share: intervals, raw values in them, bounding values, regions.

Words and rules are those of OPC 10000-13 (1.05), clauses 3.1 and 5.4. Everything is arrays over intervals or
over raw values; nothing loops over samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from headrace.model.errors import Misconfigured
from headrace.model.status import (
    BAD_NO_DATA,
    GOOD,
    HISTORIAN_INTERPOLATED,
    UNCERTAIN_DATA_SUB_NORMAL,
)

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
StatusArray = npt.NDArray[np.uint32]

RESOLUTION_US: Final = 1_000
"""Time resolution of regions (5.4.2.4): the last value lasts this long, as in the examples of Annex A."""
INTERVALS_MAX: Final = 1_000_000


@dataclass(frozen=True)
class AggregateConfiguration:
    """AggregateConfigurationType (4.2.1.2), with the standard's defaults, and the tag's Stepped.

    Attributes:
        treat_uncertain_as_bad: Uncertain values count as Bad.
        percent_data_bad: the result is Bad from this share of Bad data on, in percent.
        percent_data_good: the result is Good from this share of Good data on, in percent.
        use_sloped_extrapolation: after the last value go on with its slope, else hold it.
        stepped: values hold until the next one (states, set-points), else lines join them.
    """

    treat_uncertain_as_bad: bool = True
    percent_data_bad: float = 100.0
    percent_data_good: float = 100.0
    use_sloped_extrapolation: bool = False
    stepped: bool = False


def interval_edges(start_us: int, end_us: int, interval_us: int) -> Int64Array:
    """Edges of the intervals over [start_us, end_us) (5.4.2.2); the last one may be shorter.

    Args:
        interval_us: ProcessingInterval; 0 means one interval.

    Raises:
        Misconfigured: HIST-1060 when the time is empty or there are more than a million intervals.

    Example:
        >>> interval_edges(0, 100, 40).tolist()
        [0, 40, 80, 100]
    """
    if end_us <= start_us or interval_us < 0:
        raise Misconfigured(
            "HIST-1060",
            f"no interval of {interval_us} us from {start_us} to {end_us} us",
            "Give an end after the start, and an interval above zero.",
        )
    width = interval_us or end_us - start_us
    count = -(-(end_us - start_us) // width)
    if count > INTERVALS_MAX:
        raise Misconfigured(
            "HIST-1060",
            f"{count} intervals, more than {INTERVALS_MAX}",
            "Ask for a longer interval or a shorter time.",
        )
    edges = start_us + width * np.arange(count + 1, dtype=np.int64)
    edges[-1] = end_us
    return edges


@dataclass(frozen=True)
class Bound:
    """Bounding values at some times, shape (n,). A Bad one has value NaN."""

    value: Float64Array
    status: StatusArray


class Raw:
    """Raw values of one tag around a request, and where the intervals lie in them.

    Args:
        at_us: ascending, shape (m,); with the values before and after the request that bounds need.
        value: NaN where there is no number; a value that is not finite counts as Bad in
            calculations.
        status: StatusCodes.
        edges: of the n intervals, shape (n+1,).
        has_text: values that are text; they count by their status although they have no number.
    """

    def __init__(
        self,
        at_us: Int64Array,
        value: Float64Array,
        status: StatusArray,
        edges: Int64Array,
        configuration: AggregateConfiguration,
        *,
        has_text: BoolArray | None = None,
    ) -> None:
        begin = _first_data(status)
        self.at_us, self.value, self.status = at_us[begin:], value[begin:], status[begin:]
        self.edges, self.configuration = edges, configuration
        self.severity = np.minimum(self.status >> 30, 2).astype(np.int8)
        numberless = ~np.isfinite(self.value)
        if has_text is not None:
            numberless &= ~has_text[begin:]
        self.severity[numberless] = 2
        bad_from = 1 if configuration.treat_uncertain_as_bad else 2
        self.bad: BoolArray = self.severity >= bad_from
        self.good: BoolArray = self.severity == 0
        self.places = np.searchsorted(self.at_us, edges)

    @property
    def starts(self) -> Int64Array:
        return self.edges[:-1]

    @property
    def ends(self) -> Int64Array:
        return self.edges[1:]

    @cached_property
    def count(self) -> Int64Array:
        """Raw values in each interval."""
        count: Int64Array = np.diff(self.places)
        return count

    def count_of(self, mask: BoolArray) -> Int64Array:
        """How many raw values of each interval are in ``mask``."""
        total = np.append(0, np.cumsum(mask, dtype=np.int64))
        return np.asarray(total[self.places[1:]] - total[self.places[:-1]])

    @cached_property
    def has_data(self) -> BoolArray:
        """Intervals that are neither before the start nor after the end of the data."""
        if not len(self.at_us):
            return np.zeros(len(self.starts), np.bool_)
        return np.asarray((self.ends > self.at_us[0]) & (self.starts <= self.at_us[-1]))

    @cached_property
    def is_partial(self) -> BoolArray:
        """Intervals that reach beyond the data (5.3.3.2)."""
        if not len(self.at_us):
            return np.zeros(len(self.starts), np.bool_)
        return np.asarray((self.starts < self.at_us[0]) | (self.ends > self.at_us[-1]))

    def interpolated(self, at_us: Int64Array, *, stepped: bool) -> Bound:
        """Interpolated bounding values (3.1.8): between the non-Bad values around each time."""
        usable = np.flatnonzero(~self.bad)
        n = len(at_us)
        if not len(usable):
            return Bound(np.full(n, np.nan), np.full(n, BAD_NO_DATA, np.uint32))
        times, values = self.at_us[usable], self.value[usable]
        after = np.searchsorted(times, at_us)
        before = after - 1
        has_before, has_after = before >= 0, after < len(usable)
        low, high = np.maximum(before, 0), np.minimum(after, len(usable) - 1)
        exact = has_after & (times[high] == at_us)
        value = np.where(
            has_after & (not stepped),
            _line(times[low], values[low], times[high], values[high], at_us),
            self._extrapolated(times, values, low, at_us, has_after, stepped),
        )
        last_raw = np.searchsorted(self.at_us, at_us, side="right") - 1
        skipped = (
            last_raw > usable[low] if stepped else has_after & (usable[high] - usable[low] > 1)
        )
        unsure = self.severity[usable] == 1
        doubtful = skipped | unsure[low] | ~has_after | (unsure[high] & (not stepped))
        status = np.where(doubtful, UNCERTAIN_DATA_SUB_NORMAL, GOOD) | HISTORIAN_INTERPOLATED
        value = np.where(exact, values[high], np.where(has_before, value, np.nan))
        status = np.where(
            exact,
            self.status[usable[high]],
            np.where(has_before, status, BAD_NO_DATA),
        )
        return Bound(value, status.astype(np.uint32))

    def _extrapolated(
        self,
        times: Int64Array,
        values: Float64Array,
        low: Int64Array,
        at_us: Int64Array,
        has_after: BoolArray,
        stepped: bool,
    ) -> Float64Array:
        """The last value held, or its slope continued where that is configured."""
        if stepped or not self.configuration.use_sloped_extrapolation or len(times) < 2:
            return values[low]
        sloped = _line(times[[-2]], values[[-2]], times[[-1]], values[[-1]], at_us)
        return np.asarray(np.where(has_after, values[low], sloped))

    def simple(self, at_us: Int64Array) -> Bound:
        """Simple bounding values (3.1.9): between the raw values around each time, Bad or not."""
        n = len(at_us)
        if not len(self.at_us):
            return Bound(np.full(n, np.nan), np.full(n, BAD_NO_DATA, np.uint32))
        last = len(self.at_us) - 1
        before = np.searchsorted(self.at_us, at_us, side="right") - 1
        low, high = np.maximum(before, 0), np.minimum(before + 1, last)
        exact = (before >= 0) & (self.at_us[low] == at_us)
        held = self.configuration.stepped | (before >= last) | self.bad[high]
        line = _line(self.at_us[low], self.value[low], self.at_us[high], self.value[high], at_us)
        value = np.where(held, self.value[low], line)
        unsure = self.severity[low] == 1
        if not self.configuration.stepped:
            unsure = unsure | ((before < last) & (self.severity[high] > 0))
        unsure = unsure | (at_us > self.at_us[-1])
        status = np.where(unsure, UNCERTAIN_DATA_SUB_NORMAL, GOOD) | HISTORIAN_INTERPOLATED
        nothing = (before < 0) | self.bad[low]
        status = np.where(nothing, BAD_NO_DATA, np.where(exact, self.status[low], status))
        return Bound(np.where(nothing, np.nan, value), status.astype(np.uint32))


@dataclass(frozen=True)
class Regions:
    """The time of the intervals cut at every raw value and every edge, shape (r,).

    Attributes:
        interval: which interval each region lies in.
        duration_us: its length.
        severity: of the simple bound at its start: 0 Good, 1 Uncertain, 2 Bad; with
            TreatUncertainAsBad an Uncertain raw value makes it Bad.
        start, end: values at its ends; NaN in Bad regions.
        doubtful: ends in a value that is not Good although lines join values (5.4.3.2.2).
    """

    interval: Int64Array
    duration_us: Int64Array
    severity: npt.NDArray[np.int8]
    start: Float64Array
    end: Float64Array
    doubtful: BoolArray

    def total_us(self, mask: BoolArray, intervals: int) -> Float64Array:
        """Duration of the masked regions in each interval, us."""
        weights = np.where(mask, self.duration_us, 0)
        return np.bincount(self.interval, weights, minlength=intervals).astype(np.float64)


def regions_of(raw: Raw) -> Regions:
    """Regions with simple bounding values; time after the last value is in none."""
    data_end = raw.at_us[-1] + RESOLUTION_US if len(raw.at_us) else raw.edges[0]
    inside = raw.at_us[(raw.at_us > raw.edges[0]) & (raw.at_us < raw.edges[-1])]
    cuts = np.unique(np.concatenate([raw.edges, inside, [data_end]]))
    cuts = cuts[(cuts >= raw.edges[0]) & (cuts <= min(raw.edges[-1], data_end))]
    if len(cuts) < 2:
        none = np.empty(0, np.int64)
        empty = np.empty(0, np.float64)
        return Regions(none, none, none.astype(np.int8), empty, empty, none > 0)
    begin, end = cuts[:-1], cuts[1:]
    last = len(raw.at_us) - 1
    place = np.searchsorted(raw.at_us, begin, side="right") - 1
    low, high = np.maximum(place, 0), np.minimum(place + 1, last)
    bad = (place < 0) | raw.bad[low]
    sloped = ~(raw.configuration.stepped | (place >= last) | raw.bad[high])
    lines = (raw.at_us[low], raw.value[low], raw.at_us[high], raw.value[high])
    start: Float64Array = np.where(sloped, _line(*lines, begin), raw.value[low])
    finish: Float64Array = np.where(sloped, _line(*lines, end), raw.value[low])
    start[bad] = finish[bad] = np.nan
    toward = np.zeros(len(begin), np.bool_)
    if not raw.configuration.stepped:
        toward = (place < last) & (raw.severity[high] > 0)
    severity = np.where(raw.severity[low] == 1, 1, 0)
    severity = np.where(toward & (raw.at_us[low] != begin), np.maximum(severity, 1), severity)
    return Regions(
        interval=np.searchsorted(raw.edges, begin, side="right") - 1,
        duration_us=end - begin,
        severity=np.where(bad, 2, severity).astype(np.int8),
        start=start,
        end=finish,
        doubtful=toward & ~bad,
    )


def _line(
    t0: Int64Array, v0: Float64Array, t1: Int64Array, v1: Float64Array, at: Int64Array
) -> Float64Array:
    """The straight line through two points, at some times; v0 where the points fall together."""
    span = (t1 - t0).astype(np.float64)
    share = np.divide(at - t0, span, out=np.zeros(len(at)), where=span > 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(v0 + share * (v1 - v0))


def _first_data(status: StatusArray) -> int:
    """Leading Bad_NoData says that the archive begins there; data begin after it."""
    data = np.flatnonzero((status & 0xFFFF_0000) != BAD_NO_DATA)
    return int(data[0]) if len(data) else len(status)
