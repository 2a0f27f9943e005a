"""The second line of defence: secrets that this process knows are blotted out of what it says.

The first line is that nobody puts a secret into a text. A device may do it all the same: it may send the
password back in its own error. So whoever opens a secret tells it here, and log lines, events and states of
connections are blotted: the secret itself, and its base64, hex and URL-encoded forms.
"""

from __future__ import annotations

import base64
import logging
import threading
import traceback
from collections import OrderedDict
from typing import Final
from urllib.parse import quote, quote_plus

BLOT: Final = "***"
SHORTEST: Final = 6
"""Shorter secrets are not looked for: they would blot out ordinary words."""
KNOWN_MAX: Final = 10_000


class Redactor:
    """Knows secrets, and blots them out; one a process, see :data:`REDACTOR`.

    Example:
        >>> redactor = Redactor()
        >>> redactor.know("tulip-7731")
        >>> redactor.blotted("login as plc with tulip-7731 failed")
        'login as plc with *** failed'
    """

    def __init__(self) -> None:
        self._forms: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def know(self, secret: str) -> None:
        """From now on this secret is blotted out; the ten thousand newest are known."""
        if len(secret) < SHORTEST:
            return
        with self._lock:
            self._forms[secret] = forms_of(secret)
            self._forms.move_to_end(secret)
            while len(self._forms) > KNOWN_MAX:
                self._forms.popitem(last=False)

    def blotted(self, text: str) -> str:
        """The text without the secrets that are known."""
        with self._lock:
            known = [form for forms in self._forms.values() for form in forms]
        for form in sorted((form for form in known if form in text), key=len, reverse=True):
            text = text.replace(form, BLOT)
        return text


def forms_of(secret: str) -> tuple[str, ...]:
    """The secret as it may stand in texts: plain, base64 at each of three offsets, hex, URL-encoded.

    Example:
        >>> "c2VjcmV0" in forms_of("secret")
        True
    """
    raw = secret.encode()
    found = [secret, raw.hex(), quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]]
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            # Inside a longer text the first and last groups depend on the neighbours: without them.
            text = encode(b"\0" * before + raw).decode().rstrip("=")
            whole = text[(8 * before + 5) // 6 : len(text) - (1 if (before + len(raw)) % 3 else 0)]
            found += [text, whole] if before == 0 else [whole]
    return tuple(dict.fromkeys(form for form in found if len(form) >= SHORTEST))


REDACTOR: Final = Redactor()
"""Of this process."""


class LogFilter(logging.Filter):
    """Blots secrets out of log records, also out of tracebacks; put it on handlers."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = REDACTOR.blotted(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        if record.exc_text:
            record.exc_text = REDACTOR.blotted(record.exc_text)
        if record.stack_info:
            record.stack_info = REDACTOR.blotted(record.stack_info)
        return True


def guard_logs() -> None:
    """Blot secrets out of all that this process's root handlers write."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(each, LogFilter) for each in handler.filters):
            handler.addFilter(LogFilter())
