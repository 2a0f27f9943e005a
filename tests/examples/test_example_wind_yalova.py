"""The wind turbine: calendar months on the plant's wall clock, gaps, and a power curve."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from recordings import area_between, script

from data import data_folder
from headrace.model import status as st

ZONE = ZoneInfo("Europe/Istanbul")


@cache
def example() -> tuple[ModuleType, Any, Any]:
    wind = script("wind_yalova")
    file = data_folder("wind_yalova") / wind.FILE.name
    return wind, wind.recording(file), wind.run(file)


def edges_us(day: bool = False) -> np.ndarray:
    dates = [datetime(2018, month, 1, tzinfo=ZONE) for month in range(1, 10)]
    if day:
        dates = [datetime(2018, 1, n, tzinfo=ZONE) for n in range(1, 31)]
    return np.array([round(date.timestamp() * 1e6) for date in dates])


def test_months_are_areas_below_the_steps() -> None:
    wind, frame, found = example()
    at_us, power = frame["at_us"].to_numpy(), frame["power"].to_numpy()
    lost = np.maximum(frame["curve"].to_numpy() - power, 0.0)
    edges = edges_us()
    hours = np.diff(edges) / 3.6e9
    for name, wanted in (
        ("energy_month", area_between(at_us, power, edges) / 1000),
        ("lost_month", area_between(at_us, lost, edges) / 1000),
        ("capacity_factor", 100 * area_between(at_us, power, edges) / hours / 3600),
        ("hours_on", area_between(at_us, (power > 0).astype(float), edges)),
    ):
        rows = found.samples[f"{wind.ASSET}/{name}"]
        if name != "capacity_factor":  # which has a value whenever the power changes
            assert rows["at_us"].to_list() == edges[1:].tolist()
        np.testing.assert_allclose(rows["value"].to_numpy()[: len(wanted)], wanted, rtol=1e-9)
    days = found.samples[f"{wind.ASSET}/energy_day"]["value"].to_numpy()
    wanted = area_between(at_us, power, edges_us(day=True)) / 1000
    np.testing.assert_allclose(days[: len(wanted)], wanted, rtol=1e-9, atol=1e-12)


def test_points_are_those_of_numpy() -> None:
    wind, frame, found = example()
    power, speed = frame["power"].to_numpy(), frame["wind_speed"].to_numpy()
    swept = np.pi * (117 / 2) ** 2
    available = 0.5 * 1.225 * swept * speed**3 / 1000
    with np.errstate(all="ignore"):
        wanted = np.where(speed > 3, power / available, 0.0)
    rows = found.samples[f"{wind.ASSET}/power_coefficient"]
    rows = rows.filter(rows["at_us"].is_in(frame["at_us"].implode()))
    np.testing.assert_allclose(rows["value"].to_numpy(), wanted, rtol=1e-9, atol=1e-12)
    assert 0.35 < np.median(wanted[(speed > 6) & (speed < 10) & (power > 0)]) < 0.5  # below Betz


def test_what_grew_old_in_a_gap_is_uncertain() -> None:
    wind, frame, found = example()
    at_us = frame["at_us"].to_numpy()
    gaps = np.flatnonzero(np.diff(at_us) > 1_800_000_000)
    rows = found.samples[f"{wind.ASSET}/performance"]
    old = rows.filter(rows["status"] == st.UNCERTAIN_LAST_USABLE_VALUE)["at_us"].to_list()
    assert len(gaps) > 10 and old[: len(gaps)] == [int(at_us[n]) + 1_800_000_000 for n in gaps]


def test_the_alarm_tells_the_stops_that_last() -> None:
    wind, frame, found = example()
    at_us = frame["at_us"].to_numpy()
    power, curve = frame["power"].to_numpy(), frame["curve"].to_numpy()
    low, over = (power < 0.5 * curve) & (curve > 500), (power > 0.8 * curve)
    begun, active, starts = None, False, []
    quiet = None
    for at, is_low, is_over, is_calm in zip(at_us, low, over, curve < 200, strict=True):
        ripe = begun is not None and (at - begun, is_low) >= (3_600_000_000, True)
        if ripe and not active:
            active, quiet = True, None
            starts.append(begun + 3_600_000_000)
        begun = (begun if begun is not None else int(at)) if is_low else None
        quiet = (quiet if quiet is not None else at) if is_calm else None
        if active and begun is None and (is_over or (quiet is not None and at - quiet >= 1.8e9)):
            active = False
    assert [start for start, _ in found.alarms[f"{wind.ASSET}/underperforms"]] == starts
    assert len(starts) > 10
