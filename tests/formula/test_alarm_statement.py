"""The statement ``alarm name: condition, ...``: what it says, and what is wrong with it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace.formula.problems as module
from headrace.formula.alarm_check import AlarmPlans, check_alarm
from headrace.formula.check import Quantity, compile_formula
from headrace.formula.clauses import quoted, unquoted
from headrace.formula.evaluate import History, evaluate
from headrace.formula.grammar import parse_file, parse_statement
from headrace.formula.problems import FormulaProblem
from headrace.formula.tree import AlarmStatement
from headrace.model.status import BAD

S = 1_000_000
NAMES = {
    "flow": Quantity(unit="m3/h"),
    "temperature": Quantity(unit="degC"),
    "state": Quantity("text"),
    "running": Quantity("condition"),
}
HOT = "alarm hot: temperature > 80 degC"
# (alarm, code, the text that the caret is below, a word of the English message)
WRONG = (
    ("alarm", "FORM-1060", "alarm", "alarm hot"),
    ("alarm hot temperature > 3 degC", "FORM-1060", "alarm", "alarm hot"),
    ("alarm hot:", "FORM-1060", ":", "alarm hot"),
    ("alarm if: running", "FORM-1005", "if", "Choose"),
    ("alarm hot: temperature", "FORM-1022", "temperature", "Compare"),
    ("alarm hot: temperature >, latched", "FORM-1002", ">", "missing"),
    (f"{HOT}, prioritty high", "FORM-1061", "prioritty", "priority"),
    (f"{HOT}, 3", "FORM-1061", "3", "latched"),
    (f"{HOT},", "FORM-1061", "", "latched"),
    (f"{HOT}, latched, latched", "FORM-1062", "latched", "one of them"),
    (f"{HOT}, off for 1 min, off below 3 degC", "FORM-1062", "off below", "one of them"),
    (f"{HOT}, latched now", "FORM-1063", "latched now", "latched"),
    (f"{HOT}, off 3 min", "FORM-1063", "off 3 min", "off for"),
    (f"{HOT}, off below", "FORM-1063", "off below", "75 degC"),
    (f"{HOT}, off for running", "FORM-1063", "off for running", "off for 1 min"),
    (f"{HOT}, group cooling", "FORM-1063", "group cooling", 'group "cooling"'),
    (f"{HOT}, message hot", "FORM-1063", "message hot", "zh"),
    (f"{HOT}, response running", "FORM-1063", "response running", "10 min"),
    (f"{HOT}, priority hi", "FORM-1064", "hi", "urgent"),
    ("alarm a: running, off below 3 degC", "FORM-1065", "off below", "off when"),
    (f"{HOT}, off above 90 degC", "FORM-1066", "off above", "off below"),
    (f"{HOT} for 5 s, off below 85 degC", "FORM-1067", "85 degC", "other side of 80 degC"),
    (f"{HOT}, off below 354 K", "FORM-1067", "354 K", "still true"),
    (f'{HOT}, message ""', "FORM-1068", '""', "1000"),
    (f'{HOT}, group "{61 * "x"}"', "FORM-1068", f'"{61 * "x"}"', "60"),
    (f'{HOT}, message "hot', "FORM-1069", '"', "closed"),
    (f"{HOT}, response 3 m", "FORM-1026", "3 m", "15 min"),
    (f"{HOT}, off when flow > 3", "FORM-1013", "3", "m3/h"),
    (f"{HOT}, suppressed when flow", "FORM-1022", "flow", "x > 0"),
    ("alarm silent: no data from flwo for 2 min", "FORM-1010", "flwo", "flow"),
    ("alarm silent: no data from flow for 2 m", "FORM-1026", "2 m", "15 min"),
)


def alarm_of(text: str) -> AlarmStatement:
    statement = parse_statement(text)
    assert isinstance(statement, AlarmStatement)
    return statement


def plans_of(text: str) -> AlarmPlans:
    return check_alarm(alarm_of(text), NAMES)


@pytest.mark.parametrize(("text", "code", "marked", "word"), WRONG)
def test_what_is_wrong_is_told_with_place_reason_and_remedy(
    text: str, code: str, marked: str, word: str
) -> None:
    with pytest.raises(FormulaProblem) as raised:
        plans_of(text)
    problem = raised.value
    assert problem.code == code
    assert text[problem.column - 1 : problem.column - 1 + problem.length] == marked
    english, chinese = problem.show("en"), problem.show("zh")
    assert word in english
    assert any("\u4e00" <= character <= "\u9fff" for character in chinese)
    assert "{" not in english + chinese


def test_every_problem_of_alarms_has_all_its_texts_and_an_alarm_that_has_it() -> None:
    table = tomllib.loads(Path(module.__file__).with_name("problems.toml").read_text("utf-8"))
    alarms = {code: texts for code, texts in table.items() if code.startswith("FORM-106")}
    for code, texts in alarms.items():
        assert set(texts) == {"what", "what_zh", "remedy", "remedy_zh"}, code
    assert set(alarms) == {code for _, code, _, _ in WRONG if code.startswith("FORM-106")}


def test_all_clauses_are_read_over_lines_remarks_and_commas_in_texts() -> None:
    text = '''alarm hot: temperature > 80 degC for 5 min,  # a remark, with a comma
  off below 75 degC for 1 min, priority urgent,
  message "Pump, too ""hot""" zh "泵，温度过高", cause zh "缺油",
  consequence "It stops", action "Grease", response 10 min,
  class "safety", group "cooling", latched,
  suppressed when state in ("STOP", "OFF")
'''
    hot = alarm_of(text)
    assert (hot.name, hot.priority, hot.latched) == ("hot", "urgent", True)
    assert (hot.message.en, hot.message.zh) == ('Pump, too "hot"', "泵，温度过高")
    assert (hot.cause.en, hot.cause.zh) == ("", "缺油")
    assert (hot.group, hot.alarm_class) == ("cooling", "safety")
    roles = [(suffix, role) for suffix, role, _ in check_alarm(hot, NAMES).roles()]
    assert roles == [
        ("", "alarm"),
        ("/off", "alarm_off"),
        ("/suppressed", "alarm_suppressed"),
    ]
    file = parse_file(f"double = flow * 2\n\n{text}\nalarm b: running\n")
    assert [each.name for each in file] == ["double", "hot", "b"]
    with pytest.raises(FormulaProblem, match="FORM-1004"):
        parse_file("hot = flow * 2\nalarm hot: running")


def values(
    plan_text: str, samples: list[tuple[float, float | None]], until_s: float
) -> list[object]:
    """(seconds, value) of a condition over a series ``x``; None is a sample without a usable value."""
    history = History(
        np.zeros(len(samples), np.int64),
        np.array([round(at * S) for at, _ in samples], np.int64),
        np.array([np.nan if value is None else value for _, value in samples]),
        np.array([BAD if value is None else 0 for _, value in samples], np.uint32),
    )
    plan = compile_formula(plan_text, {"x": Quantity()})
    rows = evaluate(plan, {"x": history}, 0, round(until_s * S), assets=1)
    return list(zip((rows["at_us"] / S).to_list(), rows["value"].to_list(), strict=True))


def test_no_data_begins_so_long_after_the_last_usable_sample_and_ends_with_the_next() -> None:
    samples = [(0, 1.0), (1, 2.0), (4, None), (5, 3.0)]
    assert values("no data from x for 2 s", samples, 8) == [
        *((0, 0), (1, 0), (3, 1), (4, 1), (5, 0), (7, 1)),
    ]
    assert values("no data from x for 2 s", [(0, None)], 8) == [(0, 0), (2, 1)]
    assert values("no data from x for 2 s or x > 5", [(0, 6.0)], 8) == [(0, 1), (2, 1)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from([1.0, None])), unique_by=lambda x: x[0]),
    st.integers(1, 20),
    st.integers(0, 60),
)
def test_no_data_is_the_same_however_history_is_cut(
    samples: list[tuple[int, float | None]], wait_s: int, cut_s: int
) -> None:
    """Against its definition, and the part after the cut from the inputs that the plan asks for."""
    samples = sorted(samples)
    text = f"no data from x for {wait_s} s"
    whole = values(text, samples, 100)
    for at, value in whole:  # type: ignore[misc] # pairs of numbers
        usable = any(v is not None and at - wait_s < t <= at for t, v in samples)
        known = any(t <= at - wait_s for t, _ in samples)
        assert value == float(known and not usable)
    earlier = [t for t, _ in samples if t <= cut_s]
    from_s = (earlier[-1] if earlier else cut_s) - wait_s
    before = [each for each in samples if each[0] < min(from_s, cut_s - wait_s)][-1:]
    kept = [each for each in samples if each[0] >= min(from_s, cut_s - wait_s)]
    part = [each for each in values(text, before + kept, 100) if each[0] >= cut_s]  # type: ignore[index]
    assert part == [each for each in whole if each[0] >= cut_s]  # type: ignore[index]


@given(st.text())
def test_quotation_marks_in_texts_come_back(text: str) -> None:
    assert unquoted(quoted(text)) == text
