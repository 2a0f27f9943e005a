"""Actors that are no persons: services, devices, edges, apps and partners, and the one list of all actors.

Each has a name of its own, grants, an expiry, and one secret that is random and kept only as a hash. A
person is an actor too; who that is stands in :mod:`headrace.security.identity`, and is listed here.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

import msgspec
from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection, Engine, Row
from sqlalchemy.exc import IntegrityError

from headrace.model.errors import Misconfigured
from headrace.model.ids import PATH_DEPTH_MAX, check_name
from headrace.model.time import US_PER_S, Clock
from headrace.security.audit import AuditChain
from headrace.security.database import writing
from headrace.security.rights import ROLES, Actor, ActorKind, Grant, Role
from headrace.security.tables import ACTOR, SESSION, USER
from headrace.security.tokens import ACTOR_PREFIX, new_token, token_hash

MachineKind = Literal["service", "device", "edge", "app", "partner"]
MACHINES: Final[tuple[MachineKind, ...]] = get_args(MachineKind)
SEEN_S: Final = 60
"""How fresh ``seen_us`` is: a write for every connection would be one disk sync for each."""
DAYS_MAX: Final = 3_650
GRANTS_MAX: Final = 100


@dataclass(frozen=True, kw_only=True)
class ActorEntry:
    """One actor as lists show it; never with a secret. Times are UTC microseconds.

    Attributes:
        seen_us: when its secret was last taken, to the minute; 0 never.
        expires_us: 0 when it does not expire.
        state: open, disabled or expired.
    """

    name: str
    kind: ActorKind
    tenant: str
    grants: tuple[Grant, ...]
    created_us: int
    seen_us: int
    expires_us: int
    state: Literal["open", "disabled", "expired"]


class Actors:
    """All actors of one installation; an attribute of ``Identity``.

    Args:
        engine: of the metadata database.
        audit: tells each change.
        clock: for expiry.
    """

    def __init__(self, engine: Engine, audit: AuditChain, clock: Clock) -> None:
        self._engine = engine
        self._audit = audit
        self._clock = clock

    def add(
        self,
        kind: MachineKind,
        name: str,
        grants: Sequence[Grant] = (),
        *,
        days: int = 365,
        tenant: str = "",
        by: str = "system",
    ) -> str:
        """Add an actor; gives its secret, which is shown only now.

        Args:
            days: valid so long; 0 for as long as nobody disables it.
            tenant: whose it is; "" for this installation's own.
            by: who asked for it.

        Raises:
            Misconfigured: SEC-1020 no such kind, SEC-1021 the name is taken, SEC-1022 a grant or
                the number of days cannot be, SEC-1008 no such role, MODEL-1002 not a name.
        """
        check_name(name, "actor")
        if kind not in MACHINES:
            raise Misconfigured(
                "SEC-1020", f"there is no kind of actor {kind!r}", f"Use: {', '.join(MACHINES)}."
            )
        if not 0 <= days <= DAYS_MAX:
            raise Misconfigured(
                "SEC-1022",
                f"{days} days are asked for {name}",
                f"Use 1 to {DAYS_MAX}, or 0 for no end.",
            )
        secret = new_token(ACTOR_PREFIX)
        now_us = self._clock.now_us()
        row = {
            "name": name,
            "kind": kind,
            "tenant": tenant,
            "grants": grants_text(grants),
            "secret_hash": token_hash(secret),
            "disabled": False,
            "created_us": now_us,
            "expires_us": now_us + days * 86_400 * US_PER_S if days else 0,
            "seen_us": 0,
        }
        told = {"kind": kind, "days": days, "grants": row["grants"], "tenant": tenant}
        try:
            with self._audit.writing() as connection:
                self._check_free(connection, name)
                connection.execute(insert(ACTOR).values(row))
                self._tell(connection, by, "actor.add", name, **told)
        except IntegrityError as error:
            raise _taken(name) from error
        return secret

    def renew(self, name: str, *, days: int = 365, by: str = "system") -> str:
        """A new secret and a new expiry; the old secret is worthless at once.

        Raises:
            Misconfigured: SEC-1023 no such actor.
        """
        secret = new_token(ACTOR_PREFIX)
        until_us = self._clock.now_us() + days * 86_400 * US_PER_S if days else 0
        values = {"secret_hash": token_hash(secret), "expires_us": until_us}
        self._change(name, values, by, "actor.renew", days=days)
        return secret

    def disable(self, name: str, disabled: bool = True, *, by: str = "system") -> None:
        """Let an actor's secret count no more, at once; ``False`` lets it count again.

        A person is closed with all sessions by ``Identity.set_disabled``.

        Raises:
            Misconfigured: SEC-1023 no such actor.
        """
        action = "actor.disable" if disabled else "actor.enable"
        self._change(name, {"disabled": disabled}, by, action)

    def of_credentials(self, name: str, secret: str) -> Actor | None:
        """Who that is; None when name or secret is wrong, the actor disabled or its time over."""
        found = self._of_secret(secret)
        if found is None or not hmac.compare_digest(found.name.encode(), name.encode()):
            return None
        return found

    def of_secret(self, secret: str) -> Actor | None:
        """The same where only the secret is given, as a bearer token is."""
        return self._of_secret(secret)

    def is_known(self, name: str) -> bool:
        """Whether the name is taken by an actor that is no person."""
        with self._engine.connect() as connection:
            found = connection.execute(select(ACTOR.c.id).where(ACTOR.c.name == name)).first()
        return found is not None

    def is_open(self, name: str) -> bool:
        """Whether an actor that connected earlier may go on: known, not disabled, not expired."""
        with self._engine.connect() as connection:
            row = connection.execute(select(ACTOR).where(ACTOR.c.name == name)).first()
        return row is not None and self._state(row) == "open"

    def list(self, kind: ActorKind | None = None) -> list[ActorEntry]:
        """All actors, persons too, by kind and name."""
        seen = (
            select(USER, func.coalesce(func.max(SESSION.c.seen_us), 0).label("seen_us"))
            .outerjoin(SESSION, SESSION.c.user_id == USER.c.id)
            .group_by(USER.c.id)
        )
        with self._engine.connect() as connection:
            persons = [_person(row) for row in connection.execute(seen)]
            machines = [self._entry(row) for row in connection.execute(select(ACTOR))]
        found = [e for e in [*persons, *machines] if kind is None or e.kind == kind]
        return sorted(found, key=lambda entry: (entry.kind != "person", entry.kind, entry.name))

    def _of_secret(self, secret: str) -> Actor | None:
        with self._engine.connect() as connection:
            query = select(ACTOR).where(ACTOR.c.secret_hash == token_hash(secret))
            row = connection.execute(query).first()
        if row is None or self._state(row) != "open":
            return None
        self._seen(row)
        grants = grants_of(row.grants)
        return Actor(
            row.name,
            _site_role(grants),
            kind=cast(ActorKind, row.kind),
            grants=grants,
            tenant=row.tenant,
            factors=frozenset({"token"}),
        )

    def _seen(self, row: Row[Any]) -> None:
        now_us = self._clock.now_us()
        if now_us - row.seen_us < SEEN_S * US_PER_S:
            return
        with writing(self._engine) as connection:
            connection.execute(update(ACTOR).where(ACTOR.c.id == row.id).values(seen_us=now_us))

    def _state(self, row: Row[Any]) -> Literal["open", "disabled", "expired"]:
        if row.disabled:
            return "disabled"
        is_over = row.expires_us and row.expires_us <= self._clock.now_us()
        return "expired" if is_over else "open"

    def _entry(self, row: Row[Any]) -> ActorEntry:
        return ActorEntry(
            name=row.name,
            kind=cast(ActorKind, row.kind),
            tenant=row.tenant,
            grants=grants_of(row.grants),
            created_us=row.created_us,
            seen_us=row.seen_us,
            expires_us=row.expires_us,
            state=self._state(row),
        )

    def _check_free(self, connection: Connection, name: str) -> None:
        if connection.execute(select(USER.c.id).where(USER.c.name == name)).first():
            raise _taken(name)

    def _change(self, name: str, values: dict[str, Any], by: str, action: str, **told: Any) -> None:
        with self._audit.writing() as connection:
            changed = connection.execute(update(ACTOR).where(ACTOR.c.name == name).values(**values))
            if not changed.rowcount:
                raise Misconfigured(
                    "SEC-1023", f"there is no actor {name!r}", "List them with: headrace actor list"
                )
            self._tell(connection, by, action, name, **told)

    def _tell(self, connection: Connection, by: str, action: str, name: str, **told: Any) -> None:
        self._audit.append(connection, by, action, f"actor/{name}", "done", **told)


def grants_text(grants: Sequence[Grant]) -> str:
    """Grants as they are kept: JSON of [role, scope] pairs.

    Raises:
        Misconfigured: SEC-1008 no such role, SEC-1022 a scope is no equipment path.

    Example:
        >>> grants_text([Grant("operator", "utilities/pumping")])
        '[["operator","utilities/pumping"]]'
    """
    if len(grants) > GRANTS_MAX:
        raise Misconfigured(
            "SEC-1022", f"{len(grants)} grants are asked for", f"Give at most {GRANTS_MAX}."
        )
    for grant in grants:
        if grant.role not in ROLES:
            known = ", ".join(ROLES)
            raise Misconfigured("SEC-1008", f"there is no role {grant.role!r}", f"Use: {known}.")
        tokens = grant.scope.split("/") if grant.scope else []
        if len(tokens) > PATH_DEPTH_MAX:
            raise Misconfigured("SEC-1022", f"the scope {grant.scope!r} is too deep", "Shorten it.")
        for token in tokens:
            check_name(token, "scope")
    return msgspec.json.encode([[grant.role, grant.scope] for grant in grants]).decode()


def grants_of(text: str) -> tuple[Grant, ...]:
    """What :func:`grants_text` kept."""
    pairs = msgspec.json.decode(text, type=list[tuple[str, str]])
    return tuple(Grant(cast(Role, role), scope) for role, scope in pairs)


def _site_role(grants: Sequence[Grant]) -> Role:
    """The strongest role for the whole site; a machine without one may at most look."""
    whole = [grant.role for grant in grants if not grant.scope]
    return max(whole, key=ROLES.index, default="viewer")


def _person(row: Row[Any]) -> ActorEntry:
    return ActorEntry(
        name=row.name,
        kind="person",
        tenant="",
        grants=(Grant(row.role),),
        created_us=row.created_us,
        seen_us=row.seen_us,
        expires_us=0,
        state="disabled" if row.disabled else "open",
    )


def _taken(name: str) -> Misconfigured:
    return Misconfigured(
        "SEC-1021", f"there is an actor {name!r} already", "Choose another name, or renew it."
    )
