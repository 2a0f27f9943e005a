"""The way in for people: password, second factor or single sign-on, then a session.

::

    password ─► right? ─► has a second factor ─► stage code ──► session
        │           └───► must have one ───────► stage enrol ─► session
        │           └───► neither ────────────────────────────► session
    single sign-on ───────────────────────────────────────────► session

Failures brake a pair (name, place), and a place over all names. A place is an address, or a browser in which
this user signed in before: it carries a device secret, and whoever fails from elsewhere, even from the
same address, does not slow it down. No account is ever closed by failures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import delete, func, insert, select
from sqlalchemy.engine import Connection, Engine, Row

from headrace.model.errors import Refused
from headrace.model.time import US_PER_S, Clock
from headrace.security.audit import AuditChain
from headrace.security.brake import SignInBrake
from headrace.security.database import writing
from headrace.security.factors import Enrolment, Factors
from headrace.security.failures import StoredFailures
from headrace.security.lanes import network_of
from headrace.security.passwords import Passwords
from headrace.security.sessions import ID_LENGTH, Sessions, Stage
from headrace.security.tables import DEVICE, USER
from headrace.security.tokens import new_token, token_hash

ALL_NAMES: Final = "*"
FREE_TRIES_OF_PLACE: Final = 20
DEVICE_S: Final = 180 * 86_400
DEVICES_MAX: Final = 20


@dataclass(frozen=True)
class Origin:
    """Where a sign-in comes from: address, the browser's name for itself, and its device secret."""

    address: str
    agent: str = ""
    device: str = ""


class SignIns:
    """All ways in of one installation; part of ``Identity``.

    Args:
        engine: of the metadata database.
        audit: tells each sign-in, and failures without flooding.
        clock: for the brake.
    """

    def __init__(
        self,
        engine: Engine,
        audit: AuditChain,
        clock: Clock,
        passwords: Passwords,
        sessions: Sessions,
        factors: Factors,
    ) -> None:
        self._engine = engine
        self._audit = audit
        self._clock = clock
        self._passwords = passwords
        self._sessions = sessions
        self._factors = factors
        failures = StoredFailures(engine)
        self._brake = SignInBrake(clock, failures)
        self._place_brake = SignInBrake(clock, failures, free_tries=FREE_TRIES_OF_PLACE)

    def by_password(self, name: str, password: str, origin: Origin) -> tuple[str, Stage]:
        """Check name and password; gives the secret of a session and the stage at which it is.

        Raises:
            Transient: SEC-1002 after too many failures.
            Refused: SEC-1001 wrong name or password, or a closed account.
        """
        name = name.strip()[:64]
        row = self.check_password(name, password, origin)
        stage = self._next_stage(row)
        with self._audit.writing() as connection:
            secret = self._sessions.open(
                connection,
                row.id,
                address=origin.address,
                agent=origin.agent,
                factors={"password"},
                stage=stage,
            )
            if not stage:
                self._told(connection, name, secret, origin, "password")
        if not stage:
            self._succeeded(name, origin)
        return secret, stage

    def check_password(self, name: str, password: str, origin: Origin) -> Row[Any]:
        """The user's row when the password is right.

        Raises:
            Transient: SEC-1002 after too many failures.
            Refused: SEC-1001 wrong name or password, or a closed account.
        """
        self._check_brakes(name, origin)
        with self._engine.connect() as connection:
            row = connection.execute(select(USER).where(USER.c.name == name)).first()
        is_right = self._passwords.is_right(row.password_hash if row else None, password)
        if not is_right or row is None or row.disabled:
            self._failed(name, origin, "password")
            raise Refused("SEC-1001", "the name or the password is wrong", "Type both again.")
        return row

    def by_code(self, secret: str, code: str, origin: Origin) -> str:
        """Go on from the stage ``code``; gives the secret of the session, a new one.

        Raises:
            Refused: SEC-1026 the stage is over; SEC-1024 wrong code; SEC-1025 a code used before.
            Transient: SEC-1002 after too many wrong codes.
        """
        row = self._at_stage(secret, "code")
        factor = self.check_code(row, code, origin, secret)
        with self._audit.writing() as connection:
            fresh = self._replace(connection, row, secret, origin, {"password", factor})
        self._succeeded(row.name, origin)
        return fresh

    def check_code(self, row: Row[Any], code: str, origin: Origin, secret: str = "") -> str:
        """Take a user's code; gives ``totp`` or ``recovery``. A failure counts for its stage too.

        Raises:
            Refused: SEC-1024, SEC-1025. Transient: SEC-1002 after too many wrong codes.
        """
        place = self._place(row.name, origin)
        codes = (row.name, place if place.startswith("device:") else "codes")
        self._brake.check(*codes)
        try:
            with self._audit.writing() as connection:
                used = self._factors.check(connection, row.id, code)
                if used == "recovery":
                    left = self._factors.state(row.id).recovery_left - 1
                    about = (row.name, "factor.recovery", f"user/{row.name}")
                    self._audit.append(connection, *about, "done", left=left)
        except Refused:
            self._brake.failed(*codes)
            self._failed(row.name, origin, "code")
            if secret:
                with writing(self._engine) as connection:
                    self._sessions.failed(connection, secret)
            raise
        self._brake.succeeded(*codes)
        return used

    def begin_enrolment(self, secret: str) -> Enrolment:
        """A seed for who is signed in, or at the stage ``enrol``.

        Raises:
            Refused: SEC-1026 for anybody else. Misconfigured: SEC-1028 there is one already.
        """
        row = self._sessions.row(secret) or self._at_stage(secret, "enrol")
        return self._factors.begin_totp(row.id, row.name)

    def confirm_enrolment(self, secret: str, code: str, origin: Origin) -> tuple[str, list[str]]:
        """Let the seed count; gives the session's new secret and the recovery codes.

        All other sessions of the user end.

        Raises:
            Refused: SEC-1024 wrong code; SEC-1026 nobody is signed in.
        """
        row = self._sessions.row(secret) or self._at_stage(secret, "enrol")
        with self._audit.writing() as connection:
            codes = self._factors.confirm_totp(connection, row.id, code)
            about = (row.name, "factor.add", f"user/{row.name}")
            self._audit.append(connection, *about, "done", factor="totp")
            if row.stage:
                factors = {"password", "totp"}
                fresh = self._replace(connection, row, secret, origin, factors)
            else:
                fresh = self._sessions.renew(connection, secret, {*row.factors.split(","), "totp"})
            self._sessions.end(connection, row.name, but=fresh)
        return fresh, codes

    def open(
        self,
        user_id: int,
        name: str,
        origin: Origin,
        factor: str,
        *,
        grants: str = "[]",
        **told: Any,
    ) -> str:
        """A session for who showed who it is at a provider."""
        with self._audit.writing() as connection:
            secret = self._sessions.open(
                connection,
                user_id,
                address=origin.address,
                agent=origin.agent,
                factors={factor},
                grants=grants,
            )
            self._told(connection, name, secret, origin, factor, **told)
        return secret

    # devices

    def remember_device(self, name: str) -> str:
        """A secret for a browser in which this user signed in; gives it a lane and a brake of its own."""
        secret = new_token()
        with writing(self._engine) as connection:
            user_id = connection.execute(select(USER.c.id).where(USER.c.name == name)).scalar_one()
            newest = (
                select(DEVICE.c.token_hash)
                .where(DEVICE.c.user_id == user_id)
                .order_by(DEVICE.c.created_us.desc())
                .limit(DEVICES_MAX - 1)
            )
            mine = DEVICE.c.user_id == user_id
            connection.execute(delete(DEVICE).where(mine, DEVICE.c.token_hash.not_in(newest)))
            values = {"token_hash": token_hash(secret), "user_id": user_id}
            now_us = self._clock.now_us()
            connection.execute(insert(DEVICE).values(values | {"created_us": now_us}))
        return secret

    def is_known(self, name: str, device: str) -> bool:
        """Whether this user signed in with this device secret's browser in the last half year."""
        if not device:
            return False
        query = (
            select(func.count())
            .select_from(DEVICE)
            .join(USER, USER.c.id == DEVICE.c.user_id)
            .where(USER.c.name == name.strip()[:64], DEVICE.c.token_hash == token_hash(device))
            .where(DEVICE.c.created_us > self._clock.now_us() - DEVICE_S * US_PER_S)
        )
        with self._engine.connect() as connection:
            return connection.execute(query).scalar_one() > 0

    # private

    def _next_stage(self, row: Row[Any]) -> Stage:
        if self._factors.state(row.id).has_second:
            return "code"
        must = self._sessions.needs_second(row.role) and not row.must_change
        return "enrol" if must else ""

    def _at_stage(self, secret: str, stage: Stage) -> Row[Any]:
        row = self._sessions.row(secret, stage)
        if row is None:
            raise Refused("SEC-1026", "the sign-in took too long or was ended", "Sign in again.")
        return row

    def _replace(
        self,
        connection: Connection,
        row: Row[Any],
        secret: str,
        origin: Origin,
        factors: set[str],
    ) -> str:
        """End a stage and open the session it was for."""
        self._sessions.end(connection, row.name, id=token_hash(secret))
        fresh = self._sessions.open(
            connection, row.id, address=origin.address, agent=origin.agent, factors=factors
        )
        self._told(connection, row.name, fresh, origin, ",".join(sorted(factors)))
        return fresh

    def _told(
        self,
        connection: Connection,
        name: str,
        secret: str,
        origin: Origin,
        factors: str,
        **more: Any,
    ) -> None:
        told: dict[str, Any] = {
            "address": origin.address,
            "session": token_hash(secret)[:ID_LENGTH],
        }
        told |= {"factors": factors} | more
        self._audit.append(connection, name, "sign_in", f"user/{name}", "done", **told)

    def _place(self, name: str, origin: Origin) -> str:
        if self.is_known(name, origin.device):
            return f"device:{token_hash(origin.device)[:32]}"
        return network_of(origin.address)

    def _check_brakes(self, name: str, origin: Origin) -> None:
        place = self._place(name, origin)
        self._brake.check(name, place)
        if not place.startswith("device:"):
            self._place_brake.check(ALL_NAMES, place)

    def _failed(self, name: str, origin: Origin, what: str) -> None:
        place = self._place(name, origin)
        count = self._brake.failed(name, place)
        if not place.startswith("device:"):
            self._place_brake.failed(ALL_NAMES, place)
        if count.bit_count() == 1:  # the 1st, 2nd, 4th...: guessing does not flood the chain
            told: dict[str, Any] = {"address": origin.address, "tries": count, "factor": what}
            self._audit.record(name, "sign_in", f"user/{name}", "denied", **told)

    def _succeeded(self, name: str, origin: Origin) -> None:
        self._brake.succeeded(name, self._place(name, origin))
