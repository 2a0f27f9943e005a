"""One commit: what was taken from the log becomes synced files and one atomic Delta entry.

Synchronous and without a broker. Safe against a kill at any point: files that no entry names are
garbage, and an entry names its stream position itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from headrace.bus import envelope
from headrace.bus.log import LogMessage
from headrace.bus.subjects import parse_batch
from headrace.historian.duplicates import BoolArray, Marks
from headrace.historian.last import edge
from headrace.historian.layout import (
    FILE_ROWS,
    DataFile,
    file_name,
    identity,
    sort_unique,
    unique_order,
    write_file,
)
from headrace.historian.ledger_store import LedgerStore
from headrace.historian.partition import Partition
from headrace.historian.scan import read_files, scan_files
from headrace.historian.storage import sync_path
from headrace.historian.table import OvertakenError, Table
from headrace.model.errors import Corrupt, Transient
from headrace.model.ledger import FOREIGN, MINUTE_US, CellKey, Run, Taken
from headrace.model.sample import concat_batches
from headrace.model.time import Clock

CHECK_FILES_MAX: Final = 64
RECENT_FILES: Final = 16
NEWEST_FILES_MAX: Final = 16
NAMES_TRIES: Final = 10
_CONTENT: Final = ("value", "text", "status", "received_timestamp")
QUARANTINE_FILES_MAX: Final = 2_000
QUARANTINE_BYTES_MAX: Final = 256 << 20


@dataclass
class Chunk:
    """What one commit will hold: everything of the log up to ``sequence``, stored there at ``at_us``."""

    sequence: int
    batches: list[pl.DataFrame] = field(default_factory=list)
    corrupt: list[tuple[LogMessage, str]] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    since_s: float | None = None
    at_us: int = 0
    runs: list[Taken] = field(default_factory=list)

    def take(
        self,
        sequence: int,
        batch: pl.DataFrame,
        size: int,
        now_s: float,
        at_us: int = 0,
        runs: Sequence[Taken] = (),
    ) -> None:
        """Take in one message's batch; ``runs`` are its cells of the loss ledger."""
        self._count(sequence, size, now_s, at_us)
        self.runs += runs
        if batch.height:
            self.batches.append(batch)
            self.rows += batch.height

    def take_corrupt(self, message: LogMessage, reason: str, now_s: float) -> None:
        """Take in one message that is no batch."""
        self._count(message.sequence, len(message.body), now_s, message.at_us)
        self.runs += [run._replace(rejected=run.rows) for run in runs_of(message, None)]
        self.corrupt.append((message, reason))

    def pass_by(self, sequence: int, now_s: float, at_us: int) -> None:
        """Everything up to ``sequence`` is for others."""
        self._count(sequence, 0, now_s, at_us)

    def _count(self, sequence: int, size: int, now_s: float, at_us: int) -> None:
        self.at_us = at_us
        self.sequence = sequence
        self.bytes += size
        self.since_s = now_s if self.since_s is None else self.since_s

    @property
    def is_empty(self) -> bool:
        return self.since_s is None


@dataclass(frozen=True)
class Committed:
    """Outcome of one commit. ``duplicates`` of ``offered`` samples were copies and not stored."""

    sequence: int
    offered: int
    stored: int
    duplicates: int
    quarantined: int
    dropped_quarantine: int


@dataclass(frozen=True)
class _Found:
    """Of rows, by the table: ``is_new``: no exact copy, and not received before what it has of the same
    identity; ``is_known``: it has that identity, and a new row replaces the old one."""

    is_new: BoolArray
    is_known: BoolArray


class Committer:
    """Writes chunks of one stream to one table.

    Args:
        table: open for writing.
        quarantine: folder for messages that are no batches.
        ledger: keeps what became of each run; None: nobody keeps books.

    Attributes:
        newest: the newest sample of each tag in the last few files written, by path, for
            :class:`headrace.historian.last.LastKeeper`.
    """

    def __init__(
        self, table: Table, quarantine: Path, clock: Clock, ledger: LedgerStore | None = None
    ) -> None:
        self._table = table
        self._ledger = ledger
        if ledger is not None:
            partition = table.partition
            ledger.recover(
                self._committed_of,
                "" if partition.is_whole else f".{partition.index}of{partition.count}",
            )
        self._quarantine = quarantine
        self._clock = clock
        self._marks = _marks_of(table)
        self.newest: dict[str, pl.DataFrame] = {}

    def begin(self, app: str, sequence: int) -> None:
        """Let the ledger know from where the log is followed.

        Raises:
            OSError: the disk refused.
        """
        self._settle(app, sequence)

    def commit(self, chunk: Chunk, app: str) -> Committed:
        """Commit a chunk; when this returns everything is on disk.

        Raises:
            OSError: the disk refused (full, or gone); nothing is committed, try again later.
            Terminal: HIST-1010 when another process commits to this part of the table.
            Transient: HIST-1201, HIST-1204 when the object storage or other writers delay it.
        """
        if self._is_committed(chunk, app):  # only the last sync failed
            self._table.sync()
            self._marks.advance(*identity(sort_unique(concat_batches(chunk.batches))))
            self._settle(app, chunk.sequence)
            return Committed(chunk.sequence, chunk.rows, chunk.rows, 0, len(chunk.corrupt), 0)
        dropped_quarantine = self._put_in_quarantine(chunk.corrupt)
        batch = concat_batches(chunk.batches)
        order = unique_order(batch)
        rows = batch if order is None else batch[order]
        suspect = self._marks.suspects(*identity(rows))
        found = self._look_up(rows, suspect)
        if found is not None:
            rows = rows.filter(pl.Series(found.is_new))
        duplicates = chunk.rows - rows.height
        if self._ledger is not None:
            taken = _outcome(chunk, order, suspect, found)
            self._ledger.prepare(self._book(app), chunk.sequence, taken)
        counts = {"samples_total": rows.height, "duplicates_total": duplicates}
        self._put_in_table(rows, (app, chunk.sequence), chunk.at_us, counts)
        self._marks.advance(*identity(rows))
        self._settle(app, chunk.sequence)
        return Committed(
            chunk.sequence,
            chunk.rows,
            rows.height,
            duplicates,
            len(chunk.corrupt),
            dropped_quarantine,
        )

    def _is_committed(self, chunk: Chunk, app: str) -> bool:
        """The number alone does not tell: a restored log gives the same numbers to other messages."""
        at_us = self._table.snapshot.log_time_us(app, self._table.partition)
        return self._table.committed(app) == chunk.sequence and at_us == chunk.at_us

    def _put_in_table(
        self, rows: pl.DataFrame, position: tuple[str, int], at_us: int, counts: dict[str, int]
    ) -> None:
        times = self._table.snapshot.log_times(position[0], self._table.partition, at_us)
        for _ in range(NAMES_TRIES):
            try:
                files = self._write(rows)
                self._table.commit(files, position=position, counts=counts, counters=times)
                return
            except OvertakenError:
                continue
        raise Transient(
            "HIST-1204", "compaction was faster than a commit each time", "It is tried again."
        )

    def _settle(self, app: str, sequence: int) -> None:
        if self._ledger is not None:
            self._ledger.settle(self._book(app), sequence)

    def _book(self, app: str) -> str:
        """Name of this writer's place in the ledger; the last part is the stream's, as of ``app``."""
        partition = self._table.partition
        stream, _, created = app.rpartition("/")
        return (
            app
            if partition.is_whole
            else f"{stream}.{partition.index}of{partition.count}/{created}"
        )

    def _committed_of(self, book: str) -> int | None:
        """The table's position of a place in the ledger, this writer's or one of another number."""
        stream, _, created = book.rpartition("/")
        stream, _, part = stream.partition(".")
        index, _, count = (part or "0of1").partition("of")
        slots = Partition(int(index), int(count)).slots
        return self._table.snapshot.committed(f"{stream}/{created}", slots)

    def _look_up(self, rows: pl.DataFrame, suspect: BoolArray) -> _Found | None:
        """What the table has of the suspects, where that is cheap to see; None when it has nothing."""
        if not suspect.any():
            return None
        tag_id, at_us = identity(rows)
        tags, times = tag_id[suspect], at_us[suspect]
        bounds = (int(times.min()), int(times.max()) + 1)
        files = self._table.snapshot.select(int(tags.min()), int(tags.max()), *bounds)
        if not files or len(files) > CHECK_FILES_MAX:
            return None  # readers and compaction de-duplicate in any case
        stored = read_files(self._table.storage, files, np.unique(tags).tolist(), *bounds)
        known = sort_unique(stored).rename({name: f"_{name}" for name in _CONTENT})
        copy = (pl.col("_received_timestamp") > pl.col("received_timestamp")) | pl.all_horizontal(
            pl.col(name).eq_missing(pl.col(f"_{name}")) for name in _CONTENT
        )
        found = rows.join(
            known, on=["tag_id", "source_timestamp"], how="left", maintain_order="left"
        )
        unknown = pl.col("_received_timestamp").is_null()
        looked_up = found.select(is_new=unknown | ~copy, is_known=~unknown)
        return _Found(looked_up["is_new"].to_numpy(), looked_up["is_known"].to_numpy())

    def _write(self, rows: pl.DataFrame) -> list[DataFile]:
        ordinal, mark = self._table.next_ordinal(), self._table.mark
        now_ms = self._clock.now_us() // 1000
        files = []
        for number, start in enumerate(range(0, rows.height, FILE_ROWS)):
            name = file_name(ordinal, number, f"w{mark}" if mark else "")
            part = rows.slice(start, FILE_ROWS)
            files.append(write_file(self._table.storage, name, part, now_ms))
            self.newest[name] = edge(part, newest=True)
        while len(self.newest) > NEWEST_FILES_MAX:
            self.newest.pop(next(iter(self.newest)))
        return files

    def _put_in_quarantine(self, corrupt: list[tuple[LogMessage, str]]) -> int:
        """Keep bad messages as files with the reason beside them; gives how many old ones went."""
        if not corrupt:
            return 0
        self._quarantine.mkdir(parents=True, exist_ok=True)
        for message, reason in corrupt:
            name = f"{message.at_us:020d}-{message.sequence:020d}"
            note = {
                "reason": reason,
                "subject": message.subject,
                "sequence": message.sequence,
                "headers": message.headers,
            }
            for path, content in (
                (self._quarantine / f"{name}.body", message.body),
                (self._quarantine / f"{name}.json", json.dumps(note).encode()),
            ):
                path.write_bytes(content)
                sync_path(path)
        sync_path(self._quarantine)
        return _bound_quarantine(self._quarantine)


def runs_of(message: LogMessage, rows: int | None) -> list[Taken]:
    """The runs of cells of a message; one of no books when it names none that fit its ``rows``.

    Args:
        rows: of its batch; None when it has none that can be read.
    """
    try:
        _, _, edge, connection = parse_batch(message.subject)
    except Corrupt:
        edge, connection = "", message.subject
    runs: list[Run] = []
    try:
        runs = envelope.parse_runs(message.headers)
    except Corrupt:
        if rows is None:
            return []
    if rows is not None and sum(run.rows for run in runs) != rows:
        runs = [Run(0, message.at_us - message.at_us % MINUTE_US, FOREIGN, 0, rows)]
    return [
        Taken(CellKey(edge, connection, run.group, run.minute_us, run.epoch), run.before, run.rows)
        for run in runs
    ]


def _outcome(
    chunk: Chunk, order: np.ndarray | None, suspect: BoolArray, found: _Found | None
) -> list[Taken]:
    """What became of each run of a chunk.

    Args:
        order: rows of the chunk's good messages, one after another, that were not dropped among
            themselves; None: all, as they came.
        suspect: which of those are not newer than what the table had of their tag.
        found: what the table has of those; None: nothing.
    """
    good = [at for at, run in enumerate(chunk.runs) if not run.rejected]
    sizes = np.array([chunk.runs[at].rows for at in good], np.int64)
    total = int(sizes.sum())
    if len(suspect) == total and not suspect.any():
        stored, late = sizes, np.zeros(len(sizes), np.int64)
    else:
        run_of = np.repeat(np.arange(len(sizes)), sizes)
        run_of = run_of if order is None else run_of[order]
        if found is not None:
            run_of, suspect = run_of[~found.is_known], suspect[~found.is_known]
        stored = np.bincount(run_of, minlength=len(sizes))
        late = np.bincount(run_of[suspect], minlength=len(sizes))
    taken = list(chunk.runs)
    for at, kept, of_them_late in zip(good, stored.tolist(), late.tolist(), strict=True):
        run = taken[at]
        taken[at] = run._replace(stored=kept, duplicate=run.rows - kept, late=of_them_late)
    return taken


def _bound_quarantine(folder: Path) -> int:
    """Delete the oldest messages above the bounds; gives how many."""
    bodies = sorted(folder.glob("*.body"))
    total = sum(path.stat().st_size for path in bodies)
    dropped = 0
    while bodies and (len(bodies) > QUARANTINE_FILES_MAX or total > QUARANTINE_BYTES_MAX):
        oldest = bodies.pop(0)
        total -= oldest.stat().st_size
        oldest.unlink()
        oldest.with_suffix(".json").unlink(missing_ok=True)
        dropped += 1
    return dropped


def _marks_of(table: Table) -> Marks:
    """Marks from the newest files; tags that are only in older ones get those files' newest time."""
    files = table.snapshot.files
    older, recent = files[:-RECENT_FILES], files[-RECENT_FILES:]
    marks = Marks(max(file.end_us for file in older)) if older else Marks()
    for file in recent:
        newest = (
            scan_files(table.storage, [file])
            .group_by("tag_id")
            .agg(pl.col("source_timestamp").max())
            .sort("tag_id")
            .collect()
        )
        marks.advance(*identity(newest))
    return marks
