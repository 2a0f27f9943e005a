"""What a reader of the history finds of one tag: evidence that the table can be read and is complete."""

from __future__ import annotations

import asyncio
from typing import Final

import numpy as np
import polars as pl
from deltalake.exceptions import DeltaError

from headrace.historian.reader import Reader
from headrace.model.errors import HeadraceError
from headrace.model.time import US_PER_S
from headrace.model.why_facts import TableFacts

CATCH_UP_S: Final = 2.0
LOOK_BACK_US: Final = 600 * US_PER_S
LOOK_POINTS: Final = 120


async def table_facts(reader: Reader, tag_id: int, *, live: bool) -> TableFacts:
    """Read the tag's newest sample now, out of the table and what the log has after it.

    Args:
        live: the broker answers, so the tail must reach the end of the log.
    """
    try:
        standing = await asyncio.to_thread(reader.standing)
        if live and not standing.tail_paused:
            await reader.catch_up(CATCH_UP_S)
        facts = await asyncio.to_thread(_read, reader, tag_id)
    except HeadraceError as error:
        return TableFacts(code=error.code, error=error.what, remedy=error.remedy)
    except (OSError, DeltaError, pl.exceptions.PolarsError) as error:
        return TableFacts(
            code="HIST-1802",
            error=f"the table cannot be read: {error}",
            remedy="See whether its disk is there and may be read: logs/historian.log",
        )
    facts.committed_sequence, facts.tail_paused = standing.committed_sequence, standing.tail_paused
    return facts


def _read(reader: Reader, tag_id: int) -> TableFacts:
    newest = reader.last([tag_id])
    facts = TableFacts(readable=True)
    if newest.height:
        facts.source_us = int(newest["source_timestamp"].to_physical()[0])
        facts.received_us = int(newest["received_timestamp"].to_physical()[0])
        facts.unchanged_us = _unchanged_us(reader, tag_id, facts.source_us)
    return facts


def _unchanged_us(reader: Reader, tag_id: int, newest_us: int) -> int:
    """For how long at least, up to ten minutes, every value has been the same as the newest."""
    parts = reader.downsample(tag_id, newest_us - LOOK_BACK_US, newest_us + 1, LOOK_POINTS)
    low, high = parts["minimum"].to_numpy(), parts["maximum"].to_numpy()  # NaN: Bad alone
    if not len(low) or int(parts["count"].sum()) < 2 or not np.isfinite(high[-1]):
        return 0
    other = np.flatnonzero((low != high[-1]) | (high != high[-1]))
    first = int(other[-1]) + 1 if len(other) else 0
    if first == len(low):
        return 0
    since_us = int(parts["minimum_timestamp"].to_physical()[first])
    return max(0, newest_us - since_us)
