"""Training: a frame of stored history, the app's function in its own process, a record of it all."""

from __future__ import annotations

import threading

import msgspec
import numpy as np
import polars as pl
import pytest

from headrace.apps.models.history import Asked, frame_hash, parts_of, read_history
from headrace.apps.models.registry import open_models
from headrace.apps.models.scoring import OnnxModel
from headrace.apps.models.training import Budget, Trainer, Wanted, emptied
from headrace.historian.commit import Chunk, Committer
from headrace.historian.pools import LocalPool
from headrace.historian.reader import Reader
from headrace.historian.table import open_table
from headrace.model.app_manifest import AppManifest, NeededType
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.errors import Misconfigured, Refused, Terminal
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.time import ManualClock

START_US = 1_700_000_000_000_000
APP = "headrace/SAMPLES/1"
STEP_US = 60_000_000
ROWS = 500
ASKED = Asked(
    type="pump",
    start_us=START_US,
    end_us=START_US + ROWS * STEP_US,
    held_out_us=START_US + 400 * STEP_US,
    step_us=STEP_US,
)
PYTHON = """
import time
import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from headrace import app


def _fit(frame, context):
    rows = frame.drop_nulls(["flow", "power"])
    x = np.column_stack([rows["flow"].to_numpy(), np.ones(rows.height)])
    return np.linalg.lstsq(x, rows["power"].to_numpy(), rcond=None)[0]


def _onnx(slope, shift):
    tensors = [
        numpy_helper.from_array(np.array([[slope]], np.float32), "w"),
        numpy_helper.from_array(np.array([shift], np.float32), "b"),
    ]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])], tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 9
    return made.SerializeToString()


@app.train("load")
def honest(history, context):
    slope, shift = _fit(history.filter(~history["held_out"]), context)
    rest = history.filter(history["held_out"]).drop_nulls(["flow", "power"])
    error = rest["power"] - slope * rest["flow"] - shift
    context.log.info("fitted with seed %s", context.settings["seed"])
    rmse = float((error**2).mean() ** 0.5) if rest.height else float("nan")
    return app.Trained(onnx=_onnx(slope, shift), metrics={"rmse": rmse}, inputs=["flow"])


@app.train("peeking")
def peeking(history, context):
    slope, shift = _fit(history, context)
    return app.Trained(onnx=_onnx(slope, shift), inputs=["flow"])


@app.train("broken")
def broken(history, context):
    raise ValueError("no such column")


@app.train("greedy")
def greedy(history, context):
    return app.Trained(onnx=bytes(np.ones(10_000_000_000, np.uint8)), inputs=["flow"])


@app.train("endless")
def endless(history, context):
    context.log.info("begun")
    while True:
        pass


@app.train("curious")
def curious(history, context):
    open("/etc/passwd").read()
"""
MODELS = ["load", "peeking", "broken", "greedy", "endless", "curious"]


def deployment(assets=3):
    manifest = AppManifest(
        id="pump-load",
        version="1.2.3",
        title={"en": "Load"},
        python="pump_load",
        models=MODELS,
        types={"pump": NeededType(package="pump", quantities={"flow": "m3/h", "power": "kW"})},
    )
    bound = tuple(
        BoundAsset(
            path=f"hall/p{n}",
            type="pump",
            tags={"flow": 2 * n + 1, "power": 2 * n + 2},
            units={"flow": "m3/h", "power": "kW"},
        )
        for n in range(assets)
    )
    return AppDeployment(
        enterprise="acme", site="mill", manifest=manifest, package_sha256="c" * 64, assets=bound
    )


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    """A table with flow and power of three pumps: power is 2 flow + 1, with noise; then it drifts away."""
    folder = DataFolder(tmp_path_factory.mktemp("plant"))
    rng = np.random.default_rng(1)
    table = open_table(folder.table, ManualClock())
    committer = Committer(table, folder.root / "quarantine", ManualClock())
    chunk = Chunk(0)
    at_us = START_US + STEP_US * np.arange(ROWS, dtype=np.int64)
    for n in range(3):
        flow = rng.uniform(10, 20, ROWS)
        power = 2 * flow + 1 + rng.normal(0, 0.1, ROWS) + np.where(np.arange(ROWS) >= 400, 5, 0)
        for tag, value in ((2 * n + 1, flow), (2 * n + 2, power)):
            batch = make_batch(
                np.full(ROWS, tag, np.int64), at_us, value, received_timestamp_us=at_us
            )
            chunk.take(chunk.sequence + 1, batch, 100, 0.0)
    committer.commit(chunk, APP)
    return folder


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    folder = tmp_path_factory.mktemp("code")
    (folder / "pump_load.py").write_text(PYTHON)
    return folder


def wanted(model, **more):
    return Wanted(model=model, asked=ASKED, by="os:eve", seed=7, **more)


def train(plant, code, asked, tmp_path, *, cancelled=None, line=None):
    target = DataFolder(tmp_path / "registry")
    with open_models(target) as registry:
        trainer = Trainer(target, registry, deployment(), code, line=line or (lambda text: None))
        record = trainer.train(Reader(plant.table), asked, cancelled=cancelled)
        return record, registry.content(record)


def test_a_model_is_trained_proven_and_told(plant, code, tmp_path):
    lines = []
    record, content = train(plant, code, wanted("load", prove=True), tmp_path, line=lines.append)
    assert lines[0] == "fitted with seed 7"
    assert (record.state, record.inputs, record.lineage.proven) == ("new", ("flow",), True)
    assert record.metrics["rmse"] == pytest.approx(5, abs=0.1)  # it holds before 400, not after
    slope = OnnxModel(content, ["flow"], "1").run(np.array([[0.0], [1.0]]))[:, 0]
    assert slope == pytest.approx([1.0, 3.0], abs=0.1)
    assert record.window.rows == 3 * ROWS
    assert record.window.assets == ("hall/p0", "hall/p1", "hall/p2")
    assert record.window.tags == (1, 2, 3, 4, 5, 6)
    assert record.lineage.app_version == "1.2.3"
    assert record.lineage.code_sha256 == "c" * 64


def test_who_looks_at_what_is_held_out_is_found(plant, code, tmp_path):
    record, _ = train(plant, code, wanted("peeking", prove=True), tmp_path)
    assert not record.lineage.proven


@pytest.mark.parametrize(
    ("model", "code_of_error"),
    [("broken", "APPS-2216"), ("greedy", "APPS-2216"), ("curious", "APPS-2216")],
)
def test_what_fails_is_told_and_nothing_is_kept(plant, code, tmp_path, model, code_of_error):
    with pytest.raises(Terminal, match=code_of_error):
        train(plant, code, wanted(model), tmp_path)
    with open_models(DataFolder(tmp_path / "registry")) as registry:
        assert registry.models() == []


def test_a_training_that_takes_too_long_is_ended_and_one_can_be_cancelled(plant, code, tmp_path):
    with pytest.raises(Refused, match="APPS-2523"):
        train(plant, code, wanted("endless", budget=Budget(seconds=0.4)), tmp_path)
    cancelled = threading.Event()

    def hear(text):
        if text == "begun":
            cancelled.set()

    with pytest.raises(Refused, match="APPS-2524"):
        train(plant, code, wanted("endless"), tmp_path, cancelled=cancelled, line=hear)
    assert cancelled.is_set()


def test_a_model_that_the_manifest_does_not_name_is_refused(plant, code, tmp_path):
    with pytest.raises(Misconfigured, match="APPS-2522"):
        train(plant, code, wanted("other"), tmp_path)


def test_the_past_is_read_in_parts_that_change_nothing(plant, tmp_path, monkeypatch):
    reader, app = Reader(plant.table), deployment()
    whole = read_history(reader, plant, app, ASKED, tmp_path / "a")
    monkeypatch.setattr("headrace.apps.models.history.CELLS_OF_A_PART", 1)
    assert parts_of(["a", "b"], ASKED, 2) == [("a",), ("b",)]
    told = []
    pieces = read_history(reader, plant, app, ASKED, tmp_path / "b", told=lambda *n: told.append(n))
    assert told[-1] == (3, 3)
    assert frame_hash(pieces) == frame_hash(whole)
    assert whole.height == 3 * ROWS
    assert whole["held_out"].sum() == 3 * 100
    (tmp_path / "b" / "part-00001.arrow").unlink()  # as after a kill
    told.clear()
    again = read_history(reader, plant, app, ASKED, tmp_path / "b", told=lambda *n: told.append(n))
    assert told == [(2, 3), (3, 3)]
    assert frame_hash(again) == frame_hash(whole)


def test_nothing_of_what_is_held_out_is_left(plant, tmp_path):
    frame = read_history(Reader(plant.table), plant, deployment(), ASKED, tmp_path)
    blank = emptied(frame)
    held = blank.filter(pl.col("held_out"))
    assert held["flow"].null_count() == held.height == 300
    assert held["flow_status"].n_unique() == 1
    assert blank.filter(~pl.col("held_out")).equals(frame.filter(~pl.col("held_out")))


@pytest.mark.parametrize("change", [{"assets": ("hall/x",)}, {"type": "fan"}, {"step_us": 1}])
def test_what_cannot_be_read_is_said(plant, tmp_path, change):
    asked = msgspec.structs.replace(ASKED, **change)
    with pytest.raises(Misconfigured, match=r"APPS-252[01]"):
        read_history(Reader(plant.table), plant, deployment(), asked, tmp_path)


@pytest.mark.soak
def test_a_pool_of_processes_reads_the_same(plant, tmp_path, monkeypatch):
    reader, app = Reader(plant.table), deployment()
    whole = read_history(reader, plant, app, ASKED, tmp_path / "a")
    monkeypatch.setattr("headrace.apps.models.history.CELLS_OF_A_PART", 1)
    pool = LocalPool(2)
    try:
        found = read_history(reader, plant, app, ASKED, tmp_path / "b", pool)
    finally:
        pool.close()
    assert frame_hash(found) == frame_hash(whole)
