"""Versions ``major.minor.patch``, and ranges of them such as ``>=1.2, <2``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from headrace.model.errors import Misconfigured

Version = tuple[int, int, int]
_VERSION: Final = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})", re.ASCII)
_BOUND: Final = re.compile(
    r"(>=|<=|==|!=|>|<)?\s*(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?", re.ASCII
)


def parse_version(text: str) -> Version | None:
    """The numbers of a version; None when it is none.

    Example:
        >>> parse_version("1.2.10") > parse_version("1.2.9")
        True
    """
    match = _VERSION.fullmatch(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def platform_version(text: str) -> Version:
    """The numbers at the head of a platform's version, whatever follows them: ``0.2.0.dev1`` is 0.2.0."""
    numbers = [int(each) for each in re.findall(r"\d+", re.split(r"[a-z+-]", text)[0])[:3]]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    return major, minor, patch


def is_range(text: str) -> bool:
    """Whether a text is a range; an empty one is: of all versions.

    Example:
        >>> is_range(">=1.0, <2"), is_range("~1"), is_range("")
        (True, False, True)
    """
    return not text.strip() or all(_BOUND.fullmatch(each.strip()) for each in text.split(","))


def in_range(version: Version, text: str) -> bool:
    """Whether a version lies in a range. A bound without a sign is that version and all below it.

    Raises:
        Misconfigured: APPS-2008 when the text is no range.

    Example:
        >>> in_range((1, 4, 0), ">=1.2, <2"), in_range((1, 4, 0), "1"), in_range((2, 0, 0), "1")
        (True, True, False)
    """
    if not is_range(text):
        raise Misconfigured(
            "APPS-2008", f"{text!r} is no range of versions", "Write for example >=1.2, <2"
        )
    return all(_holds(version, each.strip()) for each in text.split(",") if each.strip())


def newest(versions: Iterable[str], text: str = "") -> str | None:
    """The newest version that lies in a range; None when none does."""
    found = [
        (version, each)
        for each in versions
        if (version := parse_version(each)) is not None and in_range(version, text)
    ]
    return max(found)[1] if found else None


def _holds(version: Version, bound: str) -> bool:
    match = _BOUND.fullmatch(bound)
    assert match is not None
    given = [int(each) for each in match.groups()[1:] if each is not None]
    head = list(version[: len(given)])
    full = list(version)
    low = given + [0] * (3 - len(given))
    sign = match[1] or "=="
    return {
        "==": head == given,
        "!=": head != given,
        ">=": full >= low,
        "<": full < low,
        ">": head > given,
        "<=": head <= given,
    }[sign]
