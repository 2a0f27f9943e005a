"""Tables of notifications in the metadata database; see :mod:`headrace.alarms.notify.store`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, Table, Text

from headrace.security.database import words

METADATA: Final = MetaData()

DELIVERY: Final = Table(
    "notify_delivery",
    METADATA,
    Column("key", words(600), primary_key=True),
    Column("notice_id", words(400), nullable=False),
    Column("alarm", words(600), nullable=False),
    Column("event", words(16), nullable=False),
    Column("channel", words(64), nullable=False),
    Column("step", Integer, nullable=False),
    Column("route", words(64), nullable=False),
    Column("rank", Integer, nullable=False),
    Column("state", words(16), nullable=False),
    Column("follow", Boolean, nullable=False),
    Column("recorded_us", BigInteger, nullable=False),
    Column("due_us", BigInteger, nullable=False),
    Column("next_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("done_us", BigInteger, nullable=False, default=0),
    Column("attempts", Integer, nullable=False, default=0),
    Column("attempt", BigInteger, nullable=False, default=0, index=True),
    Column("fell", Boolean, nullable=False, default=False),  # its next step was told, or needs not
    Column("body", Text, nullable=False),
    Index("notify_delivery_due", "state", "channel", "next_us"),
    Index("notify_delivery_alarm", "alarm", "state"),
    Index("notify_delivery_notice", "notice_id"),
    Index("notify_delivery_fall", "channel", "fell", "state"),
)
ATTEMPT: Final = Table(
    "notify_attempt",
    METADATA,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("channel", words(64), nullable=False, index=True),
    Column("kind", words(16), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("took_us", BigInteger, nullable=False, default=0),
    Column("count", Integer, nullable=False),
    Column("result", words(16), nullable=False),
    Column("code", words(64), nullable=False, default=""),
    Column("text", Text, nullable=False, default=""),
    Column("title", Text, nullable=False),
)
POSITION: Final = Table(
    "notify_position",
    METADATA,
    Column("name", words(16), primary_key=True),
    Column("value", words(400), nullable=False),
)
