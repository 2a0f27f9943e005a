"""Signed release files: SHA256SUMS of a folder, signed with Ed25519.

::

    SHA256SUMS       a line a file, as sha256sum writes and checks it
    SHA256SUMS.sig   signature of that file's bytes, base64 (RFC 8032)
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from headrace.model.errors import Corrupt, Misconfigured

SUMS: Final = "SHA256SUMS"


def sign_folder(folder: Path, key_pem: bytes) -> list[str]:
    """Write sums and signature of all files of a folder; gives their names.

    Raises:
        Misconfigured: SEC-1740 when the key is no private Ed25519 key in PEM.
    """
    try:
        key = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key("private") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key("private")
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(SUMS))
    sums = "".join(f"{_sha256(path)}  {path.name}\n" for path in files).encode()
    (folder / SUMS).write_bytes(sums)
    (folder / f"{SUMS}.sig").write_bytes(base64.b64encode(key.sign(sums)) + b"\n")
    return [path.name for path in files]


def verify_file(path: Path, public_pem: bytes) -> str:
    """Pass when a file is the one that was released; gives its SHA-256. Its sums lie beside it.

    Raises:
        Misconfigured: SEC-1740 when the key is no public Ed25519 key in PEM.
        Corrupt: SEC-1741 when sums or signature are gone or do not fit, SEC-1742 when the file is not
            the one that was released.
    """
    try:
        key = serialization.load_pem_public_key(public_pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key("public") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _no_key("public")
    sums_file = path.parent / SUMS
    try:
        sums = sums_file.read_bytes()
        signature = base64.b64decode((path.parent / f"{SUMS}.sig").read_bytes(), validate=False)
        key.verify(signature, sums)
    except (OSError, ValueError, InvalidSignature) as error:
        raise Corrupt(
            "SEC-1741",
            f"{sums_file} is not signed by this key",
            "Take the release and the key from where they are published.",
        ) from error
    known = dict(line.split("  ", 1)[::-1] for line in sums.decode().splitlines())
    found = _sha256(path) if path.is_file() else ""
    if not found or known.get(path.name) != found:
        raise Corrupt(
            "SEC-1742",
            f"{path} is not the file that was released",
            "Fetch it again; do not use it.",
        )
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _no_key(half: str) -> Misconfigured:
    return Misconfigured(
        "SEC-1740",
        f"that is no {half} Ed25519 key in PEM",
        "Make one: openssl genpkey -algorithm ed25519; its public half: openssl pkey -pubout",
    )
