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

NO_END_US = 10**15
"""A difference counts as open here, however old it is: waiting is done by looking again."""


def accounts(folder: DataFolder, connection: str = "") -> pl.DataFrame:
    with read_ledger(folder.ledger_file, SystemClock()) as store:
        return store.accounts(Wanted(connection=connection), grace_us=NO_END_US)


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

    def closed() -> bool:
        sums = total(accounts(folder))
        return sums["stored"] > 0 and in_motion(sums) == 0

    try:
        until_sync(closed, timeout_s, "books in which nothing moves")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{told(folder)}") from error
    sums = total(accounts(folder))
    assert sums["unexplained"] == sums["lost"] == sums["foreign"] == 0, told(folder)
    gone = [
        *MISSED,
        "filtered",
        *DROPPED,
        "dropped_edge_killed",
        "duplicate",
        "rejected",
        "skipped",
    ]
    assert sums["expected"] + sums["marked"] == sums["stored"] + sum(sums[name] for name in gone)
    assert sums["stored"] == rows_stored(folder), told(folder)
    return sums


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
