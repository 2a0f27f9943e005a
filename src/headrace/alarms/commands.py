"""What people do to alarms: checked, carried out, answered for each alarm. Pure.

A command on many alarms is carried out where it is possible; where it is not the answer says why.
"""

from __future__ import annotations

from typing import Final

from headrace.alarms.book import Book, Deed
from headrace.model.alarm import (
    ALARMS_A_COMMAND_MAX,
    COMMENT_MAX,
    Command,
    CommandAnswer,
    EventName,
    Outcome,
    Transition,
    Verb,
)
from headrace.model.errors import HeadraceError, Misconfigured, Refused
from headrace.model.time import to_datetime

SHELF_MAX_US: Final = 7 * 86_400 * 1_000_000
"""ISA-18.2-2016, 11.6 asks for a limit and leaves it to the site; ours is a week."""
_NEED_A_COMMENT: Final[frozenset[Verb]] = frozenset({"comment", "shelve", "remove_from_service"})
_NOTHING: Final[dict[EventName, str]] = {
    "acknowledge": "there is nothing to acknowledge",
    "reset": "only an acknowledged alarm that is latched and has returned to normal can be reset",
    "shelve": "it cannot be shelved",
    "unshelve": "it is not shelved",
    "remove_from_service": "it is out of service already",
    "return_to_service": "it is not out of service",
}


def check_command(command: Command, now_us: int) -> None:
    """See that a command can be meant.

    Raises:
        Misconfigured: ALARM-1010 to ALARM-1015.
    """
    if not command.id or not command.actor:
        raise Misconfigured(
            "ALARM-1010", "a command needs an id and who gives it", "Send both with the command."
        )
    if not 0 < len(command.alarms) <= ALARMS_A_COMMAND_MAX:
        raise Misconfigured(
            "ALARM-1011",
            f"{command.verb} names {len(command.alarms)} alarms, not 1 to {ALARMS_A_COMMAND_MAX}",
            "Choose alarms; of more than that send several commands.",
        )
    if command.verb in _NEED_A_COMMENT and not command.comment.strip():
        raise Misconfigured(
            "ALARM-1012", f"{command.verb} needs a reason or a text", "Write why, in a few words."
        )
    if len(command.comment) > COMMENT_MAX:
        raise Misconfigured(
            "ALARM-1013",
            f"the comment has {len(command.comment)} characters, more than {COMMENT_MAX}",
            "Shorten it.",
        )
    ends = command.until_us - now_us
    if command.verb == "shelve" and not 0 < ends <= SHELF_MAX_US:
        said = to_datetime(command.until_us).isoformat() if command.until_us > 0 else "nothing"
        raise Misconfigured(
            "ALARM-1014",
            f"the end of the shelf is {said}, not within the next 7 days",
            "Give an end that lies ahead, at most a week.",
        )
    if len(command.assignee) > 200:
        raise Misconfigured("ALARM-1015", "the assignee's name is too long", "Name a user.")


def carry_out(book: Book, command: Command, now_us: int) -> tuple[CommandAnswer, list[Transition]]:
    """Carry out a checked command.

    Args:
        now_us: its time, by the wall clock of the apps role.
    """
    outcomes, told = list[Outcome](), list[Transition]()
    for alarm in dict.fromkeys(command.alarms):
        try:
            done = _carry_out(book, command, alarm, now_us)
        except HeadraceError as error:
            state = book.states.get(alarm)
            outcomes.append(
                Outcome(
                    alarm=alarm,
                    state=state.state if state else "NORM",
                    code=error.code,
                    what=error.what,
                    remedy=error.remedy,
                )
            )
            continue
        told.append(done)
        outcomes.append(Outcome(alarm=alarm, state=done.after, transition=done.id))
    return CommandAnswer(id=command.id, outcomes=tuple(outcomes)), told


def _carry_out(book: Book, command: Command, alarm: str, now_us: int) -> Transition:
    state = book.states.get(alarm)
    if state is None:
        raise Refused("ALARM-1002", f"there is no alarm {alarm}", "Read the list again.")
    deed = Deed(
        event=command.verb,
        at_us=now_us,
        actor=command.actor,
        comment=command.comment.strip(),
        until_us=command.until_us if command.verb == "shelve" else 0,
        assignee=command.assignee if command.verb == "assign" else "",
        seed=command.id,
    )
    refused = command.verb == "unshelve" and not state.shelved_until_us
    done = None if refused else book.apply(alarm, deed, now_us)
    if done is None:
        reason = _NOTHING.get(command.verb, "it cannot be done")
        raise Refused("ALARM-1003", f"{alarm} is {state.state}: {reason}", "Read the list again.")
    return done
