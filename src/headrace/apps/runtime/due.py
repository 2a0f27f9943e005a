"""When hooks are due: the same moments in the same order, whatever steps time is taken in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

from headrace.app.hooks import Hook
from headrace.model.calendar import PlantCalendar
from headrace.model.time import to_datetime, to_us


class Due(NamedTuple):
    """One call of a hook.

    Attributes:
        due_us: when it can be made. place: of the hook. at_us: end of the window, or the moment.
    """

    due_us: int
    place: int
    at_us: int


def due_calls(
    hooks: Sequence[Hook], after_us: int, to_us_: int, calendar: PlantCalendar
) -> list[Due]:
    """All calls of windows, scores and schedules that are due in ``(after_us, to_us_]``, in order."""
    found: list[Due] = []
    for place, hook in enumerate(hooks):
        if hook.kind in ("window", "score") or (hook.kind == "schedule" and hook.every_us):
            late_us, every_us = hook.lateness_us, hook.every_us
            first = (after_us - late_us) // every_us + 1
            last = (to_us_ - late_us) // every_us
            found += [
                Due(n * every_us + late_us, place, n * every_us) for n in range(first, last + 1)
            ]
        elif hook.kind == "schedule":
            found += [Due(at, place, at) for at in _daily(hook.minute, after_us, to_us_, calendar)]
    return sorted(found)


def _daily(minute: int, after_us: int, until_us: int, calendar: PlantCalendar) -> Iterator[int]:
    """A minute of the plant's day, each day; one that a change of the clock skips is the moment of it."""
    zone = calendar.zone
    day = to_datetime(after_us).astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    day = day.replace(tzinfo=None, fold=0)
    while True:
        at_us = to_us((day + timedelta(minutes=minute)).replace(tzinfo=zone))
        if at_us > until_us:
            return
        if at_us > after_us:
            yield at_us
        day += timedelta(days=1)
