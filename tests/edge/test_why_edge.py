"""What an edge says of one tag, and the marks of a connection that a person pauses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from scripted import Device, ScriptedType

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.subjects import SAMPLES_STREAM, Subjects
from headrace.edge import agent as agent_module
from headrace.edge.agent import Agent
from headrace.edge.calls import Calls, WhyCall
from headrace.model import status as st
from headrace.model.desired import ConnectionConfig, EdgeConfig, ProtectionRule, TagConfig
from headrace.model.errors import Misconfigured, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import US_PER_S, SystemClock
from headrace.model.why import diagnose
from headrace.model.why_facts import BusFacts, EdgeFacts, Facts, WhyTag
from waiting import until

SUBJECTS = Subjects("acme", "mill")
CLOCK = SystemClock()


def config(*tags: TagConfig, **settings) -> EdgeConfig:
    connection = ConnectionConfig(
        name="plc", protocol="scripted", endpoint="x", tags=tags, **settings
    )
    return EdgeConfig(enterprise="acme", site="mill", edge="local", connections=(connection,))


def tag(tag_id: int, **settings) -> TagConfig:
    return TagConfig(tag_id=tag_id, path=f"a/t{tag_id}", address=f"at{tag_id}", **settings)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(agent_module, "connector_type", lambda _: ScriptedType(made))
    return made


@pytest.fixture
async def agent(bus: Bus, broker: BrokerAddress, folder: DataFolder) -> AsyncIterator[Agent]:
    edge = Agent(bus, broker, SUBJECTS, edge="local", certificates=folder.certificates, clock=CLOCK)
    yield edge
    await edge.stop()


async def ask(agent: Agent, tag_id: int, connection: str = "plc") -> EdgeFacts:
    call = msgspec.json.encode(WhyCall(tag_id=tag_id, connection=connection))
    answer = await Calls(agent, CLOCK, "local").why(call)
    return msgspec.json.decode(answer, type=EdgeFacts)


async def logged(bus: Bus) -> list[tuple[int, float | None, int]]:
    rows: list[tuple[int, float | None, int]] = []
    info = await bus.stream.stream_info(SAMPLES_STREAM)
    for sequence in range(info.state.first_seq or 1, info.state.last_seq + 1):
        message = await bus.stream.get_msg(SAMPLES_STREAM, sequence)
        rows += envelope.decode(message.data).select("tag_id", "value", "status").rows()
    return rows


async def test_the_way_of_a_sample_is_told_with_its_times(agent, device):
    await agent.apply(config(tag(1), tag(2, deadband=5.0)))
    device.give([1, 2], 1_000, 10.0)
    device.give([1, 2], 2_000, 11.0)
    await until(lambda: device.acknowledged == [1_000, 2_000])
    free, banded = await ask(agent, 1), await ask(agent, 2)
    assert (free.source_us, free.received_us, free.passed_us) == (2_000, 2_000, 2_000)
    assert (banded.received_us, banded.passed_us, banded.passed_source_us) == (2_000, 1_000, 1_000)
    assert free.has_tag and free.acknowledged_us and not free.waiting_since_us
    assert free.config_hash == agent.config.content_hash()
    assert free.connection is not None and free.connection.state == "connected"


async def test_a_tag_that_is_not_run_and_a_connection_that_cannot_start_are_told(
    agent, device, monkeypatch
):
    await agent.apply(config(tag(1)))
    assert not (await ask(agent, 9)).has_tag

    def refuse(_: object) -> ScriptedType:
        raise Misconfigured("EDGE-1001", "the driver is not installed", "Install it.")

    monkeypatch.setattr(agent_module, "connector_type", refuse)
    await agent.apply(config(tag(1), options={"port": 1}))
    facts = await ask(agent, 1)
    assert facts.connection is not None
    assert (facts.connection.state, facts.connection.last_error_code) == ("refused", "EDGE-1001")


async def test_a_lost_device_leaves_the_time_of_its_mark(agent, device):
    await agent.apply(config(tag(1)))
    device.give([1], 1_000, 5.0)
    device.fail(Transient("EDGE-9001", "the cable is out", retry_after_s=30))
    await until(lambda: agent.state().connections[0].state == "waiting")
    facts = await ask(agent, 1)
    assert facts.status == st.BAD_NO_COMMUNICATION
    assert facts.passed_us == facts.passed_source_us > facts.received_us == 1_000


async def test_a_log_that_is_slow_makes_the_pipeline_wait_and_one_that_refuses_is_the_bus(
    agent, bus, device, monkeypatch
):
    held = asyncio.Event()
    first = bus.publish_frame

    async def slow(*arguments: object) -> int:
        await held.wait()
        return await first(*arguments)

    monkeypatch.setattr(bus, "publish_frame", slow)
    await agent.apply(config(tag(1)))
    device.give([1], CLOCK.now_us(), 5.0)
    await until(lambda: agent.state().connections[0].buffered == 1)
    facts = await ask(agent, 1)
    assert facts.buffered == 1 and facts.waiting_since_us and not facts.trouble_code
    later = facts.at_us + 4 * US_PER_S
    known = Facts(
        at_us=later,
        tag=WhyTag(tag_id=1, path="a/t1", connection="plc", edge="local"),
        edge=msgspec.structs.replace(facts, at_us=later),
        bus=BusFacts(answers=True),
    )
    assert diagnose(known).hop("pipeline").reason == "lane_waits"
    held.set()
    await until(lambda: len(device.acknowledged) == 1)
    assert not (await ask(agent, 1)).waiting_since_us

    async def refuse(*_: object) -> int:
        raise Transient("BUS-1020", "no acknowledgement")

    monkeypatch.setattr(bus, "publish_frame", refuse)
    device.give([1], CLOCK.now_us(), 6.0)
    await until(lambda: agent.why(1, "plc").trouble_code == "BUS-1020")
    facts = await ask(agent, 1)
    known.edge, known.at_us = facts, facts.at_us
    assert diagnose(known).culprit == "bus"
    monkeypatch.setattr(bus, "publish_frame", first)
    await until(lambda: not agent.why(1, "plc").trouble_code)


async def test_a_paused_connection_leaves_one_mark_for_each_tag_that_had_a_value(
    agent, bus, device
):
    await agent.apply(config(tag(1), tag(2), tag(3)))
    device.give([1, 2], 1_000, 5.0)
    await until(lambda: len(device.acknowledged) == 1)
    await agent.apply(config(tag(1), tag(2), tag(3), enabled=False))
    await until(lambda: agent.state().connections[0].published == 4)
    marks = [(1, None, st.BAD_OUT_OF_SERVICE), (2, None, st.BAD_OUT_OF_SERVICE)]
    assert await logged(bus) == [(1, 5.0, 0), (2, 5.0, 0), *marks]
    await agent.apply(config(tag(1), tag(2), tag(3), enabled=False, options={"port": 2}))
    state = agent.state().connections[0]
    assert (state.state, state.marked) == ("disabled", 2)
    device.give([1], 3_000, 6.0)
    await agent.apply(config(tag(1), tag(2), tag(3)))
    await until(lambda: len(device.acknowledged) == 2)
    assert await logged(bus) == [(1, 5.0, 0), (2, 5.0, 0), *marks, (1, 6.0, 0)]
    state = agent.state().connections[0]
    assert state.read + state.marked == state.filtered + state.published + state.buffered
    cells = agent._books.page().cells
    assert sum(cell.counts.marked for cell in cells) == 2, "the ledger has them too"


async def test_a_connection_that_was_never_connected_leaves_no_mark_when_it_is_paused(
    agent, bus, device
):
    await agent.apply(config(tag(1), enabled=False))
    assert agent.state().connections[0].marked == 0
    assert await logged(bus) == []


async def test_what_stays_on_the_edge_is_named_at_the_pipeline(agent, device):
    rule = ProtectionRule(name="secret", rule="stays", tag_ids=(1,), keep_bytes=16 << 20)
    await agent.apply(config(tag(1), tag(2), protection=(rule,)))
    device.give([1, 2], CLOCK.now_us(), 5.0)
    await until(lambda: agent.state().connections[0].state == "connected")
    async with asyncio.timeout(30):
        while not (facts := await ask(agent, 1)).received_us:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert (facts.protection, (await ask(agent, 2)).protection) == ("stays", "")
    known = Facts(
        at_us=facts.at_us,
        tag=WhyTag(tag_id=1, path="a/t1", connection="plc", edge="local"),
        edge=facts,
        bus=BusFacts(answers=True),
    )
    hop = diagnose(known).hop("pipeline")
    assert (hop.state, hop.reason) == ("waiting", "protection_stays")
