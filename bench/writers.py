"""Several historians on one table: what a second and a third writer bring over one, from the same full log.

The log is filled over eight connections, then all writers start at once; time runs from the first commit's
folder to the commit that holds the last sample. ``ratio`` is against one writer in the same run. More writers
than cores bring nothing; the broker takes its part of them too. Prints one JSON line.

    python bench/writers.py --samples 20000000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import polars as pl
import psutil

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress, prepare_address, start_broker, stop_broker
from headrace.bus.client import ensure_streams, open_bus
from headrace.bus.subjects import Subjects
from headrace.historian.index import TableIndex
from headrace.historian.partition import slot_of
from headrace.model.folder import DataFolder
from peers import frames

SUBJECTS = Subjects("bench", "writers")
LINES = 8
IN_FLIGHT = 32
HISTORIAN = """
import asyncio, json, pathlib, sys
from headrace.bus.broker import BrokerAddress
from headrace.bus.subjects import Subjects
from headrace.historian.partition import parse_partition
from headrace.historian.role import run
from headrace.model.folder import DataFolder
asyncio.run(run(DataFolder(pathlib.Path(sys.argv[1])), BrokerAddress(**json.loads(sys.argv[2])),
                Subjects("bench", "writers"), asyncio.Event(), partition=parse_partition(sys.argv[3])))
"""


def connections() -> list[str]:
    """Names that fall evenly to two and to four writers."""
    found: list[str] = []
    number = 0
    while len(found) < LINES:
        name = f"plc_{number}"
        number += 1
        if slot_of(SUBJECTS.batch("edge", name)) % LINES == len(found):
            found.append(name)
    return found


async def fill_log(address: BrokerAddress, tags: int, samples: int) -> None:
    """Publish everything, acknowledged from disk; a tag belongs to one connection."""
    names = connections()
    async with open_bus(address, "bench") as bus:
        await ensure_streams(bus)
        limit = asyncio.Semaphore(IN_FLIGHT)

        async def send(name: str, body: bytes, headers: dict[str, str]) -> None:
            try:
                await bus.publish_frame(SUBJECTS.batch("edge", name), body, headers)
            finally:
                limit.release()

        tasks = set()
        for number, batch in enumerate(frames(tags, samples)):
            line = number % LINES
            own = batch.with_columns(pl.col("tag_id") + line * 1_000_000)
            headers = envelope.headers("edge", names[line], 1, number // LINES + 1, own.height)
            await limit.acquire()
            task = asyncio.create_task(send(names[line], envelope.encode(own), headers))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)


def take(
    folder: DataFolder, address: BrokerAddress, samples: int, writers: int
) -> dict[str, float]:
    """Let so many historians take the log."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HISTORIAN, str(folder.root), json.dumps(asdict(address)),
             f"{index}/{writers}"]
        )
        for index in range(writers)
    ]  # fmt: skip
    index = TableIndex(folder.table)
    try:
        while not (folder.table / "_delta_log").exists():
            time.sleep(0.005)
        begin_s = time.perf_counter()
        while index.refresh().rows < samples:
            time.sleep(0.005)
        taken_s = time.perf_counter() - begin_s
        cpu_s = sum(sum(psutil.Process(p.pid).cpu_times()[:2]) for p in processes)
        rss = sum(psutil.Process(p.pid).memory_info().rss for p in processes)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    return {
        "samples_per_s": round(samples / taken_s),
        "cpu_s_per_million": round(cpu_s / samples * 1e6, 3),
        "rss_mb": round(rss / 1e6),
        "versions": index.snapshot.version,
    }


def measure(writers: int, tags: int, samples: int) -> dict[str, float]:
    """A fresh log and a fresh table."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as root:
        folder = DataFolder(Path(root))
        address = prepare_address(folder)
        broker = start_broker(folder, address)
        try:
            asyncio.run(fill_log(address, tags, samples))
            return take(folder, address, samples, writers)
        finally:
            stop_broker(broker)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--tags", type=int, default=2_000)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    found = {count: measure(count, options.tags, options.samples) for count in options.writers}
    one = found[options.writers[0]]["samples_per_s"]
    print(
        json.dumps(
            {
                "name": "writers",
                "unit": "samples/s",
                "samples": options.samples,
                "cores": os.cpu_count(),
                "load": round(os.getloadavg()[0], 1),
                "ratio": {n: round(each["samples_per_s"] / one, 2) for n, each in found.items()},
                "ours": found,
            }
        )
    )


if __name__ == "__main__":
    main()
