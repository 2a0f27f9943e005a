"""What decoding bytes that somebody else wrote can raise.

msgspec tells what does not fit as its own errors, but text that is no UTF-8 as ``UnicodeDecodeError``, and what
is nested thousands of levels deep as ``RecursionError``. Whoever reads from a network or a file catches all.
"""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""For ``except UNREADABLE as error``.

Example:
    >>> def read(body: bytes) -> object:
    ...     try:
    ...         return msgspec.json.decode(body)
    ...     except UNREADABLE:
    ...         return None
    >>> read(b"[" * 100_000), read(b'"\\xff"'), read(b"{"), read(b"7")
    (None, None, None, 7)
"""
