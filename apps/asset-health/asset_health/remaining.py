"""Remaining useful life: trained on lives that ended, asked each time a row of a life became whole.

Without a model, without a known begin of the life, or too early in it, the output ``rul_state`` says so and
there is no number. What an asset's life has been is read from history where it was not followed: after an
installation, and when another model takes over.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import polars as pl

from asset_health.driving import LOADS, OPERATING
from asset_health.lifeline import SEEN_MIN, Lifeline, Oracle, Told
from asset_health.lives import US_PER_S, dates_of, is_running, renewals_of
from asset_health.texts import say
from asset_health.values import avoided_stop
from headrace import app

EVERY = "1 min"
STEP = "1 s"
_PART_ROWS = 200_000
BAD_NO_DATA = 0x809B0000
"""OPC UA part 4: there is no value."""
_NUMBERS = ("rul_hours", "rul_low", "rul_high")
_TYPES: dict[str, type[pl.DataType]] = dict.fromkeys(_NUMBERS, pl.Float64)
_TYPES |= {f"{name}_status": pl.UInt32 for name in _NUMBERS}


@app.train("rul_pump")
def train_pumps(history: pl.DataFrame, context: app.Context) -> app.Trained:
    """Of pumps whose ends of life are in the setting ``life_ends``."""
    return _train("pump", history, context)


@app.train("rul_compressor")
def train_compressors(history: pl.DataFrame, context: app.Context) -> app.Trained:
    """Of compressors, as of pumps."""
    return _train("compressor", history, context)


@app.train("rul_machine")
def train_machines(history: pl.DataFrame, context: app.Context) -> app.Trained:
    """Of machine tools, as of pumps."""
    return _train("machine", history, context)


@app.train("rul_engine")
def train_engines(history: pl.DataFrame, context: app.Context) -> app.Trained:
    """Of engines and turbines, as of pumps."""
    return _train("engine", history, context)


def _train(type: str, history: pl.DataFrame, context: app.Context) -> app.Trained:
    # There are no semaphores in the training's enclosed process, and its learners use one core.
    os.environ.setdefault("JOBLIB_MULTIPROCESSING", "0")
    # What learns is imported by the training alone: an app in operation needs neither its time nor its memory.
    from asset_health.life_training import train_life

    return train_life(
        history,
        context.of_type(type),
        operating=OPERATING[type],
        load=LOADS[type],
        log=context.log,
    )


@app.score("rul_pump", type="pump", length=EVERY, every=EVERY, step=STEP, always=True)
def life_of_pumps(window: app.Window, model: app.Model | None) -> pl.DataFrame | None:
    """What is left of each pump's life."""
    return _ask(window, model)


@app.score("rul_compressor", type="compressor", length=EVERY, every=EVERY, step=STEP, always=True)
def life_of_compressors(window: app.Window, model: app.Model | None) -> pl.DataFrame | None:
    """What is left of each compressor's life."""
    return _ask(window, model)


@app.score("rul_machine", type="machine", length=EVERY, every=EVERY, step=STEP, always=True)
def life_of_machines(window: app.Window, model: app.Model | None) -> pl.DataFrame | None:
    """What is left of each machine tool's life."""
    return _ask(window, model)


@app.score("rul_engine", type="engine", length=EVERY, every=EVERY, step=STEP, always=True)
def life_of_engines(window: app.Window, model: app.Model | None) -> pl.DataFrame | None:
    """What is left of each engine's life."""
    return _ask(window, model)


class _Row(msgspec.Struct):
    """Of one asset in this window: what keeps it from a number, and whether it has a new row to ask about."""

    asset: app.Asset
    line: Lifeline
    state: str = ""
    is_fresh: bool = False


@lru_cache(maxsize=8)
def _oracle_of(model: app.Model) -> Oracle:
    return Oracle(model)


def _ask(window: app.Window, model: app.Model | None) -> pl.DataFrame | None:
    oracle = _oracle_of(model) if model is not None else None
    rows = [_begun(window, asset, oracle) for asset in window.assets]
    if oracle is not None:
        _follow(window, oracle, [row for row in rows if not row.state])
    asked = [row for row in rows if row.is_fresh and not row.state and oracle is not None]
    told = oracle.ask([row.line for row in asked]) if oracle is not None else []
    answers = {row.asset.path: each for row, each in zip(asked, told, strict=True)}
    times = dict(window.frame.group_by("asset").agg(pl.col("time").max()).iter_rows())
    found = []
    for row in rows:
        answer = answers.get(row.asset.path)
        if answer is not None and oracle is not None:
            _propose(window, row, answer, oracle)
        if answer is not None or row.line.told != row.state:
            row.line.told = row.state
            found.append(
                {"asset": row.asset.path, "time": times[row.asset.path], **_shown(row, answer)}
            )
        window.state[row.asset.path] = msgspec.to_builtins(row.line, builtin_types=(bytes,))
    return pl.DataFrame(found, schema_overrides=_TYPES) if found else None


def _shown(row: _Row, answer: Told | None) -> dict[str, float | int | str | None]:
    """Outputs of an asset: numbers, or that there are none and why, so that an older number does not stand."""
    status = 0 if answer else BAD_NO_DATA
    numbers = {
        "rul_hours": answer.hours if answer else None,
        "rul_low": answer.low if answer else None,
        "rul_high": answer.high if answer else None,
    }
    return {**numbers, **{f"{name}_status": status for name in numbers}, "rul_state": row.state}


def _begun(window: app.Window, asset: app.Asset, oracle: Oracle | None) -> _Row:
    """The asset's line, begun anew with a new life or another model."""
    settings = asset.settings
    line = msgspec.convert(window.state.get(asset.path, {}), Lifeline)
    renewals = str(settings["learn_after"])
    if line.renewals != renewals:
        _account(window, asset, line)
        line.renewals = renewals
    past = [
        at
        for at in (*dates_of(settings["life_ends"]), *renewals_of(renewals))
        if at < window.end_us
    ]
    began_us = max(past, default=0)
    version = oracle.version if oracle is not None else line.model
    if (line.began_us, line.model) != (began_us, version):
        is_new = line.began_us != began_us
        proposed = (0, 0.0) if is_new else (line.proposed_us, line.low)
        line = Lifeline(began_us=began_us, told=line.told, renewals=renewals)
        line.proposed_us, line.low = proposed
    row = _Row(asset, line)
    if oracle is None:
        row.state = say(settings["language"], "no_model")
    elif not began_us:
        row.state = say(settings["language"], "no_begin")
    return row


def _follow(window: app.Window, oracle: Oracle, rows: list[_Row]) -> None:
    """Take what the window has of each life, and before it from history what was not followed."""
    have = [name for name in oracle.columns if name in window.frame.columns]
    missing = [name for name in oracle.columns if name not in have]
    late = [row for row in rows if not missing and row.line.model != oracle.version]
    for row in late:
        row.line.model = oracle.version
    begins = [row.line.began_us for row in late if row.line.began_us < window.start_us]
    if begins:
        _catch_up(window, oracle, late, min(begins))
    frames = dict(_frames(window.frame))
    for row in rows:
        lacking = missing or _lacking(frames[row.asset.path], have)
        if lacking and not row.line.rows:
            row.state = say(row.asset.settings["language"], "lacks", names=", ".join(lacking))
            continue
        if not lacking:
            _take(row, oracle, frames[row.asset.path])
        if row.line.rows < SEEN_MIN:
            row.state = say(
                row.asset.settings["language"], "young", rows=row.line.rows, wanted=SEEN_MIN
            )


def _frames(frame: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    return [(str(path), part) for (path,), part in frame.group_by("asset", maintain_order=True)]


def _lacking(frame: pl.DataFrame, names: list[str]) -> list[str]:
    return [name for name in names if frame[name].null_count() == frame.height]


def _catch_up(window: app.Window, oracle: Oracle, rows: list[_Row], from_us: int) -> None:
    names = list(dict.fromkeys([*oracle.columns, *filter(None, [LOADS[window.type]])]))
    step_us = oracle.sample_s * US_PER_S
    part_us = step_us * max(1, _PART_ROWS // max(1, len(window.assets)))
    at_us = -(-from_us // step_us) * step_us
    while at_us < window.start_us:
        until_us = min(at_us + part_us, window.start_us)
        past = dict(_frames(window.history(names, at_us, until_us, f"{oracle.sample_s} s")))
        for row in rows:
            if row.asset.path in past:
                _take(row, oracle, past[row.asset.path])
        at_us = until_us


def _take(row: _Row, oracle: Oracle, frame: pl.DataFrame) -> None:
    """Samples of running at the model's pace, since the life began."""
    at_us = frame["time"].dt.timestamp("us").to_numpy()
    wanted = (at_us % (oracle.sample_s * US_PER_S) == 0) & (at_us >= row.line.began_us)
    wanted &= is_running(frame, LOADS[row.asset.type], row.asset.settings)
    samples = frame.filter(pl.Series(wanted)).select(oracle.columns).drop_nulls()
    if samples.height:
        rows = samples.to_numpy().astype(np.float64)
        row.is_fresh |= row.line.take(rows, oracle.samples_of_a_row)


def _propose(window: app.Window, row: _Row, told: Told, oracle: Oracle) -> None:
    """Work, once a life, when the lower end falls under the lead time."""
    asset, settings = row.asset, row.asset.settings
    lead = float(settings["lead_time_h"])
    if row.line.proposed_us or told.low >= lead:
        return
    row.line.proposed_us, row.line.low = window.end_us, told.low
    language = settings["language"]
    title = (asset.title_zh if language == "zh" else asset.title) or asset.title or asset.path
    shown = {"low": told.low, "hours": told.hours, "lead": lead}
    evidence: dict[str, Any] = {
        "rul_hours": round(told.hours, 4),
        "rul_low": round(told.low, 4),
        "rul_high": round(told.high, 4),
        "lead_time_h": lead,
        "model": oracle.version,
        "life_began_us": row.line.began_us,
        "running_hours": round(row.line.rows * oracle.row_s / 3600.0, 4),
    }
    window.propose(
        app.WorkRequest(
            asset=asset.path,
            title=say(language, "life_title", asset=title),
            reason=say(language, "life_reason", **shown),
            priority="high" if told.hours < lead else "medium",
            evidence=evidence,
        )
    )


def _account(window: app.Window, asset: app.Asset, line: Lifeline) -> None:
    """A renewal that people declare after work was proposed, and before the life ended, averted a stop."""
    settings = asset.settings
    stop_h, planned_h = float(settings["stop_hours"]), float(settings["planned_hours"])
    failed = any(at > line.proposed_us for at in dates_of(settings["life_ends"]))
    dated = [at for at in renewals_of(settings["learn_after"]) if at > line.proposed_us]
    hours = stop_h - planned_h
    if not line.proposed_us or failed or not dated or hours <= 0 or settings["claims"] != "life":
        return
    window.value(
        avoided_stop(
            asset,
            hours,
            {
                "proposed_us": line.proposed_us,
                "rul_low": round(line.low, 4),
                "renewed_us": dated[0],
                "life_began_us": line.began_us,
            },
        )
    )
