"""The alarm list as people work it: filtered, sorted, counted. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from headrace.model.alarm import (
    ANNUNCIATED,
    PRIORITIES,
    UNACKNOWLEDGED,
    AlarmState,
    Priority,
    StateName,
)

WORST_FIRST: Final[tuple[Priority, ...]] = PRIORITIES[::-1]
VIEWS: Final = ("active", "shelved", "suppressed", "out_of_service", "all")
SORTS: Final = ("priority", "newest", "state", "asset")
STATES: Final[tuple[StateName, ...]] = (
    "UNACK", "RTNUN", "LATUN", "LATCH", "ACKED", "SHLVD", "DSUPR", "OOSRV", "NORM",
)  # fmt: skip
_HIDDEN_IN: Final = {"SHLVD": "shelved", "DSUPR": "suppressed", "OOSRV": "out_of_service"}


@dataclass(frozen=True)
class AlarmFilter:
    """What of the list to show.

    Attributes:
        view: one of :data:`VIEWS`. priorities: empty is every one.
        state: a word of ISA-18.2, ``waits`` for what has to be acknowledged, or "".
        below: equipment path; the asset lies there or below.
        search: words that all occur. mine: assigned to this user; "" is everybody's.
    """

    view: str = "active"
    priorities: frozenset[str] = frozenset()
    state: str = ""
    below: str = ""
    search: str = ""
    mine: str = ""


def view_of(alarm: AlarmState) -> str:
    """The list that an alarm stands in; a normal one, and one in shadow, only in that of all."""
    if alarm.shadow:
        return "all"
    return "active" if alarm.state in ANNUNCIATED else _HIDDEN_IN.get(alarm.state, "all")


def waits(alarm: AlarmState) -> bool:
    """Whether somebody has to acknowledge it."""
    return alarm.state in UNACKNOWLEDGED


def rank(priority: str) -> int:
    """0 for the highest priority."""
    return WORST_FIRST.index(priority)


def chosen(alarms: Iterable[AlarmState], wanted: AlarmFilter) -> list[AlarmState]:
    """The alarms that a filter lets through, in their order.

    Example:
        >>> hot = AlarmState(alarm="a/p/hot", asset="a/p", key="pump.hot", name="hot", state="UNACK")
        >>> [alarm.alarm for alarm in chosen([hot], AlarmFilter(state="waits", search="HOT a"))]
        ['a/p/hot']
        >>> chosen([hot], AlarmFilter(view="shelved"))
        []
    """
    words = wanted.search.lower().split()
    return [one for one in alarms if _fits(one, wanted) and all(w in _sought(one) for w in words)]


def _fits(alarm: AlarmState, wanted: AlarmFilter) -> bool:
    if wanted.view not in ("all", view_of(alarm)):
        return False
    if wanted.priorities and alarm.priority not in wanted.priorities:
        return False
    if wanted.state and not (
        waits(alarm) if wanted.state == "waits" else alarm.state == wanted.state
    ):
        return False
    if wanted.below and not f"{alarm.asset}/".startswith(f"{wanted.below}/"):
        return False
    return not wanted.mine or alarm.assignee == wanted.mine


def _sought(alarm: AlarmState) -> str:
    texts = (alarm.message.en, alarm.message.zh, alarm.assignee, alarm.group, alarm.alarm_class)
    return " ".join((alarm.alarm, alarm.key, *texts)).lower()


def ordered(alarms: Sequence[AlarmState], sort: str) -> list[AlarmState]:
    """Alarms in the order a person works them.

    Args:
        sort: ``priority`` (what waits first, then the highest priority, then the newest), ``newest``,
            ``state`` or ``asset``.
    """
    keys: dict[str, Any] = {
        "priority": lambda a: (not waits(a), rank(a.priority), -a.since_us, a.alarm),
        "newest": lambda a: (-a.since_us, rank(a.priority), a.alarm),
        "state": lambda a: (STATES.index(a.state), rank(a.priority), -a.since_us, a.alarm),
        "asset": lambda a: (a.asset, rank(a.priority), -a.since_us, a.alarm),
    }
    return sorted(alarms, key=keys[sort])


def counts(alarms: Iterable[AlarmState]) -> dict[str, int]:
    """How many alarms each view has."""
    found = dict.fromkeys(VIEWS, 0)
    for alarm in alarms:
        view = view_of(alarm)
        found["all"] += 1
        if view != "all":
            found[view] += 1
    return found


def badge(alarms: Iterable[AlarmState]) -> tuple[int, str]:
    """What the navigation shows: how many wait to be acknowledged, and the highest priority of them."""
    waiting = [alarm for alarm in alarms if view_of(alarm) == "active" and waits(alarm)]
    highest = min((rank(alarm.priority) for alarm in waiting), default=-1)
    return len(waiting), WORST_FIRST[highest] if waiting else ""
