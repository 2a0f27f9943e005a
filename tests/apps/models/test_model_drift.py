"""Drift: the stated rate of false alarms on dependent data that do not drift, and shifts that are found."""

from __future__ import annotations

import warnings

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headrace.apps.models.drift import distances, judge_frames, judge_series
from headrace.model.errors import Misconfigured


def walk(rng, count, memory):
    """An autoregressive series of first order: each value depends on the one before."""
    noise = rng.normal(size=count)
    for at in range(1, count):
        noise[at] += memory * noise[at - 1]
    return noise


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_false_alarms_come_as_rarely_as_stated_though_samples_depend_on_each_other(alpha):
    rng = np.random.default_rng(11)
    looks, blocks, length = 300, 39, 60
    told = textbook = 0
    for _ in range(looks):
        series = walk(rng, (blocks + 1) * length, 0.9)
        old, new = series[: blocks * length], series[blocks * length :]
        told += judge_series(old, new, alpha)[0]["drifted"]
        textbook += stats.ks_2samp(old, new).pvalue <= alpha
    # At most alpha; 300 looks have a standard deviation of 1.3 % at 5 %: four of them are allowed.
    assert told / looks <= alpha + 4 * (alpha * (1 - alpha) / looks) ** 0.5
    assert told / looks >= alpha / 3  # it is no test that never tells
    assert textbook / looks > 3 * alpha if alpha < 0.1 else textbook / looks > alpha


@pytest.mark.parametrize("change", ["shift", "spread", "stuck"])
def test_a_change_is_found(change):
    rng = np.random.default_rng(5)
    found = 0
    for _ in range(20):
        series = walk(rng, 40 * 120, 0.6)
        new = series[-120:].copy()
        if change == "shift":
            new += 3
        elif change == "spread":
            new *= 4
        else:
            new[:] = new[0]
        found += judge_series(series[:-120], new)[0]["drifted"]
    assert found >= 19


@given(st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=30), min_size=2, max_size=5))
@settings(max_examples=60, deadline=None)
def test_distances_are_those_of_scipy(given_values):
    stretches = [np.array(each, float) for each in given_values]
    found = distances(stretches)
    for place, own in enumerate(stretches):
        rest = np.concatenate([each for at, each in enumerate(stretches) if at != place])
        with warnings.catch_warnings():  # of its p-value, which is not asked for
            warnings.simplefilter("ignore", RuntimeWarning)
            wanted = stats.ks_2samp(rest, own).statistic
        assert found[place, 1] == pytest.approx(wanted)
    assert (found[:, 0] >= 0).all()


def test_too_few_blocks_tell_nothing_and_say_so():
    rng = np.random.default_rng(2)
    found = judge_series(rng.normal(size=18 * 50), rng.normal(size=50) + 100)[0]
    assert (found["blocks"], found["can_tell"], found["drifted"]) == (18, False, False)
    found = judge_series(rng.normal(size=19 * 50), rng.normal(size=50) + 100)[0]
    assert (found["blocks"], found["can_tell"], found["drifted"]) == (19, True, True)
    assert judge_series(np.zeros(0), np.zeros(0))[0] == {"blocks": 0}
    with pytest.raises(Misconfigured, match="APPS-2535"):
        judge_series(np.zeros(5), np.zeros(5), 0)


def test_each_quantity_of_each_asset_is_judged_by_itself():
    rng = np.random.default_rng(3)

    def frame(count, shift):
        return pl.concat(
            pl.DataFrame(
                {
                    "asset": [asset] * count,
                    "flow": rng.normal(size=count) + (shift if asset == "p2" else 0),
                    "power": rng.normal(size=count),
                    "nothing": [None] * count,
                },
                schema_overrides={"nothing": pl.Float64},
            )
            for asset in ("p1", "p2")
        )

    found, counts = judge_frames(frame(2000, 0), frame(50, 4), "input")
    assert [(each.asset, each.quantity) for each in found if each.drifted] == [("p2", "flow")]
    assert len(found) == 4
    assert len(counts) == 40 and counts.max() <= 4
