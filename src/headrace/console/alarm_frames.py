"""Alarms and journal as columns: what CSV, Arrow, the Python client and the command line give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import polars as pl

from headrace.alarms.store import JournalLine
from headrace.model.alarm import AlarmState, Transition, Wording

_TIME: Final = pl.Datetime("us", "UTC")
_KINDS: Final[dict[Any, Any]] = {bool: pl.Boolean(), int: pl.Int64(), str: pl.String()}


def _time_name(field: str) -> str:
    """``active_us`` is the column ``active_at``; what says when already stays as it is."""
    stem = field.removesuffix("_us")
    return stem if stem in ("at", "since", "until", "shelved_until") else f"{stem}_at"


def _schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Columns of a flat struct: microseconds become times, a wording one text a language."""
    columns: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        if field.type is Wording:
            columns |= {field.name: pl.String(), f"{field.name}_zh": pl.String()}
        elif field.name.endswith("_us"):
            columns[_time_name(field.name)] = _TIME
        else:
            columns[field.name] = _KINDS.get(field.type, pl.String())
    return columns


ALARM_SCHEMA: Final = _schema(AlarmState)
JOURNAL_SCHEMA: Final = {"number": pl.Int64(), **_schema(Transition)}


def alarm_frame(alarms: Iterable[AlarmState]) -> pl.DataFrame:
    """One row an alarm, with :data:`ALARM_SCHEMA`; a time that never was is null.

    Example:
        >>> hot = AlarmState(alarm="p/hot", key="pump.hot", asset="p", name="hot", since_us=1_000_000)
        >>> alarm_frame([hot]).select("alarm", "state", "active_at").row(0)
        ('p/hot', 'NORM', None)
    """
    return pl.DataFrame([_row(each) for each in alarms], schema=ALARM_SCHEMA)


def journal_frame(lines: Sequence[JournalLine]) -> pl.DataFrame:
    """One row a transition, with :data:`JOURNAL_SCHEMA`."""
    rows = [{"number": line.number, **_row(line.transition)} for line in lines]
    return pl.DataFrame(rows, schema=JOURNAL_SCHEMA)


def _row(struct: msgspec.Struct) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        if isinstance(value, Wording):
            row |= {name: value.en, f"{name}_zh": value.zh}
        elif name.endswith("_us"):
            row[_time_name(name)] = value or None
        else:
            row[name] = value
    return row
