"""The audit chain: who did what, in an order that nobody can change without being found.

Each entry names the digest of the one before it and is signed, so that an edit, a removal, a reordering or
an entry of somebody else breaks the chain at a known place. What is cut off at the end is found by the
newest entry that this machine remembers beside the database, and, against somebody who holds the machine,
by checkpoints that are kept elsewhere::

    entry n    digest = SHA-256(canonical JSON of all fields and of the digest of entry n - 1)
               signature = Ed25519(key of this installation, digest)
    head       (n, digest) of the newest entry, in audit/head.json
    checkpoint the same with its signature: a line to be kept elsewhere

Entries are numbered from 1 without gaps: an entry is one row of the transaction that does what it tells,
or its own transaction when what it tells lies elsewhere (then one before it, and one after).

Sources: RFC 8032 (Ed25519); IEC 62443-3-3 SR 2.8 to 2.12 and SR 3.9; NIST SP 800-92, 2.1.3.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from sqlalchemy import BigInteger, Column, Table, Text, and_, insert, select
from sqlalchemy.engine import Connection, Engine, Row

from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, HeadraceError, Misconfigured
from headrace.model.time import Clock
from headrace.security.database import TABLES, words, writing
from headrace.security.files import make_folder, write_whole
from headrace.security.receipt_rows import READ, count_receipts, damaged_sets, receipts_digest

Outcome = Literal["done", "failed", "allowed", "denied", "begun"]
PAGE: Final = 1_000
TEXT_MAX: Final = 200
DETAIL_MAX: Final = 4_000
NOTHING: Final = "0" * 64
_NEWEST: Final = "audit_newest"
Progress = Callable[[int, int], None]
"""Told how many entries were looked at, of how many."""
_AUDIT = Table(
    "audit",
    TABLES,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("actor", words(TEXT_MAX), nullable=False, index=True),
    Column("action", words(64), nullable=False),
    Column("resource", words(TEXT_MAX), nullable=False),
    Column("outcome", words(16), nullable=False),
    Column("detail", Text, nullable=False),
    Column("key", words(64), nullable=False),
    Column("previous", words(64), nullable=False),
    Column("digest", words(64), nullable=False),
    Column("signature", words(96), nullable=False),
)


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the chain.

    Attributes:
        number: from 1, without gaps.
        at_us: clock of the machine that wrote it, UTC microseconds.
        actor: who; ``system`` for what nobody asked for, ``os:name`` on the command line.
        action, resource: what, on what: ``write`` on ``tag/17``.
        outcome: done or failed; allowed or denied, of a decision; begun, of what another entry ends.
        detail: further facts, as JSON; never a secret.
        key: SHA-256 of the public key that signed it, in hex.
        previous, digest: of the entry before, and its own, in hex.
        signature: of the digest, base64.
    """

    number: int
    at_us: int
    actor: str
    action: str
    resource: str
    outcome: Outcome
    detail: str
    key: str
    previous: str
    digest: str = ""
    signature: str = ""

    def expected_digest(self) -> str:
        """What the digest must be, from all other fields."""
        fields = [getattr(self, name) for name in self.__struct_fields__[:-2]]
        return hashlib.sha256(msgspec.json.encode(fields)).hexdigest()

    def facts(self) -> dict[str, Any]:
        """The detail, read; empty when somebody made it unreadable, which the digest tells."""
        try:
            return msgspec.json.decode(self.detail, type=dict[str, Any])
        except UNREADABLE:
            return {}


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The chain's state at one entry, to be kept where whoever holds the database cannot reach it."""

    number: int
    digest: str
    key: str
    signature: str


class Flaw(msgspec.Struct, frozen=True, kw_only=True):
    """One place at which the chain is broken.

    Attributes:
        number: of the entry; 0 when the whole chain is meant.
        code: SEC-1311 to SEC-1316; SEC-1702, SEC-1703 for receipts of reads.
        what: is wrong there.
    """

    number: int
    code: str
    what: str


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the whole chain found.

    Attributes:
        entries: how many there are.
        digest: of the newest.
        flaws: the first hundred; none when the chain is whole.
        checkpoints: how many of those that were given lie in the chain.
    """

    entries: int
    digest: str
    flaws: tuple[Flaw, ...]
    checkpoints: int


class AuditKeys:
    """The key of this installation, made once, and the public keys that it trusts.

    ::

        audit/key.pem          private key of this machine (mode 600)
        audit/trusted/*.pem    public keys whose entries count: its own, and those of other consoles of
                               a shared database

    Args:
        folder: the data folder's ``audit``.

    Raises:
        Corrupt: SEC-1301 when a key cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._trusted_folder = folder / "trusted"
        path = folder / "key.pem"
        if not path.exists():
            make_folder(folder, 0o700)
            write_whole(path, _private_pem(Ed25519PrivateKey.generate()), mode=0o600)
        self._private = _read_private(path)
        self.name = _name_of(self._private.public_key())
        own = self._trusted_folder / f"{self.name[:16]}.pem"
        if not own.exists():
            make_folder(self._trusted_folder, 0o700)
            write_whole(own, self.public_pem(), mode=0o644)

    def public_pem(self) -> bytes:
        """This machine's public key, for the other consoles and for who verifies elsewhere."""
        return self._private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, digest: str) -> str:
        """Signature of a digest, base64."""
        return base64.b64encode(self._private.sign(bytes.fromhex(digest))).decode()

    def trust(self, pem: bytes) -> str:
        """Let entries count that another machine of this installation signed; gives its key's name.

        Raises:
            Misconfigured: SEC-1302 when it is no public key of a chain.
        """
        name = name_of_pem(pem)
        write_whole(self._trusted_folder / f"{name[:16]}.pem", pem, mode=0o644)
        return name

    def trusted(self) -> dict[str, Ed25519PublicKey]:
        """Name -> public key of all whose entries count."""
        found = {}
        for path in sorted(self._trusted_folder.glob("*.pem")):
            key = _public(path.read_bytes())
            if key is None:
                raise _damaged(path)
            found[_name_of(key)] = key
        return found


class AuditChain:
    """The chain of one installation; several processes may append.

    Args:
        engine: of the metadata database.
        folder: the data folder's ``audit``.
        clock: for the entries' times.

    Raises:
        Corrupt: SEC-1301 when a key cannot be read.
    """

    def __init__(self, engine: Engine, folder: Path, clock: Clock) -> None:
        self._engine = engine
        self._folder = folder
        self._clock = clock
        self._remembering = threading.Lock()
        self.keys = AuditKeys(folder)

    def record(
        self, actor: str, action: str, resource: str, outcome: Outcome, **detail: Any
    ) -> int:
        """Append an entry; gives its number. It is on disk when this returns.

        Args:
            detail: facts that JSON can hold; no secrets.

        Raises:
            Transient: SEC-1202 when a shared database does not answer; then do not do it either.
        """
        with self.writing() as connection:
            return self.append(connection, actor, action, resource, outcome, **detail)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction for a change and the entries that tell it: both, or neither."""
        with writing(self._engine) as connection:
            connection.info.pop(_NEWEST, None)
            yield connection
            newest = connection.info.pop(_NEWEST, None)
        if newest is not None:
            self._remember(*newest)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection for what lies beside the chain in its database."""
        with self._engine.connect() as connection:
            yield connection

    def append(
        self,
        connection: Connection,
        actor: str,
        action: str,
        resource: str,
        outcome: Outcome,
        **detail: Any,
    ) -> int:
        """The same in a transaction of :meth:`writing`."""
        last = connection.execute(
            select(_AUDIT.c.number, _AUDIT.c.digest).order_by(_AUDIT.c.number.desc()).limit(1)
        ).first()
        entry = AuditEntry(
            number=1 if last is None else last.number + 1,
            at_us=self._clock.now_us(),
            actor=actor[:TEXT_MAX],
            action=action[:64],
            resource=resource[:TEXT_MAX],
            outcome=outcome,
            detail=_detail(detail),
            key=self.keys.name,
            previous=NOTHING if last is None else last.digest,
        )
        digest = entry.expected_digest()
        values = msgspec.structs.asdict(entry) | {
            "digest": digest,
            "signature": self.keys.sign(digest),
        }
        connection.execute(insert(_AUDIT).values(values))
        connection.info[_NEWEST] = (entry.number, digest)
        return entry.number

    @asynccontextmanager
    async def doing(
        self, actor: str, action: str, resource: str, **detail: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Tell what is done elsewhere: an entry ``begun`` before it, ``done`` or ``failed`` after it.

        Yields:
            Facts that are to stand in the second entry.
        """
        about = (actor, action, resource)
        begun = await asyncio.to_thread(self.record, *about, "begun", **detail)
        facts: dict[str, Any] = {"begun": begun}
        try:
            yield facts
        except HeadraceError as error:
            await asyncio.to_thread(self.record, *about, "failed", code=error.code, **facts)
            raise
        await asyncio.to_thread(self.record, *about, "done", **facts)

    def entries(
        self,
        *,
        actor: str = "",
        action: str = "",
        resource: str = "",
        start_us: int = 0,
        end_us: int = 1 << 62,
        limit: int = 100,
    ) -> list[AuditEntry]:
        """The newest entries that match, newest first.

        Args:
            resource: what it begins with.
        """
        wanted = and_(_AUDIT.c.at_us >= start_us, _AUDIT.c.at_us < end_us)
        if actor:
            wanted &= _AUDIT.c.actor == actor
        if action:
            wanted &= _AUDIT.c.action == action
        if resource:
            wanted &= _AUDIT.c.resource.startswith(resource, autoescape=True)
        query = select(_AUDIT).where(wanted).order_by(_AUDIT.c.number.desc()).limit(limit)
        with self._engine.connect() as connection:
            return [_entry(row) for row in connection.execute(query)]

    def checkpoint(self) -> Checkpoint | None:
        """The newest entry's number and digest, signed; None when the chain is empty."""
        query = select(_AUDIT).order_by(_AUDIT.c.number.desc()).limit(1)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return self._checkpoint(row.number, row.digest)

    def _checkpoint(self, number: int, digest: str) -> Checkpoint:
        signature = self.keys.sign(_checkpoint_digest(number, digest))
        return Checkpoint(number=number, digest=digest, key=self.keys.name, signature=signature)

    def verify(
        self, checkpoints: Iterable[Checkpoint] = (), progress: Progress | None = None
    ) -> Verdict:
        """Look at the whole chain.

        Args:
            checkpoints: kept elsewhere; each must lie in the chain.
            progress: is told after each thousand entries.

        Raises:
            Corrupt: SEC-1301 when a trusted key cannot be read.
        """
        looking = _Looking(self.keys.trusted())
        for place in checkpoints:
            looking.checkpoint(place, is_given=True)
        head = self._head()
        if head is not None:
            looking.checkpoint(head, is_given=False)
        number = 0
        newest = self.checkpoint()
        while True:
            rows = self._page(number)
            for row in rows:
                looking.entry(_entry(row))
            self._look_at_receipts(looking, rows)
            if progress is not None and newest is not None and rows:
                progress(min(rows[-1].number, newest.number), newest.number)
            if rows:
                number = rows[-1].number
            if len(rows) < PAGE:
                break
        with self._engine.connect() as connection:
            looking.beside(count_receipts(connection, number), damaged_sets(connection))
        return looking.end()

    def _look_at_receipts(self, looking: _Looking, rows: list[Row[Any]]) -> None:
        told = [row for row in rows if row.action == READ and row.resource == "receipts"]
        if told:
            with self._engine.connect() as connection:
                for row in told:
                    looking.receipts(_entry(row), *receipts_digest(connection, row.number))

    def _page(self, after: int) -> list[Row[Any]]:
        query = select(_AUDIT).where(_AUDIT.c.number > after).order_by(_AUDIT.c.number).limit(PAGE)
        with self._engine.connect() as connection:
            return list(connection.execute(query))

    def _remember(self, number: int, digest: str) -> None:
        """Keep the newest entry's digest beside the database: what is cut off later is missed."""
        with self._remembering:
            head = self._head()
            if head is None or number > head.number:
                newest = msgspec.json.encode(self._checkpoint(number, digest))
                write_whole(self._folder / "head.json", newest, mode=0o600)

    def _head(self) -> Checkpoint | None:
        path = self._folder / "head.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Checkpoint)
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            raise _damaged(path) from error


@contextmanager
def telling(
    chain: AuditChain | None, actor: str, action: str, resource: str, **detail: Any
) -> Iterator[None]:
    """The same as :meth:`AuditChain.doing` for what blocks; tells nobody without a chain."""
    if chain is None:
        yield
        return
    begun = chain.record(actor, action, resource, "begun", **detail)
    try:
        yield
    except HeadraceError as error:
        chain.record(actor, action, resource, "failed", code=error.code, begun=begun)
        raise
    chain.record(actor, action, resource, "done", begun=begun, **detail)


class _Looking:
    """One look at the chain, entry by entry."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        self._keys = keys
        self._flaws: list[Flaw] = []
        self._digest = NOTHING
        self._number = 0
        self._wanted: dict[int, str] = {}
        self._met: dict[int, str] = {}
        self._given: set[int] = set()
        self._entries = 0
        self._receipts = 0

    def checkpoint(self, place: Checkpoint, *, is_given: bool) -> None:
        if not self._is_signed(
            place.key, _checkpoint_digest(place.number, place.digest), place.signature
        ):
            self._flaw(place.number, "SEC-1316", "a checkpoint is not signed by a trusted key")
            return
        if self._wanted.setdefault(place.number, place.digest) != place.digest:
            self._flaw(place.number, "SEC-1316", "two checkpoints of one entry differ")
        if is_given:
            self._given.add(place.number)

    def entry(self, entry: AuditEntry) -> None:
        self._entries += 1
        if entry.number != self._number + 1:
            what = f"entries {self._number + 1} to {entry.number - 1} are missing"
            self._flaw(entry.number, "SEC-1311", what)
        elif entry.previous != self._digest:
            self._flaw(entry.number, "SEC-1312", "it does not follow the entry before it")
        if entry.expected_digest() != entry.digest:
            self._flaw(entry.number, "SEC-1313", "its content was changed")
        elif not self._is_signed(entry.key, entry.digest, entry.signature):
            self._flaw(entry.number, "SEC-1314", "it is not signed by a trusted key")
        self._number, self._digest = entry.number, entry.digest
        if entry.number in self._wanted:
            self._met[entry.number] = entry.digest

    def receipts(self, entry: AuditEntry, count: int, digest: str) -> None:
        """Receipts that an entry tells of, as they are now."""
        self._receipts += count
        told = entry.facts()
        if (told.get("receipts"), told.get("sha256")) != (count, digest):
            self._flaw(entry.number, "SEC-1702", "its receipts of reads were changed")

    def beside(self, receipts: int, damaged_sets: list[str]) -> None:
        """What lies beside the chain and belongs to no entry of it, or was changed."""
        if receipts > self._receipts:
            what = f"{receipts - self._receipts} receipts of reads belong to no entry"
            self._flaw(0, "SEC-1702", what)
        for digest in damaged_sets:
            self._flaw(0, "SEC-1703", f"the tags of set {digest[:12]} were changed or removed")

    def end(self) -> Verdict:
        found = 0
        for number, digest in sorted(self._wanted.items()):
            if number > self._number:
                what = f"the chain ends at {self._number}; entries up to {number} were cut off"
                self._flaw(number, "SEC-1315", what)
            elif self._met.get(number) != digest:
                self._flaw(number, "SEC-1316", "it is another one than a checkpoint knows")
            elif number in self._given:
                found += 1
        return Verdict(
            entries=self._entries,
            digest=self._digest,
            flaws=tuple(self._flaws),
            checkpoints=found,
        )

    def _flaw(self, number: int, code: str, what: str) -> None:
        if len(self._flaws) < 100:
            self._flaws.append(Flaw(number=number, code=code, what=what))

    def _is_signed(self, key: str, digest: str, signature: str) -> bool:
        known = self._keys.get(key)
        if known is None:
            return False
        try:
            known.verify(base64.b64decode(signature, validate=True), bytes.fromhex(digest))
        except (InvalidSignature, ValueError):
            return False
        return True


def _detail(facts: Mapping[str, Any]) -> str:
    """As JSON; of what is too long its digest."""
    text = msgspec.json.encode(facts, order="sorted")
    if len(text) > DETAIL_MAX:
        text = msgspec.json.encode({"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()})
    return text.decode()


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(**row._asdict())


def _checkpoint_digest(number: int, digest: str) -> str:
    """Told apart from an entry's digest, so that neither signature passes for the other."""
    return hashlib.sha256(f"checkpoint {number} {digest}".encode()).hexdigest()


def _name_of(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()


def _public(pem: bytes) -> Ed25519PublicKey | None:
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, Ed25519PublicKey) else None


def name_of_pem(pem: bytes) -> str:
    """Name of a public key as ``headrace audit key`` prints it.

    Raises:
        Misconfigured: SEC-1302 when it is none.
    """
    key = _public(pem)
    if key is None:
        raise Misconfigured(
            "SEC-1302",
            "that is no Ed25519 public key",
            "Give what the other machine prints: headrace audit key",
        )
    return _name_of(key)


def is_signed_by(pem: bytes, name: str, digest: str, signature: str) -> bool:
    """Whether the key of that name, whose public half is given, signed a digest."""
    key = _public(pem)
    if key is None or _name_of(key) != name:
        return False
    try:
        key.verify(base64.b64decode(signature, validate=True), bytes.fromhex(digest))
    except (InvalidSignature, ValueError):
        return False
    return True


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _read_private(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _damaged(path)
    return key


def _damaged(path: Path) -> Corrupt:
    return Corrupt(
        "SEC-1301",
        f"{path} cannot be read",
        "Restore it from a backup; entries that it signed are verified with the public key.",
    )
