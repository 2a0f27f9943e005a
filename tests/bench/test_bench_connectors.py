"""Connectors against their contract on the bench: devices of the bench, recorded ones, and cases of others."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from headrace.bench.connectors import bench_connector
from headrace.bench.device_recording import (
    EXCHANGES,
    SAMPLES,
    DeviceRecording,
    RecordedDevice,
    RecordedPoint,
)
from headrace.cli.app import build
from headrace.edge.connectors.modbus import CONNECTOR
from headrace.model.errors import Misconfigured
from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator
from headrace.testing import CONNECTOR_CHECKS, ConnectorCase

READS = "reads_what_the_device_shows"


def lying_case() -> ConnectorCase:
    """A device that shows 19.5 where the case wants 20.5."""
    address = "holding:0:float32"
    return ConnectorCase(
        connector=CONNECTOR,
        make_emulator=lambda: ModbusEmulator([Point(address)]),
        expected={address: 20.5},
        show={address: 19.5},
        options={"timeout_s": 1.0},
    )


def recorded(path: Path, protocol: str = "modbus", address: str = "input:4:int32:CDAB") -> Path:
    """A device of two points that showed two values each."""
    points = [RecordedPoint(address=address), RecordedPoint(address="holding:9:string4")]
    shown = [(0, 0, -5.0, None), (0, 1, None, "off"), (1, 0, -70_000.0, None), (1, 1, None, "on")]
    rows = [(n, point, n, n, value, text, 0) for n, point, value, text in shown]
    samples = pl.DataFrame(rows, schema=SAMPLES, orient="row")
    exchanges = pl.DataFrame([(0, 900, 2, None), (1, 900, 2, None)], schema=EXCHANGES, orient="row")
    device = RecordedDevice(protocol=protocol, endpoint="plc:502", points=points)
    DeviceRecording(device, samples, exchanges).save(path)
    return path


def test_a_connector_is_held_against_its_contract(tmp_path: Path) -> None:
    words = ["bench", "connector", "modbus", "--out", str(tmp_path), "--only", READS]
    words += ["--only", "writes_and_reads_back", "--only", "browses"]
    ran = CliRunner().invoke(build(("bench",)), words)
    assert ran.exit_code == 0, ran.output
    assert "2 of 3 checks passed" in ran.output and "no browse_finds" in ran.output
    suites = {each.attrib["name"]: each for each in ET.parse(tmp_path / "bench.xml").getroot()}
    assert suites[READS].attrib["failures"] == "0"
    assert suites["browses"].attrib["skipped"] == "1"
    page = (tmp_path / "bench.html").read_text("utf-8")
    assert "Every value, status and time is right" in page and "0 s, 0 assets" not in page


def test_one_that_reads_wrong_fails_and_the_report_is_the_same_each_time() -> None:
    case = f"{__name__}:lying_case"
    one, two = (bench_connector("modbus", case=case, only=[READS]) for _ in range(2))
    assert one == two and not one.passed
    assert one.trials[0].verdicts[0].seen == "holding:0:float32: the value is 19.5, not 20.5"


def test_a_recorded_device_tries_a_connector(tmp_path: Path) -> None:
    file = recorded(tmp_path / "plc.hrec")
    report = bench_connector("modbus", device=file, only=[READS, "says_transient_when_killed"])
    assert report.passed, report.trials
    assert len(report.content_sha256) == 64
    nonsense = recorded(tmp_path / "bad.hrec", address="input:4:int33")
    trial = bench_connector("modbus", device=nonsense, only=[READS]).trials[0]
    assert (trial.outcome, trial.reason[:9]) == ("error", "EDGE-3050")


@pytest.mark.parametrize(
    ("name", "fields", "code"),
    [
        ("telex", {}, "EDGE-1002"),
        ("modbus", {"only": ["flies"]}, "APPS-2469"),
        ("modbus", {"case": "no.such:case"}, "APPS-2468"),
        ("modbus", {"case": "nothing"}, "APPS-2468"),
        ("modbus", {"device": Path("none.hrec")}, "APPS-2430"),
    ],
)
def test_what_cannot_be_tried_is_told(name: str, fields: dict[str, object], code: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        bench_connector(name, **fields)  # type: ignore[arg-type] # as the table says
    assert caught.value.code == code and caught.value.remedy


def test_a_recording_of_another_protocol(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="recorded by opcua, not modbus"):
        bench_connector("modbus", device=recorded(tmp_path / "x.hrec", "opcua"))


@pytest.mark.soak
@pytest.mark.parametrize("name", ["modbus", "opcua", "mqtt", "sparkplug"])
def test_our_connectors_keep_the_whole_contract(name: str) -> None:
    report = bench_connector(name)
    assert report.passed, [each for each in report.trials if each.outcome == "failed"]
    assert report.count("passed") >= len(CONNECTOR_CHECKS) - 1
