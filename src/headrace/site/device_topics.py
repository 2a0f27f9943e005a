"""Which MQTT topics a device has at the platform's own broker: those that the site file declares for it.

A device's name is that of its connection, or of its Sparkplug edge node. What nobody declared, nobody may
publish.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from headrace.edge.connectors.mqtt import config as mqtt
from headrace.edge.connectors.sparkplug import config as sparkplug
from headrace.model.desired import ConnectionConfig, EdgeConfig
from headrace.model.errors import Misconfigured

HOST_STATE: Final = f"{sparkplug.NAMESPACE}/STATE/+"
"""Where host applications say whether they are there; nodes wait for it (Sparkplug 3.0, 4.8)."""


@dataclass(frozen=True)
class DeviceTopics:
    """Topic filters. ``own``: says and hears; ``heard``: only hears."""

    own: tuple[str, ...]
    heard: tuple[str, ...] = ()


def device_topics(edges: Iterable[EdgeConfig]) -> dict[str, DeviceTopics]:
    """Name of a device -> its topics, of all connections with the endpoint ``broker``.

    Example:
        >>> device_topics([EdgeConfig(enterprise="acme", site="mill", edge="local")])
        {}
    """
    connections = [
        connection
        for edge in edges
        for connection in edge.connections
        if connection.endpoint == mqtt.PLATFORM_BROKER
    ]
    nodes: dict[str, DeviceTopics] = {}
    named: dict[str, DeviceTopics] = {}
    for connection in connections:
        if connection.protocol == "sparkplug":
            own = _sparkplug(connection)
            nodes |= {node: DeviceTopics((topic,), (HOST_STATE,)) for topic, node in own.items()}
            named[connection.name] = DeviceTopics(tuple(sorted(own)), (HOST_STATE,))
        elif connection.protocol == "mqtt":
            named[connection.name] = DeviceTopics(_plain(connection))
    return nodes | named


def _sparkplug(connection: ConnectionConfig) -> dict[str, str]:
    """Topic filter -> edge node."""
    found = {}
    for tag in connection.tags:
        try:
            address = sparkplug.parse_address(tag.address, tag.path)
        except Misconfigured:
            continue  # the edge tells it; the device has no topic by it
        topic = f"{sparkplug.NAMESPACE}/{address.group_id}/+/{address.edge_node_id}/#"
        found[topic] = address.edge_node_id
    return found


def _plain(connection: ConnectionConfig) -> tuple[str, ...]:
    suffix = str(connection.options.get("write_topic_suffix", ""))
    topics = {str(connection.options.get("availability_topic", ""))} - {""}
    for tag in connection.tags:
        try:
            topic, _ = mqtt.parse_address(tag.address, tag.path)
        except Misconfigured:
            continue
        topics |= {topic, topic + suffix}
    return tuple(sorted(topics))
