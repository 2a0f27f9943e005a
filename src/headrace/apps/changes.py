"""Results of the past that changed, gathered and told as events: which formula, where, when, why."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec
import polars as pl

from headrace.bus.client import Bus
from headrace.bus.log import LogReader, log_info
from headrace.bus.subjects import EVENTS_STREAM, Subjects
from headrace.formula.bound import Bound
from headrace.formula.placing import BEFORE
from headrace.model.apps import Cause, FormulaChange
from headrace.model.status import RETRACTED
from headrace.model.time import Clock, to_datetime

SOURCE: Final = "changes"
TELL_FIRST_US: Final = 2_000_000
TELL_MAX_US: Final = 600_000_000
WAIT_S: Final = 0.05
CHANGES_MAX: Final = 10_000
ASSETS_MAX: Final = 20
ASSETS_COUNTED_MAX: Final = 10_000
_REASONS: Final[dict[Cause, str]] = {
    "late": "samples came late or were corrected",
    "restart": "the role had not run",
    "calendar": "the calendar was edited",
    "version": "the formula has a new version",
    "upstream": "results that it reads changed",
}


@dataclass
class _Gathered:
    """Changes of one formula for one cause, since they were last told."""

    version: int
    since_us: int
    assets: dict[str, None] = field(default_factory=dict)
    start_us: int = 2**62
    end_us: int = -(2**62)
    changed: int = 0
    retracted: int = 0


class Changes:
    """Gathers changes and tells them.

    A change is told two seconds after the first row; what changes all the time, such as results of a
    device whose clock is behind, is told less and less often, at least each ten minutes.

    Args:
        bus: open. subjects: of the site. clock: wall-clock.
    """

    def __init__(self, bus: Bus, subjects: Subjects, clock: Clock) -> None:
        self._bus = bus
        self._subject = subjects.event("apps", SOURCE)
        self._clock = clock
        self._gathered: dict[tuple[str, Cause], _Gathered] = {}
        self._waits: dict[tuple[str, Cause], tuple[int, int]] = {}

    def note(self, bound: Bound, rows: pl.DataFrame, cause: Cause) -> None:
        """Rows that took the place of earlier ones, or are new in a time that was done.

        Args:
            rows: columns of :data:`headrace.formula.evaluate.SCHEMA`.
        """
        if not rows.height:
            return
        key, now_us = (bound.key.removesuffix(BEFORE), cause), self._clock.now_us()
        found = self._gathered.setdefault(key, _Gathered(bound.version, now_us))
        at_us, gone = rows["at_us"], int((rows["status"] == RETRACTED).sum())
        found.start_us = min(found.start_us, int(at_us.min()))  # type: ignore[arg-type] # not empty
        found.end_us = max(found.end_us, int(at_us.max()))  # type: ignore[arg-type] # same
        found.changed += rows.height - gone
        found.retracted += gone
        if len(found.assets) < ASSETS_COUNTED_MAX:
            found.assets |= dict.fromkeys(bound.assets[n] for n in rows["asset"].unique().sort())

    async def tell(self, *, all_now: bool = False) -> None:
        """Tell what is due.

        Raises:
            Transient: BUS-1023 when the broker is away; what was not told is kept.
        """
        now_us = self._clock.now_us()
        for key, found in list(self._gathered.items()):
            wait_us, told_us = self._waits.get(key, (TELL_FIRST_US, 0))
            if not all_now and 0 <= now_us - max(found.since_us, told_us) < wait_us:
                continue
            await self._bus.publish_event(self._subject, _event(key, found, now_us))
            del self._gathered[key]
            often = now_us - told_us < 3 * wait_us
            self._waits[key] = (
                min(2 * wait_us, TELL_MAX_US) if often else TELL_FIRST_US,
                now_us,
            )


async def recent_changes(
    bus: Bus, subjects: Subjects, limit: int = 200, *, key: str = ""
) -> list[FormulaChange]:
    """The newest changes of results of the past, oldest first.

    Args:
        limit: at most so many. key: of this formula only; empty: of all.

    Raises:
        Transient: BUS-1032 when the broker is away.
    """
    info = await log_info(bus, EVENTS_STREAM)
    only = [subjects.event("apps", SOURCE)]
    log = LogReader(bus, max(info.first_sequence - 1, 0), EVENTS_STREAM, only)
    found: deque[FormulaChange] = deque(maxlen=limit)
    try:
        while True:
            messages = await log.next(WAIT_S)
            told = (msgspec.json.decode(each.body, type=FormulaChange) for each in messages)
            found.extend(change for change in told if key in ("", change.key))
            if not messages and await log.has_all():
                return list(found)
    finally:
        await log.close()


def _event(key: tuple[str, Cause], found: _Gathered, now_us: int) -> FormulaChange:
    name, cause = key
    many = f"{len(found.assets)} assets" if len(found.assets) > 1 else next(iter(found.assets))
    start, end = (to_datetime(at_us).isoformat() for at_us in (found.start_us, found.end_us))
    return FormulaChange(
        at_us=now_us,
        severity="info",
        code="APPS-1101",
        source=f"apps/{name}",
        text=f"{name} of {many}: {found.changed} results changed and {found.retracted} were taken "
        f"back between {start} and {end}: {_REASONS[cause]}",
        key=name,
        version=found.version,
        assets=list(found.assets)[:ASSETS_MAX],
        assets_total=len(found.assets),
        start_us=found.start_us,
        end_us=found.end_us,
        changed=found.changed,
        retracted=found.retracted,
        cause=cause,
    )
