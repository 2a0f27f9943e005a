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

from headrace.apps.runtime.effects import Record, Write
from headrace.apps.runtime.keeping import Keeping
from headrace.apps.runtime.writing import NoWriting
from headrace.bus import envelope
from headrace.bus.log import LogReader
from headrace.bus.subjects import EVENTS_STREAM, RUNTIME_BUCKET
from headrace.edge.calls import WriteAnswer, WriteCall
from headrace.model.app_state import AppEvent
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
        *(sys.executable, str(here / "killed_runtime.py")),
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


@pytest.fixture
async def stuck(plant) -> AsyncIterator[tuple[list[WriteCall], asyncio.Event]]:
    """An edge that takes a write and does not answer: what it was asked, and when it was."""
    asked: list[WriteCall] = []
    came = asyncio.Event()

    async def take(raw: bytes) -> bytes:
        asked.append(msgspec.json.decode(raw, type=WriteCall))
        came.set()
        await asyncio.Event().wait()
        return msgspec.json.encode(WriteAnswer(value=0.0))

    stop = await plant.bus.answer(SUBJECTS.edge_call("local", "write"), take)
    yield asked, came
    await stop()


async def kill(process: asyncio.subprocess.Process, children: list[int]) -> None:
    """Kill the role, and wait until the processes of its apps are gone with it."""
    ends = [os.pidfd_open(child) for child in children]
    process.send_signal(signal.SIGKILL)
    await process.wait()
    for end in ends:
        assert await asyncio.to_thread(select.select, [end], [], [], WAIT_S) != ([], [], [])
        os.close(end)


async def forgotten(bus) -> None:
    """Until the broker takes an id a second time: it has forgotten those before too."""
    probe = (SUBJECTS.event("app", "probe"), b"{}")
    async with asyncio.timeout(WAIT_S):
        await bus.stream.publish(*probe, headers={envelope.HEADER_ID: "probe"})
        while (await bus.stream.publish(*probe, headers={envelope.HEADER_ID: "probe"})).duplicate:
            continue


async def test_a_write_cut_off_is_told_also_when_its_app_is_gone(bus):
    """One was begun and one was not: the first is unknown, the second is not made; both once. A record that
    went out before is not stored again, whatever the broker has forgotten."""
    keeping = Keeping(bus, SUBJECTS, SystemClock(), "set-point", lambda: asyncio.sleep(0, 0))
    write = Write(
        id="w-1", at_us=1, asset="south/p1", quantity="power", edge="local", connection="plc_1",
        tag="p1/power", value=1.5,
    )  # fmt: skip
    record = Record(
        id="r-1", kind="value", app="set-point", version="1", hook="h", at_us=1, body={"asset": "a"}
    )
    kept = await keeping.load()
    cut = msgspec.structs.replace(
        kept,
        writes=[write, msgspec.structs.replace(write, id="w-2")],
        written=True,
        records=[record],
    )
    await bus.key_value(RUNTIME_BUCKET, history=1)
    await bus.put(RUNTIME_BUCKET, "set_point", msgspec.msgpack.encode(cut))
    subject = SUBJECTS.event("app", "set_point")
    config = (await bus.stream.stream_info(EVENTS_STREAM)).config
    config.duplicate_window = 0.1
    await bus.stream.update_stream(config)
    await bus.publish_frame(subject, b"{}", {envelope.HEADER_ID: "r-1"})
    await forgotten(bus)
    for _ in range(2):
        again = Keeping(bus, SUBJECTS, SystemClock(), "set-point", lambda: asyncio.sleep(0, 0))
        left = await again.settle(NoWriting(SystemClock(), "set-point"))
        assert left.writes == [] and not left.written
    reader = LogReader(bus, 1, EVENTS_STREAM, [subject])
    events = [msgspec.json.decode(m.body, type=AppEvent) for m in await reader.next(1.0)]
    assert [each.code for each in events] == ["APPS-2280", "APPS-2282"]
    await reader.close()


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death ends a child on Linux")
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.soak)])
async def test_a_killed_runtime_gives_what_an_unkilled_one_does_and_tells_a_write_cut_off(
    plant, stuck, kills
):
    """One app gives a sample a second, each with the number after the last, and a record for each second one:
    none is lost, none comes twice. The edge has the write of the other when the runtime is killed: the next one
    says that nobody knows, once, and does not write again."""
    asked, came = stuck
    for app_id, source, more in (("load-watch", COUNT, ""), ("set-point", WRITE, MAY_WRITE)):
        plant.known.secret(app_id.replace("-", "_"))
        await plant.install(source, more, app_id)
    await plant.sample(5.0, SystemClock().now_us())
    child = 0
    for _ in range(kills):
        async with role_process(plant) as process:
            state = await plant.state(lambda s, child=child: s.pid not in (0, child) and s.samples)
            child = state.pid
            async with asyncio.timeout(WAIT_S):
                await came.wait()
            other = await plant.state(lambda s: s.pid > 0, "set_point")
            await kill(process, [child, other.pid])
    async with role_process(plant):
        await plant.state(lambda s: s.pid not in (0, child) and s.samples >= 2)
        event = await plant.event("APPS-2280", "set_point")
        await plant.state(lambda s: s.pid not in (0, other.pid) and s.position_us, "set_point")
    given = await plant.outputs()
    counts = given["value"].to_list()
    assert sorted(set(counts)) == [float(n + 1) for n in range(len(set(counts)))]
    identities = given.select("tag_id", "source_timestamp", "value").unique()
    assert identities.height == given.height == identities["source_timestamp"].n_unique()
    records = [each.record for each in await plant.events() if each.record]
    assert len({record["id"] for record in records}) == len(records) == len(counts) // 2
    assert event.severity == "warning" and event.source == "app/set-point"
    assert "p1/power" in event.text and "unknown whether it reached the device" in event.text
    told = [each for each in await plant.events("set_point") if each.code == "APPS-2280"]
    assert len(told) == len(asked) == 1
