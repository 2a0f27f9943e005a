"""Python apps on an edge's own machine: what they give is what they would give on the platform."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import msgspec
import polars as pl
import pytest
from edge_runtime import EdgeRuntime, edge_runtime, given, read_in, records
from polars.testing import assert_frame_equal

from apart import SUBJECTS
from headrace.apps.runtime.executor import Executor
from headrace.model.deployment import AppDeployment
from headrace.model.sample import microseconds

WATCH = '''
import msgspec
import polars as pl
from headrace import app

class Question(msgspec.Struct):
    factor: float

class Answer(msgspec.Struct):
    value: float

@app.on_window("pump", length="2 s", every="1 s", step="200 ms", lateness="3 s")
def watch(window):
    for asset in window.assets:
        if window.end_us // 1_000_000 % 3 == 0:
            window.propose(app.WorkRequest(asset=asset.path, title="look", reason="third"))
    return window.frame.group_by("asset", maintain_order=True).agg(
        pl.col("time").last(), load=(pl.col("power") / 7).mean())

@app.service
def ask(request: Question, context: app.Context) -> Answer:
    """A question."""
    return Answer(request.factor * 2)
'''
SERVICE = '[[services]]\nname = "ask"\ntimeout_s = 30.0\ntitle = {en = "Ask", zh = "问"}\n'
SECOND_US = 1_000_000
STEP_US = 200_000
LATENESS_US = 3 * SECOND_US


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[EdgeRuntime]:
    async with edge_runtime(tmp_path) as made:
        yield made


def newest(samples: pl.DataFrame) -> int:
    """The last source time, microseconds."""
    return int(microseconds(samples["source_timestamp"]).max()) if samples.height else 0


def expected(whole: AppDeployment, read: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """What the app gives of all samples at once, without broker, process or clock, over the time of what was
    found."""
    module = ModuleType("load_watch")
    exec(compile(WATCH, "load_watch.py", "exec"), vars(module))
    oldest_us = int(microseconds(found["source_timestamp"]).min())
    first_us = oldest_us + STEP_US + LATENESS_US - 1  # a hook is due so much after its window
    executor = Executor(whole.manifest, module, whole, start_us=first_us)
    executor.feed(read)
    made = executor.advance(newest(found) + STEP_US + LATENESS_US).samples
    assert newest(made) == newest(found)
    return made


def same(found: pl.DataFrame, wanted: pl.DataFrame) -> int:
    """Whether both have the same samples, each once; gives how many."""
    columns = ["tag_id", "source_timestamp", "value", "status"]
    assert not found.select("tag_id", "source_timestamp").is_duplicated().any()
    order = columns[:2]
    assert_frame_equal(
        found.select(columns).sort(order), wanted.select(columns).sort(order), check_exact=True
    )
    return found.height


async def test_cut_off_and_killed_the_hub_gets_what_the_platform_would_give_once(rig):
    whole = rig.install(WATCH, SERVICE)
    async with rig.runtime(), rig.runtime("north"):
        await rig.desire(whole)
        await rig.polls(3)
        state = await rig.state(lambda s: s.samples >= 4)
        assert (state.edge, state.assets) == ("north", 2) and "landlock" in state.holds
        call = SUBJECTS.app_call("load_watch", "ask", "north")
        answer = await rig.pair.hub.bus.request(call, b'{"factor": 4}', timeout_s=30)
        assert msgspec.json.decode(answer) == {"value": 8}
        await rig.pair.wire.cut()
        await rig.polls(10)
        os.kill(state.pid, signal.SIGKILL)
        last = await rig.polls(10)
        await rig.gave(rig.pair.edge.bus, lambda f: newest(f) > last - SECOND_US)
        await rig.pair.wire.connect()
        await rig.pair.connected()
        await rig.state(lambda s: s.restarts == 1 and s.position_us > last)
    own = await given(rig.pair.edge.bus)
    at_hub = await rig.gave(rig.pair.hub.bus, lambda f: f.height >= own.height)
    assert_frame_equal(at_hub, own)  # in order, each once
    assert same(own, expected(whole, await read_in(rig.pair.edge.bus), own)) >= 8
    ids = [each["id"] for each in await records(rig.pair.edge.bus)]
    assert ids and len(set(ids)) == len(ids)
    async with asyncio.timeout(60):
        while len(there := await records(rig.pair.hub.bus)) < len(ids):
            pass
    assert [each["id"] for each in there] == ids


@pytest.mark.soak
async def test_moving_there_and_back_loses_and_doubles_nothing(rig):
    """Each side hears of a move at another time, also after it."""
    whole = rig.install(WATCH, SERVICE, edge="")
    async with rig.runtime(), rig.runtime("north"):
        await rig.desire(whole)
        await rig.polls(3)
        await rig.state(lambda s: s.samples >= 4, "")
        there = moved(whole, "north", rig.clock.now_us() + 2 * SECOND_US)
        await rig.desire_platform(there)
        await rig.polls(20)
        await rig.desire_edge(there)  # some seconds after it moved
        await rig.polls(5)
        await rig.state(lambda s: s.samples >= 8)
        back = moved(there, "", rig.clock.now_us() + 2 * SECOND_US)
        await rig.desire_edge(back)
        await rig.polls(20)
        await rig.desire_platform(back)
        last = await rig.polls(5)
        await rig.state(lambda s: s.position_us > last + LATENESS_US, "")
    parts = [await given(rig.pair.hub.bus, edge=name) for name in ("runtime", "runtime-north")]
    assert all(part.height >= 8 for part in parts)
    every = pl.concat(parts)
    assert same(every, expected(whole, await read_in(rig.pair.edge.bus), every)) >= 24


def moved(whole: AppDeployment, edge: str, at_us: int) -> AppDeployment:
    """The same elsewhere from a source time on."""
    assets = tuple(msgspec.structs.replace(a, edge=edge, left=a.edge) for a in whole.assets)
    return msgspec.structs.replace(whole, assets=assets, moved_us=at_us)
