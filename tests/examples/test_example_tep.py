"""Tennessee Eastman: what the formulas give is what NumPy and Polars give; each fault has its alarm."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from recordings import area_between, script

from data import data_folder

HOUR_ROWS = 20
FIRST = {
    "d00_te": set(),
    "d01_te": {"feed_composition"},
    "d02_te": {"inert_gas"},
    "d04_te": {"cooling_unsteady", "cooling_water_warm"},
    "d05_te": {"condenser_water_warm"},
    "d11_te": {"cooling_unsteady"},
    "d14_te": {"valve_sticks"},
}
"""File -> alarms of the two hours after the fault begins; none before."""


def test_figures_are_those_of_numpy_and_polars() -> None:
    tep = script("tep")
    file = data_folder("tep") / "d01_te.dat.gz"
    found, rows, x = tep.run(file).samples, np.loadtxt(file), tep.recording(file)

    def close(name: str, wanted: np.ndarray, skip: int = 0) -> None:
        value = found[f"{tep.ASSET}/{name}"]["value"].fill_null(math.nan).to_numpy()
        np.testing.assert_allclose(value[skip:], wanted[skip:], rtol=1e-9, atol=1e-9)

    share = 100 * rows[:, 0] / rows[:, 3]
    close("a_in_feed", share)
    hourly = pl.Series(share).rolling_mean(HOUR_ROWS, min_samples=1)
    close("a_in_feed_1h", hourly.to_numpy())
    close("specific_work", rows[:, 19] / (1000 * rows[:, 4]))
    close("pressure_loss", rows[:, 6] - rows[:, 12])
    means = [pl.Series(rows[:, at]).rolling_mean(2 * HOUR_ROWS, min_samples=1) for at in (18, 16)]
    close("steam_per_product", (means[0] / means[1]).to_numpy())
    restless = pl.Series(rows[:, 8]).rolling_std(HOUR_ROWS, min_samples=2)
    close("reactor_restless", restless.to_numpy(), skip=1)
    days = tep.START_US + 86_400_000_000 * np.arange(2)
    close("product_day", area_between(x["at_us"].to_numpy(), rows[:, 16], days))
    hours = np.arange(120) / HOUR_ROWS
    trend = [np.polyfit(hours, rows[end - 120 : end, 6], 1)[0] for end in range(120, len(rows) + 1)]
    value = found[f"{tep.ASSET}/pressure_trend"]["value"].to_numpy()[119:]
    np.testing.assert_allclose(value, trend, rtol=1e-6, atol=1e-8)


def test_an_alarm_begins_and_ends_where_its_words_say() -> None:
    tep = script("tep")
    file = data_folder("tep") / "d05_te.dat.gz"
    rows = np.loadtxt(file)
    hourly = pl.Series(100 * rows[:, 0] / rows[:, 3]).rolling_mean(HOUR_ROWS, min_samples=1)
    spans, active, below = [], False, 0
    for row, share in enumerate(hourly):
        below = below + 1 if share < 3.5 else 0
        if not active and share > 4:
            active = True
            spans.append([row, None])
        elif active and share <= 4 and below > 10:  # 30 min after the first of them
            active, spans[-1][1] = False, row
    assert spans
    wanted = [
        tuple(None if r is None else tep.START_US + r * tep.STEP_US for r in s) for s in spans
    ]
    assert tep.run(file).alarms[f"{tep.ASSET}/feed_composition"] == wanted


@pytest.mark.parametrize(("name", "expected"), FIRST.items())
def test_each_fault_has_its_alarm(name: str, expected: set[str]) -> None:
    tep = script("tep")
    alarms = tep.run(data_folder("tep") / f"{name}.dat.gz").alarms
    begins = tep.START_US + tep.FAULT_ROW * tep.STEP_US
    starts = [(a.rpartition("/")[2], start) for a, spans in alarms.items() for start, _ in spans]
    assert all(start >= begins for _, start in starts), "nothing is told before the fault"
    two_hours_on = begins + 7_200_000_000
    assert {alarm for alarm, start in starts if start < two_hours_on} == expected
    assert (name == "d00_te") == (not starts)
