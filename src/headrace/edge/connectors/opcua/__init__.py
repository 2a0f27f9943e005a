"""OPC UA: subscriptions, reads, writes, browsing and history of OPC UA servers (OPC 10000).

The face of the connector; needs no driver. asyncua is imported by :meth:`OpcUa.open`.
"""

from __future__ import annotations

from typing import Final

from headrace.edge.connectors.opcua.address import ADDRESS_EXAMPLE, parse_address
from headrace.edge.connectors.opcua.options import ENDPOINT_EXAMPLE, OpcUaOptions, parse_options
from headrace.edge.contract import Ability, Connector, ConnectorContext, Mode
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Misconfigured

__all__ = ["CONNECTOR", "OpcUa", "OpcUaOptions"]


class OpcUa:
    """The connector type; see :class:`headrace.edge.contract.ConnectorType`."""

    protocol: str = "opcua"
    title: tuple[str, str] = ("OPC UA", "OPC UA")
    mode: Mode = "subscribe"
    abilities: frozenset[Ability] = frozenset({"read", "write", "browse", "history"})
    options = OpcUaOptions
    endpoint_example: str = ENDPOINT_EXAMPLE
    address_example: str = ADDRESS_EXAMPLE

    def check_connection(self, connection: ConnectionConfig) -> None:
        """Check endpoint and options.

        Raises:
            Misconfigured: EDGE-2008.
        """
        parse_options(connection)

    def check_tag(self, tag: TagConfig) -> None:
        """Check a tag's address and how it fits its settings.

        Raises:
            Misconfigured: EDGE-2009.
        """
        address = parse_address(tag.address)
        if tag.sample_interval_us and address.element is not None:
            raise Misconfigured(
                "EDGE-2009",
                f"tag {tag.path} has sample_interval_us and takes one element ({tag.address})",
                "Remove the element for a waveform, or sample_interval_us for one value.",
            )
        if tag.writable and address.suffix and not address.is_ambiguous:
            raise Misconfigured(
                "EDGE-2009",
                f"tag {tag.path} is writable and its address {tag.address} is a part of a value",
                "Only whole values can be written; remove writable or address the node itself.",
            )

    def open(self, connection: ConnectionConfig, context: ConnectorContext) -> Connector:
        """A connector for one session.

        Raises:
            Misconfigured: EDGE-1001 when asyncua is not installed; EDGE-2008 for wrong options.
        """
        options = parse_options(connection)
        try:
            from headrace.edge.connectors.opcua.connector import OpcUaConnector
        except ImportError as error:
            raise Misconfigured(
                "EDGE-1001",
                f"the driver of connection {connection.name} is not installed ({error.name})",
                "Run pip install 'headrace[opcua]'.",
            ) from error
        return OpcUaConnector(connection, options, context)


CONNECTOR: Final = OpcUa()
