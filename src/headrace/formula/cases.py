"""Tests of formulas as text: load series, evaluate, expect rows or an error.

::

    time zone Europe/Berlin
    shift night 22:00 to 06:00
    shift early 06:00 to 14:00 on mon tue wed thu fri with teams A B
    holiday 2026-04-03 Good Friday
    planned stop 2026-04-02T12:00:00Z to 2026-04-02T16:00:00Z
    start 2026-03-28T20:00:00Z

    quantity flow in m3/h
    quantity state is text
    quantity upstream.flow in m3/h
    attribute rated_power = 7.5 kW

    load flow every 1 min: 1 2 3 _ bad uncertain:5 7x3 1..4
    load state at 90 s: "RUN"

    double = flow * 2

    eval mean(flow, 2 min) until 3 min
      0 s: 1
      1 min: 1.5
      2 min: 2.5
    eval double at 1 min = 4
    eval flow > 3 fails FORM-1013

Times count from ``start``. ``_`` is a gap, ``bad`` a sample without a usable value, ``7x3`` three times
7, ``1..4`` counts up. Rows of an ``eval`` are all samples that the formula has until its end (one step
after the last sample when it is not said); each is a time, a value (``none`` for none, ``true``,
``"text"``) and, where it is not Good, its status: ``uncertain``, ``bad`` or a standard name such as
``GoodClamped``. ``at`` asks for what holds at a time. ``late x at 90 s: 5`` is a sample that comes, or
comes once more with another value, after all that was loaded: what follows expects what history means
with it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np
import polars as pl

from headrace.formula.check import Quantity, check, compile_formula
from headrace.formula.evaluate import History, evaluate
from headrace.formula.grammar import parse_statement, split_statements
from headrace.formula.plan import Calendar, Plan
from headrace.formula.problems import FormulaProblem
from headrace.formula.steps import Constant
from headrace.model import status as st
from headrace.model.calendar import WEEKDAYS, PlantCalendar, Shift, Stop
from headrace.model.errors import Misconfigured
from headrace.model.time import US_PER_S, to_us

TOLERANCE: Final = 1e-9
_UNITS_US: Final = {"ms": 1_000, "s": US_PER_S, "min": 60 * US_PER_S, "h": 3_600 * US_PER_S,
                    "d": 86_400 * US_PER_S}  # fmt: skip
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)\b\s*")
_NAME: Final = r"[^\W\d]\w*(?:\.[^\W\d]\w*)?"
_QUANTITY: Final = re.compile(
    rf"quantity ({_NAME})(?: in (\S+)| is (text|condition))?(?: max_age (.+))?"
)
_ATTRIBUTE: Final = re.compile(rf'attribute ({_NAME}) = (?:"([^"]*)"|([-+\d.eE]+)(?: (\S+))?)')
_SHIFT: Final = re.compile(
    r"shift (\w+) (\d\d:\d\d) to (\d\d:\d\d)(?: on ((?:[a-z]{3} ?)+))?(?: with teams (.+))?"
)
_HOLIDAY: Final = re.compile(r"holiday (\d{4}-\d\d-\d\d)(?: (.+))?")
_STOP: Final = re.compile(r"planned stop (\S+) to (\S+)(?: (.+))?")
_LOAD: Final = re.compile(rf"(load|late) ({_NAME}) (every|at) ([^:]+): (.+)", re.DOTALL)
_EVAL: Final = re.compile(
    r"eval (?P<formula>.+?)"
    r"(?: at (?P<at>[\d. a-z]+?) = (?P<value>.+)| fails (?P<code>FORM-\d{4})"
    r"|(?: until (?P<until>[\d. a-z]+))?)"
)
_ITEM: Final = re.compile(
    r"(?:(bad|uncertain|(?:Good|Uncertain|Bad)[A-Za-z]*)(?::)?)?"
    r'("[^"]*"|[-+\d.eE]+|_|true|false)?(?:x(\d+))?'
)
_SEVERITIES: Final = {"good": 0, "uncertain": 1, "bad": 2}
_NAMED: Final = {name.lower(): code for code, name in st.NAMES.items()}


class Evaluator(Protocol):
    """:func:`headrace.formula.evaluate.evaluate`, or what gives the same samples."""

    def __call__(
        self,
        plan: Plan,
        histories: Mapping[str, History],
        start_us: int,
        end_us: int,
        *,
        assets: int,
        attributes: Mapping[str, Constant] | None = None,
        calendar: Calendar | None = None,
    ) -> pl.DataFrame: ...


class Failure(NamedTuple):
    """An expectation that does not hold, with the line of its file."""

    line: int
    text: str


@dataclass(slots=True)
class _Series:
    quantity: Quantity
    at_us: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    text: list[str | None] = field(default_factory=list)
    status: list[int] = field(default_factory=list)

    def history(self) -> History:
        """What was loaded; of two samples of one time the later loaded one."""
        newest = {at_us: place for place, at_us in enumerate(self.at_us)}
        places = list(newest.values())
        is_text = self.quantity.kind == "text"
        return History(
            np.zeros(len(places), np.int64),
            np.array(list(newest), np.int64),
            np.array(self.value, np.float64)[places],
            np.array(self.status, np.uint32)[places],
            pl.Series([self.text[place] for place in places], dtype=pl.String) if is_text else None,
        )


@dataclass(slots=True)
class _Case:
    evaluator: Evaluator = evaluate
    start_us: int = 1_767_225_600 * US_PER_S  # 2026-01-01T00:00:00Z
    zone: str = "UTC"
    shifts: list[Shift] = field(default_factory=list)
    holidays: dict[str, str] = field(default_factory=dict)
    stops: list[Stop] = field(default_factory=list)
    attributes: dict[str, tuple[Quantity, Constant]] = field(default_factory=dict)
    series: dict[str, _Series] = field(default_factory=dict)
    derived: dict[str, Plan] = field(default_factory=dict)
    evaluations: int = 0

    @property
    def calendar(self) -> PlantCalendar:
        return PlantCalendar(
            time_zone=self.zone,
            shifts=tuple(self.shifts),
            holidays=self.holidays,
            stops=tuple(self.stops),
        )

    @property
    def end_us(self) -> int:
        times = sorted(at for each in self.series.values() for at in each.at_us)
        return times[-1] + US_PER_S if times else self.start_us + US_PER_S

    @property
    def names(self) -> dict[str, Quantity]:
        named = {name: each.quantity for name, each in self.series.items()}
        named |= {name: quantity for name, (quantity, _) in self.attributes.items()}
        return named | {n: Quantity(plan.kind, plan.unit) for n, plan in self.derived.items()}

    def run(self, plan: Plan, end_us: int) -> pl.DataFrame:
        histories = {}
        for name in plan.inputs:
            if name in self.series:
                histories[name] = self.series[name].history()
            elif name in self.derived:
                rows = self.run(self.derived[name], end_us)
                histories[name] = _as_history(rows, self.derived[name])
        attributes = {name: constant for name, (_, constant) in self.attributes.items()}
        return self.evaluator(
            plan, histories, self.start_us, end_us,
            assets=1, attributes=attributes, calendar=self.calendar,
        )  # fmt: skip


def _as_history(rows: pl.DataFrame, plan: Plan) -> History:
    return History(
        rows["asset"].to_numpy(),
        rows["at_us"].to_numpy(),
        rows["value"].fill_null(math.nan).to_numpy(),
        rows["status"].to_numpy(),
        rows["text"] if plan.kind == "text" else None,
    )


def run_cases(text: str, evaluator: Evaluator = evaluate) -> tuple[int, list[Failure]]:
    """Run a text; how many evaluations it has, and those that do not give what is expected.

    Args:
        evaluator: what evaluates; another one than that of history must give the same.

    Raises:
        Misconfigured: FORM-1101 for a line that cannot be read.
        FormulaProblem: for a definition that is wrong.

    Example:
        >>> run_cases("quantity x in m\\nload x every 1 s: 1 2\\neval x * 2 at 1 s = 4")
        (1, [])
    """
    case, failures = _Case(evaluator), list[Failure]()
    for line, source in split_statements(text):
        failures += [Failure(line, told) for told in _step(case, line, source)]
    return case.evaluations, failures


def _step(case: _Case, line: int, source: str) -> Iterator[str]:
    statement = re.sub(r"\s+#.*", "", source.split("\n", 1)[0]).strip()
    if statement.startswith("eval "):
        case.evaluations += 1
        rows = [each.strip() for each in source.split("\n")[1:] if each.strip()]
        yield from _evaluate(case, line, statement, rows)
    elif statement.startswith(("load ", "late ")):
        _load(case, line, " ".join(re.sub(r"\s+#.*", "", source).split()))
    elif not _declare(case, line, statement):
        parsed = parse_statement(source, line=line)
        calendar = case.calendar
        case.derived[parsed.name] = check(
            parsed.expression, source, case.names, line=line,
            calendar=calendar, calendar_names=calendar.names(),
        )  # fmt: skip


def _declare(case: _Case, line: int, statement: str) -> bool:
    """Take what is said about the site; False when it says nothing of that kind."""
    if statement.startswith("quantity "):
        match = _matched(_QUANTITY, statement, line)
        age_us = _span_us(match[4], line) if match[4] else 0
        kind = match[3] or "number"
        case.series[match[1]] = _Series(Quantity(kind, match[2] or "1", max_age_us=age_us))  # type: ignore[arg-type] # one of the three
    elif statement.startswith("attribute "):
        match = _matched(_ATTRIBUTE, statement, line)
        case.attributes[match[1]] = _attribute(match)
    elif statement.startswith("time zone "):
        case.zone = statement.removeprefix("time zone ").strip()
    elif statement.startswith("start "):
        case.start_us = to_us(datetime.fromisoformat(statement.removeprefix("start ").strip()))
    elif statement.startswith("shift "):
        match = _matched(_SHIFT, statement, line)
        days = tuple(match[4].split()) if match[4] else WEEKDAYS
        teams = tuple((match[5] or "").split())
        shift = {
            "name": match[1], "start": match[2], "end": match[3], "days": days, "teams": teams
        }  # fmt: skip
        case.shifts.append(msgspec.convert(shift, Shift))
    elif statement.startswith("holiday "):
        match = _matched(_HOLIDAY, statement, line)
        case.holidays[match[1]] = match[2] or ""
    elif statement.startswith("planned stop "):
        match = _matched(_STOP, statement, line)
        start_us, end_us = (to_us(datetime.fromisoformat(match[n])) for n in (1, 2))
        case.stops.append(Stop(start_us=start_us, end_us=end_us, reason=match[3] or ""))
    else:
        return False
    return True


def _attribute(match: re.Match[str]) -> tuple[Quantity, Constant]:
    if match[2] is not None:
        return Quantity("text", constant=True), Constant(np.zeros(1), (match[2],))
    value = Constant(np.array([float(match[3])]))
    return Quantity("number", match[4] or "1", constant=True), value


def _matched(pattern: re.Pattern[str], text: str, line: int) -> re.Match[str]:
    match = pattern.fullmatch(text.strip())
    if match is None:
        raise Misconfigured(
            "FORM-1101",
            f"line {line}: {text!r} cannot be read",
            "See docs/formula.md, section Tests.",
        )
    return match


def _span_us(text: str, line: int) -> int:
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text).strip():
        raise Misconfigured(
            "FORM-1101",
            f"line {line}: {text!r} is no time",
            "Write for example 90 s or 1 h 30 min.",
        )
    return round(sum(float(number) * _UNITS_US[unit] for number, unit in parts))


def _load(case: _Case, line: int, statement: str) -> None:
    match = _matched(_LOAD, statement, line)
    _, name, how, when, items = match.groups()
    series = case.series.get(name)
    if series is None:
        raise Misconfigured(
            "FORM-1101",
            f"line {line}: {name} is no quantity",
            f"Declare it: quantity {name} in ...",
        )
    step = _span_us(when, line)
    at_us = case.start_us + (step if how == "at" else 0)
    for value, text, status, is_gap in _items(items, line):
        if not is_gap:
            series.at_us.append(at_us)
            series.value.append(value)
            series.text.append(text)
            series.status.append(status)
        at_us += step if how == "every" else US_PER_S


def _items(text: str, line: int) -> Iterator[tuple[float, str | None, int, bool]]:
    for word in re.findall(r'(?:\w+:)?"[^"]*"(?:x\d+)?|\S+', text):
        first, dots, last = word.partition("..")
        if dots:
            for whole in range(int(first), int(last) + 1):
                yield float(whole), None, st.GOOD, False
            continue
        match = _matched(_ITEM, word, line)
        quality, value, times = match[1], match[2] or "", int(match[3] or 1)
        status = _NAMED.get((quality or "good").lower())
        if status is None:
            raise Misconfigured(
                "FORM-1101",
                f"line {line}: {quality!r} is no status",
                "Write bad, uncertain, or a name of OPC UA such as GoodClamped.",
            )
        words = value[1:-1] if value.startswith('"') else None
        number = {"true": 1.0, "false": 0.0}.get(value, math.nan)
        if words is None and value not in ("", "_", "true", "false"):
            number = float(value)
        for _ in range(times):
            yield number, words, status, value == "_"


def _evaluate(case: _Case, line: int, statement: str, rows: list[str]) -> Iterator[str]:
    match = _matched(_EVAL, statement, line)
    calendar = case.calendar
    try:
        plan = compile_formula(
            match["formula"], case.names, calendar=calendar, calendar_names=calendar.names()
        )
    except FormulaProblem as problem:
        if match["code"] != problem.code:
            yield f"{statement}\n{problem.show()}"
        return
    if match["code"]:
        yield f"{statement}: it is right, {match['code']} was expected"
        return
    if match["at"]:
        at_us = case.start_us + _span_us(match["at"], line)
        found = case.run(plan, at_us + 1).tail(1)
        if not found.height or not _holds(found.row(0, named=True), match["value"], line):
            yield f"{statement}, but it is {_shown(found, case)}"
        return
    end_us = case.start_us + _span_us(match["until"], line) if match["until"] else case.end_us
    yield from _compare(case, line, statement, rows, case.run(plan, end_us))


def _compare(
    case: _Case, line: int, statement: str, rows: list[str], found: pl.DataFrame
) -> Iterator[str]:
    wanted = [row.partition(":") for row in rows if not row.startswith("#")]
    times = [case.start_us + _span_us(when, line) for when, _, _ in wanted]
    right = times == found["at_us"].to_list() and all(
        _holds(row, value, line)
        for row, (_, _, value) in zip(found.iter_rows(named=True), wanted, strict=True)
    )
    if not right:
        yield f"{statement} gives\n{_shown(found, case)}"


def _holds(row: dict[str, object], wanted: str, line: int) -> bool:
    words = re.findall(r'"[^"]*"|\S+', re.sub(r"\s+#.*", "", wanted).strip())
    if not 1 <= len(words) <= 2:
        raise Misconfigured(
            "FORM-1101",
            f"line {line}: {wanted!r} is no value",
            "Write a value and, if not Good, its status.",
        )
    expected, status = words[0], words[1].lower() if len(words) == 2 else "good"
    code = int(str(row["status"]))
    if status in _SEVERITIES:
        severity = min(code >> 30, 2)
        exact = status != "good" or code == st.GOOD
        if severity != _SEVERITIES[status] or not exact:
            return False
    elif code != _NAMED.get(status):
        return False
    if expected.startswith('"'):
        return bool(row["text"] == expected[1:-1])
    if expected == "none":
        return row["value"] is None and row["text"] is None
    value = {"true": 1.0, "false": 0.0}.get(expected)
    number = float(expected) if value is None else value
    actual = row["value"]
    return isinstance(actual, float) and math.isclose(
        actual, number, rel_tol=TOLERANCE, abs_tol=TOLERANCE
    )


def _shown(found: pl.DataFrame, case: _Case) -> str:
    lines = []
    for row in found.head(40).iter_rows(named=True):
        value = f'"{row["text"]}"' if row["text"] is not None else row["value"]
        status = "" if row["status"] == st.GOOD else f" {st.name(row['status'])}"
        at_s = (row["at_us"] - case.start_us) / US_PER_S
        lines.append(f"  {at_s:g} s: {'none' if value is None else value}{status}")
    return "\n".join(lines) or "  nothing"
