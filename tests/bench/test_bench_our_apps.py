"""The apps of this repository find what their scenarios have, on the demo's site."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_rig import failed

from headrace.bench.subject import open_app, scenarios_of
from headrace.bench.trial import run_trial

OURS = Path(__file__).resolve().parents[2] / "apps"


def hold(name: str, only: str = "") -> None:
    app = open_app(OURS / name, OURS / name)
    for read in scenarios_of(app.folder, []):
        if only in ("", read.scenario.name):
            trial = run_trial(read, app)
            assert trial.passed, (read.scenario.name, trial.reason, failed(trial))


def test_pump_efficiency_which_has_no_python_finds_a_cavitating_pump() -> None:
    hold("pump-efficiency")


@pytest.mark.soak
@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (OURS / "asset-health" / "scenarios").glob("*.toml"))
)
def test_asset_health_finds_what_its_scenarios_have(name: str) -> None:
    hold("asset-health", name)
