"""The edge agent against a real broker: what a device gives is in the log once, whatever happens."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator

import msgspec
import pytest
from scripted import Device, ScriptedType

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress, prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.subjects import SAMPLES_STREAM, Subjects
from headrace.edge import agent as agent_module
from headrace.edge import host as host_module
from headrace.edge.agent import Agent
from headrace.edge.calls import Calls, WriteCall
from headrace.model import status as st
from headrace.model.desired import ConnectionConfig, EdgeConfig, TagConfig
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from waiting import until

SUBJECTS = Subjects("acme", "mill")


def config(*tags: TagConfig, name: str = "plc", **settings) -> EdgeConfig:
    connection = ConnectionConfig(
        name=name, protocol="scripted", endpoint="x", tags=tags, **settings
    )
    return EdgeConfig(enterprise="acme", site="mill", edge="local", connections=(connection,))


def tag(tag_id: int, **settings) -> TagConfig:
    return TagConfig(tag_id=tag_id, path=f"a/t{tag_id}", address=f"at{tag_id}", **settings)


async def stored(bus: Bus, connection: str = "plc") -> list[tuple]:
    """Every sample of the log, in its order."""
    rows = []
    info = await bus.stream.stream_info(SAMPLES_STREAM)
    for sequence in range(info.state.first_seq or 1, info.state.last_seq + 1):
        message = await bus.stream.get_msg(SAMPLES_STREAM, sequence)
        if message.subject == SUBJECTS.batch("local", connection):
            rows += envelope.decode(message.data).select("tag_id", "value", "status").rows()
    return rows


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(agent_module, "connector_type", lambda _: ScriptedType(device))
    return device


@pytest.fixture
async def agent(bus: Bus, broker: BrokerAddress, folder: DataFolder) -> AsyncIterator[Agent]:
    edge = Agent(
        bus, broker, SUBJECTS, edge="local", certificates=folder.certificates, clock=SystemClock()
    )
    yield edge
    await edge.stop()


def connection(agent: Agent):
    return agent.state().connections[0]


async def test_readings_are_in_the_log_and_then_acknowledged(agent, bus, device):
    await agent.apply(config(tag(1), tag(2)))
    device.give([1, 2], 1_000, 5.0)
    device.give([1], 2_000, 6.0)
    await until(lambda: device.acknowledged == [1_000, 2_000])
    assert await stored(bus) == [(1, 5.0, 0), (2, 5.0, 0), (1, 6.0, 0)]
    state = connection(agent)
    assert (state.state, state.read, state.published, state.buffered) == ("connected", 3, 3, 0)


async def test_a_lost_device_is_marked_and_comes_back(agent, bus, device):
    await agent.apply(config(tag(1)))
    device.give([1], 1_000, 5.0)
    device.fail(Transient("EDGE-9001", "the cable is out", retry_after_s=0.01))
    device.give([1], 2_000, 6.0)
    await until(lambda: device.acknowledged == [1_000, 2_000])
    rows = await stored(bus)
    assert rows == [(1, 5.0, 0), (1, None, st.BAD_NO_COMMUNICATION), (1, 6.0, 0)]
    state = connection(agent)
    assert (state.state, state.reconnects, state.last_error_code) == ("connected", 1, "EDGE-9001")
    assert device.closes == 1


async def test_a_tag_lost_by_a_change_of_settings_is_marked(agent, bus, device):
    await agent.apply(config(tag(1)))
    device.give([1], 1_000, 5.0)
    await until(lambda: device.acknowledged == [1_000])
    device.connect_error = Transient("EDGE-9001", "nobody answers there")
    await agent.apply(config(tag(1), options={"port": 1}))
    await until(lambda: connection(agent).published == 2)
    assert connection(agent).state == "waiting"
    assert await stored(bus) == [(1, 5.0, 0), (1, None, st.BAD_NO_COMMUNICATION)]


@pytest.mark.parametrize("start_up_us", [host_module.START_UP_US, 0])
async def test_what_passes_while_all_starts_is_no_event(agent, device, monkeypatch, start_up_us):
    monkeypatch.setattr(host_module, "START_UP_US", start_up_us)
    told = []
    agent.report = told.append
    device.connect_error = Transient("EDGE-9001", "not there yet", retry_after_s=0.01)
    await agent.apply(config(tag(1)))
    await until(lambda: connection(agent).last_error_code == "EDGE-9001")
    await until(lambda: device.connects > 2)
    device.connect_error = None
    device.give([1], 1_000, 5.0)
    await until(lambda: device.acknowledged == [1_000])
    codes = [event.code for event in told]
    if start_up_us:
        assert codes == ["EDGE-1010"] and connection(agent).last_error_code == ""
    else:
        assert codes == ["EDGE-9001", "EDGE-1010"], "said once"
        assert connection(agent).last_error_code == "EDGE-9001"


async def test_a_connectors_bug_does_not_stop_the_edge(agent, device):
    await agent.apply(config(tag(1)))
    device.fail(ZeroDivisionError("oops"))
    await until(lambda: connection(agent).state == "waiting")
    assert connection(agent).last_error_code == "EDGE-1099"
    assert "oops" in connection(agent).last_error


async def test_a_refusal_says_what_to_do_and_new_settings_try_at_once(agent, device):
    device.connect_error = Refused("EDGE-9002", "the password is wrong", "Give the right one.")
    await agent.apply(config(tag(1)))
    await until(lambda: connection(agent).state == "refused")
    assert connection(agent).last_error_remedy == "Give the right one."
    device.connect_error = None
    await agent.apply(config(tag(1), options={"password": "right"}))
    await until(lambda: connection(agent).state == "connected", 5.0)


async def test_a_refused_connection_is_tried_at_once_when_asked(agent, bus, device):
    device.connect_error = Refused("EDGE-9002", "the certificate is not trusted", "Trust it.")
    await agent.apply(config(tag(1)))
    await until(lambda: connection(agent).state == "refused")
    await Calls(agent, SystemClock(), "local").serve(bus, SUBJECTS)
    device.connect_error = None
    await bus.request(SUBJECTS.edge_call("local", "retry"), b'{"connection": "plc"}')
    await until(lambda: connection(agent).state == "connected", 5.0)


async def test_a_change_touches_only_what_changed(agent, device):
    both = EdgeConfig(
        enterprise="acme",
        site="mill",
        edge="local",
        connections=(*config(tag(1)).connections, *config(tag(2), name="other").connections),
    )
    assert await agent.apply(both) == ["plc", "other"]
    await until(lambda: device.connects == 2)
    assert await agent.apply(both) == []
    retagged = msgspec.structs.replace(
        both,
        connections=(*config(tag(1, unit="bar", scale=2.0)).connections, both.connections[1]),
    )
    assert await agent.apply(retagged) == ["plc"]
    assert (device.connects, device.closes) == (2, 0), "a unit needs no new session"
    moved = msgspec.structs.replace(
        retagged, connections=(*config(tag(1), options={"a": 1}).connections, both.connections[1])
    )
    await agent.apply(moved)
    await until(lambda: device.connects == 3)
    assert await agent.apply(config(tag(1), options={"a": 1})) == ["other"]
    assert agent.state().config_hash == agent.config.content_hash()


async def test_a_death_makes_its_tags_stale_at_once(agent, bus, device):
    await agent.apply(config(tag(1), tag(2)))
    device.give([1, 2], 1_000, 5.0)
    device.give([], 2_000, 0.0, stale=(2,))
    await until(lambda: connection(agent).published == 3)
    assert (await stored(bus))[-1] == (2, 5.0, st.UNCERTAIN_LAST_USABLE_VALUE)


async def test_writes_pass_the_guard_and_are_read_back(agent, bus, device):
    await agent.apply(
        config(tag(1, writable=True, write_minimum=0, write_maximum=10, scale=0.1), tag(2))
    )
    await until(lambda: connection(agent).state == "connected")
    await Calls(agent, SystemClock(), "local").serve(bus, SUBJECTS)

    async def write(tag_id: int, value: float) -> dict:
        call = WriteCall(tag_id=tag_id, value=value, actor="ada")
        body = msgspec.json.encode(call)
        return msgspec.json.decode(await bus.request(SUBJECTS.edge_call("local", "write"), body))

    assert (await write(1, 5.0))["value"] == pytest.approx(5.0)
    assert device.written == [("at1", 50.0)]
    with pytest.raises(Refused, match="EDGE-1021"):
        await write(1, 10.5)
    with pytest.raises(Refused, match="EDGE-1020"):
        await write(2, 1.0)
    with pytest.raises(Refused, match="EDGE-1030"):
        await write(3, 1.0)
    with pytest.raises(Misconfigured, match="EDGE-1036"):
        await bus.request(SUBJECTS.edge_call("local", "write"), b"nonsense")
    assert len(device.written) == 1


@pytest.mark.kill
async def test_a_killed_broker_loses_and_doubles_nothing(folder: DataFolder, device: Device):
    address = prepare_address(folder)
    process = start_broker(folder, address)
    async with open_bus(address, "test") as bus:
        await ensure_streams(bus)
        edge = Agent(
            bus,
            address,
            SUBJECTS,
            edge="local",
            certificates=folder.certificates,
            clock=SystemClock(),
        )
        await edge.apply(config(tag(1)))
        for i in range(60):
            device.give([1], i, float(i))
            if i % 20 == 10:
                process.send_signal(signal.SIGKILL)
                process.wait()
                process = start_broker(folder, address)
            await asyncio.sleep(0)
            await until(device.script.empty)
        await until(lambda: len(device.acknowledged) == 60, 40)
        await edge.stop()
        assert [row[1] for row in await stored(bus)] == [float(i) for i in range(60)]
    stop_broker(process)


async def test_a_restarted_edge_resumes_after_what_is_durable(agent, bus, broker, folder, device):
    await agent.apply(config(tag(1)))
    device.give([1], 5_000, 1.0)
    await until(lambda: device.acknowledged == [5_000])
    await agent.stop()
    again = Agent(
        bus, broker, SUBJECTS, edge="local", certificates=folder.certificates, clock=SystemClock()
    )
    await again.apply(config(tag(1)))
    await until(lambda: len(device.resumed) == 2)
    await again.stop()
    assert device.resumed == [0, 5_000]


async def test_a_new_edge_knows_how_far_the_last_one_came(agent, bus, broker, folder, device):
    """A newest batch of nothing but marks, and a log that the historian has purged, do not hide it."""
    await agent.apply(config(tag(1)))
    device.give([1], 1_000, 5.0)
    device.fail(Transient("EDGE-9001", "the cable is out", retry_after_s=20))
    await until(lambda: connection(agent).published == 2)
    following = Agent(
        bus, broker, SUBJECTS, edge="local", certificates=folder.certificates, clock=SystemClock()
    )
    assert (await following.context("plc", 0)).resume_us == 1_000
    await agent.stop()
    await bus.stream.purge_stream(SAMPLES_STREAM)
    assert (await following.context("plc", 0)).resume_us == 1_000


async def test_only_a_first_session_has_no_past(agent, device):
    first = await agent.context("plc", 0)
    second = await agent.context("plc", 0)
    assert (first.first_us, first.resume_us, second.resume_us) == (0, 0, 0)
    assert second.first_us > 0
    assert (await agent.context("plc", 5)).resume_us == 5
