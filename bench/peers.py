"""What the historian's benches share: the data, and peers that take the same data in the same run.

Peers are optional installs (``pip install duckdb chdb``); one that is missing is left out with the reason.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from headrace.model.sample import make_batch

FRAME_ROWS = 10_000
START_US = 1_760_000_000_000_000
STEP_US = 1_000_000
CHDB_TABLE = """
CREATE TABLE {name} (
    tag_id Int64 CODEC(DoubleDelta, ZSTD(1)),
    source_timestamp DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    value Nullable(Float64) CODEC(Gorilla, ZSTD(1)),
    text Nullable(String),
    status UInt32 CODEC(ZSTD(1)),
    received_timestamp DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1))
) ENGINE = MergeTree ORDER BY (tag_id, source_timestamp)
"""


def frames(
    tags: int, samples: int, seed: int = 1, step_us: int = STEP_US
) -> Iterator[pl.DataFrame]:
    """Frames of 10,000 samples in order of arrival: every tag once a step.

    A third are set-points, a third 12-bit readings, a third full-precision random walks, as in a plant.
    """
    rng = np.random.default_rng(seed)
    ids = np.arange(1, tags + 1, dtype=np.int64)
    level = rng.uniform(10, 100, tags)
    kind = ids % 3
    made = 0
    turn = 0
    turns = max(FRAME_ROWS // tags, 1)
    while made < samples:
        walk = np.cumsum(rng.normal(0, 0.05, (turns, tags)), axis=0) + level
        level = walk[-1]
        value = np.where(kind == 0, np.round(walk / 25) * 25, walk)
        value = np.where(kind == 1, np.round(walk * 40.95) / 40.95, value)
        at = START_US + (turn + np.arange(turns)) * step_us
        jitter = rng.integers(0, 400, turns)
        at_us = np.repeat(at + jitter, tags)
        yield make_batch(
            np.tile(ids, turns), at_us, value.ravel(), received_timestamp_us=at_us + 1_200
        )
        made += turns * tags
        turn += turns


def timed(work: Callable[[], Any], repeats: int = 1) -> float:
    """Median seconds of a call."""
    taken = []
    for _ in range(repeats):
        begin_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin_s)
    return float(np.median(taken))


def optional(name: str) -> Any | str:
    """The module, or why it is left out."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        return f"not installed: {error}"


def rounded(value: object) -> object:
    """Four significant digits, for people."""
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value


def folder_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


class Duck:
    """DuckDB: a table in a file, 1 M samples an insert, each synced."""

    def __init__(self, module: Any, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "peer.duckdb"
        self._connection = module.connect(str(self._path))
        self._connection.execute("SET threads = 2")
        self._connection.execute(
            "CREATE TABLE s (tag_id BIGINT, source_timestamp TIMESTAMPTZ, value DOUBLE, "
            "text VARCHAR, status UINTEGER, received_timestamp TIMESTAMPTZ)"
        )

    def insert(self, batch: pl.DataFrame) -> None:
        self._connection.register("batch", batch.to_arrow(compat_level=pl.CompatLevel.oldest()))
        self._connection.execute("INSERT INTO s SELECT * FROM batch")
        self._connection.unregister("batch")

    def cluster(self) -> None:
        """Sorted by tag and time, as compaction does for us."""
        self._connection.execute(
            "CREATE TABLE t AS SELECT * FROM s ORDER BY tag_id, source_timestamp;"
            "DROP TABLE s; ALTER TABLE t RENAME TO s; CHECKPOINT"
        )

    def query(self, sql: str) -> Any:
        return self._connection.execute(sql).fetchnumpy()

    def stored_bytes(self) -> int:
        self._connection.execute("CHECKPOINT")
        return self._path.stat().st_size

    def close(self) -> None:
        self._connection.close()


class ChDb:
    """chDB: ClickHouse's MergeTree in process, with the codecs that suit samples."""

    def __init__(self, module: Any, folder: Path) -> None:
        self._session = module.session.Session(str(folder))
        self._session.query("CREATE DATABASE IF NOT EXISTS peer")
        self._session.query(CHDB_TABLE.format(name="peer.s"))
        self._parquet = folder.with_suffix(".arrow")

    def insert(self, batch: pl.DataFrame) -> None:
        batch.write_ipc(self._parquet, compat_level=pl.CompatLevel.oldest())
        self._session.query(f"INSERT INTO peer.s SELECT * FROM file('{self._parquet}', Arrow)")

    def cluster(self) -> None:
        self._session.query("OPTIMIZE TABLE peer.s FINAL")

    def query(self, sql: str) -> Any:
        return self._session.query(sql, "Arrow").bytes()

    def stored_bytes(self) -> int:
        sql = "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'peer'"
        return int(str(self._session.query(sql)))

    def close(self) -> None:
        self._session.close()
        self._parquet.unlink(missing_ok=True)
