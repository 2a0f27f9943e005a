"""``kill -9`` of the apps process beside an edge, its hub away meanwhile: the hub gets each result once, those
of history to the bit, and the books close."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bookkeeping import accounts, told
from role_process import Process, load

from edge_formulas import EdgeRig, config, edge_rig, placed
from headrace.model.ledger_view import total
from waiting import until

FORMULAS = (
    "ratio = power / flow",
    "busy = mean(power, 2 s)",
    "busier = max(busy, 3 s) - busy",
    "runs = count(flow) per 5 s",
)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[EdgeRig]:
    async with edge_rig(tmp_path) as made:
        yield made


def sums_of_formulas(rig: EdgeRig) -> dict[str, int]:
    rows = accounts(rig.hub.folder)
    return total(rows.filter(rows["edge"] == "apps-north"))


def moving(rig: EdgeRig) -> bool:
    sums = sums_of_formulas(rig)
    return not sums["stored"] or bool(sums["open"] + sums["in_log"] + sums["buffered"])


async def kills(rig: EdgeRig, seed: int, count: int) -> None:
    chance, stop = random.Random(seed), asyncio.Event()
    plain = config(*FORMULAS)
    await rig.desire(placed(plain))
    process = Process(rig.pair.edge.folder, "--edge", "north")
    loading = asyncio.create_task(load(rig.poll, stop, seed))
    try:
        began = (await rig.running()).done_us
        for _ in range(count):
            await rig.pair.wire.cut()
            await asyncio.sleep(chance.uniform(0.3, 2.5))
            process.kill()
            rig.states.clear()
            await rig.running()
            await rig.pair.wire.connect()
        stop.set()
        await loading
        await rig.done(await rig.poll())
        await rig.pair.connected()
        last_us = rig.clock.now_us()
        await rig.done(last_us)
        await rig.hub.check(plain, began, last_us - 1_000_000)
    except BaseException:
        print(process.log)
        raise
    finally:
        stop.set()
        loading.cancel()
        await process.stop()
    await until(lambda: not moving(rig), 60, "the books are closed")
    sums = sums_of_formulas(rig)
    assert sums["unexplained"] == sums["lost"] == sums["foreign"] == 0, told(rig.hub.folder)


@pytest.mark.soak
async def test_a_kill_beside_the_edge_changes_nothing(rig: EdgeRig) -> None:
    await kills(rig, 1, 1)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 105))
async def test_many_kills_beside_the_edge_change_nothing(rig: EdgeRig, seed: int) -> None:
    await kills(rig, seed, 8)
