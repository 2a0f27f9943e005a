"""Sensors of no machine: what is new is told, what comes again is not, and a restart changes nothing."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from headrace.apps.package.manifest import read_manifest
from headrace.apps.runtime.executor import Executor
from headrace.apps.runtime.loading import load_module
from headrace.model.app_manifest import AppManifest
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.sample import make_batch

APP = Path(__file__).resolve().parents[2] / "apps" / "asset-health"
MINUTE_US = 60_000_000
T0 = 1_700_000_100_000_000
OUTPUTS = {"anomaly_score": 11, "cause": 12, "state": 13}
HOURS = 5
STRANGE_H = 4


@cache
def manifest() -> AppManifest:
    files = {str(f.relative_to(APP)) for f in APP.rglob("*") if f.is_file()}
    return read_manifest(
        (APP / "app.toml").read_bytes(), files, lambda name: (APP / name).read_bytes()
    )


def executor(state: bytes = b"") -> Executor:
    told = {name: setting.default for name, setting in manifest().settings.items()}
    asset = BoundAsset(
        path="hall/climate_1",
        type="point",
        tags={"temperature": 1, "humidity": 2},
        units={"temperature": "Cel", "humidity": "%"},
        outputs=OUTPUTS,
    )
    deployment = AppDeployment(
        enterprise="acme",
        site="mill",
        manifest=manifest(),
        package_sha256="0" * 64,
        assets=(asset,),
        settings=told | {"novelty_hours": 2.0},
    )
    return Executor(manifest(), load_module(APP, manifest()), deployment, state)


def record() -> np.ndarray:
    """Temperature and humidity each minute: 40 minutes a wave, until the temperature stays where it is."""
    minutes = np.arange(HOURS * 60)
    noise = np.random.default_rng(3).normal(0, 0.05, (2, len(minutes)))
    wave = np.sin(2 * np.pi * minutes / 40)
    strange = minutes >= STRANGE_H * 60
    temperature = np.where(strange, 24.0, 20 + 2 * wave) + noise[0]
    return np.column_stack([temperature, 50 - 5 * wave + noise[1]])


@cache
def played(restart_at: int = -1) -> pl.DataFrame:
    rows, running, found = record(), executor(), []
    for first in range(0, len(rows), 10):
        if first == restart_at:
            running = executor(running.save())
            feed(running, rows, first - 10)  # the log is read again from what was still open
        newest_us = feed(running, rows, first)
        done = running.advance(newest_us + 3_000_000)
        assert not done.problems
        found.append(done.samples.filter(pl.col("tag_id").is_in(list(OUTPUTS.values()))))
    return pl.concat(found)


def feed(running: Executor, rows: np.ndarray, first: int) -> int:
    at = T0 + (first + np.arange(10)) * MINUTE_US
    for place in (0, 1):
        part = rows[first : first + 10, place]
        running.feed(make_batch(np.full(10, place + 1), at, part, received_timestamp_us=at))
    return int(at[-1])


def test_what_is_new_is_told_and_what_comes_again_is_not() -> None:
    told = played()
    assert told.filter(pl.col("tag_id") == 13)["text"][0] == "learning what healthy is"
    found = told.filter(pl.col("tag_id") == 11)
    began_us = T0 + STRANGE_H * 60 * MINUTE_US
    is_strange = found["source_timestamp"].to_physical().to_numpy() >= began_us
    scores = found["value"].to_numpy()
    assert scores[~is_strange].max() < 50 < scores[is_strange].max()
    causes = told.filter((pl.col("tag_id") == 12) & (pl.col("text") != ""))["text"].unique()
    assert causes.to_list() == ["temperature"]


def test_a_restart_changes_nothing() -> None:
    kept = ["tag_id", "source_timestamp", "value", "text", "status"]
    assert played(restart_at=250).select(kept).equals(played().select(kept))
