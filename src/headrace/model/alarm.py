"""Alarms as they travel: states, transitions and commands, in the words of ISA-18.2 (IEC 62682).

An alarm is a condition of one asset; its path is ``<asset path>/<name>``, as that of a derived tag.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Priority = Literal["low", "medium", "high", "urgent"]
StateName = Literal["NORM", "UNACK", "ACKED", "RTNUN", "LATUN", "LATCH", "SHLVD", "DSUPR", "OOSRV"]
"""NORM normal; UNACK unacknowledged; ACKED acknowledged; RTNUN returned to normal, unacknowledged; LATUN
and LATCH returned to normal, but latched: unacknowledged and acknowledged; SHLVD shelved; DSUPR
suppressed by design; OOSRV out of service."""
EventName = Literal[
    "alarm",
    "return_to_normal",
    "acknowledge",
    "reset",
    "shelve",
    "unshelve",
    "suppress",
    "unsuppress",
    "remove_from_service",
    "return_to_service",
    "comment",
    "assign",
    "uncertain",
    "certain",
    "revoke",
    "missed",
    "configure",
    "retire",
]
"""What happened. Those after ``return_to_service`` leave the state as it is; ``revoke``: late data say that
there was no such alarm; ``missed``: late data say that there was one more; ``uncertain``: the
condition's data are not Good; ``configure``: another version of the alarm; ``retire``: it is no more."""
Verb = Literal[
    "acknowledge",
    "reset",
    "shelve",
    "unshelve",
    "remove_from_service",
    "return_to_service",
    "comment",
    "assign",
]
PRIORITIES: Final[tuple[Priority, ...]] = ("low", "medium", "high", "urgent")
ANNUNCIATED: Final[frozenset[StateName]] = frozenset({"UNACK", "ACKED", "RTNUN", "LATUN", "LATCH"})
"""States that stand in the operator's list."""
SUPPRESSED: Final[frozenset[StateName]] = frozenset({"SHLVD", "DSUPR", "OOSRV"})
UNACKNOWLEDGED: Final[frozenset[StateName]] = frozenset({"UNACK", "RTNUN", "LATUN"})
ALARMS_A_COMMAND_MAX: Final = 10_000
COMMENT_MAX: Final = 1_000


class Wording(msgspec.Struct, frozen=True):
    """A text for people, in English and Chinese; each may be empty.

    Example:
        >>> Wording("hot").say("zh")
        'hot'
    """

    en: str = ""
    zh: str = ""

    def say(self, language: str) -> str:
        """The text in a language (``en`` or ``zh``), else in the other one."""
        return (self.zh or self.en) if language == "zh" else (self.en or self.zh)


class AlarmState(msgspec.Struct, frozen=True, kw_only=True):
    """One alarm of one asset as it is now.

    Attributes:
        alarm: path ``<asset path>/<name>``. key: ``<asset type>.<name>``.
        version: of the alarm's text.
        message: what it tells. group: alarms of the asset among which the first is marked; may be "".
        shadow: it is tried: nobody is told.
        state: see :data:`StateName`.
        since_us: source time at which this state began.
        active: the condition holds, also while the alarm is suppressed.
        active_us, inactive_us: source time at which it last began and ceased to hold; 0 never.
        uncertain: the condition's data are not Good; while they are Bad the state is held.
        latch: a latched alarm was active and has not been reset.
        first_out: it was the first one of its group.
        occurrences: how often it came up.
        acknowledged_by, acknowledged_us: of the last acknowledgement since it came up; "" none.
        assignee: who looks after it; "" nobody.
        shelved_until_us: end of the shelf; 0 not shelved. shelved_by, reason: who took it out and why.
        suppressed, out_of_service: by design; by a person.
        comment: the newest one.
        transitions: how many it had; corrections: how many of them late data made.
        recorded_us: when this was written, by the wall clock of the apps role.
    """

    alarm: str
    key: str
    asset: str
    name: str
    version: int = 1
    priority: Priority = "medium"
    message: Wording = Wording()
    group: str = ""
    alarm_class: str = ""
    shadow: bool = False
    state: StateName = "NORM"
    since_us: int = 0
    active: bool = False
    active_us: int = 0
    inactive_us: int = 0
    uncertain: bool = False
    latch: bool = False
    first_out: bool = False
    occurrences: int = 0
    acknowledged_by: str = ""
    acknowledged_us: int = 0
    assignee: str = ""
    shelved_until_us: int = 0
    shelved_by: str = ""
    reason: str = ""
    suppressed: bool = False
    out_of_service: bool = False
    comment: str = ""
    transitions: int = 0
    corrections: int = 0
    recorded_us: int = 0


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the journal.

    Attributes:
        id: the same for the same event, also after a restart: made of alarm, source time and event.
        before, after: states; equal where the event leaves it as it is.
        at_us: source time of the event; of a command the time at which it was carried out.
        recorded_us: when it was written, by the wall clock of the apps role.
        actor: user who did it; "" the plant itself.
        comment: of the user; for a shelf and out of service the reason.
        until_us: end of a shelf.
        assignee: whom it was given to.
        first_out: it was the first one of its group.
        correction: it follows from late or corrected samples.
        uncertain: the condition's data were not Good.
    """

    id: str
    alarm: str
    key: str
    asset: str
    event: EventName
    before: StateName
    after: StateName
    at_us: int
    recorded_us: int = 0
    version: int = 1
    priority: Priority = "medium"
    message: Wording = Wording()
    group: str = ""
    actor: str = ""
    comment: str = ""
    until_us: int = 0
    assignee: str = ""
    first_out: bool = False
    correction: bool = False
    uncertain: bool = False
    shadow: bool = False


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """What a person does to alarms.

    Attributes:
        id: chosen by who sends it; the same id again gives the same answer and does nothing.
        alarms: paths, at most :data:`ALARMS_A_COMMAND_MAX`.
        actor: user who does it.
        comment: a text; needed for ``comment``, and as the reason of ``shelve`` and
            ``remove_from_service``.
        until_us: end of ``shelve``, UTC microseconds.
        assignee: of ``assign``; "" takes it away.
    """

    id: str
    verb: Verb
    alarms: tuple[str, ...]
    actor: str
    comment: str = ""
    until_us: int = 0
    assignee: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command on one alarm; ``code`` is empty when it was done."""

    alarm: str
    state: StateName = "NORM"
    transition: str = ""
    code: str = ""
    what: str = ""
    remedy: str = ""


class CommandAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a command: done on some alarms, refused on others."""

    id: str
    outcomes: tuple[Outcome, ...] = ()

    @property
    def refused(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.code)
