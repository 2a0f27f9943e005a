"""A spreadsheet from somebody else, looked at before the reader for it gets it.

A few hundred bytes of XLSX can name a cell in the last row and the last column, and a megabyte of ZIP can
hold gigabytes: the reader lays out what is named, and unpacks what is there. So the archive is unpacked
here first, piece by piece and up to a bound, and what its sheets name is counted (ECMA-376, 18.3.1.4).
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from typing import IO, Final

from headrace.model.errors import Misconfigured

UNPACKED_BYTES_MAX: Final = 192 << 20
PARTS_MAX: Final = 2_000
CELLS_MAX: Final = 5_000_000
COLUMNS_MAX: Final = 16_384
ROWS_MAX: Final = 1_048_576
_CHUNK: Final = 1 << 20
_OVERLAP: Final = 4_096
_CELL: Final = re.compile(
    rb"""<(?:\w+:)?(?:c|row)\b[^<>]{0,200}?\br\s*=\s*["']\s*([A-Za-z]*)(\d+)"""
)
_DOCTYPE: Final = b"<!DOCTYPE"
_REMEDY: Final = "Save the list again as .xlsx with nothing but the list in it, or as CSV."


def check_workbook(file: str, content: bytes) -> None:
    """Pass when a spreadsheet may be read.

    Raises:
        Misconfigured: SITE-1017 when it is no XLSX archive, unpacks to more than 192 MB, declares entities,
            or its cells span more than five million.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if "[Content_Types].xml" not in names:
                raise _refused(file, "is no XLSX workbook")
            if len(names) > PARTS_MAX or len(names) != len(set(names)):
                raise _refused(file, f"has {len(names)} parts, or two with one name")
            left = UNPACKED_BYTES_MAX
            for name in names:
                with archive.open(name) as part:
                    left -= _check_part(file, part, left)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _refused(file, f"cannot be unpacked: {error}") from error
    except (OSError, ValueError) as error:
        raise _refused(file, f"cannot be unpacked: {error}") from error


def _check_part(file: str, part: IO[bytes], left: int) -> int:
    """Look through one part; gives its size."""
    size, rows, columns, before = 0, 0, 0, b""
    while chunk := part.read(_CHUNK):
        size += len(chunk)
        if size > left:
            raise _refused(file, f"unpacks to more than {UNPACKED_BYTES_MAX >> 20} MB")
        text = before + chunk
        if _DOCTYPE in text[:_OVERLAP] or _DOCTYPE.decode().encode("utf-16-le") in text[:_OVERLAP]:
            raise _refused(file, "declares entities, which no spreadsheet program writes")
        for found in _CELL.finditer(text):
            columns = max(columns, _column(found[1]))
            rows = max(rows, int(found[2][:9]))
        before = text[-_OVERLAP:]
    if columns > COLUMNS_MAX or rows > ROWS_MAX or columns * rows > CELLS_MAX:
        raise _refused(file, f"has {rows:,} rows and {columns:,} columns")
    return size


def _column(letters: bytes) -> int:
    """The number of a column from its letters, from 1 on; 1 for a row."""
    number = 0
    for letter in letters.upper()[:6]:
        number = number * 26 + letter - 64
    return max(number, 1)


def _refused(file: str, why: str) -> Misconfigured:
    return Misconfigured("SITE-1017", f"{file} {why}", _REMEDY)
