"""MQTT with plain JSON payloads: the connector's type. It needs no driver until it is opened."""

from __future__ import annotations

from typing import Final

import msgspec

from headrace.edge.connectors.mqtt.config import (
    PLATFORM_BROKER,
    MqttOptions,
    check_topic,
    decode_options,
    parse_address,
    parse_endpoint,
    parse_pointer,
    parse_time_field,
    quality_codes,
)
from headrace.edge.contract import Ability, Connector, ConnectorContext, Mode
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Misconfigured


class MqttConnectorType:
    """Plain JSON over MQTT 3.1.1, at a foreign broker or the platform's own.

    Example:
        >>> CONNECTOR.protocol, CONNECTOR.mode
        ('mqtt', 'subscribe')
    """

    protocol: str = "mqtt"
    title: tuple[str, str] = ("MQTT (JSON)", "MQTT（JSON）")
    mode: Mode = "subscribe"
    abilities: frozenset[Ability] = frozenset({"read", "write", "browse"})
    options: type[msgspec.Struct] = MqttOptions
    endpoint_example: str = "mqtt://192.168.0.20:1883"
    address_example: str = "hall_1/meter_3#/power/total"

    def check_connection(self, connection: ConnectionConfig) -> None:
        """Check endpoint and options.

        Raises:
            Misconfigured: EDGE-4001 for the endpoint, EDGE-4002 for an option.
        """
        what = f"connection {connection.name!r}"
        if connection.endpoint != PLATFORM_BROKER:
            parse_endpoint(connection.endpoint, connection.name)
        options = decode_options(connection, MqttOptions)
        parse_time_field(options.timestamp, what)
        parse_pointer(options.quality, what)
        quality_codes(options, what)
        if options.availability_topic:
            check_topic(options.availability_topic, what)
        if options.write_topic_suffix:
            check_topic(options.write_topic_suffix, what)

    def check_tag(self, tag: TagConfig) -> None:
        """Check a tag's address.

        Raises:
            Misconfigured: EDGE-4003.
        """
        parse_address(tag.address, f"tag {tag.path!r}")

    def open(self, connection: ConnectionConfig, context: ConnectorContext) -> Connector:
        """A new connector; imports paho-mqtt.

        Raises:
            Misconfigured: EDGE-1001 when paho-mqtt is not installed.
        """
        try:
            from headrace.edge.connectors.mqtt.connector import MqttConnector
        except ImportError as error:
            raise Misconfigured(
                "EDGE-1001",
                f"connection {connection.name!r} needs the driver paho-mqtt: {error}",
                "Run: pip install 'headrace[mqtt]'",
            ) from error
        self.check_connection(connection)
        return MqttConnector(connection, decode_options(connection, MqttOptions), context)


CONNECTOR: Final = MqttConnectorType()
