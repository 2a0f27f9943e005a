"""Formulas on assets: what a name means there, what comes first, and what is wrong."""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as hs

from headrace.formula.binding import Binding, bind, check_all
from headrace.formula.evaluate import History, evaluate
from headrace.formula.problems import FormulaProblem
from headrace.formula.stream import Stream
from headrace.model import status as st
from headrace.model.calendar import PlantCalendar, Shift
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig, FormulaConfig
from headrace.model.sample import make_batch
from headrace.model.time import US_PER_S

PUMP = AssetTypeConfig(
    name="pump",
    quantities={"flow": "m3/h", "power": "kW", "state": "text", "running": "condition"},
    attributes={"rated_power": "kW", "maker": "text"},
    relations={"source": "tank", "twin": "pump"},
)
TANK = AssetTypeConfig(name="tank", quantities={"level": "m"}, attributes={"area": "m2"})
P1 = AssetConfig(
    path="hall/p1",
    type="pump",
    tags={"flow": 11, "power": 12, "state": 13, "running": 14},
    attributes={"rated_power": 5.5, "maker": "north"},
    relations={"source": "hall/t1", "twin": "hall/p2"},
    outputs={"load": 101, "double": 102, "filled": 103},
)
P2 = AssetConfig(
    path="hall/p2",
    type="pump",
    tags={"flow": 21, "power": 22},
    attributes={"rated_power": 11.0, "maker": "south"},
    relations={"twin": "hall/p1"},
    outputs={"load": 201, "double": 202},
)
T1 = AssetConfig(
    path="hall/t1",
    type="tank",
    tags={"level": 31},
    attributes={"area": 4.0},
    outputs={"volume": 301},
)


def _config(
    *texts: str, types: tuple[AssetTypeConfig, ...] = (PUMP, TANK), **more: object
) -> AppsConfig:
    formulas = []
    for line, text in enumerate(texts, 1):
        kind, _, statement = text.partition(": ")
        name = statement.partition(" =")[0]
        formulas.append(FormulaConfig(asset_type=kind, name=name, text=statement, line=line))
    return AppsConfig(
        enterprise="acme",
        site="mill",
        types=types,
        assets=(P1, P2, T1),
        formulas=tuple(formulas),
        **more,
    )  # type: ignore[arg-type] # fields of AppsConfig


def _of(binding: Binding, key: str) -> tuple[str, ...]:
    return next(bound.assets for bound in binding.bound if bound.key == key)


def test_quantities_and_attributes_of_each_asset() -> None:
    bound = bind(_config("pump: load = power / rated_power -> %")).bound[0]
    assert bound.key == "pump.load" and bound.role == "formula" and bound.plan.unit == "%"
    assert bound.assets == ("hall/p1", "hall/p2")
    assert bound.inputs["power"].tolist() == [12, 22] and set(bound.inputs) == {"power"}
    assert bound.attributes["rated_power"].value.tolist() == [5.5, 11.0]
    assert bound.outputs.tolist() == [101, 201]
    one = np.zeros(1, np.int64)
    histories = {
        "power": History(
            np.array([0, 1]), np.zeros(2, np.int64), np.full(2, 5.5), np.zeros(2, np.uint32)
        )
    }
    rows = evaluate(bound.plan, histories, 0, 1, assets=2, attributes=bound.attributes)
    assert rows["value"].to_list() == [100.0, 50.0] and len(one) == 1


def test_an_attribute_of_text_has_words() -> None:
    bound = bind(
        _config('pump: double = (if maker = "south" then flow * 2 else flow) -> m3/h')
    ).bound[0]
    assert bound.attributes["maker"].words == ("north", "south")
    assert bound.attributes["maker"].value.tolist() == [0.0, 1.0]
    histories = {
        "flow": History(
            np.array([0, 1]), np.zeros(2, np.int64), np.full(2, 3.0), np.zeros(2, np.uint32)
        )
    }
    rows = evaluate(bound.plan, histories, 0, 1, assets=2, attributes=bound.attributes)
    assert rows["value"].to_list() == [3.0, 6.0]


def test_relations_lead_to_tags_attributes_and_formulas() -> None:
    binding = bind(
        _config(
            "pump: filled = source.volume / (source.area * 1 m) + 0 * twin.flow / twin.flow",
            "tank: volume = level * area",
        )
    )
    assert [bound.key for bound in binding.bound] == ["tank.volume", "pump.filled"]
    bound = binding.bound[1]
    assert bound.assets == ("hall/p1",)
    assert bound.inputs["source.volume"].tolist() == [301]
    assert bound.inputs["twin.flow"].tolist() == [21]
    assert bound.attributes["source.area"].value.tolist() == [4.0]
    assert set(binding.missing) == {
        ("hall/p2", "pump.filled", "source.volume"),
        ("hall/p2", "pump.filled", "source.area"),
    }


def test_what_an_asset_lacks_is_missing_there_and_in_what_reads_it() -> None:
    binding = bind(
        _config("pump: double = if running then flow * 2 else flow", "pump: load = double * 2")
    )
    assert _of(binding, "pump.double") == _of(binding, "pump.load") == ("hall/p1",)
    assert binding.missing == (
        ("hall/p2", "pump.double", "running"),
        ("hall/p2", "pump.load", "double"),
    )


def test_a_formula_that_is_off_is_not_bound_but_can_be_tried() -> None:
    config = _config("pump: double = flow * 2")
    off = FormulaConfig(asset_type="pump", name="load", text="load = double * 2", state="off")
    config = AppsConfig(
        enterprise="a", site="b", types=config.types, assets=config.assets,
        formulas=(*config.formulas, off),
    )  # fmt: skip
    assert [bound.key for bound in bind(config).bound] == ["pump.double"]
    assert [bound.state for bound in bind(config, with_off=True).bound] == ["live", "off"]


def test_shifts_of_the_site_are_known() -> None:
    text = "pump: load = integral(power) per shift -> kWh"
    with pytest.raises(FormulaProblem, match="FORM-1028"):
        bind(_config(text))
    shifts = (Shift(name="early", start="06:00", end="14:00"),)
    assert bind(_config(text, calendar=PlantCalendar(shifts=shifts))).bound


@pytest.mark.parametrize(
    ("texts", "code", "words"),
    [
        (("pump: load = load * 2",), "FORM-1034", "pump.load → pump.load"),
        (
            ("pump: load = double * 2", "pump: double = load * 2"),
            "FORM-1034",
            "pump.load → pump.double → pump.load",
        ),
        (("pump: load = flow + twin.load",), "FORM-1034", "pump.load → pump.load"),
        (("pump: flow = power * 2",), "FORM-1035", "a quantity of pump"),
        (("pump: maker = power * 2",), "FORM-1035", "an attribute of pump"),
        (("pump: source = power * 2",), "FORM-1035", "a relation of pump"),
        (("pump: load = rated_power * 2",), "FORM-1033", "changes"),
        (("pump: load = flow + power",), "FORM-1012", "power"),
        (("pump: load = source.levle * 2",), "FORM-1010", "source.level"),
        (("tank: load = flow * 2",), "FORM-1010", "tank"),
        (("pump: load = flow +",), "FORM-1002", "missing"),
    ],
)
def test_what_is_wrong(texts: tuple[str, ...], code: str, words: str) -> None:
    with pytest.raises(FormulaProblem) as caught:
        bind(_config(*texts))
    assert caught.value.code == code
    assert words in f"{caught.value.what} {caught.value.remedy}"
    assert caught.value.show("zh")


def test_one_problem_is_told_once_with_its_line() -> None:
    checked, problems = check_all(
        _config(
            "pump: a = flow * 2", "pump: b = flow + power", "pump: c = b * 2", "pump: d = a * 2"
        )
    )
    assert [(found.name, found.problem.line) for found in problems] == [("b", 2)]
    assert [each.formula.name for each in checked] == ["a", "d"]


@given(
    hs.integers(1, 12).flatmap(
        lambda n: hs.tuples(
            hs.permutations(range(n)),
            hs.lists(hs.tuples(hs.integers(0, n - 1), hs.integers(0, n - 1)), max_size=30),
        )
    )
)
def test_what_reads_another_comes_after_it(drawn: tuple[list[int], list[tuple[int, int]]]) -> None:
    order, pairs = drawn
    needs = {number: sorted({b for a, b in pairs if a == number and b < a}) for number in order}
    texts = [
        f"pump: f{number} = flow" + "".join(f" + f{other}" for other in needs[number])
        for number in order
    ]
    done: set[str] = set()
    bound = bind(_config(*texts)).bound
    assert len(bound) == len(order)
    for each in bound:
        read = set(each.plan.inputs) - {"flow"}
        assert read <= done
        done.add(each.key.removeprefix("pump."))


def _aged(formula: str, at_s: list[int], end_s: int) -> list[tuple[int, float, int]]:
    kind = AssetTypeConfig(
        name="pump", quantities={"flow": "m3/h"}, max_age_us={"flow": 10 * US_PER_S}
    )
    bound = bind(_config(f"pump: load = {formula}", types=(kind, TANK))).bound[0]
    times = np.array(at_s, np.int64) * US_PER_S
    count = len(at_s)
    history = History(
        np.zeros(count, np.int64), times, np.arange(1.0, count + 1), np.zeros(count, np.uint32)
    )
    rows = evaluate(bound.plan, {"flow": history}, 0, end_s * US_PER_S, assets=1)
    return [
        (at // US_PER_S, value, status)
        for at, value, status in rows.select("at_us", "value", "status").rows()
    ]


def test_a_value_that_grew_old_makes_the_result_uncertain() -> None:
    old = st.UNCERTAIN_LAST_USABLE_VALUE
    assert _aged("flow * 2 -> m3/h", [0, 5, 20], 25) == [
        (0, 2, 0),
        (5, 4, 0),
        (15, 4, old),
        (20, 6, 0),
    ]


def test_an_old_value_is_no_sample_of_a_window() -> None:
    old = st.UNCERTAIN_LAST_USABLE_VALUE
    assert _aged("count(flow, 1 min)", [0, 5], 30) == [(0, 1, 0), (5, 2, 0), (15, 2, old)]
    assert _aged("mean(flow, 1 min)", [0, 5, 20], 22) == [
        (0, 1, 0), (5, 1.5, 0), (15, 1.5, old), (20, 2, 0),
    ]  # fmt: skip


def test_an_integral_over_an_old_value_is_uncertain() -> None:
    rows = _aged("integral(flow, 1 min) -> m3", [0, 5], 60)
    assert [at for at, _, _ in rows] == [0, 5, 15] and rows[-1][2] >= st.UNCERTAIN


def test_hold_in_a_formula_goes_before_the_age_of_the_type() -> None:
    assert [row[0] for row in _aged("hold(flow, 20 s)", [0], 60)] == [0, 20]


def test_an_alarm_gives_a_bound_for_its_beginning_its_end_and_its_suppression() -> None:
    text = 'alarm a: power > 5 kW for 1 min, off below load, suppressed when state = "STOP"'
    load = FormulaConfig(asset_type="pump", name="load", text="load = power - 1 kW")
    alarm = FormulaConfig(asset_type="pump", name="a", kind="alarm", text=text, version=3)
    config = AppsConfig(
        enterprise="acme", site="mill", types=(PUMP,), assets=(P1,), formulas=(alarm, load)
    )
    binding = bind(config)
    found = [(each.key, each.role, sorted(each.inputs)) for each in binding.bound]
    assert found == [
        ("pump.load", "formula", ["power"]),
        ("pump.a", "alarm", ["power"]),
        ("pump.a/off", "alarm_off", ["load", "power"]),
        ("pump.a/suppressed", "alarm_suppressed", ["state"]),
    ]
    assert binding.bound[1].version == 3 and binding.bound[1].outputs.tolist() == [0]
    wrong = FormulaConfig(asset_type="pump", name="flow", kind="alarm", text="alarm flow: running")
    with pytest.raises(FormulaProblem, match="FORM-1035") as raised:
        bind(AppsConfig(enterprise="a", site="b", types=(PUMP,), formulas=(wrong,)))
    assert raised.value.column == 7


@given(
    hs.sets(hs.integers(0, 60), min_size=1, max_size=12),
    hs.sets(hs.integers(1, 80), max_size=6),
    hs.sampled_from(
        ["flow * 2 -> m3/h", "mean(flow, 20 s)", "integral(flow, 15 s) -> m3", "lag(flow, 5 s)"]
    ),
)
def test_values_grow_old_as_time_goes_on(times: set[int], cuts: set[int], text: str) -> None:
    at_s = sorted(times)
    kind = AssetTypeConfig(
        name="pump", quantities={"flow": "m3/h"}, max_age_us={"flow": 10 * US_PER_S}
    )
    asset = AssetConfig(path="hall/p", type="pump", tags={"flow": 11}, outputs={"load": 101})
    config = _config(f"pump: load = {text}", types=(kind,))
    (bound,) = bind(msgspec.structs.replace(config, assets=(asset,))).bound
    stream, rows, done = Stream([bound]), [], 0
    values = np.arange(1.0, len(at_s) + 1)
    for cut in [*sorted(cuts), 100]:
        now = [place for place, at in enumerate(at_s) if done <= at < cut]
        at_us = np.array([at_s[place] for place in now], np.int64) * US_PER_S
        batch = make_batch(np.full(len(now), 11), at_us, values[now], received_timestamp_us=at_us)
        stream.put(batch)
        rows += [frame for _, frame in stream.advance(cut * US_PER_S).results]
        done = cut
    found = pl.concat(rows).sort("at_us").select("at_us", "value", "status").rows()
    whole = _aged(text, at_s, 100)
    assert [(at // US_PER_S, status) for at, _, status in found] == [(r[0], r[2]) for r in whole]
    assert [row[1] for row in found] == pytest.approx([row[1] for row in whole], nan_ok=True)


@pytest.mark.parametrize(("reader", "refused"), [("live", True), ("shadow", False), ("off", False)])
def test_what_is_in_operation_does_not_read_what_is_tried(reader: str, refused: bool) -> None:
    config = _config("pump: load = power / rated_power -> %", "pump: double = load * 2")
    states = {"load": "shadow", "double": reader}
    formulas = tuple(
        msgspec.structs.replace(each, state=states[each.name]) for each in config.formulas
    )
    checked, problems = check_all(msgspec.structs.replace(config, formulas=formulas))
    assert [each.formula.name for each in checked] == (["load"] if refused else ["load", "double"])
    assert [found.problem.code for found in problems] == (["FORM-1112"] if refused else [])
