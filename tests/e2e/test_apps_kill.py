"""``kill -9`` of the apps process under load: its results are those of history, to the bit, and once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from bookkeeping import accounts, told
from role_process import Process, load

from apps_rig import SECOND_US, Rig, config, rig_on
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.model.folder import DataFolder
from headrace.model.ledger_view import total
from waiting import until

FORMULAS = (
    "ratio = power / flow",
    "busy = mean(power, 2 s)",
    "busier = max(busy, 3 s) - busy",
    "runs = count(flow) per 5 s",
    "high = busy > 50 kW for 1 s",
)


@pytest.fixture
async def rig(folder: DataFolder, broker: BrokerAddress, bus: Bus) -> AsyncIterator[Rig]:
    async with rig_on(folder, broker, bus) as made:
        yield made


async def kills(rig: Rig, seed: int, count: int) -> None:
    """Kill so often at seeded moments, then compare everything."""
    chance, stop = random.Random(seed), asyncio.Event()
    made = config(*FORMULAS)
    await rig.put(made)
    process = Process(rig.folder)
    loading = asyncio.create_task(load(rig.poll, stop, seed))
    try:
        began = await rig.running(60)
        for _ in range(count):
            await asyncio.sleep(chance.uniform(0.3, 2.5))
            process.kill()
            rig.states.clear()
            if chance.random() < 0.7:
                await rig.running(60)
        await rig.running(60)
        stop.set()
        await loading
        at_us = await rig.poll()
        await rig.done(at_us, 60)
        await rig.poll(at_us=at_us, seed=1)
        last_us = rig.clock.now_us()
        await rig.done(last_us, 60)
        await rig.check(made, began.done_us, last_us - SECOND_US)
    except BaseException:
        print(process.log)
        raise
    finally:
        stop.set()
        loading.cancel()
        await process.stop()
    await until(lambda: not moving(rig.folder), 60, "the books are closed")
    sums = total(accounts(rig.folder))
    assert sums["unexplained"] == sums["lost"] == 0, told(rig.folder)
    assert sums["recomputed"] > 0


def moving(folder: DataFolder) -> bool:
    sums = total(accounts(folder))
    return bool(sums["open"] + sums["in_log"] + sums["buffered"])


async def test_two_kills_change_nothing(rig: Rig) -> None:
    await kills(rig, 1, 2)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 110))
async def test_many_kills_change_nothing(rig: Rig, seed: int) -> None:
    await kills(rig, seed, 10)
