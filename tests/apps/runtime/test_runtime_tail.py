"""The log read once for all apps gives each what it would read alone, whatever it missed."""

from __future__ import annotations

import asyncio

import numpy as np
import polars as pl
import pytest

from headrace.apps.runtime import tail as tail_module
from headrace.apps.runtime.tail import Reading, Tail
from headrace.bus import envelope
from headrace.bus.log import purge_log
from headrace.bus.subjects import Subjects
from headrace.model.sample import make_batch
from headrace.model.tasks import end_tasks
from headrace.model.time import SystemClock

SUBJECT = Subjects("acme", "mill").batch("local", "plc_1")
CLOCK = SystemClock()
TAGS = 12


async def publish(bus, first: int, count: int) -> None:
    """Frames of two of twelve tags each, with one that nobody can read among them."""
    for number in range(first, first + count):
        tags = np.array([number % TAGS, (number + 5) % TAGS], np.int64)
        at, values = np.full(2, 1_000_000 * number), np.array([number, -number], float)
        batch = make_batch(tags, at, values, received_timestamp_us=number)
        body = b"no frame" if number % 17 == 3 else envelope.encode(batch)
        await bus.publish_frame(SUBJECT, body, envelope.headers("local", "plc_1", 1, number, 2))


async def read(reading: Reading, until: int, at_once: int = 3) -> tuple[pl.DataFrame, list]:
    """All rows up to a sequence, and what was lost; it must not go back."""
    rows, lost, at, known_us = [], [], 0, 0
    async with asyncio.timeout(60):
        while at < until:
            part = await reading.next(at_once)
            assert part.sequence == 0 or part.sequence > at
            at, known_us = part.sequence or at, max(known_us, part.known_us)
            rows += part.rows
            lost += part.lost
        while not part.is_all:
            part = await reading.next(at_once)
    assert part.known_us >= known_us
    return pl.concat(rows) if rows else pl.DataFrame(), lost


@pytest.fixture
async def tail(bus, monkeypatch):
    monkeypatch.setattr(tail_module, "RING_MESSAGES_MAX", 20)
    made = Tail(bus, CLOCK)
    task = asyncio.create_task(made.run())
    yield made
    await end_tasks(task)


async def test_each_app_gets_what_it_would_read_alone(bus, tail):
    """One from the first, one from the end, one that comes later with another tag, one that sleeps while the
    ring goes on without it."""
    await publish(bus, 1, 30)
    wanted = [np.array(tags, np.int64) for tags in ([1, 2], [2, 7, 9], [5], [0, 11])]
    starts = [0, 30, 20, 0]
    early = [Reading(bus, CLOCK, tail, wanted[n], starts[n]) for n in (0, 1, 3)]
    tasks = {
        n: asyncio.create_task(read(early[n], 75, at_once)) for n, at_once in ((0, 1), (1, 64))
    }
    await early[2].next(2)
    await publish(bus, 31, 20)
    late = Reading(bus, CLOCK, tail, wanted[2], starts[2])
    await publish(bus, 51, 25)
    tasks |= {2: asyncio.create_task(read(late, 75))}
    results = {n: (await task)[0] for n, task in tasks.items()}
    for n, reading in ((0, early[0]), (1, early[1]), (2, late)):
        alone = Reading(bus, CLOCK, None, wanted[n], starts[n])
        expected = (await read(alone, 75))[0]
        assert results[n].equals(expected) and expected.height
        assert reading._own is None  # all of them ended at the ring
        await alone.close()
    assert tail.first_sequence > 30
    slept = Reading(bus, CLOCK, None, wanted[3], 2)
    assert (await read(early[2], 75))[0].equals((await read(slept, 75))[0])
    for each in (*early, late, slept):
        await each.close()


async def test_what_the_log_has_no_more_is_told_to_each(bus, tail):
    """Purged before they came to it."""
    await publish(bus, 1, 10)
    await purge_log(bus, 6)
    shared = Reading(bus, CLOCK, tail, np.array([1]), 0)
    assert (await read(shared, 10))[1] == [(1, 6)]
    await shared.close()


async def test_nothing_is_read_while_there_is_no_app(bus, tail):
    """The ring is given back with the last of them, and the next one finds a new one."""
    for start in (0, 5):
        await publish(bus, 1 + start, 5)
        reading = Reading(bus, CLOCK, tail, np.arange(TAGS), start)
        await read(reading, start + 5)
        assert tail.next_sequence == start + 6
        await reading.close()
        async with asyncio.timeout(30):
            while tail.next_sequence:
                await tail._news.wait()
                await asyncio.sleep(0)
