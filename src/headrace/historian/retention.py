"""Retention: raw samples older than their tag group allows leave the table, whole days at a time."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl

from headrace.historian.compaction import DAY_US
from headrace.historian.layout import DataFile, file_name, from_stored, is_closed, write_file
from headrace.historian.scan import scan_files
from headrace.historian.table import Table
from headrace.model.desired import HistorianConfig
from headrace.model.sample import TIMESTAMP
from headrace.model.time import Clock

DEFAULT_GROUP: Final = "default"
_log = logging.getLogger(__name__)


def cutoffs(config: HistorianConfig, now_us: int) -> dict[str, int]:
    """Start of what is kept, UTC microseconds at a day's border, of each group that has a limit.

    Example:
        >>> from headrace.model.desired import TagGroupConfig
        >>> config = HistorianConfig(groups={"default": TagGroupConfig(retention_days=1)})
        >>> cutoffs(config, 3 * DAY_US + 5) == {"default": 2 * DAY_US}
        True
    """
    return {
        name: (now_us // DAY_US - group.retention_days) * DAY_US
        for name, group in config.groups.items()
        if group.retention_days > 0
    }


class Retention:
    """Applies the desired retention to one table; a file is looked at once a day."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._clean: dict[str, tuple[tuple[str, int], ...]] = {}

    def step(self, config: HistorianConfig) -> int | None:
        """Clean one file that has expired samples; gives how many went, None when there is none."""
        limits = cutoffs(config, self._clock.now_us())
        if not limits:
            return None
        key = tuple(sorted(limits.items()))
        files = self._table.snapshot.files
        present = {file.path for file in files}
        self._clean = {path: k for path, k in self._clean.items() if path in present}
        newest = max(limits.values())
        for file in files:
            if file.start_us < newest and self._clean.get(file.path) != key:
                self._clean[file.path] = key
                gone = self._clean_file(file, config, limits)
                if gone:
                    return gone
        return None

    def _clean_file(
        self, file: DataFile, config: HistorianConfig, limits: Mapping[str, int]
    ) -> int:
        rows = from_stored(
            scan_files(self._table.storage, [file]).filter(~expired(config, limits)).collect()
        )
        gone = file.rows - rows.height
        if not gone:
            return 0
        added = []
        if rows.height:
            version = self._table.snapshot.version + 1
            kind = "d" if is_closed(file.path) else "c"
            name = file_name(file.ordinal, _part(file), f"{kind}{version}{self._table.mark}")
            added = [write_file(self._table.storage, name, rows, self._clock.now_us() // 1000)]
        self._table.commit(added, removed=[file])
        _log.info("retention: %d samples of %s are gone", gone, file.path)
        return gone


def expired(config: HistorianConfig, limits: Mapping[str, int]) -> pl.Expr:
    """True for rows that are older than their group allows."""
    by_group: dict[str, list[int]] = {}
    for tag_id, group in config.tag_groups.items():
        by_group.setdefault(group if group in config.groups else DEFAULT_GROUP, []).append(tag_id)
    named = [tag_id for group, ids in by_group.items() if group != DEFAULT_GROUP for tag_id in ids]
    gone = pl.lit(False)
    for group, limit_us in limits.items():
        old = pl.col("source_timestamp") < pl.lit(limit_us, pl.Int64).cast(TIMESTAMP)
        if group == DEFAULT_GROUP:
            gone = gone | (old & ~_among(named))
        elif by_group.get(group):
            gone = gone | (old & _among(by_group[group]))
    return gone


def _among(tag_ids: list[int]) -> pl.Expr:
    if not tag_ids:
        return pl.lit(False)
    return pl.col("tag_id").is_in(pl.Series(np.array(tag_ids, np.int64)).implode())


def _part(file: DataFile) -> int:
    return int(file.path.split("-")[2].split(".")[0])
