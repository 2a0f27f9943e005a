"""Passwords: how they are kept (argon2id, RFC 9106) and which ones are taken.

The rules are those of NIST SP 800-63B-4, 3.1.1.2: length counts, any character is welcome, there is no rule
of composition and no expiry; what is common, or made of what the place itself suggests, is refused.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib import resources
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from headrace.model.errors import Misconfigured
from headrace.security.tokens import new_token

LENGTH_MIN: Final = 15
LENGTH_MIN_WITH_FACTOR: Final = 8
LENGTH_MAX: Final = 256
OWN_MIN: Final = 6
"""So many characters must be left when all that an attacker tries first was taken away."""
_CONTEXT: Final = ("headrace",)
_LOOKALIKES: Final = str.maketrans("0134578@$!|", "oieastbasii")
_RUNS: Final = ("abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
_RUN_MIN: Final = 4


class Passwords:
    """Makes and checks hashes; each takes 64 MiB and some 50 ms, so callers bound how many run at once
    (:mod:`headrace.security.lanes`)."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        # Verified for unknown names, so that the answer's time does not tell which names exist.
        self._nobody = self._hasher.hash(new_token())

    def hash(self, password: str) -> str:
        """What is kept of a password."""
        return self._hasher.hash(normal(password))

    def is_right(self, known: str | None, password: str) -> bool:
        """Whether the password is the one behind a hash; takes as long for None and for no hash at all."""
        is_hash = known is not None and known.startswith("$argon2")
        try:
            right = self._hasher.verify(
                known if is_hash and known is not None else self._nobody,
                normal(password[:LENGTH_MAX]),
            )
        except (VerificationError, InvalidHashError):
            return False
        return right and is_hash


def normal(password: str) -> str:
    """One form for the same text from any keyboard: NFC.

    Example:
        >>> normal("cafe\\u0301") == normal("caf\\u00e9")
        True
    """
    return unicodedata.normalize("NFC", password)


def check_password(password: str, name: str, *, has_factor: bool = False) -> None:
    """Pass when a new password may be taken.

    Args:
        name: of the user.
        has_factor: a second factor is asked for too; then a shorter one is enough.

    Raises:
        Misconfigured: SEC-1005 too short or too long, SEC-1034 among those that attackers try first.

    Example:
        >>> check_password("the lathe hums at dawn", "mia")
    """
    least = LENGTH_MIN_WITH_FACTOR if has_factor else LENGTH_MIN
    if not least <= len(password) <= LENGTH_MAX:
        raise Misconfigured(
            "SEC-1005",
            f"the new password has {len(password)} characters",
            f"Use {least} to {LENGTH_MAX}; a short sentence is good.",
        )
    if name.lower() in password.lower():
        raise Misconfigured("SEC-1005", "the new password holds the name", "Choose another.")
    if len(_own_part(password)) < OWN_MIN:
        raise Misconfigured(
            "SEC-1034",
            "the new password is one of those that are tried first",
            "Choose another; a short sentence of your own is good.",
        )


def _own_part(password: str) -> str:
    """What is left without common passwords, our own name, runs of keys and repetitions."""
    left = unicodedata.normalize("NFKC", password).lower()
    left = _without_words(_without_runs(left))
    plain = _without_words(_without_runs(left.translate(_LOOKALIKES)))
    left = min(left, plain, key=len)
    left = re.sub(r"(.{1,4}?)\1{2,}", r"\1", left)  # aaaa, abcabcabc
    return re.sub(r"[\W\d_]+", "", left) if left.isascii() else left


def _without_words(text: str) -> str:
    for word in (*_CONTEXT, *common()):
        text = text.replace(word, "")
    return text


def _without_runs(text: str) -> str:
    for run in _RUNS:
        for keys in (run, run[::-1]):
            for length in range(len(keys), _RUN_MIN - 1, -1):
                for start in range(len(keys) - length + 1):
                    text = text.replace(keys[start : start + length], "")
    return text


@cache
def common() -> tuple[str, ...]:
    """The words that most broken passwords are made of, longest first."""
    text = resources.files(__package__).joinpath("common_passwords.txt").read_text("utf-8")
    words = [line for line in text.split() if not line.startswith("#")]
    return tuple(sorted(words, key=len, reverse=True))
