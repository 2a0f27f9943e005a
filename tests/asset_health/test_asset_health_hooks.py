"""The app on the real executor: it learns, stays quiet, finds a fault, proposes once and keeps account."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from data import data_folder
from headrace.app.records import ValueEntry, WorkRequest
from headrace.apps.package.manifest import read_manifest
from headrace.apps.package.package import check_folder
from headrace.apps.runtime.effects import Effects, merged
from headrace.apps.runtime.executor import Executor
from headrace.apps.runtime.loading import load_module
from headrace.bench.scenario_file import read_scenario
from headrace.bench.subject import open_app
from headrace.bench.trial import run_trial
from headrace.model.app_manifest import AppManifest
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.sample import make_batch

APP = Path(__file__).resolve().parents[2] / "apps" / "asset-health"
S = 1_000_000
T0 = 1_700_000_040 * S
MINUTE = 60 * S
TAGS = {"power": 1, "flow": 2, "vibration_drive_end": 3}
_KINDS = {WorkRequest: "work_request", ValueEntry: "value"}
OUTPUTS = {"anomaly_score": 101, "health_index": 102, "cause": 103, "state": 104}


@pytest.fixture(scope="module")
def manifest() -> AppManifest:
    files = {str(f.relative_to(APP)) for f in APP.rglob("*") if f.is_file()}
    return read_manifest(
        (APP / "app.toml").read_bytes(), files, lambda name: (APP / name).read_bytes()
    )


def deployed(manifest: AppManifest, **settings: float | str) -> AppDeployment:
    asset = BoundAsset(
        path="north/p7",
        type="pump",
        title="Feed pump",
        title_zh="给水泵",
        tags=TAGS,
        units={"power": "W", "flow": "m3/h", "vibration_drive_end": "mm/s"},
        outputs=OUTPUTS,
    )
    told = {name: setting.default for name, setting in manifest.settings.items()}
    told |= {
        "learning_minutes": 20.0,
        "stop_hours": 8.0,
        "planned_hours": 1.0,
        "cost_per_hour": 500.0,
    }
    return AppDeployment(
        enterprise="acme",
        site="mill",
        manifest=manifest,
        package_sha256="0" * 64,
        assets=(asset,),
        settings=told | settings,
    )


def minutes(
    count: int, power: float, vibration: float, first: int, seed: int = 1
) -> list[np.ndarray]:
    """(power in W, flow, vibration) each five seconds of each minute."""
    rng = np.random.default_rng(seed + first)
    rows = []
    for _ in range(count):
        load = rng.normal(0, 1, 12)
        noise = rng.normal(0, 0.05, 12)
        rows.append(
            np.column_stack(
                [power + 300 * load, 60 + 2 * load + noise, vibration + 0.1 * rng.normal(0, 1, 12)]
            )
        )
    return rows


def play(executor: Executor, rows: list[np.ndarray], first: int) -> list[Effects]:
    """Feed minute by minute from minute ``first`` on."""
    done = []
    for number, part in enumerate(rows, first):
        at = T0 + number * MINUTE + np.arange(12) * 5 * S
        for place, tag in enumerate(TAGS.values()):
            executor.feed(
                make_batch(np.full(12, tag), at, part[:, place], received_timestamp_us=at)
            )
        done.append(executor.advance(T0 + (number + 1) * MINUTE + 3 * S))
    return done


def values(effects: Effects, output: str) -> list[object]:
    rows = effects.samples.filter(effects.samples["tag_id"] == OUTPUTS[output])
    return rows["text" if output in ("cause", "state") else "value"].to_list()


def made(effects: Effects, kind: type) -> list[object]:
    return [msgspec.convert(r.body, kind) for r in effects.records if r.kind == _KINDS[kind]]


def test_the_package_is_whole() -> None:
    assert check_folder(APP) == []


def test_a_fault_is_found_told_once_and_accounted_for_when_mended(manifest: AppManifest) -> None:
    module = load_module(APP, manifest)
    executor = Executor(manifest, module, deployed(manifest), start_us=T0)
    learning = merged(play(executor, minutes(20, 20_000, 2.0, 0), 0))
    assert set(values(learning, "state")) == {"learning what healthy is"}
    calm = merged(play(executor, minutes(30, 20_000, 2.0, 20), 20))
    assert not calm.problems and not made(calm, WorkRequest)
    assert np.mean(np.array(values(calm, "anomaly_score")) < 50) > 0.9
    worn = merged(play(executor, minutes(10, 20_000, 4.0, 50), 50))
    (request,) = made(worn, WorkRequest)
    assert request.asset == "north/p7" and "Feed pump" in request.title
    assert request.evidence["causes"][0]["quantity"] == "vibration_drive_end"
    assert request.evidence["causes"][0]["moved"] == pytest.approx(2.0, abs=0.8)
    assert values(worn, "cause")[-1].startswith("vibration_drive_end +")
    assert values(worn, "anomaly_score")[-1] > 70
    stop = [np.zeros((12, 3))] * 30
    merged(play(executor, stop, 60))
    mended = merged(play(executor, minutes(10, 20_000, 2.0, 90), 90))
    (entry,) = made(mended, ValueEntry)
    assert entry.hours == pytest.approx(7.0) and entry.money == pytest.approx(3500.0)
    assert "8 h" in entry.baseline and entry.evidence["stood_still_hours"] == pytest.approx(0.5)


def test_a_restart_in_the_middle_changes_no_output(manifest: AppManifest) -> None:
    module, told = load_module(APP, manifest), deployed(manifest, learning_minutes=10.0)
    rows = [*minutes(15, 20_000, 2.0, 0), *minutes(5, 20_000, 5.0, 15)]
    whole = Executor(manifest, module, told, start_us=T0)
    wanted = merged(play(whole, rows, 0))
    first = Executor(manifest, module, told, start_us=T0)
    before = merged(play(first, rows[:13], 0))
    second = Executor(manifest, module, told, first.save())
    after = merged(play(second, rows[13:], 13))
    for output in OUTPUTS:
        assert values(before, output) + values(after, output) == values(wanted, output)
    assert made(after, WorkRequest) == made(wanted, WorkRequest) != []


def test_an_overhaul_makes_it_learn_anew(manifest: AppManifest) -> None:
    module, told = load_module(APP, manifest), deployed(manifest, learning_minutes=10.0)
    executor = Executor(manifest, module, told, start_us=T0)
    play(executor, minutes(12, 20_000, 2.0, 0), 0)
    changed = deployed(manifest, learning_minutes=10.0, learn_after="2026-11-23")
    again = Executor(manifest, module, changed, executor.save())
    new = merged(play(again, minutes(14, 15_000, 1.0, 12), 12))
    assert values(new, "state").count("learning what healthy is") == 10
    assert not made(new, WorkRequest)


def test_work_is_proposed_in_chinese_where_that_is_set(manifest: AppManifest) -> None:
    module, told = (
        load_module(APP, manifest),
        deployed(manifest, learning_minutes=10.0, language="zh"),
    )
    executor = Executor(manifest, module, told, start_us=T0)
    rows = [*minutes(10, 20_000, 2.0, 0), *minutes(6, 20_000, 5.0, 10)]
    (request,) = made(merged(play(executor, rows, 0)), WorkRequest)
    assert "给水泵" in request.title and "限值" in request.reason


def test_without_a_declared_baseline_nothing_is_claimed(manifest: AppManifest) -> None:
    module, told = (
        load_module(APP, manifest),
        deployed(manifest, learning_minutes=10.0, stop_hours=0.0),
    )
    executor = Executor(manifest, module, told, start_us=T0)
    rows = [
        *minutes(10, 20_000, 2.0, 0),
        *minutes(6, 20_000, 5.0, 10),
        *([np.zeros((12, 3))] * 5),
        *minutes(6, 20_000, 2.0, 21),
    ]
    done = merged(play(executor, rows, 0))
    assert made(done, WorkRequest) and not made(done, ValueEntry)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_its_scenarios_pass_on_the_bench(tmp_path: Path) -> None:
    folder = tmp_path / "asset-health"
    shutil.copytree(APP, folder, ignore=shutil.ignore_patterns("__pycache__"))
    command = [
        sys.executable,
        "-m",
        "headrace",
        "app",
        "bench",
        str(folder),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    count = len(list((APP / "scenarios").glob("*.toml")))
    assert f"{count} passed" in done.stdout or f"{count - 1} passed" in done.stdout  # no recording


def test_an_engine_that_wears_out_is_told_of_on_a_real_recording(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADRACE_DATA", str(data_folder("cmapss").parent))
    app = open_app(APP, APP)
    trial = run_trial(read_scenario(APP / "scenarios" / "engine.toml"), app)
    assert trial.passed, [(each.asked, each.seen) for each in trial.verdicts if not each.passed]
