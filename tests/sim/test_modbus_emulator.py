"""The Modbus emulator as other clients see it: pymodbus's own client reads what was shown."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.framer import FramerType

from headrace.model import status as codes
from headrace.model.errors import Misconfigured, Transient
from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator

POINTS = [
    Point("holding:0:float32:CDAB", "float32", 20.5),
    Point("holding:2:int16", "int16", -2, writable=True),
    Point("holding:3:bit0", "bool", initial=False, writable=True),
    Point("holding:3:bit15", "bool", initial=True),
    Point("input:0:string4", "string", "ab"),
    Point("coil:1", "bool", initial=True, writable=True),
    Point("7/holding:0", "uint16", 70),
]


@pytest.fixture(params=["tcp", "rtu_over_tcp"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[tuple[ModbusEmulator, Any]]:
    """The emulator, and pymodbus's client connected to it."""
    emulator = ModbusEmulator(POINTS, framing=request.param)
    await emulator.start()
    host, port = emulator.endpoint.split(":")
    framer = FramerType.SOCKET if request.param == "tcp" else FramerType.RTU
    client = AsyncModbusTcpClient(host, port=int(port), framer=framer, timeout=2, retries=0)
    assert await client.connect()
    yield emulator, client
    client.close()
    await emulator.stop()


async def test_a_foreign_client_reads_what_is_shown(pair: tuple[ModbusEmulator, Any]) -> None:
    emulator, client = pair
    registers = (await client.read_holding_registers(0, count=4, device_id=1)).registers
    low, high, number, bits = registers
    assert struct.unpack(">f", struct.pack(">HH", high, low)) == (20.5,)
    assert (number, bits) == (65534, 0x8000)
    assert (await client.read_input_registers(0, count=2, device_id=1)).registers == [0x6162, 0]
    assert (await client.read_coils(1, count=1, device_id=1)).bits[0] is True
    assert (await client.read_holding_registers(0, count=1, device_id=7)).registers == [70]
    await emulator.update({"holding:3:bit0": True, "holding:3:bit15": False}, 1)
    assert (await client.read_holding_registers(3, count=1, device_id=1)).registers == [1]


async def test_what_does_not_exist_is_an_exception(pair: tuple[ModbusEmulator, Any]) -> None:
    _, client = pair
    assert (await client.read_holding_registers(3, count=2, device_id=1)).exception_code == 2
    assert (await client.read_discrete_inputs(0, count=1, device_id=1)).exception_code == 2
    assert (await client.read_holding_registers(0, count=1, device_id=9)).exception_code == 11
    assert (await client.write_register(0, 1, device_id=1)).exception_code == 2, "not writable"


async def test_writes_reach_the_points_and_the_handler(pair: tuple[ModbusEmulator, Any]) -> None:
    emulator, client = pair
    told: list[tuple[str, Any]] = []
    emulator._on_write = lambda address, value: told.append((address, value))
    assert not (await client.write_register(2, 0xFFFB, device_id=1)).isError()
    assert not (await client.write_coil(1, False, device_id=1)).isError()
    assert not (
        await client.mask_write_register(address=3, and_mask=0xFFFE, or_mask=1, device_id=1)
    ).isError()
    assert told == [("holding:2:int16", -5), ("coil:1", False), ("holding:3:bit0", True)]


async def test_a_bad_point_is_exception_4_until_it_is_good(
    pair: tuple[ModbusEmulator, Any],
) -> None:
    emulator, client = pair
    await emulator.update({}, 1, {"holding:2:int16": codes.BAD_SENSOR_FAILURE})
    assert (await client.read_holding_registers(0, count=4, device_id=1)).exception_code == 4
    assert not (await client.read_holding_registers(0, count=2, device_id=1)).isError()
    await emulator.update({"holding:2:int16": 3}, 2, {"holding:0:float32:CDAB": codes.UNCERTAIN})
    assert not (await client.read_holding_registers(0, count=4, device_id=1)).isError()


async def test_an_update_with_one_wrong_value_changes_nothing() -> None:
    emulator = ModbusEmulator(POINTS, record_sequence="holding:9", record_acknowledge="holding:10")
    before = emulator._memories[(1, "holding")].values.copy()
    for values in ({"holding:2:int16": 40_000}, {"holding:5": 1}, {"holding:2:int16": [1.0]}):
        with pytest.raises(Misconfigured):
            await emulator.update({"holding:0:float32:CDAB": 99.0, **values}, 1)
        assert (emulator._memories[(1, "holding")].values[:9] == before[:9]).all()


async def test_the_clock_runs_with_its_offset_and_records_count() -> None:
    emulator = ModbusEmulator(
        [Point("holding:0")],
        timestamp="holding:10:uint64@ms",
        record_sequence="holding:20:uint16",
        record_acknowledge="holding:21:uint16",
    )
    await emulator.start()
    host, port = emulator.endpoint.split(":")
    client = AsyncModbusTcpClient(host, port=int(port), timeout=2, retries=0)
    assert await client.connect()
    emulator.clock_offset_us = 500_000
    await emulator.update({"holding:0": 1}, 1_000_000)
    clock = (await client.read_holding_registers(10, count=4, device_id=1)).registers
    assert clock == [0, 0, 0, 1500]
    waiting = asyncio.ensure_future(emulator.wait_acknowledged(1, 5.0))
    await client.write_register(21, emulator.sequence, device_id=1)
    await waiting
    with pytest.raises(Transient, match="record 2 was not acknowledged") as caught:
        await emulator.wait_acknowledged(2, 0.05)
    assert caught.value.code == "SIM-3004"
    emulator.sequence = 65_535
    await emulator.update({}, 2_000_000)
    assert emulator.sequence == 1, "the number wraps to 1: 0 means no record"
    client.close()
    await emulator.stop()


async def test_it_stops_hard_and_starts_on_the_same_port() -> None:
    emulator = ModbusEmulator(POINTS)
    await emulator.start()
    host, port = emulator.endpoint.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await emulator.stop()
    async with asyncio.timeout(2):
        assert await reader.read() == b"", "the client sees the end at once"
    writer.close()
    with pytest.raises(OSError, match=r"\d"):
        await asyncio.open_connection(host, int(port))
    await emulator.start()
    assert emulator.endpoint == f"{host}:{port}"
    _, writer = await asyncio.open_connection(host, int(port))
    writer.close()
    other = ModbusEmulator(POINTS, emulator.endpoint)
    with pytest.raises(Transient, match="cannot listen"):
        await other.start()
    await emulator.stop()


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(Misconfigured, match="no tick"):
        ModbusEmulator([], timestamp="holding:0:uint64")
    with pytest.raises(Misconfigured, match="cannot be an array"):
        ModbusEmulator([Point("holding:0", initial=[1.0, 2.0])])
