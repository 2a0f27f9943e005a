"""Recordings come in exactly as they are in the file."""

from __future__ import annotations

import csv
import gzip
import math
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data import data_folder
from headrace.model.errors import Corrupt, Misconfigured
from headrace.sim.replay.loader import TIME, LoadOptions, load
from headrace.sim.replay.times import parse_times


def write(folder: Path, text: str, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def bits(number: float) -> bytes:
    return struct.pack("d", number)


def test_skab_is_read_value_for_value() -> None:
    path = data_folder("skab") / "valve1" / "0.csv.gz"
    recording = load(path)
    with gzip.open(path, "rt") as handle:
        rows = list(csv.DictReader(handle, delimiter=";"))
    assert recording.frame.height == len(rows)
    for column in recording.columns:
        assert column.data_type == "float64"
        assert recording.frame[column.name].to_list() == [float(row[column.name]) for row in rows]
    times = [datetime.fromisoformat(row["datetime"]).replace(tzinfo=UTC) for row in rows]
    assert recording.frame[TIME].to_list() == times


def test_wind_is_read_value_for_value() -> None:
    path = next(iter(data_folder("wind_yalova").glob("*.csv.gz")))
    recording = load(path)
    with gzip.open(path, "rt", encoding="utf-8-sig") as handle:
        rows = list(csv.DictReader(handle))
    assert recording.frame.height == len(rows)
    for column in recording.columns:
        wanted = [float(row[column.name]) for row in rows]
        assert recording.frame[column.name].to_list() == wanted
    form = "%d %m %Y %H:%M"
    times = [datetime.strptime(row["Date/Time"], form).replace(tzinfo=UTC) for row in rows]
    assert recording.frame[TIME].to_list() == times


def test_cmapss_without_header_and_times_is_read_value_for_value() -> None:
    path = data_folder("cmapss") / "train_FD001.txt.gz"
    recording = load(path, LoadOptions(key_column="c1", start_us=0))
    with gzip.open(path, "rt") as handle:
        rows = [line.split() for line in handle]
    assert recording.frame.height == len(rows) == 20_631
    assert len(recording.columns) == 25
    for number, column in enumerate(recording.columns, start=1):
        wanted = [float(row[number]) for row in rows]
        assert recording.frame[column.name].cast(pl.Float64).to_list() == wanted
    assert recording.keys is not None
    assert recording.keys.to_list() == [f"c1_{row[0]}" for row in rows]
    assert recording.frame[TIME].to_physical().to_list() == [i * 10**6 for i in range(len(rows))]
    assert any("no time column" in note for note in recording.notes)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30))
def test_every_float64_survives(tmp_path_factory: pytest.TempPathFactory, xs: list[float]) -> None:
    lines = "\n".join(f"2026-01-01T00:00:{i:02d}Z,{x!r}" for i, x in enumerate(xs))
    path = write(tmp_path_factory.mktemp("f"), f"time,value_a\n{lines}\n")
    read = load(path).frame["value_a"].cast(pl.Float64).to_list()
    # A column of whole numbers is int64: minus zero has no sign there.
    same = [bits(a) == bits(b) or a == b == 0 for a, b in zip(read, xs, strict=True)]
    assert all(same)


@given(st.lists(st.integers(-(10**17), 10**17), min_size=1, max_size=30))
def test_every_integer_survives(tmp_path_factory: pytest.TempPathFactory, xs: list[int]) -> None:
    lines = "\n".join(f"2026-01-01T00:00:{i:02d}Z,{x}" for i, x in enumerate(xs))
    recording = load(write(tmp_path_factory.mktemp("i"), f"time,n\n{lines}\n"))
    assert recording.frame["n"].to_list() == xs
    assert recording.columns[0].data_type == "int64"


@given(
    st.datetimes(timezones=st.just(UTC)).filter(lambda at: 1990 < at.year < 2100),
    st.sampled_from(["iso", "space", "epoch_us", "epoch_s", "offset"]),
)
def test_every_time_survives_to_the_microsecond(at: datetime, form: str) -> None:
    delta = at - datetime(1970, 1, 1, tzinfo=UTC)
    at_us = (delta.days * 86_400 + delta.seconds) * 10**6 + delta.microseconds
    texts = {
        "iso": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "space": at.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "epoch_us": str(at_us),
        "epoch_s": f"{at_us // 10**6}.{at_us % 10**6:06d}",
        "offset": (at + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.%f+02:00"),
    }
    found = parse_times(pl.Series([texts[form]]))
    assert found is not None
    assert found[0].to_physical().to_list() == [at_us]


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("time;a;b\n2026-01-01 00:00:00;1,5;2\n2026-01-01 00:00:01;2,5;3\n", {"a": [1.5, 2.5]}),
        ("time\ta\n2026-01-01 00:00\t1\n2026-01-01 00:01\t2\n", {"a": [1, 2]}),
        ("time|a\n01.02.2026 00:00:00|x\n13.02.2026 00:00:00|y\n", {"a": ["x", "y"]}),
        ("\ufeffts,on\n1767225600000,true\n1767225601000,FALSE\n", {"on": [True, False]}),
        ("ts,a\n1767225600,1\n1767225601,\n", {"a": [1, None]}),
        ("ts,a\n1767225600,1.5\n1767225601,ERR\n", {"a": ["1.5", "ERR"]}),
        ("ts,a\n1767225600,007\n1767225601,008\n", {"a": ["007", "008"]}),
        ('ts,a\n1767225600,"x, y"\n1767225601,z\n', {"a": ["x, y", "z"]}),
        ("ts,a\n1767225600,123456789012345678901\n", {"a": ["123456789012345678901"]}),
    ],
)
def test_forms_of_text_files(tmp_path: Path, text: str, columns: dict[str, list]) -> None:
    recording = load(write(tmp_path, text))
    for name, wanted in columns.items():
        assert recording.frame[name].to_list() == wanted


def test_nan_is_a_value_and_an_empty_field_is_none(tmp_path: Path) -> None:
    read = load(write(tmp_path, "ts,a\n1767225600,NaN\n1767225601,\n1767225602,-inf\n")).frame["a"]
    assert math.isnan(read[0]) and read[1] is None and read[2] == -math.inf


def test_gb18030_text_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("时间,状态\n2026-01-01 00:00:00,运行\n".encode("gb18030"))
    recording = load(path)
    assert recording.frame["状态"].to_list() == ["运行"]
    assert any("GB 18030" in note for note in recording.notes)


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "when": [datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)],
            "f": [0.1, None],
            "i": pl.Series([1, 2], dtype=pl.Int16),
            "t": ["1", "2"],
            "b": [True, False],
        }
    )
    frame.write_parquet(tmp_path / "x.parquet")
    recording = load(tmp_path / "x.parquet", LoadOptions(time_column="when"))
    kinds = {c.name: c.data_type for c in recording.columns}
    assert kinds == {"f": "float64", "i": "int64", "t": "string", "b": "bool"}
    assert recording.frame["f"].to_list() == [0.1, None]
    assert recording.frame["t"].to_list() == ["1", "2"]


def test_long_recordings_become_wide_and_copies_stay(tmp_path: Path) -> None:
    text = "time,tag,value\n" + "".join(
        f"2026-01-01 00:00:0{second},{tag},{value}\n"
        for second, tag, value in [(0, "a", 1.5), (0, "b", 2), (1, "a", 3), (1, "a", 4)]
    )
    recording = load(write(tmp_path, text))
    assert recording.frame["a"].to_list() == [1.5, 3.0, 4.0]
    assert recording.frame["b"].to_list() == [2.0, None, None]
    assert any("1 rows have a time" in note for note in recording.notes)


def test_rows_out_of_order_are_sorted_and_it_is_said(tmp_path: Path) -> None:
    recording = load(write(tmp_path, "ts,a\n1767225602,3\n1767225600,1\n1767225601,2\n"))
    assert recording.frame["a"].to_list() == [1, 2, 3]
    assert any("order" in note for note in recording.notes)


def test_local_times_are_converted(tmp_path: Path) -> None:
    path = write(tmp_path, "time,a\n2026-07-01 12:00:00,1\n")
    recording = load(path, LoadOptions(time_zone="Europe/Berlin"))
    assert recording.frame[TIME].to_list() == [datetime(2026, 7, 1, 10, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("text", "options", "code"),
    [
        ("", {}, "SIM-1102"),
        ("time,a\n", {}, "SIM-1102"),
        ("time,a\n2026-01-01,1\n", {"columns": ("b",)}, "SIM-1103"),
        ("time,a\n2026-01-01,1\n", {"key_column": "b"}, "SIM-1103"),
        ("1 2\n3 4\n", {"names": ("a",)}, "SIM-1103"),
        ("time,a\nyesterday,1\n", {"time_column": "time"}, "SIM-1104"),
        ("time,a\n2026-01-01,1\n", {"start_us": 5}, "SIM-1104"),
        ("time,a\n01/02/2026 00:00,1\n", {}, "SIM-1105"),
        ("time,a\n2026-03-29 02:30:00,1\n", {"time_zone": "Europe/Berlin"}, "SIM-1106"),
        ("time,a b,a-b,a_b\n2026-01-01,1,2,3\n", {}, "SIM-1107"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path: Path, text: str, options: dict, code: str) -> None:
    with pytest.raises(Misconfigured, match=code):
        load(write(tmp_path, text), LoadOptions(**options))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="SIM-1101"):
        load(tmp_path / "absent.csv")
    (tmp_path / "x.csv.gz").write_bytes(b"\x1f\x8bnonsense")
    with pytest.raises(Corrupt, match="SIM-1108"):
        load(tmp_path / "x.csv.gz")
    (tmp_path / "x.parquet").write_bytes(b"PAR1nonsense")
    with pytest.raises(Corrupt, match="SIM-1108"):
        load(tmp_path / "x.parquet")
