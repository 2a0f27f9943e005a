"""What the runtime says of an app, each second, on ``v1.<enterprise>.<site>.health.app.<word>``."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from headrace.model.health import Event

AppStateName = Literal[
    "starting", "catching_up", "running", "throttled", "waiting", "stopped", "disabled"
]
"""``throttled``: it is slowed down, by its budget; ``waiting``: it ended and is started again soon;
``stopped``: it did what it may not, and stays so until it is changed or started by a person."""
LOG_LINES_MAX: Final = 20


class AppState(msgspec.Struct, kw_only=True):
    """State of an app's process.

    Attributes:
        app, version: of the package. pid: 0 when none runs. since_us: when the state began.
        memory_mb, cpu_percent: resident, and of one core over the last ten seconds.
        messages_per_s, rows_per_s: to the broker and given, over the last ten seconds.
        throttled: share of the last ten seconds in which its budget held it back.
        restarts: how often it was started again. next_try_us: when it is next; 0 not planned.
        last_error_code, last_error, last_error_remedy, last_error_us: the newest one, kept.
        position_us: source time up to which its hooks ran; lag_us: how far that is behind.
        assets: that it serves. calls, samples, records: hooks that ran and what they gave, since the
            runtime started.
        holds: what of the kernel encloses it; see :func:`headrace.apps.runtime.sandbox.enclose`.
        log: newest lines of its log.
        edge: on whose machine it runs; empty: on the platform.
    """

    app: str
    version: str
    at_us: int
    state: AppStateName
    since_us: int = 0
    pid: int = 0
    memory_mb: float = 0.0
    cpu_percent: float = 0.0
    messages_per_s: float = 0.0
    rows_per_s: float = 0.0
    throttled: float = 0.0
    restarts: int = 0
    next_try_us: int = 0
    last_error_code: str = ""
    last_error: str = ""
    last_error_remedy: str = ""
    last_error_us: int = 0
    position_us: int = 0
    lag_us: int = 0
    assets: int = 0
    calls: int = 0
    samples: int = 0
    records: int = 0
    holds: list[str] = []
    log: list[str] = []
    edge: str = ""


class AppEvent(Event, kw_only=True):
    """An event of an app, on ``v1.<enterprise>.<site>.event.app.<word>``; it reads as any event does.

    Attributes:
        record: of a work request or a line of the value ledger: the fields of
            :class:`headrace.apps.runtime.effects.Record`; None for other events.
    """

    record: dict[str, Any] | None = None
