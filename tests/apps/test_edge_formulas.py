"""Formulas that an edge evaluates on its own machine: the hub gets the samples that it would give itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from apart import SUBJECTS
from apps_rig import SECOND_US, apps
from edge_formulas import EdgeRig, config, edge_rig, placed
from headrace.bus.subjects import FORMULA_CALL
from headrace.model.apps import DerivedFacts

FORMULAS = (
    "ratio = power / flow",
    "busy = mean(power, 2 s)",
    "busier = max(busy, 3 s) - busy",
)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[EdgeRig]:
    async with edge_rig(tmp_path) as made:
        yield made


async def test_apart_killed_and_late_the_hub_gets_the_same_to_the_bit(rig: EdgeRig) -> None:
    plain = config(*FORMULAS)
    await rig.desire(placed(plain))
    async with rig.role() as task:
        began = (await rig.running()).done_us
        first, last = await rig.polls(8)
        await rig.done(last)
        await rig.pair.wire.cut()
        _, last = await rig.polls(8)
        state = await rig.done(last)  # evaluated without the hub
        assert state.edge == "north" and state.formulas[0].results >= 16 * 3
        task.cancel()  # without warning, as a kill
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await rig.polls(6)
    await rig.poll(at_us=last - SECOND_US // 2)
    rig.states.clear()
    async with rig.role():
        await rig.running()
        _, last = await rig.polls(6)
        await rig.poll(at_us=first + SECOND_US // 3, seed=1)
        await rig.done(last)
        await rig.pair.wire.connect()
        await rig.pair.connected()
        await rig.hub.check(plain, began, last + 1, rows_min=3 * 3 * 28)
        answer = await rig.hub.bus.request(
            SUBJECTS.edge_call("north", FORMULA_CALL), b'{"tag_id": 1001}', timeout_s=10
        )
        told = msgspec.json.decode(answer, type=DerivedFacts)
        assert (told.asset, told.inputs, told.edge) == ("hall/pump_1", [4, 3], "north")


async def test_moving_there_and_back_loses_and_doubles_nothing(rig: EdgeRig) -> None:
    plain = config(*FORMULAS)
    await rig.hub.put(plain)
    await rig.desire(plain)
    async with apps(rig.hub), rig.role():
        await rig.hub.running()
        began = rig.hub.states[-1].done_us
        await rig.polls(8)
        moved = moved_at(placed(plain), rig.clock.now_us())
        await rig.hub.put(moved)
        await rig.polls(5)  # the edge hears of it later
        await rig.desire(moved)
        await rig.polls(8)
        back_us = rig.clock.now_us()
        back = moved_at(plain, back_us)
        back = msgspec.structs.replace(
            back,
            assets=tuple(msgspec.structs.replace(a, left=m.edges) for a, m in zip(
                back.assets, moved.assets, strict=True)),
        )  # fmt: skip
        await rig.desire(back)
        await rig.polls(4)
        await rig.hub.put(back)
        _, last = await rig.polls(8)
        await rig.poll(at_us=moved.formulas[0].moved_us - SECOND_US // 4)
        await rig.poll(at_us=back_us - SECOND_US // 4)
        await rig.hub.done(last)
        await rig.done(last)
        await rig.hub.check(plain, began, last + 1, rows_min=3 * 3 * 33)


def moved_at(made, at_us: int):  # type: ignore[no-untyped-def]
    formulas = tuple(msgspec.structs.replace(each, moved_us=at_us) for each in made.formulas)
    return msgspec.structs.replace(made, formulas=formulas)
