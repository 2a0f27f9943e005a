"""A formula gives what it means: as a slow reference works it out, and however time is cut."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Row

from headrace.formula.check import compile_formula
from headrace.formula.evaluate import History, evaluate
from headrace.formula.plan import Plan
from streams import CALENDAR, NAMES, SECOND

FORMULAS = (
    "x * 2 + 3 m3/h",
    "x * y",
    "if x > 0 m3/h then x else 0",
    "x > 5 m3/h and y < 5 kW or x is bad",
    "x > 0 m3/h for 7 s",
    "mean(x, 10 s)",
    "time_mean(x, 10 s) + 1 m3/h",
    "std(x, 10 s)",
    "min(x, 7 s) - max(x, 9 s)",
    "sum(x, 10 s)",
    "count(x, 10 s)",
    "first(x, 10 s) + last(x, 10 s)",
    "percentile(x, 70, 10 s)",
    "integral(y, 10 s)",
    "slope(x, 10 s)",
    "correlation(x, y, 15 s)",
    "delta(counter, rollover 100)",
    "delta(counter, rollover 100, 10 s)",
    "transitions(state, 12 s)",
    'duration(state = "RUN", 12 s)',
    "derivative(x)",
    "lag(x, 5 s) - x",
    "hold(x, 3 s) * 2",
    "no data from x for 3 s",
    "ewma(x, 2 s)",
    "mean(x) per 5 s",
    "integral(y) per minute",
    "std(x) per 9 s",
    "slope(x) per 9 s",
    "correlation(x, y) per 20 s",
    'mean(x) per cycle of state = "RUN"',
    "count(x) per value of state",
    "max(mean(x, 5 s), 10 s)",
    "mean(x, 5 s) > 3 m3/h for 4 s",
    "coalesce(x, lag(x, 3 s))",
    "clamp(x, 0 m3/h, 5 m3/h)",
    'state = "RUN" for 3 s and x > 0 m3/h',
    'if state = "RUN" then "on" else "off"',
)


def plan_of(text: str) -> Plan:
    return compile_formula(text, NAMES, calendar=CALENDAR, calendar_names=CALENDAR.names())


def history(rows: list[Row], asset: int = 0) -> History:
    return History(
        np.full(len(rows), asset, np.int64),
        np.array([row.at_us for row in rows], np.int64),
        np.array([row.value for row in rows], np.float64),
        np.array([0x80000000 if row.bad else 0 for row in rows], np.uint32),
    )


numbers = st.one_of(st.integers(-20, 20).map(float), st.floats(-1e3, 1e3, width=32))


@st.composite
def series(draw: st.DrawFn, values: st.SearchStrategy[float] = numbers) -> list[Row]:
    gaps = draw(st.lists(st.integers(1, 9 * SECOND), min_size=1, max_size=40))
    times = np.cumsum(gaps).tolist()
    return [Row(int(at), draw(values), draw(st.integers(0, 9)) == 0) for at in times]


def run(text: str, rows: list[Row], end_us: int | None = None) -> pl.DataFrame:
    end = end_us or rows[-1].at_us + 1
    return evaluate(plan_of(text), {"x": history(rows)}, 0, end, assets=1, calendar=CALENDAR)


def close(left: float | None, right: float) -> bool:
    if left is None or math.isnan(right):
        return left is None and math.isnan(right)
    return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("name", reference.sample_functions())
@given(rows=series(), seconds=st.integers(1, 30))
@settings(max_examples=25, deadline=None)
def test_a_sliding_window_holds_its_samples(name: str, rows: list[Row], seconds: int) -> None:
    function = reference.sample_functions()[name]
    result = run(f"{name}(x, {seconds} s)", rows)
    assert result["at_us"].to_list() == [row.at_us for row in rows]
    for at_us, value in zip(result["at_us"], result["value"], strict=True):
        window = reference.in_window(rows, at_us, seconds * SECOND)
        assert close(value, function(reference.good(window)))


@given(rows=series(), seconds=st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_areas_are_below_the_steps(rows: list[Row], seconds: int) -> None:
    integral = run(f"integral(x, {seconds} s) -> m3", rows)
    mean = run(f"time_mean(x, {seconds} s)", rows)
    for row, area_value, mean_value in zip(rows, integral["value"], mean["value"], strict=True):
        start = row.at_us - seconds * SECOND
        area, known = reference.area(rows, start, row.at_us)
        assert close(area_value, area / 3600 if known else math.nan)
        assert close(mean_value, area / known if known else math.nan)


@given(rows=series(st.sampled_from([0.0, 10.0])), seconds=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_for_waits_without_a_break(rows: list[Row], seconds: int) -> None:
    end = rows[-1].at_us + 30 * SECOND
    result = run(f"x > 5 m3/h for {seconds} s", rows, end)
    condition = [Row(r.at_us, float(r.value > 5), r.bad) for r in rows]
    for at_us, value in zip(result["at_us"], result["value"], strict=True):
        row = reference.held(condition, at_us)
        assert row is not None
        wanted = reference.held_for(condition, at_us, seconds * SECOND)
        assert (value is None) if row.bad else (value == float(wanted))
    ripe = {r.at_us for r in condition if not r.bad and r.value}
    told = set(result["at_us"])
    for begin in ripe:
        at = begin + seconds * SECOND
        if at < end and reference.held_for(condition, at, seconds * SECOND):
            assert at in told or any(
                b < begin and reference.held_for(condition, b + seconds * SECOND, seconds * SECOND)
                for b in ripe
            )


@given(rows=series())
@settings(max_examples=25, deadline=None)
def test_percentiles_and_slopes_are_numpys(rows: list[Row]) -> None:
    percentile = run("percentile(x, 30, 12 s)", rows)
    slope = run("slope(x, 12 s) -> m3/h/s", rows)
    for row, p, k in zip(rows, percentile["value"], slope["value"], strict=True):
        window = [r for r in reference.in_window(rows, row.at_us, 12 * SECOND) if not r.bad]
        values = [r.value for r in window]
        assert close(p, float(np.quantile(values, 0.3)) if values else math.nan)
        if (
            window and window[-1].at_us - window[0].at_us > 1_000
        ):  # times of less are rounding alone
            seconds = np.array([r.at_us / SECOND for r in window])
            seconds = seconds - seconds.mean()
            y = np.array(values)
            wanted = float((seconds * (y - y.mean())).sum() / (seconds**2).sum())
            assert k is not None and math.isclose(k, wanted, rel_tol=1e-6, abs_tol=1e-6)


@st.composite
def plants(draw: st.DrawFn) -> tuple[dict[str, History], int]:
    """Histories of three assets, and the time up to which they are known."""
    parts: dict[str, list[tuple[int, list[Row]]]] = {name: [] for name in NAMES}
    for asset in range(3):
        for name in NAMES:
            values = st.integers(0, 99).map(float) if name == "counter" else numbers
            parts[name].append((asset, draw(series(values))))
    made = {}
    for name, each in parts.items():
        rows = [row for _, part in each for row in part]
        assets = np.repeat([a for a, _ in each], [len(p) for _, p in each])
        text = None
        if name == "state":
            text = pl.Series([("RUN", "IDLE", "STOP")[int(row.value) % 3] for row in rows])
        plain = history(rows)
        made[name] = History(assets, plain.at_us, plain.value, plain.status, text)
    return made, max(int(each.at_us.max()) for each in made.values()) + 20 * SECOND


def cut(each: History, plan: Plan, start_us: int, end_us: int) -> History:
    """What the contract of :func:`evaluate` asks for, and nothing more."""
    keep = np.zeros(len(each.at_us), np.bool_)
    for asset in np.unique(each.asset):
        mine = np.flatnonzero(each.asset == asset)
        at = each.at_us[mine]
        before = at[at <= start_us - plan.back_us]
        begin = (before[-1] if len(before) else start_us) - plan.back_us
        held = at[at < begin]
        begin = held[-1] if len(held) else begin
        keep[mine[(at >= begin) & (at < end_us)]] = True
    text = each.text.filter(pl.Series(keep)) if each.text is not None else None
    return History(each.asset[keep], each.at_us[keep], each.value[keep], each.status[keep], text)


def of(plan: Plan, plant: dict[str, History], start_us: int, end_us: int) -> pl.DataFrame:
    inputs = {name: cut(plant[name], plan, start_us, end_us) for name in plan.inputs}
    return evaluate(plan, inputs, start_us, end_us, assets=3, calendar=CALENDAR)


@pytest.mark.parametrize("text", FORMULAS)
@given(
    plant=plants(),
    cuts=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
@settings(max_examples=6, deadline=None)
def test_cutting_time_changes_nothing(
    text: str, plant: tuple[dict[str, History], int], cuts: list[float], seed: int
) -> None:
    plan, (histories, end_us) = plan_of(text), plant
    whole = of(plan, histories, 0, end_us)
    edges = sorted({0, end_us, *(int(share * end_us) for share in cuts)})
    parts = [of(plan, histories, start, end) for start, end in pairwise(edges)]
    joined = pl.concat(parts).sort("asset", "at_us")
    columns = ["asset", "at_us", "text", "status"]
    assert joined.select(columns).equals(whole.select(columns))
    if "ewma" in text:
        difference = (joined["value"] - whole["value"]).abs().max()
        assert difference is None or difference < 1e-9
    else:
        assert joined["value"].equals(whole["value"])


@pytest.mark.parametrize("text", FORMULAS)
@given(plant=plants(), seed=st.integers(0, 1000))
@settings(max_examples=3, deadline=None)
def test_the_order_of_arrival_and_the_neighbours_change_nothing(
    text: str, plant: tuple[dict[str, History], int], seed: int
) -> None:
    plan, (histories, end_us) = plan_of(text), plant
    whole = of(plan, histories, 0, end_us)
    generator = np.random.default_rng(seed)
    for asset in range(3):
        alone = {}
        for name in plan.inputs:
            each = histories[name]
            mine = generator.permutation(np.flatnonzero(each.asset == asset))
            alone[name] = History(
                np.zeros(len(mine), np.int64),
                each.at_us[mine],
                each.value[mine],
                each.status[mine],
                each.text[mine] if each.text is not None else None,
            )
        result = evaluate(plan, alone, 0, end_us, assets=1, calendar=CALENDAR)
        wanted = whole.filter(pl.col("asset") == asset).drop("asset")
        assert result.drop("asset").equals(wanted)
