"""Whether this edge has more to do than it can.

One process serves all connections of an edge in turns. What tells that it is overloaded, whatever the
reason (too many tags, a slow disk in a callback, other programs on the machine), is how late it serves its
own timers: a wait of 250 ms that takes 400 ms. Polls that are missed meanwhile are the edge's fault, not
the device's: they are counted as ``missed_overload`` and told under their own code.

What is shed (docs/adr/0016): a poll that could not be made when it was due is not made later; the next one
on the grid is. So the newest values are read, none is read twice, and nothing waits in memory for it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from headrace.model.time import Clock

TICK_S: Final = 0.25
OVER_S: Final = 0.03
CALM_S: Final = 0.01
WEIGHT: Final = 0.3


class Load:
    """How late the event loop is, smoothed over about a second.

    Args:
        clock: time.

    Attributes:
        late_s: seconds by which timers are served too late.
        is_over: true from ``late_s`` above :data:`OVER_S` until it is below :data:`CALM_S`.

    Example:
        >>> from headrace.model.time import ManualClock
        >>> load = Load(ManualClock())
        >>> [load.note(0.1) or load.is_over for _ in range(2)], load.is_over
        ([False, True], True)
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.late_s = 0.0
        self.is_over = False

    def note(self, late_s: float) -> None:
        """Take in by how much one timer was late."""
        self.late_s += WEIGHT * (late_s - self.late_s)
        self.is_over = self.late_s > (CALM_S if self.is_over else OVER_S)

    async def watch(self) -> None:
        """Look at the event loop for ever."""
        while True:
            due_s = self._clock.monotonic_s() + TICK_S
            await asyncio.sleep(TICK_S)
            self.note(max(0.0, self._clock.monotonic_s() - due_s))
