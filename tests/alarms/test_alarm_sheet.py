"""The rationalisation sheet: out and back without a loss, and only what was changed changes."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.alarms.definition import definition_of
from headrace.alarms.sheet import HEADERS, WORDINGS, SheetProblems, read, rows_of, to_csv, to_xlsx
from headrace.formula.clauses import quoted
from headrace.model.errors import Misconfigured
from headrace.model.knowledge import FormulaConfig

HOT = """alarm hot: temperature > 80 degC for 5 min,  # a remark, with a comma
  off below 75 degC,   priority high, message "Pump ""A"", hot" zh "泵，过热",
  latched  # the last one"""
LOW = "alarm low: (flow < 5 m3/h)"


def configs(*texts: str) -> list[FormulaConfig]:
    return [
        FormulaConfig(
            asset_type="pump",
            name=text.split(":")[0].removeprefix("alarm "),
            kind="alarm",
            text=text,
        )
        for text in texts
    ]


def sheet(changes: dict[str, dict[str, str]], *texts: str) -> bytes:
    """The exported sheet with other cells: alarm -> column -> cell."""
    rows = rows_of(definition_of(each) for each in configs(*texts))
    out = io.StringIO()
    writer = csv.DictWriter(out, list(HEADERS))
    writer.writeheader()
    writer.writerows(row | changes.get(row["alarm"], {}) for row in rows)
    return out.getvalue().encode()


@pytest.mark.parametrize("suffix", ["csv", "xlsx"])
def test_what_goes_out_comes_back_as_it_was(suffix: str) -> None:
    made = {"csv": to_csv, "xlsx": to_xlsx}[suffix]
    content = made(definition_of(each) for each in configs(HOT, LOW))
    assert read(f"alarms.{suffix}", content, configs(HOT, LOW)) == []
    bare = configs("alarm hot: temperature > 80 degC", LOW)
    (changed,) = read(f"alarms.{suffix}", content, bare)
    assert rows_of(map(definition_of, configs(changed.text))) == [
        row | {"condition": "temperature > 80 degC", "off": ""}
        for row in rows_of(map(definition_of, configs(HOT)))
    ]


def test_a_changed_cell_changes_its_clause_alone() -> None:
    content = sheet({"hot": {"priority": "urgent", "cause_zh": "缺油", "response": "10 min"}}, HOT)
    (changed,) = read("a.csv", content, configs(HOT))
    assert changed.text == HOT.replace("high", "urgent").replace(
        "latched", 'latched, response 10 min, cause zh "缺油"'
    )
    content = sheet({"hot": {"message": "", "message_zh": "", "priority": ""}}, HOT)
    (changed,) = read("a.csv", content, configs(HOT))
    assert changed.text == HOT.replace(
        ',   priority high, message "Pump ""A"", hot" zh "泵，过热"', ""
    )
    content = sheet({"low": {"class": 'the "safe" one'}}, LOW)
    (changed,) = read("a.csv", content, configs(LOW))
    assert changed.text == f'{LOW}, class "the ""safe"" one"'


def test_columns_rows_and_words_may_be_missing_or_chinese() -> None:
    content = "资产类型;报警;处理措施;remark\npump;low;Open the valve;x\n".encode("gb18030")
    (changed,) = read("a.csv", content, configs(HOT, LOW))
    assert changed == ("pump", "low", f'{LOW}, action "Open the valve"')


@pytest.mark.parametrize(
    ("cells", "code", "column"),
    [
        ({"alarm": "cold"}, "ALARM-1203", "alarm"),
        ({"priority": "hi"}, "ALARM-1205", "priority"),
        ({"response": "soon"}, "ALARM-1206", "response"),
        ({"cause": "two\nlines"}, "ALARM-1207", "cause"),
        ({"class": 61 * "x"}, "ALARM-1208", "class"),
        ({"action_zh": 1_001 * "x"}, "ALARM-1208", "action_zh"),
    ],
)
def test_a_wrong_cell_is_named_and_nothing_is_taken(
    cells: dict[str, str], code: str, column: str
) -> None:
    with pytest.raises(SheetProblems, match=code) as raised:
        read("a.csv", sheet({"hot": cells}, HOT), configs(HOT))
    assert [(each.row, each.column) for each in raised.value.problems] == [(2, column)]
    assert f"a.csv, row 2, column {column}" in str(raised.value)


def test_a_sheet_without_what_it_needs_is_refused() -> None:
    for content in (b"", b"priority\nhigh\n", b"type,alarm,name\n", b'type,alarm\n"a'):
        with pytest.raises(Misconfigured, match="ALARM-1202"):
            read("a.csv", content, configs(HOT))
    twice = sheet({}, HOT) + sheet({}, HOT).split(b"\r\n", 1)[1]
    with pytest.raises(SheetProblems, match="ALARM-1204"):
        read("a.csv", twice, configs(HOT))


words = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20).map(
    str.strip
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(WORDINGS), st.tuples(words, words)), st.booleans())
def test_any_texts_come_back(texts: dict[str, tuple[str, str]], as_xlsx: bool) -> None:
    text = LOW
    for word, (english, chinese) in texts.items():
        if english or chinese:
            text += f", {word}" + (f" {quoted(english)}" if english else "")
            text += f" zh {quoted(chinese)}" if chinese else ""
    definitions = [definition_of(each) for each in configs(text)]
    name, content = ("a.xlsx", to_xlsx(definitions)) if as_xlsx else ("a.csv", to_csv(definitions))
    assert read(name, content, configs(text)) == []
    (changed,) = read(name, content, configs(LOW)) or [("pump", "low", LOW)]
    assert rows_of(map(definition_of, configs(changed[2]))) == rows_of(definitions)
