"""Times and durations as people write them: ``now``, ``-90m``, ``2026-03-29T02:30:00+01:00``, ``10s``."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from headrace.model.errors import Misconfigured
from headrace.model.time import US_PER_S, to_us

UNITS_US: Final = {
    "us": 1,
    "ms": 1_000,
    "s": US_PER_S,
    "m": 60 * US_PER_S,
    "min": 60 * US_PER_S,
    "h": 3_600 * US_PER_S,
    "d": 86_400 * US_PER_S,
    "w": 7 * 86_400 * US_PER_S,
}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(us|ms|min|s|m|h|d|w)")


def parse_duration(text: str) -> int:
    """A duration in microseconds, from ``10s``, ``1.5h`` or ``1h30m``. A day is 24 h.

    Raises:
        Misconfigured: HIST-1070 for anything else, and for a duration of zero.

    Example:
        >>> parse_duration("1h30m") // US_PER_S
        5400
    """
    parts = _DURATION.findall(text)
    total = round(sum(float(number) * UNITS_US[unit] for number, unit in parts))
    if total <= 0 or "".join(number + unit for number, unit in parts) != text:
        raise Misconfigured(
            "HIST-1070",
            f"{text!r} is no duration",
            "Write a number and us, ms, s, m (or min), h, d or w, for example 10s or 1h30m.",
        )
    return total


def parse_time(text: str, now_us: int) -> int:
    """A time in UTC microseconds: ``now``, ``-1h`` (before now), or ISO 8601 with its zone.

    Raises:
        Misconfigured: HIST-1071 for anything else; a time without a zone is refused, not guessed.

    Example:
        >>> parse_time("-1s", 5_000_000), parse_time("1970-01-01T00:00:01Z", 0)
        (4000000, 1000000)
    """
    if text == "now":
        return now_us
    if text.startswith("-"):
        return now_us - parse_duration(text[1:])
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise _no_time(text) from error
    if at.tzinfo is None:
        raise Misconfigured(
            "HIST-1071",
            f"the time {text!r} has no zone",
            f"Add one: {text}Z for UTC, or {text}+01:00.",
        )
    return to_us(at)


def _no_time(text: str) -> Misconfigured:
    return Misconfigured(
        "HIST-1071",
        f"{text!r} is no time",
        "Write now, -1h, or ISO 8601 with a zone such as 2026-03-01T08:00:00Z.",
    )
