"""One commit: what was taken from the log becomes synced files and one atomic Delta entry.

Synchronous and without a broker. Safe against a kill at any point: files that no entry names are
garbage, and an entry names its stream position itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from headrace.bus.log import LogMessage
from headrace.historian.duplicates import Marks
from headrace.historian.layout import (
    FILE_ROWS,
    DataFile,
    file_name,
    identity,
    sort_unique,
    write_file,
)
from headrace.historian.scan import read_files, scan_files
from headrace.historian.storage import sync_path
from headrace.historian.table import OvertakenError, Table
from headrace.model.errors import Transient
from headrace.model.sample import COLUMNS, concat_batches
from headrace.model.time import Clock

CHECK_FILES_MAX: Final = 64
RECENT_FILES: Final = 16
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

    def take(
        self, sequence: int, batch: pl.DataFrame, size: int, now_s: float, at_us: int = 0
    ) -> None:
        """Take in one message's batch."""
        self._count(sequence, size, now_s, at_us)
        if batch.height:
            self.batches.append(batch)
            self.rows += batch.height

    def take_corrupt(self, message: LogMessage, reason: str, now_s: float) -> None:
        """Take in one message that is no batch."""
        self._count(message.sequence, len(message.body), now_s, message.at_us)
        self.corrupt.append((message, reason))

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


class Committer:
    """Writes chunks of one stream to one table.

    Args:
        table: open for writing.
        quarantine: folder for messages that are no batches.
    """

    def __init__(self, table: Table, quarantine: Path, clock: Clock) -> None:
        self._table = table
        self._quarantine = quarantine
        self._clock = clock
        self._marks = _marks_of(table)

    def commit(self, chunk: Chunk, app: str) -> Committed:
        """Commit a chunk; when this returns everything is on disk.

        Raises:
            OSError: the disk refused (full, or gone); nothing is committed, try again later.
            Terminal: HIST-1010 when another process commits to this part of the table.
            Transient: HIST-1201, HIST-1204 when the object storage or other writers delay it.
        """
        if self._table.committed(app) == chunk.sequence:  # only the last sync failed
            self._table.sync()
            return Committed(chunk.sequence, chunk.rows, chunk.rows, 0, len(chunk.corrupt), 0)
        dropped_quarantine = self._put_in_quarantine(chunk.corrupt)
        rows = sort_unique(concat_batches(chunk.batches))
        rows = self._without_copies(rows)
        duplicates = chunk.rows - rows.height
        counts = {"samples_total": rows.height, "duplicates_total": duplicates}
        for _ in range(NAMES_TRIES):
            try:
                self._table.commit(
                    self._write(rows),
                    position=(app, chunk.sequence),
                    counts=counts,
                    counters=self._table.snapshot.log_times(
                        app, self._table.partition, chunk.at_us
                    ),
                )
                break
            except OvertakenError:
                continue
        else:
            raise Transient(
                "HIST-1204", "compaction was faster than a commit each time", "It is tried again."
            )
        self._marks.advance(*identity(rows))
        return Committed(
            chunk.sequence,
            chunk.rows,
            rows.height,
            duplicates,
            len(chunk.corrupt),
            dropped_quarantine,
        )

    def _without_copies(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Drop exact copies and what the table has a later received sample for, where cheap to see."""
        if not rows.height:
            return rows
        tag_id, at_us = identity(rows)
        suspect = self._marks.suspects(tag_id, at_us)
        if not suspect.any():
            return rows
        tags, times = tag_id[suspect], at_us[suspect]
        bounds = (int(times.min()), int(times.max()) + 1)
        files = self._table.snapshot.select(int(tags.min()), int(tags.max()), *bounds)
        if not files or len(files) > CHECK_FILES_MAX:
            return rows  # readers and compaction de-duplicate in any case
        stored = read_files(self._table.storage, files, np.unique(tags).tolist(), *bounds)
        known = sort_unique(stored).rename({name: f"_{name}" for name in _CONTENT})
        copy = (pl.col("_received_timestamp") > pl.col("received_timestamp")) | pl.all_horizontal(
            pl.col(name).eq_missing(pl.col(f"_{name}")) for name in _CONTENT
        )
        found = rows.join(
            known, on=["tag_id", "source_timestamp"], how="left", maintain_order="left"
        )
        is_new = pl.col("_received_timestamp").is_null() | ~copy
        return found.filter(is_new).select(COLUMNS)

    def _write(self, rows: pl.DataFrame) -> list[DataFile]:
        ordinal, mark = self._table.next_ordinal(), self._table.mark
        now_ms = self._clock.now_us() // 1000
        return [
            write_file(
                self._table.storage,
                file_name(ordinal, part, f"w{mark}" if mark else ""),
                rows.slice(start, FILE_ROWS),
                now_ms,
            )
            for part, start in enumerate(range(0, rows.height, FILE_ROWS))
        ]

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
