"""Overload: what an edge delivers when it is offered five times what it can take.

Five connections of 4,000 registers each, to a libmodbus server in C, through ``headrace run edge`` into the
log on disk. First the scan interval is shortened step by step; where the most samples a second come out of
the log is the capacity. Then the same tags are due five times as fast as that, and at capacity again, in
turns. What cannot be polled is shed by rule (a poll not made when it was due is not made later) and counted.
The books close when the samples due are those read and those missed. Prints one JSON line; ``ratio`` is
delivered under overload by capacity, and 0.9 is the goal. Peers measured before: 0.03 (thingsboard-gateway).

    python bench/overload.py [--connections 5] [--registers 4000] [--seconds 6] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
from typing import Any

from headrace.model.desired import ConnectionConfig
from rig import Edge, Meter, modbus_devices, register_tags, running_edge, until

RAMP_MS = (25, 12, 6, 4, 3)
TIMES = 5
SETTLE_S = 3.0


def connections(
    endpoint: str, count: int, registers: int, interval_ms: int
) -> list[ConnectionConfig]:
    return [
        ConnectionConfig(
            name=f"plc_{number}",
            protocol="modbus",
            endpoint=endpoint,
            tags=register_tags(registers, interval_ms, number * registers + 1, "input"),
        )
        for number in range(count)
    ]


async def deliver(edge: Edge, seconds: float) -> dict[str, Any]:
    """What comes out of the log for a while, and what it costs."""
    meter, before = Meter(edge.pid), edge.rows
    await asyncio.sleep(seconds)
    used = meter.used()
    return {
        "samples_per_s": round((edge.rows - before) / used.seconds),
        "cores": round(used.cores, 2),
        "rss_mb": round(meter.rss_mb(), 1),
    }


async def close_books(edge: Edge) -> dict[str, Any]:
    """Take the tags away: polls end, lanes empty; then all samples of all connections are accounted."""
    states = dict(edge.states)
    await edge.run()
    await until(lambda: not edge.states, 60, "the end of the connections")
    await until(lambda: edge.rows >= sum(s.published for s in states.values()), 60, "the log")
    await asyncio.sleep(1.0)
    expected, read, missed = (
        sum(getattr(state, name) for state in states.values())
        for name in ("expected", "read", "missed")
    )
    return {"expected": expected, "read": read, "missed": missed}


async def switch(edge: Edge, made: list[ConnectionConfig]) -> None:
    """Run other scan intervals, and wait until they are what is read."""
    await edge.run(*made)
    await until(
        lambda: all(state.read for state in edge.states.values()), 90, "a poll of each connection"
    )
    await asyncio.sleep(SETTLE_S)


async def measure(count: int, registers: int, seconds: float, rounds: int) -> dict[str, Any]:
    load = os.getloadavg()[0]
    tags = count * registers
    with modbus_devices(1, registers) as ((endpoint, _),):
        async with running_edge() as edge:

            async def at(interval_ms: int) -> dict[str, Any]:
                await switch(edge, connections(endpoint, count, registers, interval_ms))
                due = edge.total("expected")
                found = await deliver(edge, seconds)
                offered = round((edge.total("expected") - due) / seconds)
                return found | {"interval_ms": interval_ms, "offered_per_s": offered}

            ramp = [await at(interval_ms) for interval_ms in RAMP_MS]
            knee = max(ramp, key=lambda step: step["samples_per_s"])
            over_ms = max(1, int(1000 * tags / (TIMES * knee["samples_per_s"])))
            # In turns, since other work on the machine comes and goes.
            pairs = [(await at(over_ms), await at(knee["interval_ms"])) for _ in range(rounds)]
            await switch(edge, connections(endpoint, count, registers, over_ms))
            await asyncio.sleep(seconds)
            shares = sorted(state.read for state in edge.states.values())
            buffered = edge.total("buffered")
            books = await close_books(edge)
            over = statistics.median(pair[0]["samples_per_s"] for pair in pairs)
            capacity = statistics.median(pair[1]["samples_per_s"] for pair in pairs)
            offered = statistics.median(pair[0]["offered_per_s"] for pair in pairs)
            return {
                "name": "overload",
                "unit": "samples per second into the log",
                "ours": round(over),
                "peer": round(capacity),
                "peer_is": "its own capacity in this run",
                "ratio": round(over / capacity, 3),
                "offered_times_capacity": round(offered / capacity, 1),
                "books_close": books["expected"] == books["read"] + books["missed"],
                "books": books,
                "buffered": buffered,
                "least_to_most_served_connection": round(shares[0] / shares[-1], 2),
                "rounds": pairs,
                "ramp": ramp,
                "events": sorted({event.code for event in edge.events}),
                "load_before": round(load, 1),
            }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=5)
    parser.add_argument("--registers", type=int, default=4_000)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(
        json.dumps(
            asyncio.run(
                measure(
                    arguments.connections,
                    arguments.registers,
                    arguments.seconds,
                    arguments.rounds,
                )
            )
        )
    )
