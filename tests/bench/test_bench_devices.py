"""Devices recorded through their connectors, and shown again: the same samples, and faults on top."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from headrace.bench import recorder
from headrace.bench.device_recording import DeviceRecording, RecordedPoint, load_recording
from headrace.bench.device_replay import DeviceFault, DeviceReplay, device_emulator
from headrace.bench.recorder import find_points, record_device
from headrace.cli.app import build
from headrace.edge.catalog import connector_type
from headrace.edge.contract import ConnectorContext, ScanGroup
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Corrupt, Misconfigured, Transient
from headrace.model.status import BAD
from headrace.model.time import SystemClock
from headrace.sim.emulators import Emulator, Point
from headrace.sim.emulators.modbus import ModbusEmulator
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from headrace.sim.emulators.opcua import OpcUaEmulator
from mqtt_brokers import BROKERS, MqttBroker

MODBUS = {
    "input:0:float32:CDAB": 1.5,
    "holding:8:int16": -7,
    "coil:2": True,
    "holding:20:string4": "run",
}
OPCUA = {"ns=2;s=cnc.spindle.speed": 900.25, "ns=2;s=cnc.program": "O1000", "ns=2;s=cnc.door": True}


def context(folder: Path) -> ConnectorContext:
    return ConnectorContext(clock=SystemClock(), certificates=folder, secret=str)


def connection(device: Emulator, protocol: str, **options: Any) -> ConnectionConfig:
    return ConnectionConfig(
        name="plc", protocol=protocol, endpoint=device.endpoint, options=options
    )


def modbus_device() -> ModbusEmulator:
    return ModbusEmulator(
        [
            Point("input:0:float32:CDAB", "float32"),
            Point("holding:8:int16", "int16", 0),
            Point("coil:2", "bool", initial=False),
            Point("holding:20:string4", "string", ""),
        ]
    )


async def recorded(tmp_path: Path, protocol: str) -> DeviceRecording:
    """A device whose first value counts up while it is recorded."""
    shown: dict[str, Any] = dict(MODBUS if protocol == "modbus" else OPCUA)
    device: Emulator = modbus_device()
    if protocol == "opcua":
        kinds: dict[type, Any] = {float: "float64", str: "string", bool: "bool"}
        device = OpcUaEmulator([Point(a, kinds[type(v)], v) for a, v in shown.items()])
    await device.start()
    await device.update(shown, SystemClock().now_us())
    told = asyncio.Event()
    count = 0

    async def move() -> None:
        nonlocal count
        while True:
            await told.wait()
            told.clear()
            count += 1
            await device.update({next(iter(shown)): 100.5 + count}, SystemClock().now_us())

    mover = asyncio.create_task(move())
    made = connection(device, protocol)
    try:
        points = (
            [p for p in await find_points(made, context(tmp_path)) if p.address in shown]
            if (protocol == "opcua")
            else [point_of(a) for a in shown]
        )
        recording = await record_device(
            made, points, context(tmp_path), 1.5, interval_ms=50, tell=lambda *_: told.set()
        )
    finally:
        mover.cancel()
        await device.stop()
    assert count > 2
    recording.save(tmp_path / "device.hrec")
    return load_recording(tmp_path / "device.hrec")


def point_of(address: str) -> RecordedPoint:
    return RecordedPoint(address=address, data_type="Boolean" if address == "coil:2" else "")


def group_of(recording: DeviceRecording) -> ScanGroup:
    return ScanGroup(
        50,
        tuple(
            TagConfig(tag_id=n, path=f"a/b/t{n}", address=p.address, scan_interval_ms=50)
            for n, p in enumerate(recording.device.points)
        ),
    )


async def test_modbus_comes_out_as_it_went_in(tmp_path: Path) -> None:
    recording = await recorded(tmp_path, "modbus")
    assert recording.errors == 0
    assert recording.exchanges["latency_us"].min() > 0  # type: ignore[operator] # a number
    device = device_emulator(recording)
    replay = DeviceReplay(recording, device)
    await device.start()
    await replay.step(0)
    group = group_of(recording)
    plc = ConnectionConfig(name="plc", protocol="modbus", endpoint=device.endpoint, tags=group.tags)
    session = connector_type("modbus").open(plc, context(tmp_path))
    columns = ("point", "value", "text", "status")
    try:
        await session.connect()
        for number, (_, wanted) in enumerate(
            recording.samples.group_by("exchange", maintain_order=True)
        ):
            await replay.step(number)
            reading = await session.read(group)
            found = reading.batch.rename({"tag_id": "point"}).select(columns).sort("point")
            assert found.equals(wanted.select(columns).sort("point"))
    finally:
        await session.close()
        await device.stop()
    values = recording.samples.filter(point=0)["value"].unique(maintain_order=True).to_list()
    assert values[0] == 1.5 and values[1:] == [101.5 + n for n in range(len(values) - 1)]


@pytest.mark.soak
async def test_opcua_is_browsed_recorded_and_shown_again(tmp_path: Path) -> None:
    recording = await recorded(tmp_path, "opcua")
    assert {p.address for p in recording.device.points} == set(OPCUA)
    place = [p.address for p in recording.device.points].index("ns=2;s=cnc.spindle.speed")
    wanted = recording.samples.filter(point=place).select("at_us", "value").rows()
    assert len(wanted) > 2
    device = device_emulator(recording)
    replay = DeviceReplay(recording, device)
    await device.start()
    await replay.step(0)
    again = connection(device, "opcua")

    async def show() -> None:
        for number in range(1, len(replay.moments)):
            await replay.step(number)

    # The connector tells one change after another; what it saw last is what the recording ended with.
    showing = asyncio.create_task(asyncio.wait_for(show(), 60))
    await showing
    seen = await record_device(
        again, recording.device.points, context(tmp_path), 1.0, interval_ms=50
    )
    await device.stop()
    last = seen.samples.filter(point=place).select("at_us", "value").rows()[-1]
    assert last == wanted[-1]


async def test_a_recorded_device_has_faults(tmp_path: Path) -> None:
    recording = await recorded(tmp_path, "modbus")
    device = device_emulator(recording)
    end_s, last_s = 1e9, DeviceReplay(recording, device).moments[-1]
    faults = [
        DeviceFault(kind="stuck", at_s=0.0001, until_s=end_s, addresses=("input:*",)),
        DeviceFault(kind="bad", at_s=0.0001, until_s=end_s, addresses=("holding:8*",)),
        DeviceFault(kind="off", at_s=last_s, until_s=end_s),
    ]
    replay = DeviceReplay(recording, device, faults)
    await device.start()
    await replay.step(0)
    group = group_of(recording)
    plc = ConnectionConfig(
        name="plc", protocol="modbus", endpoint=device.endpoint, options={"timeout_s": 1.0},
        tags=group.tags,
    )  # fmt: skip
    session = connector_type("modbus").open(plc, context(tmp_path))
    try:
        await session.connect()
        for number in range(1, len(replay.moments) - 1):
            await replay.step(number)
        batch = (await session.read(group)).batch.sort("tag_id")
        assert batch["value"][0] == 1.5, "it is stuck at what it showed first"
        assert batch["status"][1] >= BAD and batch["value"][1] is None
        await replay.step(len(replay.moments) - 1)
        with pytest.raises(Transient):
            await session.read(group)
    finally:
        await session.close()


async def test_a_device_that_is_away_is_recorded_as_away(tmp_path: Path) -> None:
    device = modbus_device()
    await device.start()
    await device.stop()
    made = connection(device, "modbus", timeout_s=1.0)
    recording = await record_device(
        made, [point_of("coil:2")], context(tmp_path), 0.5, interval_ms=50
    )
    assert recording.samples.height == 0 and recording.errors > 0
    assert "EDGE-" in recording.exchanges["error"].drop_nulls()[0]


METER = {"hall/meter#/flow": 0.1, "hall/meter#/total": 2**60 + 1, "hall/meter#/mode": "auto"}


def over(broker: MqttBroker, client: str) -> ConnectionConfig:
    options = {"username": broker.user, "password": broker.password, "timestamp": "/ts@us"}
    options |= {"clean_session": True, "browse_listen_s": 0.5}
    return ConnectionConfig(name=client, protocol="mqtt", endpoint=broker.url, options=options)


async def heard(
    connection: ConnectionConfig,
    points: list[RecordedPoint],
    show: Callable[[int], Awaitable[None]],
    folder: Path,
) -> DeviceRecording:
    """What a recorder hears while the next thing is shown whenever it has heard the last one."""
    told, tasks = 1, set[asyncio.Task[None]]()

    async def next_one(number: int) -> None:
        await show(number)

    def tell(seconds: float, rows: int, errors: int) -> None:
        nonlocal told
        if rows >= told * len(points):
            tasks.add(asyncio.create_task(next_one(told)))
            told += 1

    await show(0)  # the broker keeps it for whoever comes
    recording = await record_device(connection, points, context(folder), 90.0, tell=tell)
    await asyncio.gather(*tasks)
    return recording


@pytest.mark.parametrize("broker_type", BROKERS.values(), ids=BROKERS)
async def test_a_device_behind_a_broker_is_recorded_and_shown_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broker_type: type[MqttBroker]
) -> None:
    monkeypatch.setattr(recorder, "ROWS_MAX", 4 * len(METER))
    broker = broker_type(tmp_path / "broker")
    kinds: dict[type, Any] = {float: "float64", int: "int64", str: "string"}
    device = MqttJsonEmulator(
        [Point(a, kinds[type(v)], v) for a, v in METER.items()],
        endpoint=broker.url,
        username=broker.user,
        password=broker.password,
        retain=True,
    )

    async def show(number: int) -> None:
        await device.update({**METER, "hall/meter#/flow": 0.1 + number}, 1_000_000 + number)

    await broker.start()
    try:
        await device.start()
        await show(0)
        found = await find_points(over(broker, "looking"), context(tmp_path))
        points = [each for each in found if each.address in METER]
        assert len(points) == len(METER)
        first = await heard(over(broker, "first"), points, show, tmp_path)
        await device.stop()
        first.save(tmp_path / "meter.hrec")
        recording = load_recording(tmp_path / "meter.hrec")
        assert recording.samples.height == 4 * len(METER) and recording.errors == 0
        assert "password" not in recording.device.options
        again = device_emulator(
            recording, broker.url, username=broker.user, password=broker.password, retain=True
        )
        await again.start()
        replay = DeviceReplay(recording, again)

        async def replayed(number: int) -> None:
            if number < len(replay.moments):
                await replay.step(number)

        second = await heard(over(broker, "second"), points, replayed, tmp_path)
        await again.stop()
    finally:
        await broker.stop()
    columns = ("point", "at_us", "value", "text", "status")
    assert second.samples.select(columns).equals(recording.samples.select(columns))
    flow = next(n for n, each in enumerate(points) if each.address == "hall/meter#/flow")
    assert second.samples.filter(point=flow)["value"].to_list() == [0.1, 1.1, 2.1, 3.1]


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="APPS-2430"):
        load_recording(tmp_path / "none.hrec")
    (tmp_path / "bad.hrec").write_bytes(b"no zip")
    with pytest.raises(Corrupt, match="APPS-2431"):
        load_recording(tmp_path / "bad.hrec")
    with zipfile.ZipFile(tmp_path / "half.hrec", "w") as archive:
        archive.writestr("device.json", b"{}")
    with pytest.raises(Corrupt, match="APPS-2431"):
        load_recording(tmp_path / "half.hrec")


@pytest.mark.soak
async def test_the_command_records_a_device_and_is_it_again(tmp_path: Path) -> None:
    device = modbus_device()
    await device.update(MODBUS, SystemClock().now_us())
    await device.start()
    out, runner, app = tmp_path / "plc.hrec", CliRunner(), build(("bench",))
    words = ["bench", "record", "modbus", device.endpoint, "--for", "1s", "--every", "100"]
    words += ["--option", "unit_id=1", "--address", "holding:8:int16", "--out", str(out)]
    ran = await asyncio.to_thread(runner.invoke, app, words)
    await device.stop()
    assert ran.exit_code == 0, ran.output
    assert "1 points" in ran.output and " 0 errors, median answer" in ran.output
    assert load_recording(out).samples["value"].unique().to_list() == [-7.0]
    again = ["bench", "device", str(out), "--speed", "100", "--fault", "stuck@0-1"]
    shown = await asyncio.to_thread(runner.invoke, app, again)
    assert shown.exit_code == 0 and shown.output.startswith("modbus 127.0.0.1:")
    wrong = await asyncio.to_thread(runner.invoke, app, [*again[:3], "--fault", "rain@0-1"])
    assert "APPS-2434" in str(wrong.exception)
