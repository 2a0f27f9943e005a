"""Scenarios through real protocol servers and connectors: the same results, and wrong registers are found."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import polars as pl
import pytest
from bench_rig import failed, must, write_app, write_scenario
from typer.testing import CliRunner

from headrace.bench import carrying
from headrace.bench.bench import bench_own
from headrace.bench.carrying import carry
from headrace.bench.hostile import ail
from headrace.bench.report import Report, html_of, json_of, junit_of
from headrace.bench.runner import Runner
from headrace.bench.scenario import Fault
from headrace.bench.scenario_file import Read, read_scenario, read_shared, with_protocol
from headrace.bench.subject import Subject, open_app
from headrace.bench.trial import Trial, ground_of, run_trial
from headrace.bench.wiring import Shown
from headrace.cli.app import build
from headrace.edge.connectors.modbus.address import Grammar
from headrace.model.desired import TagConfig
from headrace.model.errors import HeadraceError, Misconfigured
from headrace.model.status import BAD_NO_COMMUNICATION, UNCERTAIN_LAST_USABLE_VALUE, is_bad
from headrace.sim.emulators import PointType

PROTOCOLS = ("modbus", "opcua", "mqtt", "sparkplug")
ALARM = must("alarm", asset="hall/p1", alarm="low", from_s=60, within_s=9)
QUIET = must("quiet", until_s=59) + must("quiet", from_s=100)
MEAN = must("value", asset="hall/p1", name="mean_flow", minimum=20, maximum=26, samples=10)
HOSTILE = """
[[hostile]]
kind = "bad"
share = 0.1

[[hostile]]
kind = "late"
share = 0.2
delay_s = 7
"""
SITE = """
[site]
enterprise = "acme"
name = "mill"

[asset_type.pump]
quantities = { head = "m" }
formulas = '''
alarm low: head < 15 m, priority high
'''

[asset."hall/p1"]
type = "pump"

[connection.plc]
protocol = "modbus"
endpoint = "10.0.0.9:502"
options = { unit_id = 3, byte_order = "CDAB" }

[[tag]]
path = "hall/p1/head"
connection = "plc"
address = "input:4:int32"
scale = 0.001
deadband = 0.5
unit = "m"
"""


def site_scenario(folder: Path, wire: str = "") -> Path:
    """The recording of the pump, on a site file whose PLC shows millimetres in two registers."""
    path = write_scenario(folder)
    (folder / "plant.toml").write_text(SITE, "utf-8")
    text = path.read_text("utf-8").partition("[[asset]]")[0]
    text += 'site = "plant.toml"\ncolumns = { "hall/p1/head" = "head" }\nprotocol = "site"\n'
    finds = must("find", asset="hall/p1", alarm="low", recall=1, precision=1, episodes=1)
    path.write_text(text + wire + finds + must("quiet", until_s=59), "utf-8")
    return path


def through(read: Read, subject: Subject | None = None) -> Trial:
    """The scenario's trial, its samples having gone through its protocol."""
    return run_trial(read, subject, carried=carry(ground_of(read), read.scenario))


def report(trial: Trial) -> tuple[bytes, ...]:
    whole = Report(subject="app", id="tried", version="1.0.0", platform="0", trials=[trial])
    return json_of(whole), junit_of(whole), html_of(whole)


def test_an_app_gives_the_same_by_each_protocol_as_straight(tmp_path: Path) -> None:
    app = write_app(tmp_path / "app")
    subject = open_app(app, app)
    read = read_scenario(write_scenario(tmp_path / "s", ALARM + QUIET + MEAN, HOSTILE))
    straight = run_trial(read, subject)
    assert straight.passed, (straight.reason, failed(straight))
    for protocol in PROTOCOLS:
        trial = through(with_protocol(read, protocol), subject)
        assert trial.passed, (protocol, trial.reason, failed(trial))
        assert trial.protocol == protocol
        assert (trial.verdicts, trial.lines, trial.bars) == (
            straight.verdicts,
            straight.lines,
            straight.bars,
        ), protocol
        assert "240 shown, 240 came, 0 within" in trial.notes[-1]


@pytest.mark.parametrize("protocol", ["modbus", "opcua"])
def test_twice_through_a_protocol_gives_the_same_report_to_the_byte(
    tmp_path: Path, protocol: str
) -> None:
    app = write_app(tmp_path / "app")
    read = with_protocol(read_scenario(write_scenario(tmp_path / "s", ALARM, HOSTILE)), protocol)
    one, two = (report(through(read, open_app(app, app))) for _ in range(2))
    assert one == two
    assert f"Through {protocol}".encode() in one[2]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_keeps_values_times_and_what_is_bad(tmp_path: Path, protocol: str) -> None:
    read = with_protocol(read_scenario(write_scenario(tmp_path, "", HOSTILE)), protocol)
    ground = ground_of(read)
    wanted = ail(ground, read.scenario)
    came = carry(ground, read.scenario).on(ground).samples
    same = ["tag_id", "source_timestamp", "received_timestamp", "value", "text"]
    assert came.select(same).equals(wanted.select(same))
    bad, bad_wanted = ([is_bad(each) for each in s["status"]] for s in (came, wanted))
    assert bad == bad_wanted and any(bad) and not all(bad)


def test_a_site_files_registers_scale_and_dead_band_are_tried(tmp_path: Path) -> None:
    trial = through(read_scenario(site_scenario(tmp_path)))
    assert trial.passed, (trial.reason, failed(trial))
    # The first value, and two steps of 8 m; all else is within half a metre, for at most a minute.
    assert "120 shown, 3 came, 117 within" in trial.notes[-1]


@pytest.mark.parametrize(
    "wrong",
    [
        'shown = "input:4:int32:ABCD"',  # the words the other way round
        "shown_scale = 0.01",  # centimetres
        'shown = "input:4:float32"',  # another type
    ],
)
def test_a_device_that_is_not_as_the_site_file_says_fails(tmp_path: Path, wrong: str) -> None:
    trial = through(read_scenario(site_scenario(tmp_path, f'\n[wire."hall/p1/head"]\n{wrong}\n')))
    assert trial.outcome == "failed", trial.reason
    assert failed(trial)[0].startswith("low finds what is labelled on hall/p1")


def test_a_register_that_the_device_does_not_have_is_bad_and_found(tmp_path: Path) -> None:
    wire = '\n[wire."hall/p1/head"]\nshown = "input:40:int32"\n'
    read = read_scenario(site_scenario(tmp_path, wire))
    ground = ground_of(read)
    came = carry(ground, read.scenario).on(ground).samples
    assert came["value"].null_count() == came.height > 0
    assert through(read).outcome == "failed"


def test_what_never_comes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrying, "PATIENCE_S", 0.3)
    wire = '\n[wire."hall/p1/head"]\nshown = "bench/elsewhere#/value"\n'
    read = with_protocol(read_scenario(site_scenario(tmp_path, wire)), "mqtt")
    trial = through(read)
    assert trial.outcome == "failed"
    assert trial.notes[-1] == "Nothing came of hall/p1/head."


@pytest.mark.soak
def test_the_command_takes_samples_through_before_the_sealed_worker(tmp_path: Path) -> None:
    path = site_scenario(tmp_path)
    words = ["bench", "site", str(tmp_path / "plant.toml"), "--scenario", str(path)]
    ran = CliRunner().invoke(build(("bench",)), [*words, "--protocol", "modbus"])
    assert ran.exit_code == 0 and "1 passed" in ran.output, ran.output
    wrong = CliRunner().invoke(build(("bench",)), [*words, "--protocol", "telex"])
    assert "APPS-2464" in str(wrong.exception)


def test_one_that_cannot_go_through_stops_no_other(tmp_path: Path) -> None:
    good = read_scenario(site_scenario(tmp_path))
    unknown = '\n[wire."hall/p1/flow"]\nscale = 0.1\n'
    none = read_scenario(site_scenario(tmp_path / "two", unknown))
    gone = read_scenario(site_scenario(tmp_path / "three"))
    (tmp_path / "three" / "pump.csv").unlink()
    found = bench_own([none, good, gone], Runner()).trials
    assert [each.outcome for each in found] == ["error", "passed", "skipped"]
    assert found[0].reason.startswith("APPS-2461") and "no samples of it" in found[0].reason


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"wire": {"hall/p1/head": {"scale": 0.0}}}, "APPS-2404"),
        ({"wire": {"hall/p1/head": {"address": "holding"}}}, "EDGE-3050"),
    ],
)
def test_what_cannot_be_wired_is_told(
    tmp_path: Path, change: dict[str, dict[str, dict[str, object]]], code: str
) -> None:
    with pytest.raises(HeadraceError) as caught:
        wire = "".join(
            f'\n[wire."{path}"]\n'
            + "".join(f"{n} = {msgspec.json.encode(v).decode()}\n" for n, v in of.items())
            for path, of in change["wire"].items()
        )
        read = read_scenario(site_scenario(tmp_path, wire))
        carry(ground_of(read), read.scenario)
    assert caught.value.code == code


def test_wire_needs_a_protocol(tmp_path: Path) -> None:
    path = write_scenario(tmp_path)
    path.write_text(path.read_text("utf-8") + '\n[wire."hall/p1/head"]\nscale = 0.1\n', "utf-8")
    with pytest.raises(Misconfigured, match="needs source"):
        read_scenario(path)


def test_sparkplug_cannot_tell_microseconds(tmp_path: Path) -> None:
    read = read_scenario(write_scenario(tmp_path))
    csv = tmp_path / "pump.csv"
    csv.write_text(csv.read_text("utf-8").replace(":07Z", ":07.000123Z"), "utf-8")
    with pytest.raises(Misconfigured, match="APPS-2463"):
        through(with_protocol(read, "sparkplug"))
    assert through(with_protocol(read, "mqtt")).outcome == "passed"


def test_a_trial_opens_no_connection_itself(tmp_path: Path) -> None:
    trial = run_trial(with_protocol(read_scenario(write_scenario(tmp_path)), "modbus"))
    assert trial.outcome == "error" and trial.reason.startswith("APPS-2465")


@pytest.mark.parametrize(
    ("address", "kind", "scale", "value", "raw"),
    [
        ("input:0:int16", "int16", 0.1, 21.54, 215),
        ("input:0:int16", "int16", 0.1, 1e9, 32_767),
        ("input:0:uint16", "uint16", 1.0, -3.0, 0),
        ("input:0:bcd16", "uint64", 1.0, 123_456.0, 9_999),
        ("input:0:uint32", "uint32", 1.0, math.inf, 2**32 - 1),
        ("input:0:int16", "int16", 1.0, math.nan, -32_768),
        ("input:0:float32", "float32", 0.5, 3.0, 6.0),
        ("coil:0", "bool", 1.0, 1.0, True),
    ],
)
def test_a_device_shows_numbers_as_its_converter_makes_them(
    address: str, kind: PointType, scale: float, value: float, raw: float
) -> None:
    tag = TagConfig(tag_id=1, path="a/b", address=address)
    register = Grammar("zero_based", 1, "ABCD").parse(address).data_type
    assert Shown(tag, address, kind, scale, register=register).raw(value) == raw


@pytest.mark.soak
def test_the_demo_through_all_its_own_devices_is_the_virtual_one() -> None:
    """Word orders, BCD, bits, scaled integers, lost devices, births: by the demo's eight real devices."""
    base = read_shared("demo/device_restart")
    source = msgspec.structs.replace(base.scenario.source, duration_s=24.0, protocol="site")
    lost = [
        Fault(name="device_restart", target=each, at_s=8, parameters={"off_s": 8.0})
        for each in ("cnc_1", "pumping_plc", "hall_gateway", "hall_sensors")
    ]
    scenario = msgspec.structs.replace(base.scenario, source=source, fault=lost)
    read = Read(scenario, base.folder)
    ground = ground_of(read)
    assert {BAD_NO_COMMUNICATION, UNCERTAIN_LAST_USABLE_VALUE} <= set(ground.samples["status"])
    came = carry(ground, read.scenario).on(ground).samples
    key = ["tag_id", "source_timestamp", "received_timestamp"]
    assert came.select(*key, "text", "status").equals(ground.samples.select(*key, "text", "status"))
    both = pl.DataFrame({"a": ground.samples["value"], "b": came["value"]})
    assert both["a"].is_null().equals(both["b"].is_null())
    # Half of the devices show float32.
    assert ((both["a"] - both["b"]).abs() <= both["a"].abs() * 1e-7 + 1e-12).drop_nulls().all()
