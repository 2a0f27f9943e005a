"""The whole demo, served by real emulators and read by the real connectors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.subjects import Subjects
from headrace.edge.contract import ConnectorContext, ConnectorType, ScanGroup
from headrace.model import status as codes
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Misconfigured, Transient
from headrace.model.folder import DataFolder
from headrace.model.sample import empty_batch
from headrace.model.time import SystemClock
from headrace.sim import role
from headrace.sim.demo import read_ports, write_demo_site
from headrace.sim.demo_devices import DemoDevice, demo_devices
from headrace.sim.plant.plant import WAVEFORM_PATH, Plant

SUBJECTS = Subjects("acme", "mill")
DEVICES = {device.name: device for device in demo_devices(Plant(1))}


@dataclass
class Running:
    """A simulation that runs, and how to end it."""

    folder: DataFolder
    broker: BrokerAddress
    bus: Bus
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(role.run(self.folder, self.broker, SUBJECTS, self.stop))

    async def ask(self, verb: str, call: dict[str, Any] | None = None) -> Any:
        body = json.dumps(call).encode() if call else b""
        return json.loads(await self.bus.request(SUBJECTS.sim_call(verb), body, timeout_s=2))

    async def serving(self) -> None:
        deadline_s = asyncio.get_running_loop().time() + 30
        while asyncio.get_running_loop().time() < deadline_s:
            assert self.task is not None
            await asyncio.wait({self.task}, timeout=0.1)
            if self.task.done():
                self.task.result()
            try:
                devices = (await self.ask("status"))["devices"]
                if all(device["serving"] for device in devices):
                    return
            except Transient:
                continue
        raise AssertionError("the demo does not serve")

    async def end(self) -> None:
        self.stop.set()
        if self.task is not None:
            await asyncio.wait_for(self.task, 10)


@pytest.fixture
async def running(folder: DataFolder, broker: BrokerAddress, bus: Bus) -> AsyncIterator[Running]:
    write_demo_site(folder, broker)
    simulation = Running(folder, broker, bus)
    simulation.start()
    await simulation.serving()
    yield simulation
    await simulation.end()


class Client:
    """One device's connector, with what it gave."""

    def __init__(self, device: DemoDevice, running: Running, certificates: Path) -> None:
        self.tags = tuple(
            TagConfig(
                tag_id=index + 1,
                path=tag.path,
                address=tag.address,
                scale=tag.scale,
                scan_interval_ms=tag.scan_interval_ms,
                sample_interval_us=tag.sample_interval_us,
                writable=tag.writable,
            )
            for index, tag in enumerate(device.tags)
        )
        port = read_ports(running.folder).get(device.name, 0)
        config = ConnectionConfig(
            name=device.name,
            protocol=device.protocol,
            endpoint=device.endpoint(port),
            options=device.options,
            tags=self.tags,
        )
        found = {e.name: e for e in entry_points(group="headrace.connectors")}
        kind: ConnectorType = found[device.protocol].load()
        kind.check_connection(config)
        for tag in self.tags:
            kind.check_tag(tag)
        context = ConnectorContext(
            clock=SystemClock(),
            certificates=certificates,
            secret=lambda text: text,
            mqtt_endpoint=running.broker.mqtt_endpoint,
            mqtt_user=running.broker.platform_user,
            mqtt_password=running.broker.platform_password,
        )
        self.connector = kind.open(config, context)
        self.batch = empty_batch()

    async def read(self) -> pl.DataFrame:
        """Read once and keep everything."""
        reading = await self.connector.read(ScanGroup(1000, self.tags))
        if reading.acknowledge is not None:
            await reading.acknowledge()
        self.batch = pl.concat([self.batch, reading.batch])
        return reading.batch

    async def read_all(self) -> pl.DataFrame:
        """Read until every tag has a Good sample."""
        async with asyncio.timeout(20):
            while True:
                await self.read()
                good = self.batch.filter(pl.col("status") == codes.GOOD)
                if good["tag_id"].n_unique() == len(self.tags):
                    return good


@pytest.mark.parametrize("name", list(DEVICES))
async def test_each_device_answers_through_its_own_connector(
    name: str, running: Running, tmp_path: Path
) -> None:
    device = DEVICES[name]
    client = Client(device, running, tmp_path / "certificates")
    try:
        await client.connector.connect()
        good = await client.read_all()
    finally:
        await client.connector.close()
    status = await running.ask("status")
    first_us = status["at_us"] - (status["steps"] - 1) * 1_000_000
    plant = Plant(1)
    trace = [plant.step(1.0, first_us + i * 1_000_000) for i in range(status["steps"])]
    for index, tag in enumerate(device.tags):
        rows = good.filter(pl.col("tag_id") == index + 1)
        if tag.sample_interval_us:
            assert rows.height % 100 == 0
            continue
        shown = [tag.raw(row[tag.path]) for row in trace]
        if tag.data_type == "string":
            assert set(rows["text"]) <= set(shown), tag.path
        elif tag.data_type == "float32":
            known = np.array(shown, np.float32)
            assert np.isin(rows["value"].to_numpy().astype(np.float32), known).all(), tag.path
        else:
            assert set(rows["value"]) <= {float(value) for value in shown}, tag.path


async def test_the_waveform_comes_as_a_thousand_samples_a_second_without_gaps(
    running: Running, tmp_path: Path
) -> None:
    device = DEVICES["cnc_1"]
    client = Client(device, running, tmp_path / "certificates")
    number = next(t.tag_id for t in client.tags if t.path == WAVEFORM_PATH)
    try:
        await client.connector.connect()
        async with asyncio.timeout(20):
            while client.batch.filter(tag_id=number, status=0).height < 1500:
                await client.read()
    finally:
        await client.connector.close()
    wave = client.batch.filter(tag_id=number, status=0).sort("source_timestamp")
    steps = wave["source_timestamp"].diff().drop_nulls().dt.total_microseconds()
    assert set(steps) == {1000}


async def test_faults_are_listed_started_seen_and_stopped_over_the_bus(
    running: Running, tmp_path: Path
) -> None:
    listed = await running.ask("fault_list")
    assert {"name", "title", "explanation", "targets", "active", "parameters"} <= set(listed[0])
    client = Client(DEVICES["pumping_plc"], running, tmp_path)
    flow = next(t.tag_id for t in client.tags if t.path.endswith("pump_1/flow"))

    def last_flow() -> float:
        return float(client.batch.filter(tag_id=flow)["value"][-1])

    try:
        await client.connector.connect()
        await client.read_all()
        before = last_flow()
        await running.ask("fault_start", {"name": "cavitation", "target": "pump_1"})
        async with asyncio.timeout(10):
            while last_flow() > 0.85 * before:
                await client.read()
    finally:
        await client.connector.close()
    faults = {item["name"]: item for item in await running.ask("fault_list")}
    assert faults["cavitation"]["active"] == ["pump_1"]
    with pytest.raises(Misconfigured, match="SIM-1010"):
        await running.ask("fault_start", {"name": "fire", "target": "pump_1"})
    with pytest.raises(Misconfigured, match="SIM-1015"):
        await running.ask("fault_start", {"nonsense": 1})
    await running.ask("fault_stop", {"name": "cavitation", "target": "pump_1"})
    assert (await running.ask("status"))["faults"] == []


async def test_a_restarting_device_drops_its_client_and_comes_back(
    running: Running, tmp_path: Path
) -> None:
    client = Client(DEVICES["cooling_plc"], running, tmp_path)
    call = {"name": "device_restart", "target": "cooling_plc", "parameters": {"off_s": 1}}
    try:
        await client.connector.connect()
        await client.read_all()
        await running.ask("fault_start", call)
        with pytest.raises(Transient):
            async with asyncio.timeout(10):
                while True:
                    await client.read()
    finally:
        await client.connector.close()
    await running.serving()
    again = Client(DEVICES["cooling_plc"], running, tmp_path)
    try:
        await again.connector.connect()
        await again.read_all()
    finally:
        await again.connector.close()


async def test_a_clock_step_shows_in_the_devices_times(running: Running, tmp_path: Path) -> None:
    call = {"name": "clock_step", "target": "hall_sensors", "parameters": {"offset_s": 3600}}
    await running.ask("fault_start", call)
    client = Client(DEVICES["hall_sensors"], running, tmp_path)
    hour_us = 3_000_000_000

    def ahead() -> bool:
        lead = client.batch["source_timestamp"] - client.batch["received_timestamp"]
        return bool((lead.dt.total_microseconds() > hour_us).any())

    try:
        await client.connector.connect()
        async with asyncio.timeout(10):
            while not ahead():
                await client.read()
    finally:
        await client.connector.close()


async def test_a_client_writes_a_setting_and_the_plant_follows(
    running: Running, tmp_path: Path
) -> None:
    client = Client(DEVICES["pumping_plc"], running, tmp_path)
    setpoint = next(t for t in client.tags if t.path.endswith("pump_1/speed_setpoint"))
    speed = next(t.tag_id for t in client.tags if t.path.endswith("pump_1/speed"))
    try:
        await client.connector.connect()
        assert await client.connector.write(setpoint, 50.0) == 50.0  # type: ignore[attr-defined]
        async with asyncio.timeout(15):
            while not client.batch.filter(
                (pl.col("tag_id") == speed) & (pl.col("value") < 1600)
            ).height:
                await client.read()
    finally:
        await client.connector.close()


async def test_counters_do_not_run_back_over_a_restart(running: Running) -> None:
    await until_steps(running, 3)
    await running.end()
    saved = json.loads((running.folder.run / "plant.json").read_text())
    before = saved["plant"]["machines"]["meter_4"]["state"]["energy_kwh"]
    ports = read_ports(running.folder)
    write_demo_site(running.folder, running.broker)
    running.start()
    await running.serving()
    await until_steps(running, 2)
    await running.end()
    saved = json.loads((running.folder.run / "plant.json").read_text())
    assert saved["plant"]["machines"]["meter_4"]["state"]["energy_kwh"] > before
    assert read_ports(running.folder) == ports


async def until_steps(running: Running, steps: int) -> None:
    async with asyncio.timeout(15):
        while (await running.ask("status"))["steps"] < steps:
            await running.ask("status")


def test_a_killed_simulation_catches_up_what_it_had_shown(folder: DataFolder) -> None:
    def make(device: Any, points: Any, on_write: Any) -> Any:
        del device, points, on_write

    shown = role.Simulation(folder, make)
    for i in range(15):  # saved after ten steps; the last five are lost with the process
        shown.step(1_000_000_000 + i * 1_000_000)
    again = role.Simulation(folder, make)
    again.catch_up(1_000_000_000 + 14_000_000)
    assert again.plant.save() == shown.plant.save()
    again.catch_up(1_000_000_000 + 14_000_000 + 86_400_000_000)
    assert again.plant.at_us == 1_000_000_000 + (14 + role.CATCH_UP_STEPS_MAX) * 1_000_000


def test_a_damaged_state_is_named(folder: DataFolder) -> None:
    folder.run.mkdir(parents=True)
    (folder.run / "plant.json").write_text("[]")
    with pytest.raises(role.Corrupt, match="SIM-1022"):
        role.Simulation(folder, lambda *_: None)  # type: ignore[arg-type,return-value]
