"""The rationalisation sheet of ISA-18.2, clause 6: one row an alarm, out to CSV or XLSX and back into the
alarms' own texts.

The text of an alarm is the only place where these things are kept. A sheet that comes back changes the
clauses whose cells differ, and nothing else of the text; a column that it does not have, and an alarm that
is not in it, stay as they are. An empty cell takes the clause out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from headrace.alarms.definition import AlarmDefinition, definition_of
from headrace.formula.clauses import NAME_MAX, TEXT_MAX, quoted
from headrace.formula.grammar import parse_statement
from headrace.formula.problems import FormulaProblem
from headrace.formula.rewriting import with_clauses, wording_clause
from headrace.formula.tree import AlarmStatement
from headrace.model.alarm import PRIORITIES, Wording
from headrace.model.csv_text import defuse, plain
from headrace.model.errors import Misconfigured
from headrace.model.knowledge import FormulaConfig
from headrace.site.tag_table import decode, is_content, read_sheet

HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "asset_type": ("asset_type", "type", "资产类型", "设备类型"),
    "alarm": ("alarm", "name", "报警", "报警名称"),
    "condition": ("condition", "条件", "报警条件"),
    "off": ("off", "结束条件", "恢复条件"),
    "state": ("state", "状态"),
    "priority": ("priority", "优先级"),
    "class": ("class", "类别", "报警类别"),
    "message": ("message", "message_en", "消息", "英文消息"),
    "message_zh": ("message_zh", "中文消息"),
    "cause": ("cause", "cause_en", "原因", "英文原因"),
    "cause_zh": ("cause_zh", "中文原因"),
    "consequence": ("consequence", "consequence_en", "后果", "英文后果"),
    "consequence_zh": ("consequence_zh", "中文后果"),
    "action": ("action", "action_en", "措施", "英文措施", "处理措施"),
    "action_zh": ("action_zh", "中文措施"),
    "response": ("response", "response_time", "响应时间"),
}
"""Column of a sheet -> the header words that name it. Condition, off and state are told, not taken back."""
WORDINGS: Final = ("message", "cause", "consequence", "action")
ROWS_MAX: Final = 100_000
_BY_WORD: Final = {word: field for field, words in HEADERS.items() for word in words}
_SEPARATORS: Final = (",", ";", "\t", "|")
_DURATION: Final = re.compile(r"\d+(?:\.\d+)?[ \t]*[A-Za-zµ]+")


class SheetProblem(msgspec.Struct, frozen=True):
    """What is wrong with a cell.

    Attributes:
        row: of the sheet, from 1. column: its name; "" for the whole row.
    """

    row: int
    column: str
    code: str
    what: str
    remedy: str


class SheetProblems(Misconfigured):
    """A sheet that cannot be taken; nothing was changed. ``problems`` has them all."""

    def __init__(self, file: str, problems: list[SheetProblem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        place = f"row {first.row}" + (f", column {first.column}" if first.column else "")
        super().__init__(first.code, f"{first.what}{more}", first.remedy, where=f"{file}, {place}")
        self.problems = problems


class Changed(NamedTuple):
    """An alarm that a sheet gives another text."""

    asset_type: str
    name: str
    text: str


def rows_of(definitions: Iterable[AlarmDefinition]) -> list[dict[str, str]]:
    """The sheet's rows: column -> cell."""
    return [_row(each) for each in sorted(definitions, key=lambda each: each.key)]


def to_csv(definitions: Iterable[AlarmDefinition]) -> bytes:
    """The sheet as CSV: UTF-8 with a byte order mark, so that spreadsheets show Chinese."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(HEADERS), lineterminator="\r\n")
    writer.writeheader()
    for row in rows_of(definitions):
        writer.writerow({column: defuse(cell) for column, cell in row.items()})
    return out.getvalue().encode("utf-8-sig")


def to_xlsx(definitions: Iterable[AlarmDefinition]) -> bytes:
    """The sheet as a spreadsheet with a frozen header, a filter and the priorities to choose from.

    Raises:
        Misconfigured: ALARM-1201 when the writer is not installed.
    """
    try:
        import xlsxwriter
    except ImportError as error:
        raise Misconfigured(
            "ALARM-1201",
            "the writer of spreadsheets is not installed",
            "Run: pip install 'headrace[excel]', or export as CSV.",
        ) from error
    rows, columns, body = rows_of(definitions), list(HEADERS), io.BytesIO()
    book = xlsxwriter.Workbook(body, {"in_memory": True})
    sheet = book.add_worksheet("alarms")
    sheet.write_row(0, 0, columns, book.add_format({"bold": True}))
    for number, row in enumerate(rows, 1):
        for place, column in enumerate(columns):
            if row[column]:
                sheet.write_string(number, place, row[column])
    sheet.freeze_panes(1, 2)
    sheet.autofilter(0, 0, len(rows), len(columns) - 1)
    sheet.set_column(0, len(columns) - 1, 22)
    place = columns.index("priority")
    choices = {"validate": "list", "source": ["", *PRIORITIES], "ignore_blank": True}
    sheet.data_validation(1, place, max(len(rows), 1), place, choices)
    book.close()
    return body.getvalue()


def read(file: str, content: bytes, formulas: Iterable[FormulaConfig]) -> list[Changed]:
    """The alarms that a sheet gives other texts; nothing is written.

    Args:
        file: its name; one that ends in ``.xlsx`` is a spreadsheet.
        formulas: all of the site; the sheet may name its alarms.

    Raises:
        SheetProblems: ALARM-1203 to ALARM-1209, with each cell that is wrong.
        Misconfigured: ALARM-1202 when it has no header; SITE-1017 when it cannot be read at all.
    """
    alarms = {(f.asset_type, f.name): f for f in formulas if f.kind == "alarm"}
    columns, rows = _table(file, content)
    problems, changed = list[SheetProblem](), list[Changed]()
    seen: dict[tuple[str, str], int] = {}
    for number, cells in rows:
        row = {
            column: plain(cells[at].strip()) if at < len(cells) else "" for column, at in columns
        }
        key = (row["asset_type"], row["alarm"])
        found = alarms.get(key)
        if found is None:
            what, remedy = f"there is no alarm {'.'.join(key)}", "See: headrace alarm export"
            problems.append(SheetProblem(number, "alarm", "ALARM-1203", what, remedy))
        elif key in seen:
            what = f"the alarm {'.'.join(key)} is already in row {seen[key]}"
            problems.append(
                SheetProblem(number, "alarm", "ALARM-1204", what, "Keep one of the rows.")
            )
        else:
            text = _changed_text(number, row, found, problems)
            if text != found.text:
                changed.append(Changed(*key, text))
        seen.setdefault(key, number)
    if problems:
        raise SheetProblems(file, problems)
    return changed


def _row(definition: AlarmDefinition) -> dict[str, str]:
    row = dict.fromkeys(HEADERS, "")
    row |= {
        "asset_type": definition.asset_type,
        "alarm": definition.name,
        "condition": definition.condition,
        "off": definition.off,
        "state": definition.state,
        "priority": "" if "priority" in definition.lacking else definition.priority,
        "class": definition.alarm_class,
        "response": _response(definition.text),
    }
    for word in WORDINGS:
        wording: Wording = getattr(definition, word)
        row[word], row[f"{word}_zh"] = wording.en, wording.zh
    return row


def _response(text: str) -> str:
    statement = parse_statement(text)
    if not isinstance(statement, AlarmStatement) or statement.response is None:
        return ""
    place = statement.response.place
    return " ".join(statement.source[place.start : place.end].split())


def _changed_text(
    number: int, row: Mapping[str, str], found: FormulaConfig, problems: list[SheetProblem]
) -> str:
    """The text with the row's cells in it; what is wrong with them is noted."""
    old, before = _row(definition_of(found)), len(problems)
    clauses = {}
    for word in ("priority", "class", "response"):
        if row.get(word, old[word]) != old[word]:
            clauses[word] = _plain_clause(number, word, row[word], problems)
    for word in WORDINGS:
        chinese = f"{word}_zh"
        texts = Wording(row.get(word, old[word]), row.get(chinese, old[chinese]))
        for column, text in ((word, texts.en), (chinese, texts.zh)):
            if text != old[column]:
                _check_text(number, column, text, TEXT_MAX, problems)
        if (texts.en, texts.zh) != (old[word], old[chinese]):
            clauses[word] = wording_clause(word, texts)
    statement = parse_statement(found.text, line=found.line)
    assert isinstance(statement, AlarmStatement), "definition_of read it"
    if not clauses or len(problems) > before:
        return found.text
    try:
        return with_clauses(statement, clauses)
    except FormulaProblem as problem:
        problems.append(
            SheetProblem(number, "", "ALARM-1209", problem.what, problem.remedy or "Correct it.")
        )
        return found.text


def _plain_clause(number: int, word: str, cell: str, problems: list[SheetProblem]) -> str:
    if not cell:
        return ""
    if word == "class":
        _check_text(number, word, cell, NAME_MAX, problems)
        return f"class {quoted(cell)}"
    if word == "priority" and cell not in PRIORITIES:
        what, remedy = f"{cell!r} is no priority", f"Write one of: {', '.join(PRIORITIES)}."
        problems.append(SheetProblem(number, word, "ALARM-1205", what, remedy))
    if word == "response" and not _DURATION.fullmatch(cell):
        what, remedy = f"{cell!r} is no time to respond", "Write for example 10 min."
        problems.append(SheetProblem(number, word, "ALARM-1206", what, remedy))
    return f"{word} {cell}"


def _check_text(
    number: int, column: str, text: str, most: int, problems: list[SheetProblem]
) -> None:
    if "\n" in text or "\r" in text:
        what, remedy = "the text has a line break", "Write it in one line."
        problems.append(SheetProblem(number, column, "ALARM-1207", what, remedy))
    if len(text) > most:
        what = f"the text has {len(text)} characters, more than {most}"
        problems.append(SheetProblem(number, column, "ALARM-1208", what, "Shorten it."))


def _table(file: str, content: bytes) -> tuple[list[tuple[str, int]], list[tuple[int, list[str]]]]:
    """(column, place) of the known columns, and (row, cells) of the alarms."""
    if file.lower().endswith((".xlsx", ".xlsm", ".xls", ".ods")):
        rows = read_sheet(file, content)
    else:
        rows = _csv_rows(file, decode(file, content)[0])
    rows = [(number, cells) for number, cells in rows if is_content(cells)]
    columns = [
        (field, at)
        for at, word in enumerate(rows[0][1] if rows else ())
        if (field := _field(word)) is not None
    ]
    names = [column for column, _ in columns]
    missing = {"asset_type", "alarm"} - set(names)
    twice = [name for name in set(names) if names.count(name) > 1]
    if missing or twice:
        what = f"no column {sorted(missing)[0]}" if missing else f"two columns {twice[0]}"
        raise Misconfigured(
            "ALARM-1202",
            f"{file} has {what}",
            "Its first row names the columns; begin with what headrace alarm export gives.",
        )
    if len(rows) > ROWS_MAX:
        raise Misconfigured(
            "ALARM-1202", f"{file} has {len(rows)} rows, more than {ROWS_MAX}", "Split it."
        )
    return columns, rows[1:]


def _field(word: str) -> str | None:
    return _BY_WORD.get(word.strip().lower().replace(" ", "_"))


def _csv_rows(file: str, text: str) -> list[tuple[int, list[str]]]:
    header = next(iter(text.splitlines()), "")

    def known(separator: str) -> int:
        return sum(_field(cell.strip('"')) is not None for cell in header.split(separator))

    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=max(_SEPARATORS, key=known), strict=True
    )
    rows, line = list[tuple[int, list[str]]](), 1
    try:
        for row in reader:
            rows.append((line, row))
            line = reader.line_num + 1
    except csv.Error as error:
        raise Misconfigured(
            "ALARM-1202",
            f"line {line} of {file} is no CSV: {error}",
            "Close the quotation marks; a quotation mark inside a cell is written twice.",
        ) from error
    return rows
