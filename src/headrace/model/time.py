"""Time as the platform keeps it: UTC, int64 microseconds since 1970-01-01.

Nothing else reads the machine's clock: a :class:`Clock` is passed in, so that simulations and tests
can hold, step and race it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

US_PER_S = 1_000_000
US_PER_MS = 1_000


class Clock(Protocol):
    """A source of time. ``now_us`` may jump (it is the wall clock); ``monotonic_s`` never does."""

    def now_us(self) -> int:
        """Wall-clock time, UTC, microseconds since 1970-01-01."""
        ...

    def monotonic_s(self) -> float:
        """Seconds of a clock that only goes forward; its zero means nothing."""
        ...


class SystemClock:
    """The machine's own clocks.

    Example:
        >>> SystemClock().now_us() > 1_700_000_000_000_000
        True
    """

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is told to move; for tests and simulations.

    Args:
        now_us: wall-clock start, UTC microseconds.

    Example:
        >>> clock = ManualClock(1_000_000)
        >>> clock.advance_us(500_000)
        >>> clock.now_us(), clock.monotonic_s()
        (1500000, 0.5)
    """

    def __init__(self, now_us: int = 1_700_000_000_000_000) -> None:
        self._now_us = now_us
        self._monotonic_us = 0

    def now_us(self) -> int:
        return self._now_us

    def monotonic_s(self) -> float:
        return self._monotonic_us / US_PER_S

    def advance_us(self, step_us: int) -> None:
        """Let both clocks run by ``step_us`` (microseconds, not negative)."""
        assert step_us >= 0, "a clock runs forward; use step_us to set the wall clock"
        self._now_us += step_us
        self._monotonic_us += step_us

    def step_us(self, step_us: int) -> None:
        """Set the wall clock by ``step_us`` (may be negative), as an operator or NTP would."""
        self._now_us += step_us


def to_datetime(at_us: int) -> datetime:
    """An aware UTC datetime from microseconds since 1970.

    Example:
        >>> to_datetime(0).isoformat()
        '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(at_us // US_PER_S, tz=UTC).replace(microsecond=at_us % US_PER_S)


def to_us(at: datetime) -> int:
    """Microseconds since 1970 from an aware datetime, without passing through a float.

    Example:
        >>> to_us(to_datetime(1_700_000_000_123_456))
        1700000000123456
    """
    assert at.tzinfo is not None, "a naive datetime has no place on the time line"
    delta = at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * US_PER_S + delta.microseconds
