"""Tables of the metadata database that the site owns. SQLite by default, PostgreSQL when shared.

::

    enterprise ── site ── equipment (asset_type when it is an asset)      asset_type
                           │ place
    connection ── tag ── tag_version   (path, name, unit, place, source address from valid_from_us on)

    formula_version (each text of a formula, and its start)     knowledge (what the apps role runs)

Nothing is deleted that samples may point to: what leaves the site file is retired.
"""

from __future__ import annotations

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
    Table,
    Text,
)

from headrace.security.database import words

METADATA: Final = MetaData()


def _titles() -> tuple[Column[Any], ...]:
    return (
        Column("title", Text, nullable=False, default=""),
        Column("title_zh", Text, nullable=False, default=""),
    )


ENTERPRISE: Final = Table("enterprise", METADATA, Column("name", words(64), primary_key=True))

SITE: Final = Table(
    "site",
    METADATA,
    Column("enterprise", words(64), primary_key=True),
    Column("name", words(64), primary_key=True),
    *_titles(),
    Column("time_zone", words(64), nullable=False),
    Column("content_hash", words(64), nullable=False),
    Column("applied_us", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

EQUIPMENT: Final = Table(
    "equipment",
    METADATA,
    Column("path", words(600), primary_key=True),
    Column("level", words(16), nullable=False),
    *_titles(),
    Column("asset_type", words(64), nullable=False, default=""),
    Column("retired_us", BigInteger),
)

ASSET_TYPE: Final = Table(
    "asset_type",
    METADATA,
    Column("name", words(64), primary_key=True),
    *_titles(),
    Column("quantities", JSON, nullable=False),
    Column("retired_us", BigInteger),
)

EDGE: Final = Table("edge", METADATA, Column("name", words(64), primary_key=True))

CONNECTION: Final = Table(
    "connection",
    METADATA,
    Column("name", words(64), primary_key=True),
    Column("protocol", words(64), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("edge", words(64), nullable=False),
    Column("enabled", Boolean, nullable=False),
    *_titles(),
    Column("options", JSON, nullable=False),
    Column("retired_us", BigInteger),
)

TAG: Final = Table(
    "tag",
    METADATA,
    Column("tag_id", BigInteger, primary_key=True, autoincrement=False),
    Column("path", words(600), nullable=False),
    Column("connection", words(64), nullable=False),
    Column("address", Text, nullable=False),
    Column("unit", words(64), nullable=False, default=""),
    *_titles(),
    Column("description", Text, nullable=False, default=""),
    Column("scan_interval_ms", Integer, nullable=False),
    Column("scale", Float(53), nullable=False),
    Column("offset", Float(53), nullable=False),
    Column("deadband", Float(53), nullable=False),
    Column("tag_group", words(64), nullable=False),
    Column("writable", Boolean, nullable=False),
    Column("write_minimum", Float(53)),
    Column("write_maximum", Float(53)),
    Column("sample_interval_us", BigInteger, nullable=False),
    Column("asset", words(600), nullable=False, default=""),
    Column("asset_type", words(64), nullable=False, default=""),
    Column("created_us", BigInteger, nullable=False),
    Column("retired_us", BigInteger),
    Index("tag_path", "path"),
)

TAG_VERSION: Final = Table(
    "tag_version",
    METADATA,
    Column("tag_id", BigInteger, primary_key=True, autoincrement=False),
    Column("valid_from_us", BigInteger, primary_key=True, autoincrement=False),
    Column("path", words(600), nullable=False),
    Column("name", words(64), nullable=False),
    Column("place", words(600), nullable=False),
    Column("unit", words(64), nullable=False),
    Column("connection", words(64), nullable=False),
    Column("address", Text, nullable=False),
    Column("retired", Boolean, nullable=False),
    Index("tag_version_path", "path"),
)

FORMULA_VERSION: Final = Table(
    "formula_version",
    METADATA,
    Column("asset_type", words(64), primary_key=True),
    Column("name", words(64), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("kind", words(16), nullable=False),
    Column("text", Text, nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("accepted_us", BigInteger, nullable=False),
    Column("retired_us", BigInteger),
)

KNOWLEDGE: Final = Table(
    "knowledge",
    METADATA,
    Column("key", words(16), primary_key=True),
    Column("config", Text, nullable=False),
)
