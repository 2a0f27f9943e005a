"""Secrets that a browser or a program carries: made at random, kept only as a hash."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

TOKEN_PREFIX: Final = "hrt_"
ACTOR_PREFIX: Final = "hra_"
_WORDS: Final = "abcdefghjkmnpqrstuvwxyz23456789"


def new_token(prefix: str = "") -> str:
    """A fresh secret of 256 bits, as URL-safe text.

    Example:
        >>> new_token(TOKEN_PREFIX).startswith("hrt_")
        True
    """
    return prefix + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is stored of a secret: SHA-256 in hex. A random 256-bit secret needs no slow hash."""
    return hashlib.sha256(token.encode()).hexdigest()


def one_time_password() -> str:
    """A password of about 79 bits that is easy to type: four groups of four, no look-alikes."""
    groups = ("".join(secrets.choice(_WORDS) for _ in range(4)) for _ in range(4))
    return "-".join(groups)
