"""A condition with other limits: one number of its text takes one value after the other."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from headrace.formula.grammar import parse_statement
from headrace.formula.tree import AlarmStatement, Binary, For, Node, Number, Statement
from headrace.model.errors import Misconfigured

STEPS_MAX: Final = 101
STEPS: Final = 21
_COMPARISONS: Final = frozenset({"<", "<=", ">", ">=", "=", "<>"})
_NUMBER: Final = r"(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
_RANGE: Final = re.compile(rf"{_NUMBER}\.\.{_NUMBER}(?:\.\.{_NUMBER})?")


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """Values for one number of a text, in its unit there.

    Attributes:
        low, high: first and last value.
        step: from one to the next; 0 gives 21 values.
        number: which number of the text, from 1 on; 0 means the first one that something is compared with.
    """

    low: float
    high: float
    step: float = 0.0
    number: int = 0

    def values(self) -> list[float]:
        """All values.

        Raises:
            Misconfigured: HIST-2203 when there is none, or more than 101.

        Example:
            >>> Sweep(low=70, high=80, step=5).values()
            [70.0, 75.0, 80.0]
        """
        step = self.step or (self.high - self.low) / (STEPS - 1)
        steps = (self.high - self.low) / step + 1e-9 if step > 0 else -1.0
        count = int(min(steps, 1e18)) + 1 if math.isfinite(steps) else 0
        if not 1 <= count <= STEPS_MAX:
            raise Misconfigured(
                "HIST-2203",
                f"from {self.low:g} to {self.high:g} by {step:g} are {count:,} values",
                f"Give two ends with the lower one first, and a step for at most {STEPS_MAX} values.",
            )
        return [float(f"{self.low + n * step:.12g}") for n in range(count)]


def parse_sweep(text: str, number: int = 0) -> Sweep:
    """``70..90`` or, with a step, ``70..90..2.5``.

    Raises:
        Misconfigured: HIST-2203 for anything else.

    Example:
        >>> parse_sweep("70..90..2.5").step
        2.5
    """
    match = _RANGE.fullmatch(text.replace(" ", ""))
    low, high, step = (float(each or 0) for each in match.groups()) if match else (0, 0, -1)
    if step < 0:
        raise Misconfigured(
            "HIST-2203", f"{text!r} is no range of values", "Write 70..90 or 70..90..2.5."
        )
    return Sweep(low=low, high=high, step=step, number=number)


def swept(text: str, sweep: Sweep) -> tuple[str, Iterator[tuple[float, str]]]:
    """The number that is swept as it is written, and each value with the text that has it.

    What ends an alarm (``off below 75 degC``) keeps its distance to the limit.

    Args:
        text: a statement, ``name = expression`` or ``alarm name: ...``.

    Raises:
        FormulaProblem: when the text cannot be read.
        Misconfigured: HIST-2203 for the values, HIST-2204 when the text has no such number.
    """
    values = sweep.values()
    statement = parse_statement(text)
    numbers = sorted(_numbers(statement.expression), key=lambda each: each.place.start)
    limits = [each for each in numbers if any(each is limit for limit in _limits(statement))]
    if not 0 <= sweep.number <= len(numbers) or not (numbers if sweep.number else limits):
        raise Misconfigured(
            "HIST-2204",
            f"number {sweep.number} of the text is not there; it has {len(numbers)}"
            if sweep.number
            else "the text compares nothing with a number",
            "Count the numbers of the condition from 1 on.",
        )
    chosen = numbers[sweep.number - 1] if sweep.number else limits[0]
    off = _off_limit(statement, chosen)
    return _written(text, chosen), ((value, _with(text, chosen, off, value)) for value in values)


def _written(text: str, number: Number) -> str:
    return text[number.place.start : number.place.end]


def _with(text: str, chosen: Number, off: Number | None, value: float) -> str:
    """The text with another value; places further right are changed first, so that the others hold."""
    new = [(chosen, value)]
    if off is not None:
        new.append((off, float(f"{off.value + value - chosen.value:.12g}")))
    for number, put in sorted(new, key=lambda each: -each[0].place.start):
        said = f"{put:.12g}" + (f" {number.unit}" if number.unit else "")
        text = text[: number.place.start] + said + text[number.place.end :]
    return text


def _off_limit(statement: Statement | AlarmStatement, chosen: Number) -> Number | None:
    """The limit that ends an alarm, when it belongs to the number and has its unit."""
    off = statement.off if isinstance(statement, AlarmStatement) else None
    off = off.condition if isinstance(off, For) else off
    on = statement.expression
    on = on.condition if isinstance(on, For) else on
    if not (isinstance(on, Binary) and isinstance(off, Binary)) or on.right is not chosen:
        return None
    limit = off.right
    same = isinstance(limit, Number) and limit.unit == chosen.unit and off.left is on.left
    return limit if same and isinstance(limit, Number) else None


def _limits(statement: Statement | AlarmStatement) -> list[Number]:
    """Numbers that something is compared with."""
    return [
        side
        for node in _nodes(statement.expression)
        if isinstance(node, Binary) and node.operator in _COMPARISONS
        for side in (node.left, node.right)
        if isinstance(side, Number)
    ]


def _numbers(tree: Node) -> list[Number]:
    return [node for node in _nodes(tree) if isinstance(node, Number)]


def _nodes(tree: object) -> Iterator[object]:
    yield tree
    parts: tuple[object, ...] = ()
    if isinstance(tree, tuple):
        parts = tree
    elif dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        parts = tuple(getattr(tree, each.name) for each in dataclasses.fields(tree))
    for part in parts:
        yield from _nodes(part)
