"""The error tree. The class says what the caller can do; the code is stable API, the text is not.

::

    HeadraceError
    ├── Transient       try again, after ``retry_after_s`` when it is given
    ├── Terminal        trying again will not help; a person or a restart is needed
    ├── Refused         the other side, or our own policy, said no
    ├── Misconfigured   a file, a form or an argument is wrong; ``remedy`` says what to change
    └── Corrupt         data contradict their own checks; nothing was used

A code is ``ROOM-NNNN``: MODEL, FORM, BUS, EDGE, HIST, SITE, ALARM, APPS, SEC, CONS, CLI, SIM.
``docs/errors.md`` lists them all, and a test holds the list to the code. Each error tells its
own layer only; the cause travels by ``raise ... from``.
"""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"^[A-Z]{2,6}-\d{4}$")


class HeadraceError(Exception):
    """Base of all errors that a caller is meant to meet.

    Args:
        code: stable code, for example ``EDGE-1004``.
        what: what failed, on which named thing, with which value; one sentence.
        remedy: what to do now; one sentence. Empty when nothing can be done.

    Example:
        >>> str(Refused("EDGE-1004", "cannot read holding register 12 of press_3", "Check the map."))
        'EDGE-1004 cannot read holding register 12 of press_3. Check the map.'
    """

    def __init__(self, code: str, what: str, remedy: str = "") -> None:
        assert _CODE.match(code), f"not an error code: {code}"
        self.code = code
        self.what = what.rstrip(".")
        self.remedy = remedy
        super().__init__(f"{code} {self.what}. {remedy}".rstrip())

    def as_dict(self) -> dict[str, Any]:
        """The error as plain data, for REST answers, events and forms."""
        return {
            "code": self.code,
            "what": self.what,
            "remedy": self.remedy,
            "class": type(self).__name__,
        }


class Transient(HeadraceError):
    """The same call may succeed later; ``retry_after_s`` is a hint, None means the host's back-off."""

    def __init__(
        self, code: str, what: str, remedy: str = "", *, retry_after_s: float | None = None
    ) -> None:
        super().__init__(code, what, remedy)
        self.retry_after_s = retry_after_s


class Terminal(HeadraceError):
    """The same call will not succeed without a change from outside."""


class Refused(HeadraceError):
    """The device, the broker or our own policy refused the request."""


class Misconfigured(HeadraceError):
    """A setting is wrong. ``where`` names file, line and field when they are known."""

    def __init__(self, code: str, what: str, remedy: str = "", *, where: str = "") -> None:
        super().__init__(code, f"{where}: {what}" if where else what, remedy)
        self.where = where


class Corrupt(HeadraceError):
    """Stored or received data fail their own checks; they were not used."""


def error_from_dict(fields: dict[str, str]) -> HeadraceError:
    """The error that another process described with :meth:`HeadraceError.as_dict`, as its class.

    Example:
        >>> error_from_dict(Refused("EDGE-1020", "a/b is not writable").as_dict())
        Refused('EDGE-1020 a/b is not writable.')
    """
    classes = {kind.__name__: kind for kind in HeadraceError.__subclasses__()}
    kind = classes.get(fields.get("class", ""), HeadraceError)
    return kind(fields["code"], fields["what"], fields.get("remedy", ""))
