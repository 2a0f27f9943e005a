"""Batches from columns of any fitting type have exactly the sample schema."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as some

from headrace.model.errors import Corrupt
from headrace.model.sample import COLUMNS, SCHEMA, check_batch, concat_batches, make_batch

row = some.tuples(
    some.integers(0, 2**63 - 1),
    some.integers(-(2**53), 2**53),
    some.floats(allow_nan=True),
    some.integers(0, 2**32 - 1),
    some.one_of(some.none(), some.text(max_size=5)),
    some.booleans(),
)


@given(some.lists(row, max_size=20), some.booleans(), some.booleans(), some.booleans())
def test_a_batch_holds_what_it_was_made_of(rows, one_status, one_time, with_text):
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    status = 7 if one_status else np.array(columns[3], np.uint32)
    received = 9 if one_time else np.array(columns[1], np.int64) + 1
    batch = make_batch(
        np.array(columns[0], np.int64),
        np.array(columns[1], np.int64),
        np.array(columns[2], np.float64),
        status=status,
        received_timestamp_us=received,
        text=list(columns[4]) if with_text else None,
        value_is_null=np.array(columns[5], np.bool_),
    )
    check_batch(batch)
    assert dict(batch.schema) == SCHEMA and tuple(batch.columns) == COLUMNS
    assert batch["tag_id"].to_list() == list(columns[0])
    assert batch["source_timestamp"].to_physical().to_list() == list(columns[1])
    assert batch["text"].to_list() == (list(columns[4]) if with_text else [None] * len(rows))
    assert batch["status"].to_list() == ([7] * len(rows) if one_status else list(columns[3]))
    wanted = [None if null else value for value, null in zip(columns[2], columns[5], strict=True)]
    assert pl.Series(wanted, dtype=pl.Float64).equals(batch["value"].alias(""), null_equal=True)
    assert concat_batches([batch, batch]).height == 2 * len(rows)


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.int64, np.float32])
def test_narrow_types_are_widened(kind):
    numbers = np.array([1, 2, 3], kind)
    batch = make_batch(numbers.astype(np.int32), numbers.astype(np.int32), numbers,
                       status=numbers.astype(np.int64), received_timestamp_us=numbers)  # fmt: skip
    assert check_batch(batch)["value"].to_list() == [1.0, 2.0, 3.0]


def test_a_status_that_is_no_code_is_refused():
    with pytest.raises(pl.exceptions.InvalidOperationError):
        make_batch(np.array([1]), np.array([1]), np.array([1.0]), status=np.array([-1]),
                   received_timestamp_us=1)  # fmt: skip


def test_a_batch_of_another_shape_is_corrupt():
    batch = make_batch(np.array([1]), np.array([1]), np.array([1.0]), received_timestamp_us=1)
    with pytest.raises(Corrupt, match="MODEL-1001"):
        check_batch(batch.with_columns(pl.col("tag_id").cast(pl.Int32)))
    with pytest.raises(Corrupt, match="null in tag_id"):
        check_batch(batch.with_columns(pl.lit(None, pl.Int64).alias("tag_id")))
