"""Sealing of files in the age format (age-encryption.org/v1), streaming: X25519, ChaCha20-Poly1305.

Whoever seals needs the recipient only, which is public; so a machine that makes backups each night cannot
read those that it made. Any other age program opens what is sealed here.

::

    age1...             recipient: public, seals
    AGE-SECRET-KEY-1... identity: secret, opens
"""

from __future__ import annotations

import hashlib
from typing import BinaryIO, Final

import pyrage
from pyrage import passphrase as locking
from pyrage import x25519

from headrace.model.errors import Corrupt, Misconfigured, Refused

SECRET_PREFIX: Final = "AGE-SECRET-KEY-1"


class HashingReader:
    """A file whose bytes are hashed and counted as they are read."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._digest = hashlib.sha256()
        self.size = 0
        self.refused: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        try:
            found = self._source.read(size)
        except OSError as error:
            self.refused = error  # the library between would hide what the disk said
            raise
        self._digest.update(found)
        self.size += len(found)
        return found

    @property
    def sha256(self) -> str:
        """Of what was read so far, in hex."""
        return self._digest.hexdigest()


class HashingWriter:
    """A file whose bytes are hashed and counted as they are written; without one they are only hashed."""

    def __init__(self, target: BinaryIO | None) -> None:
        self._target = target
        self._digest = hashlib.sha256()
        self.size = 0
        self.refused: OSError | None = None

    def write(self, content: bytes) -> int:
        """As of any file."""
        if self._target is not None:
            try:
                self._target.write(content)
            except OSError as error:
                self.refused = error  # the library between would hide what the disk said
                raise
        self._digest.update(content)
        self.size += len(content)
        return len(content)

    def flush(self) -> None:
        """As of any file."""
        if self._target is not None:
            self._target.flush()

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""
        return self._digest.hexdigest()


def new_identity() -> tuple[str, str]:
    """A new (identity, recipient): the first is secret.

    Example:
        >>> identity, recipient = new_identity()
        >>> identity.startswith("AGE-SECRET-KEY-1"), recipient.startswith("age1")
        (True, True)
    """
    made = x25519.Identity.generate()
    return str(made), str(made.to_public())


def recipient_of(identity: str) -> str:
    """The recipient of an identity.

    Raises:
        Misconfigured: SEC-1710 when it is none.
    """
    return str(_identity(identity).to_public())


def check_recipient(recipient: str) -> str:
    """The recipient, when it is one.

    Raises:
        Misconfigured: SEC-1710 when it is none.
    """
    return str(_recipient(recipient))


def seal(source: HashingReader, target: BinaryIO, recipient: str) -> None:
    """Write what ``source`` gives to ``target``, sealed; memory is bounded.

    Raises:
        Misconfigured: SEC-1710 when the recipient is none.
        OSError: what the disk refuses.
    """
    known = _recipient(recipient)
    watched = HashingWriter(target)
    try:
        pyrage.encrypt_io(source, watched, [known])
    except (OSError, pyrage.EncryptError) as error:
        raise (watched.refused or source.refused or error) from error


def unseal(source: BinaryIO, target: HashingWriter, identity: str, name: str) -> None:
    """Write what ``source`` holds to ``target``; memory is bounded. What was written before an error
    is not to be used.

    Args:
        name: of what is opened, for messages.

    Raises:
        Refused: SEC-1711 when it was sealed for somebody else.
        Corrupt: SEC-1712 when it was changed or cut off.
        OSError: what the disk refuses.
    """
    known = _identity(identity)
    try:
        pyrage.decrypt_io(source, target, [known])
    except OSError as error:
        if writer_refused := target.refused:
            raise writer_refused from error
        if error.errno is not None:
            raise  # the disk that is read
        raise _wrong(error, name) from error
    except pyrage.DecryptError as error:
        if target.refused:
            raise target.refused from error
        raise _wrong(error, name) from error


def lock(identity: str, passphrase: str) -> bytes:
    """An identity sealed with a passphrase (scrypt), to lie beside what it opens."""
    return bytes(locking.encrypt(identity.encode(), passphrase))


def unlock(locked: bytes, passphrase: str) -> str:
    """The identity again.

    Raises:
        Refused: SEC-1711 when the passphrase is wrong. Corrupt: SEC-1712 when it was changed.
    """
    try:
        return bytes(locking.decrypt(locked, passphrase)).decode()
    except pyrage.DecryptError as error:
        raise _wrong(error, "the key of the backups") from error


def _wrong(error: Exception, name: str) -> Refused | Corrupt:
    said = str(error)
    if "matching keys" in said or ("Decryption failed" in said and "key" in name):
        return Refused(
            "SEC-1711",
            f"{name} cannot be opened with this key",
            "Give the key or the passphrase of it.",
        )
    return Corrupt(
        "SEC-1712",
        f"{name} was changed or cut off: {said}",
        "Take another backup, or another copy.",
    )


def _recipient(text: str) -> x25519.Recipient:
    try:
        return x25519.Recipient.from_str(text.strip())
    except pyrage.RecipientError as error:
        raise Misconfigured(
            "SEC-1710", f"{text[:20]!r} is no recipient of age", "It begins with age1."
        ) from error


def _identity(text: str) -> x25519.Identity:
    try:
        return x25519.Identity.from_str(text.strip())
    except pyrage.IdentityError as error:
        raise Misconfigured(
            "SEC-1710", "that is no identity of age", f"It begins with {SECRET_PREFIX}."
        ) from error
