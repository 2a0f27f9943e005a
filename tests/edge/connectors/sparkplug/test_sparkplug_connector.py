"""The Sparkplug host application on real brokers, with the emulated edge node."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from data import data_folder
from headrace.edge.connectors.sparkplug import CONNECTOR
from headrace.edge.contract import ScanGroup
from headrace.model import status as codes
from headrace.model.desired import TagConfig
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.sim.emulators import Point
from headrace.sim.emulators.sparkplug import SparkplugEmulator
from mqtt_brokers import (
    BROKERS,
    MqttBroker,
    Observer,
    PlatformBroker,
    Reader,
    Recorder,
    connected,
    eventually,
    make,
    open_session,
    tags,
    turn,
)

START_US = 1_700_000_000_000_000
NODE_TEMPERATURE = "hall.1/node_1#temperature"
POWER = "hall.1/node_1/meter#power/total"
COUNT = "hall.1/node_1/meter#count"
NAME = "hall.1/node_1/meter#name"
POINTS = [
    Point(NODE_TEMPERATURE, initial=20.0, unit="Cel"),
    Point(POWER, "float32", 1.5, writable=True),
    Point(COUNT, "int64", -(2**60)),
    Point(NAME, "string", "meter 1"),
]
HOST: dict[str, Any] = {"host_id": "scada", "startup_rebirth_ms": 200}


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.foreign] * (n != "platform")) for n in BROKERS]
)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MqttBroker]:
    made = BROKERS[request.param](tmp_path / "broker")
    made.up()
    yield made
    made.kill()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[PlatformBroker]:
    made = PlatformBroker(tmp_path / "broker")
    made.up()
    yield made
    made.kill()


def edge_node(
    broker: MqttBroker, points: list[Point] | None = None, **settings: Any
) -> SparkplugEmulator:
    return SparkplugEmulator(
        points or POINTS,
        endpoint=broker.url,
        username=broker.user,
        password=broker.password,
        **settings,
    )


async def test_births_data_and_death(broker: MqttBroker) -> None:
    declared = tags(NODE_TEMPERATURE, POWER, COUNT, NAME)
    emulator = edge_node(broker)
    async with connected(make(CONNECTOR, broker, declared, **HOST)) as connector:
        await emulator.start()
        reader = Reader(connector, declared)
        await reader.until(lambda r: all(r.values(tag) for tag in (1, 2, 3, 4)))
        assert [reader.values(tag) for tag in (1, 2, 4)] == [[20.0], [1.5], ["meter 1"]]
        assert reader.rows.filter(tag_id=3)["text"].to_list() == [str(-(2**60))]
        reader.batches.clear()
        await emulator.update(
            {NODE_TEMPERATURE: 21.5, POWER: 0.1}, START_US, {NODE_TEMPERATURE: codes.BAD}
        )
        await reader.until(lambda r: bool(r.values(1) and r.values(2)))
        assert reader.values(2) == [float(np.float32(0.1))]
        row = reader.rows.filter(tag_id=1).row(0, named=True)
        assert (row["value"], row["status"]) == (21.5, codes.BAD)
        assert reader.rows["source_timestamp"].to_physical().to_list() == [START_US] * 2
        await emulator.stop()
        await reader.until(lambda r: r.stale == {1, 2, 3, 4})


async def test_node_that_was_there_before_us_is_asked_for_births(broker: MqttBroker) -> None:
    declared = tags(NODE_TEMPERATURE)
    emulator = edge_node(broker)
    await emulator.start()
    async with connected(make(CONNECTOR, broker, declared, **HOST)) as connector:
        reader = Reader(connector, declared)
        await reader.until(lambda r: r.values(1) == [20.0])
    await emulator.stop()


async def test_state_on_the_broker(broker: MqttBroker) -> None:
    def online(seen: list[Any]) -> list[bool]:
        """What the host said, without repetitions (a retained old death is answered)."""
        words = [json.loads(each.payload)["online"] for each in seen]
        return [word for at, word in enumerate(words) if at == 0 or words[at - 1] != word]

    async with Observer(broker, "spBv1.0/STATE/scada") as observer:
        async with connected(make(CONNECTOR, broker, (), **HOST)):
            await observer.until(lambda seen: online(seen) == [True])
        await observer.until(lambda seen: online(seen) == [True, False])
        killed = make(CONNECTOR, broker, (), **HOST)
        await killed.connect()
        await observer.until(lambda seen: online(seen) == [True, False, True])
        killed._session.abort()
        await observer.until(lambda seen: online(seen) == [True, False, True, False])
        await killed.close()
        birth, death = (json.loads(each.payload) for each in observer.seen[-2:])
    assert birth["timestamp"] == death["timestamp"]  # the will's is the birth's
    async with Observer(broker, "spBv1.0/STATE/+") as late:
        (kept,) = await late.until(lambda seen: len(seen) == 1)
        assert kept.retain and online([kept]) == [False]


async def test_host_session_packet_by_packet(tmp_path: Path) -> None:
    """CONNECT with a clean session and the will; subscriptions; only then STATE; death, goodbye."""
    async with Recorder() as recorder:
        broker = MqttBroker(tmp_path)
        broker.port = recorder.port
        async with connected(make(CONNECTOR, broker, (), **HOST)):
            pass
        await eventually(lambda: "DISCONNECT" in recorder.kinds(), "the goodbye")
    kinds = recorder.kinds()
    assert kinds == ["CONNECT", "SUBSCRIBE", "PUBLISH", "PUBLISH", "DISCONNECT"]
    (connect, subscribe, birth, death, _) = [fields for _, fields in recorder.packets]
    assert connect["clean_session"] and connect["protocol"] == (b"MQTT", 4)
    assert (connect["will_topic"], connect["will_qos"]) == ("spBv1.0/STATE/scada", 1)
    assert connect["will_retain"]
    assert subscribe["filters"] == [("spBv1.0/STATE/scada", 1), ("spBv1.0/#", 1)]
    will = json.loads(connect["will_payload"])
    assert will["online"] is False
    assert json.loads(birth["payload"]) == {"online": True, "timestamp": will["timestamp"]}
    said = json.loads(death["payload"])
    assert said["online"] is False and said["timestamp"] >= will["timestamp"]
    for each in (birth, death):
        assert (each["topic"], each["qos"], each["retain"]) == ("spBv1.0/STATE/scada", 1, True)


async def test_foreign_death_certificate_of_ours_is_corrected(broker: MqttBroker) -> None:
    lie = b'{"online": false, "timestamp": 1}'
    async with (
        Observer(broker, "spBv1.0/STATE/scada") as observer,
        connected(make(CONNECTOR, broker, (), **HOST)),
    ):
        await observer.until(lambda seen: len(seen) >= 1)
        await observer.session.publish("spBv1.0/STATE/scada", lie, qos=1, retain=True)
        # A busy broker may give a message twice (QoS 1), so what follows the lie decides.
        await observer.until(lambda seen: lie in [each.payload for each in seen[:-1]])
        assert json.loads(observer.seen[-1].payload)["online"] is True


async def test_write_is_echoed(broker: MqttBroker) -> None:
    written: list[Any] = []
    declared = tags(POWER, COUNT, NODE_TEMPERATURE)
    emulator = edge_node(broker, on_write=lambda *each: written.append(each))
    await emulator.start()
    options = HOST | {"write_timeout_s": 1.0}
    async with connected(make(CONNECTOR, broker, declared, **options)) as connector:
        assert await connector.write(declared[0], 2.5) == 2.5
        assert written == [(POWER, 2.5)]
        with pytest.raises(Transient, match=r"EDGE-4214.*unknown"):
            await connector.write(declared[1], 5.0)  # the device does not take it
        with pytest.raises(Misconfigured, match="EDGE-4208"):
            await connector.write(declared[1], 5.5)
        with pytest.raises(Refused, match="EDGE-4209"):
            await connector.write(tags("hall.1/node_1/meter#none")[0], 5.0)
    await emulator.stop()


async def test_browse_walks_groups_nodes_devices(broker: MqttBroker) -> None:
    emulator = edge_node(broker)
    await emulator.start()
    async with connected(make(CONNECTOR, broker, (), **HOST)) as connector:
        await eventually(lambda: emulator._link.session is not None, "connected")
        await emulator.update({POWER: 2.0}, START_US)
        await eventually(lambda: bool(connector._host.nodes), "heard of")
        assert [item.address for item in await connector.browse("")] == ["hall.1"]
        assert [item.address for item in await connector.browse("hall.1")] == ["hall.1/node_1"]
        items = {item.address: item for item in await connector.browse("hall.1/node_1")}
        assert items["hall.1/node_1/meter"].folder
        assert items[NODE_TEMPERATURE].value == "20.0" and items[NODE_TEMPERATURE].unit == "Cel"
        items = {item.address: item for item in await connector.browse("hall.1/node_1/meter")}
        assert set(items) == {POWER, COUNT, NAME}
        assert items[POWER].proposed_path == "power/total" and items[POWER].data_type == "Float"
    await emulator.stop()


async def test_edge_node_holds_its_data_until_its_host_is_back(broker: MqttBroker) -> None:
    declared = tags(NODE_TEMPERATURE)
    emulator = edge_node(broker, primary_host_id="scada", birth="first_update")
    await emulator.start()
    for count in range(5):
        await emulator.update({NODE_TEMPERATURE: float(count)}, START_US + count * 1_000)
    async with Observer(broker) as observer:
        async with connected(make(CONNECTOR, broker, declared, **HOST)) as connector:
            reader = Reader(connector, declared)
            await reader.until(lambda r: len(set(r.values(1))) == 5)
        await observer.until(lambda _: bool(observer.of("NDEATH")))
        for count in range(5, 9):
            await emulator.update({NODE_TEMPERATURE: float(count)}, START_US + count * 1_000)
        assert len(observer.of("NBIRTH")) == 1
        async with connected(make(CONNECTOR, broker, declared, **HOST)) as connector:
            again = Reader(connector, declared)
            await again.until(lambda r: len(set(r.values(1))) == 4)
    rows = (
        pl.concat([reader.rows, again.rows]).unique(["source_timestamp"]).sort("source_timestamp")
    )
    assert rows["value"].to_list() == [float(count) for count in range(9)]
    assert rows["source_timestamp"].to_physical().to_list() == [
        START_US + count * 1_000 for count in range(9)
    ]
    await emulator.stop()


@pytest.mark.kill
@pytest.mark.parametrize("victim", ["host", "broker"])
async def test_kills_lose_nothing(platform: PlatformBroker, victim: str) -> None:
    """The host's session vanishes, or the broker is killed -9, while data flows at QoS 0."""
    declared = tags(NODE_TEMPERATURE)
    emulator = edge_node(platform, primary_host_id="scada", history_s=10.0, birth="first_update")
    total, seen = 600, set[float]()
    current: list[Any] = []

    async def follow() -> None:
        while len(seen) < total:
            connector = make(CONNECTOR, platform, declared, **HOST)
            current[:] = [connector]
            try:
                async with connected(connector):
                    while len(seen) < total:
                        reader = Reader(connector, declared)
                        await reader.once()
                        seen.update(reader.values(1))
            except Transient:
                await turn(0.05)

    reading = asyncio.create_task(follow())
    await emulator.start()

    def host_is_seen() -> bool:
        if reading.done():
            reading.result()  # why it ended, rather than that nobody came
        return emulator._host_online

    await eventually(host_is_seen, "the host is seen")
    for count in range(total):
        await emulator.update({NODE_TEMPERATURE: float(count)}, START_US + count * 1_000)
        if count in (200, 400):
            await eventually(lambda: len(seen) > 20, "some were read")
            if victim == "host":
                current[0]._session.abort()
            else:
                await platform.stop()
                await platform.start()
    async with asyncio.timeout(90):
        await reading
    assert seen == {float(count) for count in range(total)}
    assert emulator.dropped == 0
    await emulator.stop()


async def test_dead_broker_ends_the_read(broker: MqttBroker) -> None:
    declared = tags(NODE_TEMPERATURE)
    async with connected(make(CONNECTOR, broker, declared, **HOST)) as connector:
        reading = asyncio.create_task(connector.read(ScanGroup(1_000, declared)))
        await turn()
        await broker.stop()
        with pytest.raises(Transient, match="EDGE-4013"):
            while True:
                await asyncio.wait_for(reading, 10)
                reading = asyncio.create_task(connector.read(ScanGroup(1_000, declared)))


async def test_broken_payloads_spoil_no_other_node(broker: MqttBroker) -> None:
    declared = tags(NODE_TEMPERATURE)
    emulator = edge_node(broker)
    async with connected(make(CONNECTOR, broker, declared, **HOST)) as connector:
        session = open_session(broker, "vandal")
        await session.connect()
        for kind in ("NBIRTH", "NDATA", "NDEATH", "NCMD", "NONSENSE"):
            await session.publish(f"spBv1.0/hall.1/{kind}/other", b"\xff\xfe", qos=1)
        await emulator.start()
        reader = Reader(connector, declared)
        await reader.until(lambda r: r.values(1) == [20.0])
        assert "EDGE-4201" in reader.notices
        await session.close()
    await emulator.stop()


# -- a real recording through the real door -----------------------------------------------------

SETTINGS_COUNT = 24


def turbofan(rows: int | None) -> tuple[np.ndarray[Any, Any], list[Point], tuple[TagConfig, ...]]:
    """FD001 as (unit, 24 values) rows, one device a unit, with points and tags."""
    path = data_folder("cmapss") / "train_FD001.txt.gz"
    with gzip.open(path, "rt") as lines:
        table = np.loadtxt(lines, max_rows=rows)
    units = sorted({int(unit) for unit in table[:, 0]})
    addresses = [
        f"fleet/fd001/unit_{unit}#s{number:02d}"
        for unit in units
        for number in range(1, SETTINGS_COUNT + 1)
    ]
    return table, [Point(address) for address in addresses], tags(*addresses)


async def play(emulator: SparkplugEmulator, table: np.ndarray[Any, Any]) -> None:
    for index, row in enumerate(table):
        unit = int(row[0])
        values = {
            f"fleet/fd001/unit_{unit}#s{number:02d}": float(row[number + 1])
            for number in range(1, SETTINGS_COUNT + 1)
        }
        await emulator.update(values, START_US + index * 1_000_000)


@pytest.mark.parametrize("rows", [2_000, None])
async def test_turbofan_recording_arrives_unchanged(
    platform: PlatformBroker, rows: int | None
) -> None:
    table, points, declared = turbofan(rows)
    emulator = edge_node(platform, points, primary_host_id="scada", birth="first_update")
    await emulator.start()
    async with connected(make(CONNECTOR, platform, declared, **HOST)) as connector:
        playing = asyncio.create_task(play(emulator, table))
        reader = Reader(connector, declared)
        seen: set[int] = set()  # rows may come twice: births repeat, and so does QoS 1

        def is_all_there(r: Reader) -> bool:
            seen.update(r.batches[-1]["source_timestamp"].to_physical() if r.batches else ())
            return len(seen) >= len(table)

        await reader.until(is_all_there, limit_s=120.0)
        await playing
    got = reader.rows.unique(["tag_id", "source_timestamp"]).sort("source_timestamp", "tag_id")
    unit_index = {unit: index for index, unit in enumerate(sorted(set(table[:, 0])))}
    first_tag = np.array([unit_index[unit] * SETTINGS_COUNT + 1 for unit in table[:, 0]])
    expected_tags = (first_tag[:, None] + np.arange(SETTINGS_COUNT)).ravel()
    assert got.height == len(table) * SETTINGS_COUNT
    assert (got["tag_id"].to_numpy() == expected_tags).all()
    assert (got["value"].to_numpy() == table[:, 2:].ravel()).all()
    at_us = START_US + np.repeat(np.arange(len(table)), SETTINGS_COUNT) * 1_000_000
    assert (got["source_timestamp"].to_physical().to_numpy() == at_us).all()
    assert (got["status"] == codes.GOOD).all() and not reader.errors
    await emulator.stop()
