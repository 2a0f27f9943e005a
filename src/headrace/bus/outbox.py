"""Events of one source on their way to the broker: kept while it is away, the oldest dropped at a bound."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from headrace.bus.client import Bus
from headrace.model.errors import Transient
from headrace.model.health import Event, Severity
from headrace.model.time import Clock

WAITING_MAX: Final = 100
RETRY_S: Final = 1.0


class Outbox:
    """Takes events at any moment, from the event loop's thread, and sends them when it can.

    Args:
        bus: open.
        subject: of the events.
        source: what they are about, for example ``console/tail``.
    """

    def __init__(self, bus: Bus, subject: str, source: str, clock: Clock) -> None:
        self._bus = bus
        self._subject = subject
        self._source = source
        self._clock = clock
        self._waiting: deque[Event] = deque(maxlen=WAITING_MAX)
        self._has_some = asyncio.Event()

    def report(self, severity: Severity, code: str, text: str, remedy: str) -> None:
        """Queue one event of this source; returns at once."""
        self.put(
            Event(
                at_us=self._clock.now_us(),
                severity=severity,
                code=code,
                source=self._source,
                text=text,
                remedy=remedy,
            )
        )

    def put(self, event: Event) -> None:
        """Queue an event of another source; returns at once."""
        self._waiting.append(event)
        self._has_some.set()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._has_some.wait()
            self._has_some.clear()
            while self._waiting:
                event = self._waiting.popleft()
                try:
                    await self._bus.publish_event(self._subject, event)
                except Transient:
                    self._waiting.appendleft(event)
                    await asyncio.sleep(RETRY_S)
