"""What every test may use: a real broker on free ports, and a bus connected to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from headrace.bus.broker import BrokerAddress, prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.model.folder import DataFolder

# How long an example takes to make is no matter here: a busy machine is no fault of what is tested.
settings.register_profile("busy", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("busy")


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """An empty data folder."""
    return DataFolder(tmp_path / "data")


@pytest.fixture
def broker(folder: DataFolder) -> Iterator[BrokerAddress]:
    """A real broker on the test's data folder."""
    address = prepare_address(folder)
    process = start_broker(folder, address)
    yield address
    stop_broker(process)


@pytest.fixture
async def bus(broker: BrokerAddress) -> AsyncIterator[Bus]:
    """A connection to the test's broker, with the streams in place."""
    async with open_bus(broker, "test") as connection:
        await ensure_streams(connection)
        yield connection
