"""An app that is broken is refused, and each time it is said how."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_rig import GOOD, failed, must, tried, write_app, write_scenario

from headrace.apps.package.manifest import PackageProblems
from headrace.bench.bench import bench_app
from headrace.bench.runner import Runner
from headrace.bench.scenario_file import read_scenario
from headrace.bench.subject import open_app

ALARM = must("alarm", asset="hall/p1", alarm="low", from_s=60, within_s=5)
MEAN = must("value", asset="hall/p1", name="mean_flow", minimum=20, maximum=26, samples=10)


def replaced(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_the_whole_app_passes(tmp_path: Path) -> None:
    trial = tried(write_app(tmp_path / "app"), write_scenario(tmp_path / "s", ALARM + MEAN))
    assert trial.outcome == "passed", (trial.reason, failed(trial))
    assert trial.calls == 13, "twelve windows in the recording, one in the ten seconds after it"


def test_a_unit_that_is_not_the_plants(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", quantities='flow = "m3/h", head = "Cel"', formulas="")
    trial = tried(app, write_scenario(tmp_path / "s", MEAN))
    assert trial.outcome == "error"
    assert trial.reason.startswith("APPS-2411")
    assert trial.reason.endswith("hall/p1/head is in m, and head cannot be: Cel")


def test_a_formula_whose_units_do_not_fit(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", formulas="alarm low: head < 15 Cel")
    with pytest.raises(PackageProblems, match="Cel"):
        tried(app, write_scenario(tmp_path / "s", ALARM))


def test_an_asset_that_has_not_what_is_needed(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", quantities='flow = "m3/h", head = "m", speed = "1/min"')
    trial = tried(app, write_scenario(tmp_path / "s", MEAN))
    assert trial.outcome == "error"
    assert trial.reason.startswith("APPS-2410")
    assert "nothing of pump is bound to speed" in trial.reason


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (replaced("mean = ", "mean = 1 / 0 if window.end_us else "), "ZeroDivisionError"),
        (replaced('"mean_flow")', '"another")'), "gave another, which the manifest does not name"),
        (replaced("return mean.drop_nulls()", "return 7"), "gave int, not a frame"),
        (
            replaced("return mean", 'return mean.with_columns(asset=pl.lit("hall/p9"))'),
            "hall/p9, which it is not bound to",
        ),
        (
            replaced("return mean", "window.write('hall/p1', 'head', 3.0); return mean"),
            "may not write head of hall/p1",
        ),
    ],
)
def test_a_hook_that_does_wrong(tmp_path: Path, module: str, said: str) -> None:
    trial = tried(write_app(tmp_path / "app", module), write_scenario(tmp_path / "s", ALARM))
    assert trial.outcome == "failed"
    assert any(said in each for each in failed(trial)), failed(trial)


def test_python_that_cannot_be_imported(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", "import no_such_library\n")
    trial = tried(app, write_scenario(tmp_path / "s", ALARM))
    assert trial.reason.startswith("APPS-2422") and "no_such_library" in trial.reason


def test_an_alarm_that_never_comes(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", formulas="alarm low: head < 5 m, priority high")
    trial = tried(app, write_scenario(tmp_path / "s", ALARM))
    assert failed(trial) == ["alarm hall/p1/low within 5 s from second 60: no such alarm"]


def test_an_alarm_that_comes_too_late_or_unasked(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app", formulas="alarm low: head < 15 m for 20 s, priority high")
    quiet = must("quiet", asset="hall/*")
    trial = tried(app, write_scenario(tmp_path / "s", ALARM + quiet))
    assert failed(trial) == [
        "alarm hall/p1/low within 5 s from second 60: not in this time: hall/p1/low at 80 s",
        "no alarm hall/*/* from second 0 on: hall/p1/low at 80 s",
    ]


def test_values_out_of_their_bounds(tmp_path: Path) -> None:
    wrong = must("value", asset="hall/p1", name="mean_flow", maximum=5)
    lost = must("value", asset="hall/p1", name="no_such", maximum=5)
    few = must("value", asset="hall/p1", name="mean_flow", maximum=50, samples=1_000)
    trial = tried(write_app(tmp_path / "app"), write_scenario(tmp_path / "s", wrong + lost + few))
    seen = failed(trial)
    assert len(seen) == 3
    assert "12 samples, 22.4 to 23.6, 0.0% as asked" in seen[0]
    assert seen[1].endswith("there are mean_flow")
    assert seen[2].endswith("12 samples; at least 1000 wanted")


def test_computing_beyond_the_budget(tmp_path: Path) -> None:
    busy = "from time import process_time as t; end = t() + 0.12\n    while t() < end: pass\n    return mean"
    app = write_app(tmp_path / "app", replaced("return mean", busy), cpu=1)
    trial = tried(app, write_scenario(tmp_path / "s", MEAN))
    assert failed(trial) == ["budget: computing <= 1 % of a core: not kept"]


def test_state_outside_of_its_state_is_found_by_a_crash(tmp_path: Path) -> None:
    counts = replaced("def watch(window):", "def watch(window):\n    seen.append(1)").replace(
        "return mean", "mean = mean.with_columns(mean_flow=pl.lit(1.0 * len(seen))); return mean"
    )
    module = counts.replace("from headrace import app", "from headrace import app\nseen = []")
    module = module.replace('every="10 s"', 'every="7 s"')
    crash = '\n[[hostile]]\nkind = "crash"\nat_s = 61\ndelay_s = 4\n'
    scenario = write_scenario(tmp_path / "s", MEAN.replace("minimum = 20", "minimum = 0") + crash)
    trial = tried(write_app(tmp_path / "app", module), scenario)
    assert trial.restarts == 1
    assert "APPS-2423 the output hall/p1/mean_flow is another one" in failed(trial)[0]
    whole = tried(write_app(tmp_path / "whole", name="whole"), scenario)
    assert whole.outcome == "passed", failed(whole)


def test_a_hook_that_never_ends_and_one_that_connects(tmp_path: Path) -> None:
    """In worker processes, with what they cost bounded."""
    scenario = read_scenario(write_scenario(tmp_path / "s", ALARM))
    hangs = "while window.end_us: pass"
    app = write_app(tmp_path / "app", replaced("    mean = ", f"    {hangs}\n    mean = "))
    report = bench_app(open_app(app, app), [scenario], Runner(limit_s=4))
    assert report.trials[0].reason == "APPS-2420 the scenario was not done within 4 s"
    calls = "import socket; socket.create_connection(('127.0.0.1', 9))"
    app = write_app(tmp_path / "two", replaced("    mean = ", f"    {calls}\n    mean = "))
    report = bench_app(open_app(app, app), [scenario], Runner())
    assert "APPS-2425" in failed(report.trials[0])[0]
    assert not report.passed
