"""Back-fill: one formula with a sliding window of an hour over years of samples, on all cores.

``ours`` is table to frames that are ready for the log, kept in a file; the peer writes the same results from
the same Parquet files with a window function of SQL. Both results are compared. ``through_the_log`` is the
whole way of a part of it: evaluated, published on the log, and stored by a historian beside it.

    python bench/backfill.py --tags 100 --samples 100000000 --keep FOLDER
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from headrace.bus import envelope
from headrace.bus.broker import prepare_address, start_broker, stop_broker
from headrace.bus.client import ensure_streams, open_bus
from headrace.bus.subjects import Subjects
from headrace.historian import role
from headrace.historian.backfill import Backfill
from headrace.historian.backfill_parts import Done, Source, formula_of, make_parts, run_part
from headrace.historian.commit import Chunk, Committer
from headrace.historian.compaction import DAY_US, Compactor
from headrace.historian.pools import LocalPool
from headrace.historian.reader import Reader, open_reader
from headrace.historian.table import open_table
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig, FormulaConfig
from headrace.model.time import ManualClock, SystemClock
from peers import START_US, frames, optional

COMMIT_ROWS = 4_000_000
WINDOW_S = 3600
CLOSE_RATIO = 1e-9
HEAD_BYTES = 8


def fill(folder: DataFolder, tags: int, samples: int) -> None:
    """A table of closed files, as history is after a day."""
    clock = ManualClock(START_US)
    table = open_table(folder.table, clock)
    committer = Committer(table, folder.root / "quarantine", clock)
    held: list[pl.DataFrame] = []
    sequence = 0
    for frame in frames(tags, samples):
        held.append(frame)
        if sum(each.height for each in held) >= COMMIT_ROWS:
            sequence = _commit(committer, held, sequence)
            held = []
    if held:
        _commit(committer, held, sequence)
    compactor = Compactor(table, ManualClock(START_US + 400 * DAY_US))
    while compactor.step():
        pass
    table.vacuum(0)


def _commit(committer: Committer, held: list[pl.DataFrame], sequence: int) -> int:
    chunk = Chunk(sequence)
    chunk.take(sequence + 1, pl.concat(held), 100, 0.0)
    committer.commit(chunk, "headrace/SAMPLES/1")
    return sequence + 1


def config_of(tags: int, text: str, outputs_from: int = 0) -> AppsConfig:
    pump = AssetTypeConfig(name="pump", quantities={"flow": "m3/h"})
    assets = tuple(
        AssetConfig(
            path=f"hall/p{n}",
            type="pump",
            tags={"flow": n},
            outputs={"load": (outputs_from or tags) + n},
        )
        for n in range(1, tags + 1)
    )
    formula = FormulaConfig(asset_type="pump", name="load", text=text)
    return AppsConfig(
        enterprise="bench", site="mill", types=(pump,), assets=assets, formulas=(formula,)
    )


def ours(folder: DataFolder, config: AppsConfig, cores: int, out: Path) -> dict[str, Any]:
    """Table to frames; time runs from the call to the last frame, processes start before it."""
    reader = Reader(folder.table)
    bound = formula_of(config, "pump.load")
    assert bound is not None
    pool = LocalPool(cores)
    for each in [pool.submit(pl.thread_pool_size) for _ in range(4 * cores)]:
        each.result()
    begin_s = time.perf_counter()
    bounds = reader.bounds()
    assert bounds is not None
    parts = make_parts(reader, bound, bounds[0], bounds[1] + 1)
    planned_s = time.perf_counter() - begin_s
    source = Source(folder.root, (), msgspec.json.encode(config), "pump.load", START_US)
    waiting, running = deque(parts), deque[Future[Done]]()
    samples = results = 0
    with out.open("wb") as handle:
        while waiting or running:
            while waiting and len(running) <= cores:
                running.append(pool.submit(run_part, source, waiting.popleft()))
            done = running.popleft().result()
            samples, results = samples + done.samples, results + done.results
            for _, body in done.frames:
                handle.write(len(body).to_bytes(HEAD_BYTES, "little") + body)
    took_s = time.perf_counter() - begin_s
    pool.close()
    return {
        "samples_per_s": round(samples / took_s),
        "s": round(took_s, 2),
        "planning_s": round(planned_s, 2),
        "parts": len(parts),
        "samples": samples,
        "results": results,
    }


def sums_of_frames(path: Path, tags: int) -> pl.DataFrame:
    """Results and their sum by tag."""
    found = []
    with path.open("rb") as handle:
        while head := handle.read(HEAD_BYTES):
            frame = envelope.decode(handle.read(int.from_bytes(head, "little")))
            found.append(frame.group_by("tag_id").agg(pl.len(), pl.col("value").sum()))
    whole = pl.concat(found).group_by("tag_id").agg(pl.all().sum()).sort("tag_id")
    return whole.with_columns(pl.col("tag_id") - tags)


def of_duckdb(duckdb: Any, folder: DataFolder, cores: int, out: Path, work: Path) -> float:
    """Seconds of the same in SQL."""
    reader = Reader(folder.table)
    files = [str(folder.table / file.path) for file in reader.view().snapshot.files]
    connection = duckdb.connect(
        config={"threads": cores, "temp_directory": str(work / "duckdb-temporary")}
    )
    window = f"INTERVAL '{WINDOW_S - 1}.999999 seconds'"
    begin_s = time.perf_counter()
    connection.execute(
        f"COPY (SELECT tag_id, source_timestamp, avg(value) OVER (PARTITION BY tag_id "
        f"ORDER BY source_timestamp RANGE BETWEEN {window} PRECEDING AND CURRENT ROW) AS value "
        f"FROM read_parquet({files!r})) TO '{out}' (FORMAT parquet, COMPRESSION lz4)"
    )
    took_s = time.perf_counter() - begin_s
    connection.close()
    return took_s


def difference(frames_path: Path, peer: Path, tags: int) -> float:
    """The largest relative difference of the sum of a tag's results; their numbers must be the same."""
    mine = sums_of_frames(frames_path, tags)
    theirs = (
        pl.scan_parquet(peer)
        .group_by("tag_id")
        .agg(pl.len(), pl.col("value").sum())
        .sort("tag_id")
        .collect()
    )
    if mine["len"].to_list() != theirs["len"].to_list():
        raise SystemExit("the results are not as many as the peer's")
    one, other = mine["value"].to_numpy(), theirs["value"].to_numpy()
    return float(np.max(np.abs(one / other - 1)))


async def through_the_log(
    folder: DataFolder, config: AppsConfig, cores: int, span: tuple[int, int]
) -> dict[str, Any]:
    """Samples a second from the call until a reader has all results."""
    address = prepare_address(folder)
    broker = start_broker(folder, address)
    stop = asyncio.Event()
    subjects = Subjects("bench", "mill")
    try:
        async with open_bus(address, "bench") as bus:
            await ensure_streams(bus)
            historian = asyncio.create_task(role.run(folder, address, subjects, stop))
            pool = LocalPool(cores)
            async with open_reader(folder, bus) as reader:
                begin_s = time.perf_counter()
                work = Backfill(folder, bus, config, SystemClock())
                made = await work.run(reader, "pump.load", pool, span=span)
                logged_s = time.perf_counter() - begin_s
                await reader.catch_up(300)
                took_s = time.perf_counter() - begin_s
            pool.close()
            stop.set()
            await historian
    finally:
        stop_broker(broker)
    return {
        "samples_per_s": round(made.samples / took_s),
        "s": round(took_s, 2),
        "until_logged_s": round(logged_s, 2),
        "samples": made.samples,
        "results": made.results,
    }


def run(work: Path, tags: int, samples: int, cores: int) -> dict[str, Any]:
    folder = DataFolder(work / "headrace")
    if not (work / "filled").exists():
        fill(folder, tags, samples)
        (work / "filled").touch()
    config = config_of(tags, "load = mean(flow, 1 h)")
    out, peer_out = work / "results.frames", work / "results.parquet"
    figures = ours(folder, config, cores, out)
    duckdb = optional("duckdb")
    line: dict[str, Any] = {"name": "backfill", "unit": "samples/s", "ours": figures}
    if isinstance(duckdb, str):
        line |= {"peer": {"skipped": duckdb}, "ratio": None}
    else:
        peer_s = of_duckdb(duckdb, folder, cores, peer_out, work)
        apart = difference(out, peer_out, tags)
        if apart > CLOSE_RATIO:
            raise SystemExit(f"the results differ from the peer's by {apart:g} of their value")
        line |= {
            "peer": {"duckdb_samples_per_s": round(figures["samples"] / peer_s), "s": peer_s},
            "ratio": round(peer_s / figures["s"], 2),
            "results_apart": apart,
        }
        peer_out.unlink()
    out.unlink()
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tags", type=int, default=100)
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep", type=Path, help="folder in which the table stays")
    parser.add_argument("--log-share", type=float, default=0.2, help="of the time, for the log")
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        work = given.keep or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        line = run(work, given.tags, given.samples, given.cores)
        if given.log_share:
            folder = DataFolder(work / "headrace")
            low, high = Reader(folder.table).bounds() or (0, 0)
            span = low, low + int((high - low) * given.log_share)
            for number, (name, text) in enumerate(
                (
                    ("every_result", "load = mean(flow, 1 h)"),
                    ("one_an_hour", "load = mean(flow) per hour"),
                ),
                2,
            ):
                config = config_of(given.tags, text, number * given.tags)
                done = asyncio.run(through_the_log(folder, config, given.cores, span))
                line.setdefault("through_the_log", {})[name] = done
    print(json.dumps(line | {"load_before": round(load, 1)}))


if __name__ == "__main__":
    main()
