"""Closed files: whatever the encodings chosen, every reader gets the same bits back."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from deltalake import DeltaTable, QueryBuilder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.historian import encodings as enc
from headrace.historian import parquet
from headrace.historian.layout import (
    DELTA_SCHEMA,
    STORED_SCHEMA,
    file_name,
    sort_unique,
    to_stored,
    write_file,
)
from headrace.historian.parquet import encode, row_groups, value_chunk
from headrace.historian.table import open_table
from headrace.model.sample import make_batch
from headrace.model.time import ManualClock

AT = 1_760_000_000_000_000
ODD_DOUBLES = np.array(
    [0x7FF8_0000_0000_0001, 0x7FF0_0000_0000_0001, -1, -(2**63), 0, 1, 0x7FF0_0000_0000_0000],
    np.int64,
).view(np.float64)
"""Two NaNs with payloads, one with a sign, -0.0, 0.0, the least number, infinity."""


def stored(
    tag_id: npt.ArrayLike,
    at_us: npt.ArrayLike,
    value: npt.ArrayLike,
    text: list[str | None] | None = None,
    status: npt.ArrayLike = 0,
) -> pl.DataFrame:
    ids = np.asarray(tag_id, np.int64)
    at = np.asarray(at_us, np.int64)
    return pl.DataFrame(
        {
            "tag_id": ids,
            "source_timestamp": pl.Series(at).cast(pl.Datetime("us", "UTC")),
            "value": pl.Series(value, dtype=pl.Float64, strict=False),
            "text": pl.Series(text or [None] * len(ids), dtype=pl.String),
            "status": np.broadcast_to(np.asarray(status, np.int64), len(ids)),
            "received_timestamp": pl.Series(at + 700).cast(pl.Datetime("us", "UTC")),
        },
        schema=STORED_SCHEMA,
    )


def bits(frame: pl.DataFrame) -> pl.DataFrame:
    """Doubles as the integers of their bits: what NaNs and zeros hide becomes visible."""
    value = frame["value"]
    pattern = pl.Series("value", value.fill_null(0.0).to_numpy().view(np.int64))
    there = value.is_not_null().alias("there")
    return frame.with_columns(pattern, there).select("there", *STORED_SCHEMA)


def by_polars(rows: pl.DataFrame) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(encode(rows)))


def pages(rows: pl.DataFrame) -> set[int]:
    """Encodings of the value pages."""
    present = rows["value"].is_not_null().to_numpy()
    pattern = rows["value"].fill_null(0.0).to_numpy().view(np.int64)
    chunk = value_chunk(pattern, present, rows["tag_id"].to_numpy())
    return {page.encoding for page in chunk.pages}


def plant(tags: int, rows_each: int) -> pl.DataFrame:
    """Tags of four kinds: set-points, 12-bit readings, full-precision walks, decimals with gaps."""
    rng = np.random.default_rng(tags)
    ids = np.repeat(np.arange(tags), rows_each)
    walk = np.cumsum(rng.normal(0, 0.05, (tags, rows_each)), axis=1) + 50
    kind = (np.arange(tags) % 4)[:, None]
    value = np.where(kind == 0, np.round(walk / 25) * 25, walk)
    value = np.where(kind == 1, np.round(walk * 40.95) / 40.95, value)
    value = np.where(kind == 3, np.round(walk, 2), value)
    value = np.where((kind == 3) & (rng.random(value.shape) < 0.1), np.nan, value)
    at = AT + np.tile(np.arange(rows_each) * 1_000_000 + rng.integers(0, 400, rows_each), tags)
    frame = stored(ids, at, value.ravel())
    return frame.with_columns(pl.col("value").fill_nan(None))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), section=st.sampled_from([1, 7, 1024]), group=st.sampled_from([5, 64, 10**6]))
def test_any_rows_come_back_bit_by_bit(
    data: st.DataObject, section: int, group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "SECTION_ROWS", section)
    monkeypatch.setattr(parquet, "ROW_GROUP_ROWS", group)
    count = data.draw(st.integers(1, 200))
    choice = st.one_of(
        st.none(),
        st.sampled_from(ODD_DOUBLES.tolist()),
        st.sampled_from([1.5, 20.25, -3.0]),
        st.floats(),
    )
    lists = st.lists(choice, min_size=count, max_size=count)
    texts = st.one_of(st.none(), st.sampled_from(["", "open", "geöffnet", "打开"]), st.text())
    rows = stored(
        np.sort(data.draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))),
        data.draw(
            st.lists(
                st.integers(-62_135_596_800_000_000, 253_402_300_799_000_000),
                min_size=count,
                max_size=count,
            )
        ),
        data.draw(lists),
        data.draw(st.lists(texts, min_size=count, max_size=count)),
        data.draw(
            st.lists(st.sampled_from([0, 0x8031_0000, 2**32 - 1]), min_size=count, max_size=count)
        ),
    )
    read = by_polars(rows)
    assert read.schema == rows.schema
    assert bits(read).equals(bits(rows))


def test_each_kind_of_tag_gets_its_own_encoding_and_all_come_back() -> None:
    rows = plant(16, 5_000)
    assert pages(rows) >= {enc.RLE_DICTIONARY, enc.BYTE_STREAM_SPLIT}
    assert bits(by_polars(rows)).equals(bits(rows))


def test_nan_payloads_and_signed_zeros_survive_every_encoding() -> None:
    rng = np.random.default_rng(3)
    few = np.tile(ODD_DOUBLES, 1_000)
    many = rng.integers(-(2**63), 2**63 - 1, 7_000).view(np.float64)
    decimals = np.round(rng.normal(50, 1, 7_000), 3)
    for part in (few, many, decimals):
        rows = stored(np.full(7_000, 4), AT + np.arange(7_000), part)
        assert bits(by_polars(rows)).equals(bits(rows))


def test_more_distinct_values_than_a_dictionary_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "DICTIONARY_MAX", 100)
    rows = plant(16, 5_000)
    assert enc.RLE_DICTIONARY not in pages(rows)
    assert bits(by_polars(rows)).equals(bits(rows))


def test_texts_that_hardly_repeat_need_no_dictionary() -> None:
    count = 3_000
    texts: list[str | None] = [None if n % 7 == 0 else f"Störung {n} 报警" for n in range(count)]
    rows = stored(np.full(count, 1), AT + np.arange(count), [None] * count, texts)
    assert by_polars(rows).equals(rows)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=400))
def test_differences_come_back_whatever_the_numbers(numbers: list[int]) -> None:
    """Read by Polars, out of a file whose times are differences."""
    column = np.array(numbers, np.int64)
    chunk = parquet.Chunk(
        [parquet.Page(len(column), enc.DELTA_BINARY_PACKED, enc.delta_binary_packed(column))]
    )
    assert (read_numbers(chunk, len(column)) == column).all()


def read_numbers(chunk: parquet.Chunk, count: int) -> npt.NDArray[np.int64]:
    """Of a file with the one column ``tag_id``."""
    body, raw = parquet._compressed(chunk)
    size = sum(map(len, body))
    encodings = sorted({page.encoding for page in chunk.pages} | {enc.RLE})
    thrift = parquet.Struct
    about = thrift().i32(1, 2).i32s(2, encodings).binaries(3, [b"tag_id"]).i32(4, 6)
    about.i64(5, count).i64(6, raw).i64(7, size).i64(9, 4)
    group = thrift().structs(1, [thrift().i64(2, 0).struct(3, about)]).i64(2, raw).i64(3, count)
    root = thrift().binary(4, b"schema").i32(5, 1)
    element = thrift().i32(1, 2).i32(3, 0).binary(4, b"tag_id")
    footer = bytes(thrift().i32(1, 1).structs(2, [root, element]).i64(3, count).structs(4, [group]))
    end = footer + len(footer).to_bytes(4, "little") + b"PAR1"
    return pl.read_parquet(io.BytesIO(b"PAR1" + b"".join(body) + end))["tag_id"].to_numpy()


def test_a_query_reads_only_row_groups_that_can_match(tmp_path: Path) -> None:
    """Minima and maxima are such that Polars may leave row groups out, and leaves out no wrong one."""
    rows = plant(300, 2_000)
    path = tmp_path / "file.parquet"
    path.write_bytes(encode(rows))
    spans = list(row_groups(rows["tag_id"].to_numpy()))
    assert len(spans) > 1
    assert [s for s, _ in spans[1:]] == [e for _, e in spans[:-1]]
    for tag_id in (0, 131, 299):
        read = pl.scan_parquet(path).filter(pl.col("tag_id") == tag_id).collect()
        assert read.equals(rows.filter(pl.col("tag_id") == tag_id))


def test_the_table_opens_elsewhere_with_the_same_rows(tmp_path: Path) -> None:
    """DataFusion (the reader of delta-rs, in Rust) shares no code with Polars' reader."""
    rows = plant(40, 3_000)
    table = open_table(tmp_path, ManualClock())
    batch = rows.with_columns(pl.col("status").cast(pl.UInt32))
    table.commit([write_file(tmp_path, file_name(1, 0, "d1"), batch, 0)])
    builder = QueryBuilder().register("samples", DeltaTable(tmp_path))
    found = builder.execute("SELECT * FROM samples ORDER BY tag_id, source_timestamp").read_all()
    read = pl.DataFrame(found).with_columns(pl.col("text").cast(pl.String))
    assert [field.name for field in DELTA_SCHEMA.fields] == read.columns
    assert bits(read.cast(dict(STORED_SCHEMA))).equals(bits(rows))


def optional(name: str) -> Any:
    """A foreign engine that the benches install; not needed by Headrace."""
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is not installed")


def test_duckdb_reads_the_same(tmp_path: Path) -> None:
    duckdb = optional("duckdb")
    rows = plant(40, 3_000)
    path = tmp_path / "file.parquet"
    path.write_bytes(encode(rows))
    columns = "tag_id, epoch_us(source_timestamp), value, status, epoch_us(received_timestamp)"
    found = duckdb.sql(f"SELECT {columns} FROM '{path}'").fetchall()
    expected = rows.drop("text").with_columns(pl.col("^.*timestamp$").to_physical())
    assert found == expected.rows()


def test_a_batch_is_the_same_after_a_closed_file(tmp_path: Path) -> None:
    batch = sort_unique(
        make_batch(
            np.array([3, 1, 1]),
            np.array([AT, AT + 5, AT]),
            np.array([1.0, np.nan, 3.0]),
            received_timestamp_us=np.array([AT, AT + 5, AT]),
        )
    )
    made = write_file(tmp_path, file_name(1, 0, "d1"), batch, 0)
    assert (made.tag_id_min, made.tag_id_max, made.rows) == (1, 3, 3)
    read = pl.read_parquet(tmp_path / made.path)
    assert bits(read).equals(bits(to_stored(batch)))
