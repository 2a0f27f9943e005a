"""Tag lists as engineers keep them: CSV with any usual separator and encoding, or XLSX.

Gives plain text cells with the line of each row; what they mean is checked in :mod:`.tags`, the same
for a spreadsheet and for ``[[tag]]`` in the site file.
"""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from typing import Final

from headrace.model.errors import Misconfigured
from headrace.site.workbook import check_workbook

HEADERS: Final[dict[str, tuple[str, ...]]] = {
    "path": ("path", "tag", "tag_path", "路径", "位号", "标签", "标签路径", "位号路径"),
    "connection": ("connection", "device", "连接", "设备", "连接名", "连接名称"),
    "address": ("address", "register", "node_id", "topic", "地址", "寄存器", "点地址"),
    "unit": ("unit", "engineering_unit", "eu", "单位", "工程单位"),
    "title": ("title", "title_en", "标题", "名称", "英文名称"),
    "title_zh": ("title_zh", "中文名称", "中文标题", "中文名"),
    "description": ("description", "comment", "描述", "说明", "备注"),
    "scan_interval_ms": ("scan_interval_ms", "扫描周期", "采集周期", "扫描周期ms", "采集周期ms"),
    "scale": ("scale", "系数", "比例", "比例系数"),
    "offset": ("offset", "偏移", "偏移量"),
    "deadband": ("deadband", "死区"),
    "group": ("group", "分组", "组"),
    "writable": ("writable", "可写"),
    "write_minimum": ("write_minimum", "写入下限", "写下限"),
    "write_maximum": ("write_maximum", "写入上限", "写上限"),
    "sample_interval_us": ("sample_interval_us", "采样间隔", "采样间隔us"),
    "id": ("id", "tag_id", "编号"),
    "was": ("was", "原路径", "曾用路径"),
}
"""Column of a tag list -> the header words that name it, in English and Chinese."""

_BY_WORD: Final = {word: field for field, words in HEADERS.items() for word in words}
_SEPARATORS: Final = (",", ";", "\t", "|")
_SAID: Final = re.compile(r"^\"?sep=([,;|\t])\"?\s*$")  # what Excel writes into a first line
_NUMBER: Final = re.compile(r"^-?\d+(?:\.\d+)?$")
FILE_BYTES_MAX: Final = 256 << 20


@dataclass
class TagTable:
    """The cells of one tag list, by column.

    Attributes:
        file: name as written in the site file.
        lines: line (row in a spreadsheet) of each tag.
        columns: field -> one text a row, stripped; only the columns that are there.
        unknown: header words that mean nothing to us.
        twice: fields that two columns name.
        header_line: where the header stands.
        separator: of a CSV file, "" for a spreadsheet; decides whether ``0,5`` can be a number.
        encoding: of a CSV file.
    """

    file: str
    lines: list[int]
    columns: dict[str, list[str]]
    unknown: list[str]
    twice: list[str]
    header_line: int = 1
    separator: str = ""
    encoding: str = "utf-8"


def read_tag_table(file: str, content: bytes) -> TagTable:
    """The tag list that a file's bytes hold.

    Raises:
        Misconfigured: SITE-1017 when it cannot be read at all, with the remedy.

    Example:
        >>> read_tag_table("t.csv", b"path;unit\\na/b;m3/h\\n").columns["unit"]
        ['m3/h']
    """
    if len(content) > FILE_BYTES_MAX:
        raise Misconfigured("SITE-1017", f"{file} has {len(content)} bytes", "Split the list.")
    if file.lower().endswith((".xlsx", ".xlsm", ".xls", ".ods")):
        return _table(file, read_sheet(file, content))
    text, encoding = decode(file, content)
    separator = separator_of(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for row in reader:
            rows.append((line, row))
            line = reader.line_num + 1
    except csv.Error as error:
        raise Misconfigured(
            "SITE-1017",
            f"line {line} of {file} is no CSV: {error}",
            "Close the quotation marks; a quotation mark inside a cell is written twice.",
        ) from error
    table = _table(file, rows)
    table.separator, table.encoding = separator, encoding
    return table


def decode(file: str, content: bytes) -> tuple[str, str]:
    """Text and encoding of a CSV file: UTF-8 or UTF-16 with a byte order mark, UTF-8, or GBK.

    Raises:
        Misconfigured: SITE-1017 when it is none of them.
    """
    marks = {
        b"\xef\xbb\xbf": "utf-8-sig",
        b"\xff\xfe": "utf-16",
        b"\xfe\xff": "utf-16",
    }
    tries = [name for mark, name in marks.items() if content.startswith(mark)]
    for encoding in tries or ["utf-8", "gb18030"]:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text, encoding
    raise Misconfigured(
        "SITE-1017", f"{file} is neither UTF-8 nor GBK text", "Save it as CSV in UTF-8."
    )


def separator_of(text: str) -> str:
    """The separator of a CSV text: the one that parts its header into most known words."""
    lines = text.splitlines()
    if lines and (said := _SAID.match(lines[0])):
        return said[1]
    header = next((line for line in lines if is_content([line])), "")

    def score(separator: str) -> tuple[int, int]:
        cells = header.split(separator)
        return sum(field_of(cell.strip('"')) is not None for cell in cells), len(cells)

    return max(_SEPARATORS, key=score)


def read_sheet(file: str, content: bytes) -> list[tuple[int, list[str]]]:
    """(row, cells) of the first sheet of a spreadsheet; every cell as text."""
    try:
        import fastexcel
    except ImportError as error:
        raise Misconfigured(
            "SITE-1017",
            f"{file} is a spreadsheet, and the reader for it is not installed",
            "Run: pip install 'headrace[excel]', or save the list as CSV.",
        ) from error
    check_workbook(file, content)
    try:
        book = fastexcel.read_excel(content)
        texts = book.load_sheet(0, header_row=None, skip_rows=0, dtypes="string").to_polars()
        numbers = book.load_sheet(0, header_row=None, skip_rows=0, dtypes="float").to_polars()
    except fastexcel.FastExcelError as error:
        raise Misconfigured(
            "SITE-1017", f"{file} cannot be read: {error}", "Save it again as .xlsx, or as CSV."
        ) from error
    except BaseException as error:
        if (
            type(error).__name__ != "PanicException"
        ):  # of the reader's Rust, which exports no such name
            raise
        raise Misconfigured(
            "SITE-1017",
            f"{file} cannot be read: it is damaged",
            "Save it again as .xlsx, or as CSV.",
        ) from error
    pairs = zip(texts.iter_rows(), numbers.iter_rows(), strict=True)
    return [
        (number, [_exact(text or "", value) for text, value in zip(row, values, strict=True)])
        for number, (row, values) in enumerate(pairs, 1)
    ]


def _exact(text: str, value: float | None) -> str:
    """The text of a cell; of a number that the reader's text rounds, all its digits."""
    if value is None or not _NUMBER.match(text) or float(text) == value:
        return text
    return repr(value)


def is_content(row: list[str]) -> bool:
    """Whether a row is neither empty nor a remark that begins with ``#``."""
    first = row[0].lstrip() if row else ""
    return any(cell.strip() for cell in row) and not first.startswith(("#", "sep="))


def field_of(word: str) -> str | None:
    """The column that a header word names, in English or Chinese; None when it names none."""
    plain = word.strip().lower().replace(" ", "_").replace("(", "").replace(")", "")
    return _BY_WORD.get(plain)


def _table(file: str, rows: list[tuple[int, list[str]]]) -> TagTable:
    rows = [(line, row) for line, row in rows if is_content(row)]
    if not rows:
        raise Misconfigured(
            "SITE-1017",
            f"{file} has no header row",
            "Give it a first row with path, connection, address, unit.",
        )
    header_line, header = rows[0]
    width = len(header)
    table = TagTable(file, [], {}, [], [], header_line)
    for line, row in rows[1:]:
        if any(cell.strip() for cell in row[width:]):
            raise Misconfigured(
                "SITE-1017",
                f"line {line} of {file} has {len(row)} cells, its header has {width}",
                "Put a cell that contains the separator in quotation marks.",
            )
    body = rows[1:]
    table.lines = [line for line, _ in body]
    for position, word in enumerate(header):
        field = field_of(word)
        if field is None:
            if word.strip():
                table.unknown.append(word.strip())
        elif field in table.columns:
            table.twice.append(field)
        else:
            table.columns[field] = [
                row[position].strip() if position < len(row) else "" for _, row in body
            ]
    return table
