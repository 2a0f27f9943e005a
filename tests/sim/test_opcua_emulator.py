"""The OPC UA emulator as a device: foreign clients see what it was told, and it can be cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua

from headrace.model.errors import Misconfigured
from headrace.model.time import ManualClock
from headrace.sim.emulators import Point
from headrace.sim.emulators.opcua import OpcUaEmulator

T0 = 1_700_000_000_123_456
AT = datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=UTC)
POINTS = [
    Point("ns=2;s=a.b.x", unit="mm"),
    Point("ns=2;s=a.b", "int32", 0),
    Point("ns=3;i=77", "uint64", 0),
    Point("ns=2;s=wave", "float32", [0.0, 0.0, 0.0]),
    Point("ns=2;s=text", "string", "first", writable=True),
]


@pytest.fixture
async def emulator() -> AsyncIterator[OpcUaEmulator]:
    made = OpcUaEmulator(POINTS)
    await made.start()
    yield made
    await made.stop()


async def value_of(client: Client, node: str) -> ua.DataValue:
    return await client.get_node(node).read_data_value(raise_on_bad_status=False)


async def test_a_client_reads_values_times_and_status(emulator: OpcUaEmulator) -> None:
    await emulator.update(
        {"ns=2;s=a.b.x": 1.5, "ns=2;s=a.b": -3, "ns=3;i=77": 2**64 - 1, "ns=2;s=wave": [1, 2, 3]},
        T0,
        {"ns=2;s=a.b": 0x40930000, "ns=2;s=text": 0x808C0000},
    )
    async with Client(emulator.endpoint) as client:
        value = await value_of(client, "ns=2;s=a.b.x")
        assert (value.Value.Value, value.SourceTimestamp) == (1.5, AT)
        assert value.Value.VariantType == ua.VariantType.Double
        value = await value_of(client, "ns=2;s=a.b")
        assert (value.Value.Value, value.StatusCode.value) == (-3, 0x40930000)
        value = await value_of(client, "ns=3;i=77")
        assert (value.Value.Value, value.Value.VariantType) == (2**64 - 1, ua.VariantType.UInt64)
        value = await value_of(client, "ns=2;s=wave")
        assert (value.Value.Value, value.Value.VariantType) == ([1, 2, 3], ua.VariantType.Float)
        value = await value_of(client, "ns=2;s=text")
        assert (value.Value.Value, value.StatusCode.value) == (None, 0x808C0000)


async def test_dots_make_folders_and_a_point_in_the_way_makes_none(
    emulator: OpcUaEmulator,
) -> None:
    async with Client(emulator.endpoint) as client:
        folder = client.get_node("ns=2;s=a")
        assert await folder.read_node_class() == ua.NodeClass.Object
        names = [(await child.read_browse_name()).Name for child in await folder.get_children()]
        assert sorted(names) == ["b", "x"]
        units = await client.get_node("ns=2;s=a.b.x").get_child("0:EngineeringUnits")
        assert (await units.read_value()).DisplayName.Text == "mm"


async def test_what_was_never_updated_is_not_good(emulator: OpcUaEmulator) -> None:
    async with Client(emulator.endpoint) as client:
        value = await value_of(client, "ns=2;s=text")
        assert value.StatusCode.value == ua.StatusCodes.UncertainInitialValue
        assert value.Value.Value == "first"


async def test_an_update_is_all_or_nothing(emulator: OpcUaEmulator) -> None:
    await emulator.update({"ns=2;s=a.b": 1}, T0)
    for bad in ({"ns=2;s=a.b": 2, "ns=2;s=none": 1}, {"ns=2;s=a.b": 2, "ns=3;i=77": -1}):
        with pytest.raises(Misconfigured, match="SIM-200"):
            await emulator.update(bad, T0 + 1)
    async with Client(emulator.endpoint) as client:
        assert (await value_of(client, "ns=2;s=a.b")).Value.Value == 1


async def test_a_write_is_told_and_survives_a_restart() -> None:
    written: list[tuple[str, Any]] = []
    emulator = OpcUaEmulator(POINTS, on_write=lambda a, v: written.append((a, v)))
    await emulator.start()
    endpoint = emulator.endpoint
    async with Client(endpoint) as client:
        await client.get_node("ns=2;s=text").write_value("second")
        with pytest.raises(ua.UaStatusCodeError):
            await client.get_node("ns=2;s=a.b").write_value(1, ua.VariantType.Int32)
    assert written == [("ns=2;s=text", "second")]
    await emulator.stop()
    await emulator.start()
    assert emulator.endpoint == endpoint
    async with Client(endpoint) as client:
        assert (await value_of(client, "ns=2;s=text")).Value.Value == "second"
    await emulator.stop()


async def test_stop_cuts_the_line(emulator: OpcUaEmulator) -> None:
    client = Client(emulator.endpoint, timeout=2)
    await client.connect()
    await emulator.stop()
    with pytest.raises((ConnectionError, TimeoutError, ua.UaError)):
        await client.get_node("i=2258").read_value()
    await client.disconnect()
    host, port = emulator.endpoint.removeprefix("opc.tcp://").split(":")
    with pytest.raises(OSError):
        await asyncio.open_connection(host, int(port))


async def test_the_devices_clock_is_off_as_told() -> None:
    clock = ManualClock(T0)
    emulator = OpcUaEmulator(POINTS, clock=clock)
    emulator.clock_offset_us = -3_600_000_000
    await emulator.start()
    await emulator.update({"ns=2;s=a.b": 1}, T0)
    async with Client(emulator.endpoint) as client:
        now = await client.get_node("i=2258").read_value()
        assert (AT - now).total_seconds() == 3600
        value = await value_of(client, "ns=2;s=a.b")
        assert (AT - value.SourceTimestamp).total_seconds() == 3600
        assert (AT - value.ServerTimestamp).total_seconds() == 3600
    await emulator.stop()


async def test_a_slow_device_answers_late(emulator: OpcUaEmulator) -> None:
    async with Client(emulator.endpoint) as client:
        emulator.delay_s = 0.2
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        await value_of(client, "ns=2;s=a.b")
        assert loop.time() - start_s >= 0.2
        emulator.delay_s = 0.0


@pytest.mark.parametrize("address", ["", "ns=2", "ns=2;x=1", "ns=2;i=a", "ns=;s=a", "plain"])
async def test_an_address_that_is_no_node_id_is_refused(address: str) -> None:
    with pytest.raises(Misconfigured, match="SIM-2000"):
        await OpcUaEmulator([Point(address)]).start()


def test_security_needs_a_certificate(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="SIM-2000"):
        OpcUaEmulator([], security=["Sign"])
    OpcUaEmulator([], security=["Sign"], certificates=tmp_path)
