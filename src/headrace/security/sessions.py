"""Sessions of people: opened at a sign-in, over after a time, listed, revoked one by one or all.

::

    sign-in ─► stage code ──► open ──► over: absolute age, idle time, sign-out, revoked, user closed
          └──► stage enrol ──┘    each step gives a new secret: what was known before is worthless

A stage is a session that is nobody yet: the password was right, and the second factor is still to come.
Sources: NIST SP 800-63B-4, 5.1 and 5.2; IEC 62443-3-3 SR 2.5 and SR 2.6; OWASP ASVS V3.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection, Engine, Row

from headrace.model.time import US_PER_S, Clock
from headrace.security.database import writing
from headrace.security.settings import IdentitySettings
from headrace.security.tables import SESSION, USER
from headrace.security.tokens import new_token, token_hash

Stage = Literal["", "code", "enrol"]
STAGE_S: Final = 600
TRIES_MAX: Final = 5
SEEN_S: Final = 60
FRESH_S: Final = 300
"""How long somebody may sign after a provider asked who it is (again)."""
PER_USER_MAX: Final = 50
ID_LENGTH: Final = 12
SECOND: Final = frozenset({"totp", "recovery", "oidc"})
"""Factors with which a session meets the demand for a second one."""


@dataclass(frozen=True, kw_only=True)
class SessionEntry:
    """One open session as lists show it. Times are UTC microseconds; ``id`` names it, and is no secret."""

    id: str
    user: str
    address: str
    agent: str
    factors: frozenset[str]
    created_us: int
    seen_us: int
    expires_us: int


class Sessions:
    """The sessions of one installation; part of ``Identity``, which tells the audit chain.

    Args:
        engine: of the metadata database.
        clock: for expiry.
        settings: idle and absolute time, and who needs a second factor.
    """

    def __init__(self, engine: Engine, clock: Clock, settings: IdentitySettings) -> None:
        self._engine = engine
        self._clock = clock
        self._settings = settings

    def open(
        self,
        connection: Connection,
        user_id: int,
        *,
        address: str,
        agent: str,
        factors: Collection[str],
        grants: str = "[]",
        stage: Stage = "",
    ) -> str:
        """Open a session in a transaction; gives its secret. What is over, or too many, goes."""
        secret = new_token()
        now_us = self._clock.now_us()
        newest = (
            select(SESSION.c.token_hash)
            .where(SESSION.c.user_id == user_id)
            .order_by(SESSION.c.created_us.desc())
            .limit(PER_USER_MAX - 1)
        )
        old = delete(SESSION).where(
            (SESSION.c.expires_us <= now_us)
            | ((SESSION.c.user_id == user_id) & SESSION.c.token_hash.not_in(newest))
        )
        lasts_s = STAGE_S if stage else self._settings.session_h * 3600
        row = {
            "token_hash": token_hash(secret),
            "user_id": user_id,
            "created_us": now_us,
            "expires_us": now_us + lasts_s * US_PER_S,
            "seen_us": now_us,
            "address": address[:64],
            "agent": agent[:200],
            "factors": ",".join(sorted(factors)),
            "grants": grants,
            "stage": stage,
        }
        connection.execute(old)
        connection.execute(insert(SESSION).values(row))
        return secret

    def row(self, secret: str, stage: Stage = "") -> Row[Any] | None:
        """Session and user of a secret, when it is valid and at this stage; notes that it was seen."""
        if not secret:
            return None
        query = self._valid(stage).where(SESSION.c.token_hash == token_hash(secret))
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None or not self._is_strong(row, stage):
            return None
        now_us = self._clock.now_us()
        if now_us - row.seen_us >= SEEN_S * US_PER_S:
            seen = update(SESSION).where(SESSION.c.token_hash == row.token_hash)
            with writing(self._engine) as connection:
                connection.execute(seen.values(seen_us=now_us))
        return row

    def alive(self, hashes: Collection[str]) -> set[str]:
        """Which of these token hashes are of sessions that are still open; one query for all."""
        with self._engine.connect() as connection:
            query = self._valid("").where(SESSION.c.token_hash.in_(list(hashes)))
            rows = connection.execute(query).all()
        return {row.token_hash for row in rows if self._is_strong(row, "")}

    def list(self, name: str | None = None) -> list[SessionEntry]:
        """Open sessions of one user or of all, the last seen first."""
        query = self._valid("").order_by(SESSION.c.seen_us.desc())
        if name is not None:
            query = query.where(USER.c.name == name)
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [_entry(row) for row in rows if self._is_strong(row, "")]

    def end(self, connection: Connection, name: str, *, id: str = "", but: str = "") -> int:
        """End one session of a user by its id, or all but that of a secret; gives how many ended."""
        owner = select(USER.c.id).where(USER.c.name == name).scalar_subquery()
        ended = delete(SESSION).where(SESSION.c.user_id == owner)
        if id:
            ended = ended.where(SESSION.c.token_hash.startswith(id, autoescape=True))
        if but:
            ended = ended.where(SESSION.c.token_hash != token_hash(but))
        return connection.execute(ended).rowcount

    def renew(self, connection: Connection, secret: str, factors: Collection[str]) -> str:
        """A new secret for a session whose rights or factors changed; the old one is worthless."""
        fresh = new_token()
        changed = update(SESSION).where(SESSION.c.token_hash == token_hash(secret))
        values = {"token_hash": token_hash(fresh), "factors": ",".join(sorted(factors))}
        connection.execute(changed.values(**values))
        return fresh

    def freshen(self, connection: Connection, secret: str, auth_us: int) -> None:
        """Keep when the provider last asked this session's person who it is."""
        mine = SESSION.c.token_hash == token_hash(secret)
        connection.execute(update(SESSION).where(mine).values(auth_us=auth_us))

    def use_fresh(self, connection: Connection, secret: str, name: str) -> bool:
        """Whether the provider asked this person in this session just now; it counts once."""
        owner = select(USER.c.id).where(USER.c.name == name).scalar_subquery()
        used = update(SESSION).where(
            SESSION.c.token_hash == token_hash(secret),
            SESSION.c.user_id == owner,
            SESSION.c.auth_us > max(0, self._clock.now_us() - FRESH_S * US_PER_S),
        )
        return connection.execute(used.values(auth_us=0)).rowcount > 0

    def failed(self, connection: Connection, secret: str) -> None:
        """Count a wrong code; after five the stage is over, and the password is asked for again."""
        mine = SESSION.c.token_hash == token_hash(secret)
        connection.execute(update(SESSION).where(mine).values(tries=SESSION.c.tries + 1))
        connection.execute(delete(SESSION).where(mine, SESSION.c.tries >= TRIES_MAX))

    def needs_second(self, role: str) -> bool:
        """Whether the settings ask people with this role for a second factor."""
        return role in self._settings.second_factor_roles

    def _valid(self, stage: Stage) -> Any:
        now_us = self._clock.now_us()
        query = (
            select(SESSION, USER)
            .join(USER, SESSION.c.user_id == USER.c.id)
            .where(SESSION.c.stage == stage, SESSION.c.expires_us > now_us)
            .where(USER.c.disabled.is_(False))
        )
        if self._settings.idle_min and not stage:
            # A session of an earlier version was never seen: its beginning counts.
            since_us = now_us - self._settings.idle_min * 60 * US_PER_S
            query = query.where((SESSION.c.seen_us > since_us) | (SESSION.c.created_us > since_us))
        return query

    def _is_strong(self, row: Row[Any], stage: Stage) -> bool:
        """The demand for a second factor counts for sessions that were opened before it too."""
        if stage or row.must_change or not self.needs_second(row.role):
            return True
        return bool(SECOND & set(row.factors.split(",")))


def _entry(row: Row[Any]) -> SessionEntry:
    return SessionEntry(
        id=row.token_hash[:ID_LENGTH],
        user=row.name,
        address=row.address,
        agent=row.agent,
        factors=frozenset(row.factors.split(",")),
        created_us=row._mapping[SESSION.c.created_us],
        seen_us=row.seen_us,
        expires_us=row.expires_us,
    )
