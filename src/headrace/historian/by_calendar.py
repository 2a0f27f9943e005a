"""Aggregates over windows of the plant calendar: each shift, day or month, with how long it was."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final

import numpy as np
import polars as pl

from headrace.historian.intervals import INTERVALS_MAX, AggregateConfiguration
from headrace.historian.reader import AGGREGATE_SCHEMA, Reader
from headrace.model.calendar import HOUR_US, WINDOWS, PlantCalendar, Window
from headrace.model.errors import Misconfigured

WINDOW_SCHEMA: Final = {
    **AGGREGATE_SCHEMA,
    "duration_h": pl.Float64(),
    "shift": pl.String(),
    "team": pl.String(),
    "day": pl.String(),
}


def is_window(every: str) -> bool:
    """Whether this is a window of the calendar, and no length.

    Example:
        >>> is_window("shift"), is_window("8h")
        (True, False)
    """
    return every in WINDOWS


def windows_of(
    calendar: PlantCalendar, every: str, start_us: int, end_us: int, most: int = INTERVALS_MAX
) -> list[Window]:
    """Each window that begins in ``[start_us, end_us)``, in order; as a whole, also when its end comes
    after the time.

    Raises:
        Misconfigured: HIST-2601 for a calendar without shifts, HIST-2602 for more windows than ``most``.

    Example:
        >>> [window.hours for window in windows_of(PlantCalendar(), "day", 0, 2 * 24 * HOUR_US)]
        [24.0, 24.0]
    """
    if every not in calendar.names():
        raise Misconfigured(
            "HIST-2601",
            f"the plant calendar has no {every}",
            "Write shifts down in the site file, in [[calendar.shift]]; without them there are "
            f"{', '.join(calendar.names())}.",
        )
    found = list(islice(calendar.between(every, start_us, end_us), most + 1))
    if len(found) > most:
        raise Misconfigured(
            "HIST-2602",
            f"more than {most:,} windows: one each {every}",
            "Ask for a longer window or a shorter time.",
        )
    return found


def aggregate_windows(
    reader: Reader,
    tag_ids: Sequence[int],
    aggregate: str,
    windows: Sequence[Window],
    configuration: AggregateConfiguration | None = None,
) -> pl.DataFrame:
    """An OPC UA aggregate of each tag over windows of the calendar.

    Args:
        aggregate: a name in :data:`headrace.historian.aggregates.AGGREGATES`.
        windows: in order, none into another; between them there may be gaps.

    Returns:
        Columns of :data:`WINDOW_SCHEMA`: those of :meth:`Reader.aggregate`, the window's true length in
        hours (7 or 9 for a night on which the clocks change), name and team of a shift, and the ISO date on
        which it begins in the plant's time. Sorted by tag and window. A window whose end has not come has what
        there is until now, and the bit Partial in its status.

    Raises:
        Misconfigured: HIST-1061 for an unknown aggregate.
    """
    if not windows:
        return pl.DataFrame(schema=WINDOW_SCHEMA)
    starts = np.array([window.start_us for window in windows], np.int64)
    edges = np.union1d(starts, np.array([window.end_us for window in windows], np.int64))
    rows = reader.aggregate_over(tag_ids, aggregate, edges, configuration)
    # Between two edges lies a window, or a gap between two of them.
    place = np.searchsorted(edges, starts)
    tags = rows.height // (len(edges) - 1)
    mine = np.concatenate([place + tag * (len(edges) - 1) for tag in range(tags)] or [place[:0]])
    said = pl.DataFrame(
        {
            "duration_h": (
                [(window.end_us - window.start_us) / HOUR_US for window in windows] * tags
            ),
            "shift": [window.name or None for window in windows] * tags,
            "team": [window.team or None for window in windows] * tags,
            "day": [window.day for window in windows] * tags,
        },
        schema={name: kind for name, kind in WINDOW_SCHEMA.items() if name not in rows.columns},
    )
    return pl.concat([rows[mine], said], how="horizontal")
