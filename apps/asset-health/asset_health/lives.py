"""When lives of an asset began and ended, by its settings, and when it runs."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

US_PER_S = 1_000_000


def dates_of(text: object) -> list[int]:
    """Times of a setting, UTC microseconds, sorted: ISO 8601, commas between; a time without a zone is UTC.

    Raises:
        ValueError: when one of them is no time.

    Example:
        >>> dates_of("2026-01-02, 1970-01-01T00:00:01Z")
        [1000000, 1767312000000000]
    """
    found = []
    for each in str(text).split(","):
        if each.strip():
            at = datetime.fromisoformat(each.strip())
            at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
            found.append(round(at.timestamp() * US_PER_S))
    return sorted(found)


def renewals_of(text: object) -> list[int]:
    """As :func:`dates_of`, of a setting that may also be any other text, which then is no renewal."""
    try:
        return dates_of(text)
    except ValueError:
        return []


def is_running(
    frame: pl.DataFrame, load: str, settings: dict[str, float | str | bool]
) -> NDArray[np.bool_]:
    """(rows,): the asset takes more power than at rest; all of them where it has no such quantity."""
    if not load:
        return np.ones(frame.height, dtype=bool)
    running: NDArray[np.bool_] = frame[load].fill_null(0.0).to_numpy() > float(
        settings["rest_below"]
    )
    return running
