"""A recording goes through a real server and a real connector, and comes out as it was."""

from __future__ import annotations

import asyncio
import json
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.bus.broker import BrokerAddress, free_port
from headrace.edge.contract import ConnectorContext, ConnectorType, ScanGroup
from headrace.model import status as codes
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Misconfigured
from headrace.model.sample import empty_batch
from headrace.model.time import SystemClock
from headrace.sim.replay.layout import PROTOCOLS, Protocol, make_layout
from headrace.sim.replay.loader import TIME, LoadOptions, Recording, load
from headrace.sim.replay.player import Position, load_position
from headrace.sim.replay.setup import Endpoint, Replay, make_replay

ROWS = 120


def recording(folder: Path, **options: Any) -> Recording:
    """120 rows: decimals, whole numbers, texts, truths, and empty fields."""
    lines = ["time,level,count,state,open,unit"]
    for i in range(ROWS):
        level = "" if i % 7 == 3 else repr(i / 7)
        at = f"2026-01-01T00:{i // 60:02d}:{i % 60:02d}.{i % 10}00Z"
        lines.append(f"{at},{level},{2**52 + i},s{i % 5},{str(i % 3 == 0).lower()},{i % 2 + 1}")
    path = folder / "tank.csv"
    path.write_text("\n".join(lines))
    return load(path, LoadOptions(columns=("level", "count", "state", "open"), **options))


@pytest.fixture
async def served(broker: BrokerAddress) -> BrokerAddress:
    """The broker, once its MQTT listener answers."""
    for _ in range(500):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", broker.mqtt_port)
            writer.close()
            return broker
        except OSError:
            await asyncio.sleep(0.02)
    raise AssertionError("the broker does not listen for MQTT")


class Receiver:
    """The connector that a replay's part of a site file describes."""

    def __init__(self, replay: Replay, broker: BrokerAddress, folder: Path) -> None:
        part = tomllib.loads(replay.site_part)
        ((name, fields),) = part["connection"].items()
        self.tags = tuple(
            TagConfig(
                tag_id=index + 1,
                path=tag["path"],
                address=tag["address"],
                scan_interval_ms=tag["scan_interval_ms"],
            )
            for index, tag in enumerate(part["tag"])
        )
        config = ConnectionConfig(name=name, tags=self.tags, **fields)
        found = {e.name: e for e in entry_points(group="headrace.connectors")}
        kind: ConnectorType = found[config.protocol].load()
        kind.check_connection(config)
        for tag in self.tags:
            kind.check_tag(tag)
        context = ConnectorContext(
            clock=SystemClock(),
            certificates=folder / "certificates",
            secret=lambda text: text,
            mqtt_endpoint=broker.mqtt_endpoint,
            mqtt_user=broker.platform_user,
            mqtt_password=broker.platform_password,
        )
        self.connector = kind.open(config, context)
        self.batch = empty_batch()

    async def receive(self) -> None:
        """Connect and read until cancelled."""
        while True:
            try:
                await self.connector.connect()
                break
            except OSError:
                continue
        while True:
            reading = await self.connector.read(ScanGroup(10, self.tags))
            self.batch = pl.concat([self.batch, reading.batch])
            if reading.acknowledge is not None:
                await reading.acknowledge()
            await asyncio.sleep(0)


def endpoint_for(protocol: Protocol, broker: BrokerAddress) -> Endpoint:
    if protocol in ("mqtt", "sparkplug"):
        return Endpoint(broker.mqtt_endpoint, "broker", broker.device_user, broker.device_password)
    scheme = "opc.tcp://" if protocol == "opcua" else ""
    url = f"{scheme}127.0.0.1:{free_port()}"
    return Endpoint(url, url)


def expected(source: Recording, replay: Replay) -> dict[str, list[tuple[int, Any]]]:
    """path -> (time in us, value) of every field that is not empty."""
    wanted: dict[str, list[tuple[int, Any]]] = {}
    for tag in replay.player.layout.tags:
        frame = source.frame.select(TIME, pl.col(tag.column.name).alias("v"))
        if source.keys is not None:
            frame = frame.filter(source.keys == tag.key)
        frame = frame.drop_nulls()
        at_us = frame[TIME].to_physical().to_list()
        wanted[tag.path] = list(zip(at_us, frame["v"].to_list(), strict=True))
    return wanted


def received(receiver: Receiver) -> dict[str, list[tuple[int, Any]]]:
    """path -> (time in us, value) of every Good sample, copies left out."""
    good = receiver.batch.filter(pl.col("status") == codes.GOOD)
    good = good.unique(["tag_id", "source_timestamp"]).sort("source_timestamp")
    found = {}
    for tag in receiver.tags:
        rows = good.filter(tag_id=tag.tag_id)
        values = [
            text if number is None else number
            for number, text in zip(rows["value"], rows["text"], strict=True)
        ]
        at_us = rows["source_timestamp"].to_physical().to_list()
        found[tag.path] = list(zip(at_us, values, strict=True))
    return found


async def settle(receiver: Receiver, wanted: dict[str, list[tuple[int, Any]]]) -> None:
    """Read until as many samples are there as are wanted, or time is up."""
    total = sum(len(rows) for rows in wanted.values())
    deadline_s = asyncio.get_running_loop().time() + 10
    while asyncio.get_running_loop().time() < deadline_s:
        if sum(len(rows) for rows in received(receiver).values()) >= total:
            return
        await asyncio.sleep(0.02)


async def run_together(
    replay: Replay, receiver: Receiver, wanted: dict[str, list[tuple[int, Any]]]
) -> None:
    first = asyncio.create_task(receiver.receive()) if replay_needs_receiver(replay) else None
    playing = asyncio.create_task(replay.player.run(asyncio.Event(), lambda _rows: None))
    reading = first or asyncio.create_task(start_when_served(replay, receiver))
    try:
        async with asyncio.timeout(60):
            while not playing.done() and not reading.done():
                await asyncio.wait({playing, reading}, timeout=0.2)
                if replay.player.rows == ROWS:
                    break
            if reading.done():
                reading.result()
            if playing.done():
                playing.result()
            await settle(receiver, wanted)
    finally:
        for task in (playing, reading):
            task.cancel()
        await asyncio.gather(playing, reading, return_exceptions=True)
        await receiver.connector.close()
        await replay.emulator.stop()


def replay_needs_receiver(replay: Replay) -> bool:
    """A broker keeps for a session that exists: there the receiver comes first."""
    return replay.player.layout.protocol in ("mqtt", "sparkplug")


async def start_when_served(replay: Replay, receiver: Receiver) -> None:
    """Connect once the emulator listens."""
    host, _, port = replay.emulator.endpoint.rpartition("//")[2].rpartition(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
            break
        except OSError:
            await asyncio.sleep(0.02)
    writer.close()
    await receiver.receive()


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_every_value_and_time_comes_out_as_it_was(
    protocol: Protocol, served: BrokerAddress, tmp_path: Path
) -> None:
    source = recording(tmp_path)
    layout = make_layout(source, protocol)
    replay = make_replay(source, layout, endpoint_for(protocol, served), SystemClock(), speed=0)
    receiver = Receiver(replay, served, tmp_path)
    wanted = expected(source, replay)
    if replay_needs_receiver(replay):
        await receiver.connector.connect()
        await receiver.connector.close()  # the persistent session exists from here on
        receiver = Receiver(replay, served, tmp_path)
    await run_together(replay, receiver, wanted)
    assert received(receiver) == wanted


async def test_devices_of_a_key_column_come_apart(served: BrokerAddress, tmp_path: Path) -> None:
    source = recording(tmp_path, key_column="unit")
    layout = make_layout(source, "sparkplug")
    assert {tag.key for tag in layout.tags} == {"unit_1", "unit_2"}
    where = endpoint_for("sparkplug", served)
    replay = make_replay(source, layout, where, SystemClock(), speed=0)
    receiver = Receiver(replay, served, tmp_path)
    wanted = expected(source, replay)
    await run_together(replay, receiver, wanted)
    assert received(receiver) == wanted


async def test_a_replay_goes_on_where_it_stopped(served: BrokerAddress, tmp_path: Path) -> None:
    source, position = recording(tmp_path), tmp_path / "position.json"
    layout, where = make_layout(source, "modbus"), endpoint_for("modbus", served)
    shown: list[int] = []
    stop = asyncio.Event()

    def count(rows: int) -> None:
        shown.append(rows)
        if rows == 50:
            stop.set()

    first = make_replay(source, layout, where, SystemClock(), speed=0, position_file=position)
    receiver = Receiver(first, served, tmp_path)
    reading = asyncio.create_task(start_when_served(first, receiver))
    await asyncio.wait_for(first.player.run(stop, count), 30)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await receiver.connector.close()
    await first.emulator.stop()
    assert load_position(position, source, "modbus") == first.player.rows == 50
    second = make_replay(source, layout, where, SystemClock(), speed=0, position_file=position)
    again = Receiver(second, served, tmp_path)
    await run_together(second, again, {})
    times = pl.concat([receiver.batch, again.batch])["source_timestamp"].unique().sort()
    assert times.to_list() == source.frame[TIME].to_list()
    assert again.batch["source_timestamp"].min() == source.frame[TIME][50]


async def test_the_speed_is_kept(served: BrokerAddress, tmp_path: Path) -> None:
    source = recording(tmp_path)
    layout, where = make_layout(source, "modbus"), endpoint_for("modbus", served)
    replay = make_replay(source, layout, where, SystemClock(), speed=60)
    loop, at_s = asyncio.get_running_loop(), []
    playing = asyncio.create_task(
        replay.player.run(asyncio.Event(), lambda _rows: at_s.append(loop.time()))
    )
    receiver = Receiver(replay, served, tmp_path)
    reading = asyncio.create_task(start_when_served(replay, receiver))
    await asyncio.wait_for(playing, 30)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await receiver.connector.close()
    await replay.emulator.stop()
    span_s = (source.frame[TIME][-1] - source.frame[TIME][0]).total_seconds() / 60
    assert at_s[-1] - at_s[0] >= span_s * 0.9


@pytest.mark.parametrize(
    ("protocol", "text", "options"),
    [
        ("modbus", "ts,unit,a\n1767225600,1,2\n1767225601,2,2\n", {"key_column": "unit"}),
        ("modbus", "ts," + ",".join(f"a{i}" for i in range(40)) + "\n1767225600" + ",1" * 40, {}),
        ("sparkplug", "ts,a\n1767225600.000001,1\n", {}),
    ],
)
def test_what_a_protocol_cannot_show_is_refused(
    tmp_path: Path, protocol: Protocol, text: str, options: dict[str, Any]
) -> None:
    (tmp_path / "x.csv").write_text(text)
    source = load(tmp_path / "x.csv", LoadOptions(**options))
    with pytest.raises(Misconfigured, match="SIM-1110"):
        make_layout(source, protocol)


def test_a_foreign_position_is_refused(tmp_path: Path) -> None:
    source, path = recording(tmp_path), tmp_path / "p.json"
    Position("0" * 64, "modbus", 3).save(path)
    with pytest.raises(Misconfigured, match="SIM-1120"):
        load_position(path, source, "modbus")
    Position(source.sha256, "opcua", 3).save(path)
    with pytest.raises(Misconfigured, match="SIM-1120"):
        load_position(path, source, "modbus")
    path.write_text(json.dumps({"rows": 1}))
    with pytest.raises(Misconfigured, match="SIM-1120"):
        load_position(path, source, "modbus")
    assert load_position(tmp_path / "absent", source, "modbus") == 0
