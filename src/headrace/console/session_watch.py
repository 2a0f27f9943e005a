"""Watches the sessions behind open lines, WebSockets and live pages: what is revoked is cut within 2 s.

One query a second for all of them, and none when no line is open; each line only waits for its event.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from headrace.model.errors import HeadraceError
from headrace.security.identity import Identity

PERIOD_S: Final = 1.0
WATCHED_MAX: Final = 10_000
AT_ONCE: Final = 500
_LOG: Final = logging.getLogger(__name__)


class SessionWatch:
    """Tells who holds a line open when its session, or token, counts no more.

    Args:
        identity: is asked which still count.
        period_s: how often.
    """

    def __init__(self, identity: Identity, period_s: float = PERIOD_S) -> None:
        self._identity = identity
        self._period_s = period_s
        self._told: dict[str, set[Callable[[], None]]] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, secret: str, over: Callable[[], None]) -> Callable[[], None]:
        """Call ``over`` once, in the loop, when the secret counts no more; gives what ends the watch."""
        if len(self._told) >= WATCHED_MAX and secret not in self._told:
            over()
            return lambda: None
        self._told.setdefault(secret, set()).add(over)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

        def forget() -> None:
            calls = self._told.get(secret, set())
            calls.discard(over)
            if not calls:
                self._told.pop(secret, None)

        return forget

    @contextmanager
    def watching(self, secret: str) -> Iterator[asyncio.Event]:
        """An event that is set when the secret counts no more."""
        over = asyncio.Event()
        forget = self.add(secret, over.set)
        try:
            yield over
        finally:
            forget()

    async def _run(self) -> None:
        while self._told:
            await asyncio.sleep(self._period_s)
            secrets = list(self._told)
            for start in range(0, len(secrets), AT_ONCE):
                await self._look(secrets[start : start + AT_ONCE])

    async def _look(self, secrets: list[str]) -> None:
        try:
            alive = await asyncio.to_thread(self._identity.alive, secrets)
        except HeadraceError as error:
            _LOG.warning("cannot see which sessions are open: %s", error)  # asked again in a second
            return
        for secret in set(secrets) - alive:
            for over in self._told.pop(secret, set()):
                over()
