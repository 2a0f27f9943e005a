"""From the bytes of a poll to columns: one gather a data type, never register by register.

The answers of all blocks lie one behind the other in one buffer (bits as one byte each). Where each
value's bytes are, byte order included, is an index matrix that is computed once a plan; a poll then
costs one numpy gather for each data type that occurs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headrace.edge.connectors.modbus.datatype import DataType, Order, permutation
from headrace.edge.connectors.modbus.statuses import BAD_DECODING_ERROR
from headrace.model.sample import EXACT_INTEGER_MAX, Float64Array

IndexArray = npt.NDArray[np.intp]
_LIMIT = float(EXACT_INTEGER_MAX)


@dataclass(frozen=True)
class Place:
    """Where one value is in the buffer of a poll: first byte, type and byte order."""

    offset: int
    data_type: DataType
    order: Order


@dataclass
class Columns:
    """Decoded values of a poll, in the order of the places.

    Attributes:
        value: float64, shape (n,); meaningless where ``is_null``.
        is_null: bool, shape (n,): text, or not decodable.
        text: n strings or nulls; None when no value carries text.
        status: uint32, shape (n,).
    """

    value: Float64Array
    is_null: npt.NDArray[np.bool_]
    text: list[str | None] | None
    status: npt.NDArray[np.uint32]


@dataclass(frozen=True)
class _Gather:
    data_type: DataType
    rows: IndexArray  # which places, shape (m,)
    index: IndexArray  # their bytes in the buffer, big-endian, shape (m, size)


class ColumnDecoder:
    """Decodes a poll's buffer into columns.

    Args:
        places: where the values are, shape (n,).
        encoding: of strings.

    Example:
        >>> from headrace.edge.connectors.modbus.datatype import find_type
        >>> decoder = ColumnDecoder([Place(0, find_type("float32"), "CDAB")], "utf-8")
        >>> float(decoder.decode(bytes.fromhex("00003f80")).value[0])
        1.0
    """

    def __init__(self, places: Sequence[Place], encoding: str) -> None:
        self._count = len(places)
        self._encoding = encoding
        rows: dict[DataType, list[int]] = {}
        for row, place in enumerate(places):
            rows.setdefault(place.data_type, []).append(row)
        self._gathers = [
            _Gather(
                data_type,
                np.array(members, np.intp),
                np.array([_bytes_of(places[row]) for row in members], np.intp),
            )
            for data_type, members in rows.items()
        ]

    def decode(self, buffer: bytes | bytearray) -> Columns:
        """The columns of one poll's buffer."""
        raw = np.frombuffer(buffer, np.uint8)
        columns = Columns(
            np.zeros(self._count),
            np.zeros(self._count, np.bool_),
            None,
            np.zeros(self._count, np.uint32),
        )
        with np.errstate(invalid="ignore"):  # a signalling NaN is a value that a device may send
            for gather in self._gathers:
                self._decode(gather, raw[gather.index], columns)
        return columns

    def _decode(self, gather: _Gather, raw: npt.NDArray[np.uint8], columns: Columns) -> None:
        kind = gather.data_type.kind
        if kind == "string":
            self._decode_text(gather, raw, columns)
            return
        if kind == "coil":
            columns.value[gather.rows] = raw[:, 0]
            return
        numbers = raw.view(gather.data_type.numpy)[:, 0]
        if kind == "bit":
            columns.value[gather.rows] = numbers >> gather.data_type.bit & 1
        elif kind == "bcd":
            _decode_bcd(gather, numbers, columns)
        else:
            columns.value[gather.rows] = numbers
            if gather.data_type.size == 8 and kind != "float":
                _keep_exact(gather, numbers, columns)

    def _decode_text(self, gather: _Gather, raw: npt.NDArray[np.uint8], columns: Columns) -> None:
        texts = columns.text = columns.text or [None] * self._count
        columns.is_null[gather.rows] = True
        for row, letters in zip(gather.rows.tolist(), raw, strict=True):
            body = letters.tobytes()[: gather.data_type.size].split(b"\0", 1)[0]
            try:
                texts[row] = body.decode(self._encoding)
            except UnicodeDecodeError:
                columns.status[row] = BAD_DECODING_ERROR


def _bytes_of(place: Place) -> list[int]:
    if place.data_type.kind == "coil":
        return [place.offset]
    return [place.offset + at for at in permutation(place.data_type, place.order)]


def _decode_bcd(
    gather: _Gather, numbers: npt.NDArray[np.unsignedinteger], columns: Columns
) -> None:
    digits = 2 * gather.data_type.size
    shifts = np.arange(4 * (digits - 1), -1, -4, dtype=np.uint32)
    nibbles = numbers.astype(np.uint32)[:, None] >> shifts & np.uint32(15)
    columns.value[gather.rows] = nibbles @ (10.0 ** np.arange(digits - 1, -1, -1))
    wrong = gather.rows[(nibbles > 9).any(axis=1)]
    columns.is_null[wrong] = True
    columns.status[wrong] = BAD_DECODING_ERROR


def _keep_exact(gather: _Gather, numbers: npt.NDArray[np.integer], columns: Columns) -> None:
    """Integers that float64 may not hold keep their digits in text (rule of model.sample)."""
    values = columns.value[gather.rows]
    great = np.flatnonzero((values >= _LIMIT) | (values <= -_LIMIT))
    if not great.size:
        return
    texts = columns.text = columns.text or [None] * len(columns.value)
    for row, number in zip(gather.rows[great].tolist(), numbers[great].tolist(), strict=True):
        if abs(number) > EXACT_INTEGER_MAX:
            texts[row] = str(number)
