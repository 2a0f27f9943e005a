"""The emulated edge node on the wire: what a Sparkplug edge node must and must not send."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.edge.connectors.mqtt.config import parse_endpoint
from headrace.edge.connectors.mqtt.session import MqttSession
from headrace.edge.connectors.sparkplug.payload import rebirth_request
from headrace.edge.connectors.sparkplug.schema import DataType, Payload
from headrace.model import status as codes
from headrace.model.errors import Misconfigured, Refused
from headrace.sim.emulators import Point
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from headrace.sim.emulators.sparkplug import SparkplugEmulator
from mqtt_brokers import (
    MqttBroker,
    Observer,
    PlatformBroker,
    Recorder,
    eventually,
    open_session,
)

AT_US = 1_700_000_000_000_000
NODE = "hall/node_1#level"
METER = "hall/node_1/meter#power"
PUMP = "hall/node_1/pump#speed"
POINTS = [Point(NODE), Point(METER, "float32", 1.5, writable=True), Point(PUMP, "int16", -3)]
MESSAGES = ("NBIRTH", "DBIRTH", "NDATA", "DDATA", "DDEATH")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[MqttBroker]:
    made = PlatformBroker(tmp_path / "broker")
    made.up()
    yield made
    made.kill()


def edge_node(broker: MqttBroker, **settings: Any) -> SparkplugEmulator:
    return SparkplugEmulator(
        POINTS, endpoint=broker.url, username=broker.user, password=broker.password, **settings
    )


def bd_seq(body: Any) -> int:
    (metric,) = [each for each in body.metrics if each.name == "bdSeq"]
    assert metric.datatype == DataType.INT64
    return int(metric.long_value)


async def ask_rebirth(session: MqttSession) -> None:
    await session.publish("spBv1.0/hall/NCMD/node_1", rebirth_request("Node Control/Rebirth", 1))


async def state(session: MqttSession, online: bool, timestamp: int, host: str = "scada") -> None:
    body = json.dumps({"online": online, "timestamp": timestamp}).encode()
    await session.publish(f"spBv1.0/STATE/{host}", body, qos=1, retain=True)


async def test_births_and_data_on_the_wire(broker: MqttBroker) -> None:
    emulator = edge_node(broker)
    async with Observer(broker) as observer:
        await emulator.start()
        for count in range(260):
            await emulator.update({NODE: float(count), METER: 2.5}, AT_US + count * 1_000)
        await emulator.set_device_online("pump", False)
        await observer.until(lambda _: bool(observer.of("DDEATH")))
        await emulator.stop()
        await observer.until(lambda _: bool(observer.of("NDEATH")))
    sent = [each for each in observer.seen if each.topic.split("/")[2] in MESSAGES]
    topics = [each.topic.removeprefix("spBv1.0/hall/") for each in sent]
    assert topics[:3] == ["NBIRTH/node_1", "DBIRTH/node_1/meter", "DBIRTH/node_1/pump"]
    assert set(topics[3:-1]) == {"NDATA/node_1", "DDATA/node_1/meter"}
    assert topics[-1] == "DDEATH/node_1/pump"
    bodies = [Payload.FromString(each.payload) for each in sent]
    assert [body.seq for body in bodies] == [number % 256 for number in range(len(bodies))]
    assert all((each.qos, each.retain) == (0, False) for each in sent)
    assert all(body.HasField("timestamp") for body in bodies)
    assert all(metric.HasField("timestamp") for body in bodies for metric in body.metrics)
    (death,) = observer.of("NDEATH")
    last = Payload.FromString(death.payload)
    assert not last.HasField("seq") and len(last.metrics) == 1
    assert bd_seq(last) == bd_seq(bodies[0]) == 0
    assert (death.qos, death.retain) == (1, False)


async def test_metrics_of_births_and_data(broker: MqttBroker) -> None:
    emulator = edge_node(broker)
    async with Observer(broker) as observer:
        await emulator.start()
        await emulator.update({METER: 0.5}, AT_US, {METER: codes.BAD})
        await observer.until(lambda _: bool(observer.of("DDATA")))
    births = [
        Payload.FromString(each.payload)
        for kind in ("NBIRTH", "DBIRTH")
        for each in observer.of(kind)
    ]
    metrics = [metric for body in births for metric in body.metrics]
    assert all(metric.name and metric.datatype for metric in metrics)
    assert {metric.name for metric in metrics} == {
        "bdSeq", "Node Control/Rebirth", "level", "power", "speed",
    }  # fmt: skip
    aliases = [metric.alias for metric in metrics if metric.HasField("alias")]
    assert len(set(aliases)) == len(aliases) == 3
    (rebirth,) = [each for each in metrics if each.name == "Node Control/Rebirth"]
    assert rebirth.datatype == DataType.BOOLEAN and rebirth.boolean_value is False
    assert rebirth.HasField("boolean_value") and not rebirth.HasField("alias")
    (datum,) = Payload.FromString(observer.of("DDATA")[0].payload).metrics
    assert not datum.HasField("name") and not datum.HasField("datatype")
    assert datum.timestamp == AT_US // 1_000
    assert list(datum.properties.keys) == ["Quality"]
    assert datum.properties.values[0].int_value == 0
    await emulator.stop()


async def test_unknown_values_are_null_in_births(broker: MqttBroker) -> None:
    emulator = SparkplugEmulator(
        [Point(NODE), Point("hall/node_1#other"), Point(METER)],
        endpoint=broker.url,
        username=broker.user,
        password=broker.password,
        birth="first_update",
    )
    async with Observer(broker) as observer:
        await emulator.start()
        await emulator.update({NODE: 4.0}, AT_US)
        await emulator.update({METER: 5.0}, AT_US)
        await observer.until(lambda _: bool(observer.of("DBIRTH")))
        await emulator.stop()
    (birth,) = observer.of("NBIRTH")
    known = {each.name: each for each in Payload.FromString(birth.payload).metrics}
    assert known["level"].double_value == 4.0
    assert known["other"].is_null and known["other"].WhichOneof("value") is None


async def test_rebirth_keeps_bd_seq_and_a_new_session_counts_it_up(broker: MqttBroker) -> None:
    emulator = edge_node(broker)
    async with Observer(broker) as observer:
        await emulator.start()
        await observer.until(lambda _: len(observer.of("DBIRTH")) == 2)
        await ask_rebirth(observer.session)
        await observer.until(lambda _: len(observer.of("DBIRTH")) == 4)
        assert emulator._link.session is not None
        emulator._link.session.abort()  # a broken link: the emulator comes back by itself
        await observer.until(lambda _: len(observer.of("DBIRTH")) == 6)
        births = [Payload.FromString(each.payload) for each in observer.of("NBIRTH")]
        assert [bd_seq(birth) for birth in births] == [0, 0, 1]
        assert [birth.seq for birth in births] == [0, 0, 0]
        assert [bd_seq(Payload.FromString(each.payload)) for each in observer.of("NDEATH")] == [0]
    await emulator.stop()


async def test_primary_host_rules(broker: MqttBroker) -> None:
    emulator = edge_node(broker, primary_host_id="scada")
    async with Observer(broker) as observer:
        await emulator.start()
        await state(observer.session, True, 50, host="other")
        await state(observer.session, False, 90)
        await state(observer.session, True, 80)  # older than what was said: not believed
        await emulator.update({NODE: 1.0}, AT_US)
        await eventually(lambda: emulator._state_timestamp == 90, "the state is known")
        await state(observer.session, True, 100)
        await observer.until(lambda _: len(observer.of("NDATA")) == 1)
        assert [each.topic.split("/")[1] for each in observer.seen].index("hall") > 3
        (history,) = Payload.FromString(observer.of("NDATA")[0].payload).metrics
        assert history.is_historical and history.double_value == 1.0
        await state(observer.session, False, 99)  # an old death: the session goes on
        await emulator.update({NODE: 2.0}, AT_US + 1_000)
        await observer.until(lambda _: len(observer.of("NDATA")) == 2)
        assert not observer.of("NDEATH")
        await state(observer.session, False, 100)
        await observer.until(lambda _: bool(observer.of("NDEATH")))
        await emulator.update({NODE: 3.0}, AT_US + 2_000)
        await state(observer.session, True, 200)
        await observer.until(lambda _: len(observer.of("NBIRTH")) == 2)
        births = [Payload.FromString(each.payload) for each in observer.of("NBIRTH")]
        assert [bd_seq(birth) for birth in births] == [0, 1]
    await emulator.stop()


async def test_edge_node_session_packet_by_packet() -> None:
    async with Recorder() as recorder:
        emulator = SparkplugEmulator(POINTS, endpoint=recorder.url)
        await emulator.start()
        await eventually(lambda: len(recorder.packets) == 5, "the births")
        await emulator.stop()
    assert recorder.kinds() == ["CONNECT", "SUBSCRIBE", "PUBLISH", "PUBLISH", "PUBLISH"]
    connect, subscribe, birth = (fields for _, fields in recorder.packets[:3])
    assert connect["clean_session"]
    assert (connect["will_topic"], connect["will_qos"]) == ("spBv1.0/hall/NDEATH/node_1", 1)
    assert not connect["will_retain"]
    will = Payload.FromString(connect["will_payload"])
    assert len(will.metrics) == 1 and not will.HasField("seq")
    assert bd_seq(will) == bd_seq(Payload.FromString(birth["payload"])) == 0
    assert subscribe["filters"] == [
        ("spBv1.0/hall/NCMD/node_1", 1),
        ("spBv1.0/hall/DCMD/node_1/+", 1),
    ]


async def test_rolling_history_is_sent_again_to_a_new_host_session(broker: MqttBroker) -> None:
    emulator = edge_node(broker, primary_host_id="scada", history_s=60.0)
    async with Observer(broker) as observer:
        await state(observer.session, True, 100)
        await emulator.start()
        await observer.until(lambda _: bool(observer.of("NBIRTH")))
        for count in range(5):
            await emulator.update({NODE: float(count)}, AT_US + count * 1_000)
        await state(observer.session, True, 200)  # it came back without a death that we saw
        await observer.until(lambda _: len(observer.of("NBIRTH")) == 2)
        await observer.until(lambda _: len(observer.of("NDATA")) == 6)
        again = Payload.FromString(observer.of("NDATA")[-1].payload).metrics
        assert [each.double_value for each in again] == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert all(each.is_historical for each in again)
    await emulator.stop()


async def test_commands_to_devices(broker: MqttBroker) -> None:
    written: list[Any] = []
    emulator = edge_node(broker, on_write=lambda *each: written.append(each))
    async with Observer(broker) as observer:
        await emulator.start()
        await observer.until(lambda _: len(observer.of("DBIRTH")) == 2)
        for device, name, value in (("pump", "speed", 1), ("meter", "power", 7.5)):
            body = Payload(timestamp=1)
            fields = {"int_value": value} if device == "pump" else {"float_value": value}
            body.metrics.add(name=name, **fields)
            topic = f"spBv1.0/hall/DCMD/node_1/{device}"
            await observer.session.publish(topic, body.SerializeToString())
        await observer.until(lambda _: bool(observer.of("DDATA")))
        assert written == [(METER, 7.5)]  # the pump's speed is not writable
    await emulator.stop()


async def test_wrong_points_are_refused(broker: MqttBroker) -> None:
    with pytest.raises(Misconfigured, match="SIM-4002"):
        SparkplugEmulator([Point(NODE), Point("hall/node_2#x")], endpoint=broker.url)
    emulator = edge_node(broker)
    with pytest.raises(Misconfigured, match="SIM-4001"):
        await emulator.update({"hall/node_1#none": 1.0}, AT_US)
    with pytest.raises(Misconfigured, match="EDGE-4208"):
        await emulator.update({NODE: 9.0, PUMP: 70_000}, AT_US)
    assert emulator._metrics[NODE].value == 0.0  # nothing was half done
    device = MqttJsonEmulator([Point("a#/b")], endpoint=broker.url, username="x", password="y")
    with pytest.raises(Misconfigured, match="SIM-4001"):
        await device.update({"a#/c": 1.0}, AT_US)
    with pytest.raises(Refused, match="EDGE-4011"):
        await device.start()


@pytest.mark.parametrize("timestamp", ["/t@s", "/t@ms", "/t@us", "/a/t@iso", ""])
async def test_json_device_on_the_wire(broker: MqttBroker, timestamp: str) -> None:
    points = [Point("m#/a/x"), Point("m#/y", "int32"), Point("m#/z", "bool"), Point("n#", "string")]
    device = MqttJsonEmulator(
        points,
        endpoint=broker.url,
        username=broker.user,
        password=broker.password,
        timestamp=timestamp,
    )
    async with Observer(broker, "#") as observer:
        await device.start()
        await device.update({"m#/a/x": 1.5, "n#": "on"}, AT_US, {"m#/y": codes.BAD})
        await observer.until(lambda seen: len(seen) == 2)
        said = {each.topic: each.payload for each in observer.seen}
        assert said["n"] == b"on"
        body = json.loads(said["m"])
        times = {
            "/t@s": {"t": AT_US / 1e6},
            "/t@ms": {"t": AT_US // 1_000},
            "/t@us": {"t": AT_US},
            "": {},
        }
        if timestamp == "/a/t@iso":
            assert body["a"].pop("t") == "2023-11-14T22:13:20+00:00"
        assert body == {"a": {"x": 1.5}, "z": False} | times.get(timestamp, {})
    await device.stop()


async def test_power_cut_leaves_no_goodbye(broker: MqttBroker) -> None:
    emulator = edge_node(broker)
    await emulator.start()
    assert parse_endpoint(emulator.endpoint, "x").port == broker.port
    session = open_session(broker, "onlooker")
    await session.connect()
    await session.subscribe([("spBv1.0/+/NDEATH/#", 1)])
    await emulator.stop()
    (death,) = await session.receive(10.0)
    assert death.topic == "spBv1.0/hall/NDEATH/node_1"
    await session.close()
