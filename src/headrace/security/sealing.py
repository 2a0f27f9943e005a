"""Secrets sealed to one edge: only the holder of its private key opens them.

A sealed box is, in base64, ``ephemeral public key (32) | AES-256-GCM ciphertext and tag``: ECIES with X25519
(RFC 7748) and HKDF-SHA256 (RFC 5869). The ephemeral key is not drawn but derived, by HMAC with a key of the
sealer, from what is sealed and for whom: the same secret gives the same box, so the desired state of an edge
changes only when a secret does, and no key is ever used for two texts.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from headrace.model.errors import Corrupt, Misconfigured
from headrace.model.ids import check_name
from headrace.security.files import make_folder, sync_folder

KEY_BYTES: Final = 32
_INFO: Final = b"headrace sealed secret v1"
_NONCE: Final = bytes(12)  # each key is used once


class EdgeKey:
    """The key pair of one edge; the private part never leaves its machine.

    Example:
        >>> key = EdgeKey(X25519PrivateKey.generate())
        >>> box = seal(key.public, "north", "plc_1", "tulip", derive=b"k" * 32)
        >>> key.open("north", "plc_1", box)
        'tulip'
    """

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private

    @property
    def public(self) -> str:
        """The public key, base64."""
        return base64.b64encode(self._private.public_key().public_bytes_raw()).decode()

    def open(self, edge: str, name: str, box: str) -> str:
        """The secret ``name`` of a box that was sealed to this key and edge.

        Raises:
            Corrupt: SEC-1520 when it is of another edge, another name, or was tampered with.
        """
        try:
            raw = base64.b64decode(box, validate=True)
            ephemeral = X25519PublicKey.from_public_bytes(raw[:KEY_BYTES])
            own = self._private.public_key().public_bytes_raw()
            key = _key(self._private.exchange(ephemeral), raw[:KEY_BYTES], own, edge, name)
            return AESGCM(key).decrypt(_NONCE, raw[KEY_BYTES:], _context(edge, name)).decode()
        except (InvalidTag, ValueError, binascii.Error) as error:
            raise Corrupt(
                "SEC-1520",
                f"the sealed secret {name} cannot be opened by edge {edge}",
                "It was sealed to another key, or damaged; see docs/protection.md, lost keys.",
            ) from error


def seal(public: str, edge: str, name: str, secret: str, *, derive: bytes) -> str:
    """A box for the edge whose public key is ``public``.

    Args:
        name: of the secret; the box opens under this name and for this edge only.
        derive: key of the sealer, 32 bytes, from which the ephemeral key is derived.

    Raises:
        Misconfigured: SEC-1521 when this is no public key.
    """
    try:
        raw = base64.b64decode(public, validate=True)
        receiver = X25519PublicKey.from_public_bytes(raw)
        seed = b"\0".join((_INFO, raw, _context(edge, name), secret.encode()))
        private = X25519PrivateKey.from_private_bytes(hmac.digest(derive, seed, "sha256"))
        shared = private.exchange(receiver)
    except (ValueError, binascii.Error) as error:
        raise Misconfigured(
            "SEC-1521",
            f"the sealing key that is kept of edge {edge} is no X25519 key",
            f"Show it on the edge's machine: headrace secret edge-key --edge {edge}",
        ) from error
    ephemeral = private.public_key().public_bytes_raw()
    key = _key(shared, ephemeral, raw, edge, name)
    ciphertext = AESGCM(key).encrypt(_NONCE, secret.encode(), _context(edge, name))
    return base64.b64encode(ephemeral + ciphertext).decode()


def _context(edge: str, name: str) -> bytes:
    return f"{edge}\0{name}".encode()


def _key(shared: bytes, ephemeral: bytes, public: bytes, edge: str, name: str) -> bytes:
    info = _INFO + b"\0" + _context(edge, name)
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=ephemeral + public, info=info).derive(shared)


def own_edge_key(keys: Path, edge: str) -> EdgeKey:
    """The key of an edge on this machine, made at the first call: ``keys/edge.<edge>.key``, mode 600.

    Args:
        keys: the data folder's ``keys``.

    Raises:
        Corrupt: SEC-1522 when the file is damaged.
        OSError: what the file system refuses.
    """
    path = keys / f"edge.{check_name(edge, 'edge')}.key"
    text = create_once(path, base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
    try:
        raw = base64.b64decode(text.strip(), validate=True)
        return EdgeKey(X25519PrivateKey.from_private_bytes(raw))
    except (ValueError, binascii.Error) as error:
        raise Corrupt(
            "SEC-1522",
            f"{path} is no key of an edge",
            "Remove it and let the edge join anew; a local edge makes another one at its start.",
        ) from error


def create_once(path: Path, content: bytes) -> bytes:
    """Content of a private file; written durably with ``content`` when nobody wrote it before.

    Raises:
        OSError: what the file system refuses.
    """
    make_folder(path.parent, 0o700)
    if not path.exists():
        mine = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.new")
        descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # A link fails when another process was first: then its file counts.
            with contextlib.suppress(FileExistsError):
                os.link(mine, path)
            sync_folder(path.parent)
        finally:
            mine.unlink(missing_ok=True)
    return path.read_bytes()


def fingerprint(public: str) -> str:
    """Sixteen hex digits by which people compare a public key.

    Example:
        >>> fingerprint("AAAA")
        '709e80c88487a241'
    """
    return hashlib.sha256(base64.b64decode(public)).hexdigest()[:16]
