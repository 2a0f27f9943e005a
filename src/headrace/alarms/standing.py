"""Alarms of the installation itself, which no formula tells: such as certificates that end soon.

They go through the same states, list, journal and commands as alarms of assets (ISA-18.2). What is wrong now
is given whole each time; what is no more in it has returned to normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from headrace.alarms.book import Book, Deed
from headrace.alarms.definition import AlarmDefinition
from headrace.model.alarm import PRIORITIES, EventName, Priority, Transition, Wording

MARK: Final = "@"
"""No asset type is called so: its names begin with a letter."""


class Standing(NamedTuple):
    """Something that is wrong now.

    Attributes:
        asset: where it stands in the list, such as ``certificates``. name: of the alarm there.
        kind: what it is of, such as ``certificate``; the key is ``@<kind>``.
        action: what to do.
    """

    asset: str
    name: str
    kind: str
    priority: Priority
    message: Wording
    action: Wording


def is_standing(key: str) -> bool:
    """Whether an alarm's key is of one that no formula tells."""
    return key.startswith(MARK)


def stand(book: Book, wrong: Sequence[Standing], now_us: int) -> list[Transition]:
    """Let exactly these be wrong.

    An alarm that becomes graver comes up again, also when it was acknowledged. One that is over and was
    acknowledged goes from the book.
    """
    told: list[Transition | None] = []
    wanted = {f"{one.asset}/{one.name}": one for one in wrong}
    for alarm, one in wanted.items():
        known = book.states.get(alarm)
        graver = known is not None and _rank(one.priority) > _rank(known.priority)
        told.append(book.define(one.asset, _definition(one), now_us, now_us))
        if graver and book.states[alarm].active:
            told.append(_apply(book, alarm, "return_to_normal", now_us))
        if not book.states[alarm].active:
            told.append(_apply(book, alarm, "alarm", now_us))
    for alarm in sorted(book.states.keys() - wanted.keys()):
        if not is_standing(book.states[alarm].key):
            continue
        if book.states[alarm].active:
            told.append(_apply(book, alarm, "return_to_normal", now_us))
        if book.states[alarm].state == "NORM":
            told.append(book.retire(alarm, now_us, now_us))
    return [each for each in told if each is not None]


def _apply(book: Book, alarm: str, event: EventName, now_us: int) -> Transition | None:
    seed = str(book.states[alarm].transitions)
    return book.apply(alarm, Deed(event=event, at_us=now_us, seed=seed), now_us)


def _definition(one: Standing) -> AlarmDefinition:
    return AlarmDefinition(
        key=MARK + one.kind,
        asset_type=MARK,
        name=one.name,
        text="",
        priority=one.priority,
        message=one.message,
        action=one.action,
    )


def _rank(priority: Priority) -> int:
    return PRIORITIES.index(priority)
