"""The wind turbine of Yalova, January to September 2018: `python examples/wind_yalova/run.py`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import polars as pl

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import evaluate  # noqa: E402 # beside this folder

ASSET = "park/north/turbine"
FILE = Path("wind_yalova") / "T1_2018_jan_sep.csv.gz"
COLUMNS = {
    "LV ActivePower (kW)": "power",
    "Wind Speed (m/s)": "wind_speed",
    "Theoretical_Power_Curve (KWh)": "curve",
    "Wind Direction (deg)": "wind_direction",
}


def recording(file: Path) -> pl.DataFrame:
    """The file as a frame of ``at_us`` and the quantities; its times are on the wall clock."""
    frame = pl.read_csv(file)
    at = pl.col("Date/Time").str.to_datetime("%d %m %Y %H:%M", time_unit="us")
    at_us = at.dt.replace_time_zone("Europe/Istanbul").dt.epoch("us").alias("at_us")
    return frame.select(at_us, *(pl.col(a).alias(b) for a, b in COLUMNS.items())).sort("at_us")


def run(file: Path) -> evaluate.Results:
    frame = recording(file)
    start_us, end_us = int(frame["at_us"][0]), int(frame["at_us"][-1]) + 600_000_001
    return evaluate.run(evaluate.load_knowledge(HERE), {ASSET: frame}, start_us, end_us)


def main() -> None:
    data = Path(os.environ.get("HEADRACE_DATA", HERE.parents[2] / "shared" / "data"))
    found = run(data / FILE)
    names = ("energy_month", "lost_month", "capacity_factor", "hours_on")
    print("month " + " ".join(f"{name:>16}" for name in names))
    table = [found.samples[f"{ASSET}/{name}"]["value"].to_list() for name in names]
    for month, row in enumerate(zip(*table, strict=True), 1):
        print(f"{month:5} " + " ".join(f"{value:16.1f}" for value in row))
    spans = found.alarms[f"{ASSET}/underperforms"]
    hours = sum((end or start) - start for start, end in spans) / 3.6e9
    print(f"underperforms: {len(spans)} times, {hours:.0f} h in all")


if __name__ == "__main__":
    main()
