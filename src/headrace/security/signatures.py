"""What a dangerous action needs before it is done: an electronic signature, or a second person.

A signature is made at once and used once: who (with the password again), what it means, and why; it counts for
one action on one resource with the very same facts, for :data:`SIGNED_S`. A request of approval waits at most
:data:`ASKED_S` for another person with the right to approve; then whoever asked has :data:`SIGNED_S` to do it.

Sources: 21 CFR 11.50 (name, time and meaning of a signing), 11.70 (a signature stays with its record: each
stands in the audit chain, with the digest of what was signed), 11.200 (password at each signing).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any, Final, Literal, cast

import msgspec
from sqlalchemy import BigInteger, Column, Table, Text, delete, func, insert, select, update
from sqlalchemy.engine import Connection, Engine, Row

from headrace.model.errors import Misconfigured, Refused
from headrace.model.time import US_PER_S, Clock
from headrace.security.audit import AuditChain, Outcome
from headrace.security.database import TABLES, words

SIGNED_S: Final = 300
ASKED_S: Final = 3_600
KEPT_S: Final = 30 * 86_400
OPEN_MAX: Final = 50
REASON_MAX: Final = 500
Meaning = Literal["authorship", "review", "approval", "responsibility"]
MEANINGS: Final[tuple[Meaning, ...]] = ("authorship", "review", "approval", "responsibility")
"""What a signature says (21 CFR 11.50 (a)(3))."""
State = Literal["waiting", "approved", "rejected", "signed", "used"]

_RELEASE = Table(
    "release",
    TABLES,
    Column("id", words(32), primary_key=True),
    Column("actor", words(200), nullable=False, index=True),
    Column("action", words(64), nullable=False),
    Column("resource", words(200), nullable=False),
    Column("equipment", words(200), nullable=False),
    Column("binding", words(64), nullable=False),
    Column("facts", Text, nullable=False),
    Column("meaning", words(32), nullable=False),
    Column("reason", Text, nullable=False),
    Column("state", words(16), nullable=False, index=True),
    Column("decided_by", words(200), nullable=False),
    Column("note", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
)


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A signature, or a request of approval, as lists show it. Times are UTC microseconds."""

    id: str
    actor: str
    action: str
    resource: str
    equipment: str
    facts: str
    meaning: str
    reason: str
    state: State
    decided_by: str
    note: str
    created_us: int
    expires_us: int


class Releases:
    """Signatures and approvals of one installation.

    Args:
        engine: of the metadata database. audit: where each is told. clock: for its times.
    """

    def __init__(self, engine: Engine, audit: AuditChain, clock: Clock) -> None:
        self._engine = engine
        self._audit = audit
        self._clock = clock

    def sign(
        self, actor: str, action: str, resource: str, facts: Mapping[str, Any], meaning: str, reason: str
    ) -> str:  # fmt: skip
        """Keep a signature whose password was just verified; gives its id, to be used once.

        Args:
            facts: what is done, as the door names it: equipment, value, ...

        Raises:
            Misconfigured: SEC-1415 for no meaning or no reason.
        """
        if meaning not in MEANINGS:
            raise Misconfigured(
                "SEC-1415", f"{meaning!r} is no meaning of a signature", f"One of {MEANINGS}."
            )
        return self._open(actor, action, resource, facts, meaning, reason, "signed", SIGNED_S)

    def ask(
        self, actor: str, action: str, resource: str, facts: Mapping[str, Any], reason: str
    ) -> str:
        """Ask for another person's approval; gives the request's id.

        Raises:
            Misconfigured: SEC-1415 for no reason.
            Refused: SEC-1416 when this actor already waits for too many.
        """
        return self._open(actor, action, resource, facts, "", reason, "waiting", ASKED_S)

    def answer(self, release: str, by: str, approved: bool, note: str = "") -> Release:
        """Approve or reject what waits; the door has asked the policy whether ``by`` may.

        Raises:
            Refused: SEC-1413 when it does not wait any more, SEC-1414 when it is one's own request.
        """
        now_us = self._clock.now_us()
        state: State = "approved" if approved else "rejected"
        with self._audit.writing() as connection:
            row = self._waiting(connection, release, now_us)
            if row.actor == by:
                raise Refused(
                    "SEC-1414", f"{by} asked for this", "Another person approves or rejects it."
                )
            values: dict[str, Any] = {"state": state, "decided_by": by, "note": note[:REASON_MAX]}
            values["expires_us"] = now_us + SIGNED_S * US_PER_S
            connection.execute(update(_RELEASE).where(_RELEASE.c.id == release).values(values))
            told = {"release": release, "asked_by": row.actor, "what": row.action, "note": note}
            outcome: Outcome = "allowed" if approved else "denied"
            self._audit.append(connection, by, "approve", row.resource, outcome, **told)
        return self.find(release)

    def use(
        self, release: str, actor: str, action: str, resource: str, facts: Mapping[str, Any]
    ) -> State:
        """Use a signature or an approval for exactly what it was given; gives which it is.

        Raises:
            Refused: SEC-1413 when there is none, it is over, used, or was given for something else.
        """
        now_us = self._clock.now_us()
        with self._audit.writing() as connection:
            row = connection.execute(
                select(_RELEASE)
                .where(_RELEASE.c.id == release, _RELEASE.c.actor == actor)
                .where(_RELEASE.c.state.in_(("signed", "approved")))
                .where(_RELEASE.c.expires_us > now_us)
            ).first()
            if row is None or row.binding != binding(actor, action, resource, facts):
                raise _over(release)
            connection.execute(
                update(_RELEASE).where(_RELEASE.c.id == release).values(state="used")
            )
            told = {"release": release, "meaning": row.meaning, "reason": row.reason}
            told |= {"approved_by": row.decided_by} if row.decided_by else {}
            self._audit.append(connection, actor, f"{row.state}.{action}", resource, "done", **told)
        return cast(State, row.state)

    def waiting(self) -> list[Release]:
        """What waits for approval now, oldest first."""
        query = (
            select(_RELEASE)
            .where(_RELEASE.c.state == "waiting", _RELEASE.c.expires_us > self._clock.now_us())
            .order_by(_RELEASE.c.created_us)
            .limit(1_000)
        )
        with self._engine.connect() as connection:
            return [_release(row) for row in connection.execute(query)]

    def find(self, release: str) -> Release:
        """One by its id.

        Raises:
            Refused: SEC-1413 when there is none.
        """
        with self._engine.connect() as connection:
            row = connection.execute(select(_RELEASE).where(_RELEASE.c.id == release)).first()
        if row is None:
            raise _over(release)
        return _release(row)

    def _open(
        self,
        actor: str,
        action: str,
        resource: str,
        facts: Mapping[str, Any],
        meaning: str,
        reason: str,
        state: State,
        for_s: int,
    ) -> str:
        reason = reason.strip()
        if not 0 < len(reason) <= REASON_MAX:
            raise Misconfigured(
                "SEC-1415",
                f"the reason has {len(reason)} characters",
                f"Say why, in at most {REASON_MAX} characters.",
            )
        now_us, release = self._clock.now_us(), secrets.token_hex(16)
        values = {
            "id": release,
            "actor": actor,
            "action": action,
            "resource": resource,
            "equipment": str(facts.get("equipment", "")),
            "binding": binding(actor, action, resource, facts),
            "facts": _text(facts),
            "meaning": meaning,
            "reason": reason,
            "state": state,
            "decided_by": "",
            "note": "",
            "created_us": now_us,
            "expires_us": now_us + for_s * US_PER_S,
        }
        with self._audit.writing() as connection:
            self._make_room(connection, actor, now_us)
            connection.execute(insert(_RELEASE).values(values))
            told = {"release": release, "reason": reason, "binding": values["binding"]}
            told |= {"meaning": meaning} if meaning else {}
            verb = "sign" if state == "signed" else "ask_approval"
            self._audit.append(connection, actor, verb, resource, "done", what=action, **told)
        return release

    def _make_room(self, connection: Connection, actor: str, now_us: int) -> None:
        old = _RELEASE.c.created_us < now_us - KEPT_S * US_PER_S
        connection.execute(delete(_RELEASE).where(old))
        is_open = _RELEASE.c.state.in_(("waiting", "signed", "approved"))
        mine = is_open & (_RELEASE.c.actor == actor) & (_RELEASE.c.expires_us > now_us)
        if connection.execute(select(func.count()).where(mine)).scalar_one() >= OPEN_MAX:
            raise Refused(
                "SEC-1416",
                f"{actor} has {OPEN_MAX} signatures and requests open",
                "Use them, or wait until they are over.",
            )

    def _waiting(self, connection: Connection, release: str, now_us: int) -> Row[Any]:
        row = connection.execute(
            select(_RELEASE)
            .where(_RELEASE.c.id == release, _RELEASE.c.state == "waiting")
            .where(_RELEASE.c.expires_us > now_us)
        ).first()
        if row is None:
            raise _over(release)
        return row


def binding(actor: str, action: str, resource: str, facts: Mapping[str, Any]) -> str:
    """SHA-256 of what is signed: who, what, on what, with which facts; in hex.

    Example:
        >>> binding("leo", "write", "tag/1", {"value": "3"}) == binding("leo", "write", "tag/1", {"value": "4"})
        False
    """
    signed = [actor, action, resource, _text(facts)]
    return hashlib.sha256(msgspec.json.encode(signed)).hexdigest()


def _text(facts: Mapping[str, Any]) -> str:
    return msgspec.json.encode(dict(facts), order="sorted").decode()


def _release(row: Row[Any]) -> Release:
    return Release(**{name: getattr(row, name) for name in Release.__struct_fields__})


def _over(release: str) -> Refused:
    return Refused(
        "SEC-1413",
        f"the signature or approval {release[:40]!r} does not count for this, or is over",
        "Sign or ask again; each counts once, for exactly what was signed.",
    )
