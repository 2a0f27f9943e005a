"""The Tennessee Eastman process: `python examples/tep/run.py d04_te`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import polars as pl

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import evaluate  # noqa: E402 # beside this folder

ASSET = "plant/reaction/process"
STEP_US = 180_000_000
START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
FAULT_ROW = 160  # in test files the fault begins after 8 h
COLUMNS = {
    "a_feed": (0, 1000.0),  # the files have thousands of standard cubic metres
    "ac_feed": (3, 1000.0),
    "recycle_flow": (4, 1000.0),
    "reactor_pressure": (6, 1.0),
    "reactor_temperature": (8, 1.0),
    "purge": (9, 1000.0),
    "separator_pressure": (12, 1.0),
    "product_flow": (16, 1.0),
    "steam_flow": (18, 1.0),
    "compressor_work": (19, 1.0),
    "reactor_cooling_outlet": (20, 1.0),
    "reactor_cooling_valve": (50, 1.0),
    "condenser_cooling_valve": (51, 1.0),
}
"""Quantity -> column of the file and what it is multiplied by."""


def recording(file: Path) -> pl.DataFrame:
    """A file as a frame of ``at_us`` and the quantities; a row is three minutes."""
    rows = np.loadtxt(file)
    at_us = START_US + STEP_US * np.arange(len(rows))
    columns = {name: rows[:, at] * scale for name, (at, scale) in COLUMNS.items()}
    return pl.DataFrame({"at_us": at_us, **columns})


def run(file: Path) -> evaluate.Results:
    frame = recording(file)
    end_us = START_US + STEP_US * frame.height
    return evaluate.run(evaluate.load_knowledge(HERE), {ASSET: frame}, START_US, end_us)


def hours(at_us: int | None) -> float:
    return float("nan") if at_us is None else (at_us - START_US) / 3.6e9


def main() -> None:
    data = Path(os.environ.get("HEADRACE_DATA", HERE.parents[2] / "shared" / "data"))
    for name in sys.argv[1:] or ["d00_te", "d01_te", "d04_te", "d14_te"]:
        found = run(data / "tep" / f"{name}.dat.gz")
        print(f"{name}: the fault begins at {FAULT_ROW * STEP_US / 3.6e9:g} h")
        work = found.samples[f"{ASSET}/specific_work"]["value"].mean()
        print(f"  specific work {work:.3g} kWh/Sm3")
        for alarm, spans in found.alarms.items():
            for start, end in spans:
                print(f"  {alarm.rpartition('/')[2]}: {hours(start):.2f} h to {hours(end):.2f} h")


if __name__ == "__main__":
    main()
