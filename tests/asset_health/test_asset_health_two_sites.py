"""The same package on two sites that share no name and no unit: bound by proposal, equal results."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from headrace.apps.asset_types.catalog import known_types
from headrace.apps.asset_types.proposal import propose
from headrace.apps.package.package import pack
from headrace.apps.runtime.effects import Record
from headrace.apps.runtime.executor import Executor
from headrace.apps.runtime.loading import load_module
from headrace.cli.app_bind import installed_manifest, write_binding
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.sim.demo import TAG_FILE, site_text, tags_csv
from headrace.sim.demo_devices import demo_devices
from headrace.sim.plant.plant import Plant
from headrace.site.app_assets import deployments
from headrace.site.edit import SiteEdit
from headrace.site.file import load_site

APP = Path(__file__).resolve().parents[2] / "apps" / "asset-health"
S = 1_000_000
T0 = 1_700_000_040 * S
STEP_S, MINUTES, WORN_FROM = 5, 22, 16
WERK = """\
[site]
enterprise = "stadtwerke"
name = "wasserwerk"

[asset_type.kreiselpumpe]
quantities = { saugdruck = "mbar", enddruck = "mbar", leistung = "W", f17 = "l/s", drehzahl = "1/s", \
schwingung_as = "m/s", schwingung_bs = "m/s", lagertemperatur_as = "degF", lagertemperatur_bs = "degF", \
wicklungstemperatur = "K" }

[asset."halle/nord/p7"]
type = "kreiselpumpe"

[asset."halle/nord/p8"]
type = "kreiselpumpe"

[connection.sps]
protocol = "modbus"
endpoint = "127.0.0.1:1502"
"""
NAMES = {  # the demo's -> the German site's, its unit, factor and offset of the demo's number
    "active_power": ("leistung", "W", 1000.0, 0.0),
    "flow": ("f17", "l/s", 1 / 3.6, 0.0),
    "speed": ("drehzahl", "1/s", 1 / 60, 0.0),
    "suction_pressure": ("saugdruck", "mbar", 1000.0, 0.0),
    "discharge_pressure": ("enddruck", "mbar", 1000.0, 0.0),
    "vibration_drive_end": ("schwingung_as", "m/s", 1e-3, 0.0),
    "vibration_other_end": ("schwingung_bs", "m/s", 1e-3, 0.0),
    "bearing_temperature_drive_end": ("lagertemperatur_as", "degF", 1.8, 32.0),
    "bearing_temperature_other_end": ("lagertemperatur_bs", "degF", 1.8, 32.0),
    "motor_temperature": ("wicklungstemperatur", "K", 1.0, 273.15),
}
DEMO_PUMPS = ("utilities/pumping/pump_1", "utilities/pumping/pump_2")
WERK_PUMPS = ("halle/nord/p7", "halle/nord/p8")


class Run(NamedTuple):
    """What came out on one site: package bytes, samples by (pump, output), records by pump."""

    package: bytes
    outputs: dict[tuple[int, str], list[float | str]]
    records: list[tuple[int, Record]]
    questions: tuple[str, ...]


@cache
def readings() -> np.ndarray:
    """(pumps, quantities as NAMES, rows) in the demo's units; a bearing of the second one wears."""
    rng = np.random.default_rng(8)
    rows = MINUTES * 60 // STEP_S
    found = np.zeros((2, len(NAMES), rows))
    for pump in range(2):
        load = np.sin(np.arange(rows) / 40) + rng.normal(0, 0.2, rows)
        worn = (np.arange(rows) >= WORN_FROM * 60 // STEP_S) * float(pump)
        levels = (15.0, 60.0, 2900.0, 0.8, 4.0, 2.0, 1.8, 55.0, 50.0, 70.0)
        follows = (0.9, 4.0, 20.0, -0.02, 0.1, 0.1, 0.1, 0.5, 0.5, 1.0)
        for place, (level, follow) in enumerate(zip(levels, follows, strict=True)):
            noise = rng.normal(0, 0.1 * abs(follow), rows)
            found[pump, place] = level + follow * load + noise
        found[pump, 5] += 2.0 * worn
        found[pump, 7] += 6.0 * worn
    return found


def demo_files() -> dict[str, str]:
    plant = Plant(1)
    devices = demo_devices(plant)
    ports = {each.name: 1024 + n for n, each in enumerate(devices)}
    return {"site.toml": site_text(plant, devices, ports), TAG_FILE: tags_csv(devices)}


def werk_files() -> dict[str, str]:
    tags = [
        f'[[tag]]\npath = "{path}/{name}"\nconnection = "sps"\naddress = "holding:{n}:float32"\n'
        f'unit = "{unit}"\n'
        for n, (path, (name, unit, _, _)) in enumerate(
            (path, each) for path in WERK_PUMPS for each in NAMES.values()
        )
    ]
    return {"site.toml": WERK + "".join(tags)}


def run(
    files: dict[str, str], answers: dict[str, str], tags: list[list[str]], values: np.ndarray
) -> Run:
    """Install, bind as proposed and answered, feed, and see what the app's own process would give."""
    with TemporaryDirectory() as place:
        folder = DataFolder(Path(place))
        for name, content in files.items():
            (folder.root / name).write_text(content, encoding="utf-8")
        package = pack(APP, None)
        folder.packages.mkdir()
        (folder.packages / "asset-health-1.0.0.hrapp").write_bytes(package)
        manifest = installed_manifest(folder, "asset-health")
        edit = SiteEdit(folder)
        asked = propose(edit.check(), manifest, known_types(folder.packages)).questions
        answered = propose(edit.check(), manifest, known_types(folder.packages), answers)
        assert not answered.questions
        edit.set_app("asset-health", version="1.0.0", settings={"learning_minutes": 12})
        write_binding(edit, answered)
        edit.save()
        model = load_site(folder.site_file)
    paths = dict.fromkeys(tag.path for tag in (*model.tags, *model.derived))
    ids = {path: n for n, path in enumerate(paths, 1)}
    deployment = deployments(model, ids)[manifest.word]
    executor = Executor(manifest, load_module(APP, manifest), deployment, start_us=T0)
    at_us = T0 + np.arange(values.shape[2]) * STEP_S * S
    for names, rows in zip(tags, values, strict=True):
        for name, row in zip(names, rows, strict=True):
            executor.feed(
                make_batch(np.full(len(at_us), ids[name]), at_us, row, received_timestamp_us=at_us)
            )
    done = executor.advance(int(at_us[-1]) + 3 * S)
    assert not done.problems
    pumps = [name.rpartition("/")[0] for names in tags for name in names[:1]]
    outputs: dict[tuple[int, str], list[float | str]] = {}
    for asset in deployment.assets:
        for output, tag_id in asset.outputs.items() if asset.path in pumps else ():
            own = done.samples.filter(pl.col("tag_id") == tag_id)
            column = "text" if own["text"].drop_nulls().len() else "value"
            outputs[pumps.index(asset.path), output] = own[column].to_list()
    records = [(pumps.index(str(each.body["asset"])), each) for each in done.records]
    return Run(package, outputs, records, asked)


@cache
def demo() -> Run:
    tags = [[f"{pump}/{name}" for name in NAMES] for pump in DEMO_PUMPS]
    return run(demo_files(), {}, tags, readings())


@cache
def werk() -> Run:
    tags = [[f"{pump}/{name}" for name, *_ in NAMES.values()] for pump in WERK_PUMPS]
    factors = np.array([each[2] for each in NAMES.values()])[:, None]
    offsets = np.array([each[3] for each in NAMES.values()])[:, None]
    answers = {"pump": "kreiselpumpe", "pump.flow": "f17"}
    return run(werk_files(), answers, tags, readings() * factors + offsets)


def test_the_package_is_the_same_and_only_one_site_has_to_be_asked() -> None:
    assert demo().package == werk().package
    assert demo().questions == ()
    assert any("pump.flow" in each for each in werk().questions) or werk().questions == ()


@pytest.mark.parametrize("output", ["anomaly_score", "health_index", "state", "cause"])
@pytest.mark.parametrize("pump", [0, 1])
def test_results_are_equal_where_data_are(pump: int, output: str) -> None:
    here, there = demo().outputs[pump, output], werk().outputs[pump, output]
    assert len(here) == len(there) > 0
    if output in ("state", "cause"):
        assert here == there
    else:
        assert there == pytest.approx(here, rel=1e-6, abs=1e-6)


def test_the_worn_pump_and_no_other_is_told_of_on_both_with_the_same_evidence() -> None:
    told = [
        [
            (pump, each.kind, each.body["reason"], each.body["priority"])
            for pump, each in run.records
        ]
        for run in (demo(), werk())
    ]
    assert told[0] == told[1]
    ((pump, kind, reason, _),) = (each for each in told[0] if each[3] == "high")
    assert (pump, kind) == (1, "work_request")
    assert "vibration_drive_end" in reason or "bearing_temperature_drive_end" in reason
