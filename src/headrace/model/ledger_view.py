"""The loss ledger as people look at it: summed, with each difference in words. Pure.

Command line, REST and console show the same rows; they differ only in form.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

import polars as pl

from headrace.model.ledger import COUNTS, HOUR_US, RECOMPUTED_GROUP
from headrace.model.ledger_causes import CAUSES, UNEXPLAINED, Cause

By = Literal["minute", "hour", "connection"]
BYS: Final[tuple[By, ...]] = ("minute", "hour", "connection")
SHARES: Final = (
    "stored", "filtered", "duplicate", "waiting", "missed", "dropped", "lost", "unexplained",
)  # fmt: skip
"""Where samples went, in the few ways of a picture; see :func:`shares`."""


class Way(NamedTuple):
    """So many samples left the way from device to table for one cause."""

    cause: Cause
    samples: int


def summed(rows: pl.DataFrame, by: By = "minute") -> pl.DataFrame:
    """Explained rows, summed.

    Args:
        rows: columns of :data:`headrace.model.ledger.EXPLAINED_SCHEMA`.
        by: ``minute`` or ``hour`` of each connection and group, or each of these over all time.

    Returns:
        Columns edge, connection, group, minute_us (start of the minute, the hour, or of all), and
        every count; sorted by time, then by name.

    Example:
        >>> from headrace.model.ledger import EXPLAINED_SCHEMA
        >>> summed(pl.DataFrame(schema=EXPLAINED_SCHEMA), "hour").height
        0
    """
    names = ["edge", "connection", "group"]
    start = pl.col("minute_us")
    if by == "hour":
        rows = rows.with_columns(start // HOUR_US * HOUR_US)
    elif by == "connection":
        rows = rows.with_columns(start.min())
    made = rows.group_by(*names, "minute_us").agg(pl.col(COUNTS).sum())
    return made.sort("minute_us", *names)


def total(rows: pl.DataFrame) -> dict[str, int]:
    """All counts over all rows; and ``recomputed``, the copies that are results worked out again."""
    again = rows.filter(pl.col("group") == RECOMPUTED_GROUP)["duplicate"].sum()
    return {name: int(rows[name].sum()) for name in COUNTS} | {RECOMPUTED_GROUP: int(again)}


def ways(row: dict[str, Any]) -> list[Way]:
    """Every way by which samples of a row did not become a new row of the table, in the order of the
    way; the unexplained ones last.

    Args:
        row: of :func:`summed`, or :func:`total`.
    """
    own = row["duplicate"] if row.get("group") == RECOMPUTED_GROUP else 0
    again = row.get(RECOMPUTED_GROUP, own)
    named = {**row, RECOMPUTED_GROUP: again, "duplicate": row["duplicate"] - again}
    found = [Way(cause, named[cause.name]) for cause in CAUSES if named[cause.name]]
    if row["unexplained"]:
        found.append(Way(UNEXPLAINED, row["unexplained"]))
    return found


def shares(row: dict[str, Any]) -> dict[str, int]:
    """Where the samples of a row went, by :data:`SHARES`; their sum is ``expected + marked`` when all
    is explained and nothing is in motion."""
    return {
        "stored": row["stored"],
        "filtered": row["filtered"] + row["protected"],
        "duplicate": row["duplicate"] + row["skipped"],
        "waiting": row["buffered"] + row["in_log"] + row["open"],
        "missed": sum(n for name, n in row.items() if name.startswith("missed_")),
        "dropped": row["edge_log_full"]
        + sum(n for name, n in row.items() if name.startswith("dropped_")),
        "lost": row["lost"] + row["rejected"],
        "unexplained": row["unexplained"],
    }
