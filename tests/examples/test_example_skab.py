"""The SKAB testbed: windows of uneven samples, as Polars and NumPy work them out."""

from __future__ import annotations

import numpy as np
import polars as pl
from recordings import area_between, script

from data import data_folder


def test_figures_are_those_of_numpy_and_polars() -> None:
    skab = script("skab")
    frame, found = skab.run(data_folder("skab") / "valve1" / "2.csv.gz")  # with a gap of 76 s
    samples = found.samples

    def value(name: str) -> np.ndarray:
        return samples[f"{skab.ASSET}/{name}"]["value"].to_numpy()

    timed = frame.with_columns(at=pl.from_epoch("at_us", time_unit="us"))
    minute = timed.select(pl.col("flow").rolling_mean_by("at", "60s"))["flow"].to_numpy()
    np.testing.assert_allclose(value("flow_1min"), minute, rtol=1e-9)
    open_flow = frame["flow"][: skab.COMMISSIONING_ROWS].mean()
    np.testing.assert_allclose(value("flow_loss"), 100 * (1 - minute / open_flow), atol=1e-9)
    power = (frame["voltage"] * frame["current"]).to_numpy()
    np.testing.assert_allclose(value("electric_power"), power, rtol=1e-12)
    highest = timed.select(pl.col("pressure").rolling_max_by("at", "60s"))["pressure"]
    lowest = timed.select(pl.col("pressure").rolling_min_by("at", "60s"))["pressure"]
    np.testing.assert_allclose(value("spread"), (highest - lowest).to_numpy(), atol=1e-12)
    at_us = frame["at_us"].to_numpy()
    pump, motor = frame["vibration_pump"].to_numpy(), frame["vibration_motor"].to_numpy()
    shaking = np.maximum(pump, motor)
    for row in range(50, frame.height, 97):
        window = (at_us > at_us[row] - 300_000_000) & (at_us <= at_us[row])
        assert np.isclose(value("shaking_95")[row], np.quantile(shaking[window], 0.95))
        hours = (at_us[window] - at_us[row]) / 3.6e9
        slope = np.polyfit(hours, frame["housing_temperature"].to_numpy()[window], 1)[0]
        assert np.isclose(value("warming")[row], slope, rtol=1e-6)
        both = np.corrcoef(frame["current"].to_numpy()[window], minute[window])[0, 1]
        assert np.isclose(value("together")[row], both, rtol=1e-6, atol=1e-9)


def test_the_volume_is_the_area_below_the_flow() -> None:
    skab = script("skab")
    frame, found = skab.run(data_folder("skab") / "valve1" / "2.csv.gz")
    volumes = found.samples[f"{skab.ASSET}/volume_10min"]
    ends = volumes["at_us"].to_numpy()
    flow = frame["flow"].to_numpy() * 60  # L/h
    wanted = area_between(frame["at_us"].to_numpy(), flow, np.r_[ends[0] - 600_000_000, ends])
    assert len(ends) >= 1
    np.testing.assert_allclose(volumes["value"].to_numpy(), wanted, rtol=1e-9)


def test_a_closing_valve_is_noticed() -> None:
    skab = script("skab")
    missed, wrong, false, well = 0, 0, 0, 0
    for number in range(16):
        frame, found = skab.run(data_folder("skab") / "valve1" / f"{number}.csv.gz")
        anomaly = frame["anomaly"] == 1
        active = skab.alarmed(frame, found.alarms[f"{skab.ASSET}/valve_closes"])
        minute = frame.with_columns(at=pl.from_epoch("at_us", time_unit="us")).select(
            pl.col("flow").rolling_mean_by("at", "60s")
        )["flow"]
        closed = minute < 0.99 * frame["flow"][: skab.COMMISSIONING_ROWS].mean()
        assert (closed & ~active).sum() <= 11 * (closed & ~closed.shift(1, fill_value=False)).sum()
        missed, wrong = missed + (anomaly & ~active).sum(), wrong + anomaly.sum()
        false, well = false + (active & ~anomaly).sum(), well + (~anomaly).sum()
    assert missed / wrong < 0.13 and false / well < 0.14
