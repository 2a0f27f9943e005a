"""What an alarm's text says, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from headrace.formula.alarm_check import delay_us, duration_us
from headrace.formula.grammar import parse_statement
from headrace.formula.tree import AlarmStatement, Node, Place
from headrace.model.alarm import Priority, Wording
from headrace.model.errors import Misconfigured
from headrace.model.knowledge import FormulaConfig, FormulaState, given_name

RATIONALISED: Final = ("priority", "message", "cause", "consequence", "action", "response")


class AlarmDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """An alarm of an asset type.

    Attributes:
        key: ``<asset type>.<name>``. name: the last part of its path on an asset.
        text: the whole statement; ``condition``, ``off`` and ``suppressed`` are parts of it, "" for none.
        on_delay_us, off_delay_us: how long the condition, and what ends it, must hold.
        response_us: time that a person has to act; 0 when nothing is said.
        latched: it stays until it is reset.
        group: alarms of one asset among which the first one is marked; "" for none.
        lacking: which of :data:`RATIONALISED` the text does not say.
    """

    key: str
    asset_type: str
    name: str
    text: str
    version: int = 1
    state: FormulaState = "live"
    condition: str = ""
    off: str = ""
    suppressed: str = ""
    on_delay_us: int = 0
    off_delay_us: int = 0
    priority: Priority = "medium"
    message: Wording = Wording()
    cause: Wording = Wording()
    consequence: Wording = Wording()
    action: Wording = Wording()
    response_us: int = 0
    latched: bool = False
    group: str = ""
    alarm_class: str = ""
    lacking: tuple[str, ...] = ()


def definition_of(config: FormulaConfig) -> AlarmDefinition:
    """What an alarm of the site file says.

    Raises:
        FormulaProblem: when its text cannot be read.
        Misconfigured: ALARM-1001 when it is no alarm.

    Example:
        >>> text = "alarm hot: t > 80 degC for 5 min, off below 75 degC, priority high"
        >>> hot = definition_of(FormulaConfig(asset_type="pump", name="hot", kind="alarm", text=text))
        >>> hot.key, hot.condition, hot.off, hot.on_delay_us
        ('pump.hot', 't > 80 degC for 5 min', 'off below 75 degC', 300000000)
    """
    statement = parse_statement(config.text, line=config.line)
    if not isinstance(statement, AlarmStatement):
        raise Misconfigured(
            "ALARM-1001",
            f"{config.asset_type}.{config.name} is no alarm: {config.text!r}",
            "An alarm is written: alarm name: condition, ...",
        )
    said = {clause.word.split()[0]: clause.place for clause in statement.clauses}
    response = statement.response
    return AlarmDefinition(
        key=f"{config.asset_type}.{config.name}",
        asset_type=config.asset_type,
        name=given_name(config.asset_type, config.name),
        text=config.text,
        version=config.version,
        state=config.state,
        condition=_text(statement, statement.expression),
        off=_part(statement, said.get("off")),
        suppressed=_part(statement, said.get("suppressed")),
        on_delay_us=delay_us(statement.expression, statement),
        off_delay_us=delay_us(statement.off, statement),
        priority=statement.priority,
        message=statement.message,
        cause=statement.cause,
        consequence=statement.consequence,
        action=statement.action,
        response_us=0 if response is None else duration_us(response, statement),
        latched=statement.latched,
        group=statement.group,
        alarm_class=statement.alarm_class,
        lacking=tuple(word for word in RATIONALISED if word not in said),
    )


def definitions_of(formulas: Iterable[FormulaConfig]) -> dict[str, AlarmDefinition]:
    """All alarms among formulas, by key; those that are off are left out."""
    alarms = (each for each in formulas if each.kind == "alarm" and each.state != "off")
    return {found.key: found for found in map(definition_of, alarms)}


def _text(statement: AlarmStatement, tree: Node) -> str:
    return _part(statement, tree.place)


def _part(statement: AlarmStatement, place: Place | None) -> str:
    return " ".join(statement.source[place.start : place.end].split()) if place else ""
