"""The table as its one writing process knows it: atomic, synced commits, and repair after a power cut.

delta-rs calls no fsync. So data files and their folder are synced before a commit names them, and the
commit's own log entry after it: only the very last log entry can ever be torn. Its position was not
acknowledged yet, so it is put aside at the next start and the log of samples gives everything again.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction, Transaction

from headrace.historian.index import Snapshot, make_snapshot
from headrace.historian.layout import (
    DELTA_SCHEMA,
    TABLE_CONFIGURATION,
    DataFile,
    os_error,
    sync_path,
)
from headrace.model.errors import Corrupt, Terminal
from headrace.model.time import Clock, to_datetime
from headrace.security.files import make_folder

COUNTER_PREFIX: Final = "headrace."
_log = logging.getLogger(__name__)


class Table:
    """One open table. Threads of one process may commit; commits follow each other.

    Use :func:`open_table`.
    """

    def __init__(self, path: Path, handle: DeltaTable, clock: Clock) -> None:
        self.path = path
        self._handle = handle
        self._clock = clock
        self._lock = threading.Lock()
        self.snapshot: Snapshot = make_snapshot(handle)
        self.counters: dict[str, int] = _counters(handle)

    def committed(self, app: str) -> int | None:
        """Stream sequence up to which the table has everything of ``app``."""
        return self.snapshot.committed(app)

    def next_ordinal(self) -> int:
        """Age of content for files that are written now; above all that exist."""
        with self._lock:
            return self.snapshot.version + 1

    def commit(
        self,
        added: Iterable[DataFile],
        removed: Iterable[DataFile] = (),
        position: tuple[str, int] | None = None,
        counters: Mapping[str, int] | None = None,
        *,
        data_change: bool = True,
    ) -> Snapshot:
        """One atomic commit of files that are already synced; synced itself when this returns.

        Args:
            position: (app id, stream sequence) that the table has after this commit.
            counters: running totals to keep with the table; they replace those of the same name.
            data_change: false when the same samples are only laid out anew.

        Raises:
            Terminal: HIST-1010 when another process committed to this table meanwhile.
        """
        now_ms = self._clock.now_us() // 1000
        actions: list[Any] = [_add(file, data_change) for file in added]
        actions += [RemoveAction(file.path, data_change, now_ms, file.size, {}) for file in removed]
        with self._lock:
            totals = {**self.counters, **(counters or {})}
            properties = CommitProperties(
                custom_metadata={COUNTER_PREFIX + name: total for name, total in totals.items()},
                app_transactions=[Transaction(*position, now_ms)] if position else None,
                max_commit_retries=0,
            )
            sync_path(self.path)
            try:
                self._handle.create_write_transaction(
                    actions, mode="append", schema=DELTA_SCHEMA, commit_properties=properties
                )
            except DeltaError as error:
                raise os_error(error, self.path) or _conflict(self.path, error) from error
            self._handle.update_incremental()
            self.counters = totals
            self.snapshot = make_snapshot(self._handle)
            self._sync_log()
            return self.snapshot

    def sync(self) -> None:
        """Sync the newest log entry once more, after a commit that failed in doing so."""
        with self._lock:
            self._sync_log()

    def _sync_log(self) -> None:
        version = self._handle.version()
        folder = self.path / "_delta_log"
        sync_path(folder / f"{version:020d}.json")
        for path in folder.glob(f"{version:020d}.checkpoint*.parquet"):
            sync_path(path)
        sync_path(folder)

    def vacuum(self, grace_hours: float) -> int:
        """Delete files that no version needs since ``grace_hours``; gives how many."""
        with self._lock:
            gone = self._handle.vacuum(
                retention_hours=int(grace_hours),
                dry_run=False,
                enforce_retention_duration=False,
                full=True,  # also what a crash left and no log entry names
            )
            self._handle.update_incremental()
            self.snapshot = make_snapshot(self._handle)
            return len(gone)


def _add(file: DataFile, data_change: bool) -> AddAction:
    stats = {
        "numRecords": file.rows,
        "minValues": {"tag_id": file.tag_id_min, "source_timestamp": _iso(file.start_us)},
        "maxValues": {"tag_id": file.tag_id_max, "source_timestamp": _iso(file.end_us)},
        "nullCount": {"tag_id": 0, "source_timestamp": 0, "status": 0, "received_timestamp": 0},
    }
    return AddAction(file.path, file.size, {}, file.modified_ms, data_change, json.dumps(stats))


def _iso(at_us: int) -> str:
    return to_datetime(at_us).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _conflict(path: Path, error: DeltaError) -> Terminal:
    return Terminal(
        "HIST-1010",
        f"a commit to the table in {path} was refused: {str(error).splitlines()[0]}",
        "See that only one historian runs on this table, then start it again.",
    )


def _counters(handle: DeltaTable) -> dict[str, int]:
    """Totals of the newest commit that is ours; a vacuum writes entries without them."""
    for entry in handle.history(20):
        totals = {
            name.removeprefix(COUNTER_PREFIX): int(value)
            for name, value in entry.items()
            if name.startswith(COUNTER_PREFIX)
        }
        if totals:
            return totals
    return {}


def open_table(path: Path, clock: Clock) -> Table:
    """Open the table, make it when there is none, repair it when a power cut tore its newest entry.

    Raises:
        Corrupt: HIST-1002 when it cannot be opened even so.
    """
    make_folder(path)
    put_aside_torn_entries(path)
    try:
        return _open(path, clock)
    except DeltaError as first:
        if not put_aside_checkpoint(path):
            raise _unreadable(path, first) from first
    try:
        return _open(path, clock)
    except DeltaError as error:
        raise _unreadable(path, error) from error


def _open(path: Path, clock: Clock) -> Table:
    try:
        handle = DeltaTable(path)
    except TableNotFoundError:
        handle = DeltaTable.create(path, DELTA_SCHEMA, configuration=TABLE_CONFIGURATION)
    table = Table(path, handle, clock)
    table._sync_log()  # an entry that a crash left unsynced counts from here on
    return table


def _unreadable(path: Path, error: DeltaError) -> Corrupt:
    return Corrupt(
        "HIST-1002",
        f"the table in {path} cannot be opened: {str(error).splitlines()[0]}",
        "Restore the folder from a backup; the log of samples gives again what came after it.",
    )


def put_aside_torn_entries(path: Path) -> list[Path]:
    """Rename the newest log entry when it is no JSON, or names files that are not there whole."""
    entries = sorted((path / "_delta_log").glob("[0-9]*.json"))
    moved = []
    while entries and not _is_whole(path, entries[-1]):
        torn = entries.pop()
        aside = torn.with_suffix(".json.torn")
        torn.rename(aside)
        moved.append(aside)
        _log.warning("HIST-1003 put aside the torn log entry %s", torn.name)
        if len(moved) > 1:
            break  # one power cut tears one entry; more is another fault, and opening it will say so
    if moved:
        sync_path(path / "_delta_log")
    return moved


def _is_whole(path: Path, entry: Path) -> bool:
    try:
        actions = [json.loads(line) for line in entry.read_text().splitlines() if line.strip()]
    except (ValueError, UnicodeDecodeError):
        return False
    added = [action["add"] for action in actions if isinstance(action, dict) and "add" in action]
    return bool(actions) and all(_has_size(path / add["path"], add["size"]) for add in added)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except FileNotFoundError:
        return False


def put_aside_checkpoint(path: Path) -> bool:
    """Rename the newest checkpoint so that the table opens from its JSON entries; False if none."""
    folder = path / "_delta_log"
    newest = sorted(folder.glob("*.checkpoint*.parquet"))[-1:]
    for torn in [*newest, *folder.glob("_last_checkpoint")]:
        torn.rename(torn.with_name(torn.name + ".torn"))
        _log.warning("HIST-1004 put aside the checkpoint %s", torn.name)
    return bool(newest)
