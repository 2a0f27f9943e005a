"""Score hooks on the bench: trained on the scenario's first part, or from a file of the scenario."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_rig import failed, must, tried, write_app, write_scenario

from headrace.bench.learned import Models
from headrace.bench.report import Report, html_of, json_of
from headrace.bench.scenario_file import read_scenario
from headrace.bench.trial import Trial
from headrace.model.errors import Misconfigured
from models_onnx import hostile, linear

PYTHON = """
import numpy as np
import onnx
import polars as pl
from onnx import TensorProto, helper, numpy_helper
from headrace import app


@app.train("lift")
def fit(history, context):
    learned = history.filter(~history["held_out"])
    mean = learned["head"].mean() + context.settings["seed"]
    apart = (history.filter(history["held_out"])["head"] - mean).abs().max()
    tensors = [
        numpy_helper.from_array(np.array([[1.0]], np.float32), "w"),
        numpy_helper.from_array(np.array([-mean], np.float32), "b"),
    ]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])], tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 9
    return app.Trained(
        onnx=made.SerializeToString(),
        metrics={"apart": apart, "rows": float(history.height)},
        inputs=["head"],
    )


@app.score("lift", type="pump", length="5 s", every="5 s")
def lack(window, model):
    rows = window.frame.drop_nulls("head").group_by("asset", maintain_order=True).last()
    found = model.run(rows.select("head").to_numpy())
    return rows.select("asset", "time", lack=pl.Series(found[:, 0], dtype=pl.Float64))
"""
TRAIN = """
[model.lift]
train = { type = "pump", until_s = 40, every_s = 1, held_out = 0.25 }
"""
CRASH = '\n[[hostile]]\nkind = "crash"\nat_s = 52\ndelay_s = 4\n'
# The head is 20 m, and 12 m from second 60 to 89.
FULL = must("value", asset="hall/p1", name="lack", until_s=59, minimum=0, maximum=0, samples=3)
LOW = must("value", asset="hall/p1", name="lack", from_s=61, until_s=89, maximum=-8, samples=5)


def scoring_app(folder: Path, python: str = PYTHON) -> Path:
    write_app(folder, python)
    path = folder / "app.toml"
    text = path.read_text("utf-8").replace(
        'name = "mean_flow"\nunit = "m3/h"', 'name = "lack"\nunit = "m"'
    )
    path.write_text(text.replace("\n[types", '\nmodels = ["lift"]\n\n[types', 1), "utf-8")
    return folder


def page(trial: Trial) -> tuple[bytes, bytes]:
    report = Report(subject="app", id="tried", version="1.0.0", platform="0", trials=[trial])
    return json_of(report), html_of(report)


def test_a_model_is_trained_on_the_first_part_and_scores_the_rest(tmp_path: Path) -> None:
    app = scoring_app(tmp_path / "app")
    path = write_scenario(tmp_path / "s", TRAIN + CRASH + FULL + LOW)
    trial, again = tried(app, path), tried(app, path)
    assert trial.passed, (trial.reason, failed(trial))
    assert page(trial) == page(again)
    assert trial.restarts == 1, "a kill changes nothing"
    told = next(each for each in trial.notes if each.startswith("Model lift"))
    assert "trained on second 0 to 40" in told and told.endswith("apart 0, rows 40.")
    line = next(each for each in trial.lines if each.name == "lack")
    assert min(line.second) > 40, "nothing is scored before the part that it was trained on is over"


def test_a_model_comes_from_a_file(tmp_path: Path) -> None:
    app = scoring_app(tmp_path / "app")
    wire = '\n[model.lift]\nfile = "lift.onnx"\ninputs = ["head"]\n'
    path = write_scenario(tmp_path / "s", wire + LOW)
    (tmp_path / "s" / "lift.onnx").write_bytes(linear([1.0], -20.0))
    trial = tried(app, path)
    assert trial.passed, (trial.reason, failed(trial))
    assert min(next(each for each in trial.lines if each.name == "lack").second) < 10
    (tmp_path / "s" / "lift.onnx").write_bytes(hostile()["outside"][0])
    trial = tried(app, path)
    assert trial.outcome == "error" and trial.reason.startswith("APPS-2467")
    assert "another file" in trial.reason
    (tmp_path / "s" / "lift.onnx").write_bytes(linear([1.0, 1.0]))
    assert "has 2 columns, and 1 are named" in tried(app, path).reason
    (tmp_path / "s" / "lift.onnx").unlink()
    assert tried(app, path).reason.startswith("APPS-2466")


def test_without_its_model_a_hook_gives_nothing_and_the_report_says_so(tmp_path: Path) -> None:
    trial = tried(scoring_app(tmp_path / "app"), write_scenario(tmp_path / "s", LOW))
    assert trial.outcome == "failed"
    assert "Model lift: none, so its hooks give nothing." in trial.notes


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (('type = "pump"', 'type = "fan"'), "APPS-2466", "no asset is bound to the type fan"),
        (("until_s = 40", "until_s = 4000"), "APPS-2466", "is no part of it"),
        (("[model.lift]", "[model.lever]"), "APPS-2466", "has no model of that name"),
    ],
)
def test_a_training_that_cannot_be(
    tmp_path: Path, change: tuple[str, str], code: str, said: str
) -> None:
    path = write_scenario(tmp_path / "s", TRAIN.replace(*change) + LOW)
    trial = tried(scoring_app(tmp_path / "app"), path)
    assert (trial.outcome, trial.reason[:9]) == ("error", code)
    assert said in trial.reason


def test_a_training_that_fails_is_told(tmp_path: Path) -> None:
    app = scoring_app(
        tmp_path / "app", PYTHON.replace("learned = ", "learned = 1 / 0 if context else ")
    )
    trial = tried(app, write_scenario(tmp_path / "s", TRAIN + LOW))
    assert trial.outcome == "error" and "ZeroDivisionError" in trial.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("train = {", 'file = "x"\ntrain = {'), "either file or train"),
        (("until_s = 40", "until_s = 0"), "no time to train on"),
        (("held_out = 0.25", "held_out = 1.0"), "holds 1 out"),
    ],
)
def test_a_scenario_that_says_nonsense_of_a_model(
    tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    with pytest.raises(Misconfigured, match=said):
        read_scenario(write_scenario(tmp_path, TRAIN.replace(*change)))


def test_models_come_up_in_order() -> None:
    models = Models(from_us={"a": 30, "b": 90})
    assert models.moments(10, 100) == [30, 90, 100]
    assert models.moments(30, 90) == [90]
    models.now_us = 29
    assert models("a") is None
