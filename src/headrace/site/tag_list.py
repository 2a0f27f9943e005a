"""Writes tag lists: whole ones as CSV or XLSX, and single rows of a CSV that a person keeps.

A row that is not touched keeps its text to the byte: quotation marks, remarks and empty lines too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

from headrace.model.errors import Misconfigured
from headrace.site.model import Tag
from headrace.site.tag_table import decode, field_of, is_content, separator_of
from headrace.site.tags import FIELDS

COLUMNS: Final = FIELDS


def cell_text(value: Any) -> str:
    """A field as the text of a cell; reading it gives the same value.

    Example:
        >>> cell_text(0.1), cell_text(True), cell_text(("a/b", "a/c")), cell_text(None)
        ('0.1', 'true', 'a/b a/c', '')
    """
    if value is None or value is False:
        return ""
    if value is True:
        return "true"
    if isinstance(value, tuple):
        return " ".join(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def _cells(tag: Tag) -> list[str]:
    return [
        "" if field == "id" and not tag.id else cell_text(getattr(tag, field)) for field in COLUMNS
    ]


def tags_to_csv(tags: Iterable[Tag]) -> bytes:
    """A tag list as CSV: UTF-8 with a byte order mark, so that spreadsheets show Chinese."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(tag) for tag in tags)
    return out.getvalue().encode("utf-8-sig")


def tags_to_xlsx(tags: Iterable[Tag]) -> bytes:
    """A tag list as a spreadsheet with a frozen header and a filter.

    Raises:
        Misconfigured: SITE-1401 when the writer is not installed.
    """
    try:
        import xlsxwriter
    except ImportError as error:
        raise Misconfigured(
            "SITE-1401",
            "the writer of spreadsheets is not installed",
            "Run: pip install 'headrace[excel]', or export as CSV.",
        ) from error
    body = io.BytesIO()
    book = xlsxwriter.Workbook(body, {"in_memory": True})
    sheet = book.add_worksheet("tags")
    bold = book.add_format({"bold": True})
    sheet.write_row(0, 0, COLUMNS, bold)
    count = 0
    for count, tag in enumerate(tags, 1):
        for position, text in enumerate(_cells(tag)):
            if text:
                sheet.write_string(count, position, text)
    sheet.freeze_panes(1, 1)
    sheet.autofilter(0, 0, count, len(COLUMNS) - 1)
    sheet.set_column(0, 0, 40)
    sheet.set_column(1, len(COLUMNS) - 1, 16)
    book.close()
    return body.getvalue()


class CsvList:
    """A CSV tag list while single rows of it are changed.

    Args:
        file: name, for messages.
        content: bytes of the file.
    """

    def __init__(self, file: str, content: bytes) -> None:
        self.file = file
        text, self._encoding = decode(file, content)
        self._separator = separator_of(text)
        self._newline = "\r\n" if "\r\n" in text else "\n"
        lines = list(io.StringIO(text, newline=""))
        reader = csv.reader(lines, delimiter=self._separator, strict=True)
        self._texts: list[str] = []
        self._rows: list[list[str]] = []
        self._paths: dict[str, int] | None = None
        start = 0
        for row in reader:
            self._texts.append("".join(lines[start : reader.line_num]))
            self._rows.append(row)
            start = reader.line_num
        self._header = next(
            (position for position, row in enumerate(self._rows) if is_content(row)), -1
        )
        if self._header < 0:
            self._append(["path", "connection", "address"])
            self._header = len(self._rows) - 1

    def _columns(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for position, word in enumerate(self._rows[self._header]):
            field = field_of(word)
            if field is not None:
                found.setdefault(field, position)
        return found

    def paths(self) -> dict[str, int]:
        """Path of each tag -> its row."""
        if self._paths is not None:
            return self._paths
        column = self._columns().get("path", 0)
        self._paths = {
            row[column].strip(): position
            for position, row in enumerate(self._rows)
            if position > self._header and is_content(row) and column < len(row)
        }
        return self._paths

    def change(self, row: int, fields: dict[str, str]) -> None:
        """Set cells of a row; a column that is not there yet is added."""
        columns = self._columns()
        if "path" in fields:
            self._paths = None
        header = self._rows[self._header]
        for field in fields:
            if field not in columns:
                columns[field] = len(header)
                header = [*header, field]
        if header is not self._rows[self._header]:
            self._replace(self._header, header)
        cells = self._rows[row] + [""] * (len(header) - len(self._rows[row]))
        for field, text in fields.items():
            cells[columns[field]] = text
        self._replace(row, cells)

    def add(self, tag: Tag) -> None:
        """Append a tag; fields that have their default need no column."""
        self._append([])
        self.set(len(self._rows) - 1, tag)

    def set(self, row: int, tag: Tag) -> None:
        """Make a row say what a tag is."""
        fields = dict(zip(COLUMNS, _cells(tag), strict=True))
        columns = self._columns()
        default = Tag(tag.path, tag.connection, tag.address)
        kept = {
            field: text
            for field, text in fields.items()
            if field in columns or getattr(tag, field) != getattr(default, field)
        }
        if self._cell(row, columns, "path") == tag.path:
            del kept["path"]
        self.change(row, kept)

    def _cell(self, row: int, columns: dict[str, int], field: str) -> str:
        cells, column = self._rows[row], columns.get(field, 0)
        return cells[column].strip() if column < len(cells) else ""

    def remove(self, rows: Iterable[int]) -> None:
        """Take rows out."""
        for row in sorted(rows, reverse=True):
            del self._rows[row], self._texts[row]
        self._paths = None

    def _append(self, cells: list[str]) -> None:
        if self._texts and not self._texts[-1].endswith(("\n", "\r")):
            self._texts[-1] += self._newline
        self._rows.append(cells)
        self._texts.append(self._line(cells))

    def _replace(self, row: int, cells: list[str]) -> None:
        self._rows[row], self._texts[row] = cells, self._line(cells)

    def _line(self, cells: list[str]) -> str:
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=self._separator, lineterminator=self._newline).writerow(cells)
        return out.getvalue()

    def content(self) -> bytes:
        """The file's bytes, in the encoding it had.

        Raises:
            Misconfigured: SITE-1402 when a text cannot be written in that encoding.
        """
        try:
            return "".join(self._texts).encode(self._encoding)
        except UnicodeEncodeError as error:
            raise Misconfigured(
                "SITE-1402",
                f"{self.file} is kept in {self._encoding}, which has no {error.object[error.start]!r}",
                "Save the file in UTF-8 first.",
            ) from error
