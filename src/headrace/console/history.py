"""History for the console: the historian's reader in threads, and envelopes for the screen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.formula.plan import Plan
from headrace.historian.backtest import Outcome, Question, backtest
from headrace.historian.by_calendar import aggregate_windows
from headrace.historian.facts import table_facts
from headrace.historian.reader import Reader
from headrace.model.calendar import Window
from headrace.model.knowledge import AppsConfig
from headrace.model.sample import Int64Array
from headrace.model.time import US_PER_MS
from headrace.model.why_facts import TableFacts
from headrace.site.formulas import Laid, Tags, ground_of_equipment, ground_of_type

READS_AT_ONCE: Final = 4
RAW_PER_POINT: Final = 2
GAP_MEDIANS: Final = 8
GAP_INTERVALS: Final = 5


class Place(NamedTuple):
    """Where a formula is evaluated: equipment whose path matches a glob, or an asset type."""

    pattern: str = ""
    asset_type: str = ""


class History:
    """Reads in threads, a few at once, so that no user can take all of the machine.

    Args:
        reader: the historian's reader, table plus tail.
    """

    def __init__(self, reader: Reader) -> None:
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

    @property
    def reader(self) -> Reader:
        """For long work that has a pace of its own, which takes no turn of those who wait."""
        return self._reader

    async def facts(self, tag_id: int, *, live: bool) -> TableFacts:
        """Whether the history of a tag can be read now, and how far it has come."""
        return await table_facts(self._reader, tag_id, live=live)

    async def aggregate(
        self, tag_ids: Sequence[int], start_us: int, end_us: int, every_us: int, name: str
    ) -> pl.DataFrame:
        """An aggregate of OPC UA Part 13 for each interval of ``every_us``: columns ``tag_id``,
        ``timestamp``, ``value``, ``status``."""
        async with self._turns:
            return await asyncio.to_thread(
                self._reader.aggregate, tag_ids, name, start_us, end_us, every_us
            )

    async def by_calendar(
        self, tag_ids: Sequence[int], windows: Sequence[Window], name: str
    ) -> pl.DataFrame:
        """The same for each window of the plant calendar, with its true length: columns of
        :data:`headrace.historian.by_calendar.WINDOW_SCHEMA`."""
        async with self._turns:
            return await asyncio.to_thread(aggregate_windows, self._reader, tag_ids, name, windows)

    async def formula(
        self,
        text: str,
        place: Place,
        tags: Tags,
        span_us: tuple[int, int],
        config: AppsConfig | None,
    ) -> tuple[Plan, Laid, pl.DataFrame]:
        """A formula on the stored history of equipment that matches a glob, or of an asset type.

        Args:
            tags: path, id and unit of each tag of the site.
            config: what engineers wrote, with the plant's calendar.

        Raises:
            FormulaProblem: what is wrong with the formula, with its place.
            Misconfigured: SITE-2001 to SITE-2004 for the equipment.
            Refused: HIST-2001 for more than can be read at once.
        """

        def work() -> tuple[Plan, Laid, pl.DataFrame]:
            if place.asset_type:
                ground = ground_of_type(config, place.asset_type)
            else:
                ground = ground_of_equipment(config, place.pattern, tags, self._reader)
            plan = ground.compile(text)
            laid = ground.lay(plan)
            parts = list(laid.on_history(self._reader, *span_us))
            return plan, laid, pl.concat(parts).sort("asset", "at_us")

        async with self._turns:
            return await asyncio.to_thread(work)

    async def backtest(
        self, place: Place, question: Question, tags: Tags, config: AppsConfig | None
    ) -> Outcome:
        """A condition or an alarm on stored history; see :func:`headrace.historian.backtest.backtest`.

        Args:
            question: its asset type is that of the place.

        Raises:
            FormulaProblem: what is wrong with it, with its place.
            Misconfigured: SITE-2001 to SITE-2004 for the equipment, HIST-2201 to HIST-2205 else.
            Refused: HIST-2001 for more than can be read at once.
        """

        def work() -> Outcome:
            if place.asset_type:
                ground = ground_of_type(config, place.asset_type)
            else:
                ground = ground_of_equipment(config, place.pattern, tags, self._reader)
            asked = msgspec.structs.replace(question, asset_type=ground.asset_type)
            return backtest(self._reader, ground.config, asked)

        async with self._turns:
            return await asyncio.to_thread(work)

    async def downsample(
        self, tag_id: int, start_us: int, end_us: int, points: int
    ) -> pl.DataFrame:
        """At most ``points`` buckets of one tag, each with its minimum and maximum."""
        async with self._turns:
            return await asyncio.to_thread(
                self._reader.downsample, tag_id, start_us, end_us, points
            )

    async def screen(
        self, tag_id: int, start_us: int, end_us: int, points: int, scan_interval_ms: int
    ) -> dict[str, Any]:
        """One tag as a screen draws it: every sample where they are few, else the lowest and the
        highest of each of ``points`` buckets; see :func:`for_screen`."""

        def read() -> dict[str, Any]:
            buckets = self._reader.downsample(tag_id, start_us, end_us, points)
            if int(buckets["count"].sum()) > RAW_PER_POINT * points:
                return of_buckets(buckets, (end_us - start_us) / points, scan_interval_ms)
            return for_screen(self._reader.read([tag_id], start_us, end_us), scan_interval_ms)

        async with self._turns:
            return await asyncio.to_thread(read)


def for_screen(batch: pl.DataFrame, scan_interval_ms: int) -> dict[str, Any]:
    """Every sample of one tag, with what a screen needs to draw it honestly.

    Where samples stop for long, or one without a number lies between, a null breaks the line. Spans
    whose samples are not Good are given apart.

    Args:
        batch: one tag's samples, sorted by time.
        scan_interval_ms: for telling a gap from a slow tag.

    Returns:
        ``t`` (UTC ms), ``v`` (null where broken), ``bad`` ([from, to, severity] in ms),
        ``samples`` (how many there are), ``raw`` (true when every sample is in ``t``).
    """
    times = batch["source_timestamp"].to_physical().to_numpy()
    status = batch["status"].to_numpy()
    values = batch["value"].fill_null(float("nan")).to_numpy()
    gap_us = _gap_us(times, scan_interval_ms)
    keep = np.isfinite(values) & (status >> 30 < 2)
    at_us, shown = _broken(times[keep], values[keep], gap_us, times[~keep])
    return _drawn(at_us, shown, _bad_spans(times, status, gap_us), len(times), raw=True)


def of_buckets(buckets: pl.DataFrame, width_us: float, scan_interval_ms: int) -> dict[str, Any]:
    """The same from the reader's buckets: each gives its minimum and its maximum at their times.

    Args:
        buckets: columns of :data:`headrace.historian.downsample.BUCKET_SCHEMA`.
        width_us: of one bucket, microseconds.
        scan_interval_ms: for telling a gap from a slow tag.
    """
    starts = buckets["bucket_start"].to_physical().to_numpy()
    gap_us = max(_gap_us(starts, scan_interval_ms), int(3 * width_us))
    filled = buckets.filter(pl.col("minimum").is_not_null())
    low, high = (
        filled.select(pl.col(f"{name}_timestamp").to_physical().alias("t"), pl.col(name).alias("v"))
        for name in ("minimum", "maximum")
    )
    line = pl.concat([low, high]).unique(maintain_order=True).sort("t", maintain_order=True)
    only_bad = buckets.filter(pl.col("minimum").is_null())["bucket_start"]
    at_us, shown = _broken(
        line["t"].to_numpy(), line["v"].to_numpy(), gap_us, only_bad.to_physical().to_numpy()
    )
    bad = _bad_spans(starts, buckets["status_worst"].to_numpy(), gap_us)
    return _drawn(at_us, shown, bad, int(buckets["count"].sum()), raw=False)


def _drawn(
    at_us: Int64Array,
    shown: npt.NDArray[np.float64],
    bad: list[list[float]],
    samples: int,
    *,
    raw: bool,
) -> dict[str, Any]:
    return {
        "t": (at_us / US_PER_MS).round(3).tolist(),
        "v": [None if v != v else v for v in shown.tolist()],
        "bad": bad,
        "samples": samples,
        "raw": raw,
    }


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
            # What was said last holds until something else is said, however long that takes.
            until = times[end] if end < len(times) else times[end - 1] + gap_us // GAP_INTERVALS
            begin = float(times[start]) / US_PER_MS
            spans.append([begin, float(until) / US_PER_MS, int(severity[start])])
    return spans
