"""Sensors that belong to no machine: is what one of them just showed unlike all that it ever showed?

Nothing says of them what is healthy, and nothing drives them, so each is held against its own past alone
(:mod:`asset_health.stream`), in means of five minutes. New is not wrong: there is a score, and no work.
"""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl

from asset_health.anomaly import percent
from asset_health.stream import LIMIT, Novelty, Seen
from asset_health.texts import say
from headrace import app

EVERY = "5 min"
STEP = "10 s"
ROWS_AN_HOUR = 12
_PAST_WARM_UPS = 4


class _Known(msgspec.Struct):
    """Of one sensor: what each quantity has shown, as long as nobody had it learn anew."""

    learn_after: str = ""
    warm_up: int = 0
    quantities: dict[str, Seen] = {}


@app.on_window("point", length=EVERY, every=EVERY, step=STEP)
def watch_points(window: app.Window) -> pl.DataFrame | None:
    """Each sensor against its own past."""
    assets = {asset.path: asset for asset in window.assets}
    found = []
    for (path,), frame in window.frame.group_by("asset", maintain_order=True):
        asset = assets[str(path)]
        known = _known(window, asset)
        scores = {name: _fed(known, name, mean) for name, mean in _means(frame).items()}
        window.state[asset.path] = msgspec.to_builtins(known, builtin_types=(bytes,))
        if scores:
            found.append({"asset": path, "time": frame["time"][-1], **_shown(asset, known, scores)})
    return pl.DataFrame(found) if found else None


def _known(window: app.Window, asset: app.Asset) -> _Known:
    known = msgspec.convert(window.state.get(asset.path, {}), _Known)
    learn_after = str(asset.settings["learn_after"])
    warm_up = int(float(asset.settings["novelty_hours"]) * ROWS_AN_HOUR)
    if (known.learn_after, known.warm_up) != (learn_after, warm_up):
        return _Known(learn_after=learn_after, warm_up=warm_up)
    return known


def _means(frame: pl.DataFrame) -> dict[str, float]:
    numbers = [name for name in frame.columns if frame[name].dtype == pl.Float64]
    means = frame.select(pl.col(numbers).mean()).row(0, named=True)
    return {name: float(mean) for name, mean in means.items() if mean is not None}


def _fed(known: _Known, name: str, mean: float) -> float:
    """The score of a quantity's newest mean; 1 is the limit, 0 while it learns."""
    watch = Novelty(known.warm_up, rows_max=_PAST_WARM_UPS * known.warm_up)
    watch.go_on(known.quantities.get(name, Seen()))
    score, _ = watch.feed(mean)
    known.quantities[name] = watch.seen()
    return score / LIMIT


def _shown(asset: app.Asset, known: _Known, scores: dict[str, float]) -> dict[str, object]:
    learning = all(known.quantities[name].scale == 0.0 for name in scores)
    if learning:
        return {"state": say(asset.settings["language"], "learning")}
    name = max(scores, key=lambda each: (scores[each], each))
    return {
        "anomaly_score": float(percent(np.array([scores[name]]))[0]),
        "cause": name.replace("_", " ") if scores[name] >= 1.0 else "",
        "state": "",
    }
