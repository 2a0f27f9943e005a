"""``headrace formula`` on a site file's own types, calendar and versions, over a committed table."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent.parent / "historian"))
from store import Store

from headrace.cli.app import build
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.time import US_PER_S, to_us
from headrace.site.file import load_site
from headrace.site.registry import Registry

SITE = """\
[site]
enterprise = "acme"
name = "mill"
time_zone = "Europe/Berlin"

[[calendar.shift]]
name = "night"
start = "22:00"
end = "06:00"

[asset_type.pump]
quantities = { power = "kW" }
attributes = { rated_power = "kW" }
relations = { twin = "pump" }
formulas = '''
load = power / rated_power -> %
both = power + twin.power -> kW
'''
off = ["both"]

[asset."hall/p1"]
type = "pump"
attributes = { rated_power = 200 }
relations = { twin = "hall/p2" }

[asset."hall/p2"]
type = "pump"

[connection.plc]
protocol = "modbus"
endpoint = "127.0.0.1:1502"
"""
# The night from 28 to 29 March 2026, in which Berlin's clocks go forward: from 21:00Z to 04:00Z.
NIGHT = ["--from", "2026-03-28T20:00:00Z", "--to", "2026-03-29T06:00:00Z"]


@pytest.fixture
def installation(folder: DataFolder) -> DataFolder:
    folder.root.mkdir(parents=True)
    tags = "".join(
        f'[[tag]]\npath = "hall/{pump}/power"\nconnection = "plc"\naddress = "holding:{n}"\n'
        for n, pump in enumerate(("p1", "p2"))
    )
    folder.site_file.write_text(SITE + tags, encoding="utf-8")
    registry = Registry.of(folder)
    registry.apply(load_site(folder.site_file), to_us(datetime(2026, 3, 1, tzinfo=UTC)))
    ids = registry.ids()
    registry.close()
    start_us = to_us(datetime(2026, 3, 28, 18, tzinfo=UTC))
    at_us = start_us + np.arange(0, 14 * 3_600, 600, dtype=np.int64) * US_PER_S
    for pump, power in (("p1", 100.0), ("p2", 50.0)):
        tag_id = np.full(len(at_us), ids[f"hall/{pump}/power"])
        Store(folder).commit(
            make_batch(
                tag_id, at_us, np.full(len(at_us), power), received_timestamp_us=at_us,
                status=np.zeros(len(at_us), np.uint32),
            )
        )  # fmt: skip
    return folder


def _run(folder: DataFolder, *arguments: str) -> Result:
    return CliRunner().invoke(build(), ["formula", *arguments, "--data", str(folder.root)])


def _rows(result: Result) -> list[tuple[str, str, float]]:
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return [(row["path"], row["timestamp"][:16], row["value"]) for row in rows]


@pytest.mark.parametrize("place", [["--type", "pump"], ["--asset", "hall/*"]])
def test_the_night_when_the_clocks_change_has_seven_hours(
    installation: DataFolder, place: list[str]
) -> None:
    text = "integral(power) per shift -> kWh"
    assert _rows(_run(installation, "eval", text, *place, *NIGHT, "--json")) == [
        ("hall/p1", "2026-03-29T04:00", pytest.approx(700)),
        ("hall/p2", "2026-03-29T04:00", pytest.approx(350)),
    ]


@pytest.mark.parametrize("place", [["--type", "pump"], ["--asset", "hall/p1"]])
def test_attributes_and_relations_are_those_of_each_asset(
    installation: DataFolder, place: list[str]
) -> None:
    text = "(power + twin.power) / rated_power -> %"
    result = _run(installation, "eval", text, *place, *NIGHT, "--json")
    rows = _rows(result)
    assert rows and {(path, round(value, 9)) for path, _, value in rows} == {("hall/p1", 75.0)}
    lacking = [line for line in result.stderr.splitlines() if line.startswith("not evaluated")]
    assert bool(lacking) == (place[0] == "--type")


def test_formulas_are_listed_with_where_they_are_evaluated(installation: DataFolder) -> None:
    result = _run(installation, "list", "--json")
    load, both = (json.loads(line) for line in result.stdout.splitlines())
    assert (load["version"], load["state"], load["unit"], load["assets"]) == (1, "live", "%", 1)
    assert load["missing"] == [["hall/p2", "rated_power"]]
    assert both["state"] == "off" and both["missing"] == [["hall/p2", "twin.power"]]
    assert "pump.load" in _run(installation, "list").stdout


def test_versions_are_listed_with_their_times(installation: DataFolder) -> None:
    text = installation.site_file.read_text(encoding="utf-8")
    changed = text.replace("load = power / rated_power -> %", "load = 2 * power")
    installation.site_file.write_text(changed, encoding="utf-8")
    registry = Registry.of(installation)
    registry.apply(load_site(installation.site_file), to_us(datetime(2026, 4, 1, tzinfo=UTC)))
    registry.close()
    result = _run(installation, "versions", "pump.load")
    for word in ("the beginning", "2026-04-01 00:00:00", "load = 2 * power", "rated_power"):
        assert word in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["versions", "pump.laod"], "CLI-1305", "Did you mean pump.load?"),
        (["eval", "power", "--type", "pmup"], "SITE-2004", "Did you mean pump?"),
        (["eval", "power", "--type", "pump", "--asset", "hall/*"], "CLI-1304", "--asset"),
        (["eval", "power"], "CLI-1304", "neither"),
        (["eval", "rated_power * power", "--asset", "hall/p2"], "SITE-2003", "rated_power"),
    ],
)
def test_what_is_wrong_is_said(
    installation: DataFolder, arguments: list[str], code: str, words: str
) -> None:
    result = _run(installation, *arguments)
    error = result.exception
    assert getattr(error, "code", "") == code
    assert words in f"{getattr(error, 'what', '')} {getattr(error, 'remedy', '')}"


def test_a_file_of_formulas_is_checked_on_a_type(installation: DataFolder, tmp_path: Path) -> None:
    file = tmp_path / "more.formula"
    file.write_text("high = load > 80 %\nheat = integral(power) per shift -> kWh\n")
    result = _run(installation, "check", str(file), "--type", "pump")
    assert result.exit_code == 0, result.output
    assert "condition" in result.stdout and "kWh" in result.stdout


def test_a_wrong_formula_is_shown_with_its_caret(installation: DataFolder) -> None:
    text = installation.site_file.read_text(encoding="utf-8")
    wrong = text.replace("load = power / rated_power", "load = power / rated_powr")
    installation.site_file.write_text(wrong, encoding="utf-8")
    site = ["site", "check", "--data", str(installation.root)]
    result = CliRunner().invoke(build(), site)
    assert result.exit_code == 2
    line = wrong.splitlines().index("load = power / rated_powr -> %") + 1
    assert f"site.toml:{line}:16 asset_type.pump.formulas: FORM-1010" in result.stderr
    assert "^^^^^^^^^^" in result.stderr
    chinese = CliRunner().invoke(build(), [*site, "--language", "zh"])
    assert "是否指 rated_power" in chinese.stderr


def test_derived_tags_are_shown_with_the_others(installation: DataFolder) -> None:
    result = CliRunner().invoke(
        build(), ["site", "show", "--tags", "--data", str(installation.root)]
    )
    assert result.exit_code == 0 and "hall/p1/load" in result.stdout
