"""A broken tool is a spike that ends in rest; a heavy cut, a stop and noise are none."""

from __future__ import annotations

import numpy as np
import pytest
from asset_health.breakage import spike_of

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
