"""The durable log alone: frames of 10,000 samples, acknowledged from disk (``sync_interval: always``).

One publisher encodes and publishes with 32 frames in flight; the peer is the same broker with its default,
which acknowledges before the disk. Prints one JSON line. It publishes as the role edge, held to its
rights; the owner, whom nothing holds, tells what they cost.

    python bench/log.py --samples 20000000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from headrace.bus import envelope
from headrace.bus.broker import prepare_address, start_broker, stop_broker
from headrace.bus.client import ensure_streams, open_bus
from headrace.bus.subjects import Subjects
from headrace.model.folder import DataFolder
from peers import FRAME_ROWS, frames

IN_FLIGHT = 32
POOL_FRAMES = 50


def measure(sync_interval: str, samples: int, *, owner: bool = False) -> tuple[float, float]:
    """Samples a second into the log: with encoding, and of encoded frames."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = DataFolder(Path(temporary) / "data")
        address = prepare_address(folder)
        broker = start_broker(folder, address, sync_interval=sync_interval)
        try:
            pool = list(frames(2_000, POOL_FRAMES * FRAME_ROWS))
            bodies = [envelope.encode(batch) for batch in pool]

            async def publish(encoded: bool, epoch: int) -> float:
                limit = asyncio.Semaphore(IN_FLIGHT)
                subject = Subjects("bench", "log").batch("edge", "bench")
                user = address if owner else address.as_role("edge")
                async with open_bus(user, "bench") as bus, asyncio.TaskGroup() as tasks:
                    await ensure_streams(bus)
                    begin_s = time.perf_counter()

                    async def send(body: bytes, number: int) -> None:
                        headers = envelope.headers("edge", "bench", epoch, number, FRAME_ROWS)
                        await bus.publish_frame(subject, body, headers)
                        limit.release()

                    for number in range(samples // FRAME_ROWS):
                        at = number % POOL_FRAMES
                        body = bodies[at] if encoded else envelope.encode(pool[at])
                        await limit.acquire()
                        tasks.create_task(send(body, number))
                    for _ in range(IN_FLIGHT):
                        await limit.acquire()
                    return time.perf_counter() - begin_s

            return samples / asyncio.run(publish(False, 1)), samples / asyncio.run(publish(True, 2))
        finally:
            stop_broker(broker)


def main(samples: int) -> None:
    load = os.getloadavg()[0]
    ours, ours_ready = measure("always", samples)
    _, unheld_ready = measure("always", samples, owner=True)
    peer, _ = measure("2m", samples)
    line = {
        "name": "log",
        "unit": "samples/s, encoded and acknowledged from disk",
        "ours": round(ours),
        "peer": round(peer),
        "peer_name": "the same broker acknowledging before the disk",
        "ratio": round(ours / peer, 2),
        "frames_encoded_before": round(ours_ready),
        "frames_encoded_before_without_rights": round(unheld_ready),
        "load_before": round(load, 1),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20_000_000)
    main(parser.parse_args().samples)
