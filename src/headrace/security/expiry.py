"""Warnings before certificates end: 30, 7 and 1 days ahead, and when they have ended; each once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from headrace.model.health import Severity
from headrace.model.time import to_datetime
from headrace.security.listener import US_PER_DAY, WARN_DAYS, Issued

CODE: Final = "SEC-1620"
Report = Callable[[Severity, str, str, str], None]


class ExpiryWatch:
    """Tells each threshold of each certificate once.

    Args:
        report: takes severity, code, text and remedy of an event.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._told: dict[str, int] = {}

    def look(self, entries: Iterable[Issued], now_us: int) -> None:
        """Look at those that are in use; tell what came nearer than when it was last told."""
        for entry in entries:
            reached = threshold(entry, now_us)
            if reached is None or self._told.get(entry.serial, max(WARN_DAYS) + 1) <= reached:
                continue
            self._told[entry.serial] = reached
            severity: Severity = "error" if reached <= min(WARN_DAYS) else "warning"
            day = to_datetime(entry.not_after_us).date().isoformat()
            when = f"ends on {day}" if reached else f"has ended on {day}"
            text = f"the certificate of {entry.name} ({entry.use}) {when}"
            self._report(severity, CODE, text, _remedy(entry))


def threshold(entry: Issued, now_us: int) -> int | None:
    """The nearest of 30, 7, 1 days that is reached; 0 when it has ended; None before.

    Example:
        >>> entry = Issued(name="a", use="device", serial="1", sha256="", not_before_us=0,
        ...                not_after_us=8 * US_PER_DAY)
        >>> threshold(entry, 0), threshold(entry, US_PER_DAY), threshold(entry, 9 * US_PER_DAY)
        (30, 7, 0)
    """
    left_us = entry.not_after_us - now_us
    if left_us <= 0:
        return 0
    reached = [days for days in WARN_DAYS if left_us <= days * US_PER_DAY]
    return min(reached) if reached else None


def _remedy(entry: Issued) -> str:
    if entry.use == "given":
        return (
            "Put a new one in the place that headrace.toml names, then: headrace cert renew server"
        )
    if entry.use == "authority":
        return "Plan a new authority: see docs/transport.md."
    return f"Make a new one: headrace cert renew {entry.name}"
