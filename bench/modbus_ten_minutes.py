"""Ten minutes of 10,000 registers every 100 ms through the whole edge: is a poll missed, and at what cost?

The device is a libmodbus server in C in its own process; the edge is ``headrace run edge``; its samples
go into the log, synced to disk. Prints one JSON line: polls due and missed, share of a core, resident
memory, by the kernel's books of the edge process.

    python bench/modbus_ten_minutes.py [--seconds 600] [--registers 10000] [--interval-ms 100]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from typing import Any

from headrace.model.desired import ConnectionConfig
from rig import Meter, modbus_devices, register_tags, running_edge, until

WARM_UP_S = 5.0


async def measure(registers: int, interval_ms: int, seconds: float) -> dict[str, Any]:
    load = os.getloadavg()[0]
    with modbus_devices(1, registers) as ((endpoint, device_pid),):
        async with running_edge() as edge:
            await edge.run(
                ConnectionConfig(
                    name="plc",
                    protocol="modbus",
                    endpoint=endpoint,
                    tags=register_tags(registers, interval_ms),
                )
            )
            await until(lambda: edge.total("read") > 0, 60, "the first poll")
            await asyncio.sleep(WARM_UP_S)
            meters = {
                name: Meter(pid)
                for name, pid in (
                    ("edge", edge.pid),
                    ("broker", edge.broker_pid),
                    ("device", device_pid),
                )
            }
            begin = edge.states["plc"]
            peak_mb = 0.0
            while meters["edge"].used().seconds < seconds:
                await asyncio.sleep(min(5.0, seconds))
                peak_mb = max(peak_mb, meters["edge"].rss_mb())
            used = {name: meter.used() for name, meter in meters.items()}
            at_us = edge.states["plc"].last_success_us
            await until(lambda: edge.states["plc"].last_success_us > at_us, 10, "a state")
            end = edge.states["plc"]
            await edge.run()
            await until(lambda: not edge.states, 20, "the end of the connection")
            await until(lambda: edge.rows >= end.published, 20, "the last samples")
            return {
                "name": "modbus_ten_minutes",
                "unit": "share of a core of the edge process",
                "ours": round(used["edge"].cores, 3),
                "peer": None,
                "ratio": None,
                "registers": registers,
                "interval_ms": interval_ms,
                "seconds": round(used["edge"].seconds),
                "polls": (end.expected - begin.expected) // registers,
                "polls_missed": (end.missed - begin.missed) / registers,
                "bad": end.bad - begin.bad,
                "samples_in_log": edge.rows,
                "rss_mb": round(peak_mb, 1),
                "cpu_s_per_million": round(used["edge"].cpu_s / (end.read - begin.read) * 1e6, 3),
                "cores_of_the_others": {
                    name: round(used[name].cores, 3) for name in ("broker", "device")
                },
                "events": sorted({f"{event.code} {event.text}" for event in edge.events}),
                "load_before": round(load, 1),
            }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--registers", type=int, default=10_000)
    parser.add_argument("--interval-ms", type=int, default=100)
    arguments = parser.parse_args()
    print(
        json.dumps(
            asyncio.run(measure(arguments.registers, arguments.interval_ms, arguments.seconds))
        )
    )
