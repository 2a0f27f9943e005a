"""Are the signals to be trusted? Stuck and drifting sensors, late and restarted devices, wrong clocks.

One path for all types, and for sensors that belong to no machine (``point``); see
:mod:`asset_health.signal_state` for how each is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import polars as pl

from asset_health.driving import LOADS
from asset_health.signal_state import (
    TAUS,
    Came,
    Finding,
    Floats,
    Signal,
    device_state,
    follow_mean,
    grow,
    how_came,
    is_over,
    is_stuck,
    learn_cadence,
    learn_reach,
    learn_runs,
    ratios,
    run_of,
    settled,
)
from asset_health.signal_texts import named, tell
from headrace import app

EVERY = "1 min"
STEP = "1 s"
WINDOW_MS = 60_000.0
STEP_S = 1.0
_LATE_WINDOWS = 2
_RESTART_TOLD_WINDOWS = 5
_SIBLINGS_MIN = 2
_ASKS = ("stuck", "drifting", "late", "clock")


class Known(msgspec.Struct, kw_only=True):
    """What is kept of an asset.

    Attributes:
        signals: by quantity. windows: in which most of its signals came. ran: since it stood still.
        late: windows in a row in which its device was late. restarted: windows for which that is still told.
        state: told last. learn_after: what the setting was when it learnt.
    """

    signals: dict[str, Signal] = {}
    windows: int = 0
    ran: int = 1 << 20
    late: int = 0
    restarted: int = 0
    state: str = "ok"
    learn_after: str = ""


@dataclass
class _Minute:
    """An asset in a window: how its signals came, and of those that are judged how far each has moved."""

    asset: app.Asset
    known: Known
    came: dict[str, Came]
    floor: int
    device: str = "ok"
    means: dict[str, float] = field(default_factory=dict)
    distance: dict[str, Floats] = field(default_factory=dict)


@app.on_window("pump", length=EVERY, every=EVERY, step=STEP, arrivals=True)
def pump_signals(window: app.Window) -> pl.DataFrame | None:
    """The signals of pumps."""
    return _watch(window)


@app.on_window("compressor", length=EVERY, every=EVERY, step=STEP, arrivals=True)
def compressor_signals(window: app.Window) -> pl.DataFrame | None:
    """The signals of compressors."""
    return _watch(window)


@app.on_window("machine", length=EVERY, every=EVERY, step=STEP, arrivals=True)
def machine_signals(window: app.Window) -> pl.DataFrame | None:
    """The signals of machine tools."""
    return _watch(window)


@app.on_window("engine", length=EVERY, every=EVERY, step=STEP, arrivals=True)
def engine_signals(window: app.Window) -> pl.DataFrame | None:
    """The signals of engines and turbines."""
    return _watch(window)


@app.on_window("point", length=EVERY, every=EVERY, step=STEP, arrivals=True)
def point_signals(window: app.Window) -> pl.DataFrame | None:
    """Sensors that belong to no machine."""
    return _watch(window)


def _watch(window: app.Window) -> pl.DataFrame | None:
    frames = {str(path): rows for (path,), rows in window.frame.group_by("asset")}
    came = _came(window.arrivals)
    minutes = [
        _look(window, asset, frames[asset.path], came.get(asset.path, {}))
        for asset in window.assets
    ]
    found = []
    for minute in minutes:
        finding = _judge(minute, minutes)
        _propose(window, minute, finding)
        minute.known.state = finding.state
        window.state[minute.asset.path] = msgspec.to_builtins(minute.known)
        if minute.known.windows >= minute.floor:
            found.append(
                {
                    "asset": minute.asset.path,
                    "time": frames[minute.asset.path]["time"][-1],
                    "signal_state": finding.state,
                    "signal_quantity": ", ".join(finding.quantities),
                }
            )
    return pl.DataFrame(found) if found else None


def _came(arrivals: pl.DataFrame) -> dict[str, dict[str, Came]]:
    found: dict[str, dict[str, Came]] = {}
    for row in arrivals.iter_rows(named=True):
        path, quantity = row.pop("asset"), row.pop("quantity")
        found.setdefault(path, {})[quantity] = msgspec.convert(row, Came)
    return found


def _look(
    window: app.Window, asset: app.Asset, frame: pl.DataFrame, came: dict[str, Came]
) -> _Minute:
    """What the asset shows in this window; how its samples came is learned here."""
    known = msgspec.convert(window.state.get(asset.path, {}), Known)
    if known.learn_after != str(asset.settings["learn_after"]):
        known = Known(learn_after=str(asset.settings["learn_after"]))
    minute = _Minute(asset, known, came, int(float(asset.settings["signal_minutes"])))
    for name in came:
        known.signals.setdefault(name, Signal())
    if known.windows < minute.floor:
        # Learned from the second window on: the first may have begun in the middle.
        if known.windows:
            for name, each in came.items():
                learn_cadence(known.signals[name].cadence, each)
        known.windows += any(each.samples for each in came.values())
    else:
        states = {n: how_came(known.signals[n].cadence, c, WINDOW_MS) for n, c in came.items()}
        minute.device = device_state(states)
    if minute.device == "ok":
        _values(minute, frame, LOADS[window.type])
    return minute


def _values(minute: _Minute, frame: pl.DataFrame, load: str) -> None:
    """Means and runs of the values, unless the asset is at rest: nothing need move then."""
    known = minute.known
    rest_below = float(minute.asset.settings["rest_below"])
    if load and frame[load].null_count() < frame.height and frame[load].max() <= rest_below:
        known.ran = 0
        for signal in known.signals.values():
            signal.run_s, signal.last = 0.0, None
        return
    known.ran += 1
    for name, each in minute.came.items():
        column = frame[name]
        values = column.drop_nulls().to_numpy() if column.dtype == pl.Float64 else np.empty(0)
        if not each.samples or not len(values):
            continue
        signal = known.signals[name]
        run = run_of(signal, values, STEP_S)
        if signal.windows < minute.floor:
            learn_runs(signal, run, float(values[-1]))
        else:
            signal.run_s, signal.last = run[0], float(values[-1])
        minute.means[name] = float(values.mean())
        minute.distance[name] = follow_mean(signal, minute.means[name])


def _judge(minute: _Minute, minutes: list[_Minute]) -> Finding:
    known = minute.known
    known.late = known.late + 1 if minute.device == "late" else 0
    drifting = _drifts(minute, minutes)
    if minute.device == "restarted":
        known.restarted = _RESTART_TOLD_WINDOWS
    elif known.restarted:
        known.restarted -= 1
    if minute.device == "clock":
        return _of_device("clock", minute)
    if known.late >= _LATE_WINDOWS or (minute.device == "late" and known.state == "late"):
        return _of_device("late", minute)
    if known.restarted:
        return _of_device("restarted", minute)
    if minute.device != "ok":
        return Finding()
    stuck = [n for n in minute.means if is_stuck(known.signals[n])]
    if stuck:
        signal = known.signals[stuck[0]]
        shown = {"run_s": signal.run_s, "run_max_s": signal.run_max_s}
        return Finding(state="stuck", quantities=tuple(stuck), evidence=shown)
    return drifting


def _of_device(state: str, minute: _Minute) -> Finding:
    """With the figures of the signal that has most samples."""
    name = max(minute.came, key=lambda n: (minute.came[n].samples, n))
    came, usual = minute.came[name], minute.known.signals[name].cadence
    delay_ms = came.delay_ms or 0.0
    evidence: dict[str, float | str] = {
        "quantity": name,
        "samples": float(came.samples),
        "samples_min": float(usual.samples_min),
        "gap_ms": came.gap_ms or 0.0,
        "gap_max_ms": usual.gap_max_ms,
        "silent_ms": came.silent_ms or 0.0,
        "delay_ms": delay_ms,
        "offset_s": (usual.delay_min_ms - delay_ms) / 1000.0,
    }
    return Finding(state=state, evidence=evidence)


def _drifts(minute: _Minute, minutes: list[_Minute]) -> Finding:
    """Learn how far the signals go, or find one that goes further and alone."""
    signals, floor = minute.known.signals, minute.floor
    found: list[str] = []
    told: Mapping[str, float | str] = {}
    far = {n: ratios(signals[n], d, floor) for n, d in minute.distance.items()}
    for name, distance in minute.distance.items():
        signal, mean = signals[name], minute.means[name]
        rest = [far[n] for n in far if n != name]
        others = np.max(rest, axis=0) if rest else np.zeros(len(TAUS))
        siblings = _siblings(name, minute, minutes)
        apart = distance if siblings is None else distance - siblings
        own = far[name]
        against = None if siblings is None else _against(signal, apart, own)
        over = is_over(own, against, others) & settled(minute.known.ran)
        learn_reach(signal, mean, distance, apart, floor)
        if grow(signal, mean, distance, over):
            found.append(name)
            told = {"moved": mean - signal.left, "reaches": float(own.max())}
    if not found:
        return Finding()
    return Finding(state="drifting", quantities=tuple(found), evidence=dict(told))


def _against(signal: Signal, apart: Floats, own: Floats) -> Floats:
    reach = np.maximum(np.maximum(np.array(signal.apart), signal.step_max), 1e-300)
    return np.where(own > 0, np.abs(apart) / reach, 0.0)


def _siblings(name: str, minute: _Minute, minutes: list[_Minute]) -> Floats | None:
    """How the same quantity moved on the other assets; None where there are too few."""
    others = [m.distance[name] for m in minutes if m is not minute and name in m.distance]
    return np.median(others, axis=0) if len(others) >= _SIBLINGS_MIN else None


def _propose(window: app.Window, minute: _Minute, finding: Finding) -> None:
    """Ask for a look at the sensor or the device, once when it begins."""
    if finding.state == minute.known.state or finding.state not in _ASKS:
        return
    asset, language = minute.asset, minute.asset.settings["language"]
    title = (asset.title_zh if language == "zh" else asset.title) or asset.title or asset.path
    which = named(language, finding.quantities)
    window.propose(
        app.WorkRequest(
            asset=asset.path,
            title=tell(language, f"{finding.state}_title", asset=title, quantities=which),
            reason=tell(language, finding.state, quantities=which, **finding.evidence),
            priority="low" if finding.state in ("stuck", "drifting") else "medium",
            evidence={
                "state": finding.state,
                "quantities": list(finding.quantities),
                **finding.evidence,
                "from_us": window.start_us,
                "to_us": window.end_us,
            },
        )
    )
