"""Attacks by devices: Modbus servers that lie, OPC UA answers that are none. Real sockets, no site."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from asyncua import ua
from attack_log import attack

sys.path.append(str(Path(__file__).parents[1] / "edge" / "connectors" / "modbus"))

from modbus_rig import connected, group  # the path is set above

from headrace.edge.connectors.modbus.protocol import FrameError, RtuFramer, TcpFramer
from headrace.edge.connectors.opcua.decode import (
    Undecodable,
    decode_history_data,
    decode_publish,
    decode_read,
)
from headrace.model.errors import HeadraceError, Transient

Answer = Callable[[bytes], bytes]
FRAME_BYTES_MAX = 600


@contextlib.asynccontextmanager
async def lying(answer: Answer) -> AsyncIterator[str]:
    """A Modbus server on loopback that answers each request with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while request := await reader.read(512):
                writer.write(answer(request))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"{host}:{port}"
    finally:
        server.close()


def framed(request: bytes, pdu: bytes, *, transaction: int | None = None, length: int = 0) -> bytes:
    number = struct.unpack(">H", request[:2])[0] if transaction is None else transaction
    return struct.pack(">HHHB", number, 0, length or len(pdu) + 1, request[6]) + pdu


async def what_becomes_of(answer: Answer) -> str:
    """Read one register of the lying server: the code of the error, or ``bad`` for a Bad sample."""
    async with lying(answer) as endpoint:
        try:
            async with connected(endpoint, timeout_s=0.3) as connector:
                reading = await connector.read(group("holding:0:uint16"))
                assert reading.batch["status"].to_numpy().min() >= 2**31, reading.batch
                return "bad"
        except HeadraceError as error:
            assert isinstance(error, Transient)
            return error.code


@attack(
    "devices/Modbus answers with wrong lengths",
    tries="answers with a byte count that is not the asked one, half a register, or 65,535 bytes to come",
    stops="an answer fits its request to the byte, or its samples are Bad; a frame has a most",
    stride="T",
    requirement="SR 3.5",
)
async def test_modbus_wrong_lengths() -> None:
    for pdu in (b"\x03\x04\0\1\0\2", b"\x03\x01\0", b"\x03\xff" + bytes(255), b"\x03", b"\x03\x02"):
        found = await what_becomes_of(lambda request, pdu=pdu: framed(request, pdu))  # type: ignore[misc]
        assert found in ("bad", "EDGE-3004", "EDGE-3003", "EDGE-3002"), (pdu, found)
    endless = await what_becomes_of(lambda request: framed(request, b"\x03\x02\0\1", length=65_535))
    assert endless in ("bad", "EDGE-3004", "EDGE-3002")


@attack(
    "devices/Modbus answers of another transaction",
    tries="answers earlier or later requests, other units, other functions, to slip in a false value",
    stops="an answer counts for its own transaction, unit and function only",
    stride="T",
    requirement="SR 3.1",
)
async def test_modbus_other_transactions() -> None:
    value = b"\x03\x02\x30\x39"
    for answer in (
        lambda request: framed(request, value, transaction=4_711),
        lambda request: framed(request, b"\x04\x02\x30\x39"),
        lambda request: framed(request[:6] + b"\x63", value),
    ):
        assert await what_becomes_of(answer) in ("bad", "EDGE-3004", "EDGE-3002", "EDGE-3003")


@attack(
    "devices/Modbus server that never ends",
    tries="answers with megabytes that are no Modbus, as fast as it can",
    stops="the framer keeps at most one frame; what is none ends the connection",
    stride="D",
    requirement="SR 7.1",
)
async def test_modbus_endless() -> None:
    assert await what_becomes_of(lambda _: b"\xff" * 1_000_000) in ("EDGE-3004", "EDGE-3003")
    assert await what_becomes_of(lambda _: b"HTTP/1.1 200 OK\r\n\r\n" * 1_000) in (
        "EDGE-3004",
        "EDGE-3003",
    )


@attack(
    "devices/Modbus server that is slow",
    tries="accepts a connection and says nothing, or one byte",
    stops="each exchange has a time; the device is told as silent, others go on",
    stride="D",
    requirement="SR 7.1",
)
async def test_modbus_slow() -> None:
    assert await what_becomes_of(lambda _: b"") in ("bad", "EDGE-3002", "EDGE-3003")
    assert await what_becomes_of(lambda request: request[:1]) in ("bad", "EDGE-3002", "EDGE-3003")


@attack(
    "devices/Modbus frames at random",
    tries="sends 4,000 pieces of random and of cut frames to the framers",
    stops="a framer gives frames or says that it is no Modbus; what it keeps has a bound",
    stride="D",
    requirement="SR 3.5",
)
def test_framers_take_anything() -> None:
    dice = np.random.default_rng(3)
    for make in (TcpFramer, RtuFramer):
        framer = make()
        for _ in range(2_000):
            piece = bytearray(dice.integers(0, 256, int(dice.integers(0, 40)), dtype=np.uint8))
            if len(piece) > 6 and dice.random() < 0.7:
                piece[2:5] = b"\0\0\0"
            try:
                for frame in framer.feed(bytes(piece)):
                    assert 0 < len(frame.pdu) <= FRAME_BYTES_MAX
            except FrameError:
                framer = make()


@attack(
    "devices/OPC UA answers that are none",
    tries="answers with arrays of 2^31 entries, cut values, types that do not exist, 3,000 random changes",
    stops="the fast decoder says that it cannot, before it allocates; nothing is half taken",
    stride="D",
    requirement="SR 3.5",
)
@pytest.mark.parametrize("decode", [decode_publish, decode_read, decode_history_data])
def test_opcua_answers_that_are_none(decode: Callable[[bytes], object]) -> None:
    dice = np.random.default_rng(5)
    seeds = [bytes(120), b"\x01\x00\x3d\x03" + bytes(100), b"\xff\xff\xff\x7f" * 40, b""]
    for n in range(3_000):
        body = bytearray(seeds[n % len(seeds)] + dice.bytes(int(dice.integers(0, 60))))
        for _ in range(int(dice.integers(0, 6))):
            if body:
                body[int(dice.integers(0, len(body)))] = int(dice.integers(0, 256))
        try:
            decode(bytes(body))
        except (Undecodable, HeadraceError, ua.UaError):  # UaError: a status that says it failed
            continue
