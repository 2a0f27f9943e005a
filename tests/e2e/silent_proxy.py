"""A TCP proxy that can fall silent: connections stay open, and nothing passes any more."""

from __future__ import annotations

import asyncio
import threading
from typing import Any


class SilentProxy:
    """Forwards to a server until it is told to be silent, as a firewall that lost its table does.

    Args:
        port: of the server on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._silent = False
        self._lines: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._listener = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._listener.sockets[0].getsockname()[1]

    def set_silent(self, silent: bool) -> None:
        """From now on nothing passes, new connections included; or all new connections do."""
        self._silent = silent

    def stop(self) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _end(self) -> None:
        self._listener.close()
        for line in self._lines:
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
        except ConnectionError:
            pass
        finally:
            self._lines.discard(task)
            writer.close()
            far_writer.close()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        silenced = self._silent
        while part := await source.read(65536):
            silenced = silenced or self._silent
            if not silenced:
                sink.write(part)
                await sink.drain()
        sink.close()

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
