"""A broker and a historian of one test, on free ports and in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from headrace.bus.broker import BrokerAddress, prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.model.folder import DataFolder


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path / "data")


@pytest.fixture
def address(folder: DataFolder) -> Iterator[BrokerAddress]:
    address = prepare_address(folder)
    process = start_broker(folder, address, sync_interval="2m")
    yield address
    stop_broker(process)


@pytest.fixture
async def bus(address: BrokerAddress) -> AsyncIterator[Bus]:
    async with open_bus(address, "test") as opened:
        await ensure_streams(opened)
        yield opened
