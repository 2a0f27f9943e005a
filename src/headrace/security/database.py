"""The metadata database: SQLite in the data folder, or PostgreSQL that several machines share.

Whoever changes more than one row at once holds one lock for all writers: BEGIN IMMEDIATE in SQLite, an
advisory lock in PostgreSQL that the transaction's end gives back.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

from sqlalchemy import MetaData, String, Table, create_engine, event, inspect, make_url, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable
from sqlalchemy.types import TypeEngine

from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.security.settings import load_settings

TABLES: Final = MetaData()
"""Of users and of the audit chain, which change in one transaction."""
WRITE_LOCK: Final = 0x48454144
"""Key of the advisory lock: any number that other programs on that database do not use."""


def metadata_url(folder: DataFolder) -> str:
    """SQLAlchemy URL of an installation's metadata database.

    Raises:
        Misconfigured: SEC-1201 when ``headrace.toml`` cannot be used.

    Example:
        >>> from pathlib import Path
        >>> metadata_url(DataFolder(Path("/srv/headrace")))
        'sqlite:////srv/headrace/metadata.db'
    """
    shared = load_settings(folder).metadata.url
    return shared or f"sqlite:///{folder.metadata_file.absolute()}"


def shown(url: str) -> str:
    """A URL as it may be shown: without its password.

    Example:
        >>> shown("postgresql+psycopg://headrace:secret@db/headrace")
        'postgresql+psycopg://headrace:***@db/headrace'
    """
    return make_url(url).render_as_string(hide_password=True)


def is_shared(folder: DataFolder) -> bool:
    """Whether other machines may use the same metadata: it does not lie in the data folder."""
    return bool(load_settings(folder).metadata.url)


def has_metadata(folder: DataFolder) -> bool:
    """Whether there may be metadata; a database in the data folder is made at the first start."""
    return is_shared(folder) or folder.metadata_file.exists()


def words(length: int) -> TypeEngine[str]:
    """A column of short text that sorts by code point in every database."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


def open_engine(url: str, tables: MetaData, patience_s: float) -> Engine:
    """An engine whose tables exist, with all columns. SQLite: write-ahead log, transactions, foreign keys.

    Args:
        patience_s: how long to wait for another process that writes.

    Raises:
        Misconfigured: SEC-1203 when the URL is none, or its driver is not installed.
        DatabaseError: of SQLAlchemy, when it cannot be opened.
    """
    engine = _engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", partial(_prepare_sqlite, int(patience_s * 1000)))
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "begin", partial(_begin_shared, int(patience_s * 1000)))
    with writing(engine) as connection:
        for table in tables.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            _add_new_columns(connection, table)
            for index in table.indexes:
                connection.execute(CreateIndex(index, if_not_exists=True))
    return engine


def writing(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction that will write, told from its begin.

    One that reads first and then writes is refused by SQLite at once, without any patience, when another
    has written in between.

    Example:
        >>> from sqlalchemy import MetaData
        >>> engine = create_engine("sqlite://")
        >>> with writing(engine) as connection:
        ...     connection.exec_driver_sql("SELECT 1").scalar()
        1
    """
    return engine.execution_options(immediate=True).begin()


def _add_new_columns(connection: Connection, table: Table) -> None:
    """Give a table of an earlier version the columns that came since; each has a default."""
    known = {column["name"] for column in inspect(connection).get_columns(table.name)}
    quote = connection.dialect.identifier_preparer.quote
    for column in table.columns:
        if column.name not in known:
            what = str(CreateColumn(column).compile(dialect=connection.dialect))
            connection.execute(text(f"ALTER TABLE {quote(table.name)} ADD COLUMN {what}"))


def _engine(url: str) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except ArgumentError as error:
        raise Misconfigured(
            "SEC-1203",
            "the URL of the metadata database is no URL",
            "Write for example postgresql+psycopg://headrace@db/headrace",
        ) from error
    except (NoSuchModuleError, ImportError) as error:
        raise Misconfigured(
            "SEC-1203",
            f"the driver of {shown(url)} is not installed",
            "Run: pip install 'headrace[postgres]', and write postgresql+psycopg://...",
        ) from error


def _prepare_sqlite(patience_ms: int, connection: Any, record: Any) -> None:
    del record
    connection.isolation_level = None  # the driver would begin too late: reads come first
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {patience_ms}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _begin_shared(patience_ms: int, connection: Connection) -> None:
    if connection.get_execution_options().get("immediate", False):
        connection.execute(text(f"SET LOCAL lock_timeout = {patience_ms}"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITE_LOCK})"))
