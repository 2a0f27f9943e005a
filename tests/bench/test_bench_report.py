"""The whole bench: same inputs, same report to the byte; the certificate; the command."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from bench_rig import APPS, must, write_app, write_scenario
from typer.testing import CliRunner

from headrace.apps.package.package import certificate_of as packed_certificate
from headrace.apps.package.package import pack, read_package
from headrace.bench.bench import bench_app, write_report
from headrace.bench.certificate import certificate_of
from headrace.bench.report import Report, html_of, json_of, junit_of
from headrace.bench.runner import Runner
from headrace.bench.scenario_file import Read, read_scenario, read_shared, shared_names
from headrace.bench.subject import open_app, scenarios_of
from headrace.bench.trial import Trial, run_trial
from headrace.cli.app import build
from headrace.model.bench_certificate import Certificate

WATCH = APPS / "well_watch"


def report_of(trial: Trial) -> Report:
    return Report(subject="app", id="well-watch", version="1.0.0", platform="0", trials=[trial])


def test_same_inputs_give_the_same_report_to_the_byte_and_another_seed_does_not() -> None:
    subject = open_app(WATCH, WATCH)
    read = scenarios_of(WATCH, [])[0]
    trials = [run_trial(read, subject) for _ in range(2)]
    assert trials[0].passed, [each for each in trials[0].verdicts if not each.passed]
    one, two = ((json_of(r), junit_of(r), html_of(r)) for r in map(report_of, trials))
    assert one == two
    source = msgspec.structs.replace(read.scenario.source, seed=7)
    other = Read(msgspec.structs.replace(read.scenario, source=source), read.folder)
    assert json_of(report_of(run_trial(other, subject))) != one[0]


def test_a_kill_and_hostile_times_change_no_result_of_the_app() -> None:
    """Late and doubled samples, and a crash, against a calm run of the same samples."""
    subject = open_app(WATCH, WATCH)
    read = scenarios_of(WATCH, [])[0]
    kinds = [
        [h for h in read.scenario.hostile if h.kind in kind] for kind in ((), ("doubled", "crash"))
    ]
    calm, rough = (
        run_trial(Read(msgspec.structs.replace(read.scenario, hostile=h), read.folder), subject)
        for h in kinds
    )
    assert rough.restarts == 1 and calm.restarts == 0
    assert rough.lines == calm.lines
    assert rough.bars == calm.bars


def test_the_report_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app")
    asked = must("alarm", asset="hall/p1", alarm="low", from_s=60, within_s=5)
    asked += must("find", asset="hall/p1", alarm="low", recall=0.95, precision=0.95, episodes=1)
    asked += must("value", asset="hall/p1", name="mean_flow", minimum=100)
    read = read_scenario(write_scenario(tmp_path / "s", asked))
    gone = read_scenario(write_scenario(tmp_path / "t"))
    (tmp_path / "t" / "pump.csv").unlink()
    gone = Read(
        msgspec.structs.replace(gone.scenario, name="gone", title="<gone> & lost"), gone.folder
    )
    report = bench_app(open_app(app, app), [read, gone], Runner())
    paths = write_report(report, tmp_path / "out")
    plain = json.loads(paths[0].read_text("utf-8"))
    assert [each["outcome"] for each in plain["trials"]] == ["failed", "skipped"]
    suites = ET.parse(paths[1]).getroot()
    assert suites.attrib["failures"] == "1"
    assert [s.attrib["skipped"] for s in suites] == ["0", "1"]
    page = paths[2].read_text("utf-8")
    assert "&lt;gone&gt; &amp; lost" in page and "<svg" in page
    assert not re.search(r'(src|href)="(?!#)|@import|https?://(?!www\.w3\.org/2000/svg)', page)
    found = next(v for v in report.trials[0].verdicts if v.kind == "find")
    assert found.passed and "1 of 1 labelled times" in found.seen
    assert not certificate_of(report).passed


def test_a_passing_app_gets_a_certificate_that_its_package_keeps(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app")
    write_scenario(app / "scenarios", must("value", asset="hall/p1", name="mean_flow", minimum=1))
    ran = CliRunner().invoke(build(("bench",)), ["bench", "app", str(app), "--jobs", "1"])
    assert ran.exit_code == 0, ran.output
    assert "1 passed" in ran.output
    kept = read_package(pack(app), None).certificate
    assert kept is not None and kept.passed and kept.rating == 1.0
    assert list(kept.scenarios) == ["recorded"]
    (app / "tried.py").write_text((app / "tried.py").read_text("utf-8") + "\n", "utf-8")
    assert read_package(pack(app), None).certificate is None, "it is of other content"
    assert packed_certificate({"certificate.json": msgspec.json.encode(Certificate(
        id="x", version="1.0.0", content_sha256="0", headrace="0"))}) is None  # fmt: skip


def test_what_is_asked_wrongly_is_told() -> None:
    runner, app = CliRunner(), build(("bench",))
    shown = runner.invoke(app, ["bench", "scenarios"])
    assert all(name in shown.output for name in shared_names())
    ran = runner.invoke(app, ["bench", "app", str(WATCH), "--only", "nothing"])
    assert "APPS-2401" in str(ran.exception)


def test_the_demos_own_alarms_find_a_cavitating_pump() -> None:
    read = read_shared("demo/cavitation")
    short = msgspec.structs.replace(read.scenario, turn_s=30.0)
    trial = run_trial(Read(short, read.folder))
    assert trial.passed, [each for each in trial.verdicts if not each.passed]


@pytest.mark.soak
@pytest.mark.parametrize("name", shared_names())
def test_each_scenario_of_the_demo_passes_with_the_demos_alarms(name: str) -> None:
    trial = run_trial(read_shared(name))
    assert trial.passed, (trial.reason, [each for each in trial.verdicts if not each.passed])
