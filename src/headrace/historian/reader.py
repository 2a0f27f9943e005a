"""Reads: the table at its committed sequence plus the tail after it, sorted, each sample once.

What was taken back (:data:`headrace.model.status.RETRACTED`) is left out, after of each identity the last
received was chosen. All calls are synchronous and thread-safe; in an event loop call them with
``asyncio.to_thread``.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

import numpy as np
import polars as pl

from headrace.bus.client import Bus
from headrace.historian.aggregates import STATUS_AGGREGATES, calculate, check_name
from headrace.historian.downsample import bucket_edges, downsample, empty_buckets
from headrace.historian.index import Snapshot, TableIndex
from headrace.historian.intervals import AggregateConfiguration, Raw, interval_edges
from headrace.historian.last import LastValues, edge, load
from headrace.historian.layout import DataFile, sort_unique
from headrace.historian.scan import (
    US_MAX,
    US_MIN,
    matching,
    read_files,
    scan_files,
    without_retracted,
)
from headrace.historian.storage import Place, Storage, answering, open_storage, storage_of
from headrace.historian.tail import Report, Segment, Tail
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.sample import TIMESTAMP, empty_batch
from headrace.model.status import RETRACTED
from headrace.model.time import US_PER_S

ROWS_MAX: Final = 20_000_000
LOOK_FILES: Final = 8
LOOK_US: Final = 3_600 * US_PER_S
LOOK_GROWTH: Final = 4
LOOK_ROWS: Final = 1_000_000
FRESH_FILES_MAX: Final = 256
TRIES: Final = 5
AGGREGATE_SCHEMA: Final = {
    "tag_id": pl.Int64(),
    "timestamp": TIMESTAMP,
    "value": pl.Float64(),
    "status": pl.UInt32(),
}
PART_ROWS: Final = 32_000_000
_NUMBERS: Final = (
    pl.col("source_timestamp"),
    pl.col("value"),
    pl.col("status").cast(pl.UInt32),
)
_ANY: Final = pl.lit(True)
Result = TypeVar("Result")


@dataclass(frozen=True)
class View:
    """One consistent state of the history: files of one table version, and the tail after it.

    Attributes:
        generation: another one for each log that the tail began with.
    """

    snapshot: Snapshot
    segments: tuple[Segment, ...]
    generation: int = 0


@dataclass(frozen=True)
class Standing:
    """How far the history has come.

    Attributes:
        committed_sequence: of the log, in the table; -1 when it is not known.
        tail_paused: the tail is full: what came since is not read yet.
    """

    committed_sequence: int
    tail_paused: bool


class Follower(Protocol):
    """What a reader needs of a tail; see :class:`headrace.historian.tail.Tail`."""

    @property
    def app(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def paused(self) -> bool: ...
    def segments(self, snapshot: Snapshot, /) -> list[Segment] | None: ...
    async def catch_up(self, timeout_s: float, /) -> None: ...


class Reader:
    """Reads one historian's samples.

    Use :func:`open_reader`.

    Args:
        table: the table's folder or storage; it may be empty yet.
        tail: None reads the table alone.

    Example:
        >>> from pathlib import Path
        >>> Reader(Path("/nowhere/table")).read([7], 0, 10).height
        0
    """

    def __init__(
        self,
        table: Place,
        tail: Follower | None = None,
        index: TableIndex | None = None,
    ) -> None:
        self._table = storage_of(table)
        self._index = index or TableIndex(table)
        self._tail = tail
        self._last = _Known()
        self._last_lock = threading.Lock()

    @property
    def table(self) -> Storage:
        """Where the table lies."""
        return self._table

    async def catch_up(self, timeout_s: float) -> None:
        """Wait until reads have everything that the log has now; nothing to wait for without a tail.

        Raises:
            Transient: HIST-1030 when that takes longer than ``timeout_s``.
        """
        if self._tail is not None:
            await self._tail.catch_up(timeout_s)

    def standing(self) -> Standing:
        """How far the table has come, and whether the tail follows."""
        snapshot = self._index.refresh()
        tail = self._tail
        committed = snapshot.committed(tail.app) if tail is not None and tail.app else None
        return Standing(
            -1 if committed is None else committed, tail.paused if tail is not None else False
        )

    def view(self) -> View:
        """The state of now; the snapshot is taken before the tail, so nothing falls between.

        Raises:
            Transient: HIST-1045 when the table is older than it was.
        """
        snapshot = self._index.refresh()
        if self._tail is None or not self._tail.app:
            return View(snapshot, ())
        generation = self._tail.generation
        for _ in range(TRIES):
            segments = self._tail.segments(snapshot)
            if segments is not None:
                return View(snapshot, tuple(segments), generation)
            snapshot = self._index.refresh(force=True)  # the tail knew a newer commit
        raise Transient(
            "HIST-1045",
            f"the table in {self._table} is older than what was read of it before",
            "Was it restored from a backup? Start the console again.",
        )

    def read(
        self, tag_ids: Sequence[int], start_us: int, end_us: int, limit: int | None = None
    ) -> pl.DataFrame:
        """Samples of the tags in [start_us, end_us), sorted by tag_id and source_timestamp.

        Args:
            tag_ids: permanent ids; unknown ones have no samples.
            start_us, end_us: UTC microseconds, half-open.
            limit: first so many samples of the result.

        Raises:
            Refused: HIST-1040 when more than 20 million samples match and there is no limit.
        """
        ids = sorted(set(map(int, tag_ids)))
        if not ids or end_us <= start_us:
            return empty_batch()
        found = self._again(lambda view: self._read(view, ids, start_us, end_us))
        if limit is not None:
            return found.head(limit)
        if found.height > ROWS_MAX:
            raise Refused(
                "HIST-1040",
                f"{found.height} samples match, more than {ROWS_MAX}",
                "Ask for a shorter time, fewer tags, or an aggregate.",
            )
        return found

    def before(self, tag_ids: Sequence[int], at_us: int) -> pl.DataFrame:
        """The newest sample of each tag before ``at_us``; tags without one are left out."""
        return self._again(
            lambda view: self._nearest(view, sorted(set(tag_ids)), US_MIN, at_us, newest=True)
        )

    def after(self, tag_ids: Sequence[int], at_us: int) -> pl.DataFrame:
        """The oldest sample of each tag at or after ``at_us``; tags without one are left out."""
        return self._again(
            lambda view: self._nearest(view, sorted(set(tag_ids)), at_us, US_MAX, newest=False)
        )

    def last(self, tag_ids: Sequence[int]) -> pl.DataFrame:
        """The newest sample of each tag; kept in memory from the first call on, so cheap to repeat."""
        wanted = sorted(set(map(int, tag_ids)))
        with self._last_lock:
            return self._again(lambda view: self._last_of(view, wanted))

    def downsample(self, tag_id: int, start_us: int, end_us: int, points: int) -> pl.DataFrame:
        """At most ``points`` buckets over [start_us, end_us), each with its minimum and maximum.

        Buckets without samples are left out, so a gap shows as a gap.

        Returns:
            Columns of :data:`headrace.historian.downsample.BUCKET_SCHEMA`.

        Raises:
            Misconfigured: HIST-1042 when ``points`` is below 1 or the time is empty.
        """
        if points < 1 or end_us <= start_us:
            raise Misconfigured(
                "HIST-1042",
                f"a trend of {points} points from {start_us} to {end_us} us is empty",
                "Ask for at least one point and an end after the start.",
            )
        edges = bucket_edges(start_us, end_us, points)
        parts = []
        for part in self._parts(tag_id, edges):
            rows = self._again(partial(self._numbers, tag_id, int(part[0]), int(part[-1])))
            at_us = rows["source_timestamp"].to_physical().to_numpy()
            value = rows["value"].fill_null(float("nan")).to_numpy()
            parts.append(downsample(at_us, value, rows["status"].to_numpy(), part))
        return pl.concat(parts) if parts else empty_buckets()

    def aggregate(
        self,
        tag_ids: Sequence[int],
        aggregate: str,
        start_us: int,
        end_us: int,
        interval_us: int,
        configuration: AggregateConfiguration | None = None,
    ) -> pl.DataFrame:
        """An OPC UA aggregate of each tag over intervals (OPC 10000-13).

        Args:
            aggregate: a name in :data:`headrace.historian.aggregates.AGGREGATES`.
            interval_us: ProcessingInterval; 0 makes one interval of the whole time.
            configuration: how Uncertain and Bad data count, and whether values hold (stepped).

        Returns:
            Columns ``tag_id``, ``timestamp`` (start of the interval, or the value's own time where
            the aggregate says so), ``value`` (null where there is none) and ``status``; sorted by
            tag and time.

        Raises:
            Misconfigured: HIST-1060 or HIST-1061 for an empty time or an unknown name.
        """
        check_name(aggregate)
        edges = interval_edges(start_us, end_us, interval_us)
        return self.aggregate_over(tag_ids, aggregate, edges, configuration)

    def aggregate_over(
        self,
        tag_ids: Sequence[int],
        aggregate: str,
        edges: np.ndarray,
        configuration: AggregateConfiguration | None = None,
    ) -> pl.DataFrame:
        """The same over intervals of any lengths, in their order for each tag.

        Args:
            edges: ascending UTC microseconds, shape (n+1,): interval i is ``[edges[i], edges[i+1])``.

        Raises:
            Misconfigured: HIST-1061 for an unknown name.
        """
        check_name(aggregate)
        used = configuration or AggregateConfiguration()
        ids = sorted(set(map(int, tag_ids)))
        start_us, end_us = int(edges[0]), int(edges[-1])
        rows = self._again(partial(self._with_bounds, ids, start_us, end_us, used))
        parts = [_aggregate_of(tag_id, rows, aggregate, edges, used) for tag_id in ids]
        return pl.concat(parts) if parts else pl.DataFrame(schema=AGGREGATE_SCHEMA)

    def _with_bounds(
        self, ids: list[int], start_us: int, end_us: int, used: AggregateConfiguration, view: View
    ) -> pl.DataFrame:
        """Samples in the time, and those before and after it that bounding values need."""
        limit = 0x4000_0000 if used.treat_uncertain_as_bad else 0x8000_0000
        usable = (pl.col("status") < limit) & pl.col("value").is_finite()
        parts = []
        before = None
        for only in (_ANY, usable):
            before = self._nearest(view, ids, US_MIN, start_us, newest=True, only=only)
            after = self._nearest(view, ids, end_us, US_MAX, newest=False, only=only)
            parts += [before, after]
        if used.use_sloped_extrapolation and before is not None:
            for tag_id, at_us in zip(
                before["tag_id"], before["source_timestamp"].to_physical(), strict=True
            ):
                parts.append(self._nearest(view, [tag_id], US_MIN, at_us, newest=True, only=usable))
        return sort_unique(pl.concat([*parts, self._read(view, ids, start_us, end_us)]))

    def _parts(self, tag_id: int, edges: np.ndarray) -> list[np.ndarray]:
        """Cut the edges so that one part reads no more than memory allows."""
        files = self.view().snapshot.select(tag_id, tag_id, int(edges[0]), int(edges[-1]))
        rows_max = sum(file.rows for file in files)
        count = min(max(-(-rows_max // PART_ROWS), 1), len(edges) - 1)
        cuts = np.linspace(0, len(edges) - 1, count + 1).astype(int)
        return [edges[a : b + 1] for a, b in itertools.pairwise(cuts)]

    def _numbers(self, tag_id: int, start_us: int, end_us: int, view: View) -> pl.DataFrame:
        """Time, value and status of one tag, ascending: only what a trend needs is read."""
        files = view.snapshot.select(tag_id, tag_id, start_us, end_us)
        wanted = matching([tag_id], start_us, end_us)
        parts = []
        if files:
            parts.append(scan_files(self._table, files).filter(wanted).select(_NUMBERS).collect())
        for segment in view.segments:
            if segment.start_us < end_us and segment.end_us >= start_us:
                parts.append(segment.lazy().filter(wanted).select(_NUMBERS).collect())
        if not parts:
            return empty_batch().select(_NUMBERS)
        rows = pl.concat(parts)
        at_us = rows["source_timestamp"].to_physical().to_numpy()
        if bool(np.all(at_us[1:] > at_us[:-1])):
            return without_retracted(rows)
        return self._read(view, [tag_id], start_us, end_us)

    def bounds(self) -> tuple[int, int] | None:
        """(oldest, newest) source timestamp of all samples, also of retracted ones; None when there
        are none."""
        view = self.view()
        starts = [f.start_us for f in view.snapshot.files] + [s.start_us for s in view.segments]
        ends = [f.end_us for f in view.snapshot.files] + [s.end_us for s in view.segments]
        return (min(starts), max(ends)) if starts else None

    def _again(self, read: Callable[[View], Result]) -> Result:
        """Read; when compaction took a file away meanwhile, take a new view and read again."""
        for _ in range(TRIES):
            try:
                with answering(self._table):
                    return read(self.view())
            except FileNotFoundError:
                self._index.refresh(force=True)
        raise Transient(
            "HIST-1041",
            f"files of the table in {self._table.uri} vanish while they are read",
            "Try again; see whether somebody deletes files there.",
        )

    def _read(self, view: View, ids: list[int], start_us: int, end_us: int) -> pl.DataFrame:
        return without_retracted(self._stored(view, ids, start_us, end_us))

    def _stored(self, view: View, ids: list[int], start_us: int, end_us: int) -> pl.DataFrame:
        """Of each identity the last received, also what says that there is no sample any more."""
        files = view.snapshot.select(ids[0], ids[-1], start_us, end_us)
        parts = [read_files(self._table, files, ids, start_us, end_us)] if files else []
        for segment in view.segments:
            if segment.start_us < end_us and segment.end_us >= start_us:
                part = segment.read(ids, start_us, end_us)
                if part.height:
                    parts.append(part)
        if not parts:
            return empty_batch()
        return sort_unique(pl.concat(parts) if len(parts) > 1 else parts[0])

    def _nearest(
        self,
        view: View,
        ids: list[int],
        start_us: int,
        end_us: int,
        *,
        newest: bool,
        only: pl.Expr = _ANY,
    ) -> pl.DataFrame:
        """One sample a tag, nearest to the end (or start) of the range.

        Args:
            only: samples that count; the newest correction decides whether one does.
        """
        found = self._outermost(view, ids, start_us, end_us, newest)
        done, width_us = [empty_batch()], LOOK_US
        while found.height:
            done.append(without_retracted(found).filter(only))
            found = found.join(done[-1], on="tag_id", how="anti", maintain_order="left")
            if not found.height:
                break
            # The outermost ones of these do not count: all of a stretch from there inwards is read.
            at = found["source_timestamp"].to_physical().to_numpy()
            low = max(int(at.max()) + 1 - width_us, start_us) if newest else int(at.min())
            high = int(at.max()) + 1 if newest else min(int(at.min()) + width_us, end_us)
            rows = self._stored(view, found["tag_id"].to_list(), low, high)
            done.append(edge(without_retracted(rows).filter(only), newest=newest))
            width_us *= LOOK_GROWTH if rows.height < LOOK_ROWS else 1
            left = sorted(set(found["tag_id"]).difference(done[-1]["tag_id"]))
            rest = (start_us, low) if newest else (high, end_us)
            found = self._outermost(view, left, *rest, newest)
        return pl.concat(done).sort("tag_id")

    def _outermost(
        self, view: View, ids: list[int], start_us: int, end_us: int, newest: bool
    ) -> pl.DataFrame:
        """The outermost row a tag, also a retracted one; looks at few files first."""
        if not ids or end_us <= start_us:
            return empty_batch()
        fresh = edge(
            self._stored(View(Snapshot(), view.segments), ids, start_us, end_us), newest=newest
        )
        found, open_ids = fresh, set(ids)
        files = view.snapshot.select(ids[0], ids[-1], start_us, end_us)
        files.sort(key=lambda f: f.end_us if newest else f.start_us, reverse=newest)
        edges: list[tuple[DataFile, pl.DataFrame]] = []
        begin, size = 0, 1
        while begin < len(files):
            group = files[begin : begin + size]
            begin, size = begin + size, min(2 * size, LOOK_FILES)
            border = group[0].end_us if newest else group[0].start_us
            open_ids = _undecided(found, open_ids, border, newest)
            if not open_ids:
                break
            for file in group:
                here = [t for t in sorted(open_ids) if file.tag_id_min <= t <= file.tag_id_max]
                if here:
                    rows = read_files(self._table, [file], here, start_us, end_us)
                    # a file has each identity once, so its own edge is enough
                    edges.append((file, edge(rows, newest=newest)))
            # what the tail has of an identity is newer than what a file has
            by_age = [rows for _, rows in sorted(edges, key=lambda each: _age(each[0]))]
            found = edge(sort_unique(pl.concat([*by_age, fresh])), newest=newest)
        return found

    def _last_of(self, view: View, wanted: list[int]) -> pl.DataFrame:
        known = self._last
        known.take_files(self._table, view.snapshot)
        unknown = [tag_id for tag_id in wanted if tag_id not in known.tags]
        if unknown:
            known.take(self._first_last(view, unknown), unknown)
        known.take_segments(view)
        rows = known.values.rows.filter(
            pl.col("tag_id").is_in(pl.Series(np.asarray(wanted, np.int64)).implode())
        )
        gone = rows.filter(pl.col("status") == RETRACTED)["tag_id"].to_list()
        if not gone:
            return rows
        # What lies before a retracted one is not kept: that is looked for.
        before = self._nearest(view, gone, US_MIN, US_MAX, newest=True)
        return pl.concat([without_retracted(rows), before]).sort("tag_id")

    def _first_last(self, view: View, tag_ids: list[int]) -> pl.DataFrame:
        """The newest samples of tags that nobody asked for yet: as kept beside the table, and what the
        table got since; from the table's files where nothing is kept."""
        kept = load(self._table)
        fresh = kept.fresh(view.snapshot) if kept else []
        if kept is None or len(fresh) > FRESH_FILES_MAX:
            return self._nearest(view, tag_ids, US_MIN, US_MAX, newest=True)
        kept.take_files(self._table, fresh, tag_ids)
        return kept.rows.filter(
            pl.col("tag_id").is_in(pl.Series(np.asarray(tag_ids, np.int64)).implode())
        )


class _Known:
    """The newest sample of the tags that were asked for, brought up to date by what is new since."""

    def __init__(self) -> None:
        self.tags: set[int] = set()
        self.values = LastValues()
        self._sequence = -1
        self._generation = 0

    def take_files(self, table: Storage, snapshot: Snapshot) -> None:
        self.values.take_files(table, self.values.fresh(snapshot), sorted(self.tags))

    def take(self, rows: pl.DataFrame, tags: list[int]) -> None:
        self.tags.update(tags)
        self.values.fold(rows)
        self._sequence = -1  # segments that were taken before had not these tags

    def take_segments(self, view: View) -> None:
        if view.generation != self._generation:
            self._generation, self._sequence = view.generation, -1
        for segment in view.segments:
            if segment.last > self._sequence:
                self.values.fold(segment.read(sorted(self.tags), US_MIN, US_MAX))
                self._sequence = segment.last


def _aggregate_of(
    tag_id: int,
    rows: pl.DataFrame,
    aggregate: str,
    edges: np.ndarray,
    configuration: AggregateConfiguration,
) -> pl.DataFrame:
    low, high = np.searchsorted(rows["tag_id"].to_numpy(), [tag_id, tag_id + 1]).tolist()
    own = rows.slice(low, high - low)
    of_status = aggregate in STATUS_AGGREGATES
    raw = Raw(
        own["source_timestamp"].to_physical().to_numpy(),
        own["value"].fill_null(float("nan")).to_numpy(),
        own["status"].to_numpy(),
        edges,
        configuration,
        has_text=own["text"].is_not_null().to_numpy() if of_status else None,
    )
    result = calculate(aggregate, raw)
    return pl.DataFrame(
        {
            "tag_id": np.full(len(result.at_us), tag_id, np.int64),
            "timestamp": pl.Series(result.at_us).cast(TIMESTAMP),
            "value": pl.Series(result.value).fill_nan(None),
            "status": result.status,
        },
        schema=AGGREGATE_SCHEMA,
    )


def _undecided(found: pl.DataFrame, ids: set[int], border_us: int, newest: bool) -> set[int]:
    """Tags that files up to ``border_us`` may still change."""
    at = found["source_timestamp"].to_physical()
    decided = found.filter(at > border_us if newest else at < border_us)["tag_id"].to_list()
    return ids.difference(decided)


def _age(file: DataFile) -> tuple[int, str]:
    return file.ordinal, file.path


@asynccontextmanager
async def open_reader(
    folder: DataFolder,
    bus: Bus | None = None,
    *,
    catch_up: bool = True,
    report: Report | None = None,
) -> AsyncIterator[Reader]:
    """A reader of a folder's history, with the tail when there is a bus.

    Args:
        bus: None reads the table alone: what is not committed yet is not seen.
        catch_up: wait until the tail has everything that the log has now.
        report: told when the tail is full and pauses, and when it follows again.

    Raises:
        Transient: HIST-1030 when the tail cannot catch up within 10 s.
    """
    storage = await asyncio.to_thread(open_storage, folder)
    index = TableIndex(storage)
    if bus is None:
        yield Reader(storage, None, index)
        return
    tail = Tail(bus, index, report=report)
    await tail.start()
    try:
        if catch_up:
            await tail.catch_up()
        yield Reader(storage, tail, index)
    finally:
        await tail.close()
