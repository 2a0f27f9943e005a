"""The log as the runtime reads it for its apps: CPU of a second of input, with one app and with ten.

The edge is a process that publishes frames of 1,000 samples of 5,000 tags; this process is the runtime's
reading alone, without the processes of apps: each app reads 20 tags. ``--alone`` lets each read the log for
itself, as it was before; both must give the same rows. Prints a JSON line for each number of apps: CPU seconds
of this process for 100,000 samples of input, and those of the broker.

    python bench/app_log.py
    python bench/app_log.py --alone
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from headrace.apps.runtime.tail import Reading, Tail
from headrace.bus import envelope
from headrace.bus.broker import load_address, prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.log import log_info
from headrace.bus.subjects import Subjects
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.tasks import end_tasks
from headrace.model.time import SystemClock

FRAME_ROWS = 1_000
TAGS = 5_000
APP_TAGS = 20
FRAMES_PER_S = 20
SUBJECTS = Subjects("bench", "apps")


async def feed(bus: Bus, frames: int) -> None:
    """Publish frames at a steady pace; every run has the same ones."""
    rng = np.random.default_rng(7)
    begun_s = time.monotonic()
    for number in range(frames):
        tags = (np.arange(FRAME_ROWS) + number * FRAME_ROWS) % TAGS
        at = np.full(FRAME_ROWS, 1_700_000_000_000_000 + number * 50_000)
        values = rng.normal(size=FRAME_ROWS)
        batch = make_batch(tags, at, values, received_timestamp_us=number)
        made = envelope.headers("local", "plc_1", 1, number + 1, FRAME_ROWS)
        await bus.publish_frame(SUBJECTS.batch("local", "plc_1"), envelope.encode(batch), made)
        await asyncio.sleep(max(0.0, begun_s + (number + 1) / FRAMES_PER_S - time.monotonic()))


async def follow(reading: Reading, until: int) -> str:
    """Read up to a message; gives a digest of the rows."""
    at, digest = 0, hashlib.sha256()
    while at < until:
        part = await reading.next(16)
        at = part.sequence or at
        for rows in part.rows:
            digest.update(rows.select("tag_id", "source_timestamp", "value").to_numpy().tobytes())
    return digest.hexdigest()


async def measure(folder: DataFolder, apps: int, seconds: int, is_alone: bool) -> dict[str, object]:
    """One run with so many apps, on a broker of its own."""
    address = prepare_address(folder)
    broker = start_broker(folder, address)
    try:
        async with open_bus(address, "bench") as bus:
            await ensure_streams(bus)
            tail = Tail(bus, SystemClock())
            reading_task = asyncio.create_task(tail.run())
            after = (await log_info(bus)).last_sequence
            frames = seconds * FRAMES_PER_S
            readings = [
                Reading(bus, SystemClock(), None if is_alone else tail, _tags(n), after)
                for n in range(apps)
            ]
            feeder = await asyncio.create_subprocess_exec(
                *(sys.executable, __file__, "--feed", str(frames), "--folder", str(folder.root))
            )
            own, server = psutil.Process(), psutil.Process(broker.pid)
            before, served = sum(own.cpu_times()[:2]), sum(server.cpu_times()[:2])
            digests = await asyncio.gather(*(follow(each, after + frames) for each in readings))
            used, served = (
                sum(own.cpu_times()[:2]) - before,
                sum(server.cpu_times()[:2]) - served,
            )
            await feeder.wait()
            for each in readings:
                await each.close()
            await end_tasks(reading_task)
    finally:
        stop_broker(broker)
    scale = 100_000 / (frames * FRAME_ROWS)
    return {
        "apps": apps,
        "reading": "each alone" if is_alone else "once for all",
        "cpu_s": round(used * scale, 3),
        "broker_cpu_s": round(served * scale, 3),
        "rows": hashlib.sha256("".join(digests).encode()).hexdigest()[:12],
    }


def _tags(app: int) -> np.ndarray:
    return np.arange(app * APP_TAGS, (app + 1) * APP_TAGS, dtype=np.int64)


async def _feed(root: Path, frames: int) -> None:
    async with open_bus(load_address(DataFolder(root)), "feed") as bus:
        await feed(bus, frames)


def main() -> None:
    """Measure, or feed as the child of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--feed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.feed:
        asyncio.run(_feed(given.folder, given.feed))
        return
    for apps in (1, 10):
        with tempfile.TemporaryDirectory() as root:
            folder = DataFolder(Path(root) / "data")
            result = asyncio.run(measure(folder, apps, given.seconds, given.alone))
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
