"""Times as authors of apps write them: ``15 min``, ``1 h``, ``06:00``."""

from __future__ import annotations

import re
from typing import Final

from headrace.model.errors import Misconfigured
from headrace.model.time import US_PER_S

_UNITS_US: Final = {
    "ms": US_PER_S // 1_000,
    "s": US_PER_S,
    "min": 60 * US_PER_S,
    "h": 3_600 * US_PER_S,
    "d": 86_400 * US_PER_S,
}
_DURATION: Final = re.compile(r"(\d{1,6})\s*(ms|s|min|h|d)")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


def duration_us(text: str) -> int:
    """Microseconds of a duration.

    Raises:
        Misconfigured: APPS-2201 when it is none, or zero.

    Example:
        >>> duration_us("15 min")
        900000000
    """
    found = _DURATION.fullmatch(text.strip())
    length_us = int(found[1]) * _UNITS_US[found[2]] if found else 0
    if not length_us:
        raise Misconfigured(
            "APPS-2201",
            f"{text!r} is no duration",
            "Write a whole number and ms, s, min, h or d, such as 15 min.",
        )
    return length_us


def minute_of_day(text: str) -> int | None:
    """The minute of the day that a clock time such as ``06:00`` names; None when it is no clock time.

    Example:
        >>> minute_of_day("06:30"), minute_of_day("1 h")
        (390, None)
    """
    found = _CLOCK.fullmatch(text.strip())
    return int(found[1]) * 60 + int(found[2]) if found else None
