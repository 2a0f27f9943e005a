"""Floors under the accuracy on public recordings, a bit below what docs/asset-health.md reports."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from data import data_folder

_SCRIPT = Path(__file__).resolve().parents[2] / "apps" / "asset-health" / "accuracy.py"


@pytest.fixture(scope="module")
def accuracy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("asset_health_accuracy", _SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.DATA = data_folder("tep").parent
    return module


def test_plant_faults_are_detected_as_well_as_the_published_statistics(
    accuracy: ModuleType,
) -> None:
    found = accuracy.tep()
    for fault, published in accuracy.TEP_FAULTS.items():
        assert found[fault][0] <= published + 0.001, fault
    assert found[5][0] < 0.05 and found[11][0] < 0.15


def test_valve_faults_are_found_row_by_row(accuracy: ModuleType) -> None:
    found = accuracy.skab()
    assert found.f1 >= 0.85 and found.false_alarms <= 0.16


def test_tool_wear_and_capacity_beat_their_plain_baselines(accuracy: ModuleType) -> None:
    assert accuracy.milling() < 0.06
    straight = {"B0005": 0.046, "B0006": 0.186}
    for name, (curve, mean, ahead) in accuracy.battery().items():
        assert curve < 0.05 < mean, name
        assert ahead < straight[name], name


def test_a_fade_is_told_ahead_better_than_by_a_straight_line_on_most_cells(
    accuracy: ModuleType,
) -> None:
    data_folder("battery_hnei")
    told, plain = accuracy.cells()
    assert told < 0.026 < plain


def test_a_forecast_that_proves_right_in_the_known_half_gets_the_weight(
    accuracy: ModuleType,
) -> None:
    cycles = np.arange(120.0)
    bent, straight = 2.0 - 0.05 * np.sqrt(cycles), 2.0 - 0.004 * cycles
    assert np.abs(accuracy.fade_ahead(bent, 60, 1.1 * bent) - bent).max() < 0.02
    assert np.abs(accuracy.fade_ahead(straight, 60, bent) - straight).max() < 0.02
    assert accuracy.fade_ahead(bent, 60, bent[:90]).shape == (120,)


def test_an_early_detection_is_worth_more_and_a_far_false_one_costs_all(
    accuracy: ModuleType,
) -> None:
    def alarm(*rows: int) -> np.ndarray:
        marked = np.zeros(300, dtype=bool)
        marked[list(rows)] = True
        return marked

    window = [(100, 150)]
    assert accuracy.nab_file_score(alarm(100, 149), window) == pytest.approx(1.0)
    assert 0 < accuracy.nab_file_score(alarm(149), window) < 0.2
    assert accuracy.nab_file_score(alarm(), window) == -1.0
    assert accuracy.nab_file_score(alarm(10), window) == pytest.approx(-1.11)
    assert accuracy.nab_file_score(alarm(100, 299), window) == pytest.approx(0.89, abs=0.01)


@pytest.mark.soak
def test_streaming_detection_reaches_sixty_on_the_shared_files(accuracy: ModuleType) -> None:
    assert accuracy.nab()[0] >= 60


@pytest.mark.soak
@pytest.mark.parametrize(("name", "limit"), [("FD001", 11.5), ("FD002", 11.5)])
def test_remaining_life_of_engines(accuracy: ModuleType, name: str, limit: float) -> None:
    found = accuracy.cmapss(name)
    assert found.rmse <= limit
    assert 0.85 <= found.coverage <= 0.95
