"""The loss ledger for the console: read in a thread, where the historian keeps it."""

from __future__ import annotations

import asyncio

import polars as pl

from headrace.console.sources import Sources
from headrace.historian.ledger_store import Wanted, read_ledger
from headrace.model.ledger import MINUTE_US


async def accounts(sources: Sources, wanted: Wanted) -> pl.DataFrame:
    """The explained ledger; columns of :data:`headrace.model.ledger.EXPLAINED_SCHEMA`.

    Raises:
        Transient: HIST-1703 when the historian has not made it yet, HIST-1704 when it cannot be read.
    """

    def read() -> pl.DataFrame:
        with read_ledger(sources.folder.ledger_file, sources.clock) as store:
            return store.accounts(wanted)

    return await asyncio.to_thread(read)


def in_steps(rows: pl.DataFrame, start_us: int, step_us: int) -> pl.DataFrame:
    """Rows of each connection summed over steps of time, for a picture.

    Args:
        rows: of :func:`accounts`.
        start_us: start of the first step.
        step_us: length of each, a multiple of a minute.

    Returns:
        Columns edge, connection, ``step`` (from 0) and every count; sorted.
    """
    assert step_us % MINUTE_US == 0, "a cell is a minute and is not cut"
    step = ((pl.col("minute_us") - start_us) // step_us).alias("step")
    names = ["edge", "connection"]
    counts = [name for name in rows.columns if name not in (*names, "group", "minute_us", "epoch")]
    return (rows.with_columns(step).group_by(*names, "step").agg(pl.col(counts).sum())).sort(
        *names, "step"
    )
