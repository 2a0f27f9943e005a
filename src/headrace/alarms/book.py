"""The states of all alarms, and what events make of them by the machine's table. Pure.

What an event changes besides the state (who acknowledged, until when it is shelved) is here; what may
follow what is in :mod:`.machine` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from headrace.alarms.definition import AlarmDefinition
from headrace.alarms.machine import Facts, step
from headrace.model.alarm import ANNUNCIATED, AlarmState, EventName, StateName, Transition

NOTES: Final[frozenset[EventName]] = frozenset(
    {"comment", "assign", "uncertain", "certain", "revoke", "missed", "configure", "retire"}
)
"""Events that leave the state as it is, but for ``retire``."""
Group = tuple[str, str, bool]


class Deed(msgspec.Struct, frozen=True, kw_only=True):
    """An event with all that it says.

    Attributes:
        seed: what else makes the transition's id: of a command its id, of a correction its number.
    """

    event: EventName
    at_us: int
    actor: str = ""
    comment: str = ""
    until_us: int = 0
    assignee: str = ""
    correction: bool = False
    seed: str = ""


def transition_id(alarm: str, deed: Deed) -> str:
    """The same for the same event of the same alarm, whenever it is made.

    Example:
        >>> deed = Deed(event="alarm", at_us=5)
        >>> transition_id("hall/pump_1/hot", deed) == transition_id("hall/pump_2/hot", deed)
        False
    """
    text = "\n".join((alarm, deed.event, str(deed.at_us), deed.seed))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class Book:
    """States by path, and what has changed since it was last asked.

    Args:
        states: as they were written last.
    """

    def __init__(self, states: Iterable[AlarmState] = ()) -> None:
        self.states: dict[str, AlarmState] = {state.alarm: state for state in states}
        self._latched: set[str] = set()
        self._changed: dict[str, None] = {}
        self._retired: dict[str, None] = {}
        self._shelves = {s.alarm: s.shelved_until_us for s in self.states.values()}
        self._shelves = {alarm: until for alarm, until in self._shelves.items() if until}
        self._groups: dict[Group, set[str]] = {}
        self._firsts = {_group(s): s.alarm for s in self.states.values() if s.first_out}
        for state in self.states.values():
            self._count(state)

    @property
    def has_changed(self) -> bool:
        return bool(self._changed or self._retired)

    def changed(self) -> tuple[list[AlarmState], list[str]]:
        """States that are new or different, and paths that are no more, since they were forgotten."""
        return [self.states[alarm] for alarm in self._changed], list(self._retired)

    def forget_changed(self) -> None:
        """What has changed until now is written."""
        self._changed, self._retired = {}, {}

    def save(self) -> Book:
        """A copy to come back to."""
        copy = Book()
        copy.restore(self)
        return copy

    def restore(self, other: Book) -> None:
        """Become as another book is."""
        self.states, self._latched = dict(other.states), set(other._latched)
        self._changed, self._retired = dict(other._changed), dict(other._retired)
        self._shelves, self._firsts = dict(other._shelves), dict(other._firsts)
        self._groups = {group: set(members) for group, members in other._groups.items()}

    def shelves_ended(self, now_us: int) -> list[tuple[int, str]]:
        """(end, alarm) of shelves that have ended, in order."""
        return sorted((until, alarm) for alarm, until in self._shelves.items() if until <= now_us)

    def define(
        self, asset: str, definition: AlarmDefinition, at_us: int, now_us: int
    ) -> Transition | None:
        """Let there be an alarm as defined; a transition when there was one and it was different."""
        alarm = f"{asset}/{definition.name}"
        fields: dict[str, Any] = {
            "version": definition.version,
            "priority": definition.priority,
            "message": definition.message,
            "group": definition.group,
            "alarm_class": definition.alarm_class,
            "shadow": definition.state == "shadow",
        }
        (self._latched.add if definition.latched else self._latched.discard)(alarm)
        known = self.states.get(alarm)
        self._retired.pop(alarm, None)
        if known is not None and all(getattr(known, k) == v for k, v in fields.items()):
            return None
        if known is None or known.shadow != fields["shadow"]:
            made = AlarmState(
                alarm=alarm, key=definition.key, asset=asset, name=definition.name, since_us=at_us,
                recorded_us=now_us, transitions=known.transitions if known else 0, **fields,
            )  # fmt: skip
        else:
            made = msgspec.structs.replace(known, **fields)
        self._put(known, made)
        if known is None:
            return None
        seed = f"{definition.version} {definition.state} {known.transitions}"
        return self.apply(alarm, Deed(event="configure", at_us=at_us, seed=seed), now_us)

    def retire(self, alarm: str, at_us: int, now_us: int) -> Transition | None:
        """Let an alarm be no more."""
        known = self.states[alarm]
        seed = str(known.transitions)
        done = self.apply(alarm, Deed(event="retire", at_us=at_us, seed=seed), now_us)
        self._uncount(self.states[alarm])
        del self.states[alarm]
        self._changed.pop(alarm, None)
        self._shelves.pop(alarm, None)
        self._latched.discard(alarm)
        self._retired[alarm] = None
        return done

    def doubt(self, alarm: str, at_us: int, uncertain: bool, now_us: int) -> Transition | None:
        """Note whether an alarm's data are Good; told in the journal when it is not normal."""
        known = self.states[alarm]
        if known.uncertain == uncertain:
            return None
        if known.state == "NORM":
            self._put(known, msgspec.structs.replace(known, uncertain=uncertain))
            return None
        event: EventName = "uncertain" if uncertain else "certain"
        deed = Deed(event=event, at_us=at_us, seed=str(known.transitions))
        return self.apply(alarm, deed, now_us)

    def apply(self, alarm: str, deed: Deed, now_us: int) -> Transition | None:
        """Carry out an event; None when the table does not know it in the alarm's state."""
        known = self.states[alarm]
        fields = self._fields(known, deed)
        changed = msgspec.structs.replace(known, **fields)
        after: StateName | None
        if deed.event in NOTES:
            after = "NORM" if deed.event == "retire" else known.state
        else:
            after = step(known.state, deed.event, _facts(changed))
        if after is None:
            return None
        entered: dict[str, Any] = {}
        if after != known.state:
            entered["since_us"] = deed.at_us
        if after == "UNACK":
            entered |= {
                "occurrences": known.occurrences + 1,
                "acknowledged_by": "",
                "acknowledged_us": 0,
                "latch": known.latch or alarm in self._latched,
                "first_out": known.first_out or self._is_first(known),
            }
        made = msgspec.structs.replace(
            changed,
            state=after,
            transitions=known.transitions + 1,
            corrections=known.corrections + deed.correction,
            recorded_us=now_us,
            **entered,
        )
        self._put(known, made)
        return _line(known, made, deed, now_us)

    def _fields(self, known: AlarmState, deed: Deed) -> dict[str, Any]:
        match deed.event:
            case "alarm":
                return {"active": True, "active_us": deed.at_us}
            case "return_to_normal":
                return {"active": False, "inactive_us": deed.at_us}
            case "acknowledge":
                comment = deed.comment or known.comment
                who = {"acknowledged_by": deed.actor, "acknowledged_us": deed.at_us}
                return {**who, "comment": comment}
            case "reset":
                return {"latch": False}
            case "shelve":
                until = {"shelved_until_us": deed.until_us, "shelved_by": deed.actor}
                return {**until, "reason": deed.comment}
            case "unshelve":
                reason = known.reason if known.out_of_service else ""
                return {"shelved_until_us": 0, "shelved_by": "", "reason": reason}
            case "suppress" | "unsuppress":
                return {"suppressed": deed.event == "suppress"}
            case "remove_from_service":
                return {"out_of_service": True, "reason": deed.comment}
            case "return_to_service":
                return {"out_of_service": False, "reason": ""}
            case "comment":
                return {"comment": deed.comment}
            case "assign":
                return {"assignee": deed.assignee}
            case "uncertain" | "certain":
                return {"uncertain": deed.event == "uncertain"}
            case _:
                return {}

    def _put(self, known: AlarmState | None, made: AlarmState) -> None:
        self.states[made.alarm] = made
        self._changed[made.alarm] = None
        if made.first_out:
            self._firsts[_group(made)] = made.alarm
        if made.shelved_until_us:
            self._shelves[made.alarm] = made.shelved_until_us
        else:
            self._shelves.pop(made.alarm, None)
        if known is not None and _group(known) != _group(made):
            self._uncount(known)
        self._count(made)

    def _is_first(self, state: AlarmState) -> bool:
        return bool(state.group) and not self._groups.get(_group(state))

    def _count(self, state: AlarmState) -> None:
        """Keep which alarms of a group are not normal; the first's mark goes when all are."""
        if not state.group:
            return
        if state.state in ANNUNCIATED:
            self._groups.setdefault(_group(state), set()).add(state.alarm)
        else:
            self._uncount(state)

    def _uncount(self, state: AlarmState) -> None:
        group = _group(state)
        members = self._groups.get(group)
        if members is None or state.alarm not in members:
            return
        members.discard(state.alarm)
        if members:
            return
        del self._groups[group]
        first = self.states.get(self._firsts.pop(group, ""))
        if first is not None and first.first_out:
            self.states[first.alarm] = msgspec.structs.replace(first, first_out=False)
            self._changed[first.alarm] = None


def _group(state: AlarmState) -> Group:
    return state.asset, state.group, state.shadow


def _facts(state: AlarmState) -> Facts:
    return Facts(state.latch, state.active, state.suppressed, bool(state.shelved_until_us))


def _line(before: AlarmState, after: AlarmState, deed: Deed, now_us: int) -> Transition:
    return Transition(
        id=transition_id(after.alarm, deed),
        alarm=after.alarm,
        key=after.key,
        asset=after.asset,
        event=deed.event,
        before=before.state,
        after=after.state,
        at_us=deed.at_us,
        recorded_us=now_us,
        version=after.version,
        priority=after.priority,
        message=after.message,
        group=after.group,
        actor=deed.actor,
        comment=deed.comment,
        until_us=deed.until_us,
        assignee=deed.assignee,
        first_out=after.state in ANNUNCIATED and after.first_out,
        correction=deed.correction,
        uncertain=after.uncertain,
        shadow=after.shadow,
    )
