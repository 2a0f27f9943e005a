"""Spans and counts of time as people say them, in the user's language."""

from __future__ import annotations

from headrace.console.texts import Texts
from headrace.model.time import US_PER_S, to_datetime


def span(texts: Texts, span_us: int) -> str:
    """A span of time in one unit.

    Example:
        >>> span(Texts("en"), 90_000_000), span(Texts("zh"), 7_200_000_000)
        ('90 s', '2 小时')
    """
    seconds = max(0, round(span_us / US_PER_S))
    if seconds < 100:
        return texts("time.seconds", n=seconds)
    if seconds < 6_000:
        return texts("time.minutes", n=round(seconds / 60))
    if seconds < 172_800:
        return texts("time.hours", n=round(seconds / 3_600))
    return texts("time.days", n=round(seconds / 86_400))


def moment(at_us: int) -> str:
    """A UTC time to the second, as ISO 8601 writes it with a space.

    Example:
        >>> moment(0)
        '1970-01-01 00:00:00'
    """
    return to_datetime(at_us).strftime("%Y-%m-%d %H:%M:%S")
