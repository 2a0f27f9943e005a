"""The JSON connector on real brokers: the platform's own and mosquitto."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.bus.broker import free_port
from headrace.edge.connectors.mqtt import CONNECTOR
from headrace.edge.contract import ScanGroup
from headrace.model import status as codes
from headrace.model.desired import ConnectionConfig
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.sim.emulators import Point
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from mqtt_brokers import (
    BROKERS,
    Mosquitto,
    MqttBroker,
    PlatformBroker,
    Reader,
    connected,
    context,
    eventually,
    make,
    open_session,
    tags,
    turn,
)

START_US = 1_700_000_000_000_000
FLOW, MODE = "hall.1/meter#/flow/now", "hall.1/meter#/mode"
POINTS = [Point(FLOW, writable=True), Point(MODE, "string", "auto", writable=True)]
OPTIONS: dict[str, Any] = {"timestamp": "/ts@us"}


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


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    made = Mosquitto(tmp_path / "broker")
    made.up()
    yield made
    made.kill()


def device(broker: MqttBroker, **settings: Any) -> MqttJsonEmulator:
    return MqttJsonEmulator(
        POINTS, endpoint=broker.url, username=broker.user, password=broker.password, **settings
    )


async def test_values_arrive_exactly(broker: MqttBroker) -> None:
    declared = tags(FLOW, MODE)
    emulator = device(broker)
    async with connected(make(CONNECTOR, broker, declared, **OPTIONS)) as connector:
        await emulator.start()
        for count in range(50):
            await emulator.update({FLOW: count / 7, MODE: f"m{count}"}, START_US + count)
        reader = Reader(connector, declared)
        await reader.until(lambda r: len(r.values(2)) == 50)
        assert reader.values(1) == [count / 7 for count in range(50)]
        assert reader.values(2) == [f"m{count}" for count in range(50)]
        times = reader.rows.filter(tag_id=1)["source_timestamp"].to_physical().to_list()
        assert times == [START_US + count for count in range(50)]
        assert not reader.errors
        await emulator.stop()


async def test_unacknowledged_messages_come_again(broker: MqttBroker) -> None:
    declared = tags(FLOW)
    emulator = device(broker)
    first = make(CONNECTOR, broker, declared, **OPTIONS)
    await first.connect()
    await emulator.start()
    await emulator.update({FLOW: 1.0}, START_US)
    reader = Reader(first, declared)
    await reader.until(lambda r: r.values(1) == [1.0])
    for count in range(2, 6):
        await emulator.update({FLOW: float(count)}, START_US + count)
    await reader.until(lambda r: len(r.values(1)) == 5, acknowledge=False)
    first._session.abort()  # killed: no goodbye, and nothing more is acknowledged
    await first.close()
    for count in range(6, 10):
        await emulator.update({FLOW: float(count)}, START_US + count)
    async with connected(make(CONNECTOR, broker, declared, **OPTIONS)) as second:
        assert second._session.session_present
        again = Reader(second, declared)
        await again.until(lambda r: len(set(r.values(1))) == 8)
        assert set(again.values(1)) == {float(count) for count in range(2, 10)}
    await emulator.stop()


async def test_acknowledged_messages_do_not_come_again(broker: MqttBroker) -> None:
    declared = tags(FLOW)
    emulator = device(broker)
    await emulator.start()
    async with connected(make(CONNECTOR, broker, declared, **OPTIONS)) as connector:
        await emulator.update({FLOW: 1.0}, START_US)
        await Reader(connector, declared).until(lambda r: r.values(1) == [1.0])
    async with connected(make(CONNECTOR, broker, declared, **OPTIONS)) as connector:
        await emulator.update({FLOW: 2.0}, START_US + 1)
        reader = Reader(connector, declared)
        await reader.until(lambda r: bool(r.values(1)))
        assert reader.values(1) == [2.0]
    await emulator.stop()


@pytest.mark.kill
async def test_killed_broker_loses_nothing(platform: PlatformBroker) -> None:
    declared = tags(FLOW)
    emulator = device(platform)
    await emulator.start()
    seen: list[float] = []
    total = 300
    subscribed = asyncio.Event()

    async def follow() -> None:
        while len(set(seen)) < total:
            connector = make(CONNECTOR, platform, declared, **OPTIONS)
            try:
                async with connected(connector):
                    subscribed.set()
                    while len(set(seen)) < total:
                        reader = Reader(connector, declared)
                        await reader.once()
                        seen.extend(reader.values(1))
            except Transient:
                await turn(0.05)

    reading = asyncio.create_task(follow())
    await subscribed.wait()
    for count in range(total):
        await emulator.update({FLOW: float(count)}, START_US + count)
        if count in (100, 200):
            await eventually(lambda: len(seen) > 20, "some were read")
            await platform.stop()
            await platform.start()
    async with asyncio.timeout(60):
        await reading
    assert set(seen) == {float(count) for count in range(total)}
    await emulator.stop()


async def test_broken_messages_and_missing_fields(broker: MqttBroker) -> None:
    declared = tags(FLOW, MODE)
    async with connected(make(CONNECTOR, broker, declared, **OPTIONS)) as connector:
        session = open_session(broker, "vandal")
        await session.connect()
        for body in (b"{", b"\xff", b'{"mode": "x", "ts": 1700000000000000}'):
            await session.publish("hall.1/meter", body, qos=1)
        reader = Reader(connector, declared)
        await reader.until(lambda r: "x" in r.values(2))
        assert reader.notices.count("EDGE-4101") == 2
        assert reader.errors[1].startswith("EDGE-4102")
        assert reader.rows.filter(tag_id=1)["status"].to_list() == [codes.BAD_NO_DATA] * 3
        await session.close()


async def test_wrong_password_is_refused(broker: MqttBroker) -> None:
    connection = ConnectionConfig(
        name="plc",
        protocol="mqtt",
        endpoint=broker.url,
        options={"username": broker.user, "password": "env:WRONG"},
    )
    connector = CONNECTOR.open(connection, context(broker))
    with pytest.raises(Refused, match="EDGE-4011") as caught:
        await connector.connect()
    assert broker.user in str(caught.value) and caught.value.remedy
    await connector.close()


async def test_dead_port_is_transient(tmp_path: Path) -> None:
    connection = ConnectionConfig(
        name="plc", protocol="mqtt", endpoint=f"mqtt://127.0.0.1:{free_port()}"
    )
    connector = CONNECTOR.open(connection, context(MqttBroker(tmp_path)))
    with pytest.raises(Transient, match="EDGE-4010"):
        await connector.connect()
    await connector.close()


async def test_silent_port_is_transient(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = ConnectionConfig(
        name="plc",
        protocol="mqtt",
        endpoint=f"mqtt://127.0.0.1:{port}",
        options={"connect_timeout_s": 0.3},
    )
    connector = CONNECTOR.open(connection, context(MqttBroker(tmp_path)))
    with pytest.raises(Transient, match="EDGE-4010"):
        await connector.connect()
    await connector.close()
    server.close()


async def test_no_broker_of_our_own_is_misconfigured(tmp_path: Path) -> None:
    connection = ConnectionConfig(name="plc", protocol="mqtt", endpoint="broker")
    with pytest.raises(Misconfigured, match="EDGE-4001"):
        CONNECTOR.open(connection, context(MqttBroker(tmp_path), mqtt_endpoint=""))


async def test_killed_broker_ends_the_read(broker: MqttBroker) -> None:
    declared = tags(FLOW)
    async with connected(make(CONNECTOR, broker, declared)) as connector:
        reading = asyncio.create_task(connector.read(ScanGroup(1_000, declared)))
        await turn()
        await broker.stop()
        with pytest.raises(Transient, match="EDGE-4013"):
            await asyncio.wait_for(reading, 10)


async def test_silence_and_last_will_make_stale(broker: MqttBroker) -> None:
    declared = tags(FLOW, "other#")
    options = OPTIONS | {"stale_after_s": 0.4, "availability_topic": "hall.1/alive"}
    async with connected(make(CONNECTOR, broker, declared, **options)) as connector:
        emulator = device(broker)
        await emulator.start()
        reader = Reader(connector, declared)
        await reader.until(lambda r: r.stale == {1, 2})
        await emulator.update({FLOW: 2.0}, START_US)
        await reader.until(lambda r: r.values(1) == [2.0])
        reader.stale.clear()
        session = open_session(broker, "will")
        await session.connect()
        await session.publish("hall.1/alive", b"offline", qos=1)
        await reader.until(lambda r: r.stale == {1, 2})
        assert set(reader.notices) == {"EDGE-4105"}
        await session.close()
        await emulator.stop()


async def test_tags_change_without_a_new_session(broker: MqttBroker) -> None:
    one, two = tags(FLOW), tags(FLOW, "late#")
    async with connected(make(CONNECTOR, broker, one, **OPTIONS)) as connector:
        session = open_session(broker, "publisher")
        await session.connect()
        reader = Reader(connector, one)
        waiting = asyncio.create_task(connector.read(ScanGroup(1_000, two)))
        await eventually(lambda: "late" in connector._decoder.topics, "declared")
        waiting.cancel()
        await asyncio.wait([waiting])
        reader.group = ScanGroup(1_000, two)
        await session.publish("late", b"4", qos=1)
        await reader.until(lambda r: r.values(2) == [4.0])
        reader.group = ScanGroup(1_000, two[1:])
        await session.publish("late", b"5", qos=1)
        await reader.until(lambda r: r.values(2) == [4.0, 5.0])
        await session.publish("hall.1/meter", b"{}", qos=1)
        await session.publish("late", b"6", qos=1)
        await reader.until(lambda r: r.values(2) == [4.0, 5.0, 6.0])
        assert reader.values(1) == []
        await session.close()


async def test_topics_of_an_earlier_configuration_are_left(broker: MqttBroker) -> None:
    old, new = tags("old#", "new#"), tags("new#")
    async with connected(make(CONNECTOR, broker, old)):
        pass
    session = open_session(broker, "publisher")
    await session.connect()
    await session.publish("old", b"1", qos=1)
    await session.publish("new", b"2", qos=1)
    async with connected(make(CONNECTOR, broker, new)) as connector:
        reader = Reader(connector, new)
        await reader.until(lambda r: r.values(1) == [2.0])
    await session.close()


async def test_write_is_read_back(broker: MqttBroker) -> None:
    written: list[Any] = []
    declared = tags(FLOW, MODE, "hall.1/meter#/ts")
    emulator = device(
        broker, write_topic_suffix="/set", on_write=lambda *each: written.append(each)
    )
    await emulator.start()
    options = OPTIONS | {"write_topic_suffix": "/set", "write_timeout_s": 0.5}
    async with connected(make(CONNECTOR, broker, declared, **options)) as connector:
        assert await connector.write(declared[0], 12.25) == 12.25
        assert await connector.write(declared[1], "manual") == "manual"
        assert written == [(FLOW, 12.25), (MODE, "manual")]
        await emulator.stop()
        with pytest.raises(Transient, match=r"EDGE-4107.*unknown"):
            await connector.write(declared[0], 1.0)
    async with connected(make(CONNECTOR, broker, declared)) as connector:
        with pytest.raises(Misconfigured, match="EDGE-4106"):
            await connector.write(declared[0], 1.0)


async def test_browse_lists_leaves_with_values(broker: MqttBroker) -> None:
    emulator = device(broker, retain=True)
    await emulator.start()
    await emulator.update({FLOW: 3.5, MODE: "auto"}, START_US)
    await eventually(lambda: not emulator._outbox, "acknowledged")
    async with connected(make(CONNECTOR, broker, (), browse_listen_s=1.0)) as connector:
        for prefix in ("", "hall.1"):
            items = {item.address: item for item in await connector.browse(prefix)}
            assert items[FLOW].value == "3.5" and items[FLOW].data_type == "number"
            assert items[FLOW].proposed_path == "flow/now"
            assert items[MODE].value == "auto"
        assert await connector.browse("elsewhere") == []
    await emulator.stop()


async def test_full_queue_stops_reading_and_loses_nothing(broker: MqttBroker) -> None:
    declared = tags(FLOW)
    options = OPTIONS | {"queue_messages_max": 10}
    emulator = device(broker)
    await emulator.start()
    async with connected(make(CONNECTOR, broker, declared, **options)) as connector:
        await connector._pump.stop()  # nobody takes from the queue
        for count in range(500):
            await emulator.update({FLOW: float(count)}, START_US + count)
        session = connector._session
        await eventually(lambda: not session._reading, "it stops reading its socket")
        assert len(session._queue) == 10
        connector._pump.start()
        reader = Reader(connector, declared)
        await reader.until(lambda r: len(r.values(1)) == 500)
        assert reader.values(1) == [float(count) for count in range(500)]
    await emulator.stop()


@pytest.mark.foreign
async def test_mosquittos_own_tools_agree(mosquitto: Mosquitto) -> None:
    declared = tags("hall/meter#/flow")
    options = {"write_topic_suffix": "/set", "write_timeout_s": 5.0}
    async with connected(make(CONNECTOR, mosquitto, declared, **options)) as connector:
        reader = Reader(connector, declared)
        body = json.dumps({"flow": 0.1 + 0.2})
        publish = mosquitto.tool("pub", "-q", "1", "-t", "hall/meter", "-m", body)
        await asyncio.to_thread(subprocess.run, publish, check=True, timeout=20)
        await reader.until(lambda r: r.values(1) == [0.1 + 0.2])
        listen = mosquitto.tool(
            "sub", "-q", "1", "-t", "hall/meter/set", "-C", "1", "-W", "15", "-v"
        )
        answer = asyncio.create_task(
            asyncio.to_thread(subprocess.run, listen, stdout=subprocess.PIPE, timeout=20)
        )
        while not answer.done():
            write = asyncio.create_task(connector.write(declared[0], 7.5))
            await asyncio.wait([write, answer], timeout=1.0, return_when="FIRST_COMPLETED")
            write.cancel()
            await asyncio.wait([write])
        assert (await answer).stdout.decode().split() == ["hall/meter/set", '{"flow":7.5}']
