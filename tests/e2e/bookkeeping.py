"""The loss ledger of an installation, once nothing is in motion any more: it closes to the sample."""

from __future__ import annotations

import asyncio

import polars as pl

from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.historian.ledger_store import Wanted, read_ledger
from headrace.historian.reader import open_reader
from headrace.model.folder import DataFolder
from headrace.model.ledger import DROPPED, MISSED
from headrace.model.ledger_view import total, ways
from headrace.model.time import SystemClock
from headrace.site.registry import Registry
from waiting import until_sync

NO_END_US = 2**62
"""A difference counts as open here, however old it is: waiting is done by looking again."""
_STAYED_OUT = ("duplicate", "rejected", "skipped")


def accounts(folder: DataFolder, connection: str = "") -> pl.DataFrame:
    with read_ledger(folder.ledger_file, SystemClock()) as store:
        return store.accounts(Wanted(connection=connection), grace_us=NO_END_US - 2**61)


def in_motion(sums: dict[str, int]) -> int:
    return sums["open"] + sums["in_log"] + sums["buffered"]


def rows_stored(folder: DataFolder) -> int:
    """All samples of the table and the log, marks of lost devices too."""

    async def ask() -> int:
        registry = Registry(f"sqlite:///{folder.metadata_file}")
        ids = [record.tag_id for record in registry.find("**")]
        async with (
            open_bus(load_address(folder), "test") as bus,
            open_reader(folder, bus) as reader,
        ):
            return (await asyncio.to_thread(reader.read, ids, -(2**62), 2**62)).height

    return asyncio.run(ask())


def check_books(folder: DataFolder, timeout_s: float = 60) -> dict[str, int]:
    """Wait until all is stored and told, and check that the books close; gives all counts.

    Expected and marked samples are exactly the stored ones and those that left for a named cause; and
    what the ledger calls stored is what the table has.
    """
    sums = check_closed(folder, NO_END_US, timeout_s)
    assert sums["stored"] == rows_stored(folder), told(folder)
    return sums


def check_closed(
    folder: DataFolder, before_us: int, timeout_s: float = 60, *, edge: str = ""
) -> dict[str, int]:
    """The same for the books of every edge, or of one, that had started before ``before_us`` and has
    ended."""

    def sums() -> dict[str, int]:
        ended = accounts(folder).filter(pl.col("epoch") < before_us)
        return total(ended.filter(pl.col("edge") == edge) if edge else ended)

    try:
        until_sync(lambda: sums()["stored"] > 0 and in_motion(sums()) == 0, timeout_s)
    except AssertionError as error:
        raise AssertionError(f"books in which something moves: {told(folder)}") from error
    found = sums()
    assert found["unexplained"] == found["lost"] == found["foreign"] == 0, told(folder)
    gone = [*MISSED, "filtered", "protected", *DROPPED, "dropped_edge_killed", *_STAYED_OUT]
    assert found["expected"] + found["marked"] == found["stored"] + sum(found[n] for n in gone)
    return found


def told(folder: DataFolder) -> str:
    """The ledger's rows that are not plain, for a failing test."""
    lines = []
    for row in accounts(folder).iter_rows(named=True):
        words = {way.cause.name: way.samples for way in ways(row)}
        if words or row["open"]:
            numbers = {n: row[n] for n in ("expected", "read", "marked", "published", "stored")}
            key = [row[name] for name in ("edge", "connection", "group", "minute_us", "epoch")]
            lines.append(f"{key} {numbers} {words} open {row['open']}")
    return "\n".join(lines)
