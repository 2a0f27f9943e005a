"""Sparkplug B 3.0 as a host application: the connector's type. It needs no driver until it is opened."""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.edge.connectors.mqtt.config import PLATFORM_BROKER, decode_options, parse_endpoint
from headrace.edge.connectors.sparkplug.config import SparkplugOptions, check_id, parse_address
from headrace.edge.contract import Ability, Connector, ConnectorContext, Mode
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Misconfigured


class SparkplugConnectorType:
    """Sparkplug B edge nodes at a foreign broker or the platform's own.

    Example:
        >>> CONNECTOR.protocol, CONNECTOR.mode
        ('sparkplug', 'subscribe')
    """

    protocol: str = "sparkplug"
    title: tuple[str, str] = ("Sparkplug B", "Sparkplug B")
    mode: Mode = "subscribe"
    abilities: frozenset[Ability] = frozenset({"read", "write", "browse"})
    options: type[msgspec.Struct] = SparkplugOptions
    endpoint_example: str = "mqtt://192.168.0.20:1883"
    address_example: str = "hall_1/node_1/meter_3#power/total"

    def check_connection(self, connection: ConnectionConfig) -> None:
        """Check endpoint and options.

        Raises:
            Misconfigured: EDGE-4001 for the endpoint, EDGE-4002 for an option, EDGE-4005 for an id.
        """
        what = f"connection {connection.name!r}"
        if connection.endpoint != PLATFORM_BROKER:
            parse_endpoint(connection.endpoint, connection.name)
        options = decode_options(connection, SparkplugOptions)
        for each in (*options.groups, *filter(None, [options.host_id])):
            check_id(each, what)
        for name in ("reorder_timeout_ms", "rebirth_interval_ms", "startup_rebirth_ms"):
            if getattr(options, name) < 0:
                raise Misconfigured(
                    "EDGE-4002",
                    f"{what} has {name} = {getattr(options, name)}",
                    "Use 0 or more milliseconds.",
                )

    def check_tag(self, tag: TagConfig) -> None:
        """Check a tag's address.

        Raises:
            Misconfigured: EDGE-4003, EDGE-4005.
        """
        parse_address(tag.address, f"tag {tag.path!r}")

    def open(self, connection: ConnectionConfig, context: ConnectorContext) -> Connector:
        """A new connector; imports paho-mqtt and protobuf.

        Raises:
            Misconfigured: EDGE-1001 when a driver is not installed.
        """
        try:
            from headrace.edge.connectors.sparkplug.connector import SparkplugConnector
        except ImportError as error:
            raise Misconfigured(
                "EDGE-1001",
                f"connection {connection.name!r} needs the drivers paho-mqtt and protobuf: {error}",
                "Run: pip install 'headrace[mqtt]'",
            ) from error
        self.check_connection(connection)
        return SparkplugConnector(connection, decode_options(connection, SparkplugOptions), context)


CONNECTOR: Final = SparkplugConnectorType()
