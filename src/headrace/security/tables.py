"""The tables of identity in the metadata database; who reads and writes them lies in the modules beside.

No secret stands in any of them: passwords as argon2id hashes, random secrets as SHA-256, the seeds of
one-time codes encrypted (:mod:`headrace.security.factors`).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, Table, Text

from headrace.security.database import TABLES, words

USER: Final = Table(
    "user",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("name", words(64), nullable=False, unique=True),
    Column("password_hash", words(256), nullable=False),
    Column("role", words(32), nullable=False),
    Column("must_change", Boolean, nullable=False, default=False),
    Column("disabled", Boolean, nullable=False, default=False),
    Column("language", words(8), nullable=False, default="en"),
    Column("theme", words(8), nullable=False, default="auto"),
    Column("created_us", BigInteger, nullable=False),
)
SESSION: Final = Table(
    "session",
    TABLES,
    Column("token_hash", words(64), primary_key=True),
    Column("user_id", ForeignKey("user.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False, server_default="0"),
    Column("address", words(64), nullable=False, server_default=""),
    Column("agent", words(200), nullable=False, server_default=""),
    Column("factors", words(80), nullable=False, server_default="password"),
    Column("grants", Text, nullable=False, server_default="[]"),
    Column("stage", words(16), nullable=False, server_default=""),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("auth_us", BigInteger, nullable=False, server_default="0"),
)
TOKEN: Final = Table(
    "token",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("token_hash", words(64), nullable=False, unique=True),
    Column("user_id", ForeignKey("user.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("title", words(80), nullable=False),
    Column("role", words(32), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)
FAILURE: Final = Table(
    "sign_in_failure",
    TABLES,
    Column("name", words(64), primary_key=True),
    Column("address", words(64), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("last_us", BigInteger, nullable=False),
)
ACTOR: Final = Table(
    "actor",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("name", words(64), nullable=False, unique=True),
    Column("kind", words(16), nullable=False),
    Column("tenant", words(64), nullable=False),
    Column("grants", Text, nullable=False),
    Column("secret_hash", words(64), nullable=False, unique=True),
    Column("disabled", Boolean, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
)
TOTP: Final = Table(
    "totp",
    TABLES,
    Column("user_id", ForeignKey("user.id", ondelete="CASCADE"), primary_key=True),
    Column("sealed", words(200), nullable=False),
    Column("confirmed", Boolean, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)
RECOVERY: Final = Table(
    "recovery_code",
    TABLES,
    Column("code_hash", words(64), primary_key=True),
    Column("user_id", ForeignKey("user.id", ondelete="CASCADE"), nullable=False, index=True),
)
DEVICE: Final = Table(
    "known_device",
    TABLES,
    Column("token_hash", words(64), primary_key=True),
    Column("user_id", ForeignKey("user.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_us", BigInteger, nullable=False),
)
LINK: Final = Table(
    "single_sign_on",
    TABLES,
    Column("issuer", words(300), primary_key=True),
    Column("subject", words(255), primary_key=True),
    Column("user_id", ForeignKey("user.id", ondelete="CASCADE"), nullable=False, index=True),
)
