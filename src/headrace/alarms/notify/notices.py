"""From lines of the alarms' journal to what people are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from headrace.alarms.definition import AlarmDefinition, definition_of
from headrace.model.alarm import Transition, Wording
from headrace.model.errors import HeadraceError
from headrace.model.knowledge import AppsConfig, AssetConfig, FormulaConfig
from headrace.model.notify import Notice, NoticeEvent


class Guide(NamedTuple):
    """What a site knows of its alarms and assets beside the journal."""

    alarms: Mapping[str, AlarmDefinition]
    assets: Mapping[str, AssetConfig]


def guide_of(config: AppsConfig) -> Guide:
    """Alarms by key, assets by path; an alarm whose text cannot be read is left out, it never runs."""
    return Guide(dict(_definitions(config.formulas)), {each.path: each for each in config.assets})


def _definitions(formulas: Iterable[FormulaConfig]) -> Iterable[tuple[str, AlarmDefinition]]:
    for formula in formulas:
        if formula.kind == "alarm":
            try:
                found = definition_of(formula)
            except HeadraceError:
                continue  # said by the role that evaluates it
            yield found.key, found


def event_of(line: Transition) -> NoticeEvent | None:
    """What a line of the journal means to those who are told; None: nothing.

    A latched alarm that returned and is unacknowledged still asks for a person: that is no return.
    """
    if line.event in ("revoke", "retire"):
        return "withdrawn"
    if line.before == line.after:
        return None
    if line.after == "UNACK":
        return "raised"
    if line.event == "acknowledge":
        return "acknowledged"
    if line.event == "return_to_normal":
        return None if line.after == "LATUN" else "returned"
    return "withdrawn"


def notice_of(line: Transition, guide: Guide) -> Notice | None:
    """The notice of a line; None when nobody is told, as of alarms in shadow."""
    event = event_of(line)
    if event is None or line.shadow:
        return None
    definition, asset = guide.alarms.get(line.key), guide.assets.get(line.asset)
    return Notice(
        id=line.id,
        alarm=line.alarm,
        event=event,
        at_us=line.at_us,
        recorded_us=line.recorded_us or line.at_us,
        definition=line.key,
        asset=line.asset,
        asset_type=line.key.rpartition(".")[0],
        asset_title=(asset.title, asset.title_zh) if asset is not None else ("", ""),
        priority=line.priority,
        message=_pair(line.message),
        cause=_pair(definition.cause) if definition is not None else ("", ""),
        action=_pair(definition.action) if definition is not None else ("", ""),
        by=line.actor,
    )


def _pair(wording: Wording) -> tuple[str, str]:
    return wording.en, wording.zh
