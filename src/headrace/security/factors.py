"""Second factors of people: one-time codes by time (TOTP), and recovery codes.

The seed of a TOTP must be readable, so it is kept encrypted: AES-256-GCM under a key that lies in a file
beside the database (mode 600), bound to the user. Who takes the database alone has no seeds. Consoles on
several machines that share a database need the same file.

Sources: RFC 6238 (TOTP: SHA-1, 6 digits, 30 s; 5.2: a code counts once), RFC 4226; NIST SP 800-63B-4,
3.1.4 and 4.2.2.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.engine import Connection, Engine

from headrace.model.errors import Corrupt, Misconfigured, Refused
from headrace.model.time import US_PER_S, Clock
from headrace.security.database import writing
from headrace.security.files import make_folder, write_whole
from headrace.security.tables import RECOVERY, TOTP
from headrace.security.tokens import one_time_password, token_hash

STEP_S: Final = 30
STEPS_AROUND: Final = 1
"""Codes of the step before and after count too: clocks of phones differ."""
RECOVERY_COUNT: Final = 10
ISSUER: Final = "Headrace"


@dataclass(frozen=True)
class Enrolment:
    """What a person's app needs: the seed as text, as ``otpauth://`` URI, and as a QR picture (SVG)."""

    seed: str
    uri: str
    svg: str


@dataclass(frozen=True)
class FactorState:
    """What a person has: codes by an app, and how many recovery codes are left."""

    totp: bool
    recovery_left: int

    @property
    def has_second(self) -> bool:
        """Whether a sign-in by password goes on to a second factor."""
        return self.totp


class Factors:
    """The second factors of one installation; part of ``Identity``, which tells the audit chain.

    Args:
        engine: of the metadata database.
        clock: its wall clock tells the time step.
        folder: the data folder's ``identity``, where the key of the seeds lies.
    """

    def __init__(self, engine: Engine, clock: Clock, folder: Path) -> None:
        self._engine = engine
        self._clock = clock
        self._folder = folder

    def state(self, user_id: int) -> FactorState:
        """What this user has."""
        with self._engine.connect() as connection:
            totp = connection.execute(
                select(TOTP.c.user_id).where(TOTP.c.user_id == user_id, TOTP.c.confirmed)
            ).first()
            left = connection.execute(
                select(func.count()).select_from(RECOVERY).where(RECOVERY.c.user_id == user_id)
            ).scalar_one()
        return FactorState(totp is not None, left)

    def begin_totp(self, user_id: int, name: str) -> Enrolment:
        """A seed to scan; it counts once :meth:`confirm_totp` saw a code of it. A second call gives
        the same one, so that a page that is loaded again shows what was scanned.

        Raises:
            Misconfigured: SEC-1028 when there is one already.
        """
        import pyotp
        import segno

        with writing(self._engine) as connection:
            row = connection.execute(select(TOTP).where(TOTP.c.user_id == user_id)).first()
            if row is not None and row.confirmed:
                raise Misconfigured(
                    "SEC-1028", f"{name} has a second factor already", "Remove it first."
                )
            if row is None:
                seed = pyotp.random_base32()
                values = {
                    "user_id": user_id,
                    "sealed": self._seal(user_id, seed),
                    "confirmed": False,
                    "last_step": 0,
                    "created_us": self._clock.now_us(),
                }
                connection.execute(insert(TOTP).values(values))
            else:
                seed = self._unseal(user_id, row.sealed)
        uri = pyotp.TOTP(seed).provisioning_uri(name=name, issuer_name=ISSUER)
        svg = segno.make(uri, error="m").svg_inline(scale=5, border=4, light="#fff", dark="#000")
        return Enrolment(seed, uri, svg)

    def confirm_totp(self, connection: Connection, user_id: int, code: str) -> list[str]:
        """Let the seed count from now on; gives the recovery codes, which are shown only now.

        Raises:
            Refused: SEC-1024 when the code is not of this seed.
        """
        row = connection.execute(
            select(TOTP).where(TOTP.c.user_id == user_id, TOTP.c.confirmed.is_(False))
        ).first()
        step = None if row is None else self._step(self._unseal(user_id, row.sealed), code)
        if step is None:
            raise _wrong()
        confirmed = update(TOTP).where(TOTP.c.user_id == user_id)
        connection.execute(confirmed.values(confirmed=True, last_step=step))
        return self.new_recovery_codes(connection, user_id)

    def new_recovery_codes(self, connection: Connection, user_id: int) -> list[str]:
        """Ten codes that count once each; those from before are worthless."""
        codes = [one_time_password() for _ in range(RECOVERY_COUNT)]
        connection.execute(delete(RECOVERY).where(RECOVERY.c.user_id == user_id))
        rows = [{"code_hash": token_hash(_plain(c)), "user_id": user_id} for c in codes]
        connection.execute(insert(RECOVERY), rows)
        return codes

    def check(self, connection: Connection, user_id: int, code: str) -> str:
        """Take a code of the app, or a recovery code; gives which: ``totp`` or ``recovery``.

        Two sign-ins at once with one code: the database lets one through.

        Raises:
            Refused: SEC-1024 wrong, SEC-1025 this code, or a later one, was used already.
        """
        plain = _plain(code)
        if not plain.isdigit():
            used = delete(RECOVERY).where(
                RECOVERY.c.user_id == user_id, RECOVERY.c.code_hash == token_hash(plain)
            )
            if connection.execute(used).rowcount:
                return "recovery"
            raise _wrong()
        row = connection.execute(
            select(TOTP).where(TOTP.c.user_id == user_id, TOTP.c.confirmed)
        ).first()
        step = None if row is None else self._step(self._unseal(user_id, row.sealed), plain)
        if step is None:
            raise _wrong()
        newer = update(TOTP).where(TOTP.c.user_id == user_id, TOTP.c.last_step < step)
        if not connection.execute(newer.values(last_step=step)).rowcount:
            raise Refused(
                "SEC-1025", "this code was used already", "Wait for the next one, at most 30 s."
            )
        return "totp"

    def remove(self, connection: Connection, user_id: int) -> None:
        """Forget seed and recovery codes of a user."""
        for table in (TOTP, RECOVERY):
            connection.execute(delete(table).where(table.c.user_id == user_id))

    # private

    def _step(self, seed: str, code: str) -> int | None:
        """The time step that a code is of, when that is about now."""
        import pyotp

        totp = pyotp.TOTP(seed)
        now = self._clock.now_us() // US_PER_S // STEP_S
        found = None
        for step in range(now - STEPS_AROUND, now + STEPS_AROUND + 1):
            if secrets.compare_digest(totp.at(step * STEP_S).encode(), _plain(code).encode()):
                found = step
        return found

    def _seal(self, user_id: int, seed: str) -> str:
        nonce = secrets.token_bytes(12)
        sealed = AESGCM(self._key()).encrypt(nonce, seed.encode(), _bound_to(user_id))
        return base64.b64encode(nonce + sealed).decode()

    def _unseal(self, user_id: int, text: str) -> str:
        raw = base64.b64decode(text)
        try:
            return AESGCM(self._key()).decrypt(raw[:12], raw[12:], _bound_to(user_id)).decode()
        except InvalidTag as error:
            raise Corrupt(
                "SEC-1030",
                "a second factor's seed does not open with this machine's key",
                f"Copy {self._folder / 'factors.key'} from the console that made it, or reset the "
                "user's second factor.",
            ) from error

    def _key(self) -> bytes:
        path = self._folder / "factors.key"
        if not path.exists():
            make_folder(self._folder, 0o700)
            write_whole(path, AESGCM.generate_key(256), mode=0o600)
        return path.read_bytes()


def _bound_to(user_id: int) -> bytes:
    return f"totp/{user_id}".encode()


def _plain(code: str) -> str:
    return "".join(code.split()).replace("-", "").lower()[:64]


def _wrong() -> Refused:
    return Refused("SEC-1024", "the code is wrong", "Type the code that your app shows now.")
