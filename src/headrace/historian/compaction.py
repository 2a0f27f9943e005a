"""Compaction: many small files become few large ones, sorted and de-duplicated, in atomic commits.

Two kinds of work, one unit a call, so that the caller can stop between them:

* merge: 16 or more neighbouring small files of like size become one (tiers of factor 16, so that a sample
  is rewritten about log16(n) times);
* close: 8 or more neighbouring files whose time is over for an hour are rewritten by tag, so that one
  tag's whole time in them lies in one or two files, and in the encodings that take least room. They wait for
  4 million samples, a day at most.

Only neighbours in age of content are joined, and the result has the highest ordinal of its inputs: which
of two samples of one identity counts stays the same (see :mod:`headrace.historian.layout`). A crash leaves
files that no log entry names; vacuum takes them. The writer's stream position is not touched.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from headrace.historian.layout import (
    FILE_ROWS,
    DataFile,
    file_name,
    is_closed,
    sort_unique,
    write_file,
)
from headrace.historian.scan import US_MAX, US_MIN, read_files, scan_files
from headrace.historian.table import Table
from headrace.model.time import US_PER_S, Clock

MERGE_FILES_MIN: Final = 16
MERGE_ROWS_MAX: Final = 4_000_000
TIER_ROWS: Final = (4_096, 65_536, 524_288)
DAY_US: Final = 86_400 * US_PER_S
LATE_US: Final = 3_600 * US_PER_S
CLOSE_FILES_MIN: Final = 8
CLOSE_ROWS_MIN: Final = 4_000_000
CLOSE_ROWS_MAX: Final = 64_000_000
CLOSE_WAIT_US: Final = DAY_US
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Compacted:
    """What one unit of work did."""

    kind: str
    files_before: int
    files_after: int
    rows_before: int
    rows_after: int


class Compactor:
    """Compacts one table; any thread, one at a time.

    Args:
        table: open for writing; its commits follow those of the writer.
    """

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    def step(self, spare_bytes: int = 0) -> Compacted | None:
        """Do the most useful unit of work; None when there is none, or no room for it.

        Args:
            spare_bytes: free disk that must be left while both old and new files exist.
        """
        files = self._table.snapshot.files
        run = find_merge(files)
        kind = "merge" if run else "close"
        run = run or find_closed(files, self._clock.now_us())
        if not run:
            return None
        free = self._table.storage.free_bytes()
        if free is not None and free < spare_bytes + sum(file.size for file in run):
            return None
        done = self._rewrite(run, kind)
        _log.info("%s: %d files of %d rows became %d of %d", kind, done.files_before,
                  done.rows_before, done.files_after, done.rows_after)  # fmt: skip
        return done

    def _rewrite(self, run: Sequence[DataFile], kind: str) -> Compacted:
        ordinal = max(file.ordinal for file in run)
        version = self._table.snapshot.version + 1
        closed = "d" if kind == "close" else "c"
        written: list[DataFile] = []
        for low, high in self._tag_slices(run):
            rows = sort_unique(self._rows(run, low, high))
            for part in _parts(rows):
                name = file_name(ordinal, len(written), f"{closed}{version}{self._table.mark}")
                written.append(
                    write_file(self._table.storage, name, part, self._clock.now_us() // 1000)
                )
        self._table.commit(written, removed=run, data_change=False)
        return Compacted(
            kind,
            len(run),
            len(written),
            sum(file.rows for file in run),
            sum(file.rows for file in written),
        )

    def _rows(self, run: Sequence[DataFile], low: int, high: int) -> pl.DataFrame:
        if low == US_MIN:
            return read_files(self._table.storage, run, None, US_MIN, US_MAX + 1)
        rows = scan_files(self._table.storage, run).filter(pl.col("tag_id").is_between(low, high))
        return rows.with_columns(pl.col("status").cast(pl.UInt32)).collect()

    def _tag_slices(self, run: Sequence[DataFile]) -> list[tuple[int, int]]:
        """Ranges of tags (inclusive) of about one file's rows each; (US_MIN, _) means all."""
        if sum(file.rows for file in run) <= MERGE_ROWS_MAX:
            return [(US_MIN, 0)]
        counts = (
            scan_files(self._table.storage, run)
            .group_by("tag_id")
            .agg(pl.len().alias("rows"))
            .sort("tag_id")
            .collect()
        )
        tags = counts["tag_id"].to_numpy()
        part = np.cumsum(counts["rows"].to_numpy()) // FILE_ROWS
        first = np.flatnonzero(np.append(True, part[1:] != part[:-1]))
        last = np.append(first[1:] - 1, len(tags) - 1)
        return [(int(tags[a]), int(tags[b])) for a, b in zip(first, last, strict=True)]


def _parts(rows: pl.DataFrame) -> list[pl.DataFrame]:
    """Parts of about one file's rows each, alike in size, so that no small rest becomes a file."""
    count = max(round(rows.height / FILE_ROWS), 1)
    cuts = np.linspace(0, rows.height, count + 1).astype(int).tolist()
    return [rows.slice(a, b - a) for a, b in itertools.pairwise(cuts)] if rows.height else []


def find_merge(files: Sequence[DataFile]) -> list[DataFile]:
    """The first run of at least 16 neighbours of the lowest tier that has one."""
    for limit in TIER_ROWS:
        run: list[DataFile] = []
        for file in [*files, None]:
            if file is not None and file.rows <= limit:
                run.append(file)
                continue
            if len(run) >= MERGE_FILES_MIN:
                return _bounded(run, MERGE_ROWS_MAX)
            run = []
    return []


def find_closed(files: Sequence[DataFile], now_us: int) -> list[DataFile]:
    """Neighbouring files, not closed yet, whose time is over, and enough of them.

    Files of the last hour wait: late samples come, and a replay of old ones goes on for a while.
    """
    border_us = now_us - LATE_US
    run: list[DataFile] = []
    for file in [*files, None]:
        if (
            file is not None
            and file.end_us < border_us
            and file.modified_ms * 1_000 <= border_us
            and not is_closed(file.path)
        ):
            run.append(file)
            continue
        if run and _is_worth_closing(run, now_us):
            return _bounded(run, CLOSE_ROWS_MAX)
        run = []
    return []


def _is_worth_closing(run: Sequence[DataFile], now_us: int) -> bool:
    """Enough samples, or the oldest has waited for more for a day."""
    if len(run) >= CLOSE_FILES_MIN and sum(file.rows for file in run) >= CLOSE_ROWS_MIN:
        return True
    return min(file.modified_ms for file in run) * 1_000 <= now_us - CLOSE_WAIT_US


def _bounded(run: list[DataFile], rows_max: int) -> list[DataFile]:
    """The beginning of the run up to ``rows_max`` rows, two files in any case."""
    total = np.cumsum([file.rows for file in run])
    return run[: max(int(np.searchsorted(total, rows_max, side="right")), 2)]
