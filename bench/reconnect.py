"""Reconnect: how soon a hub has what an edge kept for it, after each way of being apart.

A hub and an edge as two brokers on loopback hosts with a wire between them (``tests/apart.py``). While
they are apart 2,000 frames of 10 samples are published at the edge. The clock runs from the moment the
way is open again (the hub's broker accepts, or the wire passes) until the hub's log, synced, has the
first of them, and all of them. ``--plain`` leaves the renewing of sources out: the broker by itself.

    python bench/reconnect.py --rounds 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from apart import Apart  # the tests' own pair
from headrace.bus.log import log_info
from headrace.site import hub

FRAMES = 2_000


async def after(pair: Apart) -> tuple[float, float]:
    """Seconds until the first frame and until all frames are in the hub's log."""
    start_s = time.perf_counter()
    known = (await log_info(pair.hub.bus)).last_sequence
    first_s = 0.0
    while (last := (await log_info(pair.hub.bus)).last_sequence) < len(pair.published):
        if not first_s and last > known:
            first_s = time.perf_counter() - start_s
        assert time.perf_counter() - start_s < 150, f"{last} of {len(pair.published)} frames"
        await asyncio.sleep(0.01)  # a poll of what another process does
    return first_s or time.perf_counter() - start_s, time.perf_counter() - start_s


async def apart_once(pair: Apart, way: str) -> tuple[float, float]:
    if way == "hub killed":
        await pair.stop_hub(kill=True)
        await pair.publish(FRAMES)
        await pair.start_hub()
    elif way == "cut":
        await pair.wire.cut()
        await pair.publish(FRAMES)
        await pair.wire.connect()
    elif way == "edge killed":
        await pair.publish(FRAMES // 2)
        await pair.wire.cut()
        await pair.publish(FRAMES // 2)
        await pair.stop_edge(kill=True)
        await pair.wire.connect()
        await pair.start_edge()
    else:  # silent: the time to notice it is part of the figure
        pair.wire.fall_silent()
        await pair.publish(FRAMES)
        await pair.wire.connect()
    return await after(pair)


async def measure(ways: list[str], rounds: int) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with Apart(Path(folder)) as pair:
            await pair.publish(100)
            await pair.arrived()
            for way in ways:
                times = [await apart_once(pair, way) for _ in range(rounds)]
                first, whole = zip(*times, strict=True)
                found[way] = {
                    "first_s": round(statistics.median(first), 2),
                    "all_s": round(statistics.median(whole), 2),
                    "worst_s": round(max(whole), 2),
                }
            await pair.check_order()
    return found


async def _no_renewal(*_: object) -> None:
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--plain", action="store_true", help="the broker by itself, hub killed only"
    )
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    ways = ["hub killed", "cut", "edge killed", "silent"]
    ours = asyncio.run(measure(ways, arguments.rounds))
    line = {
        "name": "reconnect",
        "unit": "s",
        "ours": ours,
        "frames": FRAMES,
        "load": round(load, 1),
    }
    if arguments.plain:
        with mock.patch.object(hub, "renew_sources", _no_renewal):
            plain = asyncio.run(measure(["hub killed"], 1))
        peer, own = plain["hub killed"]["all_s"], ours["hub killed"]["all_s"]
        line |= {"peer": {"nats-server by itself, hub killed": peer}, "ratio": round(own / peer, 3)}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
