"""How much memory an Arrow IPC stream asks for, before anybody gives it.

A compressed buffer begins with the length that it says it has (Arrow columnar format, "Compressed
buffers"), and a reader makes room for it at once. LZ4 packs 255 to 1: 8 MB on the wire may ask for 2 GB.
Here the lengths are added up; nothing is unpacked.
"""

from __future__ import annotations

import struct
from typing import Final

_CONTINUES: Final = 0xFFFFFFFF
_DICTIONARY, _RECORDS = 2, 3
_BUFFERS_MAX: Final = 1_000
_MESSAGES_MAX: Final = 10_000


def asked_bytes(stream: bytes) -> int:
    """The bytes of all buffers of a stream's record batches when they are unpacked.

    Raises:
        ValueError: what cannot be followed, or uses what our frames never have (dictionaries).

    Example:
        >>> import io
        >>> import polars as pl
        >>> body = io.BytesIO()
        >>> pl.DataFrame({"a": [0] * 8_000}).write_ipc_stream(body, compression="lz4")
        >>> len(body.getvalue()) < 2_000, asked_bytes(body.getvalue())
        (True, 64000)
    """
    place, total = 0, 0
    try:
        for _ in range(_MESSAGES_MAX):
            if place >= len(stream):
                return total
            (length,) = struct.unpack_from("<I", stream, place)
            place += 4
            if length == _CONTINUES:
                (length,) = struct.unpack_from("<I", stream, place)
                place += 4
            if length == 0:
                return total
            kind, header, body_bytes = _message(stream, place)
            place += length
            if kind == _DICTIONARY:
                raise ValueError("it has a dictionary")
            if kind == _RECORDS:
                total += _of_records(stream, header, place)
            place += body_bytes
    except struct.error as error:
        raise ValueError("it points outside of itself") from error
    raise ValueError(f"it has more than {_MESSAGES_MAX} messages")


def _message(stream: bytes, place: int) -> tuple[int, int, int]:
    """Kind, place of the header and length of the body of a flatbuffers ``Message``."""
    (root,) = struct.unpack_from("<I", stream, place)
    table = place + root
    kind, header, body = (_field(stream, table, number) for number in (1, 2, 3))
    if not kind or not header:
        raise ValueError("a message has no header")
    (offset,) = struct.unpack_from("<I", stream, header)
    body_bytes = struct.unpack_from("<q", stream, body)[0] if body else 0
    if body_bytes < 0:
        raise ValueError("a body has a negative length")
    return stream[kind], header + offset, body_bytes


def _of_records(stream: bytes, table: int, body: int) -> int:
    """What the buffers of one ``RecordBatch`` ask for."""
    vector, compression = _field(stream, table, 2), _field(stream, table, 3)
    if not vector:
        return 0
    (offset,) = struct.unpack_from("<I", stream, vector)
    (count,) = struct.unpack_from("<I", stream, vector + offset)
    if count > _BUFFERS_MAX:
        raise ValueError(f"a batch has {count} buffers")
    total = 0
    for number in range(count):
        start, length = struct.unpack_from("<qq", stream, vector + offset + 4 + 16 * number)
        if start < 0 or length < 0:
            raise ValueError("a buffer lies outside")
        if compression and length >= 8:
            (asked,) = struct.unpack_from("<q", stream, body + start)
            length = length if asked == -1 else asked
        if length < 0:
            raise ValueError("a buffer has a negative length")
        total += length
    return total


def _field(stream: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffers table lies; 0 when it is left out."""
    (back,) = struct.unpack_from("<i", stream, table)
    if not 0 <= table - back < len(stream):
        raise ValueError("a table lies outside")
    (size,) = struct.unpack_from("<H", stream, table - back)
    at = 4 + 2 * number
    if at + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", stream, table - back + at)
    place = table + offset if offset else 0
    if place >= len(stream):
        raise ValueError("a field lies outside")
    return int(place)
