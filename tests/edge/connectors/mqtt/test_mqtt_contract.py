"""Both MQTT connectors against the contract suite that every connector must pass."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.edge.connectors.mqtt import CONNECTOR as JSON
from headrace.edge.connectors.sparkplug import CONNECTOR as SPARKPLUG
from headrace.sim.emulators import Point
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from headrace.sim.emulators.sparkplug import SparkplugEmulator
from mqtt_brokers import PlatformBroker

testing = pytest.importorskip("headrace.testing", reason="the contract suite is not there")
CHECKS = getattr(testing, "CONNECTOR_CHECKS", ())

JSON_EXPECTED: dict[str, Any] = {
    "hall/meter#/flow": 2.5,
    "hall/meter#/total": 2**60 + 1,
    "hall/meter#/mode": "auto",
}
NODE = "hall.1/node_1"
SPARKPLUG_EXPECTED: dict[str, Any] = {
    f"{NODE}#level": -1.25,
    f"{NODE}/meter#total": -(2**60) - 1,
    f"{NODE}/meter#power": 0.5,
    f"{NODE}/meter#mode": "auto",
    f"{NODE}/meter#count": 7,
}


def json_case(broker: PlatformBroker) -> Any:
    points = [
        Point("hall/meter#/flow", writable=True),
        Point("hall/meter#/total", "int64"),
        Point("hall/meter#/mode", "string", "", writable=True),
    ]
    return testing.ConnectorCase(
        connector=JSON,
        make_emulator=lambda: MqttJsonEmulator(
            points,
            endpoint=broker.url,
            username=broker.user,
            password=broker.password,
            write_topic_suffix="/set",
            retain=True,
        ),
        expected=JSON_EXPECTED,
        endpoint="broker",
        server=broker,
        options={
            "write_topic_suffix": "/set",
            "write_timeout_s": 1.0,
            "connect_timeout_s": 1.0,
            "browse_listen_s": 0.5,
            "clean_session": True,
            "timestamp": "/ts@us",
        },
        missing_address="hall/meter#/none",
        nonsense_addresses=("no_mark", "a/+/b#/x", "t#x", "#/x"),
        nonsense_connections=(("", {}), ("http://x", {}), ("broker", {"qos": 3})),
        writes={"hall/meter#/flow": 12.5, "hall/meter#/mode": "manual"},
        browse_finds=tuple(JSON_EXPECTED),
        drivers=("paho",),
        device_time=True,
        context=lent(broker),
    )


def sparkplug_case(broker: PlatformBroker) -> Any:
    points = [
        Point(f"{NODE}#level"),
        Point(f"{NODE}/meter#total", "int64"),
        Point(f"{NODE}/meter#power", "float32", writable=True),
        Point(f"{NODE}/meter#mode", "string", "", writable=True),
        Point(f"{NODE}/meter#count", "uint16", 0, writable=True),
    ]
    return testing.ConnectorCase(
        connector=SPARKPLUG,
        make_emulator=lambda: SparkplugEmulator(
            points, endpoint=broker.url, username=broker.user, password=broker.password
        ),
        expected=SPARKPLUG_EXPECTED,
        endpoint="broker",
        server=broker,
        options={
            "write_timeout_s": 1.0,
            "connect_timeout_s": 1.0,
            "startup_rebirth_ms": 0,
            "rebirth_interval_ms": 200,
        },
        missing_address=f"{NODE}/meter#none",
        nonsense_addresses=("no_mark", "g#m", "g/n", "g/n/d/e#m", "g/+#m"),
        nonsense_connections=(("", {}), ("http://x", {}), ("broker", {"host_id": "a/b"})),
        writes={f"{NODE}/meter#power": 12.5, f"{NODE}/meter#mode": "manual"},
        writes_refused={f"{NODE}/other#power": 1.0},
        writes_impossible={f"{NODE}/meter#count": -1.0, f"{NODE}/meter#power": "hot"},
        browse_finds=tuple(SPARKPLUG_EXPECTED),
        drivers=("paho", "google"),
        context=lent(broker),
    )


def lent(broker: PlatformBroker) -> dict[str, Any]:
    return {
        "mqtt_endpoint": broker.url,
        "mqtt_user": broker.user,
        "mqtt_password": broker.password,
        "identity": "acme-mill-local",
    }


@pytest.mark.parametrize("make_case", [json_case, sparkplug_case])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_mqtt_contract(
    check: Callable[[Any], Awaitable[None]],
    make_case: Callable[[PlatformBroker], Any],
    tmp_path: Path,
) -> None:
    broker = PlatformBroker(tmp_path / "broker")
    try:
        await check(make_case(broker))
    finally:
        broker.kill()
