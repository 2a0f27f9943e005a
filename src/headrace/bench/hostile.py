"""Hostile conditions: what may happen to samples between a device and the platform. Pure.

A ``bad`` sample is the device's own word: it comes first, and with ``source.protocol`` it goes through the
protocol (:mod:`headrace.bench.carrying`); all else happens behind the edge.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.bench.ground import Ground
from headrace.bench.scenario import Hostile, Scenario
from headrace.model.sample import TIMESTAMP, microseconds
from headrace.model.status import BAD_SENSOR_FAILURE
from headrace.model.time import US_PER_S

Bools = npt.NDArray[np.bool_]


def suffer(ground: Ground, scenario: Scenario) -> pl.DataFrame:
    """The samples of a ground as they arrive under the scenario's conditions, by arrival.

    Example:
        >>> from headrace.model.knowledge import AppsConfig
        >>> from headrace.model.sample import empty_batch
        >>> site = AppsConfig(enterprise="acme", site="mill")
        >>> suffer(Ground(site, {}, {}, empty_batch(), 0, 1), Scenario(name="calm")).height
        0
    """
    samples = ground.samples if scenario.source.protocol else ail(ground, scenario)
    for number, each in enumerate(scenario.hostile):
        if each.kind in ("crash", "bad"):
            continue
        generator = np.random.Generator(np.random.PCG64([scenario.source.seed, number, 24]))
        touched = _touched(ground, samples, each, generator)
        samples = _one(samples, each, touched)
    return samples.sort("received_timestamp", maintain_order=True)


def ail(ground: Ground, scenario: Scenario) -> pl.DataFrame:
    """The samples of a ground with those that are ``bad``: the sensor has failed, so the device itself says
    so, whatever happens to its samples after."""
    samples = ground.samples
    for number, each in enumerate(scenario.hostile):
        if each.kind == "bad":
            generator = np.random.Generator(np.random.PCG64([scenario.source.seed, number, 24]))
            samples = _one(samples, each, _touched(ground, samples, each, generator))
    return samples


def crashes(scenario: Scenario) -> Sequence[tuple[int, int]]:
    """(microseconds after the begin, microseconds until it runs again) of each kill, in order."""
    found = [
        (round(each.at_s * US_PER_S), round(each.delay_s * US_PER_S))
        for each in scenario.hostile
        if each.kind == "crash"
    ]
    return sorted(found)


def _touched(
    ground: Ground, samples: pl.DataFrame, each: Hostile, generator: np.random.Generator
) -> Bools:
    at_us = microseconds(samples["source_timestamp"])
    begin_us = ground.start_us + round(each.at_s * US_PER_S)
    end_us = ground.start_us + round(each.until_s * US_PER_S) if each.until_s else 2**62
    mine = (at_us >= begin_us) & (at_us < end_us)
    mine &= np.isin(samples["tag_id"].to_numpy(), ground.tags_like(each.tags))
    # By chance, but the same chance whatever the other conditions are.
    chosen = generator.random(samples.height) < each.share
    return np.asarray(mine & chosen)


def _one(samples: pl.DataFrame, each: Hostile, touched: Bools) -> pl.DataFrame:
    mask = pl.Series("touched", touched)
    if each.kind == "missing":
        return samples.filter(~mask)
    if each.kind == "bad":
        status = samples["status"].to_numpy().copy()
        status[touched] = BAD_SENSOR_FAILURE
        return samples.with_columns(
            samples["value"].set(mask, None),
            samples["text"].set(mask, None),
            pl.Series("status", status, pl.UInt32),
        )
    if each.kind == "doubled":
        again = samples.filter(mask)
        moved = _moved(again, "received_timestamp", each.delay_s, np.ones(again.height, np.bool_))
        return pl.concat([samples, moved])
    if each.kind == "late":
        return _moved(samples, "received_timestamp", each.delay_s, touched)
    return _moved(samples, "source_timestamp", each.offset_s, touched)


def _moved(samples: pl.DataFrame, column: str, by_s: float, touched: Bools) -> pl.DataFrame:
    at_us = microseconds(samples[column]).copy()
    at_us[touched] += round(by_s * US_PER_S)
    return samples.with_columns(pl.Series(column, at_us).cast(TIMESTAMP))
