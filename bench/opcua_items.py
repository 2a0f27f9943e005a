"""10,000 monitored items at 1 Hz through the whole edge: do the books close, and at what cost?

The servers are processes of their own; each counts what it has put into its subscribers' queues. The edge
is ``headrace run edge``; its samples go into the log, synced to disk. The books close when the values that
the servers published, the samples that the edge read and the rows in the log are the same number, with
nothing missed. Prints one JSON line with the share of a core by the kernel's books of the edge process.

    python bench/opcua_items.py [--items 10000] [--servers 2] [--seconds 60] [--rate 1]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from headrace.model.desired import ConnectionConfig, TagConfig
from rig import Meter, running_edge, until

SLICES = 10
"""Parts of a round: a plant's values do not all change in the same millisecond."""


def address(at: int) -> str:
    return f"ns=2;s=line.tag_{at:05}"


async def serve(items: int, rate: float) -> None:
    """Child process: a line "go SECONDS" starts a run and is answered with the values published."""
    from headrace.sim.emulators import Point
    from headrace.sim.emulators.opcua import OpcUaEmulator

    kinds = ("float64", "float32", "int32", "bool")
    names = [address(at) for at in range(items)]
    device = OpcUaEmulator([Point(name, kinds[at % 4]) for at, name in enumerate(names)])
    await device.start()
    print(device.endpoint, flush=True)
    loop = asyncio.get_running_loop()
    turn = 0
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        begin_s, seconds = loop.time(), float(line)
        rounds = round(seconds * rate)
        for number in range(rounds * SLICES):
            await asyncio.sleep(max(0.0, begin_s + number / SLICES / rate - loop.time()))
            turn += number % SLICES == 0
            part = range(number % SLICES, items, SLICES)
            values = {names[at]: (turn % 2 if at % 4 == 3 else turn + at) for at in part}
            await device.update(values, time.time_ns() // 1_000)
        print(rounds * items, loop.time() - begin_s, device.monitored(), flush=True)
    await device.stop()


class Server:
    """A child with a server."""

    def __init__(self, process: asyncio.subprocess.Process, endpoint: str) -> None:
        self.process = process
        self.endpoint = endpoint

    async def go(self, seconds: float) -> tuple[int, float, int]:
        """Values published, in how many seconds, for how many monitored items."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{seconds}\n".encode())
        values, took_s, items = (await self.process.stdout.readline()).split()
        return int(values), float(took_s), int(items)


@contextlib.asynccontextmanager
async def servers(count: int, items: int, rate: float) -> AsyncIterator[list[Server]]:
    words = ["--serve", "--items", str(items), "--rate", str(rate)]
    made: list[Server] = []
    for _ in range(count):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        made.append(Server(process, (await process.stdout.readline()).decode().strip()))
    try:
        yield made
    finally:
        for each in made:
            each.process.terminate()
            await each.process.wait()


def connections(made: list[Server], items: int) -> list[ConnectionConfig]:
    """One connection a server, one monitored item a tag."""
    return [
        ConnectionConfig(
            name=f"server_{number}",
            protocol="opcua",
            endpoint=server.endpoint,
            tags=tuple(
                TagConfig(
                    tag_id=number * items + at + 1,
                    path=f"line_{number}/unit/tag_{at}",
                    address=address(at),
                    scan_interval_ms=1_000,
                )
                for at in range(items)
            ),
        )
        for number, server in enumerate(made)
    ]


async def measure(items: int, count: int, seconds: float, rate: float) -> dict[str, Any]:
    load = os.getloadavg()[0]
    each = items // count
    async with servers(count, each, rate) as made, running_edge() as edge:
        await edge.run(*connections(made, each))
        await until(lambda: edge.rows >= items, 120, "the first value of every item")
        first_rows = edge.rows
        meters = [Meter(edge.pid), *(Meter(server.process.pid) for server in made)]
        told = await asyncio.gather(*(server.go(seconds) for server in made))
        written = sum(values for values, _, _ in told)
        used = [meter.used() for meter in meters]
        rss_mb = meters[0].rss_mb()
        with contextlib.suppress(TimeoutError):  # then the books below do not close, and say so
            await until(lambda: edge.rows - first_rows >= written, 15, "the last values")
        await until(lambda: edge.total("buffered") == 0, 15, "an empty lane")
        await asyncio.sleep(1.5)  # one more state after the last value
        books = {name: edge.total(name) for name in ("expected", "read", "missed", "published")}
        stored = edge.rows - first_rows
        closed = (
            stored == written
            and books["missed"] == 0
            and books["expected"] == books["read"] == books["published"] == edge.rows
        )
        return {
            "name": "opcua_items",
            "unit": "share of a core of the edge process",
            "ours": round(used[0].cores, 3),
            "peer": None,
            "ratio": None,
            "items": sum(monitored for _, _, monitored in told),
            "values_per_s": round(written / max(took for _, took, _ in told)),
            "seconds": round(used[0].seconds, 1),
            "published_by_servers": written,
            "in_log": stored,
            "books_close": closed,
            "books": books,
            "cpu_s_per_million": round(used[0].cpu_s / max(stored, 1) * 1e6, 2),
            "rss_mb": round(rss_mb, 1),
            "cores_of_the_servers": [round(look.cores, 2) for look in used[1:]],
            "events": sorted({f"{event.code} {event.text}" for event in edge.events})[:10],
            "load_before": round(load, 1),
        }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=1.0, help="changes of an item a second")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.items, arguments.rate))
        return
    print(
        json.dumps(
            asyncio.run(
                measure(arguments.items, arguments.servers, arguments.seconds, arguments.rate)
            )
        )
    )


if __name__ == "__main__":
    main()
