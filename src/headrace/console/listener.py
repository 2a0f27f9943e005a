"""The console's side of each TCP connection: nobody holds one by saying nothing, slowly, or without end.

uvicorn bounds neither how long a request's head may take, nor how many bytes it may have, nor how long a
reader may leave an answer lying. Here a connection that waits for a head is ended after ``HEAD_S``, a head
ends at ``HEAD_BYTES_MAX``, an answer that nobody takes ends after ``STALLED_S``, and of more than
``WAITING_MAX`` connections that wait the one that waits longest goes: a browser says what it wants at
once, so whoever holds connections open harms only himself.
"""

from __future__ import annotations

import asyncio
import resource
from collections import OrderedDict
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S: Final = 10.0
HEAD_BYTES_MAX: Final = 64 << 10
STALLED_S: Final = 30.0
WAITING_MAX: Final = 512
CONNECTIONS_MAX: Final = 4_096
OPEN_FILES_WANTED: Final = 16_384


def allow_open_files() -> int:
    """Let this process open as many files as the system lets it, up to 16,384; gives how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


def bounded_protocol(open_files: int) -> type[asyncio.Protocol]:
    """The protocol class for one server, which shares its bounds.

    Args:
        open_files: how many this process may open; connections take at most half of them.
    """
    waiting_max = min(WAITING_MAX, open_files // 4)
    connections_max = min(CONNECTIONS_MAX, open_files // 2)
    waiting: OrderedDict[_Bounded, None] = OrderedDict()

    class Bounded(_Bounded):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            self._waiting, self._waiting_max = waiting, waiting_max
            self._connections_max = connections_max

    return Bounded


class _Bounded(HttpToolsProtocol):
    _waiting: OrderedDict[_Bounded, None]
    _waiting_max: int
    _connections_max: int

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._head_bytes = 0
        self._head_over: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # uvicorn's own
        super().connection_made(transport)
        self._await_head()
        if len(self._waiting) > self._waiting_max:
            next(iter(self._waiting))._drop()
        elif len(self.connections) > self._connections_max:
            self._drop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._is_idle() or self.transport.is_closing():
            return
        self._await_head()
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self._drop()

    def on_headers_complete(self) -> None:
        self._head_came()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_S, self._drop)

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        if self._head_over is None:
            self._head_over = self.loop.call_later(HEAD_S, self._drop)
            self._waiting[self] = None

    def _head_came(self) -> None:
        self._head_bytes = 0
        self._waiting.pop(self, None)
        if self._head_over is not None:
            self._head_over.cancel()
            self._head_over = None

    def _drop(self) -> None:
        self._head_came()
        self.transport.abort()
