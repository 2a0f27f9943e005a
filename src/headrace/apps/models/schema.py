"""Tables of models in the metadata database, beside the audit chain: a change and its entry are one thing."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, Table
from sqlalchemy.types import LargeBinary

from headrace.security.database import TABLES, words

MODELS: Final = Table(
    "model",
    TABLES,
    Column("app", words(200), primary_key=True),
    Column("name", words(200), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("sha256", words(64), nullable=False),
    Column("state", words(16), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("model_by_hash", "sha256"),
)
"""``body``: the whole record as JSON, as it was signed; ``state`` is the one that counts now."""

CHANGES: Final = Table(
    "model_change",
    TABLES,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("app", words(200), nullable=False),
    Column("name", words(200), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("model_change_by_model", "app", "name", "number"),
)
