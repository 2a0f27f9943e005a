"""The pure parts of the app: windows look only back, conditions are taken out, watches tell and name."""

from __future__ import annotations

import doctest
import importlib

import msgspec
import numpy as np
import pytest
from asset_health.anomaly import Follow, LevelWatch, StateWatch, Watch, conformal_limit
from asset_health.conditions import Conditions
from asset_health.features import rolling_mean, rolling_slope, rolling_std, trend_features
from asset_health.stream import novelty
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

_NUMBERS = st.floats(-1e3, 1e3, allow_nan=False, width=32)
_ROWS = arrays(np.float64, st.tuples(st.integers(2, 40), st.just(2)), elements=_NUMBERS)


@pytest.mark.parametrize("name", ["features", "conditions", "anomaly", "stream"])
def test_examples_of_the_docstrings_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"asset_health.{name}"))
    assert result.attempted and not result.failed


@settings(max_examples=40, deadline=None)
@given(_ROWS, st.integers(1, 12))
def test_windows_equal_what_numpy_says_of_each(rows: np.ndarray, length: int) -> None:
    mean, slope, spread = (f(rows, length) for f in (rolling_mean, rolling_slope, rolling_std))
    for end in range(1, len(rows) + 1):
        part = rows[max(0, end - length) : end]
        assert np.allclose(mean[end - 1], part.mean(axis=0), atol=1e-6)
        assert np.allclose(spread[end - 1], part.std(axis=0), atol=1e-2)
        if len(part) > 1:
            fitted = np.polyfit(np.arange(len(part)), part, 1)[0]
            assert np.allclose(slope[end - 1], fitted, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(_ROWS, st.data())
def test_what_comes_later_changes_nothing_before_it(rows: np.ndarray, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(rows)))
    whole, part = trend_features(rows, (3, 5, 9)), trend_features(rows[:cut], (3, 5, 9))
    assert np.allclose(whole[:cut], part, atol=1e-6)


def test_regimes_are_found_and_taken_out() -> None:
    rng = np.random.default_rng(3)
    regime = rng.integers(0, 4, 800)
    operating = np.column_stack([regime * 10.0, regime % 2]) + rng.normal(0, 0.01, (800, 2))
    hidden = rng.normal(size=800)
    quantity = (regime * 50.0 + hidden * (1 + regime))[:, None]
    conditions = Conditions(operating, quantity)
    assert conditions.regimes == 4
    assert np.corrcoef(conditions.residual(operating, quantity)[:, 0], hidden)[0, 1] > 0.99


def test_continuous_conditions_are_taken_out_by_a_law() -> None:
    rng = np.random.default_rng(4)
    load = rng.uniform(0, 1, (600, 1))
    hidden = rng.normal(0, 0.1, 600)
    quantity = (3 + 2 * load[:, 0] + 4 * load[:, 0] ** 2 + hidden)[:, None]
    conditions = Conditions(load, quantity)
    assert conditions.regimes == 0
    assert np.corrcoef(conditions.residual(load, quantity)[:, 0], hidden)[0, 1] > 0.98


def test_constant_quantities_do_no_harm() -> None:
    rng = np.random.default_rng(5)
    healthy = np.column_stack([rng.normal(size=300), np.full(300, 7.0)])
    for watch in (LevelWatch(healthy), StateWatch(healthy)):
        assert np.all(np.isfinite(watch.score(healthy)))


def test_a_shift_alarms_and_names_its_quantity_in_its_unit() -> None:
    rng = np.random.default_rng(6)
    healthy = rng.normal([20.0, 5.0, 100.0], [1.0, 0.1, 10.0], (600, 3))
    watch = Watch(healthy, ("flow", "head", "power"))
    calm = rng.normal([20.0, 5.0, 100.0], [1.0, 0.1, 10.0], (100, 3))
    moved = calm + np.array([0.0, -0.5, 0.0])
    assert watch.level.score(calm)[20:].max() < 1 < watch.score(moved)[-1]
    first = watch.causes(moved)[0]
    assert first.quantity == "head" and first.share > 0.5
    assert first.moved == pytest.approx(-0.5, abs=0.1) and first.spreads == pytest.approx(-5, abs=1)


def test_quantities_that_no_longer_move_together_alarm_though_each_is_in_its_band() -> None:
    rng = np.random.default_rng(7)
    cause = rng.normal(size=(800, 1))
    healthy = cause + rng.normal(0, 0.05, (800, 2))
    parted = rng.normal(size=(60, 2))
    assert StateWatch(healthy).score(parted).max() > 2
    assert LevelWatch(healthy).score(parted)[-1] < 1


def test_following_in_pieces_equals_following_at_once() -> None:
    rng = np.random.default_rng(8)
    watch = LevelWatch(rng.normal(size=(300, 2)))
    before = rng.normal(size=(watch.gap, 2))
    rows = [before, *(rng.normal(level, 1, (60, 2)) for level in (0, 8, 0))]
    together = np.vstack(rows)
    whole, end = watch.follow(together, skip=watch.gap)
    pieces, held = [], None
    for part in np.array_split(np.arange(watch.gap, len(together)), 17):
        told, held = watch.follow(
            together[part[0] - watch.gap : part[-1] + 1], held, skip=watch.gap
        )
        pieces.append(told)
    assert np.allclose(np.vstack(pieces), whole)
    assert isinstance(held, Follow) and held.quiet == end.quiet
    assert np.allclose(held.level, end.level) and np.allclose(held.doubt, end.doubt)
    assert whole[100, 1] == 1 and whole[-1, 1] == 0


def test_what_an_earlier_form_kept_of_a_level_begins_anew() -> None:
    rng = np.random.default_rng(13)
    watch = LevelWatch(rng.normal(size=(300, 2)))
    earlier = msgspec.convert({"centre": [0.0, 0.0], "active": True, "peak": 4.0}, Follow)
    rows = rng.normal(size=(40, 2))
    told, end = watch.follow(rows, earlier)
    assert np.array_equal(told, watch.follow(rows)[0]) and len(end.level) == 2


def test_a_level_that_wanders_has_a_wider_limit_and_one_out_of_model_has_no_say() -> None:
    rng = np.random.default_rng(11)
    steady = rng.normal(size=600)
    wandering = steady + np.cumsum(rng.normal(0, 0.2, 600))
    smooth = np.cumsum(np.cumsum(rng.normal(size=600)))
    healthy = np.column_stack([steady, wandering, smooth])
    moved = np.tile(healthy[-40:].mean(axis=0) + 3.0 * healthy.std(axis=0), (40, 1))
    far = LevelWatch(healthy).deviations(moved)[-1]
    assert far[0] > 1.0 and far[0] > 1.5 * far[1]
    assert far[2] < 0.2


@pytest.mark.parametrize("wander", [0.0, 0.1])
def test_false_alarms_of_a_level_are_as_few_as_said(wander: float) -> None:
    rng = np.random.default_rng(12)
    alarms = 0
    for _ in range(60):
        rows = rng.normal(size=(400, 2)) + np.cumsum(rng.normal(0, wander, (400, 2)), axis=0)
        watch = LevelWatch(rows[:200])
        told, _ = watch.follow(rows[200 - watch.gap :], skip=watch.gap)
        alarms += bool(told[:, 1].any())
    assert alarms <= 6


def test_conformal_limit_keeps_its_promise_on_new_rows() -> None:
    rng = np.random.default_rng(9)
    over = [rng.normal() > conformal_limit(rng.normal(size=99), 0.1) for _ in range(2000)]
    assert np.mean(over) == pytest.approx(0.1, abs=0.02)


def test_novelty_looks_only_back() -> None:
    rng = np.random.default_rng(10)
    values = np.sin(np.arange(400) / 7) + rng.normal(0, 0.05, 400)
    whole, _ = novelty(values, 80)
    part, _ = novelty(values[:250], 80)
    assert np.array_equal(whole[:250], part)
