"""Tables of alarms in the metadata database. Each row keeps the whole struct as JSON beside what is
looked for."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, Table, Text
from sqlalchemy.types import LargeBinary

from headrace.security.database import words

METADATA: Final = MetaData()

STATES: Final = Table(
    "alarm_state",
    METADATA,
    Column("alarm", words(1000), primary_key=True),
    Column("key", words(300), nullable=False),
    Column("asset", words(1000), nullable=False),
    Column("state", words(8), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("since_us", BigInteger, nullable=False),
    Column("uncertain", Boolean, nullable=False),
    Column("assignee", words(200), nullable=False),
    Column("shadow", Boolean, nullable=False),
    Column("shown", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("alarm_state_by_state", "state"),
)
"""``priority``: 0 low to 3 urgent. ``shown``: in small letters, what a search looks through."""

JOURNAL: Final = Table(
    "alarm_journal",
    METADATA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("id", words(64), nullable=False, unique=True),
    Column("alarm", words(1000), nullable=False),
    Column("key", words(300), nullable=False),
    Column("asset", words(1000), nullable=False),
    Column("event", words(32), nullable=False),
    Column("before", words(8), nullable=False),
    Column("after", words(8), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("actor", words(200), nullable=False),
    Column("correction", Boolean, nullable=False),
    Column("shadow", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("alarm_journal_by_time", "at_us"),
    Index("alarm_journal_by_alarm", "alarm", "at_us"),
)

COMMANDS: Final = Table(
    "alarm_command",
    METADATA,
    Column("id", words(200), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("answer", LargeBinary, nullable=False),
)

POSITIONS: Final = Table(
    "alarm_position",
    METADATA,
    Column("name", words(40), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""``known``: up to which source time results were taken; ``told``: the last line of the journal that was
handed on."""
