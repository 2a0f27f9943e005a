"""What happened in a simulated world, in order; two runs are the same when their digests are."""

from __future__ import annotations

import hashlib
from collections import deque
from typing import Final

from headrace.sim.world.loop import VirtualLoop

LINES_MAX: Final = 2_000


class Trace:
    """Lines of ``time actor what``.

    Args:
        loop: gives the time.

    Example:
        >>> trace = Trace(VirtualLoop())
        >>> trace.note("broker", "up")
        >>> trace.tail(1)
        ['    0.000000 broker     up']
    """

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._hash = hashlib.blake2b(digest_size=16)
        self._lines: deque[str] = deque(maxlen=LINES_MAX)

    def note(self, actor: str, text: str) -> None:
        """Something happened now."""
        line = f"{self._loop.time():12.6f} {actor:<10} {text}"
        self._lines.append(line)
        self._hash.update(line.encode() + b"\n")

    def digest(self) -> str:
        """Of everything so far, also of what the tail has forgotten."""
        return self._hash.hexdigest()

    def tail(self, lines: int) -> list[str]:
        """The newest lines, oldest first."""
        return list(self._lines)[-lines:]
