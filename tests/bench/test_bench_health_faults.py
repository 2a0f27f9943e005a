"""Asset health finds each fault of the demo, and nothing where there is none."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import pytest
from bench_rig import failed, must, write_app, write_scenario

from headrace.app.hooks import hooks_of
from headrace.bench.ground import Ground
from headrace.bench.program import load_module
from headrace.bench.scenario import MustAlarm, MustQuiet, Scenario
from headrace.bench.scenario_file import Read, read_scenario
from headrace.bench.subject import Subject, open_app, scenarios_of
from headrace.bench.trial import Trial, ground_of, run_trial
from headrace.sim.faults import KINDS

APP = Path(__file__).resolve().parents[2] / "apps" / "asset-health"
OF_SIGNALS = (
    "clock_step", "device_restart", "sensor_drift", "sensor_stuck", "slow_device", "tool_breakage",
)  # fmt: skip
WELL_SEEDS = (1, 2, 3, 4)


@cache
def app() -> Subject:
    return open_app(APP, APP)


def scenario(name: str, **changes: object) -> Read:
    read = read_scenario(APP / "scenarios" / f"{name}.toml")
    return read._replace(scenario=msgspec.structs.replace(read.scenario, **changes))


def trial_of(name: str, ground: Ground | None = None, **changes: object) -> Trial:
    return run_trial(scenario(name, **changes), app(), ground=ground)


def test_there_is_a_scenario_of_each_fault_that_the_demo_has() -> None:
    played: set[str] = set()
    for read in scenarios_of(APP, []):
        musts: Scenario = read.scenario
        if musts.must:
            played |= {fault.name for fault in musts.fault}
    assert played == set(KINDS)


def test_each_type_has_its_hook_on_signals() -> None:
    subject = app()
    hooks = hooks_of(load_module(APP, subject.manifest.python))
    watched = {hook.type for hook in hooks if hook.arrivals}
    assert watched == set(subject.manifest.types)
    assert {"watch_tools", "point_signals"} <= {hook.name for hook in hooks}


def test_a_restart_is_found() -> None:
    found = trial_of("device_restart")
    assert found.passed, (found.reason, failed(found))


@cache
def well_ground() -> Ground:
    """The works of these scenarios without a fault, for as long as the longest of them."""
    longest = max(
        (scenario(name) for name in OF_SIGNALS), key=lambda r: r.scenario.source.duration_s
    )
    return ground_of(scenario(longest.scenario.name, fault=[]))


@pytest.mark.soak
@pytest.mark.parametrize("name", OF_SIGNALS)
def test_a_fault_is_found_and_without_it_no_alarm_comes(name: str) -> None:
    found = trial_of(name)
    assert found.passed, (found.reason, failed(found))
    asked = [each for each in scenario(name).scenario.must if isinstance(each, MustAlarm)]
    missed = trial_of(name, well_ground(), fault=[], must=[*asked, MustQuiet()])
    assert len(failed(missed)) == len(asked) > 0, failed(missed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", WELL_SEEDS)
def test_no_alarm_comes_where_nothing_is_wrong(seed: int) -> None:
    source = scenario("signals_well").scenario.source
    source = msgspec.structs.replace(source, seed=seed, duration_s=3600.0)
    trial = trial_of("signals_well", source=source)
    assert trial.passed, (trial.reason, failed(trial))


PYTHON = """
import polars as pl
from headrace import app


@app.on_window("pump", length="10 s", every="10 s")
def watch(window):
    last = window.frame.group_by("asset", maintain_order=True).last()
    low = pl.when(pl.col("head") < 15).then(pl.lit("low")).otherwise(pl.lit("ok"))
    return last.select("asset", "time", verdict=low)
"""


def test_alarms_may_read_what_the_python_of_their_app_gives(tmp_path: Path) -> None:
    folder = write_app(
        tmp_path / "tried",
        PYTHON,
        formulas='alarm low: verdict = "low", off when verdict != "low", message "low"',
    )
    toml = folder / "app.toml"
    told = toml.read_text().replace('"mean_flow"\nunit = "m3/h"', '"verdict"\nunit = "text"')
    toml.write_text(told)
    asked = must("alarm", asset="hall/p1", alarm="low", from_s=60, within_s=15)
    crash = '\n[[hostile]]\nkind = "crash"\nat_s = 75\ndelay_s = 5\n'
    path = write_scenario(tmp_path / "scenarios", asked, crash)
    trial = run_trial(read_scenario(path), open_app(folder, folder))
    assert trial.passed, (trial.reason, failed(trial))
    (episode,) = [bar for bar in trial.bars if bar.kind == "alarm"]
    assert episode.start_s == 69.0 and 90.0 < episode.end_s < 102.0
