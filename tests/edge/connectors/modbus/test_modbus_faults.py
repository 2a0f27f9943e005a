"""What goes wrong on the way: silence, late answers, foreign answers, lost connections."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from modbus_rig import by_address, connected, group

from headrace.edge.connectors.modbus.protocol import rtu_frame, tcp_frame
from headrace.model import status as codes
from headrace.model.errors import Transient
from headrace.model.time import ManualClock
from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[str]:
    """A server that does what the script says with each connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await script(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def request(reader: asyncio.StreamReader) -> tuple[int, int, int]:
    """The next read request: transaction, unit, count."""
    raw = await reader.readexactly(12)
    transaction, _, _, unit, _, _, count = struct.unpack(">HHHBBHH", raw)
    return transaction, unit, count


def registers(*values: int) -> bytes:
    return bytes((3, 2 * len(values))) + struct.pack(f">{len(values)}H", *values)


async def test_a_silent_proxy_is_transient_within_the_timeout() -> None:
    """Half-open TCP: the connection stands, nothing comes back."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with scripted(swallow) as endpoint, connected(endpoint, timeout_s=0.2) as connector:
        start = asyncio.get_running_loop().time()
        with pytest.raises(Transient) as caught:
            await connector.read(group(*(f"holding:{at}" for at in range(0, 1000, 200))))
        assert caught.value.code == "EDGE-3002"
        assert asyncio.get_running_loop().time() - start < 1.0, "one timeout, not one a block"


async def test_a_late_answer_is_thrown_away_and_told() -> None:
    held: list[tuple[int, int, int]] = []

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(await request(reader))  # the first request is not answered in time
        transaction, unit, _ = await request(reader)
        writer.write(tcp_frame(held[0][0], held[0][1], registers(111)))
        writer.write(tcp_frame(transaction, unit, registers(222)))
        await reader.read()

    async with scripted(late) as endpoint, connected(endpoint, timeout_s=0.2) as connector:
        with pytest.raises(Transient):
            await connector.read(group("holding:0"))
        reading = await connector.read(group("holding:0"))
        assert reading.batch["value"].to_list() == [222.0]
        assert [code for code, _ in reading.notices] == ["EDGE-3010"]


@pytest.mark.parametrize(
    ("unit", "pdu"),
    [
        (7, registers(1)),
        (1, b"\x04\x02\x00\x01"),
        (1, registers(1, 2)),
        (1, b"\x03\x02\x00"),
    ],
    ids=["other unit", "other function", "too many registers", "too few bytes"],
)
async def test_an_answer_that_contradicts_its_request_is_never_data(unit: int, pdu: bytes) -> None:
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transaction, _, _ = await request(reader)
        writer.write(tcp_frame(transaction, unit, pdu))
        await reader.read()

    async with scripted(lie) as endpoint, connected(endpoint) as connector:
        with pytest.raises(Transient) as caught:
            await connector.read(group("holding:0"))
        assert caught.value.code == "EDGE-3004"


async def test_what_is_no_modbus_at_all_is_told() -> None:
    async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with scripted(http) as endpoint, connected(endpoint) as connector:
        with pytest.raises(Transient, match="MBAP header") as caught:
            await connector.read(group("holding:0"))
        assert caught.value.code == "EDGE-3004"


async def test_a_wrong_crc_is_never_data() -> None:
    async def noisy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)
        frame = bytearray(rtu_frame(1, registers(5)))
        frame[3] ^= 1
        writer.write(bytes(frame))
        await reader.read()

    async with (
        scripted(noisy) as endpoint,
        connected(endpoint, framing="rtu_over_tcp") as connector,
    ):
        with pytest.raises(Transient, match="CRC") as caught:
            await connector.read(group("holding:0"))
        assert caught.value.code == "EDGE-3004"


async def test_a_connection_lost_in_the_middle_is_transient_at_once() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transaction, unit, _ = await request(reader)
        writer.write(tcp_frame(transaction, unit, registers(1))[:8])

    async with scripted(hang_up) as endpoint, connected(endpoint, timeout_s=30.0) as connector:
        async with asyncio.timeout(5.0):
            with pytest.raises(Transient) as caught:
                await connector.read(group("holding:0"))
        assert caught.value.code == "EDGE-3003"
        with pytest.raises(Transient):
            await connector.read(group("holding:0"))


@pytest.mark.parametrize("framing", ["tcp", "rtu_over_tcp"])
async def test_one_silent_unit_does_not_stop_the_others(framing: str) -> None:
    asks: list[int] = []
    clock = ManualClock()

    async def two_units(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if framing == "tcp":
                transaction, unit, count = await request(reader)
                asks.append(unit)
                if unit == 1:
                    writer.write(tcp_frame(transaction, unit, registers(*range(count))))
            else:
                raw = await reader.readexactly(8)
                asks.append(raw[0])
                if raw[0] == 1:
                    writer.write(rtu_frame(1, registers(*range(raw[5]))))

    asked = group("1/holding:0", "2/holding:0", "2/holding:500", "1/holding:901")
    async with (
        scripted(two_units) as endpoint,
        connected(endpoint, clock, framing=framing, timeout_s=0.2) as connector,
    ):
        reading = await connector.read(asked)
        shown = by_address(reading, asked)
        assert shown["1/holding:0"] == (0.0, None, 0)
        assert shown["1/holding:901"] == (0.0, None, 0)
        assert shown["2/holding:0"] == (None, None, codes.BAD_TIMEOUT)
        assert shown["2/holding:500"] == (None, None, codes.BAD_TIMEOUT)
        assert "EDGE-3023" in reading.tag_errors[2]
        assert asks == [1, 1, 2], "one timeout a unit, not one a block"
        again = await connector.read(asked)
        assert asks == [1, 1, 2, 1, 1], "a silent unit is left alone for a while"
        assert sorted(again.tag_errors) == [2, 3]
        clock.advance_us(11_000_000)
        await connector.read(asked)
        assert asks == [1, 1, 2, 1, 1, 1, 1, 2]


async def test_requests_in_flight_may_be_answered_in_any_order() -> None:
    async def shuffle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            asked = [await request(reader) for _ in range(4)]
            for transaction, unit, count in reversed(asked):
                writer.write(tcp_frame(transaction, unit, registers(*[count] * count)))

    asked = group("holding:0", "holding:100:uint32", "holding:200:uint64", "holding:300:float64")
    async with (
        scripted(shuffle) as endpoint,
        connected(endpoint, requests_in_flight=4) as connector,
    ):
        for _ in range(3):
            shown = by_address(await connector.read(asked), asked)
            assert shown["holding:0"][0] == 1.0
            assert shown["holding:100:uint32"][0] == 0x0002_0002
            assert shown["holding:200:uint64"][0] == 0x0004_0004_0004_0004


async def test_a_restarted_device_is_read_by_the_next_session() -> None:
    emulator = ModbusEmulator([Point("holding:0", initial=5)])
    await emulator.start()
    endpoint = emulator.endpoint
    async with connected(endpoint) as connector:
        assert (await connector.read(group("holding:0"))).batch["value"].to_list() == [5.0]
        await emulator.stop()
        with pytest.raises(Transient):
            await connector.read(group("holding:0"))
    await emulator.start()
    assert emulator.endpoint == endpoint
    async with connected(endpoint) as connector:
        assert (await connector.read(group("holding:0"))).batch["value"].to_list() == [5.0]
    await emulator.stop()


async def test_a_cancelled_read_does_not_poison_the_next_one() -> None:
    emulator = ModbusEmulator([Point("holding:0", initial=5), Point("holding:500", initial=6)])
    await emulator.start()
    async with connected(emulator.endpoint, timeout_s=2.0) as connector:
        emulator.delay_s = 0.3
        reading = asyncio.ensure_future(connector.read(group("holding:0")))
        await asyncio.wait({reading}, timeout=0.1)
        reading.cancel()
        await asyncio.wait({reading})
        with pytest.raises(Transient, match="cancelled on its way"):
            await connector.read(group("holding:500"))
    async with connected(emulator.endpoint, timeout_s=2.0) as connector:
        shown = await connector.read(group("holding:500"))
        assert shown.batch["value"].to_list() == [6.0]
    await emulator.stop()
