"""The role itself is killed, with the processes of its apps; what it gives is what it gives unkilled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from site_runtime import SUBJECTS, WAIT_S, Site, site

from headrace.edge.calls import WriteAnswer, WriteCall
from headrace.model.time import SystemClock

COUNT = """
import polars as pl
from headrace import app

@app.on_window("pump", length="2 s", every="1 s", step="500 ms", lateness="500 ms")
def watch(window):
    window.state["n"] = n = window.state.get("n", 0) + 1
    if n % 2 == 0:
        window.propose(app.WorkRequest(asset="south/p1", title=f"look {n}", reason="second"))
    return pl.DataFrame({"asset": ["south/p1"], "load": [float(n)]}).select(
        "asset", "load", time=pl.lit(window.end_us).cast(pl.Datetime("us", "UTC")))
"""
WRITE = """
from headrace import app

@app.on_window("pump", length="2 s", every="1 s", step="500 ms", lateness="500 ms")
def watch(window):
    if not window.state.setdefault("done", False):
        window.state["done"] = True
        window.write("south/p1", "power", 1.5)
"""
MAY_WRITE = '[permissions]\nwrites = ["pump.power"]\n'


@pytest.fixture
async def plant(folder, broker):
    async with site(folder, broker) as made:
        yield made


@asynccontextmanager
async def role_process(plant: Site) -> AsyncIterator[asyncio.subprocess.Process]:
    """The role, as a process that the test may kill."""
    here = Path(__file__).parent
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(here / "role_process.py")),
        stdin=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdin is not None
    address = msgspec.to_builtins(plant.address.as_role("runtime"))
    process.stdin.write(msgspec.json.encode((str(plant.folder.root), address)) + b"\n")
    await process.stdin.drain()
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death ends a child on Linux")
@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.soak)])
async def test_outputs_of_a_killed_runtime_are_those_of_one_that_was_not(plant, kills):
    """One sample a second, each with the number after the last, and a record for each second one."""
    plant.known.secret("load_watch")
    await plant.install(COUNT)
    await plant.sample(5.0, SystemClock().now_us())
    child = 0
    for _ in range(kills):
        async with role_process(plant) as process:
            state = await plant.state(lambda s, child=child: s.pid not in (0, child) and s.samples)
            child = state.pid
            ended = os.pidfd_open(child)
            process.send_signal(signal.SIGKILL)
            await process.wait()
            assert await asyncio.to_thread(select.select, [ended], [], [], WAIT_S) != ([], [], [])
            os.close(ended)
    async with role_process(plant):
        await plant.state(lambda s: s.pid not in (0, child) and s.samples >= 2)
    given = await plant.outputs()
    counts = given["value"].to_list()
    assert sorted(set(counts)) == [float(n + 1) for n in range(len(set(counts)))]
    identities = given.select("tag_id", "source_timestamp", "value").unique()
    assert identities.height == given.height == identities["source_timestamp"].n_unique()
    records = [event.record for event in await plant.events() if event.record]
    assert len({record["id"] for record in records}) == len(records) == len(counts) // 2


@pytest.mark.parametrize("lives", [1, pytest.param(3, marks=pytest.mark.soak)])
async def test_a_write_that_a_kill_cut_off_is_told_and_never_made_again(plant, lives):
    """The edge has the write and has not answered when the runtime dies: the next one says so."""
    asked: list[WriteCall] = []
    came = asyncio.Event()

    async def take(raw: bytes) -> bytes:
        asked.append(msgspec.json.decode(raw, type=WriteCall))
        came.set()
        await asyncio.sleep(3_600)
        return msgspec.json.encode(WriteAnswer(value=0.0))

    await plant.bus.answer(SUBJECTS.edge_call("local", "write"), take)
    plant.known.secret("set_point")
    await plant.install(WRITE, MAY_WRITE, "set-point")
    async with role_process(plant) as process:
        await plant.sample(5.0, SystemClock().now_us())
        async with asyncio.timeout(WAIT_S):
            await came.wait()
        process.send_signal(signal.SIGKILL)
        await process.wait()
    for _ in range(lives):
        plant.states.clear()
        async with role_process(plant):
            event = await plant.event("APPS-2280", "set_point")
            await plant.state(lambda s: s.position_us > 0, "set_point")
    assert event.severity == "warning" and event.source == "app/set-point"
    assert "p1/power" in event.text and "unknown whether it reached the device" in event.text
    told = [each for each in await plant.events("set_point") if each.code == "APPS-2280"]
    assert len(told) == len(asked) == 1
