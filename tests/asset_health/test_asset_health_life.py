"""Remaining life: one path from history to ONNX to outputs, work proposed once, a renewal accounted for."""

from __future__ import annotations

import doctest
import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from asset_health.features import newest_trend_features, trend_features
from asset_health.life_onnx import write_life
from asset_health.lifeline import LENGTHS, Lifeline, Oracle
from asset_health.rul import CAP, Life, Unit
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.app.records import Trained, ValueEntry, WorkRequest
from headrace.apps.models.history import Asked
from headrace.apps.models.inspection import inspect_onnx
from headrace.apps.models.registry import open_models
from headrace.apps.models.scoring import OnnxModel
from headrace.apps.models.training import Trainer, Wanted, emptied
from headrace.apps.package.manifest import read_manifest
from headrace.apps.runtime.effects import Effects
from headrace.apps.runtime.executor import Executor
from headrace.apps.runtime.loading import load_module
from headrace.historian.commit import Chunk, Committer
from headrace.historian.reader import Reader
from headrace.historian.table import open_table
from headrace.model.app_manifest import AppManifest
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.errors import Terminal
from headrace.model.folder import DataFolder
from headrace.model.sample import Int64Array, make_batch
from headrace.model.time import ManualClock, to_datetime

APP = Path(__file__).resolve().parents[2] / "apps" / "asset-health"
S = 1_000_000
MINUTE = 60 * S
T0 = 1_700_000_040 * S
TAGS = {"spindle_power": 1, "spindle_speed": 2, "spindle_vibration": 3, "spindle_temperature": 4}
UNITS = {
    "spindle_power": "kW",
    "spindle_speed": "1/min",
    "spindle_vibration": "mm/s",
    "spindle_temperature": "Cel",
}
OUTPUTS = {"rul_hours": 101, "rul_low": 102, "rul_high": 103, "rul_state": 104}
PATH = "hall/m1"
BEGIN = to_datetime(T0).isoformat()


def life_of(minutes: int, seed: int) -> np.ndarray:
    """(minutes, quantities as TAGS) of a spindle that fails after them: what wears grows to its end."""
    rng = np.random.default_rng(seed)
    worn = np.linspace(0, 1, minutes) ** 2
    load = rng.uniform(0.5, 1, minutes)
    return np.column_stack(
        [
            8 * load + rng.normal(0, 0.05, minutes),
            4000 * load,
            1 + 3 * worn + load + rng.normal(0, 0.1, minutes),
            40 + 12 * worn + 5 * load + rng.normal(0, 0.3, minutes),
        ]
    )


@cache
def manifest() -> AppManifest:
    files = {str(f.relative_to(APP)) for f in APP.rglob("*") if f.is_file()}
    return read_manifest(
        (APP / "app.toml").read_bytes(), files, lambda name: (APP / name).read_bytes()
    )


def deployed(paths: tuple[str, ...] = (PATH,), **told: float | str) -> AppDeployment:
    assets = tuple(
        BoundAsset(path=path, type="machine", title="Mill", tags=TAGS, units=UNITS, outputs=OUTPUTS)
        for path in paths
    )
    known = {name: setting.default for name, setting in manifest().settings.items()}
    return AppDeployment(
        enterprise="acme",
        site="mill",
        manifest=manifest(),
        package_sha256="0" * 64,
        assets=assets,
        settings=known | told,
    )


@dataclass
class Past:
    """Lives one after another on one machine, minute by minute, and when they ended."""

    frame: pl.DataFrame
    ends: str

    @classmethod
    def of(cls, lengths: list[int], held_out: int) -> Past:
        """The last ``held_out`` lives are in the held-out time."""
        rows = np.vstack([life_of(length, seed) for seed, length in enumerate(lengths)])
        at_us = T0 + MINUTE * np.arange(-1, len(rows))
        ends = T0 + MINUTE * np.cumsum(lengths)
        held_us = ends[-1 - held_out]
        rows = np.vstack([np.full(len(TAGS), np.nan), rows])
        columns = {name: rows[:, place] for place, name in enumerate(TAGS)}
        frame = pl.DataFrame(
            {
                "asset": PATH,
                "time": pl.Series(at_us).cast(pl.Datetime("us", "UTC")),
                "held_out": at_us >= held_us,
                **columns,
            }
        ).with_columns(pl.col(list(TAGS)).fill_nan(None))
        return cls(frame, ", ".join(to_datetime(int(at)).isoformat() for at in ends))


@cache
def past() -> Past:
    return Past.of([60, 72, 64, 76, 66, 62, 70], held_out=2)


@cache
def trained() -> Trained:
    told = deployed(life_ends=past().ends)
    executor = Executor(manifest(), load_module(APP, manifest()), told)
    return executor.train("rul_machine", past().frame, T0)


@cache
def model() -> OnnxModel:
    return OnnxModel(trained().onnx, trained().inputs, "1")


class Doors:
    """A historian that knows some samples."""

    def __init__(self, samples: pl.DataFrame) -> None:
        self._samples = samples

    def samples(self, tag_ids: Int64Array, start_us: int, end_us: int) -> pl.DataFrame:
        at = self._samples["source_timestamp"].dt.timestamp("us")
        return self._samples.filter((at >= start_us) & (at < end_us))

    def call(self, app: str, service: str, body: bytes) -> bytes:
        raise AssertionError


def samples_of(rows: np.ndarray, from_us: int) -> pl.DataFrame:
    at = from_us + MINUTE * np.arange(len(rows))
    return pl.concat(
        make_batch(np.full(len(rows), tag), at, rows[:, place], received_timestamp_us=at)
        for place, tag in enumerate(TAGS.values())
    )


def play(
    told: AppDeployment,
    rows: np.ndarray,
    *,
    state: bytes = b"",
    past_rows: int = 0,
    known: bool = True,
) -> tuple[Effects, bytes]:
    """A life minute by minute; the first ``past_rows`` of it are only in history."""
    executor = Executor(
        manifest(),
        load_module(APP, manifest()),
        told,
        state,
        start_us=T0 + past_rows * MINUTE,
        doors=Doors(samples_of(rows[:past_rows], T0)),
        models=lambda name: model() if known and name == "rul_machine" else None,
    )
    held = max(past_rows - 2, 0)  # what the first windows still look at, as the runtime feeds it
    executor.feed(samples_of(rows[held:], T0 + held * MINUTE))
    done = executor.advance(T0 + len(rows) * MINUTE + 3 * S)
    return done, executor.save()


def output(effects: Effects, name: str) -> pl.DataFrame:
    return effects.samples.filter(pl.col("tag_id") == OUTPUTS[name])


def numbers(effects: Effects, name: str) -> list[float]:
    return output(effects, name).filter(pl.col("status") == 0)["value"].to_list()


def made(effects: Effects, kind: type, word: str) -> list[object]:
    return [msgspec.convert(r.body, kind) for r in effects.records if r.kind == word]


def test_examples_of_the_docstrings_hold() -> None:
    result = doctest.testmod(importlib.import_module("asset_health.lives"))
    assert result.attempted and not result.failed


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(0, 2**16))
def test_what_is_kept_gives_the_trends_of_the_whole_record(rows: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(rows, 2))
    wanted = trend_features(values, LENGTHS)[-1]
    tail, start = values[-max(LENGTHS) :], values[:20]
    assert np.allclose(newest_trend_features(tail, start, rows, LENGTHS), wanted, atol=1e-9)


@pytest.mark.parametrize("conditions", ["none", "regimes", "continuous"])
def test_the_file_says_what_the_learners_say(conditions: str) -> None:
    rng = np.random.default_rng(3)

    def unit(length: int) -> Unit:
        driven = {
            "none": np.zeros((length, 0)),
            "regimes": rng.integers(0, 3, (length, 1)) * 10.0,
            "continuous": rng.uniform(0, 1, (length, 1)),
        }[conditions]
        shift = driven.sum(axis=1, keepdims=True)
        worn = np.linspace(0, 1, length)[:, None] ** 2
        still = np.full((length, 1), 7.0)
        return Unit(driven, np.hstack([5 * worn + shift + rng.normal(0, 0.2, (length, 1)), still]))

    units = [unit(60 + 5 * number) for number in range(4)]
    life = Life(units)
    driven = units[0].operating.shape[1]
    names = [*["load"][:driven], "wear", "still"]
    content, inputs = write_life(life, names, driven, row_s=7200, sample_s=60)
    assert inspect_onnx(content, "life").columns == len(inputs)
    oracle = Oracle(OnnxModel(content, inputs, "1"))
    assert (oracle.columns, oracle.row_s, oracle.sample_s) == (names, 7200, 60)
    asked = [unit(length) for length in (25, 40, 66)]
    lines = [Lifeline() for _ in asked]
    for line, each in zip(lines, asked, strict=True):
        assert line.take(np.hstack([each.operating, each.quantities]), 1)
    for told, each in zip(oracle.ask(lines), asked, strict=True):
        wanted = life.predict(each) * 2.0
        assert [told.hours, told.low, told.high] == pytest.approx(wanted.tolist(), abs=0.02 * CAP)


def test_a_model_is_made_of_lives_that_ended_and_measured_on_later_ones() -> None:
    figures = trained().metrics
    assert figures["lives"] == 5 and figures["held_out_lives"] == 2
    assert figures["row_hours"] == pytest.approx(1 / 60)
    assert figures["held_out_rmse_hours"] < 10 / 60
    assert 0.7 <= figures["held_out_coverage"] <= 1.0


def test_what_is_held_out_has_no_part_in_the_model() -> None:
    told = deployed(life_ends=past().ends)
    executor = Executor(manifest(), load_module(APP, manifest()), told)
    assert executor.train("rul_machine", emptied(past().frame), T0).onnx == trained().onnx


def test_without_enough_lives_there_is_no_model() -> None:
    told = deployed(life_ends=past().ends.split(",")[0])
    executor = Executor(manifest(), load_module(APP, manifest()), told)
    with pytest.raises(Terminal, match=r"APPS-2216.*1 lives ended .*life_ends"):
        executor.train("rul_machine", past().frame, T0)


@cache
def followed() -> Effects:
    return play(deployed(learn_after=BEGIN, lead_time_h=0.3), life_of(68, 77))[0]


def test_a_life_is_followed_to_its_end_and_work_is_proposed_once() -> None:
    done = followed()
    assert not done.problems
    states = output(done, "rul_state")["text"].to_list()
    assert "1 of 20 rows of this life seen" in states[:2] and states[-1] == ""
    hours = np.array(numbers(done, "rul_hours"))
    low, high = np.array(numbers(done, "rul_low")), np.array(numbers(done, "rul_high"))
    assert len(hours) == 68 - 19
    left = np.arange(len(hours))[::-1] / 60
    assert np.sqrt(np.mean((hours - left) ** 2)) < 10 / 60
    assert np.mean((low <= left) & (left <= high)) > 0.7
    (request,) = made(done, WorkRequest, "work_request")
    assert request.title == "Plan the replacement of worn parts of Mill"
    assert request.evidence["rul_low"] < 0.3 <= request.evidence["rul_high"]
    assert request.evidence["model"] == "1"


def test_without_model_or_begin_it_says_so_and_gives_no_number() -> None:
    rows = life_of(5, 5)
    for told, known, said in (
        (deployed(), True, "begin of this life not known: set learn_after"),
        (deployed(), False, "no trained model of remaining life"),
        (deployed(language="zh"), False, "尚无已训练的剩余寿命模型"),
    ):
        done, _ = play(told, rows, known=known)
        assert output(done, "rul_state")["text"].to_list() == [said]
        assert not numbers(done, "rul_hours") and not done.problems


def test_what_was_not_followed_is_read_from_history() -> None:
    late, _ = play(deployed(learn_after=BEGIN, lead_time_h=0.3), life_of(68, 77), past_rows=45)
    assert not late.problems
    hours = numbers(late, "rul_hours")
    assert len(hours) >= 22
    assert hours == pytest.approx(numbers(followed(), "rul_hours")[-len(hours) :])


def test_a_restart_changes_nothing() -> None:
    rows, told = life_of(68, 77), deployed(learn_after=BEGIN, lead_time_h=0.3)
    first, state = play(told, rows[:40])
    again = after(told, state, rows[40:], T0 + 40 * MINUTE)
    assert numbers(first, "rul_hours") + numbers(again, "rul_hours") == numbers(
        followed(), "rul_hours"
    )


def after(told: AppDeployment, state: bytes, rows: np.ndarray, from_us: int) -> Effects:
    """What it gives of rows when it goes on from a state."""
    module = load_module(APP, manifest())
    executor = Executor(manifest(), module, told, state, models=lambda name: model())
    executor.feed(samples_of(rows, from_us))
    return executor.advance(from_us + len(rows) * MINUTE + 3 * S)


@pytest.mark.parametrize(("claims", "entries"), [("life", 1), ("condition", 0)])
def test_a_renewal_after_a_proposal_is_accounted_for(claims: str, entries: int) -> None:
    base = {"lead_time_h": 0.4, "stop_hours": 8, "planned_hours": 2, "cost_per_hour": 300.0}
    before, state = play(deployed(learn_after=BEGIN, claims=claims, **base), life_of(60, 6))
    assert made(before, WorkRequest, "work_request")
    renewed = to_datetime(T0 + 61 * MINUTE).isoformat()
    told = deployed(learn_after=renewed, claims=claims, **base)
    done = after(told, state, life_of(70, 8)[:10], T0 + 62 * MINUTE)
    found = made(done, ValueEntry, "value")
    assert len(found) == entries
    if found:
        assert (found[0].hours, found[0].money) == (6.0, 1800.0)
        assert found[0].evidence["rul_low"] < 0.4
    assert not made(done, WorkRequest, "work_request")
    newest = output(done, "rul_hours")["status"].to_list()
    assert newest and newest[-1] != 0, "an old number does not stand for a new life"


def test_the_platform_trains_it_in_its_own_enclosed_process(tmp_path: Path) -> None:
    plant, registry_folder = DataFolder(tmp_path / "plant"), DataFolder(tmp_path / "registry")
    whole = past().frame
    end_us = int(whole["time"].dt.timestamp("us")[-1]) + MINUTE
    table = open_table(plant.table, ManualClock())
    chunk, rows = Chunk(0), whole.drop_nulls()
    at = rows["time"].dt.timestamp("us").to_numpy()
    for name, tag in TAGS.items():
        batch = make_batch(
            np.full(rows.height, tag), at, rows[name].to_numpy(), received_timestamp_us=at
        )
        chunk.take(chunk.sequence + 1, batch, 100, 0.0)
    Committer(table, plant.root / "quarantine", ManualClock()).commit(chunk, "headrace/SAMPLES/1")
    held_us = int(whole.filter(pl.col("held_out"))["time"].dt.timestamp("us")[0])
    asked = Asked(
        type="machine", start_us=T0 - MINUTE, end_us=end_us, held_out_us=held_us, step_us=MINUTE
    )
    lines: list[str] = []
    with open_models(registry_folder) as registry:
        trainer = Trainer(
            registry_folder, registry, deployed(life_ends=past().ends), APP, line=lines.append
        )
        wanted = Wanted(model="rul_machine", asked=asked, by="os:eve")
        (record,) = trainer.train(Reader(plant.table), wanted)
        assert registry.content(record) == trained().onnx
    assert record.metrics == trained().metrics
    assert any("5 lives, 60 s a row" in line for line in lines)
