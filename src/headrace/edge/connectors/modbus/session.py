"""A TCP connection to a device: sends requests, matches answers, keeps time. Knows no tags.

The whole list of requests of a poll is one exchange with one future: when an answer arrives, the next
request leaves in the same turn of the event loop, without waking a task in between. That, and not the
parsing, is what makes a client slow or fast.

An answer must match a waiting request in transaction id, unit and function. One whose transaction is
unknown came too late and is thrown away and counted; one that contradicts its request ends the
connection, since nothing that follows could be trusted. Serial frames have no transaction id: there is
never more than one request on the line. A request that is cancelled on its way ends the connection in
both framings: there are servers (pymodbus 3.16 is one) that give a late answer the number of the newest
request, which no client could tell from data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from headrace.edge.connectors.modbus.config import ModbusSettings
from headrace.edge.connectors.modbus.protocol import (
    EXCEPTION_FLAG,
    Frame,
    FrameError,
    Request,
    RtuFramer,
    TcpFramer,
    rtu_frame,
    tcp_frame,
)
from headrace.model.errors import Transient


class Answer(NamedTuple):
    """The PDU that came back, and when (seconds of the event loop's clock)."""

    pdu: bytes
    at_s: float


class _Exchange:
    """Requests on their way: what was sent, what came back, which units are silent."""

    def __init__(self, requests: Sequence[Request], done: asyncio.Future[None]) -> None:
        self.requests = requests
        self.answers: list[Answer | None] = [None] * len(requests)
        self.next = 0
        self.silent: set[int] = set()
        self.done = done


class ModbusSession(asyncio.Protocol):
    """One TCP connection.

    Args:
        settings: where to connect, framing and limits.

    Attributes:
        timeout_s: how long one answer may take.
        in_flight: requests sent before the first answer came; used for lists of requests only.
        strict: answers must come complete and in order, or the connection ends.
        stale: answers thrown away since the last look; the connector takes and clears it.
    """

    def __init__(self, settings: ModbusSettings) -> None:
        self._settings = settings
        self._serial = settings.options.framing == "rtu_over_tcp"
        self.timeout_s = settings.options.timeout_s
        self.in_flight = settings.options.requests_in_flight or 1
        self.strict = False
        self._framer: TcpFramer | RtuFramer = RtuFramer() if self._serial else TcpFramer()
        self._loop = asyncio.get_running_loop()
        self._lock = asyncio.Lock()
        self._transport: asyncio.Transport | None = None
        self._lost: Transient | None = None
        self._exchange: _Exchange | None = None
        self._waiting: dict[int, tuple[int, float]] = {}  # transaction -> request, its deadline
        self._transaction = 0
        self._timer: asyncio.TimerHandle | None = None
        self.stale = 0

    async def open(self) -> None:
        """Connect.

        Raises:
            Transient: EDGE-3001 when nobody answers there in time.
        """
        where = self._settings
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._loop.create_connection(lambda: self, where.host, where.port)
        except (OSError, TimeoutError) as error:
            raise Transient(
                "EDGE-3001",
                f"cannot connect to {where.name} at {where.endpoint}: "
                f"{error or f'no answer within {self.timeout_s:g} s'}",
                "Check that the device is on, its address and port, and the network between.",
            ) from error

    async def exchange(self, requests: Sequence[Request]) -> list[Answer | None]:
        """Send the requests in order; the answers in the same order.

        Returns:
            For each request its answer, exceptions of the device included, or None when its unit was
            silent: after the first silence of a unit its further requests are not sent.

        Raises:
            Transient: EDGE-3003 the connection was lost, EDGE-3004 it does not speak Modbus.
        """
        async with self._lock:
            if self._lost is not None or self._transport is None:
                raise self._lost or self._not_open()
            exchange = self._exchange = _Exchange(requests, self._loop.create_future())
            try:
                self._send_more(exchange)
                await exchange.done
            except asyncio.CancelledError:
                if self._waiting:
                    self._end("EDGE-3003", "a request was cancelled on its way")
                raise
            finally:
                self._exchange = None
                self._waiting.clear()
            return exchange.answers

    def close(self) -> None:
        """Give up the connection at once."""
        self._end("EDGE-3003", "the connection was closed")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("EDGE-3003", f"the device closed the connection{f' ({exc})' if exc else ''}")

    def data_received(self, data: bytes) -> None:
        try:
            frames = self._framer.feed(data)
        except FrameError as error:
            self._end("EDGE-3004", str(error))
            return
        for frame in frames:
            self._take(frame)
        if frames and self._exchange is not None and self._transport is not None:
            self._send_more(self._exchange)

    def _take(self, frame: Frame) -> None:
        exchange = self._exchange
        key = next(iter(self._waiting), -1) if self._serial else frame.transaction
        waiting = self._waiting.get(key)
        if exchange is None or waiting is None:
            if self.strict and exchange is not None:
                self._end("EDGE-3004", "it answered what was not asked")
            self.stale += 1
            return
        if self.strict and key != next(iter(self._waiting)):
            self._end("EDGE-3004", f"{len(self._waiting)} requests were answered out of turn")
            return
        request = exchange.requests[waiting[0]]
        fits = frame.unit == request.unit and frame.pdu[0] & ~EXCEPTION_FLAG == request.pdu[0]
        if not fits and self._serial and frame.unit != request.unit:
            self.stale += 1  # a unit that was given up speaks at last
            return
        if not fits:
            self._end(
                "EDGE-3004",
                f"unit {request.unit} was asked for function {request.pdu[0]}, but unit "
                f"{frame.unit} answered function {frame.pdu[0] & ~EXCEPTION_FLAG}",
            )
            return
        del self._waiting[key]
        exchange.answers[waiting[0]] = Answer(frame.pdu, self._loop.time())

    def _send_more(self, exchange: _Exchange) -> None:
        transport = self._transport
        assert transport is not None, "exchange and data_received run only while connected"
        now_s = self._loop.time()
        frames: list[bytes] = []  # written as one: a system call costs more than all the rest
        while len(self._waiting) < self.in_flight and exchange.next < len(exchange.requests):
            number = exchange.next
            exchange.next += 1
            request = exchange.requests[number]
            if request.unit in exchange.silent:
                continue
            self._transaction = self._transaction % 0xFFFF + 1
            self._waiting[self._transaction] = (number, now_s + self.timeout_s)
            if self._serial:
                self._framer.reset()
                frames.append(rtu_frame(request.unit, request.pdu))
            else:
                frames.append(tcp_frame(self._transaction, request.unit, request.pdu))
        if frames:
            transport.write(b"".join(frames))
        if self._waiting:
            # One timer for all requests, moved only when it fires: cheaper than one a request.
            if self._timer is None:
                self._timer = self._loop.call_at(now_s + self.timeout_s, self._check_time)
        elif not exchange.done.done():
            exchange.done.set_result(None)

    def _check_time(self) -> None:
        self._timer = None
        exchange = self._exchange
        if exchange is None or not self._waiting:
            return
        now_s = self._loop.time()
        for key, (number, deadline_s) in list(self._waiting.items()):
            if deadline_s <= now_s:
                if self.strict:
                    waited = f"{len(self._waiting)} requests were not answered in time"
                    self._end("EDGE-3002", waited)
                    return
                exchange.silent.add(exchange.requests[number].unit)
                del self._waiting[key]
        if self._waiting:
            deadline_s = next(iter(self._waiting.values()))[1]
            self._timer = self._loop.call_at(deadline_s, self._check_time)
        self._send_more(exchange)

    def _end(self, code: str, why: str) -> None:
        """The connection is over; whoever waits learns why."""
        if self._lost is None:
            self._lost = Transient(
                code,
                f"lost {self._settings.name} at {self._settings.endpoint}: {why}",
                "A new connection is tried; check the device when this comes back.",
            )
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        exchange, self._exchange = self._exchange, None
        if exchange is not None and not exchange.done.done():
            exchange.done.set_exception(self._lost)

    def _not_open(self) -> Transient:
        return Transient(
            "EDGE-3003", f"{self._settings.name} is not connected", "Connect before you read."
        )
