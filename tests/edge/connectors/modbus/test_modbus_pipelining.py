"""Several requests at once: only where a device has proven that it bears them, and never for good."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modbus_rig import connected, connection, group

from headrace.edge.connectors.modbus import CONNECTOR, ModbusType
from headrace.edge.connectors.modbus.pipelining import trial
from headrace.edge.connectors.modbus.plan import Limits, Span, plan_blocks
from headrace.edge.connectors.modbus.protocol import tcp_frame
from headrace.edge.contract import ConnectorContext
from headrace.model.time import SystemClock
from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator

ASKED = group(*(f"holding:{start + at}" for start in range(0, 1600, 200) for at in range(12)))
EXPECTED = [float(start + at) for start in range(0, 1600, 200) for at in range(12)]
Ask = tuple[int, int, int]
Rule = Callable[[list[Ask]], list[tuple[int, int, int]]]


class Device:
    """A device whose register i holds i; ``rule`` says what it answers to the requests that came
    together, as (transaction, start, count)."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.together = 0
        self.sessions = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sessions += 1
        rest = b""
        with contextlib.suppress(ConnectionError):
            while received := await reader.read(65536):
                rest += received
                asks = [
                    struct.unpack_from(">H6xHH", rest, at)
                    for at in range(0, len(rest) // 12 * 12, 12)
                ]
                rest = rest[len(asks) * 12 :]
                self.together = max(self.together, len(asks))
                for transaction, start, count in self.rule(asks):
                    values = struct.pack(f">{count}H", *range(start, start + count))
                    writer.write(tcp_frame(transaction, 1, bytes((3, 2 * count)) + values))
        writer.close()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()


def good(asks: list[Ask]) -> list[Ask]:
    return asks


def only_the_first(asks: list[Ask]) -> list[Ask]:
    return asks[:1]


def newest_number(asks: list[Ask]) -> list[Ask]:
    """As pymodbus's server does: every answer bears the number of the newest request."""
    return [(asks[-1][0], start, count) for _, start, count in asks]


def numbers_swapped(asks: list[Ask]) -> list[Ask]:
    """The worst: all numbers are there, in order, on the answers of others."""
    numbers = sorted(transaction for transaction, _, _ in asks)
    return [
        (number, start, count)
        for number, (_, start, count) in zip(numbers, reversed(asks), strict=True)
    ]


def backwards(asks: list[Ask]) -> list[Ask]:
    return list(reversed(asks))


async def test_a_device_that_bears_it_is_asked_for_all_blocks_at_once() -> None:
    device = Device(good)
    async with device.running() as endpoint, connected(endpoint) as connector:
        for _ in range(4):
            reading = await connector.read(ASKED)
            assert reading.batch["value"].to_list() == EXPECTED
            assert reading.notices == ()
    assert device.together == 8
    assert device.sessions == 1


@pytest.mark.parametrize("rule", [only_the_first, newest_number, numbers_swapped, backwards])
async def test_a_device_that_does_not_is_asked_one_by_one_and_nothing_is_lost(rule: Rule) -> None:
    device = Device(rule)
    async with device.running() as endpoint, connected(endpoint, timeout_s=0.3) as connector:
        for _ in range(4):
            reading = await connector.read(ASKED)
            assert reading.batch["value"].to_list() == EXPECTED
            assert not reading.tag_errors
            device.together = 0 if device.sessions == 1 else device.together
    assert device.sessions == 2, "one new session after the trial, and no second trial"
    assert device.together == 1


@pytest.mark.parametrize("rule", [only_the_first, newest_number, backwards])
async def test_a_device_that_changes_its_mind_loses_no_poll(rule: Rule) -> None:
    device = Device(good)
    async with device.running() as endpoint, connected(endpoint, timeout_s=0.3) as connector:
        await connector.read(ASKED)
        assert device.together == 8
        device.rule = rule
        reading = await connector.read(ASKED)
        assert reading.batch["value"].to_list() == EXPECTED
        assert [code for code, _ in reading.notices] == ["EDGE-3014"]
        device.together = 0
        assert (await connector.read(ASKED)).notices == ()
        assert device.together == 1


async def test_what_a_device_refused_is_known_to_the_next_session() -> None:
    device, kind = Device(only_the_first), ModbusType()
    context = ConnectorContext(clock=SystemClock(), certificates=Path(), secret=str)
    async with device.running() as endpoint:
        settings = connection(endpoint, {"timeout_s": 0.3})
        for _ in range(2):
            connector = kind.open(settings, context)
            await connector.connect()
            await connector.read(ASKED)
            await connector.read(ASKED)
            await connector.close()
    assert device.sessions == 3, "the second session tries nothing"
    assert device.together == 8


async def test_one_request_at_a_time_when_a_person_says_so() -> None:
    device = Device(good)
    async with (
        device.running() as endpoint,
        connected(endpoint, requests_in_flight=1) as connector,
    ):
        for _ in range(3):
            await connector.read(ASKED)
    assert device.together == 1


async def test_a_real_server_gives_the_same_with_and_without() -> None:
    points = [Point(tag.address, initial=at % 999) for at, tag in enumerate(ASKED.tags)]
    emulator = ModbusEmulator(points)
    await emulator.start()
    try:
        for options in ({}, {"requests_in_flight": 1}):
            async with connected(emulator.endpoint, timeout_s=5.0, **options) as connector:
                for _ in range(3):
                    reading = await connector.read(ASKED)
                    values = [float(at % 999) for at in range(len(points))]
                    assert reading.batch["value"].to_list() == values
    finally:
        await emulator.stop()


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 125)), min_size=1, max_size=40),
    st.integers(1, 16),
)
def test_a_trial_reads_only_what_polls_read_and_every_length_once(
    places: list[tuple[int, int]], number: int
) -> None:
    spans = [Span(1, "holding", 200 * place, count) for place, count in places]
    blocks = plan_blocks(spans, Limits())
    parts = trial(blocks, number)
    assert len(parts) <= number
    assert len({part.count for part in parts}) == len(parts)
    for part in parts:
        assert any(block.start == part.start and 1 <= part.count <= block.count for block in blocks)


def test_the_connector_type_finds_out_by_default() -> None:
    assert CONNECTOR.options().requests_in_flight == 0  # type: ignore[attr-defined] # its own options
