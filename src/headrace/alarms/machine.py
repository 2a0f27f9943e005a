"""The states of an alarm and what leads from one to another: one table, which also draws the page.

The states are those of ISA-18.2-2016, 5.5 (figure 4). An alarm can be shelved, suppressed by design and
out of service at the same time; the state names the strongest: OOSRV, then DSUPR, then SHLVD. Whether
the condition holds is tracked in all states.
"""

from __future__ import annotations

from functools import cache
from typing import Final, Literal, NamedTuple

from headrace.model.alarm import EventName, StateName

Guard = Literal["", "latch", "active", "suppressed", "shelved"]
"""What must hold besides: the latch holds; the condition holds; it is suppressed by design; a shelf runs."""

MEANINGS: Final[dict[StateName, tuple[str, str]]] = {
    "NORM": ("normal", "正常"),
    "UNACK": ("active, unacknowledged", "报警，未确认"),
    "ACKED": ("active, acknowledged", "报警，已确认"),
    "RTNUN": ("returned to normal, unacknowledged", "已恢复，未确认"),
    "LATUN": ("returned, latched, unacknowledged", "已恢复（锁存），未确认"),
    "LATCH": ("returned, latched, acknowledged", "已恢复（锁存），已确认"),
    "SHLVD": ("shelved by a person for some time", "已搁置"),
    "DSUPR": ("suppressed by design", "设计抑制"),
    "OOSRV": ("out of service", "停用"),
}


class Row(NamedTuple):
    """In state ``before``, on ``event`` and if ``guard`` holds, the state becomes ``after``."""

    before: StateName
    event: EventName
    guard: Guard
    after: StateName


class Facts(NamedTuple):
    """What guards look at, after the event was taken into account."""

    latch: bool = False
    active: bool = False
    suppressed: bool = False
    shelved: bool = False


_SHOWN: Final[tuple[StateName, ...]] = ("NORM", "UNACK", "ACKED", "RTNUN", "LATUN", "LATCH")


def _back(before: StateName, event: EventName) -> tuple[Row, ...]:
    """Where an alarm goes that nobody suppresses any more."""
    return (
        Row(before, event, "active", "UNACK"),
        Row(before, event, "latch", "LATUN"),
        Row(before, event, "", "NORM"),
    )


TABLE: Final[tuple[Row, ...]] = (
    Row("NORM", "alarm", "", "UNACK"),
    Row("UNACK", "acknowledge", "", "ACKED"),
    Row("UNACK", "return_to_normal", "latch", "LATUN"),
    Row("UNACK", "return_to_normal", "", "RTNUN"),
    Row("ACKED", "return_to_normal", "latch", "LATCH"),
    Row("ACKED", "return_to_normal", "", "NORM"),
    Row("RTNUN", "acknowledge", "", "NORM"),
    Row("RTNUN", "alarm", "", "UNACK"),
    Row("LATUN", "acknowledge", "", "LATCH"),
    Row("LATUN", "alarm", "", "UNACK"),
    Row("LATCH", "reset", "", "NORM"),
    Row("LATCH", "alarm", "", "UNACK"),
    *(Row(state, "shelve", "", "SHLVD") for state in _SHOWN),
    *(Row(state, "suppress", "", "DSUPR") for state in _SHOWN),
    *(Row(state, "remove_from_service", "", "OOSRV") for state in _SHOWN),
    Row("SHLVD", "alarm", "", "SHLVD"),
    Row("SHLVD", "return_to_normal", "", "SHLVD"),
    Row("SHLVD", "shelve", "", "SHLVD"),
    Row("SHLVD", "suppress", "", "DSUPR"),
    Row("SHLVD", "remove_from_service", "", "OOSRV"),
    *_back("SHLVD", "unshelve"),
    Row("DSUPR", "alarm", "", "DSUPR"),
    Row("DSUPR", "return_to_normal", "", "DSUPR"),
    Row("DSUPR", "shelve", "", "DSUPR"),
    Row("DSUPR", "unshelve", "", "DSUPR"),
    Row("DSUPR", "remove_from_service", "", "OOSRV"),
    Row("DSUPR", "unsuppress", "shelved", "SHLVD"),
    *_back("DSUPR", "unsuppress"),
    Row("OOSRV", "alarm", "", "OOSRV"),
    Row("OOSRV", "return_to_normal", "", "OOSRV"),
    Row("OOSRV", "suppress", "", "OOSRV"),
    Row("OOSRV", "unsuppress", "", "OOSRV"),
    Row("OOSRV", "unshelve", "", "OOSRV"),
    Row("OOSRV", "return_to_service", "suppressed", "DSUPR"),
    Row("OOSRV", "return_to_service", "shelved", "SHLVD"),
    *_back("OOSRV", "return_to_service"),
)
"""First row that fits counts."""


@cache
def _by_state() -> dict[tuple[StateName, EventName], tuple[Row, ...]]:
    found: dict[tuple[StateName, EventName], tuple[Row, ...]] = {}
    for row in TABLE:
        key = (row.before, row.event)
        found[key] = (*found.get(key, ()), row)
    return found


def step(before: StateName, event: EventName, facts: Facts) -> StateName | None:
    """The state after an event; None when the table does not know the event in that state.

    Example:
        >>> step("UNACK", "acknowledge", Facts(active=True))
        'ACKED'
        >>> step("NORM", "acknowledge", Facts()) is None
        True
    """
    for row in _by_state().get((before, event), ()):
        if not row.guard or getattr(facts, row.guard):
            return row.after
    return None


def possible(before: StateName) -> tuple[EventName, ...]:
    """The events that the table knows in a state, such as those that a menu may offer."""
    return tuple(dict.fromkeys(row.event for row in TABLE if row.before == before))


def as_markdown() -> str:
    """The table and its picture, as ``docs/alarms.md`` has them."""
    lines = ["| state | means | 含义 |", "|---|---|---|"]
    lines += [f"| {state} | {en} | {zh} |" for state, (en, zh) in MEANINGS.items()]
    lines += ["", "| in | on | if | becomes |", "|---|---|---|---|"]
    for event, guard, after, states in _rows():
        lines.append(f"| {', '.join(states)} | {event} | {_GUARDS[guard]} | {after} |")
    lines += ["", "```mermaid", "stateDiagram-v2", "    [*] --> NORM"]
    for event, guard, after, states in _rows():
        label = f"{event} [{_GUARDS[guard]}]" if guard else event
        lines += [f"    {state} --> {after}: {label}" for state in states if state != after]
    return "\n".join([*lines, "```"])


_GUARDS: Final[dict[Guard, str]] = {
    "": "",
    "latch": "the latch holds",
    "active": "the condition holds",
    "suppressed": "suppressed by design",
    "shelved": "a shelf runs",
}


def _rows() -> list[tuple[EventName, Guard, StateName, list[StateName]]]:
    """Rows that differ in the state before alone, as one."""
    found: dict[tuple[EventName, Guard, StateName], list[StateName]] = {}
    for row in TABLE:
        found.setdefault((row.event, row.guard, row.after), []).append(row.before)
    return [(*key, states) for key, states in found.items()]
