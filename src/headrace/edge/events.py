"""Events about one connection of an edge."""

from __future__ import annotations

from headrace.model.health import Event, Severity
from headrace.model.time import Clock
from headrace.security.redaction import REDACTOR


def connection_event(
    clock: Clock, edge: str, connection: str, severity: Severity, code: str, text: str,
    remedy: str = "",
) -> Event:  # fmt: skip
    """An event whose source is a connection, at the time of ``clock``; secrets are blotted out.

    Example:
        >>> from headrace.model.time import ManualClock
        >>> connection_event(ManualClock(), "local", "plc_1", "info", "EDGE-1017", "goes on").source
        'edge/local/plc_1'
    """
    return Event(
        at_us=clock.now_us(),
        severity=severity,
        code=code,
        source=f"edge/{edge}/{connection}",
        text=REDACTOR.blotted(text),
        remedy=remedy,
    )
