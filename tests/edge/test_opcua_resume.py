"""An edge that is killed before anything of an OPC UA connection was durable misses nothing of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import msgspec
import polars as pl
import pytest

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.subjects import DESIRED_BUCKET, SAMPLES_STREAM, Subjects
from headrace.model.desired import ConnectionConfig, EdgeConfig, TagConfig
from headrace.model.folder import DataFolder
from headrace.sim.emulators import Point
from headrace.sim.emulators.opcua import OpcUaEmulator
from waiting import until

EDGE = """
import asyncio, json, pathlib, sys
from headrace.bus.broker import BrokerAddress
from headrace.bus.subjects import Subjects
from headrace.edge.role import run
from headrace.model.folder import DataFolder

folder, address = sys.argv[1:]
asyncio.run(run(DataFolder(pathlib.Path(folder)), BrokerAddress(**json.loads(address)),
                Subjects("acme", "mill"), asyncio.Event()))
"""
LONG_AGO_US = 1_400_000_000_000_000
LOAD = "ns=2;s=cnc.load"


@contextmanager
def running_edge(folder: DataFolder, broker: BrokerAddress) -> Iterator[None]:
    """An edge process that is killed with SIGKILL at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-c", EDGE, str(folder.root), json.dumps(asdict(broker))]
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def desired(endpoint: str) -> bytes:
    connection = ConnectionConfig(
        name="cnc",
        protocol="opcua",
        endpoint=endpoint,
        tags=(TagConfig(tag_id=1, path="a/load", address=LOAD, scan_interval_ms=0),),
        options={"history_resume": True, "publishing_interval_ms": 20},
    )
    config = EdgeConfig(enterprise="acme", site="mill", edge="local", connections=(connection,))
    return msgspec.json.encode(config)


async def set_bound(bus: Bus, bytes_max: int) -> None:
    info = await bus.stream.stream_info(SAMPLES_STREAM)
    info.config.max_bytes = bytes_max
    await bus.stream.update_stream(info.config)


async def stored_values(bus: Bus) -> list[float]:
    info = await bus.stream.stream_info(SAMPLES_STREAM)
    found = []
    for sequence in range(info.state.first_seq or 1, info.state.last_seq + 1):
        message = await bus.stream.get_msg(SAMPLES_STREAM, sequence)
        found.append(envelope.decode(message.data or b"").filter(pl.col("status") == 0))
    if not found:
        return []
    return sorted(pl.concat(found).unique(["tag_id", "source_timestamp"])["value"].to_list())


@pytest.mark.kill
@pytest.mark.parametrize("start_us", [LONG_AGO_US, None], ids=["a recording", "a live device"])
async def test_history_since_the_first_subscription_is_read(
    folder: DataFolder, broker: BrokerAddress, bus: Bus, start_us: int | None
) -> None:
    cnc = OpcUaEmulator([Point(LOAD)], history=True)
    await cnc.start()
    try:
        begin_us = start_us if start_us is not None else cnc._clock.now_us()
        if start_us is None:  # years of history from before our time are not ours to read
            for i in range(6_000):
                old = cnc._clock.now_us() - 86_400_000_000
                await cnc.update({LOAD: -1.0}, old + i)
            for value in cnc._history._values.values():  # type: ignore[union-attr] # history=True
                for each in value:
                    each.ServerTimestamp = each.SourceTimestamp
        heard = asyncio.Event()

        async def hear(_: object) -> None:
            heard.set()

        await bus.subscribe(Subjects("acme", "mill").edge_health("local"), hear)
        with running_edge(folder, broker):
            await asyncio.wait_for(heard.wait(), 30)  # it has made sure of the streams' bounds
            await set_bound(bus, 1)  # the log takes nothing
            await bus.put(DESIRED_BUCKET, "edge.local", desired(cnc.endpoint))
            await until(lambda: cnc.monitored() == 1)
            for i in range(100):
                await cnc.update({LOAD: float(i)}, begin_us + i)
            await until(lambda: cnc.pending() == 0)
        assert await stored_values(bus) == []
        await set_bound(bus, 1 << 30)
        await until(lambda: cnc.monitored() == 0)
        for i in range(100, 150):
            await cnc.update({LOAD: float(i)}, begin_us + i)
        wanted = [float(i) for i in range(150)]
        with running_edge(folder, broker):
            await until(lambda: cnc.monitored() == 1)
            async with asyncio.timeout(120):  # each message is asked for, from a broker that syncs
                while True:
                    found = await stored_values(bus)
                    if len(found) >= len(wanted):
                        break
                    await asyncio.sleep(0.2)
        assert found == wanted
    finally:
        await cnc.stop()
