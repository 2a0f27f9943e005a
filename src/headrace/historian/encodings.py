"""Parquet's encodings as whole-array work: bytes of a page from a numpy array.

A dictionary's indices are packed into 1, 2 or 3 whole bytes rather than into as few bits as they need: zstd
finds repeats in bytes, which makes up for more than the bits that this wastes.

Source: Apache Parquet, ``Encodings.md``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from headrace.historian.thrift import varint, zigzag

PLAIN: Final = 0
RLE: Final = 3
DELTA_BINARY_PACKED: Final = 5
RLE_DICTIONARY: Final = 8
BYTE_STREAM_SPLIT: Final = 9

DELTA_BLOCK: Final = 128
DELTA_MINIBLOCKS: Final = 4
_MINIBLOCK: Final = DELTA_BLOCK // DELTA_MINIBLOCKS
_ROWS_A_RUN: Final = 16
Bits = npt.NDArray[np.int64]
Array = npt.NDArray[np.int64] | npt.NDArray[np.float64]


def plain(values: Array) -> bytes:
    """Eight bytes a value, little-endian (PLAIN)."""
    return values.tobytes()


def byte_stream_split(values: Array) -> bytes:
    """First the lowest byte of all values, then the second of all, and so on (BYTE_STREAM_SPLIT).

    Example:
        >>> byte_stream_split(np.array([1, 2 + (3 << 8)]))[:4].hex()
        '01020003'
    """
    return np.ascontiguousarray(values.view(np.uint8).reshape(-1, 8).T).tobytes()


def delta_binary_packed(values: Bits) -> bytes:
    """Differences, each 128 less their smallest, each 32 in as few bits as they need.

    Args:
        values: int64, at least one; differences wrap around as the format says.

    Example:
        >>> delta_binary_packed(np.array([7, 9, 11])).hex()
        '800104030e0400000000'
    """
    head = varint(DELTA_BLOCK) + varint(DELTA_MINIBLOCKS) + varint(len(values))
    head += zigzag(int(values[0]))
    if len(values) == 1:
        return head
    delta = np.diff(values)  # wraps
    blocks = -(-len(delta) // DELTA_BLOCK)
    filled = np.full(blocks * DELTA_BLOCK, delta[-1])
    filled[: len(delta)] = delta
    table = filled.reshape(blocks, DELTA_BLOCK)
    lowest = table.min(axis=1)
    above = (table - lowest[:, None]).view(np.uint64).reshape(-1, _MINIBLOCK)
    width = _bit_lengths(above.max(axis=1))
    used = -(-len(delta) // _MINIBLOCK)
    width[used:] = 0  # miniblocks after the last value have no data
    packed, ends = _pack(above, width)
    parts = [head]
    ends = np.append(0, ends[DELTA_MINIBLOCKS - 1 :: DELTA_MINIBLOCKS])
    widths = width.astype(np.uint8).reshape(blocks, DELTA_MINIBLOCKS)
    for block in range(blocks):
        parts += [
            zigzag(int(lowest[block])),
            widths[block].tobytes(),
            packed[ends[block] : ends[block + 1]].tobytes(),
        ]
    return b"".join(parts)


def _bit_lengths(numbers: npt.NDArray[np.uint64]) -> Bits:
    """Bits that each number needs; 0 for 0."""
    length = np.zeros(len(numbers), np.int64)
    rest = numbers.copy()
    for step in (32, 16, 8, 4, 2, 1):
        high = rest >> np.uint64(step) != 0
        length[high] += step
        rest[high] >>= np.uint64(step)
    length[rest != 0] += 1
    return length


def _pack(
    numbers: npt.NDArray[np.uint64], width: Bits
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Rows of 32 numbers, each row in its own bit width; gives the bytes and where each row ends."""
    lengths = width * (_MINIBLOCK // 8)
    ends = np.cumsum(lengths)
    out = np.empty(int(ends[-1]), np.uint8)
    for bits in np.unique(width[width > 0]).tolist():
        rows = np.flatnonzero(width == bits)
        octets = numbers[rows].view(np.uint8).reshape(len(rows), _MINIBLOCK, 8)
        single = np.unpackbits(octets, axis=-1, bitorder="little")[:, :, :bits]
        packed = np.packbits(single.reshape(len(rows), -1), axis=-1, bitorder="little")
        places = (ends - lengths)[rows][:, None] + np.arange(packed.shape[1])
        out[places] = packed
    return out, ends


def index_width(entries: int) -> int:
    """Bits of an index into a dictionary of so many entries: 8, 16 or 24.

    Example:
        >>> index_width(256), index_width(257)
        (8, 16)
    """
    return 8 if entries <= 1 << 8 else 16 if entries <= 1 << 16 else 24


def dictionary_indices(indices: npt.NDArray[np.uint32], width: int) -> bytes:
    """Indices as runs where they repeat, else packed (RLE_DICTIONARY): the body of a data page.

    Args:
        indices: below ``2 ** width``.
        width: of :func:`index_width`.

    Example:
        >>> dictionary_indices(np.full(300, 5, np.uint32), 8).hex()
        '08d80405'
    """
    head = bytes([width])
    starts = np.flatnonzero(np.append(True, indices[1:] != indices[:-1]))
    if len(starts) * _ROWS_A_RUN > len(indices) and len(indices) > 1:
        return head + _packed(indices, width)
    counts = np.diff(np.append(starts, len(indices)))
    size = width // 8
    return head + b"".join(
        varint(count << 1) + index.to_bytes(size, "little")
        for count, index in zip(counts.tolist(), indices[starts].tolist(), strict=True)
    )


def _packed(indices: npt.NDArray[np.uint32], width: int) -> bytes:
    """One bit-packed run of whole groups of eight; what fills the last group is never read."""
    groups = -(-len(indices) // 8)
    filled = np.zeros(groups * 8, "<u4")
    filled[: len(indices)] = indices
    octets = filled.view(np.uint8).reshape(-1, 4)[:, : width // 8]
    return varint(groups << 1 | 1) + octets.tobytes()


def levels(present: npt.NDArray[np.bool_] | None, count: int) -> bytes:
    """Definition levels of an optional column: which values are there; with their length before them.

    Args:
        present: None when all are.
        count: of values, nulls among them.
    """
    if present is None or present.all() or not present.any():
        here = present is None or bool(present.all())
        body = varint(count << 1) + (b"\x01" if here else b"\x00")
    else:
        bits = np.packbits(present, bitorder="little")
        body = varint(len(bits) << 1 | 1) + bits.tobytes()
    return len(body).to_bytes(4, "little") + body


def plain_bytes(data: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64]) -> bytes:
    """Strings, each after its length in four bytes (PLAIN of BYTE_ARRAY).

    Args:
        data: all strings' bytes, one after another.
        lengths: bytes of each.

    Example:
        >>> plain_bytes(np.frombuffer(b"abc", np.uint8), np.array([1, 2])).hex()
        '0100000061020000006263'
    """
    count = len(lengths)
    out = np.empty(len(data) + 4 * count, np.uint8)
    begins = np.cumsum(lengths) - lengths + 4 * np.arange(count)
    heads = begins[:, None] + np.arange(4)
    out[heads] = lengths.astype("<u4").view(np.uint8).reshape(-1, 4)
    shift = np.repeat(4 * np.arange(1, count + 1), lengths)
    out[np.arange(len(data)) + shift] = data
    return out.tobytes()
