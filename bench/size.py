"""Bytes a sample of real recordings, after compaction; VictoriaMetrics keeps neither status nor receive time.

Needs the recordings (``HEADRACE_DATA``, default ``../shared/data``): SKAB (8 quantities at 1 Hz) and the wind
turbine of Yalova (4 quantities, every 10 minutes). Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from headrace.historian.commit import Chunk, Committer
from headrace.historian.compaction import Compactor
from headrace.historian.table import open_table
from headrace.model.folder import DataFolder
from headrace.model.sample import concat_batches, make_batch
from headrace.model.time import ManualClock, SystemClock
from peers import LINE_SERVERS, LineServer, lines, optional_program

DATA = Path(os.environ.get("HEADRACE_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
COMMIT_ROWS = 50_000
RECEIVED_LATER_US = (500, 3_000)


def samples(frame: pl.DataFrame, at_us: pl.Series, first_id: int) -> pl.DataFrame:
    """A wide recording in order of arrival; each row is received together, a little later."""
    names = frame.columns
    times = np.repeat(at_us.to_numpy(), len(names))
    late = np.random.default_rng(first_id).integers(*RECEIVED_LATER_US, len(at_us))
    value = frame.cast(pl.Float64).to_numpy().ravel()
    ids = np.tile(np.arange(first_id, first_id + len(names)), len(at_us))
    batch = make_batch(ids, times, value, received_timestamp_us=times + np.repeat(late, len(names)))
    return batch.filter(pl.col("value").is_not_nan())


def skab() -> list[pl.DataFrame]:
    made = []
    for number, file in enumerate(sorted((DATA / "skab").rglob("*.csv.gz"))):
        frame = pl.read_csv(file, separator=";")
        at = frame["datetime"].str.to_datetime(time_unit="us").to_physical()
        signals = frame.drop("datetime", "anomaly", "changepoint", strict=False)
        made.append(samples(signals, at, 1 + 10 * number))
    return made


def wind_yalova() -> list[pl.DataFrame]:
    frame = pl.read_csv(next((DATA / "wind_yalova").glob("*.csv.gz")))
    at = frame["Date/Time"].str.to_datetime("%d %m %Y %H:%M", time_unit="us").to_physical()
    return [samples(frame.drop("Date/Time").cast(pl.Float64), at, 1_000)]


def ours(work: Path, batches: list[pl.DataFrame]) -> float:
    folder = DataFolder(work / "ours")
    folder.root.mkdir(parents=True)
    clock = SystemClock()
    table = open_table(folder.table, clock)
    committer = Committer(table, work / "quarantine", clock)
    sequence = 0
    for batch in batches:
        for part in batch.iter_slices(COMMIT_ROWS):
            chunk = Chunk(sequence)
            chunk.take(sequence + 1, part, 1, 0.0)
            sequence += 1
            committer.commit(chunk, "bench/SAMPLES/1")
    for days in (2, 4):  # merged, then closed a day later
        compactor = Compactor(table, ManualClock(clock.now_us() + days * 86_400_000_000))
        while compactor.step():
            pass
    return table.snapshot.bytes / table.snapshot.rows


def peer(work: Path, batches: list[pl.DataFrame]) -> float | str:
    program = optional_program(*LINE_SERVERS["victoriametrics"])
    if isinstance(program, str):
        return program
    server = LineServer("victoriametrics", program, work / "victoriametrics")
    try:
        for batch in batches:
            server.insert(lines(batch))
        return server.settled_bytes() / concat_batches(batches).height
    finally:
        server.close()


def main() -> None:
    found: dict[str, dict[str, float | str]] = {}
    for name, recording in (("skab", skab), ("wind_yalova", wind_yalova)):
        if not (DATA / name).is_dir():
            found[name] = {"skipped": "the recording is not here; set HEADRACE_DATA"}
            continue
        batches = recording()
        with tempfile.TemporaryDirectory() as folder:
            mine = round(ours(Path(folder), batches), 3)
            other = peer(Path(folder), batches)
        entry: dict[str, float | str] = {"ours": mine, "samples": sum(b.height for b in batches)}
        if isinstance(other, str):
            entry["skipped"] = other
        else:
            entry |= {"peer": round(other, 3), "ratio": round(mine / other, 2)}
        found[name] = entry
    line = {
        "name": "size",
        "unit": "bytes a sample on disk",
        **{
            key: {n: f[key] for n, f in found.items() if key in f}
            for key in ("ours", "peer", "ratio")
        },
        "peer_name": "VictoriaMetrics: value and time only",
        "detail": found,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
