"""How samples lie on disk: the Delta schema, the names and the encoding of data files.

::

    table/
      _delta_log/                                  one JSON a commit, a checkpoint each 100
      part-<ordinal>-<k>.parquet                   written by the writer; sorted, no identity twice
      part-<ordinal>-<k>-c<version>.parquet        small files merged by compaction
      part-<ordinal>-<k>-d<version>.parquet        closed: a past time by tag, written by compaction

``ordinal`` orders files by age of content: of two samples with one identity and one received_timestamp, the
one in the file with the higher ordinal counts. A compacted file has the highest ordinal of its inputs.

Delta has no unsigned integers: ``status`` is stored as ``long`` with the same number (0 to 2**32-1), so that
any engine reads the StatusCode as it is; a 32-bit pattern in ``integer`` would show Bad as negative. After
compression both cost the same.

A row of status BadNoEntryExists takes an earlier sample of its identity back; readers leave it out after they
de-duplicated. Compaction keeps it: an older row of that identity may lie in another file or still come.

The table is not partitioned. A commit of late or replayed samples may span years, and a date partition
would cut it into hundreds of files; the files carry minima and maxima of id and time instead, by which
we and foreign engines prune.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from deltalake import Field, Schema
from deltalake.schema import PrimitiveType

from headrace.historian.parquet import encode
from headrace.historian.storage import Place, storage_of
from headrace.model.sample import COLUMNS, SCHEMA, TIMESTAMP

_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
FILE_ROWS: Final = 1_000_000
ROW_GROUP_ROWS: Final = 65_536
COMPRESSION_LEVEL: Final = 1
APP_PREFIX: Final = "headrace/"

DELTA_SCHEMA: Final = Schema(
    [
        Field("tag_id", PrimitiveType("long"), nullable=False),
        Field("source_timestamp", PrimitiveType("timestamp"), nullable=False),
        Field("value", PrimitiveType("double"), nullable=True),
        Field("text", PrimitiveType("string"), nullable=True),
        Field("status", PrimitiveType("long"), nullable=False),
        Field("received_timestamp", PrimitiveType("timestamp"), nullable=False),
    ]
)
TABLE_CONFIGURATION: Final[dict[str, str | None]] = {
    "delta.checkpointInterval": "100",
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 1 hours",
    "delta.enableExpiredLogCleanup": "true",
}

STORED_SCHEMA: Final = {**SCHEMA, "status": pl.Int64()}


@dataclass(frozen=True)
class DataFile:
    """One data file and what its commit says of it.

    Attributes:
        path: relative to the table.
        size: bytes.
        rows: samples in it.
        tag_id_min, tag_id_max, start_us, end_us: bounds of its content, both inclusive.
        modified_ms: when it was made.
    """

    path: str
    size: int
    rows: int
    tag_id_min: int
    tag_id_max: int
    start_us: int
    end_us: int
    modified_ms: int = 0

    @property
    def ordinal(self) -> int:
        """Age of content; see the module."""
        return ordinal_of(self.path)


def ordinal_of(name: str) -> int:
    """Age of content of a data file.

    Example:
        >>> ordinal_of(file_name(7, 1, "c9"))
        7
    """
    return int(name.split("-")[1])


def file_name(ordinal: int, part: int, rewritten: str = "") -> str:
    """Name of a data file.

    Args:
        rewritten: how it came about when the writer did not write it: ``c`` (merged) or ``d`` (closed)
            and the version that has it; ``w`` and a number when one of several writers wrote it.

    Example:
        >>> file_name(7, 0), file_name(7, 1, "c9")
        ('part-00000000000000000007-0000.parquet', 'part-00000000000000000007-0001-c9.parquet')
    """
    suffix = f"-{rewritten}" if rewritten else ""
    return f"part-{ordinal:020d}-{part:04d}{suffix}.parquet"


def is_closed(name: str) -> bool:
    """True for a closed file: laid out by tag, not touched again but by retention.

    Example:
        >>> is_closed(file_name(7, 0, "d9")), is_closed(file_name(7, 0, "c9"))
        (True, False)
    """
    return "-d" in name


def is_rewritten(name: str) -> bool:
    """True for a file that compaction or retention wrote.

    Example:
        >>> is_rewritten(file_name(7, 0, "c9")), is_rewritten(file_name(7, 0, "w1"))
        (True, False)
    """
    return "-c" in name or is_closed(name)


def app_id(stream: str, created_us: int) -> str:
    """The Delta ``txn`` application of one stream; a stream that is made again is another one.

    Example:
        >>> app_id("SAMPLES", 5)
        'headrace/SAMPLES/5'
    """
    return f"{APP_PREFIX}{stream}/{created_us}"


def slot_app(app: str, slot: int) -> str:
    """The same for one slot, where several writers share the table.

    Example:
        >>> slot_app("headrace/SAMPLES/5", 3)
        'headrace/SAMPLES/5/03'
    """
    return f"{app}/{slot:02d}"


def to_stored(batch: pl.DataFrame) -> pl.DataFrame:
    """A batch with the column types of the table."""
    return batch.with_columns(pl.col("status").cast(pl.Int64))


def from_stored(rows: pl.DataFrame) -> pl.DataFrame:
    """A batch from rows of the table."""
    return rows.select(COLUMNS).with_columns(
        pl.col("status").cast(pl.UInt32),
        pl.col("source_timestamp", "received_timestamp").cast(TIMESTAMP),
    )


def sort_unique(batch: pl.DataFrame) -> pl.DataFrame:
    """Sorted by identity, one sample each: of several the last received, then the last in the input.

    Args:
        batch: samples, older files and messages first.

    Example:
        >>> from headrace.model.sample import make_batch
        >>> two = make_batch(np.array([7, 7]), np.array([0, 0]), np.array([1.0, 2.0]),
        ...                  received_timestamp_us=np.array([9, 5]))
        >>> sort_unique(two)["value"].to_list()
        [1.0]
    """
    order = unique_order(batch)
    return batch if order is None else batch[order]


def unique_order(batch: pl.DataFrame) -> np.ndarray | None:
    """The rows that :func:`sort_unique` takes, in its order; None when the batch is so already."""
    tag_id, at_us = identity(batch)
    if is_sorted_unique(tag_id, at_us):
        return None
    received_us = batch["received_timestamp"].to_physical().to_numpy()
    order = np.lexsort((received_us, at_us, tag_id))
    tag_id, at_us = tag_id[order], at_us[order]
    last = np.ones(len(order), np.bool_)
    last[:-1] = (tag_id[1:] != tag_id[:-1]) | (at_us[1:] != at_us[:-1])
    return np.asarray(order[last])


def identity(batch: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(tag_id, source_timestamp in us) as int64 arrays."""
    return (
        batch["tag_id"].to_numpy(),
        batch["source_timestamp"].to_physical().to_numpy(),
    )


def is_sorted_unique(tag_id: np.ndarray, at_us: np.ndarray) -> bool:
    """True when identities strictly ascend."""
    if len(tag_id) < 2:
        return True
    same = tag_id[1:] == tag_id[:-1]
    return bool(np.all((tag_id[1:] > tag_id[:-1]) | (same & (at_us[1:] > at_us[:-1]))))


def write_file(table: Place, name: str, rows: pl.DataFrame, modified_ms: int) -> DataFile:
    """Write sorted rows as one Parquet file, durably; its name in a folder is synced by the commit.

    Polars writes what will be rewritten soon; closed files, which are written once and read for ever, get
    encodings by trial (:mod:`headrace.historian.parquet`).

    Raises:
        OSError: the disk refused.
    """
    storage = storage_of(table)
    with storage.write(name) as handle:
        try:
            if is_closed(name):
                handle.write(encode(to_stored(rows)))
            else:
                to_stored(rows).write_parquet(
                    handle,
                    compression="zstd",
                    compression_level=COMPRESSION_LEVEL,
                    row_group_size=ROW_GROUP_ROWS,
                    statistics=True,
                )
        except pl.exceptions.ComputeError as error:
            raise os_error(error, storage.place(name)) or error from error
        size = handle.seek(0, io.SEEK_END)
    tag_id, at_us = identity(rows)
    return DataFile(
        path=name,
        size=size,
        rows=rows.height,
        tag_id_min=int(tag_id.min()),
        tag_id_max=int(tag_id.max()),
        start_us=int(at_us.min()),
        end_us=int(at_us.max()),
        modified_ms=modified_ms,
    )


def os_error(error: Exception, place: str) -> OSError | None:
    """The refusal of the disk that a library tells in words alone; None when it is another error.

    Example:
        >>> os_error(ValueError("parquet: underlying IO error: (os error 28)"), "a").errno
        28
        >>> os_error(ValueError("no column of this name"), "a") is None
        True
    """
    found = _OS_ERROR.search(str(error))
    if found is None:
        return None
    number = int(found[1])
    return OSError(number, os.strerror(number), place)
