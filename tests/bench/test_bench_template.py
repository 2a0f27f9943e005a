"""The template with a model passes its scenario, finds the fault in it, and fails when it learns nothing."""

from __future__ import annotations

from pathlib import Path

from bench_rig import failed

from headrace.apps.package.beginning import begin_app
from headrace.bench.scenario_file import read_scenario
from headrace.bench.subject import open_app
from headrace.bench.trial import ground_of, run_trial


def test_the_template_learns_a_pump_and_finds_a_worn_bearing(tmp_path: Path) -> None:
    app = tmp_path / "my-power"
    begin_app(app, "model")
    read = read_scenario(app / "scenarios" / "wear.toml")
    ground = ground_of(read)
    trial = run_trial(read, open_app(app, app), ground=ground)
    assert trial.passed, (trial.reason, failed(trial))
    assert any("trained on second 0 to 300" in note for note in trial.notes)
    module = app / "my_power.py"
    text = module.read_text()
    assert "coefficients, error_kw = fit(history)" in text
    module.write_text(
        text.replace(
            "fit(history)\n    weights", "fit(history)\n    coefficients *= 0\n    weights"
        )
    )
    trial = run_trial(read, open_app(app, app), ground=ground)
    assert not trial.passed and len(failed(trial)) >= 2
