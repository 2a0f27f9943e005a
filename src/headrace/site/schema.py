"""Tables of the metadata database that the site owns. SQLite by default, PostgreSQL when shared.

::

    enterprise ── site ── equipment (asset_type when it is an asset)      asset_type
                           │ place
    connection ── tag ── tag_version   (path, name, unit, place, source address from valid_from_us on)

Nothing is deleted that samples may point to: what leaves the site file is retired.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.schema import CreateIndex, CreateTable

METADATA: Final = MetaData()


def _titles() -> tuple[Column[Any], ...]:
    return (
        Column("title", Text, nullable=False, default=""),
        Column("title_zh", Text, nullable=False, default=""),
    )


ENTERPRISE: Final = Table("enterprise", METADATA, Column("name", String(64), primary_key=True))

SITE: Final = Table(
    "site",
    METADATA,
    Column("enterprise", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    *_titles(),
    Column("time_zone", String(64), nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("applied_us", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

EQUIPMENT: Final = Table(
    "equipment",
    METADATA,
    Column("path", String(600), primary_key=True),
    Column("level", String(16), nullable=False),
    *_titles(),
    Column("asset_type", String(64), nullable=False, default=""),
    Column("retired_us", BigInteger),
)

ASSET_TYPE: Final = Table(
    "asset_type",
    METADATA,
    Column("name", String(64), primary_key=True),
    *_titles(),
    Column("quantities", JSON, nullable=False),
    Column("retired_us", BigInteger),
)

EDGE: Final = Table("edge", METADATA, Column("name", String(64), primary_key=True))

CONNECTION: Final = Table(
    "connection",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("protocol", String(64), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("edge", String(64), nullable=False),
    Column("enabled", Boolean, nullable=False),
    *_titles(),
    Column("options", JSON, nullable=False),
    Column("retired_us", BigInteger),
)

TAG: Final = Table(
    "tag",
    METADATA,
    Column("tag_id", BigInteger, primary_key=True, autoincrement=False),
    Column("path", String(600), nullable=False),
    Column("connection", String(64), nullable=False),
    Column("address", Text, nullable=False),
    Column("unit", String(64), nullable=False, default=""),
    *_titles(),
    Column("description", Text, nullable=False, default=""),
    Column("scan_interval_ms", Integer, nullable=False),
    Column("scale", Float(53), nullable=False),
    Column("offset", Float(53), nullable=False),
    Column("deadband", Float(53), nullable=False),
    Column("tag_group", String(64), nullable=False),
    Column("writable", Boolean, nullable=False),
    Column("write_minimum", Float(53)),
    Column("write_maximum", Float(53)),
    Column("sample_interval_us", BigInteger, nullable=False),
    Column("asset", String(600), nullable=False, default=""),
    Column("asset_type", String(64), nullable=False, default=""),
    Column("created_us", BigInteger, nullable=False),
    Column("retired_us", BigInteger),
    Index("tag_path", "path"),
)

TAG_VERSION: Final = Table(
    "tag_version",
    METADATA,
    Column("tag_id", BigInteger, primary_key=True, autoincrement=False),
    Column("valid_from_us", BigInteger, primary_key=True, autoincrement=False),
    Column("path", String(600), nullable=False),
    Column("name", String(64), nullable=False),
    Column("place", String(600), nullable=False),
    Column("unit", String(64), nullable=False),
    Column("connection", String(64), nullable=False),
    Column("address", Text, nullable=False),
    Column("retired", Boolean, nullable=False),
    Index("tag_version_path", "path"),
)


def open_engine(url: str, patience_s: float) -> Engine:
    """An engine whose tables exist. SQLite: write-ahead log, real transactions.

    Args:
        patience_s: how long to wait for another process that writes.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", partial(_prepare_sqlite, int(patience_s * 1000)))
        event.listen(engine, "begin", _begin_sqlite)
    with engine.execution_options(immediate=True).begin() as connection:
        for table in METADATA.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
    return engine


def _prepare_sqlite(patience_ms: int, connection: Any, record: Any) -> None:
    del record
    connection.isolation_level = None  # the driver would begin too late: reads come first
    cursor = connection.cursor()
    for pragma in (f"busy_timeout = {patience_ms}", "journal_mode = WAL", "synchronous = FULL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
