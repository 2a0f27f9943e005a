"""What formulas mean, written down once more, slowly and plainly: one asset, one time after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    at_us: int
    value: float
    bad: bool


def held(rows: list[Row], at_us: int) -> Row | None:
    """The last row at or before a time."""
    found = [row for row in rows if row.at_us <= at_us]
    return found[-1] if found else None


def in_window(rows: list[Row], at_us: int, length_us: int) -> list[Row]:
    return [row for row in rows if at_us - length_us < row.at_us <= at_us]


def good(rows: list[Row]) -> list[float]:
    return [row.value for row in rows if not row.bad]


def area(rows: list[Row], start_us: int, end_us: int) -> tuple[float, float]:
    """Area below the steps in seconds, and seconds with a value."""
    cuts = sorted({start_us, end_us, *(r.at_us for r in rows if start_us < r.at_us < end_us)})
    total = known = 0.0
    for left, right in pairwise(cuts):
        row = held(rows, left)
        if row is not None and not row.bad:
            total += row.value * (right - left) / 1e6
            known += (right - left) / 1e6
    return total, known


def sample_functions() -> dict[str, Callable[[list[float]], float]]:
    """Functions of the usable values of a window; NaN where there is none."""

    def std(values: list[float]) -> float:
        return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan

    return {
        "mean": lambda v: float(np.mean(v)) if v else math.nan,
        "min": lambda v: min(v) if v else math.nan,
        "max": lambda v: max(v) if v else math.nan,
        "sum": lambda v: float(np.sum(v)) if v else math.nan,
        "count": lambda v: float(len(v)),
        "std": std,
        "first": lambda v: v[0] if v else math.nan,
        "last": lambda v: v[-1] if v else math.nan,
    }


def held_for(rows: list[Row], at_us: int, duration_us: int) -> bool:
    """Whether a condition was true without a break for so long."""
    now = held(rows, at_us)
    if now is None or now.bad or now.value != 1.0:
        return False
    earlier = [row for row in rows if row.at_us <= at_us]
    began = at_us
    for row in reversed(earlier):
        if row.bad or row.value != 1.0:
            break
        began = row.at_us
    return at_us - began >= duration_us
