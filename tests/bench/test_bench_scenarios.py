"""Scenario files: what they may say, and what is told of a wrong one."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from bench_rig import SCENARIO, failed, must, write_scenario

from headrace.bench.scenario_file import (
    file_of,
    read_scenario,
    read_scenarios,
    read_shared,
    shared_names,
)
from headrace.bench.trial import run_trial
from headrace.model.errors import HeadraceError, Misconfigured
from headrace.sim.faults import KINDS


def wrong(tmp_path: Path, text: str) -> HeadraceError:
    path = tmp_path / "one.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(Misconfigured) as caught:
        read_scenario(path)
    return caught.value


def test_each_fault_of_the_demo_has_a_scenario() -> None:
    shared = [read_shared(name).scenario for name in shared_names()]
    assert {fault.name for each in shared for fault in each.fault} == set(KINDS)
    assert {hostile.kind for each in shared for hostile in each.hostile} >= {"late", "crash"}
    assert all(each.must and each.title for each in shared)


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("name = ", "APPS-2402", "one.toml: it is no TOML"),
        ('name = "x"\nnonsense = 1', "APPS-2403", "nonsense"),
        ('name = "x"\n[[must]]\nkind = "wish"', "APPS-2403", "wish"),
        ('name = "x"\n[[hostile]]\nkind = "rain"', "APPS-2403", "rain"),
        ('name = "x"', "APPS-2404", "duration_s is 0"),
        (
            'name = "x"\n[source]\nduration_s = 9\n[[hostile]]\nkind = "bad"\nshare = 2',
            "APPS-2404",
            "2",
        ),
        ('name = "x"\nextends = "demo/nothing"', "APPS-2401", "demo/nothing"),
        ('name = "x"\nextends = "one.toml"', "APPS-2404", "extends more than"),
        ('name = "x"\n[source]\nkind = "recording"', "APPS-2404", "source.file"),
        (SCENARIO + must("find", asset="hall/p1"), "APPS-2404", "either alarm or name"),
        (SCENARIO + must("value", asset="hall/p1", name="x"), "APPS-2404", "neither"),
    ],
)
def test_a_wrong_scenario_says_where_it_is_wrong(
    tmp_path: Path, text: str, code: str, said: str
) -> None:
    error = wrong(tmp_path, text)
    assert error.code == code
    assert said in str(error)


def test_a_scenario_takes_what_it_extends_but_not_what_must_happen(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nextends = "demo/cavitation"\nturn_s = 2\n', "utf-8")
    scenario, base = read_scenario(path).scenario, read_shared("demo/cavitation").scenario
    assert scenario.fault == base.fault and scenario.source == base.source
    assert (scenario.name, scenario.turn_s, scenario.must) == ("mine", 2.0, [])


def test_two_scenarios_of_one_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        text = 'name = "same"\n[source]\nduration_s = 5\n'
        (tmp_path / f"{name}.toml").write_text(text, "utf-8")
    with pytest.raises(Misconfigured, match="two scenarios"):
        read_scenarios(tmp_path)


def test_a_fault_that_cannot_be_is_an_error_of_the_trial(tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    fault = '[[fault]]\nname = "cavitation"\ntarget = "cnc_1"\nat_s = 2\n'
    path.write_text(f'name = "x"\n[source]\nduration_s = 5\n{fault}', "utf-8")
    trial = run_trial(read_scenario(path))
    assert (trial.outcome, trial.reason[:8]) == ("error", "SIM-1011")


def test_a_recording_that_is_away_is_skipped_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    path = write_scenario(tmp_path)
    (tmp_path / "pump.csv").rename(tmp_path / "gone.csv")
    trial = run_trial(read_scenario(path))
    assert (trial.outcome, trial.reason[:9]) == ("skipped", "APPS-2405")
    (tmp_path / "gone.csv").rename(tmp_path / "pump.csv")
    text = path.read_text("utf-8")
    path.write_text(text.replace('"pump.csv"', '"pump.csv"\nsha256 = "0"'), "utf-8")
    with pytest.raises(Misconfigured, match="another than scenario"):
        file_of(read_scenario(path), "")
    path.write_text(text.replace('column = "head"', 'column = "heed"'), "utf-8")
    trial = run_trial(read_scenario(path))
    assert trial.outcome == "error" and "no column 'heed'" in trial.reason
    (tmp_path / "pump.csv").write_bytes(gzip.compress(b"x")[:9])
    assert run_trial(read_scenario(write_damaged(path))).reason.startswith("SIM-1108")


def write_damaged(path: Path) -> Path:
    path.write_text(path.read_text("utf-8").replace("heed", "head"), "utf-8")
    return path


def test_what_is_labelled_is_found_or_not(tmp_path: Path) -> None:
    """The site's own alarm against the labels of a recording: sums done by hand."""
    path = write_scenario(tmp_path)
    finds = must("find", asset="hall/p1", name="lift", threshold=15, recall=1, precision=0.9)
    path.write_text(path.read_text("utf-8") + finds, "utf-8")
    trial = run_trial(read_scenario(path))
    assert failed(trial)[0].endswith(
        "recall 0.000, precision 0.000, F1 0.000, false 0.000, 0 of 1 labelled times"
    )
