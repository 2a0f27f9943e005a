"""History for the console: the historian's reader in threads, and envelopes for the screen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.model.sample import Int64Array
from headrace.model.time import US_PER_MS

READS_AT_ONCE: Final = 4
GAP_MEDIANS: Final = 8
GAP_INTERVALS: Final = 5


class SampleReader(Protocol):
    """What is used of :class:`headrace.historian.reader.Reader`; calls block."""

    def read(
        self, tag_ids: Sequence[int], start_us: int, end_us: int, limit: int | None = None
    ) -> pl.DataFrame: ...

    def last(self, tag_ids: Sequence[int]) -> pl.DataFrame: ...


class History:
    """Reads in threads, a few at once, so that no user can take all of the machine.

    Args:
        reader: the historian's reader, table plus tail.
    """

    def __init__(self, reader: SampleReader) -> None:
        self._reader = reader
        self._turns = asyncio.Semaphore(READS_AT_ONCE)

    async def read(
        self, tag_ids: Sequence[int], start_us: int, end_us: int, limit: int | None = None
    ) -> pl.DataFrame:
        """Raw samples in [start_us, end_us), sorted by tag and time."""
        async with self._turns:
            return await asyncio.to_thread(self._reader.read, tag_ids, start_us, end_us, limit)

    async def last(self, tag_ids: Sequence[int]) -> pl.DataFrame:
        """The newest sample of each tag."""
        async with self._turns:
            return await asyncio.to_thread(self._reader.last, tag_ids)

    async def aggregate(
        self, tag_ids: Sequence[int], start_us: int, end_us: int, every_us: int, name: str
    ) -> pl.DataFrame:
        """An aggregate of OPC UA Part 13 for each interval of ``every_us``, as a batch."""
        aggregate: Any = self._reader.aggregate  # type: ignore[attr-defined] # newer readers have it
        async with self._turns:
            found: pl.DataFrame = await asyncio.to_thread(
                aggregate, tag_ids, start_us, end_us, every_us, name
            )
            return found

    async def screen(
        self, tag_id: int, start_us: int, end_us: int, points: int, scan_interval_ms: int
    ) -> dict[str, Any]:
        """One tag as a screen draws it; see :func:`for_screen`."""

        def read() -> dict[str, Any]:
            batch = self._reader.read([tag_id], start_us, end_us)
            return for_screen(batch, start_us, end_us, points, scan_interval_ms)

        async with self._turns:
            return await asyncio.to_thread(read)


def for_screen(
    batch: pl.DataFrame, start_us: int, end_us: int, points: int, scan_interval_ms: int
) -> dict[str, Any]:
    """Samples of one tag, reduced so that every pixel keeps its lowest and highest value.

    Each of ``points`` buckets gives its minimum and its maximum at their own times, in time order.
    Where samples stop for long a null breaks the line. Spans whose samples are not Good are given
    apart.

    Args:
        batch: one tag's samples, sorted by time.
        start_us, end_us: the window, UTC microseconds.
        points: buckets, about one for each pixel.
        scan_interval_ms: for telling a gap from a slow tag.

    Returns:
        ``t`` (UTC ms), ``v`` (null where broken), ``bad`` ([from, to, severity] in ms),
        ``samples`` (how many there are), ``raw`` (true when every sample is in ``t``).
    """
    times = batch["source_timestamp"].to_physical().to_numpy()
    status = batch["status"].to_numpy()
    values = batch["value"].fill_null(float("nan")).to_numpy()
    gap_us = _gap_us(times, scan_interval_ms)
    bad = _bad_spans(times, status, gap_us)
    keep = np.isfinite(values) & (status >> 30 < 2)
    kept_times, kept_values = times[keep], values[keep]
    raw = len(kept_times) <= 2 * points
    if not raw:
        index = _extremes(kept_times, kept_values, start_us, end_us, points)
        gap_us = max(gap_us, 3 * (end_us - start_us) // points)
        kept_times, kept_values = kept_times[index], kept_values[index]
    at_us, shown = _broken(kept_times, kept_values, gap_us, times[~keep])
    return {
        "t": (at_us / US_PER_MS).round(3).tolist(),
        "v": [None if v != v else v for v in shown.tolist()],
        "bad": bad,
        "samples": len(times),
        "raw": raw,
    }


def _extremes(
    times: Int64Array,
    values: npt.NDArray[np.float64],
    start_us: int,
    end_us: int,
    points: int,
) -> Int64Array:
    """Indices of the first, the lowest, the highest and the last sample of each bucket."""
    width = max(1, (end_us - start_us) // points)
    row = pl.int_range(pl.len(), dtype=pl.Int64).alias("row")
    frame = pl.DataFrame({"bucket": (times - start_us) // width, "value": values}).with_columns(row)
    found = frame.group_by("bucket").agg(
        pl.col("row").first().alias("first"),
        pl.col("row").get(pl.col("value").arg_min()).alias("low"),
        pl.col("row").get(pl.col("value").arg_max()).alias("high"),
        pl.col("row").last().alias("last"),
    )
    return np.unique(found.drop("bucket").to_numpy())


def _gap_us(times: Int64Array, scan_interval_ms: int) -> int:
    """A pause longer than this is a gap: judged by the tag's own pace, for event-driven tags too."""
    least = GAP_INTERVALS * max(scan_interval_ms, 200) * US_PER_MS
    if len(times) < 3:
        return max(least, 60_000 * US_PER_MS)
    return max(least, GAP_MEDIANS * int(np.median(np.diff(times))))


def _broken(
    times: Int64Array,
    values: npt.NDArray[np.float64],
    gap_us: int,
    lost_times: Int64Array,
) -> tuple[Int64Array, npt.NDArray[np.float64]]:
    """The line with a NaN put into each gap, and where a sample without a number lies between."""
    if len(times) < 2:
        return times, values
    breaks = np.diff(times) > gap_us
    if len(lost_times):
        place = np.searchsorted(times, lost_times)
        inside = place[(place > 0) & (place < len(times))]
        breaks[inside - 1] = True
    after = np.flatnonzero(breaks) + 1
    middle = (times[after - 1] + times[after]) // 2
    return np.insert(times, after, middle), np.insert(values, after, np.nan)


def _bad_spans(times: Int64Array, status: npt.NDArray[np.uint32], gap_us: int) -> list[list[float]]:
    """[from ms, to ms, severity] of each run of samples that are not Good; at most 500."""
    if not len(times):
        return []
    severity = np.minimum(status >> 30, 2).astype(np.int8)
    starts = np.flatnonzero(np.diff(severity, prepend=np.int8(-1)))
    ends = np.append(starts[1:], len(times))
    spans: list[list[float]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if severity[start] and len(spans) < 500:
            until = times[end] if end < len(times) else times[end - 1] + gap_us // GAP_INTERVALS
            until = min(int(until), int(times[end - 1]) + gap_us)
            begin = float(times[start]) / US_PER_MS
            spans.append([begin, until / US_PER_MS, int(severity[start])])
    return spans
