"""docs/alarms.md holds to the source: its table of states, its clauses and its alarms."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from headrace.alarms.machine import MEANINGS, TABLE, Facts, possible, step
from headrace.formula.alarm_check import check_alarm
from headrace.formula.check import Quantity
from headrace.formula.clauses import WORDS
from headrace.formula.grammar import parse_statement
from headrace.formula.tree import AlarmStatement

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "alarms.md").read_text(encoding="utf-8")
NAMES = {
    "temperature": Quantity(unit="degC"),
    "flow": Quantity(unit="m3/h"),
    "speed": Quantity(unit="%"),
    "state": Quantity("text"),
}


def test_the_table_on_the_page_is_the_machines() -> None:
    spec = importlib.util.spec_from_file_location("alarm_table", ROOT / "scripts/alarm_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page(PAGE) == PAGE, "run: python scripts/alarm_table.py"


@pytest.mark.parametrize("text", re.findall(r"```alarm\n(.*?)```", PAGE, re.DOTALL))
def test_the_alarms_on_the_page_are_right(text: str) -> None:
    statement = parse_statement(text)
    assert isinstance(statement, AlarmStatement)
    check_alarm(statement, NAMES)


def test_the_page_names_every_clause_and_each_form_can_be_written() -> None:
    for word, form in WORDS.items():
        assert f"`{word}" in PAGE, word
        condition = "temperature < 1 degC" if word == "off above" else "temperature > 80 degC"
        statement = parse_statement(f"alarm a: {condition}, {form}")
        assert isinstance(statement, AlarmStatement)
        check_alarm(statement, NAMES)


def test_every_state_is_reached_and_left() -> None:
    assert {row.before for row in TABLE} == {row.after for row in TABLE} == set(MEANINGS)
    seen = {"NORM"}
    for _ in MEANINGS:
        seen |= {row.after for row in TABLE if row.before in seen}
    assert seen == set(MEANINGS)


def test_no_row_is_hidden_by_one_before_it() -> None:
    for number, row in enumerate(TABLE):
        earlier = [r for r in TABLE[:number] if (r.before, r.event) == (row.before, row.event)]
        assert "" not in {r.guard for r in earlier}, row
        assert row.guard not in {r.guard for r in earlier}, row


def test_in_every_state_the_condition_can_change_and_nothing_unknown_happens() -> None:
    active = {"UNACK": True, "ACKED": True}
    for state in MEANINGS:
        quiet = state in ("SHLVD", "DSUPR", "OOSRV")
        assert ("alarm" in possible(state)) is (quiet or not active.get(state, False))
        assert ("return_to_normal" in possible(state)) is (quiet or active.get(state, False))
    assert step("ACKED", "acknowledge", Facts(active=True)) is None
    assert step("UNACK", "return_to_normal", Facts(latch=True)) == "LATUN"
