"""The syntax tree: what was written, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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


Node = Number | Text | Name | Unary | Binary | In | Is | If | For | Call | Convert


@dataclass(frozen=True, slots=True)
class Statement:
    """``name = expression``; places count from the start of ``source``, which begins at ``line``."""

    name: str
    expression: Node
    source: str
    line: int = 1
