"""A trend's points: one row a bucket of equal width, with minimum and maximum kept, so no spike is lost."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.model.sample import TIMESTAMP

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

BUCKET_SCHEMA: Final = {
    "bucket_start": TIMESTAMP,
    "count": pl.UInt32(),
    "bad": pl.UInt32(),
    "minimum": pl.Float64(),
    "minimum_timestamp": TIMESTAMP,
    "maximum": pl.Float64(),
    "maximum_timestamp": TIMESTAMP,
    "first": pl.Float64(),
    "last": pl.Float64(),
    "status_worst": pl.UInt32(),
}


def empty_buckets() -> pl.DataFrame:
    """No buckets."""
    return pl.DataFrame(schema=BUCKET_SCHEMA)


def bucket_edges(start_us: int, end_us: int, points: int) -> Int64Array:
    """Edges of at most ``points`` buckets of equal width over [start_us, end_us), int64 (buckets+1,)."""
    width = max(-(-(end_us - start_us) // points), 1)
    edges = np.arange(start_us, end_us + width, width, dtype=np.int64)
    edges[-1] = end_us
    return edges


def downsample(
    at_us: Int64Array,
    value: Float64Array,
    status: npt.NDArray[np.uint32],
    edges: Int64Array,
) -> pl.DataFrame:
    """One row for each bucket that has samples.

    Args:
        at_us: ascending source timestamps, shape (n,).
        value: shape (n,); NaN where there is no number.
        status: StatusCodes, shape (n,).
        edges: of the buckets, ascending, shape (b+1,).

    Returns:
        Columns of :data:`BUCKET_SCHEMA`. Bad samples count in ``bad`` and ``status_worst`` and are in no
        other number; a bucket of Bad samples alone has null values.

    Example:
        >>> at = np.arange(6)
        >>> rows = downsample(at, np.array([1, 9, 1, 2, 2, 2.0]), np.zeros(6, np.uint32),
        ...                   np.array([0, 3, 6]))
        >>> rows["maximum"].to_list()
        [9.0, 2.0]
    """
    places = np.searchsorted(at_us, edges)
    filled = np.flatnonzero(places[1:] > places[:-1])
    if not len(filled):
        return empty_buckets()
    begin, end = places[filled], places[filled + 1]
    at_us, value, status = at_us[begin[0] : end[-1]], value[begin[0] : end[-1]], status[begin[0] :]
    status = status[: len(at_us)]
    starts = begin - begin[0]
    bad = status >= 0x8000_0000
    usable = np.where(bad, np.nan, value) if bad.any() else value
    low, high = np.fmin.reduceat(usable, starts), np.fmax.reduceat(usable, starts)
    counts = end - begin
    number = np.flatnonzero(~np.isnan(usable))
    rows: dict[str, npt.NDArray[Any]] = {
        "bucket_start": edges[filled],
        "count": counts.astype(np.uint32),
        "bad": np.add.reduceat(bad, starts, dtype=np.int64).astype(np.uint32),
        "minimum": low,
        "minimum_timestamp": _when(at_us, usable, low, starts, counts),
        "maximum": high,
        "maximum_timestamp": _when(at_us, usable, high, starts, counts),
        "first": _first_number(usable, number, starts, low),
        "last": _last_number(usable, number, starts + counts - 1, low),
        "status_worst": _worst(status, starts),
    }
    return pl.DataFrame([_column(name, column, low) for name, column in rows.items()])


def _column(name: str, column: npt.NDArray[Any], low: Float64Array) -> pl.Series:
    """A column of the result; nulls where a bucket has no number."""
    if BUCKET_SCHEMA[name] == pl.Float64:
        return pl.Series(name, column, nan_to_null=True)
    if BUCKET_SCHEMA[name] != TIMESTAMP:
        return pl.Series(name, column)
    at = pl.Series(name, column)
    empty = np.flatnonzero(np.isnan(low))
    if name != "bucket_start" and len(empty):
        at = at.scatter(empty, None)
    return at.cast(TIMESTAMP)


def _when(
    at_us: Int64Array,
    usable: Float64Array,
    extreme: Float64Array,
    starts: Int64Array,
    counts: Int64Array,
) -> Int64Array:
    """When each bucket first had its extreme; the bucket's first time where it has none."""
    hits = np.flatnonzero(usable == np.repeat(extreme, counts))
    if not len(hits):
        return at_us[starts]
    found = hits[np.minimum(np.searchsorted(hits, starts), len(hits) - 1)]
    inside = (found >= starts) & (found < starts + counts)
    return np.asarray(at_us[np.where(inside, found, starts)])


def _first_number(
    usable: Float64Array, number: Int64Array, starts: Int64Array, low: Float64Array
) -> Float64Array:
    if not len(number):
        return low
    found = number[np.minimum(np.searchsorted(number, starts), len(number) - 1)]
    return np.asarray(np.where(np.isnan(low), np.nan, usable[found]))


def _last_number(
    usable: Float64Array, number: Int64Array, ends: Int64Array, low: Float64Array
) -> Float64Array:
    if not len(number):
        return low
    found = number[np.maximum(np.searchsorted(number, ends, side="right") - 1, 0)]
    return np.asarray(np.where(np.isnan(low), np.nan, usable[found]))


def _worst(status: npt.NDArray[np.uint32], starts: Int64Array) -> npt.NDArray[np.uint32]:
    """The status of highest severity in each bucket; among equals the numerically highest."""
    return np.maximum.reduceat(status, starts)
