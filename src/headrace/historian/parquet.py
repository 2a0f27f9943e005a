"""Closed files: Parquet written for size, each column and tag group in the encoding that came out smallest.

::

    file       row groups of whole tags where they fit, 262,144 rows at most
    row group  one chunk a column
    chunk      [dictionary page] and data pages; pages of one chunk may differ in encoding
    footer     schema, places, minima and maxima (Thrift)

Any reader of Parquet reads them: nothing but PLAIN, RLE_DICTIONARY, BYTE_STREAM_SPLIT, DELTA_BINARY_PACKED and
zstd is used. Polars, which writes the files of the fast path, leaves no choice of encoding.

How it is chosen: times compete as byte planes and as differences, whole chunks against each other; byte planes
win where many tags share their times, since zstd finds them again. Values are tried tag by tag (tags of few
samples together): a dictionary for set-points and coarse readings, byte planes for full-precision signals,
plain doubles where zstd finds whole values again; then all of that together competes with one plain page.

Source: Apache Parquet, ``README.md``, ``Encodings.md`` and ``parquet.thrift`` of parquet-format 2.11.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.historian import encodings as enc
from headrace.historian.thrift import Struct

try:
    from compression import zstd  # type: ignore[import-not-found,unused-ignore] # from Python 3.14 on
except ImportError:
    from backports import zstd

ROW_GROUP_ROWS: Final = 262_144
SECTION_ROWS: Final = 1_024
SAMPLE_ROWS: Final = 4_096
DICTIONARY_MAX: Final = 1 << 16
TRIAL_LEVEL: Final = 5
LEVEL: Final = 12
PLAIN_LEVEL: Final = 17
"""Of plain doubles: only a deep search finds whole values again, which is all there is to find."""
ENTRY_BYTES: Final = 6
CREATED_BY: Final = b"headrace"
_MAGIC: Final = b"PAR1"
_ZSTD: Final = 6
_INT64, _DOUBLE, _BYTE_ARRAY = 2, 5, 6
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
Bits = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_] | None


@dataclass(frozen=True)
class Column:
    """One column of the file.

    Attributes:
        physical: Parquet's type number.
        kind: what is in it, for the logical type: ``number``, ``timestamp`` or ``text``.
    """

    name: str
    physical: int
    optional: bool = False
    kind: str = "number"


FILE_COLUMNS: Final = (
    Column("tag_id", _INT64),
    Column("source_timestamp", _INT64, kind="timestamp"),
    Column("value", _DOUBLE, optional=True),
    Column("text", _BYTE_ARRAY, optional=True, kind="text"),
    Column("status", _INT64),
    Column("received_timestamp", _INT64, kind="timestamp"),
)


@dataclass(frozen=True)
class Page:
    """A data page before compression. ``count`` has the nulls in it."""

    count: int
    encoding: int
    body: bytes


@dataclass(frozen=True)
class Chunk:
    """One column of one row group before compression; ``entries`` of its dictionary, if any."""

    pages: list[Page]
    dictionary: bytes = b""
    entries: int = 0

    def trial_size(self) -> int:
        """Bytes after compression, about."""
        bodies = [page.body for page in self.pages] + [self.dictionary]
        return sum(len(zstd.compress(body, level=TRIAL_LEVEL)) for body in bodies)


def encode(rows: pl.DataFrame) -> bytes:
    """A whole Parquet file.

    Args:
        rows: with the columns of the table (see :func:`headrace.historian.layout.to_stored`), sorted by
            tag and time, at least one.

    Example:
        >>> import io
        >>> from headrace.historian.layout import to_stored
        >>> from headrace.model.sample import make_batch
        >>> two = make_batch(np.array([7, 7]), np.array([0, 5]), np.array([1.5, -0.0]),
        ...                  received_timestamp_us=np.array([1, 6]))
        >>> rows = to_stored(two)
        >>> pl.read_parquet(io.BytesIO(encode(rows))).equals(rows)
        True
    """
    parts = [_MAGIC]
    place = len(_MAGIC)
    groups: list[Struct] = []
    for start, stop in row_groups(rows["tag_id"].to_numpy()):
        group, body = _row_group(rows.slice(start, stop - start), place, len(groups))
        groups.append(group)
        parts += body
        place += sum(map(len, body))
    footer = bytes(_file_metadata(rows.height, groups))
    parts += [footer, len(footer).to_bytes(4, "little"), _MAGIC]
    return b"".join(parts)


def row_groups(tag_id: Bits) -> Iterator[tuple[int, int]]:
    """Where row groups begin and end: between two tags, unless that would make one less than half full.

    Example:
        >>> ids = np.repeat([1, 2], [200_000, 100_000])
        >>> list(row_groups(ids))
        [(0, 200000), (200000, 300000)]
    """
    start = 0
    while start < len(tag_id):
        stop = min(start + ROW_GROUP_ROWS, len(tag_id))
        if stop < len(tag_id):
            border = int(np.searchsorted(tag_id, tag_id[stop]))
            if border - start >= ROW_GROUP_ROWS // 2:
                stop = border
        yield start, stop
        start = stop


def _row_group(rows: pl.DataFrame, place: int, ordinal: int) -> tuple[Struct, list[bytes]]:
    """The footer's entry of a row group, and its bytes, which begin at ``place`` of the file."""
    tag_id = rows["tag_id"].to_numpy()
    chunks, parts = [], []
    raw_total, at = 0, place
    for column in FILE_COLUMNS:
        series = rows[column.name]
        chunk = _chunk(column, series, tag_id)
        body, raw = _compressed(chunk)
        size = sum(map(len, body))
        first_page = at + (len(body[0]) if chunk.entries else 0)
        encodings = sorted({page.encoding for page in chunk.pages} | {enc.RLE, enc.PLAIN})
        metadata = Struct().i32(1, column.physical).i32s(2, encodings)
        metadata.binaries(3, [column.name.encode()]).i32(4, _ZSTD).i64(5, rows.height)
        metadata.i64(6, raw).i64(7, size).i64(9, first_page)
        if chunk.entries:
            metadata.i64(11, at)
        metadata.struct(12, _statistics(series))
        chunks.append(Struct().i64(2, 0).struct(3, metadata))
        parts += body
        raw_total += raw
        at += size
    order = [Struct().i32(1, place_).boolean(2, False).boolean(3, False) for place_ in (0, 1)]
    group = Struct().structs(1, chunks).i64(2, raw_total).i64(3, rows.height).structs(4, order)
    return group.i64(5, place).i64(6, at - place).i16(7, ordinal), parts


def _compressed(chunk: Chunk) -> tuple[list[bytes], int]:
    """Pages with their headers, and the size they have uncompressed; the dictionary goes first."""
    parts = []
    raw = 0
    if chunk.entries:
        about = Struct().i32(1, chunk.entries).i32(2, enc.PLAIN)
        page, size = _page(_DICTIONARY_PAGE, 7, about, chunk.dictionary, LEVEL)
        parts.append(page)
        raw += size
    for data in chunk.pages:
        about = Struct().i32(1, data.count).i32(2, data.encoding).i32(3, enc.RLE).i32(4, enc.RLE)
        level = PLAIN_LEVEL if data.encoding == enc.PLAIN else LEVEL
        page, size = _page(_DATA_PAGE, 5, about, data.body, level)
        parts.append(page)
        raw += size
    return parts, raw


def _page(kind: int, field: int, about: Struct, body: bytes, level: int) -> tuple[bytes, int]:
    packed = zstd.compress(body, level=level)
    check = int.from_bytes(zlib.crc32(packed).to_bytes(4, "little"), "little", signed=True)
    header = Struct().i32(1, kind).i32(2, len(body)).i32(3, len(packed)).i32(4, check)
    head = bytes(header.struct(field, about))
    return head + packed, len(head) + len(body)


def _chunk(column: Column, series: pl.Series, tag_id: Bits) -> Chunk:
    if column.kind == "text":
        return _text_chunk(series)
    if column.name == "value":
        present = series.is_not_null().to_numpy() if series.null_count() else None
        bits = series.fill_null(0.0).to_numpy().view(np.int64)
        return value_chunk(bits, present, tag_id)
    numbers = series.to_physical().to_numpy()
    if column.kind == "timestamp":
        return _time_chunk(numbers)
    return _few_chunk(numbers)


def _time_chunk(at_us: Bits) -> Chunk:
    planes = Chunk([Page(len(at_us), enc.BYTE_STREAM_SPLIT, enc.byte_stream_split(at_us))])
    delta = Chunk([Page(len(at_us), enc.DELTA_BINARY_PACKED, enc.delta_binary_packed(at_us))])
    return min((planes, delta), key=Chunk.trial_size)


def _few_chunk(numbers: Bits) -> Chunk:
    """Ids and status codes: few, in long runs."""
    entries, places = np.unique(numbers, return_inverse=True)
    width = enc.index_width(len(entries))
    body = enc.dictionary_indices(places.astype(np.uint32), width)
    page = Page(len(numbers), enc.RLE_DICTIONARY, body)
    return Chunk([page], enc.plain(entries), len(entries))


def _text_chunk(series: pl.Series) -> Chunk:
    count = len(series)
    here = series.drop_nulls()
    present = series.is_not_null().to_numpy() if len(here) < count else None
    head = enc.levels(present, count)
    entries = here.unique().sort()
    if not len(here):
        return Chunk([Page(count, enc.PLAIN, head)])
    if len(entries) * 2 > len(here) or len(entries) > DICTIONARY_MAX:
        return Chunk([Page(count, enc.PLAIN, head + _strings(here))])
    places = here.rank("dense").to_numpy().astype(np.uint32) - np.uint32(1)
    body = enc.dictionary_indices(places, enc.index_width(len(entries)))
    return Chunk([Page(count, enc.RLE_DICTIONARY, head + body)], _strings(entries), len(entries))


def _strings(texts: pl.Series) -> bytes:
    joined = "".join(texts.to_list()) if len(texts) < SECTION_ROWS else texts.str.join("")[0]
    lengths = texts.str.len_bytes().to_numpy().astype(np.int64)
    return enc.plain_bytes(np.frombuffer(joined.encode(), np.uint8), lengths)


def value_chunk(bits: Bits, present: Mask, tag_id: Bits) -> Chunk:
    """Values in what takes least.

    Args:
        bits: of the doubles, so that -0.0 and every NaN keep theirs; anything where there is no value.
        present: None when all are there.
        tag_id: of each, ascending.
    """
    every = np.ones(len(bits), np.bool_) if present is None else present
    whole = [(0, len(bits), enc.PLAIN)]
    mixed = _merged(
        (start, stop, _best(bits[start:stop][every[start:stop]]))
        for start, stop in sections(tag_id)
    )
    one_page = _pages(bits, every, whole)
    if mixed == whole:
        return one_page
    return min((one_page, _pages(bits, every, mixed)), key=Chunk.trial_size)


def sections(tag_id: Bits) -> Iterator[tuple[int, int]]:
    """Rows of whole tags, of several where they have few rows.

    Example:
        >>> list(sections(np.repeat([1, 2, 3], [1_000, 500, 5_000])))
        [(0, 1500), (1500, 6500)]
    """
    ends = np.append(np.flatnonzero(tag_id[1:] != tag_id[:-1]) + 1, len(tag_id))
    start = 0
    for stop in ends.tolist():
        if stop - start >= SECTION_ROWS or stop == len(tag_id):
            yield start, stop
            start = stop


def _merged(parts: Iterator[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Neighbours of one encoding become one page."""
    merged: list[tuple[int, int, int]] = []
    for start, stop, encoding in parts:
        if merged and merged[-1][2] == encoding:
            merged[-1] = (merged[-1][0], stop, encoding)
        else:
            merged.append((start, stop, encoding))
    return merged


def _best(bits: Bits) -> int:
    """The encoding that takes least for a sample of one section."""
    sample = bits[:SAMPLE_ROWS]
    if not len(sample):
        return enc.PLAIN
    sizes = {
        enc.PLAIN: len(zstd.compress(enc.plain(sample), level=TRIAL_LEVEL)),
        enc.BYTE_STREAM_SPLIT: len(zstd.compress(enc.byte_stream_split(sample), level=TRIAL_LEVEL)),
    }
    entries, places = np.unique(sample, return_inverse=True)
    if 2 * len(entries) <= len(sample):
        width = enc.index_width(len(entries))
        body = enc.dictionary_indices(places.astype(np.uint32), width)
        packed = len(zstd.compress(body, level=TRIAL_LEVEL))
        sizes[enc.RLE_DICTIONARY] = packed + ENTRY_BYTES * len(entries)
    return min(sizes, key=lambda encoding: sizes[encoding])


def _pages(bits: Bits, present: npt.NDArray[np.bool_], parts: list[tuple[int, int, int]]) -> Chunk:
    """One page a part; parts with a dictionary that would be too large become plain."""
    entries, indices = _dictionary(bits, present, parts)
    if len(entries) > DICTIONARY_MAX:
        plainer = ((a, b, enc.PLAIN if e == enc.RLE_DICTIONARY else e) for a, b, e in parts)
        return _pages(bits, present, _merged(plainer))
    width = enc.index_width(len(entries))
    pages = []
    for start, stop, encoding in parts:
        here = present[start:stop]
        if encoding == enc.RLE_DICTIONARY:
            body = enc.dictionary_indices(indices[start:stop][here], width)
        elif encoding == enc.BYTE_STREAM_SPLIT:
            body = enc.byte_stream_split(bits[start:stop][here])
        else:
            body = enc.plain(bits[start:stop][here])
        pages.append(Page(stop - start, encoding, enc.levels(here, stop - start) + body))
    return Chunk(pages, enc.plain(entries), len(entries))


def _dictionary(
    bits: Bits, present: npt.NDArray[np.bool_], parts: list[tuple[int, int, int]]
) -> tuple[Bits, npt.NDArray[np.uint32]]:
    """Entries of all parts that want a dictionary, and each value's place in it.

    Entries of one part stand together and ascend, so that a smooth signal has like indices.
    """
    part = np.full(len(bits), -1, np.int32)
    for number, (start, stop, encoding) in enumerate(parts):
        if encoding == enc.RLE_DICTIONARY:
            part[start:stop] = number
    wanted = present & (part >= 0)
    entries, first, places = np.unique(bits[wanted], return_index=True, return_inverse=True)
    order = np.lexsort((entries, part[wanted][first]))
    rank = np.empty(len(entries), np.uint32)
    rank[order] = np.arange(len(entries), dtype=np.uint32)
    indices = np.zeros(len(bits), np.uint32)
    indices[wanted] = rank[places]
    return entries[order], indices


def _statistics(series: pl.Series) -> Struct:
    """Null count, and minimum and maximum of numbers; without these where a NaN has no order."""
    statistics = Struct().i64(3, series.null_count())
    if series.dtype == pl.String or series.null_count() == len(series):
        return statistics
    if series.dtype == pl.Float64:
        if series.is_nan().any():
            return statistics
        low, high = series.min(), series.max()
        ends = np.array([high or 0.0, low or -0.0])  # of the two zeros the one further out
        return statistics.binary(5, ends[0].tobytes()).binary(6, ends[1].tobytes())
    numbers = series.to_physical()
    whole = np.array([numbers.max(), numbers.min()], np.int64)
    return statistics.binary(5, whole[0].tobytes()).binary(6, whole[1].tobytes())


def _file_metadata(rows: int, groups: list[Struct]) -> Struct:
    root = Struct().binary(4, b"schema").i32(5, len(FILE_COLUMNS))
    schema = [root, *map(_schema_element, FILE_COLUMNS)]
    by_type = [Struct().struct(1, Struct()) for _ in FILE_COLUMNS]
    metadata = Struct().i32(1, 1).structs(2, schema).i64(3, rows).structs(4, groups)
    return metadata.binary(6, CREATED_BY).structs(7, by_type)


def _schema_element(column: Column) -> Struct:
    element = Struct().i32(1, column.physical).i32(3, int(column.optional))
    element.binary(4, column.name.encode())
    if column.kind == "timestamp":
        micros = Struct().struct(2, Struct())
        logical = Struct().struct(8, Struct().boolean(1, True).struct(2, micros))
        return element.i32(6, 10).struct(10, logical)  # 10: TIMESTAMP_MICROS, for older readers
    if column.kind == "text":
        return element.i32(6, 0).struct(10, Struct().struct(1, Struct()))  # 0: UTF8
    return element
