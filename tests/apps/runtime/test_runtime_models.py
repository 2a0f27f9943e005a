"""An app in operation scores with the champion, and takes up another one without a restart."""

from __future__ import annotations

import pytest
import site_runtime
from site_runtime import runtime, site

from headrace.apps.models import handing
from headrace.apps.models.registry import open_models
from headrace.model.time import SystemClock
from models_onnx import linear

SCORE = '''
import polars as pl
from headrace import app

@app.train("power")
def train(history, context):
    raise NotImplementedError

@app.score("power", type="pump", length="2 s", every="1 s", step="1 s", lateness="500 ms")
def score(window, model):
    last = window.frame.group_by("asset", maintain_order=True).last().drop_nulls("power")
    found = model.run(last.select("power").to_numpy())
    return last.select("asset", time=pl.lit(window.end_us).cast(pl.Datetime("us", "UTC")),
                       load=pl.Series(found[:, 0], dtype=pl.Float64))
'''


@pytest.mark.soak
async def test_champions_come_and_go_while_the_app_works(folder, broker, monkeypatch):
    monkeypatch.setattr(handing, "FOLLOW_S", 0.5)
    head = site_runtime.HEAD.replace("[types.pump]", 'models = ["power"]\n[types.pump]')
    monkeypatch.setattr(site_runtime, "HEAD", head)
    with open_models(folder) as registry:
        for factor in (2.0, 3.0):
            registry.add("load-watch", "power", linear([factor]), ["power"], by="os:eve")
        registry.change("load-watch", "power", 1, "champion", by="os:eve", why="first")
        async with site(folder, broker) as plant, runtime(plant):
            await plant.install(SCORE)
            await plant.sample(5.0, SystemClock().now_us())
            state = await plant.state(lambda s: s.samples >= 2)
            registry.change("load-watch", "power", 2, "champion", by="os:eve", why="better")
            while 15.0 not in (await plant.outputs())["value"].to_list():
                known = plant.states["load_watch"].samples
                await plant.state(lambda s, known=known: s.samples > known)
            assert plant.states["load_watch"].restarts == state.restarts == 0
            values = (await plant.outputs())["value"].to_list()
    assert values == sorted(values)
    assert set(values) == {10.0, 15.0}
