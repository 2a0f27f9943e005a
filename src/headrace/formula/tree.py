"""The syntax tree: what was written, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from headrace.model.alarm import Priority, Wording


@dataclass(frozen=True, slots=True)
class Place:
    """Characters ``start`` to ``end`` of a text."""

    start: int
    end: int

    def to(self, other: Place) -> Place:
        return Place(self.start, other.end)


@dataclass(frozen=True, slots=True)
class Number:
    place: Place
    value: float
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    place: Place
    value: str


@dataclass(frozen=True, slots=True)
class Name:
    """A quantity of the asset, an attribute, another formula, or ``relation.quantity``."""

    place: Place
    name: str


@dataclass(frozen=True, slots=True)
class Unary:
    place: Place
    operator: Literal["-", "not"]
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic, comparison and logic."""

    place: Place
    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class In:
    place: Place
    operand: Node
    choices: tuple[Node, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Is:
    """``x is good``: about the status, not the value."""

    place: Place
    operand: Node
    status: str
    negated: bool


@dataclass(frozen=True, slots=True)
class If:
    place: Place
    condition: Node
    then: Node
    otherwise: Node


@dataclass(frozen=True, slots=True)
class For:
    """``condition for 5 min``: true once it has been true without a break for so long."""

    place: Place
    condition: Node
    duration: Number


@dataclass(frozen=True, slots=True)
class Calendar:
    """``per shift``, or ``per 15 min``."""

    place: Place
    name: str
    duration: Number | None = None


@dataclass(frozen=True, slots=True)
class Cycle:
    """``per cycle of condition`` or ``per value of quantity``."""

    place: Place
    kind: Literal["cycle", "value"]
    of: Node


@dataclass(frozen=True, slots=True)
class Call:
    place: Place
    function: str
    function_place: Place
    arguments: tuple[Node, ...]
    named: tuple[tuple[str, Number], ...] = ()
    per: Calendar | Cycle | None = None


@dataclass(frozen=True, slots=True)
class Convert:
    """``expression -> unit``."""

    place: Place
    operand: Node
    unit: str
    unit_place: Place


@dataclass(frozen=True, slots=True)
class NoData:
    """``no data from x for 2 min``: true once no usable sample of it came for so long."""

    place: Place
    operand: Name
    duration: Number


Node = Number | Text | Name | Unary | Binary | In | Is | If | For | NoData | Call | Convert


@dataclass(frozen=True, slots=True)
class Statement:
    """``name = expression``; places count from the start of ``source``, which begins at ``line``."""

    name: str
    expression: Node
    source: str
    line: int = 1


NO_WORDING: Final = Wording()


@dataclass(frozen=True, slots=True)
class Clause:
    """One part of an alarm between commas: its words, such as ``off below``, and where it stands."""

    word: str
    place: Place


@dataclass(frozen=True, slots=True)
class AlarmStatement:
    """``alarm name: condition, off ..., priority ..., message "..."``.

    Attributes:
        expression: the condition, with its ``for``.
        off: what ends it; None when it ends as soon as the condition is not true.
        suppressed: while it is true the alarm is suppressed by design.
        priority: ``low``, ``medium``, ``high`` or ``urgent``; medium when nothing is said.
        response: time that a person has to act.
        latched: it stays until it is reset.
        group: alarms of an asset among which the first one is marked; "" for none.
        alarm_class: a class of ISA-18.2, such as ``safety``; "" for none.
        clauses: of the text, in their order.
    """

    name: str
    expression: Node
    source: str
    line: int = 1
    off: Node | None = None
    suppressed: Node | None = None
    priority: Priority = "medium"
    message: Wording = NO_WORDING
    cause: Wording = NO_WORDING
    consequence: Wording = NO_WORDING
    action: Wording = NO_WORDING
    response: Number | None = None
    latched: bool = False
    group: str = ""
    alarm_class: str = ""
    clauses: tuple[Clause, ...] = ()
