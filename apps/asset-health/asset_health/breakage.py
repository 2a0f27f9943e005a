"""Does a tool break? A load beyond all that the spindle ever had, for some seconds, and then none.

A heavy cut lasts, a worn tool creeps up: neither is a spike that ends in rest. What the greatest loads are is
learned while the machine works, and goes on being learned from all that was no spike.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from asset_health.signal_texts import tell
from headrace import app

Floats = npt.NDArray[np.float64]

EVERY = "1 min"
SPIKE_LOADS = ("spindle_power", "spindle_torque", "spindle_vibration")
"""They show a spike; the first one also shows rest."""
_STEP_S = 1.0
_SPIKE_FACTOR = 1.25
_SPIKE_S_MAX = 6.0
_REST_SHARE = 0.15
_REST_AFTER_S = 15
_AGREE = 2
_PENDING_S = 30
"""Longer than a spike and the rest after it."""


class Spindle(msgspec.Struct, kw_only=True):
    """What is kept of a machine.

    Attributes:
        greatest: load -> greatest value while it was learned and since. windows: in which it worked.
        tail: the last seconds of the window before, load -> values. broken: since its tool broke it has not
            cut. learn_after: what the setting was when it learnt.
    """

    greatest: dict[str, float] = {}
    windows: int = 0
    tail: dict[str, list[float]] = {}
    broken: bool = False
    learn_after: str = ""


@app.on_window("machine", length=EVERY, every=EVERY, step="1 s")
def watch_tools(window: app.Window) -> pl.DataFrame | None:
    """Each machine tool: whether its tool broke in this minute."""
    assets = {asset.path: asset for asset in window.assets}
    found = []
    for (path,), frame in window.frame.group_by("asset", maintain_order=True):
        asset = assets[str(path)]
        known = msgspec.convert(window.state.get(asset.path, {}), Spindle)
        if known.learn_after != str(asset.settings["learn_after"]):
            known = Spindle(learn_after=str(asset.settings["learn_after"]))
        state = _one(window, asset, frame, known)
        window.state[asset.path] = msgspec.to_builtins(known)
        if state:
            found.append({"asset": path, "time": frame["time"][-1], "tool_state": state})
    return pl.DataFrame(found) if found else None


def _one(window: app.Window, asset: app.Asset, frame: pl.DataFrame, known: Spindle) -> str:
    """``ok``, ``broken``, or nothing while it learns or there is nothing to see."""
    loads = {
        name: frame[name].to_numpy()
        for name in SPIKE_LOADS
        if name in frame.columns and not frame[name].null_count()
    }
    if SPIKE_LOADS[0] not in loads:
        known.tail = {}
        return ""
    was_broken = known.broken
    spike = follow(known, loads, int(float(asset.settings["signal_minutes"])))
    if spike is not None and not was_broken:
        _propose(window, asset, *spike)
    if known.windows < int(float(asset.settings["signal_minutes"])):
        return ""
    return "broken" if known.broken else "ok"


def follow(known: Spindle, loads: dict[str, Floats], learning: int) -> tuple[float, float] | None:
    """Take a minute; gives the spike, if a tool broke in it or at the end of the one before.

    Args:
        loads: each shape (60,). learning: minutes of work before anything is told.
    """
    joined = {
        name: np.concatenate([known.tail.get(name, []), values]) for name, values in loads.items()
    }
    same = min(map(len, joined.values()))
    joined = {name: values[-same:] for name, values in joined.items()}
    known.tail = {name: values[-_PENDING_S:].tolist() for name, values in loads.items()}
    spike = spike_of(joined, known.greatest) if known.windows >= learning else None
    if spike is not None:
        known.broken = True
        return spike
    # The newest seconds may be a spike whose end is not seen yet: they are learned in the next minute.
    for name, values in joined.items():
        usual = values[:-_PENDING_S]
        known.greatest[name] = float(np.max(usual, initial=known.greatest.get(name, 0.0)))
    works = loads[SPIKE_LOADS[0]] > _REST_SHARE * known.greatest[SPIKE_LOADS[0]]
    known.windows += bool(works.any())
    known.broken = known.broken and int(works.sum()) < _REST_AFTER_S
    return None


def spike_of(loads: dict[str, Floats], greatest: dict[str, float]) -> tuple[float, float] | None:
    """(times the greatest load, seconds) of a spike that ends in rest; None where there is none.

    Args:
        loads: each shape (n,), a value a second. greatest: of each, ever.

    Example:
        >>> power = np.array([3.0] * 20 + [16.0] * 3 + [0.0] * 20)
        >>> spike_of({"spindle_power": power}, {"spindle_power": 6.0})
        (2.6666666666666665, 3.0)
        >>> spike_of({"spindle_power": power[:22]}, {"spindle_power": 6.0}) is None
        True
    """
    known = {n: v for n, v in loads.items() if greatest.get(n, 0.0) > 0.0}
    if SPIKE_LOADS[0] not in known:
        return None
    above = np.sum([v > _SPIKE_FACTOR * greatest[n] for n, v in known.items()], axis=0)
    high = np.flatnonzero(above >= min(_AGREE, len(known)))
    if not len(high) or (len(high) - 1) * _STEP_S > _SPIKE_S_MAX:
        return None
    power = known[SPIKE_LOADS[0]]
    after = power[high[-1] + 1 :][:_REST_AFTER_S]
    still = power[high[-1] + 1 :][_REST_AFTER_S // 2 : _REST_AFTER_S]
    if len(after) < _REST_AFTER_S or still.max() > _REST_SHARE * greatest[SPIKE_LOADS[0]]:
        return None
    times = max(float(v[high].max()) / greatest[n] for n, v in known.items())
    return times, len(high) * _STEP_S


def _propose(window: app.Window, asset: app.Asset, times: float, spike_s: float) -> None:
    language = asset.settings["language"]
    title = (asset.title_zh if language == "zh" else asset.title) or asset.title or asset.path
    window.propose(
        app.WorkRequest(
            asset=asset.path,
            title=tell(language, "broken_title", asset=title),
            reason=tell(language, "broken", times=times, spike_s=spike_s),
            priority="high",
            evidence={
                "state": "broken",
                "times_the_greatest": round(times, 3),
                "spike_s": spike_s,
                "from_us": window.start_us,
                "to_us": window.end_us,
            },
        )
    )
