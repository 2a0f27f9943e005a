"""The newest sample of each tag, kept beside the table, so that a reader that has just started knows them.

The historian folds each few new files into one small file and writes it again; two names take turns, so that
one whole file is there at any moment. It is a help and no truth: a reader that finds none, or a torn one, looks
into the table's files, and one that finds an old one reads what the table got since. No commit waits for it.
"""

from __future__ import annotations

import io
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import polars as pl

from headrace.historian.index import Snapshot
from headrace.historian.layout import DataFile, is_closed, ordinal_of, sort_unique
from headrace.historian.scan import US_MAX, US_MIN, read_files
from headrace.historian.storage import Place, storage_of
from headrace.historian.table import Table
from headrace.model.sample import empty_batch
from headrace.model.time import Clock

NAMES: Final = ("_last_values_0.arrow", "_last_values_1.arrow")
"""A leading underscore: engines that read the folder, and vacuum, leave such files alone."""
KEEP_FILES: Final = 8
KEEP_S: Final = 60.0
LATE_ORDINALS: Final = 64
_CHECK_BYTES: Final = 4
_log = logging.getLogger(__name__)


def edge(rows: pl.DataFrame, *, newest: bool) -> pl.DataFrame:
    """The last (or first) row of each tag of sorted rows."""
    if not rows.height:
        return rows
    tag_id = rows["tag_id"].to_numpy()
    border = np.flatnonzero(tag_id[1:] != tag_id[:-1])
    places = np.append(border, len(tag_id) - 1) if newest else np.append(0, border + 1)
    return rows[places]


@dataclass
class LastValues:
    """The newest sample of each tag in all files of the table up to some age of content.

    Attributes:
        rows: a batch sorted by tag, one sample each.
        ordinal: of the newest file in it; -1 for none (see :mod:`headrace.historian.layout`).
        seen: the newest files in it by path. With several writers a commit may come a little after
            one with a higher ordinal; by its path it is known to be new.
        serial: how often they were kept; of two files the one with the higher number counts.
    """

    rows: pl.DataFrame = field(default_factory=empty_batch)
    ordinal: int = -1
    seen: frozenset[str] = frozenset()
    serial: int = 0

    def fresh(self, snapshot: Snapshot) -> list[DataFile]:
        """Files that these values do not have yet."""
        return [file for file in snapshot.files if self._is_fresh(file)]

    def _is_fresh(self, file: DataFile) -> bool:
        if file.ordinal > self.ordinal:
            return True
        late = file.ordinal > self.ordinal - LATE_ORDINALS and not is_closed(file.path)
        return late and file.path not in self.seen

    def take_files(
        self,
        table: Place,
        files: Sequence[DataFile],
        tag_ids: Sequence[int] | None = None,
        known: Mapping[str, pl.DataFrame] | None = None,
    ) -> None:
        """Fold files in, one after the other.

        Args:
            tag_ids: of these tags; None means all.
            known: what the newest samples of some files are, by path, so that they are not read.

        Raises:
            FileNotFoundError: one was compacted away meanwhile; take those of the next snapshot.
        """
        for file in files if tag_ids is None or len(tag_ids) else ():
            newest = (known or {}).get(file.path)
            if newest is None:
                rows = read_files(table, [file], tag_ids, US_MIN, US_MAX + 1)
                newest = edge(rows, newest=True)
            self.fold(newest)
        self.ordinal = max([self.ordinal, *(file.ordinal for file in files)])
        seen = self.seen.union(file.path for file in files)
        self.seen = frozenset(p for p in seen if ordinal_of(p) > self.ordinal - LATE_ORDINALS)

    def fold(self, rows: pl.DataFrame) -> None:
        """Fold samples in; of one tag the newest stays, of one identity the last received."""
        if rows.height:
            self.rows = edge(sort_unique(pl.concat([self.rows, rows])), newest=True)

    def encode(self) -> bytes:
        """A checksum, a line about the files, and the rows as an Arrow stream.

        Example:
            >>> found = LastValues.decode(LastValues(ordinal=7).encode())
            >>> found.ordinal, found.rows.height
            (7, 0)
        """
        told = {"ordinal": self.ordinal, "seen": sorted(self.seen), "serial": self.serial}
        about = json.dumps(told).encode()
        body = io.BytesIO()
        self.rows.write_ipc_stream(body, compression="lz4")
        content = about + b"\n" + body.getvalue()
        return zlib.crc32(content).to_bytes(_CHECK_BYTES, "little") + content

    @classmethod
    def decode(cls, raw: bytes) -> LastValues | None:
        """What :meth:`encode` made; None when it is torn."""
        content = raw[_CHECK_BYTES:]
        if zlib.crc32(content).to_bytes(_CHECK_BYTES, "little") != raw[:_CHECK_BYTES]:
            return None
        about, _, body = content.partition(b"\n")
        if not body:
            return None  # an empty file has the checksum of nothing
        told = json.loads(about)
        rows = pl.read_ipc_stream(io.BytesIO(body))
        return cls(rows, told["ordinal"], frozenset(told["seen"]), told["serial"])


def load(table: Place) -> LastValues | None:
    """The newest whole values beside a table; None when there are none."""
    storage = storage_of(table)
    found = []
    storage = storage_of(table)
    for name in NAMES:
        try:
            raw = storage.read(name)
        except FileNotFoundError:
            continue
        values = LastValues.decode(raw)
        if values is None:
            _log.warning("HIST-1501 %s is torn and is not used", storage.place(name))
        else:
            found.append(values)
    return max(found, key=lambda values: values.serial, default=None)


class LastKeeper:
    """Keeps the values beside one table up to date; one a table.

    Args:
        table: open for writing.
        newest: of files that this process wrote just now, by path (see
            :class:`headrace.historian.commit.Committer`); others are read.
    """

    def __init__(
        self, table: Table, clock: Clock, newest: Mapping[str, pl.DataFrame] | None = None
    ) -> None:
        self._table = table
        self._newest = {} if newest is None else newest
        self._clock = clock
        self._values: LastValues | None = None
        self._dropped = False
        self._kept_s = clock.monotonic_s()

    def drop(self, gone: pl.Expr) -> None:
        """Forget samples that left the table, with the next step.

        Args:
            gone: true for such rows.
        """
        if self._values is not None:
            kept = self._values.rows.filter(~gone)
            self._dropped = self._dropped or kept.height < self._values.rows.height
            self._values.rows = kept

    def step(self) -> bool:
        """Fold in what is new when that is enough files or a minute passed; False when nothing was done."""
        if self._values is None:
            self._values = load(self._table.storage) or LastValues()
        fresh = self._values.fresh(self._table.snapshot)
        due = self._clock.monotonic_s() - self._kept_s >= KEEP_S
        if not self._dropped and (not fresh or not (due or len(fresh) >= KEEP_FILES)):
            return False
        begun = replace(self._values, serial=self._values.serial + 1)
        try:
            begun.take_files(self._table.storage, fresh, known=self._newest)
            with self._table.storage.write(NAMES[begun.serial % len(NAMES)]) as handle:
                handle.write(begun.encode())
        except FileNotFoundError:
            return False  # compacted meanwhile; the next snapshot has what it became
        except OSError as error:  # a full disk must not keep retention and vacuum from their work
            _log.warning("HIST-1502 the last values cannot be kept now: %s", error)
            return False
        self._values, self._dropped = begun, False
        self._kept_s = self._clock.monotonic_s()
        return True
