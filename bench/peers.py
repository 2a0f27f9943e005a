"""What the historian's benches share: the data, and peers that take the same data in the same run.

A peer that is missing is installed into ``~/.cache/headrace-bench`` when a registry is reachable
(Python packages with pip, servers as unpacked Debian packages); else it is left out with the reason.
Nothing is installed into the system or into Headrace's own environment.
"""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from headrace.model.sample import make_batch

CACHE = Path.home() / ".cache" / "headrace-bench"
INSTALL_S = 240
FRAME_ROWS = 10_000
START_US = 1_760_000_000_000_000
STEP_US = 1_000_000
CHDB_TABLE = """
CREATE TABLE IF NOT EXISTS {name} (
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
    """The module, installed into the cache folder when it is missing; or why it is left out."""
    folder = CACHE / "python"
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # at the end: our own libraries go first
    try:
        return importlib.import_module(name)
    except ImportError:
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder), name]
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=INSTALL_S)
        importlib.invalidate_caches()
        return importlib.import_module(name)
    except (subprocess.SubprocessError, OSError, ImportError) as error:
        return f"not installed, and pip cannot install it here: {type(error).__name__}"


def optional_program(package: str, program: str) -> Path | str:
    """A server's program out of its Debian package, unpacked into the cache folder; or why not."""
    folder = CACHE / "deb"
    path = folder / "usr" / "bin" / program
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            ["apt-get", "download", package],
            cwd=folder,
            capture_output=True,
            check=True,
            timeout=INSTALL_S,
        )
        for archive in folder.glob(f"{package}_*.deb"):
            subprocess.run(["dpkg", "-x", str(archive), str(folder)], check=True, timeout=60)
    except (subprocess.SubprocessError, OSError) as error:
        return f"apt-get cannot download {package} here: {type(error).__name__}"
    return path if path.exists() else f"the package {package} has no {program}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
            "CREATE TABLE IF NOT EXISTS s (tag_id BIGINT, source_timestamp TIMESTAMPTZ, value DOUBLE, "
            "text VARCHAR, status UINTEGER, received_timestamp TIMESTAMPTZ)"
        )

    def insert(self, batch: pl.DataFrame) -> None:
        self._connection.register("batch", optional("pyarrow").table(batch))
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


def lines(batch: pl.DataFrame) -> list[bytes]:
    """A batch in the line protocol, 100,000 samples a request: the value alone, no status, no receive time."""
    text = batch.select(
        pl.concat_str(
            pl.lit("s,tag="),
            pl.col("tag_id").cast(pl.String),
            pl.lit(" v="),
            pl.col("value").cast(pl.String),
            pl.lit(" "),
            (pl.col("source_timestamp").to_physical() * 1_000).cast(pl.String),
        )
    ).to_series()
    starts = range(0, len(text), 100_000)
    return ["\n".join(text.slice(at, 100_000).to_list()).encode() for at in starts]


class LineServer:
    """A server that takes the line protocol over HTTP: VictoriaMetrics or InfluxDB 1."""

    def __init__(self, name: str, program: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.folder = folder
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        environment = dict(os.environ)
        command = [str(program)]
        if name == "victoriametrics":
            command += [f"-storageDataPath={folder}", f"-httpListenAddr=127.0.0.1:{port}",
                        "-retentionPeriod=100y", "-loggerLevel=ERROR"]  # fmt: skip
        else:
            environment |= {
                "INFLUXDB_DATA_DIR": f"{folder}/data",
                "INFLUXDB_DATA_WAL_DIR": f"{folder}/wal",
                "INFLUXDB_META_DIR": f"{folder}/meta",
                "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{port}",
                "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{free_port()}",
                "INFLUXDB_REPORTING_DISABLED": "true",
                "INFLUXDB_HTTP_LOG_ENABLED": "false",
                "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            }
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._wait()
        if name != "victoriametrics":
            self._ask("/query", b"q=" + urllib.parse.quote("CREATE DATABASE peer").encode())

    def _wait(self) -> None:
        end_s = time.monotonic() + 20
        while True:
            try:
                self._ask("/ping" if self.name != "victoriametrics" else "/health")
                return
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > end_s or self._process.poll() is not None:
                    self.close()
                    raise
                time.sleep(0.05)

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        with urllib.request.urlopen(self._url + path, data=body, timeout=120) as answer:
            return bytes(answer.read())

    def insert(self, requests: list[bytes]) -> None:
        for body in requests:
            self._ask("/write?db=peer&precision=ns", body)

    def query(self, path: str) -> bytes:
        return self._ask(path)

    def settled_bytes(self) -> int:
        """Bytes on disk once everything is merged."""
        if self.name == "victoriametrics":
            self._ask("/internal/force_flush")
            self._ask("/internal/force_merge")
            folder, before = self.folder / "data", -1
            end_s = time.monotonic() + 20
            while folder_bytes(folder) != before and time.monotonic() < end_s:
                before = folder_bytes(folder)
                time.sleep(1.0)
            return folder_bytes(folder)
        return folder_bytes(self.folder)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


LINE_SERVERS = {
    "victoriametrics": ("victoria-metrics", "victoria-metrics"),
    "influxdb_1": ("influxdb", "influxd"),
}


class Postgres:
    """PostgreSQL with a B-tree over (tag_id, source_timestamp), filled with binary COPY, each batch synced.

    The server runs as the user ``postgres`` where we are root, which it refuses.
    """

    RECORD = np.dtype(
        [("fields", ">i2")]
        + [
            entry
            for name, kind in (
                ("tag_id", ">i8"),
                ("source_timestamp", ">i8"),
                ("value", ">f8"),
                ("status", ">i8"),
                ("received_timestamp", ">i8"),
            )
            for entry in ((f"{name}_size", ">i4"), (name, kind))
        ]
        + [("text_size", ">i4")]
    )
    EPOCH_US = 946_684_800_000_000  # 2000-01-01
    COLUMNS = "tag_id, source_timestamp, value, status, received_timestamp, text"

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="headrace-bench-postgres-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres", "postgres")
            self._as = {"user": "postgres", "group": "postgres", "extra_groups": []}
        data = self._folder / "data"
        self._run("initdb", "-D", str(data), "-A", "trust", "-U", "postgres")
        self._run(
            "pg_ctl", "-D", str(data), "-w", "-l", str(self._folder / "log"), "start", "-o",
            f"-c listen_addresses='' -k {self._folder} -c shared_buffers=1GB -c max_wal_size=8GB",
        )  # fmt: skip
        self._sql(
            "CREATE TABLE s (tag_id bigint, source_timestamp timestamptz, value float8, text text, "
            "status bigint, received_timestamp timestamptz);"
            "CREATE INDEX ON s (tag_id, source_timestamp)"
        )

    @classmethod
    def missing(cls) -> str:
        """Why it cannot run here, or nothing."""
        if any(shutil.which(name) is None for name in ("initdb", "pg_ctl", "psql")):
            return "initdb, pg_ctl or psql is not installed"
        return ""

    def _run(self, *command: str, body: bytes | None = None) -> None:
        subprocess.run(
            command, input=body, check=True, stdout=subprocess.DEVNULL, cwd="/", **self._as
        )

    def _sql(self, sql: str, body: bytes | None = None) -> None:
        self._run("psql", "-q", "-h", str(self._folder), "-U", "postgres", "-c", sql, body=body)

    def encoded(self, batch: pl.DataFrame) -> bytes:
        """The batch as COPY takes it in binary; texts and values that are not there leave as null and NaN."""
        record = np.zeros(batch.height, self.RECORD)
        record["fields"] = 6
        record["text_size"] = -1
        for name in ("tag_id", "source_timestamp", "value", "status", "received_timestamp"):
            record[f"{name}_size"] = 8
            column = batch[name].to_physical().to_numpy()
            record[name] = column - self.EPOCH_US if name.endswith("timestamp") else column
        head = b"PGCOPY\n\xff\r\n\0" + bytes(8)
        return head + record.tobytes() + b"\xff\xff"

    def insert(self, body: bytes) -> None:
        self._sql(f"COPY s ({self.COLUMNS}) FROM STDIN (FORMAT binary)", body)

    def stored_bytes(self) -> int:
        return folder_bytes(self._folder / "data" / "base")

    def close(self) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self._folder)
