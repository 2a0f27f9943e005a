"""The apps role on a real broker and historian: results as samples come, over restarts, repairs, edits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from apps_rig import SECOND_US, Rig, apps, config, edited, rig_on

from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.model.folder import DataFolder
from waiting import until

FORMULAS = (
    "ratio = power / flow",
    "busy = mean(power, 2 s)",
    "busier = max(busy, 3 s) - busy",
)


@pytest.fixture
async def rig(folder: DataFolder, broker: BrokerAddress, bus: Bus) -> AsyncIterator[Rig]:
    async with rig_on(folder, broker, bus) as made:
        yield made


async def polls(rig: Rig, count: int, *, every_s: float = 0.1) -> tuple[int, int]:
    """So many polls in real time; gives the first and last source time."""
    times = []
    for _ in range(count):
        times.append(await rig.poll())
        await asyncio.sleep(every_s)
    return times[0], times[-1]


async def test_results_are_those_of_history_to_the_bit(rig: Rig) -> None:
    made = config(*FORMULAS)
    await rig.put(made)
    async with apps(rig):
        began = await rig.running()
        first, last = await polls(rig, 20)
        await rig.done(last)
        rows = await rig.check(made, began.done_us, last + 1)
        assert rows >= 3 * 3 * 20
        state = rig.states[-1]
        assert state.formulas[0].results >= 60 and not state.error_code
        assert state.latency_p99_us > 0
        del first
