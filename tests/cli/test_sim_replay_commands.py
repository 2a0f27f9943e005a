"""The commands ``sim`` and ``replay``: what they print, and their errors."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from headrace.cli import replay, sim
from headrace.model.errors import HeadraceError, Misconfigured, Transient

RUNNER = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})


def app() -> typer.Typer:
    made = typer.Typer(pretty_exceptions_enable=False)
    sim.register(made)
    replay.register(made)
    return made


def run(*arguments: str) -> str:
    """What the command prints; an error of ours is raised as itself."""
    result = RUNNER.invoke(app(), list(arguments))
    if isinstance(result.exception, HeadraceError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "tank.csv"
    path.write_text("time;level;state\n2026-01-01 00:00:00;1.5;run\n2026-01-01 00:00:01;2.5;stop\n")
    return path


@pytest.mark.parametrize("protocol", ["opcua", "modbus"])
def test_check_tells_what_was_found_and_writes_the_site_part(
    protocol: str, table: Path, tmp_path: Path
) -> None:
    part = tmp_path / "part.toml"
    printed = run("replay", str(table), "--as", protocol, "--check", "--site-file", str(part))
    assert "2 rows, 2 tags" in printed
    assert "times are in 'time'" in printed
    site = tomllib.loads(part.read_text())
    assert site["connection"][f"{protocol}_tank"]["protocol"] == protocol
    assert [tag["path"] for tag in site["tag"]] == ["replay/tank/level", "replay/tank/state"]


def test_a_resumed_replay_names_its_old_endpoint(table: Path, tmp_path: Path) -> None:
    parts = [tmp_path / "a.toml", tmp_path / "b.toml"]
    for part in parts:
        run(
            *("replay", str(table), "--as", "modbus", "--check"),
            *("--site-file", str(part), "--resume", str(tmp_path / "p.json")),
        )
    assert parts[0].read_text() == parts[1].read_text()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--as", "profinet"], "SIM-1130"),
        (["--as", "modbus", "--start", "soon"], "SIM-1131"),
        (["--as", "modbus", "--speed", "-1"], "SIM-1121"),
        (["--as", "modbus", "--columns", "absent"], "SIM-1103"),
        (["--as", "modbus", "--site-file", "/absent/x.toml"], "SIM-1132"),
    ],
)
def test_wrong_arguments_are_named(table: Path, arguments: list[str], code: str) -> None:
    with pytest.raises(Misconfigured, match=code):
        run("replay", str(table), "--check", *arguments)


def test_parameters_are_numbers() -> None:
    assert sim.parse_settings(["off_s=3", "delay_s = 0.5"]) == {"off_s": 3.0, "delay_s": 0.5}
    for text in ("off_s", "off_s=soon", "=3"):
        with pytest.raises(Misconfigured, match="SIM-1016"):
            sim.parse_settings([text])


def test_a_folder_without_a_broker_is_named(tmp_path: Path) -> None:
    with pytest.raises(Transient, match=r"SIM-1017|BUS-1010"):
        run("sim", "fault", "list", "--data", str(tmp_path))
