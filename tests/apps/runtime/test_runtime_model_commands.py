"""``headrace model`` from training to roll-back: on a site with history, and on one that runs."""

from __future__ import annotations

import asyncio
import json

import msgspec
import numpy as np
import polars as pl
import pytest
from model_site import ASSETS, S, command, fill, flow_at, make_site
from site_runtime import SUBJECTS, runtime, site

from headrace.apps.models import handing
from headrace.bus import envelope
from headrace.bus.subjects import DESIRED_BUCKET
from headrace.model.sample import make_batch
from headrace.model.time import SystemClock

MODEL = ("load-watch", "power")


def test_a_model_is_trained_shown_used_and_given_back(folder):
    _, ids = make_site(folder)
    end_us = fill(folder, ids)
    span = ("--from", "-10min", "--to", "now", "--every", "1s")
    said = command(folder, "train", *MODEL, *span)
    assert "version 1," in said and "version 3 of south/p2" in said
    assert "2/2 trained" in said  # the bar
    command(folder, "train", *MODEL, *span, "--asset", "south/p9", code="APPS-2520")
    listed = json.loads(command(folder, "list", "--json"))
    assert [(each["version"], each["asset"], each["state"]) for each in listed] == [
        (1, "", "new"), (2, "south/p1", "new"), (3, "south/p2", "new"),
    ]  # fmt: skip
    of_all, *own = (each["metrics"]["rmse"] for each in listed)
    assert max(own) < 1e-3 < of_all  # each pump's factor is its own
    assert all(each["window"]["baseline_sha256"] for each in listed)
    shown = command(folder, "show", *MODEL, "--version", 2)
    assert "of south/p1 alone" in shown and "signature holds" in shown
    command(folder, "promote", *MODEL, 1, 2, 3, "--why", "first")
    command(folder, "promote", *MODEL, 3, "--why", "again", code="APPS-2515")
    states = [each["state"] for each in json.loads(command(folder, "list", "--json"))]
    assert states == ["champion"] * 3
    command(folder, "shadow", *MODEL, "--live", code="APPS-2530")
    drift = command(folder, "drift", *MODEL, "--last", "20s", "--to", _ago(end_us))
    assert "by chance at most" in drift
    command(folder, "rollback", *MODEL, "--asset", "south/p2", "--why", "x", code="APPS-2517")


def _ago(at_us: int) -> str:
    return f"-{(SystemClock().now_us() - at_us) // S + 1}s"


@pytest.mark.soak
async def test_challenger_promotion_roll_back_and_drift_on_a_running_site(
    folder, broker, monkeypatch
):
    monkeypatch.setattr(handing, "FOLLOW_S", 0.5)
    deployment, ids = make_site(folder)
    fill(folder, ids)
    bound = {each.path: each for each in deployment.assets}

    async def model(*words, **more):
        return await asyncio.to_thread(command, folder, *words, **more)

    async with site(folder, broker) as plant, runtime(plant):
        feeding = asyncio.create_task(_feed(plant, ids))
        await plant.bus.put(DESIRED_BUCKET, "app.load_watch", msgspec.json.encode(deployment))
        span = ("--from", "-10min", "--every", "1s")
        await model("train", *MODEL, *span)
        await model("train", *MODEL, *span, "--seed", 1)  # versions 4 to 6: half as much
        await model("promote", *MODEL, 1, 3, "--why", "first")
        first = await _given(plant, bound["south/p1"].outputs["load"], at_least=3)
        second = await _given(plant, bound["south/p2"].outputs["load"], at_least=3)
        assert _factors(first) == {2.5}  # that of all: 2 and 3, each as often
        assert _factors(second) == {3.0}  # its own
        await model("promote", *MODEL, 4, "--challenger", "--why", "with less")
        shadow = await _given(plant, bound["south/p1"].shadows["load"], at_least=6)
        assert _factors(shadow) == {1.25}
        assert (await _given(plant, bound["south/p2"].shadows["load"], at_least=0)).is_empty()
        live = json.loads(
            await model("shadow", *MODEL, "--live", "--json", "--truth", "power", "--from", "-1h")
        )
        (one,) = live["outputs"]
        assert (live["champion"], live["challenger"], one["output"]) == (1, 4, "load")
        assert one["windows"] >= 3 and one["correlation"] > 0.999
        assert one["mean_difference"] == pytest.approx(-25, abs=3)
        assert one["rmse_champion"] < one["rmse_challenger"] and one["nearer"] < 0.6
        await model("promote", *MODEL, 4, "--why", "try it")
        while 1.25 not in _factors(await _given(plant, bound["south/p1"].outputs["load"], 1)):
            await _more(plant)
        await model("rollback", *MODEL, "--why", "it was worse")
        states = {e["version"]: e["state"] for e in json.loads(await model("list", "--json"))}
        assert (states[1], states[3], states[4]) == ("champion", "champion", "former")
        drift = await _given(plant, bound["south/p2"].drifts["power"], at_least=3)
        assert (drift["value"] >= 0).all()
        feeding.cancel()
        assert plant.states["load_watch"].restarts == 0


async def _feed(plant, ids) -> None:
    number = 0
    while True:
        at_us = SystemClock().now_us() // S * S
        flow = float(flow_at(np.array([at_us // S]))[0])
        number += 1
        tags = [ids[f"{path}/{name}"] for path in ASSETS for name in ("flow", "power")]
        values = np.array([flow, 2 * flow, flow, 3 * flow])
        batch = make_batch(
            np.array(tags), np.full(4, at_us), values, received_timestamp_us=SystemClock().now_us()
        )
        headers = envelope.headers("local", "plc", 1, number, 4)
        await plant.bus.publish_frame(
            SUBJECTS.batch("local", "plc"), envelope.encode(batch), headers
        )
        await asyncio.sleep(1 - SystemClock().now_us() % S / S)


async def _more(plant) -> None:
    known = plant.states["load_watch"].samples
    await plant.state(lambda s: s.samples > known)


async def _given(plant, tag: int, at_least: int) -> pl.DataFrame:
    while True:
        found = (await plant.outputs()).filter(pl.col("tag_id") == tag)
        if found.height >= at_least:
            return found
        await _more(plant)


def _factors(rows: pl.DataFrame) -> set[float]:
    """What the flow was multiplied with; that of the second before the window's end, or of its end."""
    seconds = rows["source_timestamp"].to_physical().to_numpy() // S
    value = rows["value"].to_numpy()
    found = set()
    for shift in (1, 2, 3):
        factor = value / flow_at(seconds - shift)
        near = np.abs(factor * 4 - np.round(factor * 4)) < 1e-3
        found |= set(np.round(factor[near] * 4) / 4)
    return found
