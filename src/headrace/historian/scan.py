"""Rows of known data files, filtered where they lie: row groups that cannot match are not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from headrace.historian.layout import DataFile, from_stored
from headrace.historian.storage import Place, storage_of
from headrace.model.sample import TIMESTAMP, empty_batch
from headrace.model.status import RETRACTED
from headrace.model.time import to_datetime

US_MIN: Final = -62_135_596_800_000_000  # year 1
US_MAX: Final = 253_402_300_799_999_999  # year 9999


def matching(tag_ids: Sequence[int] | None, start_us: int, end_us: int) -> pl.Expr:
    """True for rows of these tags in [start_us, end_us).

    Args:
        tag_ids: None means all.
    """
    at = pl.col("source_timestamp")
    expression = pl.lit(True)
    if start_us > US_MIN:
        expression = expression & (at >= _literal(start_us))
    if end_us <= US_MAX:
        expression = expression & (at < _literal(end_us))
    if tag_ids is None:
        return expression
    tag = pl.col("tag_id")
    if len(tag_ids) == 1:
        return expression & (tag == tag_ids[0])
    return (
        expression
        & tag.is_between(min(tag_ids), max(tag_ids))
        & tag.is_in(pl.Series(np.asarray(tag_ids, np.int64)).implode())
    )


def _literal(at_us: int) -> pl.Expr:
    return pl.lit(to_datetime(min(max(at_us, US_MIN), US_MAX)), dtype=TIMESTAMP)


def scan_files(table: Place, files: Sequence[DataFile]) -> pl.LazyFrame:
    """The rows of these files in their order, with the table's column types."""
    storage = storage_of(table)
    places = [storage.place(file.path) for file in files]
    return pl.scan_parquet(places, glob=False, cache=False, storage_options=storage.options)


def read_files(
    table: Place,
    files: Sequence[DataFile],
    tag_ids: Sequence[int] | None,
    start_us: int,
    end_us: int,
) -> pl.DataFrame:
    """The matching samples as one batch, oldest content first; not de-duplicated.

    Raises:
        FileNotFoundError: a file was compacted and vacuumed meanwhile; take a new snapshot.
    """
    if not files:
        return empty_batch()
    rows = scan_files(table, files).filter(matching(tag_ids, start_us, end_us)).collect()
    return from_stored(rows)


def without_retracted(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows that are samples; those that only say that there is none any more are left out.

    Only of de-duplicated rows: what a retraction takes back must have gone before.

    Args:
        rows: with a column ``status``.
    """
    gone = rows["status"].to_numpy() == RETRACTED
    return rows.filter(pl.Series(~gone)) if gone.any() else rows
