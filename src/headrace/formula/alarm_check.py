"""From an alarm's text to plans: its condition, what ends it, and what suppresses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from headrace.formula.check import WINDOW_MAX_US, WINDOW_MIN_US, Quantity, check
from headrace.formula.measure import TIME, measure_of
from headrace.formula.plan import US_PER_S, Plan
from headrace.formula.problems import FormulaProblem
from headrace.formula.tree import (
    AlarmStatement,
    Binary,
    For,
    NoData,
    Node,
    Number,
    Place,
    Statement,
)

AlarmRole = Literal["alarm", "alarm_off", "alarm_suppressed"]
OFF: Final = "/off"
SUPPRESSED: Final = "/suppressed"


class AlarmPlans(NamedTuple):
    """An alarm's conditions.

    Attributes:
        on: while it is true the alarm is active.
        off: the alarm ends when it becomes true; None: when ``on`` is not true.
        suppressed: while it is true nobody is told.
    """

    on: Plan
    off: Plan | None = None
    suppressed: Plan | None = None

    def roles(self) -> Iterator[tuple[str, AlarmRole, Plan]]:
        """(what follows the alarm's key, role, plan) of each condition that there is."""
        yield "", "alarm", self.on
        if self.off is not None:
            yield OFF, "alarm_off", self.off
        if self.suppressed is not None:
            yield SUPPRESSED, "alarm_suppressed", self.suppressed


def check_alarm(
    statement: AlarmStatement, names: Mapping[str, Quantity], **options: Any
) -> AlarmPlans:
    """The plans of an alarm.

    Args:
        statement: as :func:`headrace.formula.grammar.parse_statement` gives it.
        names, options: as :func:`headrace.formula.check.check` takes them.

    Raises:
        FormulaProblem: what is wrong with it, with its place: FORM-1010 to FORM-1033, FORM-1067.

    Example:
        >>> from headrace.formula.grammar import parse_statement
        >>> hot = parse_statement("alarm hot: t > 80 degC for 5 min, off below 75 degC")
        >>> [role for _, role, _ in check_alarm(hot, {"t": Quantity(unit="degC")}).roles()]
        ['alarm', 'alarm_off']
    """

    def plan(tree: Node | None) -> Plan | None:
        if tree is None:
            return None
        made = check(tree, statement.source, names, **{"line": statement.line, **options})
        if made.kind != "condition":
            raise FormulaProblem(
                "FORM-1022",
                statement.source,
                tree.place,
                options.get("line", statement.line),
                wanted="condition",
                found=made.kind,
                hint="Compare it with something: x > 0.",
                hint_zh="请与某值比较：x > 0。",
            )
        return made

    on = plan(statement.expression)
    assert on is not None, "an alarm has a condition"
    plans = AlarmPlans(on, plan(statement.off), plan(statement.suppressed))
    _check_limits(statement)
    if statement.response is not None:
        duration_us(statement.response, statement)
    return plans


def check_statement(
    statement: Statement | AlarmStatement, names: Mapping[str, Quantity], **options: Any
) -> Plan:
    """The plan of a formula, or of an alarm's condition; of an alarm all else is checked too.

    Raises:
        FormulaProblem: what is wrong with it, with its place.
    """
    if isinstance(statement, AlarmStatement):
        return check_alarm(statement, names, **options).on
    return check(
        statement.expression, statement.source, names, **{"line": statement.line, **options}
    )


def _check_limits(statement: AlarmStatement) -> None:
    """FORM-1067 when the limit that ends the alarm lies where its condition is true."""
    on, off = _bare(statement.expression), _bare(statement.off)
    if not (isinstance(on, Binary) and isinstance(off, Binary) and on.left is off.left):
        return
    begins, ends = _number(on.right), _number(off.right)
    if begins is None or ends is None:
        return
    if (ends <= begins) if off.operator == "<" else (ends >= begins):
        return
    source = statement.source
    raise FormulaProblem(
        "FORM-1067",
        source,
        off.right.place,
        statement.line,
        off=_text(source, off.right.place),
        on=_text(source, on.place),
        limit=_text(source, on.right.place),
    )


def _bare(tree: Node | None) -> Node | None:
    return tree.condition if isinstance(tree, For) else tree


def _number(tree: Node) -> float | None:
    if not isinstance(tree, Number):
        return None
    measure = measure_of(tree.unit or "1")
    return None if measure is None else tree.value * measure.factor + measure.offset


def _text(source: str, place: Place) -> str:
    return source[place.start : place.end]


def duration_us(number: Number, statement: AlarmStatement) -> int:
    """A written duration in microseconds.

    Raises:
        FormulaProblem: FORM-1026 or FORM-1027 when it is none, or none that is possible.
    """
    place, source, line = number.place, statement.source, statement.line
    measure = measure_of(number.unit or "1")
    if measure is None or measure.dimension != TIME:
        raise FormulaProblem("FORM-1026", source, place, line, text=_text(source, place))
    length_us = round(number.value * measure.factor * US_PER_S)
    if not WINDOW_MIN_US <= length_us <= WINDOW_MAX_US:
        text = _text(source, place)
        raise FormulaProblem(
            "FORM-1027", source, place, line, text=text, least="1 ms", most="400 d"
        )
    return length_us


def delay_us(tree: Node | None, statement: AlarmStatement) -> int:
    """How long a condition must hold, as its ``for`` says; 0 when it says nothing."""
    if isinstance(tree, For | NoData):
        return duration_us(tree.duration, statement)
    return 0
