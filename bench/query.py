"""Queries through our Python reader, warm: one tag's hour, 30 days as 1,000 points, last of 1,000 tags.

The table is filled by the historian's own commits and compacted as the historian would; each peer holds the
same samples, clustered by tag and time. Prints one JSON line; times are medians in milliseconds.

    python bench/query.py --tags 500 --days 30 --step-s 60
    python bench/query.py --tags 2000 --step-s 25.92 --keep ~/.cache/headrace-bench/query-200m
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import polars as pl

from headrace.historian.commit import Chunk, Committer
from headrace.historian.compaction import Compactor
from headrace.historian.last import LastKeeper
from headrace.historian.reader import Reader
from headrace.historian.table import open_table
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock, SystemClock
from peers import (
    LINE_SERVERS,
    START_US,
    ChDb,
    Duck,
    LineServer,
    frames,
    lines,
    optional,
    optional_program,
    rounded,
    timed,
)

BATCH_ROWS = 1_000_000
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
LAST_TAGS = 1_000
POINTS = 1_000
REPEATS = 9
Queries = dict[str, Callable[[], object]]


class Ours:
    """The historian's own table, filled by its commits and compacted as it would be."""

    def __init__(self, folder: Path) -> None:
        self.folder = DataFolder(folder)
        self.folder.root.mkdir(parents=True)
        self._clock = SystemClock()
        self._table = open_table(self.folder.table, self._clock)
        self._committer = Committer(self._table, folder / "quarantine", self._clock)
        self._sequence = 0

    def insert(self, batch: pl.DataFrame) -> None:
        chunk = Chunk(self._sequence)
        self._sequence += 1
        chunk.take(self._sequence, batch, 0, 0.0)
        self._committer.commit(chunk, "bench")

    def cluster(self) -> None:
        for days in (2, 4, 6):  # a merged file waits for a day before it is closed
            later = ManualClock(self._clock.now_us() + days * DAY_US)
            compactor = Compactor(self._table, later)
            while compactor.step():
                pass
        keeper = LastKeeper(self._table, self._clock)
        while keeper.step():
            pass

    def close(self) -> None:
        """Nothing is open."""


class Victoria:
    """VictoriaMetrics, filled by the line protocol."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.server = LineServer("victoriametrics", program, folder)

    def insert(self, batch: pl.DataFrame) -> None:
        self.server.insert(lines(batch))

    def cluster(self) -> None:
        self.server.settled_bytes()

    def query(self, path: str) -> object:
        return self.server.query(path)

    def close(self) -> None:
        self.server.close()


Peer = Duck | ChDb | Victoria


def open_peer(name: str, folder: Path) -> Peer | str:
    """A peer with its data in ``folder``; or why it is left out."""
    if name == "victoriametrics":
        program = optional_program(*LINE_SERVERS[name])
        return program if isinstance(program, str) else Victoria(program, folder)
    module = optional(name)
    if isinstance(module, str):
        return module
    return Duck(module, folder) if name == "duckdb" else ChDb(module, folder)


def fill(engine: Ours | Peer, tags: int, samples: int, step_us: int) -> None:
    """Insert the samples 1 M at a time, in order of arrival; then let the engine tidy up."""
    waiting: list[pl.DataFrame] = []
    rows = 0
    for batch in frames(tags, samples, step_us=step_us):
        waiting.append(batch)
        rows += batch.height
        if rows >= BATCH_ROWS:
            engine.insert(pl.concat(waiting, rechunk=True))
            waiting, rows = [], 0
    if waiting:
        engine.insert(pl.concat(waiting, rechunk=True))
    engine.cluster()


def make(name: str, work: Path, tags: int, samples: int, step_us: int) -> str:
    """Fill one engine unless it was filled before; gives why not, or nothing."""
    folder = work / name
    mark = work / f"{name}.filled"
    if mark.exists():
        return ""
    engine = Ours(folder) if name == "headrace" else open_peer(name, folder)
    if isinstance(engine, str):
        return engine
    fill(engine, tags, samples, step_us)
    engine.close()
    mark.touch()
    return ""


def ours(reader: Reader, tag: int, middle_us: int, end_us: int, tags: list[int]) -> Queries:
    return {
        "hour_raw": lambda: reader.read([tag], middle_us, middle_us + HOUR_US),
        "trend_1000_points": lambda: reader.downsample(tag, START_US, end_us, POINTS),
        "last_of_tags": lambda: reader.last(tags),
    }


def of_peer(peer: Peer, tag: int, middle_us: int, end_us: int, tags: int) -> Queries:
    if isinstance(peer, Victoria):
        return of_victoria(peer, tag, middle_us, end_us)
    duck = isinstance(peer, Duck)
    table = "s" if duck else "peer.s"
    at = "make_timestamptz({})" if duck else "fromUnixTimestamp64Micro({})"
    number = "epoch_us(source_timestamp)" if duck else "toUnixTimestamp64Micro(source_timestamp)"
    divide = "//" if duck else "DIV"
    last = "arg_max" if duck else "argMax"
    width = (end_us - START_US) // POINTS
    span = f"source_timestamp >= {at} AND source_timestamp < {at}"
    hour = span.format(middle_us, middle_us + HOUR_US)
    return {
        "hour_raw": lambda: peer.query(
            f"SELECT source_timestamp, value, status FROM {table} WHERE tag_id = {tag} AND {hour} "
            "ORDER BY source_timestamp"
        ),
        "trend_1000_points": lambda: peer.query(
            f"SELECT ({number} - {START_US}) {divide} {width} AS b, min(value), max(value), count(*) "
            f"FROM {table} WHERE tag_id = {tag} GROUP BY b ORDER BY b"
        ),
        "last_of_tags": lambda: peer.query(
            f"SELECT tag_id, {last}(value, source_timestamp) FROM {table} WHERE tag_id <= {tags} "
            "GROUP BY tag_id"
        ),
    }


def of_victoria(peer: Victoria, tag: int, middle_us: int, end_us: int) -> Queries:
    """Value and time only, as JSON over HTTP; a trend with minimum and maximum takes two requests."""
    name = f'{{__name__="s_v",tag="{tag}"}}'
    step_s = (end_us - START_US) / POINTS / 1e6
    span = f"start={middle_us / 1e6}&end={(middle_us + HOUR_US) / 1e6}"
    export = f"/api/v1/export?match[]={quote(name)}&{span}"
    whole = f"start={START_US / 1e6 + step_s}&end={end_us / 1e6}&step={step_s}&nocache=1"
    trends = [
        f"/api/v1/query_range?{whole}&query={quote(f'{kind}_over_time({name}[{step_s}s])')}"
        for kind in ("min", "max")
    ]
    return {
        "hour_raw": lambda: peer.query(export),
        "trend_1000_points": lambda: [peer.query(path) for path in trends],
    }


def measured(queries: Queries) -> dict[str, float]:
    for query in queries.values():
        query()
    return {name: timed(query, REPEATS) * 1e3 for name, query in queries.items()}


def run(work: Path, names: list[str], tags: int, days: float, step_us: int) -> dict[str, object]:
    samples = int(days * DAY_US / step_us) * tags
    end_us = START_US + int(days * DAY_US)
    middle_us = START_US + (end_us - START_US) // 2
    skipped = {
        name: {"skipped": why}
        for name in ["headrace", *names]
        if (why := make(name, work, tags, samples, step_us))
    }
    table = DataFolder(work / "headrace").table
    wanted = list(range(1, min(tags, LAST_TAGS) + 1))
    cold_ms = timed(lambda: Reader(table).last(wanted), 3) * 1e3
    reader = Reader(table)
    tag = tags // 2
    figures = measured(ours(reader, tag, middle_us, end_us, wanted))
    peers = {}
    for name in names:
        if name not in skipped:
            peer = open_peer(name, work / name)
            assert not isinstance(peer, str), "it was filled"
            peers[name] = measured(of_peer(peer, tag, middle_us, end_us, len(wanted)))
            peer.close()
    snapshot = reader.view().snapshot
    return {
        "name": "query",
        "unit": "ms",
        "ours": rounded(figures),
        "peer": rounded({**peers, **skipped}),
        "ratio": rounded(
            {
                name: {query: took / figures[query] for query, took in of.items()}
                for name, of in peers.items()
            }
        ),
        "ratio_means": "peer's time over ours: above 1 we are faster",
        "last_of_tags_cold_ms": rounded(cold_ms),
        "samples": snapshot.rows,
        "tags": tags,
        "files": len(snapshot.files),
        "bytes_per_sample": rounded(snapshot.bytes / snapshot.rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tags", type=int, default=500)
    parser.add_argument("--days", type=float, default=30)
    parser.add_argument("--step-s", type=float, default=60)
    parser.add_argument("--peers", default="duckdb,chdb,victoriametrics")
    parser.add_argument(
        "--keep", type=Path, help="folder in which the tables stay for the next run"
    )
    parser.add_argument("--make", help="only fill this engine's table in --keep")
    given = parser.parse_args()
    step_us = int(given.step_s * 1e6)
    if given.keep and given.make:
        given.keep.mkdir(parents=True, exist_ok=True)
        samples = int(given.days * DAY_US / step_us) * given.tags
        begin_s = time.perf_counter()
        why = make(given.make, given.keep, given.tags, samples, step_us)
        print(json.dumps({"made": given.make, "s": time.perf_counter() - begin_s, "why": why}))
        return
    names = [name for name in given.peers.split(",") if name]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        work = given.keep or Path(temporary)
        line = run(work, names, given.tags, given.days, step_us)
    print(json.dumps(line | {"load_before": round(load, 1)}))


if __name__ == "__main__":
    main()
