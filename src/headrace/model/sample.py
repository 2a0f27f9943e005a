"""A batch of samples: a Polars frame with exactly six columns.

==================== ====================== ======================================================
column               type                   meaning
==================== ====================== ======================================================
tag_id               Int64                  permanent 63-bit id of the tag
source_timestamp     Datetime(us, UTC)      the device's time of the value
value                Float64                the number; null when the sample has none
text                 String                 text values; also the exact decimal digits of an integer
                                            that float64 cannot hold (above 2**53)
status               UInt32                 OPC UA StatusCode, unchanged to the bit
received_timestamp   Datetime(us, UTC)      the edge's clock when the value arrived
==================== ====================== ======================================================

There is no Python object per sample anywhere on the data path: everything takes and gives batches.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.model.errors import Corrupt

TIMESTAMP: Final = pl.Datetime("us", "UTC")
SCHEMA: Final[dict[str, Any]] = {
    "tag_id": pl.Int64(),
    "source_timestamp": TIMESTAMP,
    "value": pl.Float64(),
    "text": pl.String(),
    "status": pl.UInt32(),
    "received_timestamp": TIMESTAMP,
}
COLUMNS: Final = tuple(SCHEMA)
_INT64: Final = pl.Int64()
_UINT32: Final = pl.UInt32()
_FLOAT64: Final = pl.Float64()
_NO_TEXT: Final = pl.Series("text", [None], dtype=pl.String)
EXACT_INTEGER_MAX: Final = 2**53

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]


def empty_batch() -> pl.DataFrame:
    """A batch of no samples.

    Example:
        >>> empty_batch().shape
        (0, 6)
    """
    return pl.DataFrame(schema=SCHEMA)


def make_batch(
    tag_id: Int64Array,
    source_timestamp_us: Int64Array,
    value: Float64Array,
    *,
    status: npt.NDArray[np.uint32] | int = 0,
    received_timestamp_us: Int64Array | int,
    text: pl.Series | list[str | None] | None = None,
    value_is_null: npt.NDArray[np.bool_] | None = None,
) -> pl.DataFrame:
    """A batch from columns; arrays are taken over without a copy where Polars can.

    Args:
        tag_id: int64, shape (n,).
        source_timestamp_us: int64, shape (n,), UTC microseconds.
        value: float64, shape (n,). NaN stays NaN: it is a value a device may send.
        status: uint32, shape (n,), or one StatusCode for all.
        received_timestamp_us: int64, shape (n,), or one time for all.
        text: n strings or nulls; None means no sample carries text.
        value_is_null: bool, shape (n,): where the sample has no number (text, or a bad read).

    Returns:
        A frame with exactly :data:`SCHEMA`.

    Example:
        >>> make_batch(np.array([7]), np.array([0]), np.array([1.5]), received_timestamp_us=5)["value"][0]
        1.5
    """
    n = len(tag_id)
    values = _series("value", value, _FLOAT64)
    if value_is_null is not None and value_is_null.any():
        values = values.set(pl.Series(value_is_null), None)
    texts = (
        _NO_TEXT.new_from_index(0, n) if text is None else pl.Series("text", text, dtype=pl.String)
    )
    statuses = np.full(n, status, np.uint32) if isinstance(status, int) else status
    received = (
        np.full(n, received_timestamp_us, np.int64)
        if isinstance(received_timestamp_us, int)
        else received_timestamp_us
    )
    return pl.DataFrame(
        [
            _series("tag_id", tag_id, _INT64),
            _series("source_timestamp", source_timestamp_us, _INT64).cast(TIMESTAMP),
            values,
            texts,
            _series("status", statuses, _UINT32),
            _series("received_timestamp", received, _INT64).cast(TIMESTAMP),
        ]
    )


def _series(name: str, array: npt.NDArray[Any], dtype: pl.DataType) -> pl.Series:
    # Without dtype= Polars takes an array as it is, three times as fast as when it is told its type.
    series = pl.Series(name, array)
    return series if series.dtype == dtype else series.cast(dtype)


def microseconds(times: pl.Series) -> Int64Array:
    """A time column as int64, shape (n,), without a copy; it has no nulls.

    Example:
        >>> microseconds(pl.Series([5]).cast(TIMESTAMP)).tolist()
        [5]
    """
    # Not to_physical: a method of expressions starts the engine, which costs more than a poll.
    return times.to_numpy().view(np.int64)


def concat_batches(batches: list[pl.DataFrame]) -> pl.DataFrame:
    """One batch from several, in their order; none gives an empty batch."""
    if not batches:
        return empty_batch()
    return batches[0] if len(batches) == 1 else pl.concat(batches, rechunk=True)


def check_batch(batch: pl.DataFrame) -> pl.DataFrame:
    """The batch itself when its columns are right.

    Raises:
        Corrupt: MODEL-1001 when names, order or types differ, or an id, time or status is null.

    Example:
        >>> check_batch(empty_batch()).height
        0
    """
    if dict(batch.schema) != SCHEMA or tuple(batch.columns) != COLUMNS:
        raise Corrupt(
            "MODEL-1001", f"a batch has columns {dict(batch.schema)}, not the sample schema"
        )
    for name in ("tag_id", "source_timestamp", "status", "received_timestamp"):
        if batch[name].null_count():
            raise Corrupt("MODEL-1001", f"a batch has null in {name}")
    return batch
