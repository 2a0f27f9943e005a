"""Shortcuts of the Modbus tests: a connector on an endpoint, tags by address, samples by address."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from headrace.edge.connectors.modbus import CONNECTOR
from headrace.edge.connectors.modbus.connector import ModbusConnector
from headrace.edge.contract import ConnectorContext, Reading, ScanGroup
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.time import Clock, SystemClock


def tag(address: str, tag_id: int = 1) -> TagConfig:
    """A tag with this address."""
    return TagConfig(tag_id=tag_id, path=f"area/unit/tag_{tag_id}", address=address)


def group(*addresses: str) -> ScanGroup:
    """One scan group; tag ids count from 1."""
    return ScanGroup(1000, tuple(tag(address, at) for at, address in enumerate(addresses, 1)))


def connection(
    endpoint: str, options: dict[str, Any] | None = None, addresses: Sequence[str] = ()
) -> ConnectionConfig:
    """Settings of a connection named plc."""
    return ConnectionConfig(
        name="plc",
        protocol="modbus",
        endpoint=endpoint,
        options={"timeout_s": 1.0, **(options or {})},
        tags=group(*addresses).tags,
    )


@contextlib.asynccontextmanager
async def connected(
    endpoint: str, clock: Clock | None = None, **options: Any
) -> AsyncIterator[ModbusConnector]:
    """A connected connector."""
    context = ConnectorContext(
        clock=clock or SystemClock(), certificates=Path("certificates"), secret=str
    )
    connector = CONNECTOR.open(connection(endpoint, options), context)
    try:
        await connector.connect()
        yield connector
    finally:
        await connector.close()


def by_address(reading: Reading, asked: ScanGroup) -> dict[str, tuple[Any, Any, int]]:
    """Address -> (value, text, status)."""
    addresses = {tag.tag_id: tag.address for tag in asked.tags}
    return {
        addresses[row["tag_id"]]: (row["value"], row["text"], row["status"])
        for row in reading.batch.iter_rows(named=True)
    }
