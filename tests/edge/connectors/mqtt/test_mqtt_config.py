"""Endpoints, options and addresses of both MQTT connectors, checked without I/O."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.edge.connectors.mqtt import CONNECTOR as JSON
from headrace.edge.connectors.sparkplug import CONNECTOR as SPARKPLUG
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Misconfigured

BOTH = pytest.mark.parametrize("connector", [JSON, SPARKPLUG])


def connection(endpoint: str, **options: Any) -> ConnectionConfig:
    return ConnectionConfig(name="c", protocol="mqtt", endpoint=endpoint, options=options)


@BOTH
@pytest.mark.parametrize("endpoint", ["broker", "mqtt://h", "mqtt://h:1", "mqtts://[::1]:8883"])
def test_good_endpoints(connector: Any, endpoint: str) -> None:
    connector.check_connection(connection(endpoint))


@BOTH
@pytest.mark.parametrize(
    "endpoint",
    ["", "h:1883", "http://h", "mqtt://", "mqtt://h:x", "mqtt://u:p@h", "mqtt://h/topic"],
)
def test_bad_endpoints(connector: Any, endpoint: str) -> None:
    with pytest.raises(Misconfigured, match="EDGE-4001") as caught:
        connector.check_connection(connection(endpoint))
    assert caught.value.remedy


@pytest.mark.parametrize(
    "options",
    [
        {"qos": 2},
        {"no_such": 1},
        {"timestamp": "/ts"},
        {"timestamp": "/ts@h"},
        {"quality_map": {"x": "NoSuchStatus"}},
        {"keep_alive_s": 0},
        {"queue_messages_max": -1},
    ],
)
def test_bad_json_options(options: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="EDGE-4002"):
        JSON.check_connection(connection("broker", **options))


@pytest.mark.parametrize("options", [{"qos": 1}, {"reorder_timeout_ms": -1}, {"groups": "hall"}])
def test_bad_sparkplug_options(options: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="EDGE-4002"):
        SPARKPLUG.check_connection(connection("broker", **options))


@pytest.mark.parametrize("host_id", ["a/b", "a+", "#"])
def test_bad_host_id(host_id: str) -> None:
    with pytest.raises(Misconfigured, match="EDGE-4005"):
        SPARKPLUG.check_connection(connection("broker", host_id=host_id))


@pytest.mark.parametrize("address", ["t#/a", "t#", "a/b/c#/x~1y/0", "t#/with#hash"])
def test_good_json_addresses(address: str) -> None:
    JSON.check_tag(TagConfig(tag_id=1, path="a/b", address=address))


@pytest.mark.parametrize("address", ["", "t", "#", "#/a", "a/+/b#/x", "t#a", "t#/a~2"])
def test_bad_json_addresses(address: str) -> None:
    with pytest.raises(Misconfigured, match="EDGE-4003"):
        JSON.check_tag(TagConfig(tag_id=1, path="a/b", address=address))


@pytest.mark.parametrize("address", ["g/n#m", "g/n/d#a/b", "g 1/n.2#Node Control/Rebirth#2"])
def test_good_sparkplug_addresses(address: str) -> None:
    SPARKPLUG.check_tag(TagConfig(tag_id=1, path="a/b", address=address))


@pytest.mark.parametrize("address", ["", "g#m", "g/n", "g/n#", "g/n/d/e#m", "g//d#m", "g/+#m"])
def test_bad_sparkplug_addresses(address: str) -> None:
    with pytest.raises(Misconfigured, match=r"EDGE-400[35]"):
        SPARKPLUG.check_tag(TagConfig(tag_id=1, path="a/b", address=address))
