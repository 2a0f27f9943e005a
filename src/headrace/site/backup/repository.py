"""Where backups lie: a folder on another disk or machine, of objects that never change.

::

    repository.json         recipient to which everything is sealed; the public half of a key
    identity.age            the secret half, locked with a passphrase; not there when a key is kept elsewhere
    objects/ab/abcd...age   a content by its SHA-256, sealed; one object may belong to many backups
    backups/<id>.json       head: when, whose, sizes, hash of the manifest, signature of the installation
    backups/<id>.age        manifest: every file with size and hash, sealed

A backup exists when its head does; the head is written last. What an interrupted one left are objects that
the next one need not copy again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec

from headrace import __version__
from headrace.bus.stream_copy import SavedStream
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, HeadraceError, Misconfigured, Refused
from headrace.model.time import to_datetime
from headrace.security.age import (
    HashingReader,
    HashingWriter,
    check_recipient,
    lock,
    new_identity,
    recipient_of,
    seal,
    unlock,
    unseal,
)
from headrace.security.audit import AuditKeys, is_signed_by
from headrace.security.files import make_folder, move, sync_folder, write_whole

FORMAT: Final = 1
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class RepositorySettings(msgspec.Struct, frozen=True, kw_only=True):
    """``recipient``: to whom everything is sealed."""

    format: int
    recipient: str


class BackupFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a backup.

    Attributes:
        path: relative to the data folder.
        size: bytes. sha256: of the content. mode: permissions.
    """

    path: str
    size: int
    sha256: str
    mode: int = 0o600


class BackupStream(msgspec.Struct, frozen=True, kw_only=True):
    """One stream of the broker, whose snapshot is an object."""

    saved: SavedStream
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What one backup holds.

    Attributes:
        at_us: its moment; everything acknowledged before it is in.
        table_version: of the Delta table; -1 without one.
        position: stream sequence up to which the table has everything; the log has the rest.
    """

    at_us: int
    version: str
    table_version: int
    position: int
    files: tuple[BackupFile, ...]
    streams: tuple[BackupStream, ...]


class BackupHead(msgspec.Struct, frozen=True, kw_only=True):
    """What anybody may know of a backup.

    Attributes:
        id: its name, which tells its time.
        at_us: its moment. enterprise, site: whose.
        bytes, new_bytes: of all contents, and of those that no earlier backup had.
        files: how many. manifest_sha256: of the sealed manifest.
        key: name of the installation's key (``headrace audit key``). public_pem: that key.
        signature: of all else, base64.
    """

    id: str
    at_us: int
    enterprise: str
    site: str
    bytes: int
    new_bytes: int
    files: int
    manifest_sha256: str
    version: str = __version__
    key: str = ""
    public_pem: str = ""
    signature: str = ""

    def digest(self) -> str:
        """What is signed."""
        bare = msgspec.structs.replace(self, signature="")
        return hashlib.sha256(b"headrace backup\n" + msgspec.json.encode(bare)).hexdigest()


class Repository:
    """An open repository; :meth:`create` makes one.

    Raises:
        Misconfigured: SEC-1713 when there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = (path / "repository.json").read_bytes()
            settings = msgspec.json.decode(content, type=RepositorySettings)
        except (OSError, *UNREADABLE) as error:
            raise Misconfigured(
                "SEC-1713",
                f"{path} holds no backups: {error}",
                "Name the folder of headrace backup create, or make the first backup there.",
            ) from error
        if settings.format > FORMAT:
            raise Misconfigured(
                "SEC-1713",
                f"{path} was written by a newer Headrace (format {settings.format})",
                "Use that version.",
            )
        self.recipient = settings.recipient
        self.id = hashlib.sha256(self.recipient.encode()).hexdigest()[:16]

    @classmethod
    def create(cls, path: Path, *, recipient: str = "", passphrase: str = "") -> Repository:
        """Make a repository in an empty folder, for a recipient of age or with a passphrase.

        Raises:
            Misconfigured: SEC-1710 for a recipient that is none; SEC-1714 when neither is given.
            Refused: SEC-1715 when other things are there.
        """
        if path.exists() and any(path.iterdir()):
            raise Refused("SEC-1715", f"{path} is not empty", "Give an empty folder.")
        if not recipient and not passphrase:
            raise Misconfigured(
                "SEC-1714",
                "a new place for backups needs a key",
                "Give --recipient age1... (its secret half stays elsewhere), or a passphrase.",
            )
        make_folder(path, 0o700)
        if recipient:
            recipient = check_recipient(recipient)
        else:
            identity, recipient = new_identity()
            write_whole(path / "identity.age", lock(identity, passphrase), mode=0o600)
        settings = RepositorySettings(format=FORMAT, recipient=recipient)
        write_whole(path / "repository.json", msgspec.json.encode(settings), mode=0o600)
        return cls(path)

    def identity(self, *, key: str = "", passphrase: str = "") -> str:
        """The identity that opens this repository.

        Raises:
            Refused: SEC-1711 when key or passphrase is another one.
            Misconfigured: SEC-1714 when none is given.
        """
        locked = self.path / "identity.age"
        if key:
            found = key.strip()
        elif passphrase and locked.exists():
            found = unlock(locked.read_bytes(), passphrase)
        else:
            raise Misconfigured(
                "SEC-1714",
                f"{self.path} is opened by a {'passphrase' if locked.exists() else 'key'}",
                "Give --key-file with AGE-SECRET-KEY-1..., or the passphrase.",
            )
        if recipient_of(found) != self.recipient:
            raise Refused(
                "SEC-1711", f"{self.path} is sealed for another key", "Give the key of this place."
            )
        return found

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the repository: one backup or removal at a time.

        Raises:
            Refused: SEC-1715 when another one runs.
        """
        with disk(self.path), (self.path / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Refused(
                    "SEC-1715", f"another backup works in {self.path}", "Wait until it has ended."
                ) from error
            yield

    # objects

    def _object(self, sha256: str) -> Path:
        return self.path / "objects" / sha256[:2] / f"{sha256}.age"

    def has(self, sha256: str) -> bool:
        """Whether a content is there."""
        return self._object(sha256).exists()

    def put(self, source: BinaryIO) -> tuple[str, int, bool]:
        """Seal a content; gives its hash, its size, and whether it is new.

        Raises:
            Refused: SEC-1716 when the disk is full or refuses; nothing of it stays.
        """
        reader = HashingReader(source)
        temporary = self.path / "objects" / f"{os.getpid()}.new"
        with disk(self.path), _gone_after(temporary):
            make_folder(temporary.parent, 0o700)
            with temporary.open("wb") as target:
                seal(reader, target, self.recipient)
                target.flush()
                os.fsync(target.fileno())
            sha256 = reader.sha256
            if self.has(sha256):
                return sha256, reader.size, False
            place = self._object(sha256)
            make_folder(place.parent, 0o700)
            move(temporary, place)
            return sha256, reader.size, True

    def get(self, sha256: str, target: BinaryIO | None, identity: str, name: str) -> int:
        """Open a content, whole and unchanged; gives its size.

        Args:
            target: where to; None only looks.
            name: of the file, for messages.

        Raises:
            Corrupt: SEC-1712 when it is gone, was changed or cut off. Refused: SEC-1711, SEC-1716.
        """
        writer = HashingWriter(target)
        try:
            with self._object(sha256).open("rb") as source:
                unseal(source, writer, identity, name)
        except FileNotFoundError as error:
            raise Corrupt(
                "SEC-1712",
                f"the content of {name} is gone",
                "Take another backup, or another copy.",
            ) from error
        if writer.sha256 != sha256:
            raise Corrupt(
                "SEC-1712", f"the content of {name} is another one", "Take another backup or copy."
            )
        return writer.size

    # backups

    def heads(self) -> list[BackupHead]:
        """All backups, oldest first.

        Raises:
            Corrupt: SEC-1712 when a head cannot be read.
        """
        found = []
        for path in sorted((self.path / "backups").glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=BackupHead))
            except UNREADABLE as error:
                raise Corrupt(
                    "SEC-1712", f"{path} cannot be read", "Remove it, or take another copy."
                ) from error
        return sorted(found, key=lambda head: (head.at_us, head.id))

    def head(self, name: str = "") -> BackupHead:
        """One backup by its id; the newest without one.

        Raises:
            Misconfigured: SEC-1713 when there is none.
        """
        heads = self.heads()
        chosen = [head for head in heads if name in ("", head.id)]
        if not chosen:
            known = ", ".join(head.id for head in heads[-3:])
            raise Misconfigured(
                "SEC-1713",
                f"there is no backup {name}" if name else f"{self.path} has no backup yet",
                f"There are: {known}." if known else "Make one: headrace backup create.",
            )
        return chosen[-1]

    def finish(self, head: BackupHead, manifest: Manifest, keys: AuditKeys) -> BackupHead:
        """Write manifest and signed head: from here on the backup exists.

        Raises:
            Refused: SEC-1716 when the disk is full or refuses.
        """
        sealed = io.BytesIO()
        seal(HashingReader(io.BytesIO(msgspec.json.encode(manifest))), sealed, self.recipient)
        content = sealed.getvalue()
        head = msgspec.structs.replace(
            head,
            manifest_sha256=hashlib.sha256(content).hexdigest(),
            key=keys.name,
            public_pem=keys.public_pem().decode(),
        )
        head = msgspec.structs.replace(head, signature=keys.sign(head.digest()))
        with disk(self.path):
            folder = self.path / "backups"
            make_folder(folder, 0o700)
            write_whole(folder / f"{head.id}.age", content, mode=0o600)
            write_whole(folder / f"{head.id}.json", msgspec.json.encode(head), mode=0o600)
        return head

    def manifest(self, head: BackupHead, identity: str, trusted: str = "") -> Manifest:
        """The manifest of a backup whose head is signed.

        Args:
            trusted: name of the key that must have signed, or its beginning; empty: any.

        Raises:
            Corrupt: SEC-1712 for what was changed; SEC-1717 when the signature does not fit or
                somebody else signed.
        """
        if not is_signed_by(head.public_pem.encode(), head.key, head.digest(), head.signature):
            raise Corrupt(
                "SEC-1717",
                f"the signature of backup {head.id} does not fit",
                "Somebody changed its head; take another copy.",
            )
        if trusted and not head.key.startswith(trusted):
            raise Corrupt(
                "SEC-1717",
                f"backup {head.id} is signed by the key {head.key[:16]}, not by {trusted}",
                "See of which installation it is, before you restore it.",
            )
        path = self.path / "backups" / f"{head.id}.age"
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != head.manifest_sha256:
            raise Corrupt(
                "SEC-1712", f"the manifest of {head.id} was changed", "Take another backup or copy."
            )
        opened = io.BytesIO()
        unseal(io.BytesIO(content), HashingWriter(opened), identity, f"the manifest of {head.id}")
        return msgspec.json.decode(opened.getvalue(), type=Manifest)

    def prune(self, identity: str, *, keep: int, newer_us: int) -> tuple[list[str], int]:
        """Remove backups that are neither among the newest ``keep`` nor newer than a moment, and the
        objects that no backup has any more; gives their ids and how many bytes are free now.

        Raises:
            Corrupt, Refused: of a manifest that stays and cannot be read; nothing is removed then.
        """
        heads = self.heads()
        stays = {h.id for place, h in enumerate(reversed(heads)) if place < max(keep, 1)}
        stays |= {head.id for head in heads if head.at_us >= newer_us}
        held: set[str] = set()
        for head in heads:
            if head.id in stays:
                manifest = self.manifest(head, identity)
                held |= {file.sha256 for file in manifest.files}
                held |= {stream.sha256 for stream in manifest.streams}
        gone = [head.id for head in heads if head.id not in stays]
        for name in gone:
            for suffix in ("json", "age"):  # the head first: half a backup is none
                (self.path / "backups" / f"{name}.{suffix}").unlink(missing_ok=True)
        free = 0
        for path in (self.path / "objects").glob("*/*.age"):
            if path.stem not in held:
                free += path.stat().st_size
                path.unlink()
        if gone:
            sync_folder(self.path / "backups")
        return gone, free


def backup_id(at_us: int) -> str:
    """Name of a backup: its moment in UTC, sortable, to the millisecond.

    Example:
        >>> backup_id(0)
        '19700101T000000.000Z'
    """
    return to_datetime(at_us).strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"


@contextmanager
def disk(path: Path, *, doing: Literal["write", "read"] = "write") -> Iterator[None]:
    """What the file system refuses becomes an error of ours.

    Raises:
        Refused: SEC-1716.
    """
    try:
        yield
    except HeadraceError:
        raise
    except OSError as error:
        full = error.errno in _FULL
        raise Refused(
            "SEC-1716",
            f"cannot {doing} in {path}: {error.strerror or error}",
            "Free space there, then start it again: what is done stays done."
            if full
            else "Let this user use that folder.",
        ) from error


@contextmanager
def _gone_after(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
