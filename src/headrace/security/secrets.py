"""The vault: device passwords, tokens and other secrets of an installation, encrypted at rest.

::

    master key ──wraps──► data key ──encrypts──► each secret     (AES-256-GCM, each with its own nonce)
    file, environment, keyring     metadata database             metadata database

Settings name a secret as ``secret:NAME``. A secret is bound to its name and to its data key, so a row that
was moved or changed does not open. Rotation makes a new master key and a new data key and writes all secrets
anew, in one transaction; a crash leaves the vault under the old key or the new one, and both are there until
it is known which. What belongs to the machine itself (``run/broker.json``, certificates' keys) is not in
here: a program that starts alone needs a first secret in clear, in a file that only its user reads;
docs/protection.md says which.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, Table, select
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

from headrace.model.errors import Corrupt, Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import Clock, SystemClock
from headrace.security.database import metadata_url, open_engine, words
from headrace.security.master_key import KeySource, MasterKey
from headrace.security.redaction import REDACTOR

PREFIX: Final = "secret:"
SECRET_BYTES_MAX: Final = 8_192
SECRETS_MAX: Final = 10_000
PATIENCE_S: Final = 5.0
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12

TABLES: Final = MetaData()
_KEYS: Final = Table(
    "vault_key",
    TABLES,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("master", words(16), nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("made_us", BigInteger, nullable=False),
)
_SECRETS: Final = Table(
    "secret",
    TABLES,
    Column("name", words(160), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("key", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
)
_NAME: Final = re.compile(r"[A-Za-z0-9_.\-]{1,160}")


class SecretEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a secret: its name, and when it was last set, UTC microseconds."""

    name: str
    changed_us: int


def reference(setting: object) -> str | None:
    """The name of the secret that a setting refers to; None when it refers to none.

    Example:
        >>> reference("secret:plc_1_password"), reference("plain")
        ('plc_1_password', None)
    """
    if isinstance(setting, str) and setting.startswith(PREFIX):
        return setting.removeprefix(PREFIX)
    return None


def check_secret_name(name: str) -> str:
    """The name when it can be one.

    Raises:
        Misconfigured: SEC-1510 otherwise.
    """
    if not _NAME.fullmatch(name):
        raise Misconfigured(
            "SEC-1510", f"{name!r} is no name of a secret", "Use 1 to 160 of A-Z a-z 0-9 _ . and -."
        )
    return name


class Vault:
    """The vault of one installation; open it where secrets are needed, and close it.

    Args:
        folder: the data folder.
        clock: when secrets were set.

    Raises:
        Misconfigured: SEC-1201, SEC-1203 when settings are wrong.
        Transient: SEC-1507 when the database does not answer.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as root, Vault(DataFolder(Path(root))) as vault:
        ...     vault.set("plc_1_password", "tulip-7731")
        ...     vault.get("plc_1_password")
        'tulip-7731'
    """

    def __init__(self, folder: DataFolder, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._source = KeySource(folder)
        folder.root.mkdir(parents=True, exist_ok=True)
        try:
            self._engine: Engine = open_engine(metadata_url(folder), TABLES, PATIENCE_S)
        except OperationalError as error:
            raise _no_answer() from error

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    @property
    def key_place(self) -> str:
        """Where the master key is, for people."""
        return self._source.place

    def names(self) -> list[SecretEntry]:
        """What is in the vault, by name; needs no key."""
        query = select(_SECRETS.c.name, _SECRETS.c.changed_us).order_by(_SECRETS.c.name)
        with self._begin() as connection:
            rows = connection.execute(query).all()
        return [SecretEntry(name=row.name, changed_us=row.changed_us) for row in rows]

    def get(self, name: str) -> str:
        """A secret.

        Raises:
            Misconfigured: SEC-1511 when there is none of this name.
            Refused: SEC-1503 when the master key is lost or another one.
            Corrupt: SEC-1508 when it was tampered with.
        """
        return self.get_all((name,))[name]

    def get_all(self, names: tuple[str, ...]) -> dict[str, str]:
        """Several secrets by name; raises as :meth:`get` does, for the first that fails."""
        if not names:
            return {}
        with self._begin() as connection:
            rows = {
                row.name: row
                for row in connection.execute(select(_SECRETS).where(_SECRETS.c.name.in_(names)))
            }
            for name in names:
                if name not in rows:
                    raise Misconfigured(
                        "SEC-1511",
                        f"the vault has no secret {name!r}",
                        f"Set it: headrace secret set {name}",
                    )
            number, data = self._data_key(connection, make=False)
        found = {}
        for name in names:
            row = rows[name]
            if row.key != number:
                raise _tampered(name)
            found[name] = _opened(data, name, bytes(row.sealed)).decode()
            REDACTOR.know(found[name])
        return found

    def set(self, name: str, secret: str) -> None:
        """Put a secret in, in place of the one of this name.

        Raises:
            Misconfigured: SEC-1510 for a bad name, SEC-1512 for an empty or too long secret.
            Refused: SEC-1503 when the master key is lost or another one.
        """
        self.set_all({name: secret})

    def set_all(self, secrets: Mapping[str, str]) -> None:
        """Put several in: all of them, or none; raises as :meth:`set` does."""
        for name, secret in secrets.items():
            check_secret_name(name)
            if not 0 < len(secret.encode()) <= SECRET_BYTES_MAX:
                raise Misconfigured(
                    "SEC-1512",
                    f"the secret {name} is empty or longer than {SECRET_BYTES_MAX} bytes",
                    "Give it on standard input.",
                )
        with self._begin(write=True) as connection:
            number, data = self._data_key(connection, make=True)
            for name, secret in secrets.items():
                connection.execute(_SECRETS.delete().where(_SECRETS.c.name == name))
                connection.execute(
                    _SECRETS.insert().values(
                        name=name,
                        sealed=_sealed(data, name, secret.encode()),
                        key=number,
                        changed_us=self._clock.now_us(),
                    )
                )
                REDACTOR.know(secret)
            count = len(connection.execute(select(_SECRETS.c.name)).all())
            if count > SECRETS_MAX:
                raise Refused("SEC-1513", f"the vault holds {SECRETS_MAX} secrets", "Remove some.")

    def remove(self, name: str) -> None:
        """Take a secret out.

        Raises:
            Misconfigured: SEC-1511 when there is none of this name.
        """
        with self._begin(write=True) as connection:
            if not connection.execute(_SECRETS.delete().where(_SECRETS.c.name == name)).rowcount:
                raise Misconfigured(
                    "SEC-1511", f"the vault has no secret {name!r}", "headrace secret list"
                )

    def rotate(self) -> int:
        """A new master key and a new data key; all secrets are written anew. Gives how many.

        Raises:
            Refused: SEC-1503 when the present key is not the vault's.
            Misconfigured: SEC-1506 when the next key must be given and is not.
            Corrupt: SEC-1508 when a secret does not open; then nothing is changed.
        """
        with self._begin(write=True) as connection:
            number, data = self._data_key(connection, make=True)
            following = self._source.prepare_next()
            rows = connection.execute(select(_SECRETS)).all()
            fresh = os.urandom(KEY_BYTES)
            for row in rows:
                if row.key != number:
                    raise _tampered(row.name)
                secret = _opened(data, row.name, bytes(row.sealed))
                connection.execute(
                    _SECRETS.update()
                    .where(_SECRETS.c.name == row.name)
                    .values(sealed=_sealed(fresh, row.name, secret), key=number + 1)
                )
            connection.execute(_KEYS.delete())
            self._keep_key(connection, number + 1, fresh, following)
        self._source.adopt_next()
        return len(rows)

    def derived_key(self, purpose: str) -> bytes:
        """A key of 32 bytes for one purpose, the same until the vault is rotated."""
        with self._begin(write=True) as connection:
            _, data = self._data_key(connection, make=True)
        # AES-GCM uses the data key itself; a key for anything else is derived from it.
        info = f"headrace vault v1 {purpose}".encode()
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(data)

    def _begin(self, *, write: bool = False) -> Any:
        return _Transaction(self._engine, write)

    def _data_key(self, connection: Connection, *, make: bool) -> tuple[int, bytes]:
        row = connection.execute(select(_KEYS).order_by(_KEYS.c.number.desc())).first()
        if row is None:
            if not make:
                raise Corrupt(
                    "SEC-1509", "the vault has secrets and no key", "Restore a backup of both."
                )
            fresh, number = os.urandom(KEY_BYTES), 1
            self._keep_key(connection, number, fresh, self._source.make())
            return number, fresh
        master = self._master(row.master)
        return row.number, _opened(master.raw, f"data key {row.number}", bytes(row.wrapped))

    def _keep_key(self, connection: Connection, number: int, data: bytes, by: MasterKey) -> None:
        connection.execute(
            _KEYS.insert().values(
                number=number,
                master=by.name,
                wrapped=_sealed(by.raw, f"data key {number}", data),
                made_us=self._clock.now_us(),
            )
        )

    def _master(self, name: str) -> MasterKey:
        """The key of this name; one that a rotation was about to use is adopted when it is the one."""
        found = self._source.load()
        if found is not None and found.name == name:
            return found
        following = self._source.load(next_one=True)
        if following is not None and following.name == name:
            self._source.adopt_next()
            return following
        state = "is another one" if found is not None else "is not there"
        raise Refused(
            "SEC-1503",
            f"the vault was locked with the master key {name}, and that of {self._source.place} {state}",
            "Put the right key back, or see docs/protection.md, lost keys.",
        )


class _Transaction:
    """A transaction whose failure to begin is an error of ours."""

    def __init__(self, engine: Engine, write: bool) -> None:
        self._context = engine.execution_options(immediate=write).begin()

    def __enter__(self) -> Connection:
        try:
            return self._context.__enter__()
        except OperationalError as error:
            raise _no_answer() from error

    def __exit__(self, *error: Any) -> bool | None:
        return self._context.__exit__(*error)


def _sealed(key: bytes, name: str, secret: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, f"headrace vault v1\0{name}".encode())


def _opened(key: bytes, name: str, sealed: bytes) -> bytes:
    try:
        nonce, body = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        return AESGCM(key).decrypt(nonce, body, f"headrace vault v1\0{name}".encode())
    except (InvalidTag, ValueError) as error:
        raise _tampered(name) from error


def _tampered(name: str) -> Corrupt:
    return Corrupt(
        "SEC-1508",
        f"the secret {name} in the vault was changed or damaged",
        f"Set it anew: headrace secret set {name}; see who can write to the metadata database.",
    )


def _no_answer() -> Transient:
    return Transient("SEC-1507", "the metadata database does not open the vault now", "Try again.")


def find_secret(folder: DataFolder, name: str) -> str:
    """One secret of an installation's vault; raises as :meth:`Vault.get` does."""
    with Vault(folder) as vault:
        return vault.get(name)
