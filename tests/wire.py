"""A wire between two machines, as a test holds it: it passes, delays, is cut, or swallows everything."""

from __future__ import annotations

import asyncio


class Wire:
    """TCP from one loopback address to another.

    Args:
        near: (host, port) to listen on. far: where it leads.

    Attributes:
        delay_s: each way, from now on.
    """

    def __init__(self, near: tuple[str, int], far: tuple[str, int]) -> None:
        self._near = near
        self._far = far
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.Task[None]] = set()
        self._silent = False
        self.delay_s = 0.0

    async def connect(self) -> None:
        """Let everything pass, new connections included."""
        self._silent = False
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, *self._near)

    async def cut(self) -> None:
        """End all connections and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        lines = list(self._lines)
        for line in lines:
            line.cancel()
        await asyncio.gather(*lines, return_exceptions=True)

    def fall_silent(self) -> None:
        """Nothing passes any more and nobody is told; connections that are open now never recover."""
        self._silent = True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._lines.add(task)
        writers = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._far)
            writers.append(far_writer)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._copy(reader, far_writer))
                tasks.create_task(self._copy(far_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass  # cut
        finally:
            self._lines.discard(task)
            for each in writers:
                each.close()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        silenced = self._silent
        loop = asyncio.get_running_loop()
        while part := await source.read(65_536):
            silenced = silenced or self._silent
            if not silenced and self.delay_s:
                loop.call_later(self.delay_s, _write, sink, part)
            elif not silenced:
                sink.write(part)
                await sink.drain()
        sink.close()


def _write(sink: asyncio.StreamWriter, part: bytes) -> None:
    if not sink.is_closing():
        sink.write(part)
