"""Queries through our Python reader, warm: one tag's hour, 30 days as 1,000 points, last of 1,000 tags.

The table is filled by the historian's own commits and compacted as the historian would; each peer holds the
same samples, clustered by tag and time. Prints one JSON line; times are medians in milliseconds.

    python bench/query.py --tags 500 --days 30 --step-s 60
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import polars as pl

from headrace.historian.commit import Chunk, Committer
from headrace.historian.compaction import Compactor
from headrace.historian.reader import Reader
from headrace.historian.table import open_table
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock, SystemClock
from peers import START_US, ChDb, Duck, frames, optional, rounded, timed

BATCH_ROWS = 1_000_000
HOUR_US = 3_600_000_000
POINTS = 1_000
REPEATS = 9
Queries = dict[str, Callable[[], object]]


class Filled:
    """The samples in our table and in every peer that is installed."""

    def __init__(self, work: Path, tags: int, samples: int, step_us: int) -> None:
        self.folder = DataFolder(work / "data")
        self.folder.root.mkdir()
        clock = SystemClock()
        self._table = open_table(self.folder.table, clock)
        self._committer = Committer(self._table, work / "quarantine", clock)
        self.peers: dict[str, Duck | ChDb] = {}
        self.skipped: dict[str, str] = {}
        for name, kind in (("duckdb", Duck), ("chdb", ChDb)):
            module = optional(name)
            if isinstance(module, str):
                self.skipped[name] = module
            else:
                self.peers[name] = kind(module, work / name)
        self._fill(tags, samples, step_us)
        tomorrow = ManualClock(clock.now_us() + 86_400_000_000)  # closes what is over
        compactor = Compactor(self._table, tomorrow)
        while compactor.step():
            pass
        for peer in self.peers.values():
            peer.cluster()

    def _fill(self, tags: int, samples: int, step_us: int) -> None:
        waiting: list[pl.DataFrame] = []
        rows = sequence = 0
        for batch in frames(tags, samples, step_us=step_us):
            waiting.append(batch)
            rows += batch.height
            if rows < BATCH_ROWS:
                continue
            chunk = Chunk(sequence)
            for one in waiting:
                sequence += 1
                chunk.take(sequence, one, 0, 0.0)
            self._committer.commit(chunk, "bench")
            joined = pl.concat(waiting, rechunk=True)
            for peer in self.peers.values():
                peer.insert(joined)
            waiting, rows = [], 0


def ours(reader: Reader, tag: int, middle_us: int, end_us: int, tags: list[int]) -> Queries:
    return {
        "hour_raw": lambda: reader.read([tag], middle_us, middle_us + HOUR_US),
        "trend_1000_points": lambda: reader.downsample(tag, START_US, end_us, POINTS),
        "last_of_tags": lambda: reader.last(tags),
    }


def of_peer(peer: Duck | ChDb, tag: int, middle_us: int, end_us: int, tags: int) -> Queries:
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


def measured(queries: Queries) -> dict[str, float]:
    for query in queries.values():
        query()
    return {name: timed(query, REPEATS) * 1e3 for name, query in queries.items()}


def run(tags: int, days: float, step_s: int) -> dict[str, object]:
    step_us = step_s * 1_000_000
    samples = int(days * 86_400 / step_s) * tags
    end_us = START_US + int(days * 86_400_000_000)
    middle_us = START_US + (end_us - START_US) // 2
    with tempfile.TemporaryDirectory() as temporary:
        filled = Filled(Path(temporary), tags, samples, step_us)
        reader = Reader(filled.folder.table)
        wanted = list(range(1, min(tags, 1_000) + 1))
        cold_ms = timed(lambda: Reader(filled.folder.table).last(wanted)) * 1e3
        figures = measured(ours(reader, tags // 2, middle_us, end_us, wanted))
        peers = {
            name: measured(of_peer(peer, tags // 2, middle_us, end_us, len(wanted)))
            for name, peer in filled.peers.items()
        }
        files = len(reader.view().snapshot.files)
        for peer in filled.peers.values():
            peer.close()
    ratio = {
        name: {query: took / figures[query] for query, took in of.items()}
        for name, of in peers.items()
    }
    return {
        "name": "query",
        "unit": "ms",
        "ours": rounded(figures),
        "peer": rounded(
            {**peers, **{name: {"skipped": why} for name, why in filled.skipped.items()}}
        ),
        "ratio": rounded(ratio),
        "ratio_means": "peer's time over ours: above 1 we are faster",
        "last_of_tags_cold_ms": rounded(cold_ms),
        "samples": samples,
        "tags": tags,
        "files": files,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tags", type=int, default=500)
    parser.add_argument("--days", type=float, default=30)
    parser.add_argument("--step-s", type=int, default=60)
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.tags, arguments.days, arguments.step_s)))
