"""Keys of publishers: Ed25519 (RFC 8032), private in PEM, public as one line of base64.

The public half is short enough to read to somebody on the phone: 44 characters.
"""

from __future__ import annotations

import base64
import binascii

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from headrace.model.errors import Misconfigured


def new_key() -> bytes:
    """A private key, PEM (PKCS 8, not encrypted): keep it in a file of mode 600."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def public_of(key_pem: bytes) -> str:
    """The public half of a private key, base64.

    Raises:
        Misconfigured: SEC-1740 when it is no private Ed25519 key in PEM.

    Example:
        >>> len(public_of(new_key()))
        44
    """
    raw = _private(key_pem).public_key().public_bytes_raw()
    return base64.b64encode(raw).decode()


def sign_bytes(key_pem: bytes, content: bytes) -> str:
    """The signature of some bytes, base64.

    Raises:
        Misconfigured: SEC-1740 when it is no private Ed25519 key in PEM.
    """
    return base64.b64encode(_private(key_pem).sign(content)).decode()


def is_signed(public: str, signature: str, content: bytes) -> bool:
    """Whether a signature is that of these bytes by this key.

    Example:
        >>> key = new_key()
        >>> is_signed(public_of(key), sign_bytes(key, b"ready"), b"ready")
        True
    """
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
        key.verify(base64.b64decode(signature, validate=True), content)
    except (InvalidSignature, ValueError, binascii.Error):
        return False
    return True


def check_public(public: str) -> str:
    """The key itself when it is a public one in base64.

    Raises:
        Misconfigured: SEC-1743 when it is none.
    """
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
    except (ValueError, binascii.Error) as error:
        raise Misconfigured(
            "SEC-1743",
            f"{public[:60]!r} is no public Ed25519 key in base64",
            "Give the line that `headrace app key` printed for the publisher.",
        ) from error
    return public


def _private(key_pem: bytes) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key() from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key()
    return key


def _no_key() -> Misconfigured:
    return Misconfigured(
        "SEC-1740",
        "that is no private Ed25519 key in PEM",
        "Make one: headrace app key publisher.pem",
    )
