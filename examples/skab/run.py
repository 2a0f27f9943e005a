"""The SKAB testbed, experiments of its first valve: `python examples/skab/run.py 0 1 13`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
import polars as pl

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import evaluate  # noqa: E402 # beside this folder

ASSET = "lab/water/loop"
COMMISSIONING_ROWS = 300  # normal running, from which the flow of the open valve is taken
COLUMNS = {
    "Accelerometer1RMS": "vibration_pump",
    "Accelerometer2RMS": "vibration_motor",
    "Current": "current",
    "Pressure": "pressure",
    "Temperature": "housing_temperature",
    "Thermocouple": "water_temperature",
    "Voltage": "voltage",
    "Volume Flow RateRMS": "flow",
}


def recording(file: Path) -> pl.DataFrame:
    """A file as a frame of ``at_us``, the quantities and what its authors say (``anomaly``)."""
    frame = pl.read_csv(file, separator=";", try_parse_dates=True)
    at_us = frame["datetime"].dt.epoch("us").alias("at_us")
    return frame.select(at_us, pl.col("anomaly"), *(pl.col(a).alias(b) for a, b in COLUMNS.items()))


def run(file: Path) -> tuple[pl.DataFrame, evaluate.Results]:
    frame, config = recording(file), evaluate.load_knowledge(HERE)
    open_flow = frame["flow"][:COMMISSIONING_ROWS].mean()
    asset = msgspec.structs.replace(config.assets[0], attributes={"open_flow": open_flow})
    config = msgspec.structs.replace(config, assets=(asset,))
    start_us, end_us = int(frame["at_us"][0]), int(frame["at_us"][-1]) + 1
    return frame, evaluate.run(config, {ASSET: frame}, start_us, end_us)


def alarmed(frame: pl.DataFrame, spans: list[tuple[int, int | None]]) -> pl.Series:
    """Whether an alarm is active at each row."""
    active = pl.Series([False]).new_from_index(0, frame.height)
    for start, end in spans:
        after = frame["at_us"] >= start
        active = active | (after if end is None else after & (frame["at_us"] < end))
    return active


def main() -> None:
    data = Path(os.environ.get("HEADRACE_DATA", HERE.parents[2] / "shared" / "data"))
    for number in sys.argv[1:] or [str(n) for n in range(16)]:
        frame, found = run(data / "skab" / "valve1" / f"{number}.csv.gz")
        active, wrong = alarmed(frame, found.alarms[f"{ASSET}/valve_closes"]), frame["anomaly"] == 1
        missed = (wrong & ~active).sum() / wrong.sum()
        false = (active & ~wrong).sum() / (~wrong).sum()
        print(
            f"{number}: missed {missed:.0%} of the anomalous rows, false in {false:.0%} of the others"
        )


if __name__ == "__main__":
    main()
