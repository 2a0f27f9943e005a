"""What is wrong with a formula is found when it is written: place, reason, remedy, two languages."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import headrace.formula.problems as module
from headrace.formula.check import Quantity, compile_formula
from headrace.formula.grammar import TEXT_MAX, parse_file
from headrace.formula.problems import FormulaProblem
from headrace.model.calendar import PlantCalendar

NAMES = {
    "flow": Quantity(unit="m3/h"),
    "head": Quantity(unit="m"),
    "power": Quantity(unit="kW"),
    "temperature": Quantity(unit="degC"),
    "load": Quantity(unit="%"),
    "state": Quantity("text"),
    "running": Quantity("condition"),
    "counter": Quantity(),
    "odd": Quantity(unit="furlong"),
}
# (formula, code, the text that the caret is below, a word of the English message)
WRONG = (
    ("flow +", "FORM-1002", "+", "missing"),
    ("(flow", "FORM-1002", "w", "bracket"),
    ("if running then flow", "FORM-1002", "w", "else"),
    ("flow == head", "FORM-1001", "=", "one ="),
    ("running && running", "FORM-1001", "&", "and"),
    ("running || running", "FORM-1001", "|", "or"),
    ("flow × 2", "FORM-1001", "×", "*"),
    ("flow ≥ 2 m3/h", "FORM-1001", "≥", ">="),
    ("mean（flow）", "FORM-1001", "（", "brackets"),
    ("state = 'RUN'", "FORM-1001", "'", "double quotes"),
    ("flow head", "FORM-1001", "head", "operator"),
    ("1 + " * (TEXT_MAX // 4) + "1", "FORM-1032", "1", "deeply"),
    ("flwo * 2", "FORM-1010", "flwo", "flow"),
    ("quite_unknown", "FORM-1010", "quite_unknown", "counter"),
    ("flow * 3 furlong", "FORM-1011", "3 furlong", "unit"),
    ("2 flow", "FORM-1011", "2 flow", "2 * flow"),
    ("odd * 2", "FORM-1011", "odd", "furlong"),
    ("flow + head", "FORM-1012", "head", "m^3/s"),
    ("flow > temperature", "FORM-1012", "temperature", "same"),
    ("if running then flow else head", "FORM-1012", "head", "same"),
    ("clamp(flow, 0 m, 1 m)", "FORM-1012", "0 m", "same"),
    ("flow > 80", "FORM-1013", "80", "80 m3/h"),
    ("load > 80", "FORM-1013", "80", "80 %"),
    ("temperature > 0", "FORM-1013", "0", "0 degC"),
    ("temperature * 2", "FORM-1014", "temperature", "-> K"),
    ("integral(temperature) per day", "FORM-1014", "temperature", "-> K"),
    ("-temperature", "FORM-1014", "temperature", "-> K"),
    ("temperature + 5 degC", "FORM-1015", "5 degC", "5 K"),
    ("flow ^ head", "FORM-1016", "head", "x^2"),
    ("flow -> kPa", "FORM-1017", "flow", "m^3/s"),
    ("sin(flow)", "FORM-1017", "flow", "m^3/s"),
    ("foo(flow)", "FORM-1020", "foo", "floor"),
    ("status(flow)", "FORM-1020", "status", "function"),
    ("abs(flow, head)", "FORM-1021", "abs(flow, head)", "abs(x)"),
    ("lag(flow)", "FORM-1021", "lag(flow)", "lag(x, 5 min)"),
    ("percentile(flow, 5 min)", "FORM-1021", "percentile(flow, 5 min)", "95"),
    ("flow and running", "FORM-1022", "flow", "condition"),
    ("state + 1", "FORM-1022", "state", "number"),
    ("duration(flow, 5 min)", "FORM-1022", "flow", "condition"),
    ('if running then flow else "x"', "FORM-1022", '"x"', "number"),
    ("mean(flow)", "FORM-1023", "mean(flow)", "per shift"),
    ("mean(flow, 5 min) per day", "FORM-1024", "day", "one of them"),
    ("abs(flow) per day", "FORM-1025", "day", "mean"),
    ("mean(flow, head)", "FORM-1026", "head", "15 min"),
    ("running for 3 m", "FORM-1026", "3 m", "15 min"),
    ("mean(flow, 0.1 ms)", "FORM-1027", "0.1 ms", "1 ms"),
    ("mean(flow, 2 a)", "FORM-1027", "2 a", "400 d"),
    ("mean(flow) per shift", "FORM-1028", "shift", "day"),
    ("delta(counter, modulo 5)", "FORM-1029", "modulo 5", "rollover"),
    ("percentile(flow, 101, 5 min)", "FORM-1030", "101", "100"),
    ("delta(counter, rollover 0)", "FORM-1030", "rollover 0", "> 0"),
    ("flow is god", "FORM-1031", "flow is god", "uncertain"),
    ("2 * 3", "FORM-1033", "2 * 3", "measured"),
    ("band_energy(flow, 2 Hz, 1 Hz, 1 s)", "FORM-1080", "2 Hz, 1 Hz", "lower"),
    ("mean(2, 5 min)", "FORM-1033", "2", "measured"),
)


def problem_of(text: str) -> FormulaProblem:
    calendar = PlantCalendar()
    with pytest.raises(FormulaProblem) as raised:
        compile_formula(text, NAMES, calendar=calendar, calendar_names=calendar.names())
    return raised.value


@pytest.mark.parametrize(("text", "code", "marked", "word"), WRONG)
def test_a_problem_has_its_place_its_reason_and_a_remedy(
    text: str, code: str, marked: str, word: str
) -> None:
    problem = problem_of(text)
    assert problem.code == code
    assert text[problem.column - 1 : problem.column - 1 + problem.length] == marked
    english, chinese = problem.show("en"), problem.show("zh")
    assert word in english
    assert any("\u4e00" <= character <= "\u9fff" for character in chinese)
    assert "{" not in english + chinese
    told = problem.as_dict()
    assert told["what_zh"] and told["remedy_zh"] and told["code"] == code


def test_a_file_counts_its_lines_and_knows_names_twice() -> None:
    text = "# pumps\na = 1 m * 2\n\nb = a\n   + + 1\n"
    with pytest.raises(FormulaProblem) as raised:
        parse_file(text)
    assert (raised.value.line, raised.value.column) == (5, 6)
    for wrong, code in (
        ("a = 1\na = 2", "FORM-1004"),
        ("if = 1", "FORM-1005"),
        ("a 1", "FORM-1003"),
    ):
        with pytest.raises(FormulaProblem, match=code):
            parse_file(wrong)


def test_every_problem_has_all_its_texts_and_a_formula_that_has_it() -> None:
    table = tomllib.loads(Path(module.__file__).with_name("problems.toml").read_text("utf-8"))
    for code, texts in table.items():
        assert set(texts) == {"what", "what_zh", "remedy", "remedy_zh"}, code
    shown = {code for _, code, _, _ in WRONG} | {"FORM-1003", "FORM-1004", "FORM-1005"}
    alarms = {code for code in table if code.startswith("FORM-106")}  # in test_alarm_statement.py
    shown |= {"FORM-1034", "FORM-1035", "FORM-1112"}  # need several formulas: test_binding.py
    shown |= {"FORM-1110", "FORM-1111"}  # need a plant calendar: cases/words_*.formula
    assert shown == set(table) - alarms
