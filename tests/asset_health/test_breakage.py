"""A broken tool is a spike that ends in rest; a heavy cut, a stop and noise are none."""

from __future__ import annotations

import numpy as np
import pytest
from asset_health.breakage import Spindle, follow, spike_of

GREATEST = {"spindle_power": 6.0, "spindle_torque": 30.0, "spindle_vibration": 4.0}


def loads(power: list[float]) -> dict[str, np.ndarray]:
    values = np.array(power)
    return {
        "spindle_power": values,
        "spindle_torque": values * 5.0,
        "spindle_vibration": 0.2 + values * 0.6,
    }


def test_a_spike_that_ends_in_rest_is_found_with_its_size_and_length() -> None:
    found = spike_of(loads([4.0] * 20 + [15.0] * 3 + [0.0] * 30), GREATEST)
    assert found is not None
    assert found[0] == pytest.approx(2.5) and found[1] == 3.0


@pytest.mark.parametrize(
    "power",
    [
        [4.0] * 30 + [0.0] * 30,
        [4.0] * 20 + [15.0] * 12 + [0.0] * 30,
        [4.0] * 20 + [15.0] * 3 + [4.0] * 30,
        [4.0] * 40 + [15.0] * 3 + [0.0] * 5,
        [4.0] * 20 + [7.0] * 3 + [0.0] * 30,
    ],
    ids=["a stop", "a heavy cut", "it goes on cutting", "not seen to the end", "hardly more"],
)
def test_all_else_is_no_broken_tool(power: list[float]) -> None:
    assert spike_of(loads(power), GREATEST) is None


def test_one_load_alone_that_jumps_is_a_sensor() -> None:
    shown = loads([4.0] * 20 + [5.0] * 3 + [0.0] * 30)
    shown["spindle_vibration"][20:23] = 50.0
    assert spike_of(shown, GREATEST) is None


def test_a_break_is_found_in_whichever_second_of_the_minute_it_comes() -> None:
    learning = 10
    rng = np.random.default_rng(5)
    cuts = np.tile([*[4.0] * 40, *[0.0] * 14, *[2.0] * 20, *[0.0] * 6], 12)
    cuts = cuts * (1.0 + 0.02 * rng.normal(size=len(cuts)))
    for second in range(60):
        at = learning * 60 + 60 + second
        power = np.concatenate([cuts[:at], [15.0] * 3, np.zeros(237 - second)])
        known, found = Spindle(), []
        for minute in range(len(power) // 60):
            part = power[minute * 60 : minute * 60 + 60]
            if follow(known, loads(part.tolist()), learning) is not None:
                found.append(minute)
        assert found and found[0] in (at // 60, at // 60 + 1), second
        assert known.greatest["spindle_power"] < 5.0, "a spike is not learned as usual"


def test_without_a_break_nothing_is_found_and_a_heavier_cut_is_learned() -> None:
    known = Spindle()
    for minute in range(30):
        cut = [9.0 if minute >= 20 else 4.0] * 30
        assert follow(known, loads([*cut, *[0.0] * 30]), 10) is None
    assert known.greatest["spindle_power"] == 9.0 and not known.broken
