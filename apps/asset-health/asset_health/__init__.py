"""Asset health: how unlike its healthy self an asset is, with the cause, what to do and what it saved.

The hooks are thin: each hands its window to :mod:`asset_health.watching`, asset by asset. Those of signals,
tools and remaining life stand in modules of their own, imported here so that they are found.
"""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl

from asset_health import breakage as breakage
from asset_health import novel as novel
from asset_health import remaining as remaining
from asset_health import signals as signals
from asset_health.anomaly import Cause
from asset_health.driving import CYCLES, LOADS, OPERATING
from asset_health.lives import is_running
from asset_health.texts import cause_text, say
from asset_health.values import avoided_stop
from asset_health.watching import Judgement, Known, judge, learn, widen
from headrace import app

EVERY = "1 min"
STEP = "5 s"
STEP_S = 5
_WIDER = 4
UNITS = {
    "power": "kW", "spindle_power": "kW", "flow": "m3/h", "speed": "1/min", "spindle_speed": "1/min",
    "suction_pressure": "bar", "discharge_pressure": "bar", "tank_pressure": "bar", "oil_pressure": "bar",
    "vibration": "mm/s", "spindle_vibration": "mm/s", "spindle_bearing_temperature": "Cel",
    "spindle_torque": "N.m", "intake_temperature": "Cel",
    "vibration_drive_end": "mm/s", "vibration_other_end": "mm/s",
    "bearing_temperature_drive_end": "Cel", "bearing_temperature_other_end": "Cel",
    "motor_temperature": "Cel", "oil_temperature": "Cel", "discharge_temperature": "Cel",
    "spindle_temperature": "Cel", "exhaust_temperature": "Cel", "core_speed": "1/min", "fan_speed": "1/min",
    "compressor_pressure": "kPa", "fuel_flow": "kg/h", "corrected_fan_speed": "1/min",
    "corrected_core_speed": "1/min", "inlet_temperature": "Cel", "fan_temperature": "Cel",
    "compressor_temperature": "Cel", "inlet_pressure": "kPa", "bypass_pressure": "kPa",
    "combustor_pressure": "kPa", "active_power": "MW",
}  # fmt: skip


@app.on_window("pump", length=EVERY, every=EVERY, step=STEP)
def watch_pumps(window: app.Window) -> pl.DataFrame | None:
    """Each pump against its healthy self."""
    return _watch(window)


@app.on_window("compressor", length=EVERY, every=EVERY, step=STEP)
def watch_compressors(window: app.Window) -> pl.DataFrame | None:
    """Each compressor against its healthy self."""
    return _watch(window)


@app.on_window("machine", length=EVERY, every=EVERY, step=STEP)
def watch_machines(window: app.Window) -> pl.DataFrame | None:
    """Each machine tool against its healthy self."""
    return _watch(window)


@app.on_window("engine", length=EVERY, every=EVERY, step=STEP)
def watch_engines(window: app.Window) -> pl.DataFrame | None:
    """Each engine or turbine against its healthy self."""
    return _watch(window)


def _watch(window: app.Window) -> pl.DataFrame | None:
    assets = {asset.path: asset for asset in window.assets}
    found = []
    for (path,), frame in window.frame.group_by("asset", maintain_order=True):
        known = msgspec.convert(window.state.get(str(path), {}), Known)
        row = _one(window, assets[str(path)], frame, known)
        window.state[str(path)] = msgspec.to_builtins(known, builtin_types=(bytes,))
        if row is not None:
            found.append({"asset": path, "time": frame["time"][-1], **row})
    return pl.DataFrame(found) if found else None


def _one(
    window: app.Window, asset: app.Asset, frame: pl.DataFrame, known: Known
) -> dict[str, object] | None:
    """Outputs of an asset in this window; None where there is nothing to tell."""
    settings = asset.settings
    if known.learn_after != str(settings["learn_after"]):
        known.names, known.healthy, known.learnt = [], b"", False
        known.learn_after, known.found_us = str(settings["learn_after"]), 0
    rows_wanted = int(float(settings["learning_minutes"]) * 60 / STEP_S)
    names = known.names or _present(frame, window.type)
    whole = frame.drop_nulls(names) if names else frame.clear()
    if not whole.height:
        return None
    running = is_running(whole, LOADS[window.type], settings)
    if window.type in CYCLES:
        whole = whole.filter(pl.Series(running))
    if not (running.any() if window.type in CYCLES else running.all()):
        known.standstill += bool(known.found_us)
        return {"state": say(settings["language"], "standstill")}
    rows = whole.select(names).to_numpy().astype(np.float64)
    if not known.learnt:
        known.operating = len([name for name in names if name in OPERATING[window.type]])
        learn(known, names, rows, rows_wanted)
        return {"state": say(settings["language"], "learning")}
    if widen(known, rows, _WIDER * rows_wanted):
        return {"state": say(settings["language"], "new")}
    told = judge(known, rows, window.end_us, int(settings["confirm_minutes"]))
    cause = cause_text(told.causes, UNITS)
    if told.began:
        _propose(window, asset, told, cause)
    if told.ended:
        _account(window, asset, known)
    return {
        "anomaly_score": told.anomaly,
        "health_index": told.health,
        "cause": cause if told.score > 1 else "",
        "state": "",
    }


def _present(frame: pl.DataFrame, type: str) -> list[str]:
    """Quantities that have a value in every row, those first that say how the asset is driven."""
    numbers = [name for name in frame.columns if frame[name].dtype == pl.Float64]
    there = [name for name in numbers if not frame[name].null_count()]
    return sorted(there, key=lambda name: (name not in OPERATING[type], name))


def _evidence(causes: tuple[Cause, ...]) -> list[dict[str, object]]:
    return [
        {
            "quantity": cause.quantity,
            "unit": UNITS.get(cause.quantity, ""),
            "moved": round(cause.moved, 6),
            "spreads": round(cause.spreads, 3),
            "share": round(cause.share, 4),
        }
        for cause in causes[:5]
    ]


def _propose(window: app.Window, asset: app.Asset, told: Judgement, cause: str) -> None:
    language, minutes = asset.settings["language"], float(asset.settings["confirm_minutes"])
    zh = language == "zh"
    title = (asset.title_zh if zh else asset.title) or asset.title or asset.path
    window.propose(
        app.WorkRequest(
            asset=asset.path,
            title=say(language, "title", asset=title),
            reason=say(language, "reason", score=told.score, minutes=minutes, cause=cause),
            priority="high" if told.score > 3 else "medium",
            evidence={
                "score": round(told.score, 4),
                "health_index": round(told.health, 2),
                "causes": _evidence(told.causes),
                "from_us": window.start_us,
                "to_us": window.end_us,
            },
        )
    )


def _account(window: app.Window, asset: app.Asset, known: Known) -> None:
    """What an early find saved, against the declared baseline; nothing without one."""
    settings = asset.settings
    stop_h, planned_h = float(settings["stop_hours"]), float(settings["planned_hours"])
    rested_h = known.standstill / 60.0
    hours = stop_h - max(planned_h, rested_h)
    found_us, peak = known.found_us, known.peak
    known.found_us, known.peak, known.standstill = 0, 0.0, 0
    # An asset that came back by itself, without ever having stood still, was not repaired by anyone.
    if hours <= 0 or not rested_h or settings["claims"] != "condition":
        return
    window.value(
        avoided_stop(
            asset,
            hours,
            {
                "found_us": found_us,
                "healthy_again_us": window.end_us,
                "greatest_score": round(peak, 4),
                "stood_still_hours": round(rested_h, 4),
            },
        )
    )
