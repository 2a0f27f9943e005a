"""The app ``pump-efficiency`` on two sites that have nothing in common but pumps, and what NumPy says."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pytest

from headrace.apps.package.package import check_folder, pack
from headrace.formula.binding import bind
from headrace.formula.cases import run_cases
from headrace.formula.stream import Stream
from headrace.model.knowledge import AppsConfig
from headrace.model.sample import make_batch
from headrace.sim.demo import TAG_FILE, site_text, tags_csv
from headrace.sim.demo_devices import demo_devices
from headrace.sim.faults import Faults
from headrace.sim.plant.plant import Plant
from headrace.site.file import load_site
from headrace.site.knowledge import apps_config

FOLDER = Path(__file__).parents[2] / "apps" / "pump-efficiency"
SECOND, START_US = 1_000_000, 1_780_000_000 * 1_000_000
SECONDS, FAULT_S = 480, 300
PUMPS = ("utilities/pumping/pump_1", "utilities/pumping/pump_2")
DEMO_BIND = """
[app.pump-efficiency]
version = "1.0.0"
[app.pump-efficiency.bind.pump]
type = "pump"
quantities = { power = "active_power" }
"""
WERK = """\
[site]
enterprise = "stadtwerke"
name = "wasserwerk"

[asset_type.kreiselpumpe]
package = "pump"
quantities = { durchfluss = "l/s", saugdruck = "bar", enddruck = "bar", leistung = "W" }
attributes = { nenn_durchfluss = "l/s", nenn_foerderhoehe = "m" }

[asset."halle/nord/p7"]
type = "kreiselpumpe"
attributes = { nenn_durchfluss = 7.172222222222222, nenn_foerderhoehe = 20 }

[asset."halle/nord/p8"]
type = "kreiselpumpe"
attributes = { nenn_durchfluss = 7.172222222222222, nenn_foerderhoehe = 20 }

[connection.sps]
protocol = "modbus"
endpoint = "127.0.0.1:1502"

[app.pump-efficiency]
version = "1.0.0"
[app.pump-efficiency.bind.pump]
type = "kreiselpumpe"
quantities.flow = "durchfluss"
quantities.suction_pressure = "saugdruck"
quantities.discharge_pressure = "enddruck"
quantities.power = "leistung"
attributes = { rated_flow = "nenn_durchfluss", rated_head = "nenn_foerderhoehe" }
"""
WERK_TAGS = {"durchfluss": "l/s", "saugdruck": "bar", "enddruck": "bar", "leistung": "W"}
SOURCES = ("flow", "suction_pressure", "discharge_pressure", "active_power")
TO_WERK = (1 / 3.6, 1.0, 1.0, 1000.0)


class Run(NamedTuple):
    """What the app gave on one site: (asset, name) -> times in s and values."""

    results: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]
    config: AppsConfig


@cache
def readings() -> np.ndarray:
    """Of the demo's two pumps, shape (pumps, quantities, seconds); pump_2 cavitates from 300 s on."""
    plant = Plant(1)
    faults = Faults(plant, {})
    found = np.zeros((len(PUMPS), len(SOURCES), SECONDS))
    for second in range(SECONDS):
        if second == FAULT_S:
            faults.start("cavitation", "pump_2", {})
        faults.before_step(1.0)
        values = faults.after_step(plant.step(1.0, START_US + second * SECOND))
        found[:, :, second] = [[values[f"{p}/{q}"] for q in SOURCES] for p in PUMPS]
    return found


def run(site: str, files: dict[str, bytes], paths: list[list[str]], values: np.ndarray) -> Run:
    """The app's formulas, live on samples, as the apps role evaluates them."""
    with TemporaryDirectory() as folder:
        for name, content in {**files, "site.toml": site.encode()}.items():
            Path(folder, name).write_bytes(content)
        Path(folder, "packages").mkdir()
        package = Path(folder, "packages", "pump-efficiency-1.0.0.hrapp")
        package.write_bytes(pack(FOLDER, None))
        model = load_site(Path(folder, "site.toml"))
    every = dict.fromkeys(tag.path for tag in (*model.tags, *model.derived))
    ids = {path: n for n, path in enumerate(every, 1)}
    config = apps_config(model, ids, {})
    bounds = [each for each in bind(config).bound if each.key.startswith("pump_efficiency.")]
    stream = Stream(bounds, config.calendar)
    at_us = START_US + np.arange(SECONDS) * SECOND
    for names, rows in zip(paths, values, strict=True):
        for name, column in zip(names, rows, strict=True):
            stream.put(
                make_batch(np.full(SECONDS, ids[name]), at_us, column, received_timestamp_us=1)
            )
    results = {}
    for bound, rows in stream.advance(int(at_us[-1]) + 1).results:
        for number, asset in enumerate(bound.assets):
            own = rows.filter(rows["asset"] == number)
            name = bound.key.rpartition(".")[2]
            second = (own["at_us"].to_numpy() - START_US) / SECOND
            results[asset, name] = second, own["value"].to_numpy()
    return Run(results, config)


@cache
def demo() -> Run:
    plant = Plant(1)
    devices = demo_devices(plant)
    text = site_text(plant, devices, {each.name: 1024 + n for n, each in enumerate(devices)})
    paths = [[f"{pump}/{name}" for name in SOURCES] for pump in PUMPS]
    return run(text + DEMO_BIND, {TAG_FILE: tags_csv(devices).encode()}, paths, readings())


@cache
def werk() -> Run:
    paths = [[f"halle/nord/{pump}/{name}" for name in WERK_TAGS] for pump in ("p7", "p8")]
    tags = "".join(
        f'[[tag]]\npath = "{path}"\nconnection = "sps"\naddress = "holding:{n}:float32"\nunit = "{unit}"\n'
        for n, (path, unit) in enumerate(
            (path, WERK_TAGS[path.rpartition("/")[2]]) for each in paths for path in each
        )
    )
    return run(WERK + tags, {}, paths, readings() * np.array(TO_WERK)[:, None])


def expected(pump: int) -> dict[str, np.ndarray]:
    """The same by hand, second by second."""
    flow, suction, discharge, power = readings()[pump]
    weight = 998 * 9.80665
    lift = (discharge - suction) * 1e5 / weight
    hydraulic = flow / 3600 * (discharge - suction) * 1e5 / 1000
    duty = flow / 25.82 / np.sqrt(lift / 20.0)
    curve = np.maximum(66 * (1 - (duty - 1) ** 2), 10)
    efficiency = hydraulic / power * 100
    loss = curve - efficiency
    available = (suction * 100 + 101.3 - 2.3) * 1000 / weight
    return {
        "lift": lift,
        "hydraulic_power": hydraulic,
        "efficiency": efficiency,
        "specific_energy": power / flow,
        "duty": duty,
        "reference_efficiency": curve,
        "efficiency_loss": loss,
        "lost_power": np.where(loss > 0, power * loss / curve, 0),
        "suction_head": available,
        "cavitation_margin": available - 1.8 - 2.7 * (flow / 25.82) ** 2,
    }


def at_seconds(found: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Results on the grid of the readings: each holds until the next one."""
    second, value = found
    order = np.argsort(second, kind="stable")
    place = np.searchsorted(second[order], np.arange(SECONDS), side="right") - 1
    assert place.min() >= 0
    return value[order][place]


@pytest.mark.parametrize(
    ("site", "assets"), [("demo", PUMPS), ("werk", ("halle/nord/p7", "halle/nord/p8"))]
)
def test_results_are_those_of_plain_numpy(site: str, assets: tuple[str, str]) -> None:
    made = demo() if site == "demo" else werk()
    for number, asset in enumerate(assets):
        for name, wanted in expected(number).items():
            got = at_seconds(made.results[asset, name])
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9, err_msg=f"{asset} {name}")


@pytest.mark.parametrize(
    ("site", "good", "bad"),
    [("demo", PUMPS[0], PUMPS[1]), ("werk", "halle/nord/p7", "halle/nord/p8")],
)
def test_the_pump_that_cavitates_is_found_and_no_other(site: str, good: str, bad: str) -> None:
    made = demo() if site == "demo" else werk()
    second, holds = made.results[bad, "cavitation_near"]
    first = second[holds == 1.0].min()
    assert FAULT_S + 10 <= first <= FAULT_S + 30
    for name in ("cavitation_near", "efficiency_low"):
        assert not (made.results[good, name][1] == 1.0).any(), name


def test_the_other_site_names_and_measures_everything_differently() -> None:
    one = next(each for each in demo().config.assets if each.type == "pump_efficiency.pump")
    other = next(each for each in werk().config.assets if each.type == "pump_efficiency.pump")
    assert one.conversions.keys() == {"suction_pressure", "discharge_pressure"}
    assert other.conversions.keys() == {*one.conversions, "flow", "power"}
    assert math.isclose(other.attributes["rated_flow"], 25.82)


def test_the_package_is_right_and_has_both_languages() -> None:
    assert check_folder(FOLDER) == []
    made = demo().config
    assert all(
        f"{word} " in each.text
        for each in made.formulas
        if each.asset_type == "pump_efficiency.pump" and each.kind == "alarm"
        for word in ("priority", "message", "cause", "consequence", "action", "response", "zh")
    )


@pytest.mark.parametrize("case", sorted((FOLDER / "tests").glob("*.formula")), ids=lambda p: p.stem)
def test_its_cases(case: Path) -> None:
    count, failures = run_cases(case.read_text(encoding="utf-8"))
    assert count and not failures, failures
