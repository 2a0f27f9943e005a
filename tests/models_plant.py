"""A table with history of three pumps, and an app that trains on it and scores: for tests of models."""

from __future__ import annotations

import numpy as np

from headrace.apps.models.history import Asked
from headrace.historian.commit import Chunk, Committer
from headrace.historian.table import open_table
from headrace.model.app_manifest import AppManifest, NeededType, Output
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.time import ManualClock

START_US = 1_700_000_040_000_000
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
import polars as pl
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


@app.score("load", type="pump", length="1 min", every="1 min", step="1 min")
def expected(window, model):
    rows = window.frame.drop_nulls("flow")
    found = model.run(rows.select("flow").to_numpy())
    return rows.select("asset", "time", expected=pl.Series(found[:, 0], dtype=pl.Float64))


@app.train("peeking")
def peeking(history, context):
    slope, shift = _fit(history, context)
    return app.Trained(onnx=_onnx(slope, shift), inputs=["flow"])


@app.train("own", per_asset=True)
def own(history, context):
    if [each.path for each in context.assets] == ["hall/p2"]:
        raise ValueError("too little is known of it")
    slope, shift = _fit(history, context)
    return app.Trained(onnx=_onnx(slope, len(context.assets)), inputs=["flow"])


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
MODELS = ["load", "peeking", "own", "broken", "greedy", "endless", "curious"]


def deployment(assets=3):
    manifest = AppManifest(
        id="pump-load",
        version="1.2.3",
        title={"en": "Load"},
        python="pump_load",
        models=MODELS,
        outputs=[Output(type="pump", name="expected", unit="kW")],
        types={"pump": NeededType(package="pump", quantities={"flow": "m3/h", "power": "kW"})},
    )
    bound = tuple(
        BoundAsset(
            path=f"hall/p{n}",
            type="pump",
            tags={"flow": 2 * n + 1, "power": 2 * n + 2},
            units={"flow": "m3/h", "power": "kW"},
            outputs={"expected": 100 + n},
        )
        for n in range(assets)
    )
    return AppDeployment(
        enterprise="acme", site="mill", manifest=manifest, package_sha256="c" * 64, assets=bound
    )


def fill(folder: DataFolder) -> None:
    """A table with flow and power of three pumps: power is 2 flow + 1, with noise; then it drifts away."""
    rng = np.random.default_rng(1)
    table = open_table(folder.table, ManualClock())
    committer = Committer(table, folder.root / "quarantine", ManualClock())
    chunk = Chunk(0)
    at_us = START_US + STEP_US * np.arange(ROWS, dtype=np.int64)
    for n in range(3):
        flow = rng.uniform(10, 20, ROWS)
        power = 2 * flow + 1 + rng.normal(0, 0.1, ROWS) + np.where(np.arange(ROWS) >= 400, 20, 0)
        for tag, value in ((2 * n + 1, flow), (2 * n + 2, power)):
            batch = make_batch(
                np.full(ROWS, tag, np.int64), at_us, value, received_timestamp_us=at_us
            )
            chunk.take(chunk.sequence + 1, batch, 100, 0.0)
    committer.commit(chunk, APP)
