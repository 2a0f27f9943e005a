"""The contract suite on the OPC UA connector."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.edge.connectors.opcua import CONNECTOR
from headrace.sim.emulators import Point
from headrace.sim.emulators.opcua import OpcUaEmulator
from headrace.testing import CONNECTOR_CHECKS, ConnectorCase

WAVE = "ns=2;s=cnc.wave"
POINTS = [
    Point("ns=2;s=cnc.load"),
    Point("ns=2;s=cnc.count", "int64", 0, writable=True),
    Point("ns=2;s=cnc.on", "bool", False, writable=True),
    Point("ns=2;s=cnc.small", "uint16", 0, writable=True),
    Point("ns=2;s=cnc.name", "string", "", writable=True),
    Point(WAVE, "float64", [0.0] * 8),
]
EXPECTED: dict[str, Any] = {
    "ns=2;s=cnc.load": 41.5,
    "ns=2;s=cnc.count": -(2**60) - 1,
    "ns=2;s=cnc.on": True,
    "ns=2;s=cnc.name": "running 汽车",
    WAVE: [float(each) for each in range(8)],
}


def opcua_case() -> ConnectorCase:
    """A machine with numbers, text, a great integer and a waveform."""
    return ConnectorCase(
        connector=CONNECTOR,
        make_emulator=lambda: OpcUaEmulator(POINTS),
        expected=EXPECTED,
        options={"timeout_s": 2.0},
        tag_settings={WAVE: {"sample_interval_us": 1000, "writable": False}},
        missing_address="ns=2;s=cnc.none",
        nonsense_addresses=("load", "ns=x;s=load", "ns=2;q=load"),
        nonsense_connections=(("127.0.0.1:4840", {}), ("opc.tcp://", {})),
        writes={"ns=2;s=cnc.small": 7.0, "ns=2;s=cnc.name": "manual", "ns=2;s=cnc.on": 1.0},
        writes_refused={"ns=2;s=cnc.load": 1.0},
        writes_impossible={"ns=2;s=cnc.small": 65_536.0},
        browse_finds=("ns=2;s=cnc.load",),
        drivers=("asyncua",),
        timeout_s=2.0,
    )


@pytest.mark.parametrize("check", CONNECTOR_CHECKS, ids=lambda check: check.__name__)
async def test_opcua_contract(check: Any) -> None:
    await check(opcua_case())
