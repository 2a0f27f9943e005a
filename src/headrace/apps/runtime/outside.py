"""How an app reaches the hosts that its manifest names, and no others: the runtime connects for it.

::

    app's process                        runtime
    socket.create_connection(host, port) ──line of JSON──► is host:port in permissions.network? ──► connects
    a connected socket                   ◄──SCM_RIGHTS──

The process itself may make no socket and connect none (seccomp): to no address, by no other protocol, to no
name server. What it gets is connected already and cannot be connected anew. The runtime looks hosts up.
"""

from __future__ import annotations

import array
import asyncio
import errno
import json
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from headrace.model.decoding import UNREADABLE
from headrace.model.errors import HeadraceError, Refused, Transient

CONNECT_S: Final = 20.0
LINE_BYTES_MAX: Final = 1_024


class _Wanted(msgspec.Struct):
    host: str
    port: int
    timeout_s: float = CONNECT_S


class Outside:
    """The process' side: connects as :func:`socket.create_connection` does.

    Args:
        line: to the runtime.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._one_at_a_time = threading.Lock()

    def connect(
        self,
        address: tuple[str, int],
        timeout: Any = None,
        source_address: Any = None,
        *,
        all_errors: bool = False,
    ) -> socket.socket:
        """A socket that is connected to ``(host, port)``.

        Args:
            timeout: seconds, for connecting and for the socket; None or what is no number: none is set.

        Raises:
            PermissionError: the manifest does not name that place.
            OSError: nobody answers there.
        """
        del source_address, all_errors
        seconds = float(timeout) if isinstance(timeout, int | float) else None
        wanted = _Wanted(str(address[0]), int(address[1]), seconds or CONNECT_S)
        with self._one_at_a_time:
            self._line.sendall(msgspec.json.encode(wanted) + b"\n")
            raw, descriptors, _, _ = socket.recv_fds(self._line, 4 * LINE_BYTES_MAX, 1)
        if not raw:
            raise ConnectionError(errno.ECONNABORTED, "the runtime is gone")
        answer = json.loads(raw)
        if not descriptors:
            kind = PermissionError if answer["refused"] else ConnectionError
            number = errno.EPERM if answer["refused"] else errno.EHOSTUNREACH
            raise kind(number, answer["what"])
        made = socket.socket(fileno=descriptors[0])
        made.settimeout(seconds)
        return made

    def take_over(self) -> None:
        """From now on :func:`socket.create_connection`, which the standard library and httpx use, is this."""
        socket.create_connection = self.connect  # type: ignore[assignment] # the same call


class Doorman:
    """The runtime's side: connects to what the manifest names.

    Args:
        app_id: of the app. network: ``host:port`` each. refused: told when it asks for another place.
    """

    def __init__(
        self, app_id: str, network: Sequence[str], refused: Callable[[HeadraceError], None]
    ) -> None:
        self._app_id = app_id
        self._allowed = {_place(*_halves(each)) for each in network}
        self._refused = refused

    async def serve(self, line: socket.socket) -> None:
        """Answer until the other side is gone; ``line`` is closed then."""
        loop = asyncio.get_running_loop()
        line.setblocking(False)
        raw = b""
        try:
            while part := await loop.sock_recv(line, LINE_BYTES_MAX):
                raw += part
                if len(raw) > LINE_BYTES_MAX:
                    return
                while b"\n" in raw:
                    asked, _, raw = raw.partition(b"\n")
                    await self._answer(line, asked)
        except OSError:
            return  # it ended, or reads no answers
        finally:
            line.close()

    async def _answer(self, line: socket.socket, asked: bytes) -> None:
        try:
            made = await self._connected(asked)
        except HeadraceError as error:
            refused = isinstance(error, Refused)
            told = {"what": error.what[: LINE_BYTES_MAX // 2], "refused": refused}
            line.send(msgspec.json.encode(told))
            return
        with made:
            rights = array.array("i", [made.fileno()])
            line.sendmsg([b"{}"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    async def _connected(self, asked: bytes) -> socket.socket:
        try:
            wanted = msgspec.json.decode(asked, type=_Wanted)
        except UNREADABLE as error:
            raise Transient("APPS-2284", f"{self._app_id} asks what nobody understands") from error
        place = _place(wanted.host, wanted.port)
        if place not in self._allowed:
            named = ", ".join(sorted(self._allowed))
            foreign = Refused(
                "APPS-2283",
                f"{self._app_id} wanted to connect to {place[:200]}, which its manifest does not name",
                f"It names {named}. Ask who wrote it.",
            )
            self._refused(foreign)
            raise foreign
        address = _halves(place)
        timeout_s = min(max(wanted.timeout_s, 0.1), CONNECT_S)
        try:
            return await asyncio.to_thread(socket.create_connection, address, timeout_s)
        except OSError as error:
            raise Transient("APPS-2284", f"{place} cannot be reached: {error}") from error


def _halves(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    return host, int(port)


def _place(host: str, port: int) -> str:
    return f"{host.strip('[]').rstrip('.').lower()}:{port}"
