"""Ingest: from messages in the broker's log on disk to a committed, synced, queryable table.

The log is filled first; then a historian process takes it all. Time runs from its start of writing to
the commit that holds the last sample: fetching, decoding, sorting, de-duplication, Parquet, fsync and the
Delta commit, with the broker on the same machine. Peers insert the same samples from memory in 1 M batches,
without any log before them. Prints one JSON line.

    python bench/ingest.py --samples 20000000 --tags 2000
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
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import polars as pl
import psutil

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress, prepare_address, start_broker, stop_broker
from headrace.bus.client import ensure_streams, open_bus
from headrace.bus.subjects import Subjects
from headrace.historian.compaction import Compactor
from headrace.historian.index import TableIndex
from headrace.historian.layout import sort_unique, write_file
from headrace.historian.table import Table, open_table
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock, SystemClock
from peers import (
    FRAME_ROWS,
    LINE_SERVERS,
    ChDb,
    Duck,
    LineServer,
    Postgres,
    folder_bytes,
    frames,
    lines,
    optional,
    optional_program,
    rounded,
    timed,
)

SUBJECTS = Subjects("bench", "ingest")
IN_FLIGHT = 32
STEP = timedelta(seconds=1)
BATCH_ROWS = 1_000_000
LINE_SAMPLES = 4_000_000
POSTGRES_SAMPLES = 4_000_000
CYCLE_FRAMES = 200
HISTORIAN = """
import asyncio, json, pathlib, sys
from headrace.bus.broker import BrokerAddress
from headrace.bus.subjects import Subjects
from headrace.historian.role import run
from headrace.model.folder import DataFolder
asyncio.run(run(DataFolder(pathlib.Path(sys.argv[1])), BrokerAddress(**json.loads(sys.argv[2])),
                Subjects("bench", "ingest"), asyncio.Event()))
"""


async def fill_log(address: BrokerAddress, tags: int, samples: int) -> tuple[int, float]:
    """Publish everything, acknowledged from disk; gives messages and samples/s."""
    begin_s = time.perf_counter()
    async with open_bus(address, "bench") as bus:
        await ensure_streams(bus)
        limit = asyncio.Semaphore(IN_FLIGHT)
        subject = SUBJECTS.batch("edge", "bench")

        async def send(body: bytes, headers: dict[str, str]) -> None:
            try:
                await bus.publish_frame(subject, body, headers)
            finally:
                limit.release()

        tasks = set()
        sequence = 0
        for batch in frames(tags, samples):
            sequence += 1
            body = envelope.encode(batch)
            await limit.acquire()
            headers = envelope.headers("edge", "bench", 1, sequence, batch.height)
            task = asyncio.create_task(send(body, headers))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
    return sequence, samples / (time.perf_counter() - begin_s)


def ours(folder: DataFolder, address: BrokerAddress, samples: int) -> dict[str, float]:
    """Let a historian process take the log."""
    process = subprocess.Popen([sys.executable, "-c", HISTORIAN, str(folder.root),
                                json.dumps(asdict(address))])  # fmt: skip
    index = TableIndex(folder.table)
    try:
        while not (folder.table / "_delta_log").exists():
            time.sleep(0.005)
        begin_s = time.perf_counter()
        while index.refresh().rows < samples:
            time.sleep(0.005)
        taken_s = time.perf_counter() - begin_s
        usage = psutil.Process(process.pid)
        cpu = sum(usage.cpu_times()[:2])
        peak = usage.memory_info().rss
    finally:
        process.terminate()
        process.wait()
    return {
        "samples_per_s": samples / taken_s,
        "cpu_s_per_million": cpu / samples * 1e6,
        "rss_mb": peak / 1e6,
        "files": len(index.snapshot.files),
    }


def batches(tags: int, samples: int) -> Iterator[pl.DataFrame]:
    """The same samples in batches of 1 M, as they arrive."""
    waiting: list[pl.DataFrame] = []
    rows = 0
    for batch in frames(tags, samples):
        waiting.append(batch)
        rows += batch.height
        if rows >= BATCH_ROWS:
            yield pl.concat(waiting, rechunk=True)
            waiting, rows = [], 0
    if waiting:
        yield pl.concat(waiting, rechunk=True)


def sorted_parquet(work: Path, tags: int, samples: int) -> dict[str, float]:
    """Sorted, synced Parquet files with no log and no commit: what the disk format alone costs."""
    folder = work / "parquet"
    folder.mkdir()
    spent = 0.0
    for number, batch in enumerate(batches(tags, samples)):
        name = f"part-{number:020d}-0000.parquet"
        spent += timed(lambda b=batch, n=name: write_file(folder, n, sort_unique(b), 0))
    return {
        "samples_per_s": samples / spent,
        "bytes_per_sample": folder_bytes(folder) / samples,
    }


def peer(kind: type[Duck] | type[ChDb], module: str, work: Path, tags: int, samples: int) -> object:
    found = optional(module)
    if isinstance(found, str):
        return {"skipped": found}
    engine = kind(found, work / module)
    spent = sum(timed(lambda b=batch: engine.insert(b)) for batch in batches(tags, samples))
    size = engine.stored_bytes()
    engine.close()
    return {"samples_per_s": samples / spent, "bytes_per_sample": size / samples}


def line_peer(name: str, work: Path, tags: int, samples: int) -> dict[str, object]:
    """A server with the line protocol; it is sent the text ready-made, only the answers are timed."""
    program = optional_program(*LINE_SERVERS[name])
    if isinstance(program, str):
        return {"skipped": program}
    server = LineServer(name, program, work / name)
    try:
        spent = 0.0
        for batch in batches(tags, samples):
            requests = lines(batch)
            spent += timed(lambda r=requests: server.insert(r))
        size = server.settled_bytes()
    finally:
        server.close()
    return {"samples_per_s": samples / spent, "bytes_per_sample": size / samples}


def postgres_peer(tags: int, samples: int) -> dict[str, object]:
    """Sent binary COPY made before; only the answers are timed, the start of psql among them."""
    why = Postgres.missing()
    if why:
        return {"skipped": why}
    server = Postgres()
    try:
        spent = 0.0
        for batch in batches(tags, samples):
            body = server.encoded(batch)
            spent += timed(lambda b=body: server.insert(b))
        size = server.stored_bytes()
    finally:
        server.close()
    return {"samples_per_s": samples / spent, "bytes_per_sample": size / samples}


async def keep_publishing(address: BrokerAddress, tags: int, seconds: float) -> int:
    """Publish as fast as the log takes it; gives the samples. The same waves, later each cycle."""
    pool = list(frames(tags, CYCLE_FRAMES * FRAME_ROWS))
    step = pool[-1]["source_timestamp"].max() - pool[0]["source_timestamp"].min()
    end_s = time.perf_counter() + seconds
    sent = sequence = 0
    async with open_bus(address, "bench") as bus:
        limit = asyncio.Semaphore(IN_FLIGHT)
        subject = SUBJECTS.batch("edge", "bench")

        async def send(body: bytes, headers: dict[str, str]) -> None:
            try:
                await bus.publish_frame(subject, body, headers)
            finally:
                limit.release()

        tasks = set()
        while time.perf_counter() < end_s:
            cycle, at = divmod(sequence, len(pool))
            times = pl.col("source_timestamp", "received_timestamp") + (step + STEP) * cycle
            batch = pool[at].with_columns(times)
            sequence += 1
            body = envelope.encode(batch)
            await limit.acquire()
            headers = envelope.headers("edge", "bench", 1, sequence, batch.height)
            task = asyncio.create_task(send(body, headers))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += batch.height
        await asyncio.gather(*tasks)
    return sent


def sustained(tags: int, seconds: float) -> dict[str, object]:
    """Publisher, broker and historian at once: what is in the table when the publisher stops."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = DataFolder(Path(temporary) / "data")
        address = prepare_address(folder)
        broker = start_broker(folder, address)
        command = [sys.executable, "-c", HISTORIAN, str(folder.root), json.dumps(asdict(address))]
        process = subprocess.Popen(command)
        index = TableIndex(folder.table)
        try:
            asyncio.run(make_streams(address))
            while not (folder.table / "_delta_log").exists():
                time.sleep(0.005)
            begin_s = time.perf_counter()
            sent = asyncio.run(keep_publishing(address, tags, seconds))
            published_s = time.perf_counter() - begin_s
            at_end = index.refresh().rows
            # The last samples wait for a fuller commit, for at most 20 s; that is not slowness.
            while (stored := index.refresh().rows) < sent - BATCH_ROWS:
                time.sleep(0.01)
            stored_s = time.perf_counter() - begin_s
        finally:
            process.terminate()
            process.wait()
            stop_broker(broker)
    return {
        "seconds": published_s,
        "published_per_s": sent / published_s,
        "stored_per_s": stored / stored_s,
        "behind_at_end_s": stored_s - published_s,
        "stored_at_end_per_s": at_end / published_s,
    }


async def make_streams(address: BrokerAddress) -> None:
    async with open_bus(address, "bench") as bus:
        await ensure_streams(bus)


def compact(table: Table) -> None:
    """Merge and close what is over, as days later."""
    for days in (2, 4, 6):  # a merged file waits for a day before it is closed
        compactor = Compactor(table, ManualClock(SystemClock().now_us() + days * 86_400_000_000))
        while compactor.step():
            pass


def run(tags: int, samples: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        folder = DataFolder(work / "data")
        address = prepare_address(folder)
        broker = start_broker(folder, address)
        try:
            messages, log_rate = asyncio.run(fill_log(address, tags, samples))
            total = messages * (FRAME_ROWS // tags or 1) * tags
            figures = ours(folder, address, total)
        finally:
            stop_broker(broker)
        table = open_table(folder.table, SystemClock())
        figures["bytes_per_sample"] = table.snapshot.bytes / total
        spent = timed(lambda: compact(table))
        figures["compacted_samples_per_s"] = total / spent
        figures["bytes_per_sample_compacted"] = table.snapshot.bytes / total
        peers = {
            "sorted_parquet_no_log": sorted_parquet(work, tags, samples),
            "duckdb": peer(Duck, "duckdb", work, tags, samples),
            "chdb": peer(ChDb, "chdb", work, tags, samples),
            **{
                name: line_peer(name, work, tags, min(samples, LINE_SAMPLES))
                for name in LINE_SERVERS
            },
            "postgresql_btree": postgres_peer(tags, min(samples, POSTGRES_SAMPLES)),
        }
    rates = {name: p["samples_per_s"] for name, p in peers.items() if "samples_per_s" in p}
    return {
        "name": "ingest",
        "unit": "samples/s",
        "ours": round(figures["samples_per_s"]),
        "peer": rounded(peers),
        "ratio": {name: round(figures["samples_per_s"] / rate, 2) for name, rate in rates.items()},
        "samples": total,
        "tags": tags,
        "log_fill_samples_per_s": round(log_rate),
        "detail": rounded(figures),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--tags", type=int, default=2_000)
    parser.add_argument(
        "--sustained", type=float, default=20, help="seconds with a publisher beside"
    )
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    line = run(arguments.tags, arguments.samples)
    line["sustained"] = rounded(sustained(arguments.tags, arguments.sustained))
    print(json.dumps(line | {"load_before": round(load, 1)}))
