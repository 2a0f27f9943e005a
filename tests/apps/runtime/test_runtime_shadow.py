"""Champion and challenger in one executor: same windows, other tags, no hands; models of one asset; drift."""

from __future__ import annotations

from types import ModuleType

import msgspec
import numpy as np
import polars as pl
import pytest
from runtime_apps import T0, S, deployment, manifest, samples

from headrace import app
from headrace.apps.models.baseline import Sight, build_baseline
from headrace.apps.models.live_drift import LiveDrift
from headrace.apps.runtime.executor import Executor
from headrace.apps.runtime.shelf import Side, Use
from headrace.model.app_manifest import Output, Permissions
from headrace.model.errors import Transient
from headrace.model.sample import TIMESTAMP, microseconds

TOLD = manifest(
    models=["power"],
    outputs=[
        Output(type="pump", name="load", unit="kW", model="power"),
        Output(type="pump", name="word", unit="text"),
    ],
    services=[],
    permissions=Permissions(writes=["pump.flow"], calls=["other.ask"], history=True),
)
_BOUND = deployment(TOLD)
BOUND = msgspec.structs.replace(
    _BOUND,
    assets=tuple(
        msgspec.structs.replace(
            each, shadows={"load": tag + 50}, drifts={"power": tag + 60}, writes=first.writes
        )
        for first in _BOUND.assets[:1]
        for each, tag in zip(_BOUND.assets, (101, 201), strict=True)
    ),
)


class Times:
    """A model that multiplies."""

    def __init__(self, factor: float) -> None:
        self.factor, self.version, self.inputs = factor, f"{factor:g}", ["power"]

    def run(self, rows: np.ndarray) -> np.ndarray:
        if self.factor < 0:
            raise ValueError("a bad day")
        return rows * self.factor


class Models:
    """A shelf that a test changes."""

    def __init__(self, champions: list[Use], challengers: list[Use] | None = None) -> None:
        self.sides = {"champion": champions, "challenger": challengers or []}

    def uses(self, name: str, side: Side = "champion") -> list[Use]:
        return self.sides[side]


def module() -> ModuleType:
    made = ModuleType("load_watch")

    @app.score("power", type="pump", length="5 s", every="5 s", step="1 s", lateness="0")
    def score(window: app.Window, model: app.Model) -> pl.DataFrame:
        last = window.frame.group_by("asset", maintain_order=True).last().drop_nulls("power")
        window.state["calls"] = window.state.get("calls", 0) + 1
        for asset in window.assets:
            window.propose(app.WorkRequest(asset=asset.path, title="look", reason=model.version))
            window.write(asset.path, "flow", 1.0)
        if last.height:
            window.frame[0, "power"] = 1e6  # what a hook does to its frame is its own
        found = model.run(last.select("power").to_numpy())[:, 0] + window.state["calls"] / 1000
        texts = pl.lit(f"by {model.version} of {len(window.assets)}")
        return last.select("asset", "time", load=pl.Series(found, dtype=pl.Float64), word=texts)

    made.score = score
    return made


def rows(seconds: int) -> pl.DataFrame:
    told = [(tag, 10 * s, 2.0, 0, s) for s in range(seconds) for tag in (11, 21)]
    return samples([(t, at, 2000.0 if t == 11 else v, q, r) for t, at, v, q, r in told])


def run(shelf: Models, seconds: int = 10, state: bytes = b""):
    one = Executor(TOLD, module(), BOUND, state, start_us=T0, models=shelf)
    one.feed(rows(seconds))
    return one, one.advance(T0 + seconds * S)


def values(effects, tag: int) -> list[float]:
    return effects.samples.filter(pl.col("tag_id") == tag)["value"].to_list()


def test_a_challenger_scores_beside_the_champion_and_changes_nothing_for_it():
    alone = run(Models([Use(Times(2))]))[1]
    one, both = run(Models([Use(Times(2))], [Use(Times(3))]))
    own = both.samples.filter(~pl.col("tag_id").is_in([151, 251]))
    assert own.equals(alone.samples)
    assert (both.records, both.writes, both.calls) == (alone.records, alone.writes, alone.calls)
    assert {each.body["reason"] for each in both.records} == {"2"}  # nothing of the challenger
    assert len(both.writes) == 4 and both.problems == []
    assert values(both, 101) == [4.001, 4.002] and values(both, 151) == [6.001, 6.002]
    shadow = both.samples.filter(pl.col("tag_id") == 151)["source_timestamp"]
    assert shadow.equals(both.samples.filter(pl.col("tag_id") == 101)["source_timestamp"])
    # after a restart it goes on with the state that each had
    again = Executor(
        TOLD, module(), BOUND, one.save(), models=Models([Use(Times(2))], [Use(Times(3))])
    )
    again.feed(rows(15))
    assert values(again.advance(T0 + 15 * S), 151) == [6.003]
    # another challenger does not inherit it
    other = Executor(
        TOLD, module(), BOUND, one.save(), models=Models([Use(Times(2))], [Use(Times(4))])
    )
    other.feed(rows(15))
    assert values(other.advance(T0 + 15 * S), 151) == [8.001]


def test_a_challenger_that_fails_is_told_and_the_champion_works_on():
    found = run(Models([Use(Times(2))], [Use(Times(-1))]))[1]
    assert values(found, 101) == [4.001, 4.002] and values(found, 151) == []
    assert {each.code for each in found.problems} == {"APPS-2560"}
    assert "version -1" in found.problems[0].what and "a bad day" in found.problems[0].what
    assert len(found.records) == 4


def test_without_a_champion_nobody_scores():
    assert run(Models([], [Use(Times(3))]))[1].is_empty


def test_an_asset_has_its_own_model_and_the_others_that_of_all():
    shelf = Models([Use(Times(2)), Use(Times(5), "north/p2")])
    found = run(shelf, 5)[1]
    assert values(found, 101) == [4.001] and values(found, 201) == [pytest.approx(10.002)]
    texts = found.samples.filter(pl.col("text").is_not_null())["text"].to_list()
    assert sorted(texts) == ["by 2 of 1", "by 5 of 1"]
    assert len({each.id for each in found.records}) == len(found.records) == 2
    # a challenger is laid beside the champion of the same assets
    shelf.sides["challenger"] = [Use(Times(3)), Use(Times(4), "south/p1")]
    found = run(shelf, 5)[1]
    assert values(found, 151) == [8.001] and values(found, 251) == []
    only = run(Models([Use(Times(5), "north/p2")]), 5)[1]
    assert values(only, 101) == [] and values(only, 201) == [10.001]


def test_a_hook_that_is_always_asked_has_no_model_where_there_is_none():
    made, heard = ModuleType("load_watch"), []

    @app.score(
        "power", type="pump", length="5 s", every="5 s", step="1 s", lateness="0", always=True
    )
    def score(window: app.Window, model: app.Model | None) -> None:
        heard.append(([each.path for each in window.assets], model and model.version))

    made.score = score
    for uses in ([], [Use(Times(5), "north/p2")], [Use(Times(2))]):
        one = Executor(TOLD, made, BOUND, start_us=T0, models=Models(uses))
        one.advance(T0 + 5 * S)
    both = ["south/p1", "north/p2"]
    assert heard == [(both, None), (["north/p2"], "5"), (["south/p1"], None), (both, "2")]


def test_a_challenger_calls_no_other_app():
    made = ModuleType("load_watch")
    heard = []

    @app.score("power", type="pump", length="5 s", every="5 s", step="1 s", lateness="0")
    def ask(window: app.Window, model: app.Model) -> None:
        window.call("other.ask", msgspec.defstruct("Q", [])(), dict)

    made.ask = ask

    class Doors:
        def samples(self, *given):
            raise Transient("APPS-2205", "not here")

        def call(self, name, service, body):
            heard.append(name)
            return b"{}"

    shelf = Models([Use(Times(2))], [Use(Times(3))])
    one = Executor(TOLD, made, BOUND, start_us=T0, doors=Doors(), models=shelf)
    one.feed(rows(5))
    found = one.advance(T0 + 5 * S)
    assert heard == ["other"] and [each.code for each in found.problems] == ["APPS-2560"]


def test_drift_is_a_sample_a_stretch_and_goes_on_after_a_restart():
    rng = np.random.default_rng(1)
    power = 2.0 + rng.normal(0, 0.1, 1_400)
    power[1_200:] += 3.0
    at = T0 + S * np.arange(1_000, dtype=np.int64)
    history = pl.concat(
        pl.DataFrame({"asset": asset, "time": pl.Series(at).cast(TIMESTAMP), "power": power[:1000]})
        for asset in ("north/p2", "south/p1")
    )
    sight = Sight(type="pump", length_us=5 * S, every_us=5 * S, step_us=S)
    baseline = build_baseline(history, (T0, T0 + 1_000 * S), S, sight)
    shelf = Models([Use(Times(2), baseline=baseline)])
    told = [(21, 10 * s, float(power[s]), 0, s) for s in range(1_000, 1_400)]
    told += [(11, 10 * s, 1000 * float(power[s]), 0, s) for s in range(1_000, 1_400)]
    batch, start = samples(told), T0 + 1_000 * S
    one = Executor(TOLD, module(), BOUND, start_us=start, models=shelf)
    one.feed(batch)
    whole = one.advance(T0 + 1_400 * S).samples.filter(pl.col("tag_id").is_in([161, 261]))
    cut, state = [], b""
    for until in range(1_050, 1_401, 50):
        each = Executor(TOLD, module(), BOUND, state, start_us=start, models=shelf)
        each.feed(batch)
        found = each.advance(T0 + until * S).samples
        cut.append(found.filter(pl.col("tag_id").is_in([161, 261])))
        state = each.save()
    assert (
        pl.concat(cut)
        .sort("tag_id", "source_timestamp")
        .equals(whole.sort("tag_id", "source_timestamp"))
    )
    one_of = whole.filter(pl.col("tag_id") == 261)
    ends = (microseconds(one_of["source_timestamp"]) - T0) // S
    score = one_of["value"].to_numpy()
    assert set(np.diff(ends).tolist()) == {4, 6}  # with each window, at the end of a slot of 2 s
    assert score[ends > 1_260].min() > 1.5  # a stretch is 40 s
    assert (score[ends <= 1_200] > 1).mean() < 0.3
    assert LiveDrift(baseline, sight, "/2", {}).save()["of"] == "/2"
