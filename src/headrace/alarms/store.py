"""The journal and the states of alarms, in the metadata database (SQLite or PostgreSQL).

One process writes, the apps role; any number read. What belongs together is one transaction: transitions,
the states they lead to, the answer of the command, and up to which source time results were taken. So a
kill at any moment loses none and repeats none: a transition's id is made of what happened, and the
journal has each id once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec
import polars as pl
from sqlalchemy import ColumnElement, Select, and_, case, func, not_, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError, OperationalError

from headrace.alarms.schema import COMMANDS, JOURNAL, METADATA, POSITIONS, STATES
from headrace.model.alarm import (
    PRIORITIES,
    UNACKNOWLEDGED,
    AlarmState,
    CommandAnswer,
    EventName,
    Priority,
    StateName,
    Transition,
)
from headrace.model.errors import Corrupt, Terminal, Transient
from headrace.model.folder import DataFolder
from headrace.security.database import metadata_url, open_engine, shown, writing

ROWS_MAX: Final = 10_000
COMMANDS_KEPT_US: Final = 7 * 86_400 * 1_000_000
_SOME: Final = 500
"""Rows of one statement: databases bound the number of its parameters."""
JOURNAL_COLUMNS: Final = {
    "alarm": pl.String(),
    "key": pl.String(),
    "asset": pl.String(),
    "event": pl.String(),
    "before": pl.String(),
    "after": pl.String(),
    "at_us": pl.Int64(),
    "recorded_us": pl.Int64(),
    "priority": pl.Int32(),
    "actor": pl.String(),
    "correction": pl.Boolean(),
}
"""Of :meth:`AlarmStore.journal_frame`; ``priority`` is 0 low to 3 urgent."""


class AlarmFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which alarms to list; what is left empty does not count.

    Attributes:
        states: names of states. unacknowledged: UNACK, RTNUN or LATUN.
        area: path that the asset lies in or is, such as ``utilities/cooling``.
        text: somewhere in path, message, group or comment.
        shadow: None lists both.
        sort: by priority (highest first, then unacknowledged, then newest), by time (newest first) or by
            alarm.
    """

    states: tuple[StateName, ...] = ()
    priorities: tuple[Priority, ...] = ()
    unacknowledged: bool = False
    area: str = ""
    key: str = ""
    text: str = ""
    assignee: str = ""
    uncertain: bool | None = None
    shadow: bool | None = False
    sort: str = "priority"
    limit: int = 1_000
    offset: int = 0


class JournalFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which lines of the journal; newest first.

    Attributes:
        start_us, end_us: source time, ``[start, end)``; 0 does not count.
        before_number: only lines before this number of the journal, to read on; 0 all.
    """

    alarm: str = ""
    area: str = ""
    key: str = ""
    events: tuple[EventName, ...] = ()
    actor: str = ""
    text: str = ""
    start_us: int = 0
    end_us: int = 0
    shadow: bool | None = False
    before_number: int = 0
    limit: int = 1_000


class JournalLine(NamedTuple):
    """A transition with its number in the journal."""

    number: int
    transition: Transition


class AlarmStore:
    """Journal and states of all alarms of an installation.

    Args:
        folder: data folder; ``headrace.toml`` there may name a shared database.
        patience_s: how long a call waits for another process that writes.

    Raises:
        Terminal: ALARM-1101 when the database cannot be opened.
        Corrupt: ALARM-1102 when the file is no database.
    """

    def __init__(self, folder: DataFolder, *, patience_s: float = 10.0) -> None:
        url = metadata_url(folder)
        self._shown = shown(url)
        try:
            self._engine = open_engine(url, METADATA, patience_s)
        except OperationalError as error:
            raise Terminal(
                "ALARM-1101",
                f"the alarms in {self._shown} cannot be opened: {error.orig}",
                "Check that the folder exists and may be written, or that the database runs.",
            ) from error
        except DatabaseError as error:
            raise Corrupt(
                "ALARM-1102",
                f"{self._shown} is no database: {error.orig}",
                "Put the last backup of the file in its place.",
            ) from error

    def close(self) -> None:
        self._engine.dispose()

    def find(self, wanted: AlarmFilter | None = None) -> list[AlarmState]:
        """States that fit, sorted; at most ``limit``.

        Raises:
            Transient: ALARM-1103 when the database does not answer.
        """
        wanted = wanted or AlarmFilter()
        query = select(STATES.c.body).where(*_state_conditions(wanted))
        query = query.order_by(*_order(wanted.sort))
        query = query.limit(min(max(wanted.limit, 0), ROWS_MAX)).offset(max(wanted.offset, 0))
        return [_state(body) for (body,) in self._read(query)]

    def count(self, wanted: AlarmFilter | None = None) -> int:
        """How many alarms fit."""
        conditions = _state_conditions(wanted or AlarmFilter())
        rows = self._read(select(func.count()).select_from(STATES).where(*conditions))
        return int(rows[0][0])

    def counts(self) -> dict[tuple[StateName, Priority], int]:
        """How many alarms are in each state, by priority; those in shadow are left out."""
        query = select(STATES.c.state, STATES.c.priority, func.count())
        query = query.where(not_(STATES.c.shadow)).group_by(STATES.c.state, STATES.c.priority)
        return {(state, PRIORITIES[rank]): count for state, rank, count in self._read(query)}

    def get(self, alarm: str) -> AlarmState | None:
        """An alarm by its path; None when there is none."""
        rows = self._read(select(STATES.c.body).where(STATES.c.alarm == alarm))
        return _state(rows[0][0]) if rows else None

    def states(self) -> list[AlarmState]:
        """All of them, without a limit; what the engine starts with."""
        return [_state(body) for (body,) in self._read(select(STATES.c.body))]

    def journal(self, wanted: JournalFilter | None = None) -> list[JournalLine]:
        """Lines that fit, newest first; at most ``limit``."""
        wanted = wanted or JournalFilter()
        query = select(JOURNAL.c.number, JOURNAL.c.body).where(*_journal_conditions(wanted))
        query = query.order_by(JOURNAL.c.number.desc()).limit(min(max(wanted.limit, 0), ROWS_MAX))
        return [JournalLine(number, _transition(body)) for number, body in self._read(query)]

    def after(self, number: int, limit: int = ROWS_MAX) -> list[JournalLine]:
        """Lines after one of that number, in the journal's order; what was not handed on yet."""
        query = select(JOURNAL.c.number, JOURNAL.c.body).where(JOURNAL.c.number > number)
        query = query.order_by(JOURNAL.c.number).limit(min(limit, ROWS_MAX))
        return [JournalLine(number, _transition(body)) for number, body in self._read(query)]

    def journal_frame(
        self, start_us: int, end_us: int, *, area: str = "", actor: str = ""
    ) -> pl.DataFrame:
        """The journal of a source time ``[start, end)`` as columns, for metrics; without shadows.

        Returns:
            :data:`JOURNAL_COLUMNS`, sorted by time.
        """
        wanted = JournalFilter(start_us=start_us, end_us=end_us, area=area, actor=actor)
        columns = [JOURNAL.c[name] for name in JOURNAL_COLUMNS]
        query = select(*columns).where(*_journal_conditions(wanted))
        rows = self._read(query.order_by(JOURNAL.c.at_us, JOURNAL.c.number))
        return pl.DataFrame([tuple(row) for row in rows], schema=JOURNAL_COLUMNS, orient="row")

    def position(self, name: str) -> int | None:
        """``known``: up to which source time results were taken; ``told``: the last line handed on."""
        rows = self._read(select(POSITIONS.c.value).where(POSITIONS.c.name == name))
        return int(rows[0][0]) if rows else None

    def last_number(self) -> int:
        """Number of the journal's last line; 0 when it is empty."""
        return int(self._read(select(func.coalesce(func.max(JOURNAL.c.number), 0)))[0][0])

    def answer(self, command_id: str) -> CommandAnswer | None:
        """The answer that a command got already."""
        rows = self._read(select(COMMANDS.c.answer).where(COMMANDS.c.id == command_id))
        return msgspec.json.decode(rows[0][0], type=CommandAnswer) if rows else None

    def write(
        self,
        transitions: Sequence[Transition],
        states: Iterable[AlarmState] = (),
        *,
        retired: Iterable[str] = (),
        answer: CommandAnswer | None = None,
        positions: dict[str, int] | None = None,
        now_us: int = 0,
    ) -> None:
        """Write what belongs together; all of it or nothing. The same again changes nothing.

        Args:
            states: as they are after the transitions. retired: paths of alarms that are no more.
            positions: see :meth:`position`.
            now_us: time of the command's answer; older answers are forgotten after a week.

        Raises:
            Transient: ALARM-1103 when another process holds the database; nothing was written.
        """
        with self._transaction() as connection:
            _put(connection, JOURNAL, [_journal_row(each) for each in transitions], "id", False)
            _put(connection, STATES, [_state_row(each) for each in states], "alarm", True)
            for some in _chunks([*retired]):
                connection.execute(STATES.delete().where(STATES.c.alarm.in_(some)))
            rows = [{"name": name, "value": value} for name, value in (positions or {}).items()]
            _put(connection, POSITIONS, rows, "name", True)
            if answer is not None:
                row = {"id": answer.id, "at_us": now_us, "answer": msgspec.json.encode(answer)}
                _put(connection, COMMANDS, [row], "id", False)
                old = COMMANDS.c.at_us < now_us - COMMANDS_KEPT_US
                connection.execute(COMMANDS.delete().where(old))

    def prune(self, before_us: int) -> int:
        """Remove lines of the journal that were written before a time; how many."""
        with self._transaction() as connection:
            told = select(POSITIONS.c.value).where(POSITIONS.c.name == "told").scalar_subquery()
            done = connection.execute(
                JOURNAL.delete().where(
                    JOURNAL.c.recorded_us < before_us, JOURNAL.c.number <= func.coalesce(told, 0)
                )
            )
            return int(done.rowcount)

    def _read(self, query: Select[Any]) -> Sequence[Any]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(query).all()
        except OperationalError as error:
            raise self._busy(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with writing(self._engine) as connection:
                yield connection
        except OperationalError as error:
            raise self._busy(error) from error

    def _busy(self, error: OperationalError) -> Transient:
        return Transient(
            "ALARM-1103", f"the alarms in {self._shown} do not answer: {error.orig}", "Try again."
        )


def _state(body: bytes) -> AlarmState:
    return msgspec.json.decode(body, type=AlarmState)


def _transition(body: bytes) -> Transition:
    return msgspec.json.decode(body, type=Transition)


def _state_row(state: AlarmState) -> dict[str, Any]:
    text = (state.alarm, state.message.en, state.message.zh, state.group, state.comment)
    return {
        "alarm": state.alarm,
        "key": state.key,
        "asset": state.asset,
        "state": state.state,
        "priority": PRIORITIES.index(state.priority),
        "since_us": state.since_us,
        "uncertain": state.uncertain,
        "assignee": state.assignee,
        "shadow": state.shadow,
        "shown": "\n".join(text).lower(),
        "body": msgspec.json.encode(state),
    }


def _journal_row(transition: Transition) -> dict[str, Any]:
    names = ("id", "alarm", "key", "asset", "event", "before", "after", "at_us", "recorded_us")
    row: dict[str, Any] = {name: getattr(transition, name) for name in names}
    return row | {
        "priority": PRIORITIES.index(transition.priority),
        "actor": transition.actor,
        "correction": transition.correction,
        "shadow": transition.shadow,
        "body": msgspec.json.encode(transition),
    }


def _chunks(rows: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(rows), _SOME):
        yield rows[start : start + _SOME]


def _put(
    connection: Connection, table: Any, rows: list[dict[str, Any]], key: str, replace: bool
) -> None:
    """Insert rows; where one of the same key is there, replace it or leave it."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    insert = dialect.insert(table)
    if replace:
        taken = {column.name: insert.excluded[column.name] for column in table.c}
        insert = insert.on_conflict_do_update(index_elements=[key], set_=taken)
    else:
        insert = insert.on_conflict_do_nothing(index_elements=[key])
    for some in _chunks(rows):
        connection.execute(insert, some)


def _within(column: ColumnElement[str], area: str) -> ColumnElement[bool]:
    area = area.strip("/")
    return or_(column == area, column.startswith(f"{area}/", autoescape=True))


def _state_conditions(wanted: AlarmFilter) -> list[ColumnElement[bool]]:
    c = STATES.c
    found: list[ColumnElement[bool]] = []
    if wanted.states:
        found.append(c.state.in_(wanted.states))
    if wanted.unacknowledged:
        found.append(c.state.in_(sorted(UNACKNOWLEDGED)))
    if wanted.priorities:
        found.append(c.priority.in_([PRIORITIES.index(each) for each in wanted.priorities]))
    if wanted.area:
        found.append(_within(c.asset, wanted.area))
    if wanted.key:
        found.append(c.key == wanted.key)
    if wanted.text:
        found.append(c.shown.contains(wanted.text.lower(), autoescape=True))
    if wanted.assignee:
        found.append(c.assignee == wanted.assignee)
    if wanted.uncertain is not None:
        found.append(c.uncertain == wanted.uncertain)
    if wanted.shadow is not None:
        found.append(c.shadow == wanted.shadow)
    return found


def _order(sort: str) -> list[ColumnElement[Any]]:
    c = STATES.c
    if sort == "alarm":
        return [c.alarm]
    if sort == "time":
        return [c.since_us.desc(), c.alarm]
    waits = case((c.state.in_(sorted(UNACKNOWLEDGED)), 0), else_=1)
    return [c.priority.desc(), waits, c.since_us.desc(), c.alarm]


def _journal_conditions(wanted: JournalFilter) -> list[ColumnElement[bool]]:
    c = JOURNAL.c
    found: list[ColumnElement[bool]] = []
    equal = ((c.alarm, wanted.alarm), (c.key, wanted.key), (c.actor, wanted.actor))
    found += [column == value for column, value in equal if value]
    if wanted.area:
        found.append(_within(c.asset, wanted.area))
    if wanted.events:
        found.append(c.event.in_(wanted.events))
    if wanted.text:
        text = or_(
            c.alarm.contains(wanted.text, autoescape=True),
            c.actor.contains(wanted.text, autoescape=True),
        )
        found.append(and_(text))
    if wanted.start_us:
        found.append(c.at_us >= wanted.start_us)
    if wanted.end_us:
        found.append(c.at_us < wanted.end_us)
    if wanted.shadow is not None:
        found.append(c.shadow == wanted.shadow)
    if wanted.before_number:
        found.append(c.number < wanted.before_number)
    return found
