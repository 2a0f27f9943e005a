"""Against a server that is written in C and knows nothing of us."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from libmodbus_peer import serving
from modbus_rig import by_address, connected, group, tag

from headrace.edge.connectors.modbus.datatype import ORDERS
from headrace.model import status as codes
from headrace.model.errors import Misconfigured, Refused

pytestmark = pytest.mark.foreign


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("libmodbus")
    with serving(folder) as address:
        yield address


@pytest.mark.parametrize("in_flight", [1, 8])
async def test_two_thousand_registers_and_bits(endpoint: str, in_flight: int) -> None:
    asked = group(*(f"input:{at}" for at in range(2000)), *(f"discrete:{at}" for at in range(2000)))
    async with connected(endpoint, requests_in_flight=in_flight) as connector:
        for _ in range(3):
            reading = await connector.read(asked)
            assert not reading.tag_errors and not reading.notices
            values = reading.batch["value"].to_list()
            assert values[:2000] == [(7 * at + 3) % 65536 for at in range(2000)]
            assert values[2000:] == [float(at % 3 == 0) for at in range(2000)]


VALUES: dict[str, list[float | str]] = {
    "int16": [-32_768.0, 32_767.0, -1.0],
    "uint16": [0.0, 65_535.0],
    "int32": [-(2.0**31), 2.0**31 - 1],
    "uint32": [4_294_967_295.0],
    "int64": ["-9223372036854775808", "9223372036854775807", -5.0],
    "uint64": ["18446744073709551615", 12.0],
    "float32": [0.0, 1.5, -3.4028234663852886e38],
    "float64": [3.141592653589793, 5e-324, -1.7976931348623157e308],
    "string7": ["", "press 3", "größe"],
    "bcd16": [9_999.0],
    "bcd32": [12_345_678.0],
    "bit13": [1.0, 0.0],
}


@pytest.mark.parametrize("order", ORDERS)
async def test_every_type_and_order_is_written_and_read_back(endpoint: str, order: str) -> None:
    async with connected(endpoint) as connector:
        for name, values in VALUES.items():
            address = f"holding:100:{name}:{order}"
            for value in values:
                assert await connector.write(tag(address), value) == value
                shown = by_address(await connector.read(group(address)), group(address))[address]
                assert value in shown[:2] and shown[2] == 0


@pytest.mark.parametrize("many", [False, True])
async def test_coils_by_functions_5_and_15(endpoint: str, many: bool) -> None:
    async with connected(endpoint, write_multiple_only=many) as connector:
        for value in (1.0, 0.0, 1.0):
            assert await connector.write(tag("coil:77"), value) == value
        reading = await connector.read(group("coil:76", "coil:77", "coil:78"))
        assert reading.batch["value"].to_list() == [0.0, 1.0, 0.0]


async def test_its_exceptions_become_statuses(endpoint: str) -> None:
    asked = group("input:1990", "input:1999", "input:2000", "input:2010", "input:1999:float32")
    async with connected(endpoint) as connector:
        reading = await connector.read(asked)
        good = reading.batch.filter(pl.col("status") == codes.GOOD)["tag_id"].to_list()
        assert good == [1, 2]
        bad = reading.batch.filter(pl.col("status") == codes.BAD_NODE_ID_UNKNOWN)
        assert bad["tag_id"].to_list() == [3, 4, 5] and bad["value"].null_count() == 3
        with pytest.raises(Refused, match="illegal data address"):
            await connector.write(tag("holding:2000"), 1.0)
        with pytest.raises(Misconfigured, match="read-only"):
            await connector.write(tag("input:1"), 1.0)


async def test_browsing_it_finds_all_its_registers(endpoint: str) -> None:
    async with connected(endpoint) as connector:
        items = await connector.browse("input:1900-2098")
        raw = [item for item in items if item.name.endswith("(raw)")]
        assert [item.address for item in raw] == [f"input:{at}" for at in range(1900, 2000)]
        assert [int(item.value) for item in raw] == [7 * at + 3 for at in range(1900, 2000)]
