"""Real recordings come in by the real door and come out unchanged, row by row.

Three recordings at once into one installation: SKAB valve1 through OPC UA, a wind turbine's year
through Modbus, C-MAPSS FD001 through Sparkplug B. The expected values are read here with Polars
alone, not with the replay's loader.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from bookkeeping import check_books
from installation import Installation
from polars.testing import assert_frame_equal
from replaying import Replay, start_all, stored

from data import data_folder
from waiting import until_sync

pytestmark = [pytest.mark.kill, pytest.mark.timeout(600)]

# Parts keep `make test` short: `make soak` replays all 38,200 rows of the year and all 100 engines.
WIND_ROWS_QUICK = 1_500
ENGINE_ROWS_QUICK = 2_000
START = datetime(2020, 1, 1, tzinfo=UTC)
CMAPSS_NAMES = ["unit", "cycle", *(f"c{i}" for i in range(24))]


@dataclass
class Case:
    """One recording: the replay that serves it, and what must be stored."""

    replay: Replay
    prefix: str
    expected: pl.DataFrame


def tidy(name: str) -> str:
    """The path token that a column's name becomes: what is no letter or digit is one underscore."""
    text = "".join(c.lower() if c.isalnum() else "_" for c in name)
    return "_".join(part for part in text.split("_") if part)


def long(frame: pl.DataFrame, prefix: str) -> pl.DataFrame:
    """Columns path, source_timestamp, value, sorted, out of one row a time."""
    values = [name for name in frame.columns if name not in ("at", "unit")]
    device = pl.format("/unit_{}", pl.col("unit")) if "unit" in frame.columns else pl.lit("")
    return (
        frame.with_columns(device.alias("device"), pl.col(values).cast(pl.Float64))
        .unpivot(on=values, index=["at", "device"], variable_name="name", value_name="value")
        .select(
            pl.format(
                "{}{}/{}",
                pl.lit(prefix),
                "device",
                pl.col("name").replace({v: tidy(v) for v in values}),
            ).alias("path"),
            pl.col("at").dt.cast_time_unit("us").alias("source_timestamp"),
            "value",
        )
        .drop_nulls("value")
        .sort("path", "source_timestamp")
    )


def skab(installation: Installation) -> Case:
    file = data_folder("skab") / "valve1" / "0.csv.gz"
    frame = pl.read_csv(file, separator=";", infer_schema_length=None)
    frame = frame.with_columns(
        pl.col("datetime").str.to_datetime(time_zone="UTC").alias("at")
    ).drop("datetime")
    replay = Replay(installation, file, "opcua", "--speed", "0", "--prefix", "replay/skab")
    return Case(replay, "replay/skab", long(frame, "replay/skab"))


def wind(installation: Installation, rows: int | None) -> Case:
    source = data_folder("wind_yalova") / "T1_2018_jan_sep.csv.gz"
    frame = pl.read_csv(source, infer_schema_length=None, n_rows=rows)
    at = pl.col("Date/Time").str.to_datetime("%d %m %Y %H:%M", time_zone="UTC")
    frame = frame.with_columns(at.alias("at"))
    file = source
    if rows is not None:
        file = installation.folder.root.parent / "wind.csv"
        with gzip.open(source, "rt") as lines:
            file.write_text("".join(line for _, line in zip(range(rows + 1), lines, strict=False)))
    replay = Replay(installation, file, "modbus", "--speed", "0", "--prefix", "replay/wind")
    return Case(replay, "replay/wind", long(frame.drop("Date/Time"), "replay/wind"))


def cmapss(installation: Installation, count: int | None) -> Case:
    file = data_folder("cmapss") / "train_FD001.txt.gz"
    lines = gzip.decompress(file.read_bytes()).decode().splitlines(keepends=True)[:count]
    if count is not None:
        file = installation.folder.root.parent / "train_FD001.txt"
        file.write_text("".join(lines))
    rows = [line.split() for line in lines]
    frame = pl.DataFrame(
        {name: [float(row[i]) for row in rows] for i, name in enumerate(CMAPSS_NAMES)}
    ).with_columns(
        pl.col("unit").cast(pl.Int64).cast(pl.String),
        pl.Series("at", [START + timedelta(seconds=i) for i in range(len(rows))]),
    )
    arguments = ["--speed", "0", "--names", ",".join(CMAPSS_NAMES), "--key-column", "unit"]
    arguments += ["--start", START.isoformat(), "--prefix", "replay/cmapss"]
    return Case(
        Replay(installation, file, "sparkplug", *arguments),
        "replay/cmapss",
        long(frame, "replay/cmapss"),
    )


def come_out_unchanged(installation: Installation, cases: list[Case], timeout_s: float) -> None:
    try:
        start_all(installation, [case.replay for case in cases])
        for case in cases:
            until_sync(lambda case=case: case.replay.ended, timeout_s, case.replay.output)
            assert "All rows are shown" in case.replay.output

            def arrived(case: Case = case) -> bool:
                return (
                    stored(installation.folder, f"{case.prefix}/**").height >= case.expected.height
                )

            until_sync(arrived, 30, f"all of {case.prefix}")
            found = stored(installation.folder, f"{case.prefix}/**").filter(pl.col("status") == 0)
            assert_frame_equal(
                found.select("path", "source_timestamp", "value").sort("path", "source_timestamp"),
                case.expected,
                check_exact=True,
            )
        sums = check_books(installation.folder)
        assert sums["stored"] >= sum(case.expected.height for case in cases)
    except BaseException:
        print(installation.logs())
        raise
    finally:
        for case in cases:
            case.replay.stop()


def test_three_recordings_come_out_as_they_went_in(installation: Installation) -> None:
    turbine = wind(installation, WIND_ROWS_QUICK)
    engines = cmapss(installation, ENGINE_ROWS_QUICK)
    come_out_unchanged(installation, [skab(installation), turbine, engines], 150)


@pytest.mark.soak
def test_whole_recordings_come_out_as_they_went_in(installation: Installation) -> None:
    come_out_unchanged(installation, [wind(installation, None), cmapss(installation, None)], 1200)
