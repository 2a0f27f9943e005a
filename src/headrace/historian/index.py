"""The table as its readers know it: files and their bounds, taken from the Delta log as it grows.

A query asks this index for the few files that can hold what it wants and reads those files directly; the
Delta handle is touched only when the log has a new entry.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from headrace.historian.layout import DataFile
from headrace.model.errors import Corrupt
from headrace.model.time import Clock, SystemClock

FULL_LOOK_S: Final = 30.0
_BOUNDS: Final = ("tag_id_min", "tag_id_max", "start_us", "end_us")


@dataclass(frozen=True)
class Snapshot:
    """The table at one version.

    Attributes:
        version: Delta version; -1 when there is no table yet.
        files: oldest content first (see :mod:`headrace.historian.layout`).
        committed: gives the stream sequence up to which this version has everything, for an app id;
            None when that application never committed.
    """

    version: int = -1
    files: tuple[DataFile, ...] = ()
    committed: Callable[[str], int | None] = field(default=lambda _: None)
    bounds: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty((4, 0), np.int64))

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    def select(
        self, tag_id_min: int, tag_id_max: int, start_us: int, end_us: int
    ) -> list[DataFile]:
        """Files that may hold these tags (inclusive) in [start_us, end_us), oldest content first."""
        low_tag, high_tag, first_us, last_us = self.bounds
        hit = (
            (low_tag <= tag_id_max)
            & (high_tag >= tag_id_min)
            & (first_us < end_us)
            & (last_us >= start_us)
        )
        return [self.files[position] for position in np.flatnonzero(hit)]


def make_snapshot(table: DeltaTable) -> Snapshot:
    """The snapshot of an open Delta handle.

    Raises:
        Corrupt: HIST-1001 when a file has no statistics: somebody else wrote to the table.
    """
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    files: tuple[DataFile, ...] = ()
    if actions.height:
        files = _files(actions)
    positions: dict[str, int | None] = {}
    version = table.version()

    def committed(app: str) -> int | None:
        if app not in positions:
            positions[app] = table.transaction_version(app) if table.version() == version else None
        return positions[app]

    bounds = np.array([[getattr(f, name) for f in files] for name in _BOUNDS], np.int64)
    return Snapshot(version, files, committed, bounds.reshape(4, len(files)))


def _files(actions: pl.DataFrame) -> tuple[DataFile, ...]:
    wanted = actions.select(
        "path",
        size="size_bytes",
        rows="num_records",
        tag_id_min="min.tag_id",
        tag_id_max="max.tag_id",
        start_us=pl.col("min.source_timestamp").to_physical(),
        end_us=pl.col("max.source_timestamp").to_physical(),
        modified_ms="modification_time",
    )
    foreign = wanted.filter(
        pl.any_horizontal(pl.all().is_null()) | ~pl.col("path").str.contains(r"^part-\d{20}-")
    )
    if foreign.height:
        raise Corrupt(
            "HIST-1001",
            f"the table has the file {foreign['path'][0]!r}, which the historian did not write",
            "Nothing else may write to this table; restore it to its last version without that file.",
        )
    files = [DataFile(**row) for row in wanted.iter_rows(named=True)]
    return tuple(sorted(files, key=lambda file: (file.ordinal, file.path)))


class TableIndex:
    """Follows a table's log from another process than the writer's.

    Args:
        path: the table's folder; it may appear later.

    Thread-safe: any thread may refresh, all see whole snapshots.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._table: DeltaTable | None = None
        self._looked_s = 0.0
        self.snapshot = Snapshot()

    def refresh(self, *, force: bool = False) -> Snapshot:
        """The newest snapshot; costs one file look-up when the log has no new entry.

        Raises:
            Corrupt: HIST-1001 or HIST-1002 when the table cannot be read.
        """
        with self._lock:
            if force or self._is_behind():
                self._follow()
            return self.snapshot

    def _is_behind(self) -> bool:
        if self._table is None:
            return (self._path / "_delta_log").exists()
        newer = self._path / "_delta_log" / f"{self.snapshot.version + 1:020d}.json"
        return newer.exists() or self._clock.monotonic_s() - self._looked_s > FULL_LOOK_S

    def _follow(self) -> None:
        self._looked_s = self._clock.monotonic_s()
        try:
            if self._table is None:
                self._table = DeltaTable(self._path)
            else:
                self._table.update_incremental()
        except TableNotFoundError:
            return  # not there yet
        except DeltaError:
            self._open_again()
        if self._table is not None and self._table.version() != self.snapshot.version:
            self.snapshot = make_snapshot(self._table)

    def _open_again(self) -> None:
        """The log was cleaned up past our version, or is broken."""
        self._table = None
        try:
            self._table = DeltaTable(self._path)
        except TableNotFoundError:
            return
        except DeltaError as error:
            raise Corrupt(
                "HIST-1002",
                f"the table in {self._path} cannot be opened: {str(error).splitlines()[0]}",
                "Start the historian: it repairs what a power cut can break.",
            ) from error
