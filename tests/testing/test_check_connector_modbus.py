"""The contract suite on the Modbus connector, over both framings."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headrace.edge.connectors.modbus import CONNECTOR
from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator
from headrace.testing import CONNECTOR_CHECKS, ConnectorCase, check_connector

EXPECTED: dict[str, Any] = {
    "holding:0:float32:CDAB": 20.5,
    "holding:2:uint16": 65535,
    "holding:3:int16": -1,
    "holding:4:int32:DCBA": -70_000,
    "holding:6:uint64": 2**64 - 1,
    "holding:10:float64:BADC": math.pi,
    "holding:14:string16": "press 3 läuft",
    "holding:22:bcd32": 12_345_678,
    "holding:24:bit3": True,
    "holding:24:bit4": False,
    "holding:25:float32": math.nan,
    "input:100:uint16": 7,
    "coil:3": True,
    "discrete:2000": False,
    "5/input:0:int16": -5,
}


def modbus_case(framing: str) -> ConnectorCase:
    """A device with most types in all tables and a second unit."""
    read_only = [Point(address, initial=0) for address in EXPECTED]
    writable = [
        Point("holding:200:float32:CDAB", initial=0, writable=True),
        Point("holding:202:uint16", initial=0, writable=True),
        Point("holding:203:bit9", initial=0, writable=True),
        Point("holding:210:string6", initial="", writable=True),
        Point("coil:10", initial=False, writable=True),
    ]
    return ConnectorCase(
        connector=CONNECTOR,
        make_emulator=lambda: ModbusEmulator([*read_only, *writable], framing=framing),  # type: ignore[arg-type]
        expected=EXPECTED,
        options={"framing": framing, "timeout_s": 1.0},
        missing_address="holding:26:int32",
        nonsense_addresses=(
            "holding",
            "holding:-1",
            "holding:1:float33",
            "holding:1:float32:ACBD",
            "holding:65536:float32",
            "coil:1:float32",
            "holding:1:bool",
            "holding:1:bit16",
            "holding:1:string251",
            "300/holding:1",
            "50001",
        ),
        nonsense_connections=(
            ("", {}),
            ("host:0", {}),
            ("host:70000", {}),
            ("tcp://host:502", {}),
            ("127.0.0.1:502", {"registers_max": 126}),
            ("127.0.0.1:502", {"timeout_s": 0}),
            ("127.0.0.1:502", {"framing": "ascii"}),
            ("127.0.0.1:502", {"forbidden": ["holding:9-2"]}),
            ("127.0.0.1:502", {"timestamp": "holding:0:uint64"}),
            ("127.0.0.1:502", {"record_sequence": "holding:0"}),
        ),
        writes={
            "holding:200:float32:CDAB": 1.25,
            "holding:202:uint16": 40_000.0,
            "holding:203:bit9": 1.0,
            "holding:210:string6": "ab3",
            "coil:10": 1.0,
        },
        writes_refused={"holding:2:uint16": 1.0, "holding:5000:uint16": 1.0},
        writes_impossible={
            "holding:202:uint16": 65_536.0,
            "holding:200:float32:CDAB": 1e39,
            "holding:210:string6": "too long",
            "input:100:uint16": 1.0,
            "coil:10": 2.0,
        },
        browse_finds=("holding:0:float32:CDAB", "holding:2", "input:100", "coil:3"),
        browse_depth_max=3,
        drivers=("pymodbus",),
        timeout_s=1.0,
    )


@pytest.mark.parametrize("framing", ["tcp", "rtu_over_tcp"])
@pytest.mark.parametrize("check", CONNECTOR_CHECKS, ids=lambda check: check.__name__)
async def test_contract(check: Any, framing: str) -> None:
    await check(modbus_case(framing))


async def test_a_connector_that_breaks_the_contract_is_named() -> None:
    """The suite can fail, and says which check did."""
    case = modbus_case("tcp")
    broken = {**case.expected, "holding:2:uint16": 65534}

    class Liar:
        """Shows other values than it was told."""

        def __getattr__(self, name: str) -> Any:
            return getattr(emulator, name)

        async def update(self, values: Any, at_us: int, status: Any = None) -> None:
            await emulator.update({**values, "holding:2:uint16": 1}, at_us, status)

    emulator = ModbusEmulator([Point(address, initial=0) for address in broken])
    lying = ConnectorCase(
        connector=CONNECTOR, make_emulator=Liar, expected=broken, options={"timeout_s": 0.3}
    )
    with pytest.raises(AssertionError, match=r"holding:2:uint16: the value is 1.0") as caught:
        await check_connector(lambda: lying)
    assert "reads_what_the_device_shows" in "".join(caught.value.__notes__)
