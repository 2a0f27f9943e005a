"""The table as its readers know it: files and their bounds, taken from the Delta log as it grows.

A query asks this index for the few files that can hold what it wants and reads those files directly; the
Delta handle is touched only when the log has a new entry.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from headrace.historian.layout import DataFile, slot_app
from headrace.historian.partition import SLOTS, WHOLE, Partition
from headrace.historian.repair import whole_version
from headrace.historian.storage import (
    LOG_FOLDER,
    LocalStorage,
    Place,
    Storage,
    answering,
    storage_of,
)
from headrace.model.errors import Corrupt
from headrace.model.time import Clock, SystemClock

FULL_LOOK_S: Final = 30.0
LOOK_BACK: Final = 1_000
COUNTER_PREFIX: Final = "headrace."
_BOUNDS: Final = ("tag_id_min", "tag_id_max", "start_us", "end_us")


@dataclass(frozen=True)
class Snapshot:
    """The table at one version.

    Attributes:
        version: Delta version; -1 when there is no table yet.
        files: oldest content first (see :mod:`headrace.historian.layout`).
        position: gives the stream sequence that an application of the Delta log has, None when it
            never committed. It replays the log, so it is asked only where ``totals`` do not tell.
        totals: running totals of the newest commit of ours, and the positions, also by slot (see
            :mod:`headrace.historian.partition`).
    """

    version: int = -1
    files: tuple[DataFile, ...] = ()
    position: Callable[[str], int | None] = field(default=lambda _: None)
    totals: Mapping[str, int] = field(default_factory=dict)
    bounds: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty((4, 0), np.int64))

    def committed(self, app: str, slots: Sequence[int] = WHOLE.slots) -> int | None:
        """Stream sequence up to which this version has everything of the slots of ``app``; None when
        there is none yet."""
        if not self.is_shared(app):
            return self._of_one_writer(app)
        known = [self.totals.get(slot_app(app, slot)) for slot in slots]
        if None in known:
            before = self._of_one_writer(app)  # of the time when one writer had all
            known = [before if sequence is None else sequence for sequence in known]
        found = [sequence for sequence in known if sequence is not None]
        return min(found) if len(found) == len(known) else None

    def _of_one_writer(self, app: str) -> int | None:
        told = self.totals.get(app)
        return self.position(app) if told is None else told

    def slot_positions(self, app: str) -> dict[int, int]:
        """Slot -> stream sequence, where several writers stored ``app`` at some time."""
        if not self.is_shared(app):
            return {}
        found = {slot: self.committed(app, (slot,)) for slot in range(SLOTS)}
        return {slot: sequence for slot, sequence in found.items() if sequence is not None}

    def is_shared(self, app: str) -> bool:
        """Whether several writers stored ``app`` at some time: its position is kept slot by slot."""
        return any(slot_app(app, slot) in self.totals for slot in range(SLOTS))

    def position_names(self, app: str, partition: Partition) -> list[str]:
        """The applications whose positions a commit of this writer moves."""
        if partition.is_whole and not self.is_shared(app):
            return [app]
        return [slot_app(app, slot) for slot in partition.slots]

    def log_times(self, app: str, partition: Partition, at_us: int) -> dict[str, int]:
        """What a commit keeps of the time at which the broker stored its last message, by which a
        restored log is known."""
        names = self.position_names(app, partition)
        return {_log_time(name, app): at_us for name in names}

    def log_time_us(self, app: str, partition: Partition) -> int:
        """That time, of the slot that is furthest behind; 0 when it is not known."""
        names = self.position_names(app, partition)
        behind = min(names, key=lambda name: self.totals.get(name, 0))
        return self.totals.get(_log_time(behind, app), 0)

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


def make_snapshot(
    table: DeltaTable, storage: Storage, previous: Snapshot | None = None
) -> Snapshot:
    """The snapshot of an open Delta handle.

    Args:
        previous: of the same table; its totals hold where the commits since then name none.

    Raises:
        Corrupt: HIST-1001 when a file has no statistics: somebody else wrote to the table.
    """
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    files: tuple[DataFile, ...] = ()
    if actions.height:
        files = _files(actions)
    positions: dict[str, int | None] = {}
    version = table.version()

    def position(app: str) -> int | None:
        if app not in positions:
            positions[app] = table.transaction_version(app) if table.version() == version else None
        return positions[app]

    bounds = np.array([[getattr(f, name) for f in files] for name in _BOUNDS], np.int64)
    totals = _totals(storage, version, previous or Snapshot())
    return Snapshot(version, files, position, totals, bounds.reshape(4, len(files)))


def _totals(storage: Storage, version: int, previous: Snapshot) -> Mapping[str, int]:
    """What the newest commit of ours says; a vacuum writes entries that say nothing."""
    for number in range(version, max(previous.version, version - LOOK_BACK, -1), -1):
        try:
            entry = storage.read(f"{LOG_FOLDER}/{number:020d}.json")
        except FileNotFoundError:
            break  # cleaned up: a checkpoint has its files and positions
        for line in entry.splitlines():
            told = json.loads(line).get("commitInfo", {}) if b'"commitInfo"' in line else {}
            totals = {
                name.removeprefix(COUNTER_PREFIX): int(value)
                for name, value in told.items()
                if name.startswith(COUNTER_PREFIX)
            }
            if totals:
                return totals
    return previous.totals


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


def open_delta(storage: Storage, version: int | None = None) -> DeltaTable:
    """The Delta handle of a table, at its newest version when none is named.

    Raises:
        TableNotFoundError, DeltaError: as delta-rs does.
    """
    return DeltaTable(storage.uri, version=version, storage_options=storage.options)


def _log_time(name: str, app: str) -> str:
    return f"log_at_us{name.removeprefix(app)}"


class TableIndex:
    """Follows a table's log from another process than the writer's.

    Args:
        table: the table's folder or storage; it may appear later.

    Thread-safe: any thread may refresh, all see whole snapshots.
    """

    def __init__(self, table: Place, clock: Clock | None = None) -> None:
        self._storage = storage_of(table)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._table: DeltaTable | None = None
        self._is_held_back = False
        self._looked_s = 0.0
        self._watched_s = float("-inf")
        self.snapshot = Snapshot()

    def refresh(self, *, force: bool = False) -> Snapshot:
        """The newest snapshot; costs one file look-up when the log has no new entry.

        On an object storage a look is a request, and is made once a second; readers miss nothing
        by that, since their tail keeps what the snapshot does not have.

        Raises:
            Corrupt: HIST-1001 or HIST-1002 when the table cannot be read.
        """
        with self._lock:
            if force or self._is_behind():
                self._follow()
            return self.snapshot

    def _is_behind(self) -> bool:
        now_s = self._clock.monotonic_s()
        if now_s - self._watched_s < self._storage.watch_s:
            return False
        self._watched_s = now_s
        newer = f"{LOG_FOLDER}/{self.snapshot.version + 1:020d}.json"
        if self._table is None:
            return self._storage.options is not None or self._storage.exists(LOG_FOLDER)
        return self._storage.exists(newer) or now_s - self._looked_s > FULL_LOOK_S

    def _follow(self) -> None:
        with answering(self._storage):
            self._follow_log()

    def _follow_log(self) -> None:
        self._looked_s = self._clock.monotonic_s()
        try:
            if self._table is None or self._is_held_back:
                self._table = self._open()
            else:
                self._table.update_incremental()
        except TableNotFoundError:
            return  # not there yet
        except DeltaError:
            self._open_again()
        if self._table is not None and self._table.version() != self.snapshot.version:
            self.snapshot = make_snapshot(self._table, self._storage, self.snapshot)

    def _open(self) -> DeltaTable:
        """The newest version that a power cut did not tear. The historian's start puts the rest aside;
        until then every look begins here."""
        whole = None
        if isinstance(self._storage, LocalStorage):
            whole = whole_version(self._storage.path)
        self._is_held_back = whole is not None
        return open_delta(self._storage, whole)

    def _open_again(self) -> None:
        """The log was cleaned up past our version, or is broken."""
        self._table = None
        try:
            self._table = self._open()
        except TableNotFoundError:
            return
        except DeltaError as error:
            raise Corrupt(
                "HIST-1002",
                f"the table in {self._storage.uri} cannot be opened: {str(error).splitlines()[0]}",
                "Start the historian: it repairs what a power cut can break.",
            ) from error
