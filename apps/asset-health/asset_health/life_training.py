"""Lives that ended, from history: where they begin and end, their rows, and the model that learns from them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from asset_health.features import Matrix
from asset_health.life_onnx import write_life
from asset_health.lifeline import SEEN_MIN
from asset_health.lives import US_PER_S, dates_of, is_running, renewals_of
from asset_health.rul import CAP, Life, Unit
from headrace import app

LIVES_MIN = 4
_ROWS_OF_A_LIFE = 200
_ROWS_MIN = 2 * SEEN_MIN


@dataclass(frozen=True)
class Ended:
    """A life that ended, ``samples`` of running as (rows, columns).

    Attributes:
        end_us: when. is_held_out: it ended in the time that is kept for the figures.
    """

    samples: Matrix
    end_us: int
    is_held_out: bool


def train_life(
    history: pl.DataFrame,
    assets: tuple[app.Asset, ...],
    *,
    operating: tuple[str, ...],
    load: str,
    log: logging.Logger,
) -> app.Trained:
    """A model of remaining life.

    Args:
        history: of :func:`headrace.app.train`. assets: with ``life_ends`` in their settings.
        operating: quantities that say how such an asset is driven. load: near nothing while it is at rest.

    Raises:
        ValueError: when less than four lives ended before the time that is held out.
    """
    settings = {asset.path: asset.settings for asset in assets}
    ends = {path: dates_of(each["life_ends"]) for path, each in settings.items()}
    mine = history.filter(pl.col("asset").is_in([path for path, found in ends.items() if found]))
    columns, driven = _columns(mine.filter(~pl.col("held_out")), operating)
    sample_s = _sample_s(history)
    held_us = _micros(history.filter(pl.col("held_out")))
    held_out_us = int(held_us.min()) if len(held_us) else 2**62
    lives = [
        life
        for (path,), frame in mine.group_by("asset", maintain_order=True)
        for life in _lives_of(
            frame, columns, load, ends[str(path)], settings[str(path)], held_out_us
        )
    ]
    fit_on = [life for life in lives if not life.is_held_out]
    if len(fit_on) < LIVES_MIN:
        raise ValueError(
            f"{len(fit_on)} lives ended before the time that is held out, at least {LIVES_MIN} are needed: "
            "name the ends in the setting life_ends of each asset, or take more time with --from"
        )
    typical = float(np.median([len(life.samples) for life in fit_on]))
    per_row = max(1, round(typical / _ROWS_OF_A_LIFE))
    log.info("%s lives, %s s a row, quantities %s", len(fit_on), per_row * sample_s, columns)
    units = [_unit(life.samples, driven, per_row) for life in fit_on]
    model = Life([unit for unit in units if len(unit.quantities) >= _ROWS_MIN])
    onnx, inputs = write_life(model, columns, driven, row_s=per_row * sample_s, sample_s=sample_s)
    hours = per_row * sample_s / 3600.0
    metrics = {
        "lives": float(len(fit_on)),
        "row_hours": hours,
        "rmse_hours_unseen_lives": model.held_out_rmse * hours,
    }
    unseen = [_unit(life.samples, driven, per_row) for life in lives if life.is_held_out]
    return app.Trained(onnx=onnx, metrics=metrics | _figures(model, unseen, hours), inputs=inputs)


def _columns(frame: pl.DataFrame, operating: tuple[str, ...]) -> tuple[list[str], int]:
    """Quantities that each asset has, those first that say how it is driven, and how many these are."""
    names = [name for name in frame.columns if frame.schema[name] == pl.Float64]
    shares = frame.group_by("asset").agg(pl.col(names).is_not_null().mean()).select(names)
    there = [name for name in names if shares.height and float(shares[name].min() or 0.0) > 0.0]
    driven = [name for name in there if name in operating]
    return [*driven, *(name for name in there if name not in operating)], len(driven)


def _micros(frame: pl.DataFrame) -> NDArray[np.int64]:
    return frame["time"].dt.timestamp("us").to_numpy()


def _sample_s(history: pl.DataFrame) -> int:
    first = history.filter(pl.col("asset") == history["asset"][0])
    steps = np.diff(_micros(first))
    return max(1, int(steps.min()) // US_PER_S) if len(steps) else 1


def _lives_of(
    frame: pl.DataFrame,
    columns: list[str],
    load: str,
    ends: list[int],
    settings: dict[str, float | str | bool],
    held_out_us: int,
) -> list[Ended]:
    """The lives of one asset that are there from begin to end."""
    at_us = _micros(frame)
    whole = frame.select(pl.all_horizontal(pl.col(columns).is_not_null())).to_series().to_numpy()
    there_us = at_us[whole]
    # What was there at the very first row had begun before it: such a life is not whole.
    first_us = [int(there_us[0])] if len(there_us) and not whole[0] else []
    whole = whole & is_running(frame, load, settings)
    rows = frame.select(columns).to_numpy().astype(np.float64)
    renewed = renewals_of(settings["learn_after"])
    begins = np.array(sorted({*first_us, *ends, *renewed}), np.int64)
    found = []
    for end_us in ends:
        before = begins[begins < end_us]
        if not len(before) or end_us > int(at_us[-1]) + _gap(at_us):
            continue
        inside = whole & (at_us >= before[-1]) & (at_us < end_us) & (before[-1] >= int(at_us[0]))
        if inside.any() or end_us > held_out_us:
            found.append(Ended(rows[inside], end_us, end_us > held_out_us))
    return found


def _gap(at_us: NDArray[np.int64]) -> int:
    return int(np.diff(at_us).min()) if len(at_us) > 1 else 1


def _unit(samples: Matrix, driven: int, per_row: int) -> Unit:
    """Rows that are means of samples, the last one only when it is whole."""
    count = len(samples) // per_row
    rows = samples[: count * per_row].reshape(count, per_row, samples.shape[1]).mean(axis=1)
    return Unit(rows[:, :driven], rows[:, driven:])


def _figures(model: Life, unseen: list[Unit], hours: float) -> dict[str, float]:
    """How far off it is on lives of the held-out time, asked at each row from the twentieth on."""
    told, truth = [], []
    for unit in unseen:
        left = np.arange(len(unit.quantities), 0, -1) - 1.0
        if len(left) < SEEN_MIN:
            continue
        told.append(model.interval(model.model.predict(model.features(unit)))[SEEN_MIN - 1 :])
        truth.append(np.minimum(left, CAP)[SEEN_MIN - 1 :])
    if not told:
        return {}
    found, wanted = np.vstack(told), np.concatenate(truth)
    within = (found[:, 1] <= wanted) & (wanted <= found[:, 2])
    return {
        "held_out_lives": float(len(told)),
        "held_out_rmse_hours": float(np.sqrt(np.mean(np.square(found[:, 0] - wanted)))) * hours,
        "held_out_coverage": float(within.mean()),
    }
