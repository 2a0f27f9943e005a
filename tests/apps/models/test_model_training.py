"""Training: a frame of stored history, the app's function in its own process, a record of it all."""

from __future__ import annotations

import threading

import msgspec
import numpy as np
import polars as pl
import pytest

from headrace.apps.models import trainee
from headrace.apps.models.history import frame_hash, parts_of, read_history
from headrace.apps.models.registry import open_models
from headrace.apps.models.scoring import OnnxModel
from headrace.apps.models.training import Budget, Trainer, Wanted, emptied
from headrace.historian.pools import LocalPool
from headrace.historian.reader import Reader
from headrace.model.errors import Misconfigured, Refused, Terminal
from headrace.model.folder import DataFolder
from models_plant import ASKED, PYTHON, ROWS, deployment, fill


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    folder = DataFolder(tmp_path_factory.mktemp("plant"))
    fill(folder)
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
        (record,) = trainer.train(Reader(plant.table), asked, cancelled=cancelled)
        return record, registry.content(record)


def test_a_model_is_trained_proven_and_told(plant, code, tmp_path):
    lines = []
    record, content = train(plant, code, wanted("load", prove=True), tmp_path, line=lines.append)
    assert lines[0] == "fitted with seed 7"
    assert (record.state, record.inputs, record.lineage.proven) == ("new", ("flow",), True)
    assert record.metrics["rmse"] == pytest.approx(20, abs=0.1)  # it holds before 400, not after
    slope = OnnxModel(content, ["flow"], "1").run(np.array([[0.0], [1.0]]))[:, 0]
    assert slope == pytest.approx([1.0, 3.0], abs=0.1)
    assert record.window.rows == 3 * ROWS
    assert record.window.assets == ("hall/p0", "hall/p1", "hall/p2")
    assert record.window.tags == (1, 2, 3, 4, 5, 6)
    assert record.lineage.app_version == "1.2.3"
    assert record.lineage.code_sha256 == "c" * 64


def test_an_asset_that_cannot_be_trained_alone_has_the_model_of_all(plant, code, tmp_path):
    frame = read_history(Reader(plant.table), plant, deployment(), ASKED, tmp_path / "work")
    frame.write_ipc(tmp_path / trainee.HISTORY)
    job = trainee.Job(
        deployment=deployment(), code=str(code), model="own", type="pump", seed=0, at_us=0,
        memory_mb=500,
    )  # fmt: skip
    answer = trainee.trained(tmp_path, job)
    assert sorted(answer.trained) == ["", "hall/p0", "hall/p1"] and answer.sight is None
    assets = {
        of: OnnxModel(each.onnx, ["flow"], "1").run(np.zeros((1, 1)))[0, 0]
        for of, each in answer.trained.items()
    }
    assert assets == {"": 3.0, "hall/p0": 1.0, "hall/p1": 1.0}  # how many it was told of


def test_who_looks_at_what_is_held_out_is_found(plant, code, tmp_path):
    record, _ = train(plant, code, wanted("peeking", prove=True), tmp_path)
    assert not record.lineage.proven


@pytest.mark.parametrize(
    ("model", "code_of_error"),
    [("broken", "APPS-2216"), ("greedy", "APPS-2216"), ("curious", "APPS-2224")],
)
def test_what_fails_is_told_and_nothing_is_kept(plant, code, tmp_path, model, code_of_error):
    with pytest.raises((Refused, Terminal), match=code_of_error):
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
