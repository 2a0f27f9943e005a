"""The whole apps role: 2,000 assets with 10 formulas each, five inputs a second, through the broker.

Broker with ``sync_interval: always``, historian and apps role are processes of their own, as an installation
runs them; this process is the edge. The way of a sample is timed by the role itself: from its arrival at the
edge until the log has what follows from it, with the 200 ms that inputs of one poll are given to meet. The
windows are those of ``formula_stream.py``, which measures them full; here they fill as time goes on. Prints
one JSON line: the way's median and 99th percentile in each report of the role after the first ten seconds,
CPU seconds of each process for a second of input, and the role's memory.

    python bench/apps.py --seconds 120
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psutil

from formula_stream import CALENDAR, FORMULAS, INPUTS
from headrace.bus import envelope
from headrace.bus.broker import prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.subjects import DESIRED_BUCKET, Subjects
from headrace.cli.run import keep_site
from headrace.model.apps import AppsState
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig, FormulaConfig
from headrace.model.sample import make_batch
from headrace.model.time import US_PER_S, SystemClock
from rig import until

SUBJECTS = Subjects("bench", "mill")
CLOCK = SystemClock()
PARTS = 5
WARM_S = 10


def config(assets: int) -> AppsConfig:
    """The formulas of ``formula_stream.py`` on pumps."""
    kind = AssetTypeConfig(name="pump", quantities=INPUTS, attributes={"rated": "kW"})
    formulas = tuple(
        FormulaConfig(asset_type="pump", name=f"f{at}", text=f"f{at} = {text}")
        for at, text in enumerate(FORMULAS)
    )
    pumps = tuple(
        AssetConfig(
            path=f"mill/pump_{n}",
            type="pump",
            tags={name: 1 + 10 * n + at for at, name in enumerate(INPUTS)},
            attributes={"rated": 30.0},
            outputs={each.name: 1_000_000 * (1 + at) + n for at, each in enumerate(formulas)},
        )
        for n in range(assets)
    )
    return AppsConfig(
        enterprise="bench",
        site="mill",
        types=(kind,),
        assets=pumps,
        formulas=formulas,
        calendar=CALENDAR,
    )


@contextlib.contextmanager
def role(name: str, folder: DataFolder) -> Iterator[psutil.Process]:
    """A role as the supervisor starts it."""
    command = [sys.executable, "-m", "headrace", "run", name, "--data", str(folder.root)]
    with (folder.root / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


async def feed(bus: Bus, assets: int, seconds: int, first: int) -> None:
    """One sample of each input a second, a fifth of the assets each 200 ms; ``first``: number of the
    first frame."""
    generator = np.random.default_rng(7)
    value = np.tile([40.0, 20.0, 79.0, 5.0, 0.0], (assets, 1))
    tag = 1 + 10 * np.arange(assets)[:, None] + np.arange(len(INPUTS))
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    for tick in range(seconds * PARTS):
        await asyncio.sleep(max(0.0, start_s + tick / PARTS - loop.time()))
        mine = slice(tick % PARTS, None, PARTS)
        value[mine] += generator.normal(0, [0.1, 0.1, 0.3, 0.1, 0.0], value[mine].shape)
        value[mine, 4] = (value[mine, 4] + generator.integers(0, 3, len(value[mine]))) % 65536
        now_us = CLOCK.now_us()
        ids = tag[mine].ravel()
        batch = make_batch(
            ids, np.full(len(ids), now_us), value[mine].ravel(), received_timestamp_us=now_us
        )
        headers = envelope.headers("local", "plc", 1, first + tick, batch.height)
        await bus.publish_frame(SUBJECTS.batch("local", "plc"), envelope.encode(batch), headers)


async def measure(folder: DataFolder, assets: int, seconds: int) -> dict[str, object]:
    address = prepare_address(folder)
    keep_site(folder, "bench", "mill")
    broker = start_broker(folder, address)
    states: list[AppsState] = []
    try:
        async with open_bus(address, "bench") as bus:
            await ensure_streams(bus)
            await bus.put(DESIRED_BUCKET, "apps", msgspec.json.encode(config(assets)))

            async def hear(message) -> None:  # type: ignore[no-untyped-def] # of nats
                states.append(msgspec.json.decode(message.data, type=AppsState))

            await bus.subscribe(SUBJECTS.apps_health(), hear)
            with role("historian", folder) as historian, role("apps", folder) as apps:
                await until(lambda: bool(states) and states[-1].state == "running", 120, "the role")
                await feed(bus, assets, WARM_S, 1)
                watched = {
                    "broker": psutil.Process(broker.pid),
                    "historian": historian,
                    "apps": apps,
                }
                before = {name: sum(each.cpu_times()[:2]) for name, each in watched.items()}
                states.clear()
                await feed(bus, assets, seconds, 1 + WARM_S * PARTS)
                spent = {
                    f"{name}_cpu_s": round((sum(each.cpu_times()[:2]) - before[name]) / seconds, 3)
                    for name, each in watched.items()
                }
                ways = [state for state in states if state.latency_p99_us]
                results = [sum(each.results for each in w.formulas) for w in (ways[0], ways[-1])]
                span_s = (ways[-1].at_us - ways[0].at_us) / 1e6
                return {
                    "assets": assets,
                    "formulas": len(FORMULAS),
                    "seconds": seconds,
                    "results_per_s": round((results[1] - results[0]) / span_s),
                    "p50_ms": round(float(np.median([w.latency_p50_us for w in ways])) / 1e3, 1),
                    "p99_ms": round(float(np.median([w.latency_p99_us for w in ways])) / 1e3, 1),
                    "p99_worst_ms": round(max(w.latency_p99_us for w in ways) / 1e3, 1),
                    "lag_ms": round(states[-1].lag_us / 1e3, 1),
                    **spent,
                    "apps_mb": apps.memory_info().rss >> 20,
                    "at_us": CLOCK.now_us() // US_PER_S * US_PER_S,
                }
    finally:
        stop_broker(broker)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=int, default=2_000)
    parser.add_argument("--seconds", type=int, default=120)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        found = asyncio.run(measure(DataFolder(Path(root)), asked.assets, asked.seconds))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
