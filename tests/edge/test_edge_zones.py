"""The edge opens, tries and writes nothing that no conduit allows, whatever its desired state says else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest
from scripted import Device, ScriptedType

from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.subjects import Subjects
from headrace.edge.agent import Agent
from headrace.edge.calls import Calls, CheckCall, WriteCall
from headrace.model.desired import ConnectionConfig, EdgeConfig, TagConfig
from headrace.model.errors import Refused
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.model.zones import Conduit, Zone, ZoneMap
from waiting import until

ZONES = (
    Zone(name="control", networks=("10.1.0.0/16",), equipment=("a",)),
    Zone(name="operations", edges=("local",)),
)
TAG = TagConfig(tag_id=1, path="a/t1", address="x", writable=True)
PLC = ConnectionConfig(name="plc", protocol="scripted", endpoint="10.1.0.9:1", tags=(TAG,))


def config(*conduits: Conduit) -> EdgeConfig:
    return EdgeConfig(
        enterprise="acme",
        site="mill",
        edge="local",
        connections=(PLC,),
        zones=ZoneMap(zones=ZONES, conduits=conduits),
    )


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
async def agent(
    folder: DataFolder, broker: BrokerAddress, bus: Bus, device: Device
) -> AsyncIterator[Agent]:
    made = Agent(
        bus,
        broker,
        Subjects("acme", "mill"),
        edge="local",
        certificates=folder.certificates,
        clock=SystemClock(),
        types=lambda _: ScriptedType(device),
    )
    yield made
    await made.stop()


async def test_nothing_is_opened_or_written_without_a_conduit(
    agent: Agent, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.edge.calls.connector_type", lambda _: ScriptedType(device))
    calls = Calls(agent, SystemClock(), "local")
    await agent.apply(config())
    assert agent.state().connections[0].last_error_code == "EDGE-1510"
    with pytest.raises(Refused, match="EDGE-1510"):
        await calls.check(msgspec.json.encode(CheckCall(connection=PLC)))
    assert device.connects == 0
    one_way = Conduit(source="control", target="operations")
    await agent.apply(config(one_way))
    await until(lambda: device.connects == 1)
    device.give([1], SystemClock().now_us(), 1.0)
    await until(lambda: agent.state().connections[0].state == "connected")
    write = msgspec.json.encode(WriteCall(tag_id=1, value=2.0, actor="mia"))
    with pytest.raises(Refused, match="EDGE-1511"):
        await calls.write(write)
    assert device.written == []
    await agent.apply(config(msgspec.structs.replace(one_way, both_ways=True)))
    await calls.write(write)
    assert device.written and device.connects == 1
    await agent.apply(config())
    assert agent.state().connections[0].last_error_code == "EDGE-1510"
    assert device.closes == 1
