"""NATS keys and tokens: Ed25519 keys in base32 with prefix and checksum, JSON web tokens signed by them.

Formats of the nats-server's libraries nkeys and jwt (version 2). An account's key signs who a client is:
the auth callout (:mod:`headrace.bus.callout`) answers with such tokens. Keys come from the installation's own
secret by HMAC-SHA-256 (RFC 2104), one for each purpose, so that a broker and whoever answers for it agree
without a file between them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import Any, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from headrace.model.errors import Corrupt
from headrace.model.time import US_PER_S

KeyKind = Literal["account", "user", "server"]
_PREFIX: Final[dict[KeyKind, int]] = {"account": 0 << 3, "user": 20 << 3, "server": 13 << 3}
_HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}
TOKEN_BYTES_MAX: Final = 1 << 16


def derived(secret: str, purpose: str) -> bytes:
    """32 bytes for one purpose; they tell nothing of the secret, nor of another purpose's.

    Example:
        >>> derived("secret", "a") == derived("secret", "a"), derived("secret", "a") == derived("secret", "b")
        (True, False)
    """
    return hmac.new(secret.encode(), purpose.encode(), hashlib.sha256).digest()


def encode_key(kind: KeyKind, public: bytes) -> str:
    """A public key as NATS writes it: base32 of prefix, 32 bytes and CRC-16/XMODEM (little-endian).

    Example:
        >>> encode_key("account", bytes(32))
        'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'
    """
    body = bytes([_PREFIX[kind]]) + public
    checksum = binascii.crc_hqx(body, 0).to_bytes(2, "little")
    return base64.b32encode(body + checksum).decode().rstrip("=")


def decode_key(kind: KeyKind, text: str) -> bytes:
    """The 32 bytes of a public key.

    Raises:
        Corrupt: SEC-1601 when it is none of that kind, or its checksum is wrong.
    """
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError) as error:
        raise _no_key(kind) from error
    if len(raw) != 35 or raw[0] != _PREFIX[kind]:
        raise _no_key(kind)
    if binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") != raw[-2:]:
        raise _no_key(kind)
    return raw[1:-2]


def _no_key(kind: KeyKind) -> Corrupt:
    return Corrupt("SEC-1601", f"this is no NATS key of kind {kind}", "Ask who sent it.")


class SigningKey:
    """An account's key pair.

    Args:
        seed: 32 bytes, secret.

    Example:
        >>> key = SigningKey(bytes(32))
        >>> token = key.sign({"sub": "x"}, 0)
        >>> read_token(token)["iss"] == key.public
        True
    """

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = encode_key("account", self._key.public_key().public_bytes_raw())

    def sign(self, claims: dict[str, Any], now_us: int) -> str:
        """A token of these claims; issuer, time and identity are added."""
        whole = {**claims, "iss": self.public, "iat": now_us // US_PER_S}
        digest = hashlib.sha512(_json(whole)).digest()[:32]  # the identity is of the content
        whole["jti"] = base64.b32encode(digest).decode().rstrip("=")
        signed = f"{_text(_json(_HEADER))}.{_text(_json(whole))}"
        return f"{signed}.{_text(self._key.sign(signed.encode()))}"


def read_token(token: str, issuer: KeyKind = "account") -> dict[str, Any]:
    """The claims of a token whose signature is its issuer's; whether that issuer counts, decides the caller.

    Raises:
        Corrupt: SEC-1602 when it is no token, or changed; SEC-1601 when its issuer is no key.
    """
    try:
        if len(token) > TOKEN_BYTES_MAX:
            raise ValueError("it is too long")
        header, body, signature = token.split(".")
        if json.loads(_bytes(header)) != _HEADER:
            raise ValueError("it is signed in another way")
        claims: dict[str, Any] = json.loads(_bytes(body))
        public = decode_key(issuer, str(claims["iss"]))
        Ed25519PublicKey.from_public_bytes(public).verify(
            _bytes(signature), f"{header}.{body}".encode()
        )
    except (ValueError, KeyError, TypeError, RecursionError, InvalidSignature) as error:
        reason = "its signature is wrong" if isinstance(error, InvalidSignature) else error
        raise Corrupt(
            "SEC-1602", f"this is no token of NATS: {reason}", "Ask who sent it."
        ) from error
    return claims


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
