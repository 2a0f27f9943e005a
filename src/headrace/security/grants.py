"""Grants of people: roles that count for a part of the site, in the metadata database.

A person without grants has the account's role on the whole site. A person with grants has these and nothing
else, so the last grant is not taken back unawares: then the role would count everywhere again.
"""

from __future__ import annotations

from typing import Any, Final, cast

from sqlalchemy import BigInteger, Column, ForeignKey, Table, delete, insert, select
from sqlalchemy.engine import Connection, Engine

from headrace.model.errors import Misconfigured, Refused
from headrace.model.ids import check_name
from headrace.model.time import Clock
from headrace.security.audit import AuditChain
from headrace.security.database import TABLES, words
from headrace.security.rights import ROLES, Grant, Role

GRANTS_MAX: Final = 100
_GRANT = Table(
    "user_grant",
    TABLES,
    Column("user_id", ForeignKey("user.id", ondelete="CASCADE"), primary_key=True),
    Column("role", words(16), primary_key=True),
    Column("scope", words(200), primary_key=True),
    Column("created_us", BigInteger, nullable=False),
)


class Grants:
    """The grants of all people of one installation.

    Args:
        engine: of the metadata database. audit: where each change is told. clock: for its time.
    """

    def __init__(self, engine: Engine, audit: AuditChain, clock: Clock) -> None:
        self._engine = engine
        self._audit = audit
        self._clock = clock

    def of(self, name: str) -> tuple[Grant, ...]:
        """The grants of a person, by scope; none where the role counts for the whole site."""
        user = TABLES.tables["user"]
        query = (
            select(_GRANT.c.role, _GRANT.c.scope)
            .join(user, user.c.id == _GRANT.c.user_id)
            .where(user.c.name == name)
            .order_by(_GRANT.c.scope, _GRANT.c.role)
        )
        with self._engine.connect() as connection:
            return tuple(Grant(cast(Role, r.role), r.scope) for r in connection.execute(query))

    def add(self, name: str, role: str, scope: str, *, by: str) -> None:
        """Let a role count for a person at and below equipment; "" is the whole site.

        Raises:
            Misconfigured: SEC-1006 no such user, SEC-1008 no such role, MODEL-1002 when ``scope`` is no
                path, SEC-1416 too many grants.
            Refused: SEC-1418 for an admin, who has the whole site.
        """
        if role not in ROLES:
            raise Misconfigured(
                "SEC-1008", f"there is no role {role!r}", f"Use: {', '.join(ROLES)}."
            )
        place = checked_scope(scope)
        with self._audit.writing() as connection:
            user = _user(connection, name)
            if user.role == "admin":
                raise Refused(
                    "SEC-1418",
                    f"{name} is an admin, whose role counts for the whole site",
                    f"First give another role: headrace user role {name} viewer",
                )
            held = connection.execute(select(_GRANT).where(_GRANT.c.user_id == user.id)).all()
            if any((row.role, row.scope) == (role, place) for row in held):
                return
            if len(held) >= GRANTS_MAX:
                raise Misconfigured(
                    "SEC-1416", f"{name} has {len(held)} grants", "Grant equipment further up."
                )
            values = {"user_id": user.id, "role": role, "scope": place}
            values["created_us"] = self._clock.now_us()
            connection.execute(insert(_GRANT).values(values))
            _end_sessions(connection, user.id)
            about = (by, "user.grant", f"user/{name}", "done")
            self._audit.append(connection, *about, granted=role, scope=place)  # type: ignore[arg-type] # an outcome

    def remove(
        self, name: str, role: str, scope: str, *, by: str, whole_site: bool = False
    ) -> None:
        """Take a grant back.

        Args:
            whole_site: also the last one; then the account's role counts for the whole site again.

        Raises:
            Misconfigured: SEC-1006 no such user, SEC-1416 no such grant.
            Refused: SEC-1417 for the last one, unless ``whole_site``.
        """
        place = scope.strip("/")
        with self._audit.writing() as connection:
            user = _user(connection, name)
            held = connection.execute(select(_GRANT).where(_GRANT.c.user_id == user.id)).all()
            if (role, place) not in [(row.role, row.scope) for row in held]:
                raise Misconfigured(
                    "SEC-1416",
                    f"{name} has no grant of {role} on {place or 'the whole site'}",
                    "See: headrace user grants",
                )
            if len(held) == 1 and not whole_site:
                raise Refused(
                    "SEC-1417",
                    f"it is the last grant of {name}, who would be {user.role} of the whole site",
                    "Grant something else first, close the account, or say --whole-site.",
                )
            mine = (_GRANT.c.user_id == user.id) & (_GRANT.c.role == role)
            connection.execute(delete(_GRANT).where(mine & (_GRANT.c.scope == place)))
            _end_sessions(connection, user.id)
            about = (by, "user.revoke_grant", f"user/{name}", "done")
            self._audit.append(connection, *about, revoked=role, scope=place)  # type: ignore[arg-type] # an outcome


def checked_scope(scope: str) -> str:
    """An equipment path, without slashes at its ends; "" is the whole site.

    Raises:
        Misconfigured: MODEL-1002 for what is no name.

    Example:
        >>> checked_scope("/utilities/pumping/")
        'utilities/pumping'
    """
    tokens = [token for token in scope.strip("/").split("/") if scope.strip("/")]
    return "/".join(check_name(token, "equipment") for token in tokens)


def _user(connection: Connection, name: str) -> Any:
    user = TABLES.tables["user"]
    row = connection.execute(select(user.c.id, user.c.role).where(user.c.name == name)).first()
    if row is None:
        raise Misconfigured(
            "SEC-1006", f"there is no user {name!r}", "List them with: headrace user list"
        )
    return row


def _end_sessions(connection: Connection, user_id: int) -> None:
    """No page and no stream that is open goes on with the rights of before."""
    session = TABLES.tables["session"]
    connection.execute(delete(session).where(session.c.user_id == user_id))
