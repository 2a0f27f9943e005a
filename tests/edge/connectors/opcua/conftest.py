"""A connector on any endpoint, closed at the end; and reading until something holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.edge.connectors.opcua import CONNECTOR
from headrace.edge.contract import Connector, ConnectorContext, Reading, ScanGroup
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.sample import check_batch, concat_batches
from headrace.model.time import SystemClock


class Bench:
    """Opens connectors and reads from them."""

    def __init__(self, folder: Path) -> None:
        self.certificates = folder / "certificates"
        self.opened: list[Connector] = []

    def make(self, endpoint: str, *, resume_us: int = 0, **options: Any) -> Any:
        """A connector that is not connected yet."""
        connection = ConnectionConfig(
            name="cell",
            protocol="opcua",
            endpoint=endpoint,
            options={"publishing_interval_ms": 50, "timeout_s": 3.0, **options},
        )
        CONNECTOR.check_connection(connection)
        context = ConnectorContext(
            clock=SystemClock(),
            certificates=self.certificates,
            secret=lambda text: text.removeprefix("secret:"),
            identity="acme-mill-local",
            resume_us=resume_us,
        )
        connector = CONNECTOR.open(connection, context)
        self.opened.append(connector)
        return connector

    async def connect(self, endpoint: str, **options: Any) -> Any:
        """A connected connector."""
        connector = self.make(endpoint, **options)
        await connector.connect()
        return connector

    async def until(
        self,
        connector: Any,
        tags: Sequence[TagConfig],
        enough: Callable[[pl.DataFrame], bool],
        timeout_s: float = 15.0,
    ) -> tuple[pl.DataFrame, list[Reading]]:
        """All samples, read until there are enough."""
        group = ScanGroup(scan_interval_ms=0, tags=tuple(tags))
        readings: list[Reading] = []
        async with asyncio.timeout(timeout_s):
            while True:
                readings.append(await connector.read(group))
                batch = concat_batches([check_batch(r.batch) for r in readings])
                if enough(batch):
                    return batch, readings


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A bench whose connectors are closed at the end."""
    made = Bench(tmp_path)
    yield made
    for connector in made.opened:
        await connector.close()
