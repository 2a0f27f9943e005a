"""Modbus TCP and RTU-over-TCP: the connector type that the entry point ``modbus`` names.

No driver is needed: framing and decoding are our own (docs/adr/0003-own-modbus-framing.md).
"""

from __future__ import annotations

import msgspec

from headrace.edge.connectors.modbus.address import check_any
from headrace.edge.connectors.modbus.config import (
    ModbusOptions,
    ModbusSettings,
    parse_endpoint,
    parse_settings,
)
from headrace.edge.connectors.modbus.connector import ModbusConnector
from headrace.edge.connectors.modbus.groupplan import (
    check_no_array,
    limits_of,
    make_plan,
    parse_tag,
    span_of,
)
from headrace.edge.connectors.modbus.pipelining import Refusals
from headrace.edge.contract import Ability, ConnectorContext, Mode, ScanGroup
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Misconfigured


class ModbusType:
    """What Modbus is before there is a session; see :class:`headrace.edge.contract.ConnectorType`."""

    protocol: str = "modbus"
    title: tuple[str, str] = ("Modbus TCP and RTU over TCP", "Modbus TCP / RTU over TCP")
    mode: Mode = "poll"
    abilities: frozenset[Ability] = frozenset({"read", "write", "browse"})
    options: type[msgspec.Struct] = ModbusOptions
    endpoint_example: str = "192.168.0.10:502"
    address_example: str = "holding:12:float32:CDAB"

    def __init__(self) -> None:
        self._refusals = Refusals()

    def check_connection(self, connection: ConnectionConfig) -> None:
        """Check endpoint, options, and the tags against them.

        Raises:
            Misconfigured: EDGE-3040 to EDGE-3053.
        """
        settings = parse_settings(connection)
        for tag in connection.tags:
            parse_tag(tag, settings)
        _check_groups(connection, settings)

    def check_tag(self, tag: TagConfig) -> None:
        """Check a tag's address in any way to count registers; the connection's own is checked with it.

        Raises:
            Misconfigured: EDGE-3050, EDGE-3052.
        """
        check_no_array(tag)
        check_any(tag.address)

    def open(self, connection: ConnectionConfig, context: ConnectorContext) -> ModbusConnector:
        """A new connector; opens nothing.

        Raises:
            Misconfigured: EDGE-3040 to EDGE-3050, for wrong settings.
        """
        return ModbusConnector(parse_settings(connection), context, self._refusals)


def _check_groups(connection: ConnectionConfig, settings: ModbusSettings) -> None:
    """What clock and records demand of the tags that are read together."""
    limits = limits_of(settings)
    if settings.timestamp and not limits.allows(span_of(settings.timestamp[0])):
        raise _unreadable(connection, "timestamp")
    if settings.record and not limits.allows(span_of(settings.record[0])):
        raise _unreadable(connection, "record_sequence")
    intervals = sorted({tag.scan_interval_ms for tag in connection.tags})
    if settings.record and len(intervals) > 1:
        raise Misconfigured(
            "EDGE-3054",
            f"the connection {connection.name} reads records, but its tags have the scan "
            f"intervals {intervals}",
            "Give all its tags one scan_interval_ms: a record is read and acknowledged whole.",
        )
    for interval in intervals:
        tags = tuple(tag for tag in connection.tags if tag.scan_interval_ms == interval)
        wrong = make_plan(ScanGroup(interval, tags), settings).wrong
        if wrong:
            raise next(iter(wrong.values()))


def _unreadable(connection: ConnectionConfig, option: str) -> Misconfigured:
    return Misconfigured(
        "EDGE-3051",
        f"the option {option} of {connection.name} is longer than registers_max or forbidden",
        "Change the option, registers_max or forbidden.",
    )


CONNECTOR = ModbusType()

__all__ = ["CONNECTOR", "ModbusOptions", "ModbusType", "parse_endpoint"]
