"""Tells the edge's books on the bus: closed minutes for good, and the newest state each second.

::

    closed cells ──► stream LEDGER, acknowledged, then forgotten here
    all others   ──► bucket ``ledger``, key = edge: what is known of an edge that is killed

The next life of the edge finds the last page there. When it was not the orderly last one, it goes to
the stream as it is, marked ``killed``: at most its last second is then unknown, and has a name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

import msgspec

from headrace.bus.client import Bus
from headrace.bus.log import log_info
from headrace.bus.subjects import LEDGER_BUCKET, Subjects
from headrace.edge.books import Books
from headrace.edge.host import ConnectionHost
from headrace.model.errors import Refused, Transient
from headrace.model.ledger import LedgerPage

END_S: Final = 3.0
RETRY_S: Final = 0.5
PAGES_A_TURN: Final = 20


class LedgerTeller:
    """Tells the books of one edge.

    Args:
        bus: open.
        subjects: of this edge's site.
        books: what is told.
    """

    def __init__(self, bus: Bus, subjects: Subjects, books: Books) -> None:
        self._bus = bus
        self._subject = subjects.edge_ledger(books.edge)
        self._books = books
        self._begun = False

    async def begin(self) -> dict[str, int]:
        """Find out how the last life of this edge ended; call before anything is read.

        Returns:
            For each connection that was being polled when it was killed: when it last told, us.
        """
        while True:
            try:
                self._books.log_us = (await log_info(self._bus)).created_us
                last = await self._last_page()
                if last is not None and not last.end:
                    last.end = "killed"
                    await self._bus.publish_page(self._subject, last)
                await self._put(self._books.page())
            except Transient:
                await asyncio.sleep(RETRY_S)  # without the broker there is nothing to read either
                continue
            self._begun = True
            killed = last is not None and last.end == "killed"
            return dict.fromkeys(last.polled, last.at_us) if last is not None and killed else {}

    async def tell(self, hosts: Iterable[ConnectionHost]) -> None:
        """Tell what is closed for good, and write down the rest; nothing while the broker is away."""
        polled = []
        for host in hosts:
            host.count_away()
            if host.is_polled:
                polled.append(host.config.name)
        # The next turn tells the same again: counts are totals.
        with contextlib.suppress(Transient, Refused):
            await self._tell_closed()
            await self._put(self._books.page(polled=tuple(polled)))

    async def end(self) -> None:
        """Close the books, once every connection has stopped; nothing when they were never opened."""
        if not self._begun:
            return
        self._books.end()
        # Without the broker the next life finds the books open, as after a kill.
        with contextlib.suppress(Transient, Refused, TimeoutError):
            async with asyncio.timeout(END_S):
                while self._books.closed():
                    await self._tell_closed()
                page = self._books.page(end="clean")
                await self._bus.publish_page(self._subject, page)
                await self._put(page)

    async def _tell_closed(self) -> None:
        for _ in range(PAGES_A_TURN):
            cells = self._books.closed()
            if not cells:
                return
            await self._bus.publish_page(self._subject, self._books.page(cells))
            self._books.forget(cells)

    async def _last_page(self) -> LedgerPage | None:
        raw = await self._bus.get(LEDGER_BUCKET, self._books.edge)
        return msgspec.json.decode(raw, type=LedgerPage) if raw is not None else None

    async def _put(self, page: LedgerPage) -> None:
        await self._bus.put(LEDGER_BUCKET, self._books.edge, msgspec.json.encode(page))
