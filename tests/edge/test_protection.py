"""What a protection keeps back never goes out: columns, marks, errors, the wire."""

from __future__ import annotations

import asyncio
import itertools
import struct
import zlib
from collections.abc import AsyncIterator

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st_
from scripted import Device, ScriptedType

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.subjects import SAMPLES_STREAM, SEALED_STREAM, Subjects
from headrace.edge import local_log
from headrace.edge.agent import Agent
from headrace.edge.calls import Calls, WriteCall
from headrace.edge.local_log import LocalLog, local_folder, read_local
from headrace.edge.protection import GRACE_US, Protection
from headrace.model import status as st
from headrace.model.desired import ConnectionConfig, EdgeConfig, ProtectionRule, TagConfig
from headrace.model.errors import Corrupt, Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch, microseconds
from headrace.model.time import SystemClock
from headrace.security.frames import FrameKey, load_frame_key, make_frame_key
from waiting import until

S = 1_000_000
SUBJECTS = Subjects("acme", "mill")


def rule(kind: str, *ids: int, **more: object) -> ProtectionRule:
    return ProtectionRule(name=f"p_{kind}", rule=kind, tag_ids=ids, **more)  # type: ignore[arg-type]


def batch(ids: list[int], at_us: list[int], values: list[float], status: int = 0) -> pl.DataFrame:
    return make_batch(
        np.array(ids), np.array(at_us), np.array(values), status=status, received_timestamp_us=1
    )


samples = st_.lists(
    st_.tuples(
        st_.integers(1, 3),
        st_.integers(0, 40 * S),
        st_.floats(-1e6, 1e6),
        st_.sampled_from([st.GOOD, st.UNCERTAIN, st.BAD_TIMEOUT]),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(rows=samples, cuts=st_.lists(st_.integers(0, 60), max_size=4))
def test_aggregates_are_those_of_all_samples_however_they_are_cut(
    rows: list[tuple[int, int, float, int]], cuts: list[int]
) -> None:
    rows = sorted(rows, key=lambda row: row[1])
    protection = Protection((rule("aggregated", 1, 2, function="mean", window_ms=10_000),))
    given: list[pl.DataFrame] = []
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    for begin, end in itertools.pairwise(edges):
        part = rows[begin:end]
        ids, at, values, statuses = ([row[k] for row in part] for k in range(4))
        raw = make_batch(
            np.array(ids, np.int64),
            np.array(at, np.int64),
            np.array(values, np.float64),
            status=np.array(statuses, np.uint32),
            received_timestamp_us=1,
        )
        split = protection.split(raw, 0)
        assert set(split.open["tag_id"]) <= {3}
        assert split.protected + split.open.height == raw.height
        given += [split.aggregates] if split.aggregates is not None else []
    last = protection.split(batch([3], [0], [0.0]), 100 * S + GRACE_US)
    given += [last.aggregates] if last.aggregates is not None else []
    found = {
        (tag_id, at): (value, status)
        for each in given
        for tag_id, at, value, status in zip(
            each["tag_id"],
            microseconds(each["source_timestamp"]).tolist(),
            each["value"],
            each["status"],
            strict=True,
        )
    }
    wanted: dict[tuple[int, int], list[tuple[float, int]]] = {}
    for tag_id, at, value, status in rows:
        if tag_id < 3:
            key = tag_id, (at // (10 * S) + 1) * 10 * S
            wanted.setdefault(key, []).append((value, status))
    assert found.keys() == wanted.keys()
    for key, each in wanted.items():
        good = [value for value, status in each if status == st.GOOD]
        value, status = found[key]
        if len(good) < 2:
            assert value is None and status == st.BAD_NO_DATA
        else:
            assert value == pytest.approx(sum(good) / len(good), rel=1e-9, abs=1e-6)
            assert (status == st.GOOD) == (len(good) == len(each))


@pytest.mark.parametrize(
    ("function", "value"),
    [("mean", 2.0), ("sum", 6.0), ("minimum", 1.0), ("maximum", 3.0), ("count", 3.0)],
)
def test_each_function(function: str, value: float) -> None:
    protection = Protection((rule("aggregated", 1, function=function, window_ms=1000),))
    split = protection.split(batch([1, 1, 1], [1, 2, 3], [1.0, 2.0, 3.0]), 2 * S + GRACE_US)
    assert split.aggregates is not None
    assert split.aggregates["value"].to_list() == [value]
    assert microseconds(split.aggregates["source_timestamp"]).tolist() == [S]


def test_a_late_sample_of_a_told_window_changes_nothing_that_was_told() -> None:
    protection = Protection((rule("aggregated", 1, function="count", window_ms=1000),))
    protection.split(batch([1, 1], [1, 2], [1.0, 1.0]), 0)
    first = protection.split(batch([1], [S + 1], [1.0]), 0)
    assert first.aggregates is not None and first.aggregates.height == 1
    late = protection.split(batch([1], [3], [9.0]), 0)
    assert late.aggregates is None and late.kept is not None


def test_marks_tell_that_a_device_is_lost_and_no_value() -> None:
    protection = Protection((rule("stays", 1), rule("aggregated", 2, window_ms=1000)))
    lost = batch([1, 2, 3], [5, 5, 5], [0.0, 0.0, 0.0], st.BAD_NO_COMMUNICATION)
    assert protection.marks(lost)["tag_id"].to_list() == [2, 3]
    stale = batch([1, 2, 3], [5, 5, 5], [7.0, 8.0, 9.0], st.UNCERTAIN_LAST_USABLE_VALUE)
    assert protection.marks(stale)["tag_id"].to_list() == [3]


def test_the_local_log_is_bounded_and_survives_a_torn_end(
    folder: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_log, "SEGMENT_BYTES", 64 << 10)
    place = local_folder(folder.root, "plc")
    log = LocalLog(place, bytes_max=1)
    noise = np.random.default_rng(3)
    for number in range(60):
        values = noise.random(2_000)
        log.keep(
            make_batch(np.full(2_000, number), np.arange(2_000), values, received_timestamp_us=1)
        )
    paths = sorted(place.glob("*.log"))
    assert sum(path.stat().st_size for path in paths) < 200 << 10
    first = [part["tag_id"][0] for part in read_local(place)]
    assert first[-1] == 59 and first[0] > 0 and first == sorted(first)
    paths[-1].write_bytes(paths[-1].read_bytes()[:-3])
    assert [part["tag_id"][0] for part in read_local(place)][-1] in (58, 59)
    damaged = bytearray(paths[0].read_bytes())
    damaged[100] ^= 1
    paths[0].write_bytes(bytes(damaged))
    with pytest.raises(Corrupt, match="EDGE-1507"):
        list(read_local(place))
    assert LocalLog(place)._number > int(paths[-1].stem)


@settings(max_examples=60, deadline=None)
@given(body=st_.binary(max_size=200), at=st_.integers(0, 10_000), bit=st_.integers(0, 7))
def test_frames_open_with_their_key_on_their_subject_unchanged(
    body: bytes, at: int, bit: int
) -> None:
    key, other = FrameKey(bytes(32)), FrameKey(bytes(31) + b"1")
    frame = key.seal(body, "a.b")
    assert key.open(frame, "a.b") == body
    with pytest.raises(Refused, match="SEC-1531"):
        other.open(frame, "a.b")
    with pytest.raises(Corrupt, match="SEC-1530"):
        key.open(frame, "a.c")
    changed = bytearray(frame)
    changed[at % len(frame)] ^= 1 << bit
    with pytest.raises((Corrupt, Refused), match="SEC-153"):
        key.open(bytes(changed), "a.b")


def test_keys_of_tenants(folder: DataFolder) -> None:
    with pytest.raises(Misconfigured, match="SEC-1532"):
        load_frame_key(folder.keys, "tenant")
    made = make_frame_key(folder.keys, "tenant")
    assert load_frame_key(folder.keys, "tenant").name == made.name
    with pytest.raises(Misconfigured, match="SEC-1532"):
        make_frame_key(folder.keys, "other", "nonsense")
    with pytest.raises(Refused, match="SEC-1533"):
        make_frame_key(folder.keys, "tenant", "A" * 43 + "=")


# --- the wire ---------------------------------------------------------------------------------------

OPEN, STAYS, MEAN, SEALED = 1, 2, 3, 4
RULES = (
    rule("stays", STAYS),
    rule("aggregated", MEAN, function="mean", window_ms=1000),
    rule("encrypted", SEALED, key="tenant"),
)


def tag(tag_id: int, **more: object) -> TagConfig:
    return TagConfig(tag_id=tag_id, path=f"a/t{tag_id}", address=f"at{tag_id}", **more)  # type: ignore[arg-type]


CONFIG = EdgeConfig(
    enterprise="acme",
    site="mill",
    edge="local",
    connections=(
        ConnectionConfig(
            name="plc",
            protocol="scripted",
            endpoint="x",
            tags=(tag(OPEN), tag(STAYS, writable=True), tag(MEAN), tag(SEALED)),
            protection=RULES,
        ),
    ),
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
        SUBJECTS,
        edge="local",
        certificates=folder.certificates,
        clock=SystemClock(),
        types=lambda _: ScriptedType(device),
        folder=folder,
    )
    events = asyncio.create_task(made.publish_events())
    health = asyncio.create_task(made.publish_health())
    yield made
    await made.stop()
    events.cancel()
    health.cancel()


def value_of(tag_id: int, number: int) -> float:
    """A number that no other byte looks like."""
    return tag_id * 1000 + number + 0.123456789 * (number + 1)


def opened(body: bytes) -> bytes:
    if body.startswith(envelope.PACKED_MARK):
        return body + zlib.decompress(body[len(envelope.PACKED_MARK) :])
    return body


async def everything_on(bus: Bus) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {}
    for info in await bus.stream.streams_info():
        for number in range(info.state.first_seq or 1, info.state.last_seq + 1):
            message = await bus.stream.get_msg(info.config.name, number)
            found.setdefault(info.config.name, []).append(
                opened(message.data or b"") + str(message.headers).encode()
            )
    return found


def shows(body: bytes, value: float) -> bool:
    return struct.pack("<d", value) in body or repr(value).encode() in body


def give_all(device: Device, now_us: int) -> None:
    """Thirty values of each tag; then a device that says too much, grows old and goes away."""
    for number in range(30):
        for tag_id in (OPEN, STAYS, MEAN, SEALED):
            device.give([tag_id], now_us + number * 100_000, value_of(tag_id, number))
    device.give([STAYS, MEAN], now_us + 4 * S, 0.5, tag_errors={STAYS: "EDGE-9 saw 8675.309"})
    device.give([OPEN], now_us + 5 * S, 1.5, stale=(OPEN, STAYS, MEAN, SEALED))
    device.fail(Transient("EDGE-9002", "away"))


async def bodies_of(bus: Bus, stream: str) -> list[bytes]:
    info = await bus.stream.stream_info(stream)
    numbers = range(info.state.first_seq or 1, info.state.last_seq + 1)
    return [(await bus.stream.get_msg(stream, number)).data or b"" for number in numbers]


async def decrypted(folder: DataFolder, bus: Bus) -> pl.DataFrame:
    key, subject = load_frame_key(folder.keys, "tenant"), SUBJECTS.sealed("local", "plc")
    bodies = await bodies_of(bus, SEALED_STREAM)
    parts = [envelope.decode(key.open(body, subject)) for body in bodies]
    return pl.concat(parts) if parts else batch([], [], [])


async def test_the_wire(folder: DataFolder, bus: Bus, agent: Agent, device: Device) -> None:
    make_frame_key(folder.keys, "tenant")
    heard: list[bytes] = []

    async def hear(message) -> None:  # type: ignore[no-untyped-def]
        heard.append(opened(message.data))

    await bus.subscribe(">", hear, pending_max=10_000)
    await agent.apply(CONFIG)
    give_all(device, SystemClock().now_us() // S * S)
    await until(lambda: agent.state().connections[0].last_error_code == "EDGE-9002")
    await until(lambda: agent.state().connections[0].buffered == 0)
    async with asyncio.timeout(20):
        while (await decrypted(folder, bus)).height < 30:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    everything = await everything_on(bus)
    bodies = heard + [body for each in everything.values() for body in each]
    assert any(shows(body, value_of(OPEN, 3)) for body in bodies)  # the search finds what is there
    for tag_id in (STAYS, MEAN, SEALED):
        for number in range(30):
            seen = any(shows(body, value_of(tag_id, number)) for body in bodies)
            assert not seen, (tag_id, number)
    assert not any(b"8675.309" in body for body in bodies)
    await see_what_may_go_out(folder, bus)
    see_that_the_books_close(agent)


async def see_what_may_go_out(folder: DataFolder, bus: Bus) -> None:
    means = [np.mean([value_of(MEAN, 10 * w + k) for k in range(10)]) for w in range(3)]
    log = pl.concat([envelope.decode(body) for body in await bodies_of(bus, SAMPLES_STREAM)])
    of_mean = log.filter((pl.col("tag_id") == MEAN) & (pl.col("status") == st.GOOD))
    assert of_mean["value"].to_list() == pytest.approx(means)
    assert STAYS not in log["tag_id"].to_list() and SEALED not in log["tag_id"].to_list()
    sealed_values = (await decrypted(folder, bus))["value"].to_list()
    assert sealed_values == [value_of(SEALED, number) for number in range(30)]
    kept = pl.concat(list(read_local(local_folder(folder.root, "plc"))))
    of_stays = kept.filter(pl.col("tag_id") == STAYS)["value"].to_list()
    assert of_stays == [*(value_of(STAYS, n) for n in range(30)), 0.5]


def see_that_the_books_close(agent: Agent) -> None:
    state = agent.state().connections[0]
    assert state.read == 4 * 30 + 2 + 1
    assert state.protected == 3 * 30 + 2
    assert state.read + state.marked == (
        state.filtered + state.protected + state.published + state.buffered + state.dropped
    )
    cells = agent._books.page().cells
    assert sum(cell.counts.protected for cell in cells) == state.protected
    for cell in cells:
        c = cell.counts
        assert c.read + c.marked == c.filtered + c.protected + c.published + c.buffered


async def test_a_write_to_a_tag_that_stays_tells_no_value(
    bus: Bus, agent: Agent, device: Device
) -> None:
    await agent.apply(CONFIG)
    device.give([OPEN], SystemClock().now_us(), 1.0)
    await until(lambda: agent.state().connections[0].state == "connected")
    calls = Calls(agent, SystemClock(), "local")
    told = agent._events
    body = msgspec.json.encode(WriteCall(tag_id=STAYS, value=4321.5, actor="mia"))
    answer = msgspec.json.decode(await calls.write(body))
    assert answer == {"value": 4321.5}
    assert device.written
    assert not any("4321" in event.text for event in told)


async def test_without_the_key_nothing_leaves_and_it_is_said(
    folder: DataFolder, bus: Bus, agent: Agent, device: Device
) -> None:
    await agent.apply(CONFIG)
    device.give([SEALED], SystemClock().now_us(), value_of(SEALED, 1))
    codes: list[str] = []
    agent.report = lambda event: codes.append(event.code)  # type: ignore[method-assign]
    await until(lambda: "SEC-1532" in codes)
    assert (await bus.stream.stream_info(SEALED_STREAM)).state.messages == 0
    make_frame_key(folder.keys, "tenant")
    async with asyncio.timeout(20):
        while (await bus.stream.stream_info(SEALED_STREAM)).state.messages < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
