"""The bus on a real broker: envelopes, ids, refusals, requests, desired state, credentials."""

from __future__ import annotations

import asyncio
import math

import nats
import nats.errors
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from polars.testing import assert_frame_equal

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress, free_port
from headrace.bus.client import Bus, open_bus
from headrace.bus.subjects import DESIRED_BUCKET, SAMPLES_STREAM, Subjects, parse_batch
from headrace.model.errors import Corrupt, HeadraceError, Misconfigured, Refused, Transient
from headrace.model.health import Event
from headrace.model.sample import make_batch

SUBJECTS = Subjects("acme", "mill")

rows = some.lists(
    some.tuples(
        some.integers(1, 2**63 - 1),
        some.integers(-(2**52), 2**52),
        some.none() | some.floats(),
        some.none() | some.text(max_size=20),
        some.integers(0, 2**32 - 1),
    ),
    max_size=40,
)


def batch_of(samples):
    columns = list(zip(*samples, strict=True)) if samples else [[], [], [], [], []]
    values = np.array([math.nan if v is None else v for v in columns[2]], float)
    return make_batch(
        np.array(columns[0], np.int64),
        np.array(columns[1], np.int64),
        values,
        text=list(columns[3]),
        status=np.array(columns[4], np.uint32),
        received_timestamp_us=7,
        value_is_null=np.array([v is None for v in columns[2]], bool),
    )


@given(rows)
def test_a_batch_comes_out_of_its_envelope_unchanged(samples):
    batch = batch_of(samples)
    back = envelope.decode(envelope.encode(batch))
    assert_frame_equal(back, batch)
    assert back["value"].null_count() == sum(sample[2] is None for sample in samples)


@pytest.mark.parametrize("height", [0, 1, 100, 299, 300, 10_000])
def test_a_batch_of_any_length_comes_out_unchanged(height):
    at_us = np.arange(height, dtype=np.int64)
    batch = make_batch(at_us + 1, at_us, at_us * 0.5, received_timestamp_us=7)
    body = envelope.encode(batch)
    assert_frame_equal(envelope.decode(body), batch)
    if 0 < height < 10_000:
        with pytest.raises(Corrupt, match="BUS-1001"):
            envelope.decode(body[: len(body) // 2])


@given(some.binary(max_size=300))
def test_foreign_bytes_are_corrupt_and_nothing_else(body):
    with pytest.raises(Corrupt):
        envelope.decode(body)


def test_a_frame_with_other_columns_is_corrupt():
    body = envelope.encode(batch_of([]))
    frame = envelope.decode(body).rename({"value": "wert"})
    with pytest.raises(Corrupt, match="MODEL-1001"):
        envelope.decode(envelope.encode(frame))


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a*", ">", "ä", "a/b", "x" * 65])
def test_names_that_would_break_a_subject_are_refused(name):
    with pytest.raises(Misconfigured, match="MODEL-1002"):
        SUBJECTS.batch("local", name)


def test_a_batch_subject_parses_to_what_built_it():
    assert parse_batch(SUBJECTS.batch("edge_1", "plc-2")) == ("acme", "mill", "edge_1", "plc-2")
    with pytest.raises(Corrupt, match="BUS-1002"):
        parse_batch("v1.acme.mill.event.edge.x")


async def test_the_same_frame_twice_is_stored_once(bus: Bus):
    body = envelope.encode(batch_of([(1, 2, 3.0, None, 0)]))
    headers = envelope.headers("local", "plc", 5, 1, 1, resume_us=77)
    first = await bus.publish_frame(SUBJECTS.batch("local", "plc"), body, headers)
    assert await bus.publish_frame(SUBJECTS.batch("local", "plc"), body, headers) == first
    info = await bus.stream.stream_info(SAMPLES_STREAM)
    assert info.state.messages == 1
    assert await bus.last_resume_us(SUBJECTS.batch("local", "plc")) == 77
    assert await bus.last_resume_us(SUBJECTS.batch("local", "other")) == 0


async def test_a_full_log_refuses_and_keeps_what_it_has(bus: Bus):
    info = await bus.stream.stream_info(SAMPLES_STREAM)
    info.config.max_bytes = 40_000
    await bus.stream.update_stream(info.config)
    body = envelope.encode(batch_of([(i, 2, 3.0, None, 0) for i in range(1, 500)]))
    sequence = 0
    with pytest.raises(Refused, match="BUS-1021"):
        for sequence in range(1, 100):
            await bus.publish_frame(
                SUBJECTS.batch("local", "plc"),
                body,
                envelope.headers("local", "plc", 5, sequence, 499),
            )
    info = await bus.stream.stream_info(SAMPLES_STREAM)
    assert info.state.messages == sequence - 1 > 0


async def test_an_error_of_the_answering_side_arrives_as_itself(bus: Bus):
    async def refuse(body: bytes) -> bytes:
        if body == b"no":
            raise Refused("EDGE-1020", "a/b is not writable", "Declare it.")
        return body.upper()

    await bus.answer("v1.acme.mill.call.edge.local.try", refuse)
    assert await bus.request("v1.acme.mill.call.edge.local.try", b"yes") == b"YES"
    with pytest.raises(Refused) as caught:
        await bus.request("v1.acme.mill.call.edge.local.try", b"no")
    assert (caught.value.code, caught.value.remedy) == ("EDGE-1020", "Declare it.")
    with pytest.raises(Transient, match="BUS-1024"):
        await bus.request("v1.acme.mill.call.edge.local.nobody", timeout_s=0.3)


async def test_a_watcher_sees_the_value_of_now_and_each_newest_change(bus: Bus):
    await bus.put(DESIRED_BUCKET, "edge.local", b"one")
    seen: list[bytes] = []

    async def watch() -> None:
        async for value in bus.watch(DESIRED_BUCKET, "edge.local"):
            seen.append(value)
            if value == b"three":
                return
            await bus.put(DESIRED_BUCKET, "edge.local", b"two" if value == b"one" else b"three")

    await asyncio.wait_for(watch(), 10)
    assert seen == [b"one", b"two", b"three"]


async def test_a_watcher_outlives_a_broker_that_is_too_busy_to_answer(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
):
    await bus.put(DESIRED_BUCKET, "edge.local", b"new")
    get, failures = bus.get, [Transient("BUS-1026", "no answer"), TimeoutError()]

    async def busy(bucket: str, key: str) -> bytes | None:
        if failures:
            raise failures.pop()
        return await get(bucket, key)

    monkeypatch.setattr(bus, "get", busy)
    async with asyncio.timeout(20):
        async for value in bus.watch(DESIRED_BUCKET, "edge.local"):
            assert (value, failures) == (b"new", [])
            break


async def test_events_are_kept(bus: Bus):
    event = Event(at_us=1, severity="info", code="EDGE-1010", source="edge/local/x", text="up")
    await bus.publish_event(SUBJECTS.event("edge", "x"), event)
    info = await bus.stream.stream_info("EVENTS")
    assert info.state.messages == 1


async def test_a_device_cannot_touch_the_platforms_subjects(bus: Bus, broker: BrokerAddress):
    errors: list[Exception] = []

    async def note(error: Exception) -> None:
        errors.append(error)

    device = await nats.connect(
        broker.url, user=broker.device_user, password=broker.device_password, error_cb=note
    )
    await device.publish(SUBJECTS.batch("local", "plc"), b"forged")
    await device.flush()
    await device.subscribe("v1.>")
    await device.flush()
    info = await bus.stream.stream_info(SAMPLES_STREAM)
    assert info.state.messages == 0
    assert len([e for e in errors if "permissions violation" in str(e).lower()]) == 2
    await device.close()


async def test_a_wrong_password_is_refused(broker: BrokerAddress, bus: Bus):
    with pytest.raises(nats.errors.Error):
        await nats.connect(
            broker.url,
            user=broker.platform_user,
            password="guess",
            allow_reconnect=False,
            connect_timeout=2,
        )


def test_every_error_of_ours_says_code_what_and_remedy():
    error = Transient("BUS-1020", "no answer.", "Wait.", retry_after_s=2)
    assert str(error) == "BUS-1020 no answer. Wait."
    assert error.as_dict() == {
        "code": "BUS-1020",
        "what": "no answer",
        "remedy": "Wait.",
        "class": "Transient",
    }
    with pytest.raises(AssertionError):
        HeadraceError("oops", "x")


async def test_a_broker_that_is_not_there_is_said_in_time(broker_free_port: int):
    address = BrokerAddress(broker_free_port, 1, 2, "a", "b")
    with pytest.raises(Transient, match="BUS-1025"):
        async with open_bus(address, "test", wait_s=0.5):
            pass


@pytest.fixture
def broker_free_port() -> int:
    return free_port()
