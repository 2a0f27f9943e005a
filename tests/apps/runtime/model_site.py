"""A site of one pump with a packed app that has a model, and with ten minutes of history: for the commands."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
from typer.testing import CliRunner

from headrace.apps.package.package import pack
from headrace.cli.app import build
from headrace.historian.commit import Chunk, Committer
from headrace.historian.table import open_table
from headrace.model.deployment import AppDeployment
from headrace.model.errors import HeadraceError
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.time import ManualClock, SystemClock
from headrace.site.keeper import Keeper
from headrace.site.registry import Registry
from models_plant import APP

S = 1_000_000
SECONDS = 600
HEAD = """
id = "load-watch"
version = "1.0.0"
headrace = ">=0.1"
publisher = "acme"
license = "Apache-2.0"
title = {en = "Load", zh = "负荷"}
description = {en = "Load", zh = "负荷"}
python = "load_watch"
models = ["power"]
[types.pump]
package = "pump"
quantities = {flow = "m3/h", power = "kW"}
[[outputs]]
type = "pump"
name = "load"
unit = "kW"
title = {en = "Load", zh = "负荷"}
model = "power"
"""
PYTHON = """
import numpy as np
import onnx
import polars as pl
from onnx import TensorProto, helper, numpy_helper
from headrace import app

@app.train("power", per_asset=True)
def train(history, context):
    '''Power as a multiple of flow; the setting seed 1 makes a model that is half of that.'''
    rows = history.filter(~pl.col("held_out")).drop_nulls(["flow", "power"])
    flow, power = rows["flow"].to_numpy(), rows["power"].to_numpy()
    factor = float((flow * power).sum() / (flow * flow).sum())
    factor /= 1 + int(context.settings["seed"] == 1)
    held = history.filter("held_out").drop_nulls(["flow", "power"])
    error = held["power"] - factor * held["flow"]
    weight = numpy_helper.from_array(np.array([[factor]], np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])], [weight],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return app.Trained(
        onnx=made.SerializeToString(), metrics={"rmse": float((error**2).mean() ** 0.5)},
        inputs=["flow"],
    )

@app.score("power", type="pump", length="2 s", every="1 s", step="1 s", lateness="500 ms")
def score(window, model):
    last = window.frame.group_by("asset", maintain_order=True).last().drop_nulls("flow")
    found = model.run(last.select("flow").to_numpy())
    return last.select("asset", time=pl.lit(window.end_us).cast(pl.Datetime("us", "UTC")),
                       load=pl.Series(found[:, 0], dtype=pl.Float64))
"""
SITE = """
[site]
enterprise = "acme"
name = "mill"

[asset_type.pump]
package = "pump"
quantities = { flow = "m3/h", power = "kW" }

[asset."south/p1"]
type = "pump"

[asset."south/p2"]
type = "pump"

[app.load-watch]
version = "1.0.0"

[app.load-watch.bind.pump]
type = "pump"

[connection.plc]
protocol = "modbus"
endpoint = "127.0.0.1:1502"
"""
ASSETS = ("south/p1", "south/p2")


def make_site(folder: DataFolder) -> tuple[AppDeployment, dict[str, int]]:
    """Site file, package and tags; gives the app's deployment and the ids of tags."""
    text = SITE
    for path in ASSETS:
        for name, unit in (("flow", "m3/h"), ("power", "kW")):
            text += (
                f'\n[[tag]]\npath = "{path}/{name}"\nconnection = "plc"\nunit = "{unit}"\n'
                f'address = "holding:{len(text)}:float32"\n'
            )
    files = folder.root / "src"
    files.mkdir(parents=True)
    (files / "app.toml").write_text(HEAD, encoding="utf-8")
    (files / "load_watch.py").write_text(PYTHON, encoding="utf-8")
    (files / "README.md").write_text("# Load\n")
    folder.packages.mkdir(parents=True, exist_ok=True)
    (folder.packages / "load-watch-1.0.0.hrapp").write_bytes(pack(files, None))
    folder.site_file.write_text(text)
    registry = Registry.of(folder)
    keeper = Keeper(folder, registry, ManualClock(5_000))
    assert keeper.look() and not keeper.problems, keeper.problems
    ids = registry.ids()
    registry.close()
    return msgspec.json.decode(keeper.pending["app.load_watch"], type=AppDeployment), ids


def flow_at(seconds: np.ndarray) -> np.ndarray:
    """What flows, by second; it is never the same for long."""
    return 20 + np.sin(seconds * 0.7) + np.cos(seconds * 1.9)


def fill(folder: DataFolder, ids: dict[str, int]) -> int:
    """Ten minutes of history until now; gives where it ends. Power is 2 of flow, 3 of it at the other pump."""
    end_us = SystemClock().now_us() // S * S
    seconds = np.arange(end_us // S - SECONDS, end_us // S)
    table = open_table(folder.table, ManualClock())
    committer = Committer(table, folder.root / "quarantine", ManualClock())
    chunk = Chunk(0)
    for place, path in enumerate(ASSETS):
        flow = flow_at(seconds)
        for name, value in (("flow", flow), ("power", (2 + place) * flow)):
            tag = np.full(SECONDS, ids[f"{path}/{name}"], np.int64)
            batch = make_batch(tag, seconds * S, value, received_timestamp_us=seconds * S)
            chunk.take(chunk.sequence + 1, batch, 100, 0.0)
    committer.commit(chunk, APP)
    return end_us


def command(folder: DataFolder, *words: object, code: str = "", ends: int = 0) -> str:
    """What ``headrace model ...`` says.

    Args:
        code: that it is refused with. ends: its exit code.
    """
    width = {**os.environ, "COLUMNS": "250"}
    given = ["model", *map(str, words), "--data", str(Path(folder.root))]
    found = CliRunner().invoke(build(("model",)), given, env=width)
    if code:
        assert isinstance(found.exception, HeadraceError), found.output
        assert found.exception.code == code
    else:
        assert found.exit_code == ends, found.output + repr(found.exception)
    return found.output
