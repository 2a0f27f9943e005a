"""Evaluates the formulas and alarms of an example on a recording.

An example is a folder with ``knowledge.toml`` - the part of a site file that engineers write - and
``run.py``, which knows how the recording's file is laid out. In an installation the same text stands in
``site.toml``, and `headrace replay` gives the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from headrace.formula.activity import OFF, ON, Activity, rows_of
from headrace.formula.binding import bind
from headrace.formula.bound import Bound
from headrace.formula.evaluate import History, evaluate
from headrace.model.knowledge import AppsConfig
from headrace.site.file import load_site
from headrace.site.knowledge import apps_config


def load_knowledge(folder: Path) -> AppsConfig:
    """What ``knowledge.toml`` says, with a tag for each quantity and formula of each asset.

    Raises:
        SiteProblems: with every problem of the text, each with its place and remedy.
    """
    model = load_site(folder / "knowledge.toml")
    kinds = {kind.name: kind for kind in model.asset_types}
    paths = [
        f"{asset.path}/{name}"
        for asset in model.assets
        for name in (
            *kinds[asset.type].quantities,
            *(formula.name for formula in kinds[asset.type].formulas),
        )
    ]
    return apps_config(model, {path: tag_id for tag_id, path in enumerate(paths, 1)}, {})


@dataclass(slots=True)
class Results:
    """What formulas and alarms gave.

    Attributes:
        samples: ``<asset>/<formula>`` -> frame of ``at_us, value, text, status``.
        alarms: ``<asset>/<alarm>`` -> (start, end) of each time that it was active, in UTC
            microseconds; an end of None: it was active at the end.
    """

    samples: dict[str, pl.DataFrame] = field(default_factory=dict)
    alarms: dict[str, list[tuple[int, int | None]]] = field(default_factory=dict)


def run(
    config: AppsConfig, recording: Mapping[str, pl.DataFrame], start_us: int, end_us: int
) -> Results:
    """Formulas and alarms on a recording.

    Args:
        recording: asset -> frame of ``at_us`` (UTC microseconds) and a column for each quantity; a
            null is no sample.
        start_us, end_us: of what is evaluated.
    """
    known: dict[int, tuple[np.ndarray, ...]] = {}
    for asset in config.assets:
        frame = recording.get(asset.path, pl.DataFrame({"at_us": []}))
        for name, tag_id in asset.tags.items():
            if name in frame.columns:
                some = frame.select("at_us", name).drop_nulls()
                value = some[name].cast(pl.Float64).to_numpy()
                known[tag_id] = (some["at_us"].to_numpy(), value, np.zeros(len(value), np.uint32))
    found, conditions = Results(), dict[str, tuple[Bound, pl.DataFrame]]()
    for bound in bind(config).bound:
        inputs = {name: _history(ids, known) for name, ids in bound.inputs.items()}
        rows = evaluate(
            bound.plan, inputs, start_us, end_us,
            assets=len(bound.assets), attributes=bound.attributes, calendar=config.calendar,
        )  # fmt: skip
        if bound.role != "formula":
            conditions[bound.key] = bound, rows
            continue
        for number, (path, tag_id) in enumerate(
            zip(bound.assets, bound.outputs.tolist(), strict=True)
        ):
            mine = rows.filter(pl.col("asset") == number).drop("asset")
            found.samples[f"{path}/{bound.key.partition('.')[2]}"] = mine
            value = mine["value"].fill_null(math.nan).to_numpy()
            known[tag_id] = (mine["at_us"].to_numpy(), value, mine["status"].to_numpy())
    _alarms(found, conditions)
    return found


def _history(ids: np.ndarray, known: Mapping[int, tuple[np.ndarray, ...]]) -> History:
    parts = [(n, known[tag_id]) for n, tag_id in enumerate(ids.tolist()) if tag_id in known]
    asset = [np.full(len(part[0]), n, np.int64) for n, part in parts]
    columns = [np.concatenate(column) for column in zip(*(part for _, part in parts), strict=True)]
    return History(np.concatenate(asset), *columns)


def _alarms(found: Results, conditions: Mapping[str, tuple[Bound, pl.DataFrame]]) -> None:
    for key, (bound, rows) in conditions.items():
        if bound.role != "alarm":
            continue
        frames = [(0, ON, rows)]
        if f"{key}/off" in conditions:
            frames.append((0, OFF, conditions[f"{key}/off"][1]))
        activity = Activity(np.full(len(bound.assets), len(frames) > 1))
        changes = activity.take(rows_of(frames)[0])
        for number, path in enumerate(bound.assets):
            times = changes.at_us[changes.active_changed & (changes.alarm == number)].tolist()
            ends = [*times[1::2], *([None] if len(times) % 2 else [])]
            spans = list(zip(times[::2], ends, strict=True))
            found.alarms[f"{path}/{key.partition('.')[2]}"] = spans
