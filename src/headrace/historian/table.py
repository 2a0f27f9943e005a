"""The table as a writing process knows it: atomic, synced commits.

delta-rs calls no fsync. So data files and their folder are synced before a commit names them, and the
commit's own log entry after it: only the very last log entry can ever be torn. Its position was not
acknowledged yet, so it is put aside at the next start (:mod:`headrace.historian.repair`) and the log of
samples gives everything again.

Several writers may share a table (:mod:`headrace.historian.partition`). A commit names the version that it
follows; when another one took that version, the handle follows the log, looks whether the commit still
holds there, and tries again::

    append   ── nobody moved this writer's slots, nobody rewrote files beyond its own age ──► again
    rewrite  ── all files that it replaces are still there ─────────────────────────────────► again

An answer that was lost is no doubt: what the commit would bring is there already.
"""

from __future__ import annotations

import fcntl
import json
import logging
import secrets
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction, Transaction

from headrace.historian.index import COUNTER_PREFIX, Snapshot, make_snapshot, open_delta
from headrace.historian.layout import (
    APP_PREFIX,
    DELTA_SCHEMA,
    TABLE_CONFIGURATION,
    DataFile,
    is_rewritten,
    os_error,
)
from headrace.historian.partition import SLOTS, WHOLE, Partition
from headrace.historian.repair import put_aside_checkpoint, put_aside_torn_entries
from headrace.historian.storage import LocalStorage, Place, Storage, answering, storage_of
from headrace.model.errors import Corrupt, Terminal, Transient
from headrace.model.time import Clock, to_datetime
from headrace.security.files import make_folder

COMMIT_TRIES: Final = 50
UNSYNCED_MAX: Final = 2 * SLOTS
_log = logging.getLogger(__name__)


class OvertakenError(Exception):
    """Files that the commit would add are older by name than rewritten ones: name them anew."""


@dataclass
class _Commit:
    """What one commit changes; see :meth:`Table.commit`."""

    added: Sequence[DataFile]
    removed: Sequence[DataFile]
    position: tuple[str, int] | None
    counts: Mapping[str, int]
    counters: Mapping[str, int]
    actions: list[Any] = field(default_factory=list)

    def is_in(self, snapshot: Snapshot) -> bool:
        """Whether it is done already: the answer was lost."""
        paths = {file.path for file in snapshot.files}
        if self.added or self.removed:
            return paths.issuperset(file.path for file in self.added) and paths.isdisjoint(
                file.path for file in self.removed
            )
        return False

    def holds_on(self, snapshot: Snapshot) -> bool:
        """Whether all that it replaces is still there."""
        paths = {file.path for file in snapshot.files}
        return paths.issuperset(file.path for file in self.removed)

    def is_overtaken(self, snapshot: Snapshot) -> bool:
        """Whether a rewritten file counts as newer than what an append would add."""
        if self.removed or not self.added:
            return False
        own = min(file.ordinal for file in self.added)
        return any(file.ordinal >= own for file in snapshot.files if is_rewritten(file.path))


class Table:
    """One open table. Threads of one process may commit; commits follow each other.

    Use :func:`open_table`.

    Attributes:
        mark: part of the names of its new files, where other machines may write files at the same
            version; else empty.
    """

    def __init__(
        self, storage: Storage, handle: DeltaTable, clock: Clock, partition: Partition
    ) -> None:
        self.storage = storage
        self.partition = partition
        self._handle = handle
        self._clock = clock
        self._lock = threading.Lock()
        self.snapshot: Snapshot = make_snapshot(handle, storage)
        alone = partition.is_whole and storage.options is None
        self.mark = "" if alone else f"{partition.index}x{secrets.token_hex(4)}"
        self._synced = max(handle.version() - (0 if partition.is_whole else UNSYNCED_MAX), -1)

    @property
    def counters(self) -> Mapping[str, int]:
        """Running totals as of the newest commit."""
        return self.snapshot.totals

    def committed(self, app: str) -> int | None:
        """Stream sequence up to which the table has everything of this writer's part of ``app``."""
        return self.snapshot.committed(app, self.partition.slots)

    def next_ordinal(self) -> int:
        """Age of content for files that are written now; above all that exist."""
        with self._lock:
            return self.snapshot.version + 1

    def refresh(self) -> Snapshot:
        """Follow what other writers committed."""
        with self._lock, answering(self.storage):
            if not self.partition.is_whole:
                self._follow()
            return self.snapshot

    def commit(
        self,
        added: Iterable[DataFile],
        removed: Iterable[DataFile] = (),
        position: tuple[str, int] | None = None,
        *,
        counts: Mapping[str, int] | None = None,
        counters: Mapping[str, int] | None = None,
        data_change: bool = True,
    ) -> Snapshot:
        """One atomic commit of files that are already durable; durable itself when this returns.

        Args:
            position: (app id, stream sequence) that this writer's part has after this commit.
            counts: are added to the running totals, whoever wrote them last.
            counters: are kept with the table; they replace those of the same name.
            data_change: false when the same samples are only laid out anew.

        Raises:
            Terminal: HIST-1010 when another process stores this writer's part.
            Transient: HIST-1204 when other writers were faster 50 times; HIST-1205 when files that
                it replaces are gone.
            OvertakenError: write the files again under a new ordinal.
        """
        commit = _Commit(tuple(added), tuple(removed), position, counts or {}, counters or {})
        now_ms = self._clock.now_us() // 1000
        commit.actions += [_add(file, data_change) for file in commit.added]
        commit.actions += [
            RemoveAction(file.path, data_change, now_ms, file.size, {}) for file in commit.removed
        ]
        with self._lock, answering(self.storage):
            self.storage.sync_files()
            self._commit(commit, now_ms)
            self._follow()
            self._sync_log()
            return self.snapshot

    def _commit(self, commit: _Commit, now_ms: int) -> None:
        """The lock is held."""
        known = self.committed(commit.position[0]) if commit.position else None
        for _ in range(COMMIT_TRIES):
            if commit.is_overtaken(self.snapshot):
                raise OvertakenError
            if not commit.holds_on(self.snapshot):
                raise _gone(self.storage)
            try:
                self._handle.create_write_transaction(
                    commit.actions,
                    mode="append",
                    schema=DELTA_SCHEMA,
                    commit_properties=self._properties(commit, now_ms),
                )
                return
            except DeltaError as error:
                refused = os_error(error, self.storage.uri)
                if refused is not None:
                    raise refused from error
                if not isinstance(error, CommitFailedError) and self.storage.options is None:
                    raise _conflict(self.storage, self.partition, error) from error
                self._follow()
                if commit.is_in(self.snapshot):
                    return
                moved = bool(commit.position) and self.committed(commit.position[0]) != known  # type: ignore[index] # checked
                if self.partition.is_whole or moved:
                    raise _conflict(self.storage, self.partition, error) from error
        raise Transient(
            "HIST-1204",
            f"{COMMIT_TRIES} commits to the table in {self.storage.uri} came too late",
            "It is tried again; see how many writers commit there, and how often.",
        )

    def _properties(self, commit: _Commit, now_ms: int) -> CommitProperties:
        totals = {**self.snapshot.totals, **commit.counters}
        for name, count in commit.counts.items():
            totals[name] = totals.get(name, 0) + count
        transactions = None
        if commit.position is not None:
            app, sequence = commit.position
            names = self.snapshot.position_names(app, self.partition)
            transactions = [Transaction(name, sequence, now_ms) for name in names]
            totals = {name: total for name, total in totals.items() if _is_of(name, app)}
            totals |= dict.fromkeys(names, sequence)
        return CommitProperties(
            custom_metadata={COUNTER_PREFIX + name: str(total) for name, total in totals.items()},
            app_transactions=transactions,
            max_commit_retries=0,
        )

    def _follow(self) -> None:
        """The lock is held."""
        self._handle.update_incremental()
        self.snapshot = make_snapshot(self._handle, self.storage, self.snapshot)

    def sync(self) -> None:
        """Sync the newest log entry once more, after a commit that failed in doing so."""
        with self._lock:
            self._sync_log()

    def _sync_log(self) -> None:
        """The lock is held. What others committed before is synced as well: no entry may be durable
        without those before it."""
        version = self._handle.version()
        self.storage.sync_log(min(self._synced + 1, version), version)
        self._synced = version

    def vacuum(self, grace_hours: float) -> int:
        """Delete files that no version needs since ``grace_hours``; gives how many."""
        with self._lock, answering(self.storage):
            gone = self._handle.vacuum(
                retention_hours=int(grace_hours),
                dry_run=False,
                enforce_retention_duration=False,
                full=True,  # also what a crash left and no log entry names
            )
            self._follow()
            return len(gone)


def _is_of(name: str, app: str) -> bool:
    """Whether a total may stay: not the position of a stream that was made again since."""
    return not name.startswith(APP_PREFIX) or name == app or name.startswith(f"{app}/")


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


def _conflict(storage: Storage, partition: Partition, error: DeltaError) -> Terminal:
    return Terminal(
        "HIST-1010",
        f"a commit to the table in {storage.uri} was refused: {str(error).splitlines()[0]}",
        f"See that only one historian has the part {partition} of this table, then start it again.",
    )


def _gone(storage: Storage) -> Transient:
    return Transient(
        "HIST-1205",
        f"files of the table in {storage.uri} were replaced by another process meanwhile",
        "Let one historian alone have the part that begins with 0; it is tried again.",
    )


def open_table(place: Place, clock: Clock, partition: Partition = WHOLE) -> Table:
    """Open the table, make it when there is none, repair it when a power cut tore its newest entry.

    Args:
        partition: the part of the log that this process stores; others may have the other parts.

    Raises:
        Corrupt: HIST-1002 when it cannot be opened even so.
    """
    storage = storage_of(place)
    folder = storage.path if isinstance(storage, LocalStorage) else None
    if folder is None:
        return _open_whole(storage, clock, partition)
    make_folder(folder)
    with _alone(folder.with_name(folder.name + ".opening")):
        put_aside_torn_entries(folder, 0 if partition.is_whole else UNSYNCED_MAX)
        try:
            return _open(storage, clock, partition)
        except DeltaError as error:
            if not put_aside_checkpoint(folder):
                raise _unreadable(storage, error) from error
        return _open_whole(storage, clock, partition)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Writers of one table look after each other for what is torn, and may not meet in it."""
    with lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _open_whole(storage: Storage, clock: Clock, partition: Partition) -> Table:
    try:
        return _open(storage, clock, partition)
    except DeltaError as error:
        raise _unreadable(storage, error) from error


def _open(storage: Storage, clock: Clock, partition: Partition) -> Table:
    try:
        handle = open_delta(storage)
    except TableNotFoundError:
        handle = _create(storage)
    table = Table(storage, handle, clock, partition)
    table.sync()  # an entry that a crash left unsynced counts from here on
    return table


def _create(storage: Storage) -> DeltaTable:
    try:
        return DeltaTable.create(
            storage.uri,
            DELTA_SCHEMA,
            configuration=TABLE_CONFIGURATION,
            storage_options=storage.options,
        )
    except DeltaError:
        return open_delta(storage)  # another writer made it at the same moment


def _unreadable(storage: Storage, error: DeltaError) -> Corrupt:
    return Corrupt(
        "HIST-1002",
        f"the table in {storage.uri} cannot be opened: {str(error).splitlines()[0]}",
        "Restore the folder from a backup; the log of samples gives again what came after it.",
    )
