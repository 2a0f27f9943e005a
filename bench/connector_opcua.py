"""CPU of collecting values over OPC UA: our connector against a plain asyncua subscription.

Both collect the same number of values from the same server (a process of its own) in this run; what
counts is the CPU time of the collecting process. The peer does the least that a collector can do: it
counts its data change callbacks. Ours ends in sample batches.

    python bench/connector_opcua.py [--tags 1000] [--rounds 60]

Prints one JSON line; ``ratio`` is ours / peer, and 0.25 or less is the goal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headrace.edge.connectors.opcua import CONNECTOR
from headrace.edge.contract import ConnectorContext, ScanGroup
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.time import SystemClock
from headrace.sim.emulators import Point, PointType

PUBLISHING_INTERVAL_MS = 100
TYPES: tuple[PointType, ...] = ("float64", "float32", "int32", "bool")
T0 = 1_700_000_000_000_000


async def wait(condition: Callable[[], bool], timeout_s: float = 300.0) -> None:
    """Until a condition holds; fails when it never does."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the bench does not come to an end"
        await asyncio.sleep(0.02)


def addresses(tags: int) -> list[str]:
    """Node ids of the bench's server."""
    return [f"ns=2;s=line.tag_{i:05}" for i in range(tags)]


async def serve(tags: int) -> None:
    """Child process: a server; each line on stdin is a number of rounds to publish."""
    from headrace.sim.emulators.opcua import OpcUaEmulator

    names = addresses(tags)
    # Neighbours differ in type, as a machine's tags do; runs of one type would flatter us.
    emulator = OpcUaEmulator([Point(name, TYPES[i % 4]) for i, name in enumerate(names)])
    await emulator.start()
    print(emulator.endpoint, flush=True)
    loop = asyncio.get_running_loop()
    at = 0
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        for _ in range(int(line)):
            at += 1
            # A bool must change each time: the peer's subscription skips equal values.
            await emulator.update(
                {name: (at % 2 if i % 4 == 3 else at + i) for i, name in enumerate(names)}, T0 + at
            )
            await wait(lambda: emulator.pending() <= 20 * tags)
            await asyncio.sleep(0)
        await wait(lambda: not emulator.pending())
    await emulator.stop()


async def ours(endpoint: str, tags: int, go: Callable[[], None], wanted: int) -> float:
    """CPU seconds of our connector for ``wanted`` values."""
    configs = tuple(
        TagConfig(tag_id=i, path=f"line/unit/tag_{i}", address=a, scan_interval_ms=10)
        for i, a in enumerate(addresses(tags))
    )
    connection = ConnectionConfig(
        name="bench",
        protocol="opcua",
        endpoint=endpoint,
        options={"publishing_interval_ms": PUBLISHING_INTERVAL_MS, "queue_size": 100},
    )
    with tempfile.TemporaryDirectory() as folder:
        context = ConnectorContext(
            clock=SystemClock(), certificates=Path(folder), secret=lambda text: text
        )
        connector = CONNECTOR.open(connection, context)
        await connector.connect()
        group = ScanGroup(0, configs)
        seen = 0
        while seen < tags:
            seen += (await connector.read(group)).batch.height
        go()
        start_s = time.process_time()
        seen = 0
        while seen < wanted:
            seen += (await connector.read(group)).batch.height
        spent_s = time.process_time() - start_s
        await connector.close()
    return spent_s


async def peer(endpoint: str, tags: int, go: Callable[[], None], wanted: int) -> float:
    """CPU seconds of asyncua's own subscription for ``wanted`` values."""
    from asyncua import Client

    class Count:
        seen = 0

        def datachange_notification(self, _node: Any, _value: Any, _data: Any) -> None:
            self.seen += 1

    count = Count()
    async with Client(endpoint) as client:
        nodes = [client.get_node(a) for a in addresses(tags)]
        subscription = await client.create_subscription(PUBLISHING_INTERVAL_MS, count)
        await subscription.subscribe_data_change(nodes, queuesize=100)
        await wait(lambda: count.seen >= tags)
        count.seen = 0
        go()
        start_s = time.process_time()
        await wait(lambda: count.seen >= wanted)
        spent_s = time.process_time() - start_s
        await subscription.delete()
    return spent_s


async def run(tags: int, rounds: int) -> dict[str, Any]:
    """Both in turn against one server."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "--serve",
        "--tags",
        str(tags),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    endpoint = (await child.stdout.readline()).decode().strip()

    def go() -> None:
        assert child.stdin is not None
        child.stdin.write(f"{rounds}\n".encode())

    values = tags * rounds
    ours_s = await ours(endpoint, tags, go, values)
    peer_s = await peer(endpoint, tags, go, values)
    child.stdin.close()
    await child.wait()
    per_million = 1e6 / values
    return {
        "name": "connector_opcua",
        "unit": "CPU-s per million values",
        "ours": round(ours_s * per_million, 3),
        "peer": round(peer_s * per_million, 3),
        "peer_is": "asyncua subscription that counts callbacks",
        "ratio": round(ours_s / peer_s, 4),
        "goal": 0.25,
        "values": values,
        "tags": tags,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tags", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.tags))
        return
    print(json.dumps(asyncio.run(run(arguments.tags, arguments.rounds))))


if __name__ == "__main__":
    main()
