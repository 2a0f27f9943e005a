"""Runs of alike metrics in a data payload, decoded as arrays instead of one by one.

A payload is ``08 <timestamp> (12 <length> <metric>)* 18 <seq>``, and a metric that reports by alias is
``10 <alias> 18 <timestamp> [20 <datatype>] (69 <double> | 65 <float>)`` (protobuf wire format). Metrics of one
message mostly have the same layout, so their bytes are a table: one row a metric. Every row is
checked against the first one's layout; what does not fit ends the run, and a message with anything
else in it is left to the protobuf runtime.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.edge.connectors.sparkplug.schema import DataType
from headrace.model.sample import Float64Array, Int64Array

RUN_MIN: Final = 4
_BYTES_MIN: Final = 800  # below, the protobuf runtime is quicker
_METRIC: Final = 0x12
TIMESTAMP: Final = 0x08
SEQ: Final = 0x18
_ALIAS: Final = 0x10
_AT: Final = 0x18
_DATATYPE: Final = 0x20
VALUES: Final = {
    0x69: ("<f8", int(DataType.DOUBLE)),
    0x65: ("<f4", int(DataType.FLOAT)),
}
_AT_BYTES_MAX: Final = 7  # 49 bits of milliseconds: beyond the year 19,000
_WEIGHTS: Final[Int64Array] = np.left_shift(np.int64(1), 7 * np.arange(_AT_BYTES_MAX))
_Bytes = npt.NDArray[np.uint8]


class Run(NamedTuple):
    """Alike metrics in a row; the arrays have shape (n,).

    Attributes:
        alias, at_ms: as sent.
        value: as float64.
        datatype: what the value's wire type says it is, DOUBLE or FLOAT.
    """

    alias: Int64Array
    at_ms: Int64Array
    value: Float64Array
    datatype: int


class DataMessage(NamedTuple):
    """A data payload that consists of runs only."""

    timestamp_ms: int
    seq: int
    runs: list[Run]


class Layout(NamedTuple):
    """Where a metric's parts are, in bytes from the metric's own tag."""

    size: int
    fixed: tuple[int, ...]
    more: tuple[int, ...]
    last: tuple[int, ...]
    alias: tuple[int, int]
    at: tuple[int, int]
    value: int
    kind: int

    @property
    def states_type(self) -> bool:
        """It states its type, in one byte just before the value's own tag."""
        return len(self.fixed) > 5


def decode_runs(body: bytes) -> DataMessage | None:
    """The message as arrays, or None when it is not of this simple shape; raises nothing.

    Example:
        >>> decode_runs(b"") is None
        True
    """
    if len(body) < _BYTES_MIN:
        return None
    table = np.frombuffer(body, np.uint8)
    timestamp_ms = seq = -1
    runs: list[Run] = []
    at, end = 0, len(body)
    while at < end:
        tag = body[at]
        if tag == _METRIC:
            layout = layout_at(body, at)
            if layout is None:
                return None
            rows = _rows(table, at, layout)
            if len(rows) < RUN_MIN:
                return None
            run = _run(rows, layout)
            if run is None:
                return None
            runs.append(run)
            at += len(rows) * layout.size
        elif tag in (TIMESTAMP, SEQ):
            value, at = varint(body, at + 1)
            if value < 0:
                return None
            timestamp_ms, seq = (value, seq) if tag == TIMESTAMP else (timestamp_ms, value)
        else:
            return None
    return DataMessage(timestamp_ms, seq, runs) if runs and timestamp_ms > 0 <= seq else None


def varint(body: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and where it ends; -1 when it is cut off or longer than 9 bytes."""
    value = shift = 0
    while at < len(body) and shift < 63:
        byte = body[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    return -1, at


def layout_at(body: bytes, start: int) -> Layout | None:
    """The layout of the metric at ``start``, when it has just alias, time, type and value."""
    if start + 2 > len(body) or body[start + 1] >= 128:
        return None
    size = body[start + 1] + 2
    stop = start + size
    if stop > len(body):
        return None
    fixed: list[int] = [0, 1]
    more: list[int] = []
    last: list[int] = []
    spans: dict[int, tuple[int, int]] = {}
    at = start + 2
    while at < stop:
        tag = body[at]
        fixed.append(at - start)
        if tag in VALUES:
            width = 8 if tag == 0x69 else 4
            if at + 1 + width != stop or _ALIAS not in spans or _AT not in spans:
                return None
            return Layout(
                size,
                tuple(fixed),
                tuple(more),
                tuple(last),
                spans[_ALIAS],
                spans[_AT],
                at + 1 - start,
                tag,
            )
        if tag not in (_ALIAS, _AT, _DATATYPE) or tag in spans:
            return None
        value, after = varint(body, at + 1)
        if value < 0 or after > stop or (tag == _AT and after - at - 1 > _AT_BYTES_MAX):
            return None
        spans[tag] = (at + 1 - start, after - start)
        if tag == _DATATYPE:
            fixed += range(at + 1 - start, after - start)
        else:
            more += range(at + 1 - start, after - 1 - start)
            last.append(after - 1 - start)
        at = after
    return None


def _rows(table: _Bytes, start: int, layout: Layout) -> npt.NDArray[np.uint8]:
    """The rows from ``start`` on that have the layout, shape (n, size)."""
    count = (len(table) - start) // layout.size
    rows = table[start : start + count * layout.size].reshape(count, layout.size)
    fixed = list(layout.fixed)
    good = (rows[:, fixed] == rows[0, fixed]).all(axis=1)
    if layout.more:
        good &= (rows[:, list(layout.more)] >= 128).all(axis=1)
    good &= (rows[:, list(layout.last)] < 128).all(axis=1)
    return rows if good.all() else rows[: int(np.argmin(good))]


def _run(rows: npt.NDArray[np.uint8], layout: Layout) -> Run | None:
    if layout.alias[1] - layout.alias[0] > _AT_BYTES_MAX:
        return None
    dtype, datatype = VALUES[layout.kind]
    if layout.states_type:
        stated = int(rows[0, layout.value - 2])
        if stated != datatype:
            return None
    width = int(dtype[-1])
    values: Any = rows[:, layout.value : layout.value + width].copy().view(dtype)[:, 0]
    return Run(
        _numbers(rows, layout.alias),
        _numbers(rows, layout.at),
        values.astype(np.float64),
        datatype,
    )


def _numbers(rows: npt.NDArray[np.uint8], span: tuple[int, int]) -> Int64Array:
    """Varints of equal length: seven bits a byte, the lowest first."""
    first, after = span
    numbers: Int64Array = (rows[:, first:after] & 127) @ _WEIGHTS[: after - first]
    return numbers
