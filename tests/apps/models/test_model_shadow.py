"""A challenger scores the champion's windows through the executor, and its outputs are kept apart."""

from __future__ import annotations

import polars as pl
import pytest

from headrace.apps.models import daily
from headrace.apps.models.handing import lay_models, used_by
from headrace.apps.models.laid import LaidModels
from headrace.apps.models.record import DataWindow
from headrace.apps.models.registry import open_models
from headrace.apps.models.shadow import shadow
from headrace.apps.models.watch import look_for_drift
from headrace.historian.reader import Reader
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock
from models_onnx import linear
from models_plant import ASKED, PYTHON, START_US, STEP_US, deployment, fill

SPAN = (START_US, START_US + 300 * STEP_US)
WHY = {"by": "os:eve", "why": "try it"}


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    folder = DataFolder(tmp_path_factory.mktemp("plant"))
    fill(folder)
    window = DataWindow(
        start_us=ASKED.start_us, end_us=START_US + 400 * STEP_US, held_out_us=ASKED.held_out_us,
        assets=("hall/p0", "hall/p1", "hall/p2"),
    )  # fmt: skip
    with open_models(folder) as registry:
        for weight, bias in ((2.1, 1.0), (2.0, 1.0)):
            registry.add(
                "pump-load", "load", linear([weight], bias), ["flow"], by="os:eve", window=window
            )
    return folder


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "pump_load.py").write_text(PYTHON)
    return folder


def run(plant, code, truth=""):
    with open_models(plant) as registry:
        reader = Reader(plant.table)
        return shadow(
            plant, registry, reader, deployment(), code, "load", SPAN, truth=truth, seconds=100
        )


def test_a_challenger_is_compared_with_champion_and_truth(plant, code):
    with pytest.raises(Misconfigured, match="APPS-2530"):
        run(plant, code)
    with open_models(plant) as registry:
        registry.change("pump-load", "load", 1, "champion", **WHY)
        registry.change("pump-load", "load", 2, "challenger", **WHY)
    with pytest.raises(Misconfigured, match="APPS-2531"):
        run(plant, code, truth="colour")
    found = run(plant, code, truth="power")
    (one,) = found.outputs
    assert (found.champion, found.challenger, found.problems) == (1, 2, [])
    assert (one.output, one.windows, one.only_champion, one.truths) == (
        "expected",
        897,
        0,
        897,
    )  # the last is due 2 s later
    assert one.mean_difference == pytest.approx(-1.5, abs=0.1)  # 0.1 of a flow of 15
    assert one.rmse_challenger == pytest.approx(0.1, abs=0.02)  # the noise
    assert one.rmse_champion > 1 and one.nearer > 0.98
    kept = pl.read_parquet(plant.models / "shadow" / "pump-load" / "load-2.parquet")
    assert kept.columns == ["output", "asset", "time", "champion", "shadow"]
    assert kept.height == 897
    assert Reader(plant.table).read([100, 101, 102], 0, 1 << 60).height == 0


def test_the_process_of_an_app_takes_up_what_is_in_use(plant, tmp_path):
    with open_models(plant) as registry:
        names = ["load", "peeking"]
        models = LaidModels(tmp_path)
        assert models("load") is None
        used = {("load", ""): registry.get("pump-load", "load", 1)}
        assert lay_models(registry, used, names, tmp_path)
        assert not lay_models(registry, used, names, tmp_path)
        first = models("load")
        assert (first.version, first.inputs) == ("1", ["flow"])
        assert models("load") is first
        used = {("load", ""): registry.get("pump-load", "load", 2)}
        assert lay_models(registry, used, names, tmp_path)
        assert models("load").version == "2"
        assert lay_models(registry, {}, names, tmp_path)
        assert models("load") is None
        assert set(used_by(registry, "pump-load", names)) <= {("load", "")}


def test_drift_of_a_site_is_found_where_it_is(plant):
    with open_models(plant) as registry:
        record = registry.get("pump-load", "load", 1)
    reader, app = Reader(plant.table), deployment()
    stretch_us = 20 * STEP_US
    end_us = START_US + 500 * STEP_US  # power is 20 higher from 400 on
    found = look_for_drift(reader, app, record, end_us, stretch_us)
    assert all(each.blocks == 20 and each.can_tell for each in found.quantities)
    assert {(each.asset, each.quantity) for each in found.drifted} >= {
        (f"hall/p{n}", "power") for n in range(3)
    }
    assert found.by_chance == pytest.approx(0.05 * 6)
    before = look_for_drift(reader, app, record, START_US + 400 * STEP_US, stretch_us)
    assert len(before.drifted) <= 1
    assert found.p == pytest.approx(1 / 21) and before.p > 1 / 21


def test_each_day_is_looked_at_once_and_a_drift_is_told(plant, monkeypatch):
    monkeypatch.setattr(daily, "DAY_US", 20 * STEP_US)
    monkeypatch.setattr(daily, "LATE_US", 0)
    with open_models(plant) as registry:
        if registry.in_use("pump-load", "load", "champion") is None:
            registry.change("pump-load", "load", 1, "champion", **WHY)
    clock, told = ManualClock(START_US + 400 * STEP_US), []

    def looker():
        return daily.DailyLook(plant, clock, deployment(), lambda *event: told.append(event))

    reader = Reader(plant.table)
    assert len(looker().look(reader)) == 1 and told == []
    assert looker().look(reader) == []  # also after a restart
    clock.advance_us(60 * STEP_US)
    assert len(looker().look(reader)) == 1
    (event,) = told
    assert event[:2] == ("warning", "APPS-2540")
    assert "power of hall/p" in event[2]
