"""Signals against their own past: stuck, drifting, late, restarted, clock."""

from __future__ import annotations

import numpy as np
import pytest
from asset_health.signal_state import (
    TAUS,
    Cadence,
    Came,
    Signal,
    device_state,
    follow_mean,
    grow,
    how_came,
    is_over,
    is_stuck,
    learn_cadence,
    learn_reach,
    learn_runs,
    ratios,
    run_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

MINUTE_MS = 60_000.0
FLOOR = 10
CALM = np.zeros(len(TAUS))


def came(
    samples: int = 60,
    gap: float = 1000,
    silent: float = 0,
    delay: float = 5,
    span: float = 5,
    bad: int = 0,
) -> Came:
    return Came(
        samples=samples, bad=bad, gap_ms=gap, silent_ms=silent, delay_ms=delay, delay_span_ms=span
    )


def usual() -> Cadence:
    known = Cadence()
    for delay in (0.0, 5.0, 10.0):
        learn_cadence(known, came(delay=delay))
    return known


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (came(), "ok"),
        (came(samples=50), "ok"),
        (came(samples=30, gap=2000, silent=800), "late"),
        (came(delay=800), "late"),
        (came(samples=20, gap=45_000, silent=45_000), "late"),
        (came(samples=40, gap=21_000), "restarted"),
        (came(samples=50, gap=9000), "restarted"),
        (came(samples=56, gap=5000), "ok"),
        (came(samples=56, gap=5000, bad=1), "restarted"),
        (came(bad=1), "ok"),
        (came(delay=600_005), "clock"),
        (came(delay=-90_000), "clock"),
        (came(delay=300_000, span=600_000), "late"),
        (came(samples=5, delay=30_000, gap=9000, silent=5000), "late"),
        (Came(samples=0, bad=0, gap_ms=None, silent_ms=None, delay_ms=None, delay_span_ms=None), "ok"),
    ],
)  # fmt: skip
def test_how_a_minute_came_against_what_was_learned(seen: Came, state: str) -> None:
    assert how_came(usual(), seen, MINUTE_MS) == state


def test_a_signal_that_comes_by_exception_is_not_late_when_it_is_quiet() -> None:
    known = Cadence()
    for samples, gap in ((0, 90_000.0), (3, 40_000.0), (1, 120_000.0)):
        learn_cadence(known, came(samples=samples, gap=gap, silent=gap))
    assert how_came(known, came(samples=0, gap=200_000, silent=200_000), MINUTE_MS) == "ok"


def test_a_device_is_told_of_when_most_of_its_signals_agree() -> None:
    assert device_state({"a": "late", "b": "late", "c": "late", "d": "late", "e": "ok"}) == "late"
    assert device_state({"a": "late", "b": "ok"}) == "ok" and device_state({}) == "ok"


@given(
    values=st.lists(st.sampled_from([1.0, 2.0]), min_size=2, max_size=60),
    cuts=st.sets(st.integers(1, 59)),
)
def test_runs_do_not_depend_on_where_windows_end(values: list[float], cuts: set[int]) -> None:
    series = np.array(values)
    newest, longest, changes = run_of(Signal(), series, 1.0)
    known = Signal()
    for part in np.split(series, sorted(c for c in cuts if c < len(values))):
        learn_runs(known, run_of(known, part, 1.0), float(part[-1]))
    assert (known.run_s, known.run_max_s, known.changes) == (newest, longest, changes)


def test_stuck_is_three_times_as_long_as_ever_and_a_setpoint_never_is() -> None:
    known = Signal()
    moving = np.repeat(np.arange(40.0), 30)  # each value stands for half a minute
    learn_runs(known, run_of(known, moving, 1.0), 39.0)
    assert known.run_max_s == 30.0 and not is_stuck(known)
    known.run_s = 89.0
    assert not is_stuck(known)
    known.run_s = 90.0
    assert is_stuck(known)
    setpoint = Signal()
    learn_runs(setpoint, run_of(setpoint, np.repeat([1.0, 2.0], 600), 1.0), 2.0)
    setpoint.run_s = 1e6
    assert not is_stuck(setpoint)


def drifts(means: np.ndarray, others: np.ndarray = CALM) -> list[int]:
    """Windows in which a signal drifts that shows these means."""
    known, found = Signal(), []
    for place, mean in enumerate(means.tolist()):
        distance = follow_mean(known, mean)
        over = is_over(ratios(known, distance, FLOOR), None, others)
        learn_reach(known, mean, distance, distance, FLOOR)
        if grow(known, mean, distance, over):
            found.append(place)
    return found


def noise(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 1.0, count)


@pytest.mark.parametrize("seed", range(5))
def test_a_ramp_drifts_and_a_jump_a_pulse_and_a_wander_do_not(seed: int) -> None:
    calm = 50.0 + noise(120, seed)
    assert drifts(calm) == []
    ramp = calm + np.maximum(0, np.arange(120) - 60) * 8.0
    assert drifts(ramp) and 62 <= drifts(ramp)[0] <= 66
    jump = calm + np.where(np.arange(120) >= 60, 40.0, 0.0)
    assert drifts(jump) == []
    pulse = calm + np.where(np.arange(120) == 60, 400.0, 0.0)
    assert drifts(pulse) == []
    wander = 50.0 + 20.0 * np.sin(np.arange(600) / 25.0) + 0.3 * noise(600, seed)
    assert drifts(wander) == []


def test_a_slow_ramp_is_found_over_a_longer_mean() -> None:
    calm = 50.0 + noise(600, 3)
    slow = calm + np.maximum(0, np.arange(600) - 300) * 0.4
    assert drifts(slow) and 300 < drifts(slow)[0] < 400


def test_what_moves_together_is_the_process() -> None:
    ramp = 50.0 + noise(120, 1) + np.maximum(0, np.arange(120) - 60) * 8.0
    assert drifts(ramp, others=np.full(len(TAUS), 2.0)) == []


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_drift_knows_no_unit(scale: float, shift: float) -> None:
    ramp = noise(90, 2) + np.maximum(0, np.arange(90) - 60) * 8.0
    # An affine change of unit, whatever it is, finds the same windows.
    assert drifts(ramp * scale + shift * scale) == drifts(ramp)
