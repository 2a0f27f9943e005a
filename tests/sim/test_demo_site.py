"""The demo's devices, tags, site file and ports."""

from __future__ import annotations

import json
import socket
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bus.broker import BrokerAddress, free_port, prepare_address
from headrace.model.errors import Corrupt, Misconfigured
from headrace.model.folder import DataFolder
from headrace.sim import demo
from headrace.sim.demo import port_is_free, prepare_ports, read_ports, write_demo_site
from headrace.sim.demo_devices import DemoTag, demo_devices
from headrace.sim.plant.plant import WAVEFORM_PATH, Plant
from headrace.sim.plant.quantity import Quantity
from headrace.site.file import load_site

ADDRESS = BrokerAddress(4222, 1883, 8222, "a", "b")
TAGS = [tag for device in demo_devices(Plant(1)) for tag in device.tags]


def test_every_quantity_is_shown_by_exactly_one_device() -> None:
    paths = [tag.path for tag in TAGS]
    row = Plant(1).step(1.0, 0)
    assert sorted(paths) == sorted([*row, WAVEFORM_PATH])


def test_there_are_two_hundred_tags_at_1_hz_and_a_waveform_at_1_khz() -> None:
    slow = [tag for tag in TAGS if tag.scan_interval_ms == 1000]
    waves = [tag for tag in TAGS if tag.sample_interval_us]
    assert len(slow) >= 200
    assert [(tag.path, tag.sample_interval_us) for tag in waves] == [(WAVEFORM_PATH, 1000)]
    assert len(waves[0].point().initial) == 100  # type: ignore[arg-type]


def test_the_devices_speak_what_the_issue_names() -> None:
    devices = {device.name: device for device in demo_devices(Plant(1))}
    assert [d.protocol for d in devices.values()].count("opcua") == 3
    modbus = " ".join(
        tag.address for d in devices.values() if d.protocol == "modbus" for tag in d.tags
    )
    for part in ("coil:", "discrete:", "input:", "holding:"):
        assert part in modbus
    for part in ("int16", "uint32:CDAB", "float32:CDAB", "float32:DCBA", "float32:BADC"):
        assert part in modbus
    for part in ("float64", "string12", "bcd16", "bit0", "float32 "):
        assert part in modbus
    radio, gateway = devices["hall_sensors"], devices["hall_gateway"]
    assert len(radio.tags) == len(gateway.tags)
    units = {tag.path.split("/")[2] for d in (radio, gateway) for tag in d.tags}
    assert sum(name.startswith("meter") for name in units) == 4
    assert len(units) == 16


def test_the_real_checker_accepts_the_site_file(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    write_demo_site(folder, ADDRESS)
    model = load_site(folder.site_file)
    assert len(model.tags) == len(TAGS)
    by_path = {tag.path: tag for tag in model.tags}
    for tag in TAGS:
        read = by_path[tag.path]
        assert (read.address, read.unit, read.scale) == (
            tag.address,
            tag.quantity.unit,
            tag.scale,
        )
        assert read.writable == tag.writable
        assert read.sample_interval_us == tag.sample_interval_us


@given(
    value=st.floats(-1e9, 1e9),
    scale=st.sampled_from([1.0, 0.1, 0.5, 0.001]),
    kind=st.sampled_from(["int16", "uint16", "uint32"]),
)
def test_a_scaled_integer_saturates_and_never_wraps(value: float, scale: float, kind: str) -> None:
    tag = DemoTag("a/b/c/d", "input:0", Quantity("d", "", "x"), kind, scale)  # type: ignore[arg-type]
    raw = tag.raw(value)
    assert isinstance(raw, int)
    low, high = {"int16": (-32768, 32767), "uint16": (0, 65535), "uint32": (0, 2**32 - 1)}[kind]
    assert low <= raw <= high
    if low * scale <= value <= high * scale:
        assert abs(float(tag.value(raw)) - value) <= scale / 2 + 1e-9 * abs(value)


def test_a_second_start_keeps_ports_and_peoples_edits(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    write_demo_site(folder, ADDRESS)
    ports = read_ports(folder)
    edited = folder.site_file.read_text() + "\n# a person's remark\n"
    folder.site_file.write_text(edited)
    (tmp_path / "tags.csv").unlink()
    write_demo_site(folder, ADDRESS)
    assert read_ports(folder) == ports
    assert folder.site_file.read_text() == edited
    assert not (tmp_path / "tags.csv").exists()


def test_a_taken_port_changes_its_endpoint_alone(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    write_demo_site(folder, ADDRESS)
    text, ports = folder.site_file.read_text(), read_ports(folder)
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", ports["pumping_plc"]))
        thief.listen()
        assert not port_is_free(ports["pumping_plc"])
        write_demo_site(folder, ADDRESS)
    after = read_ports(folder)
    assert {name for name in ports if ports[name] != after[name]} == {"pumping_plc"}
    old, new = f"127.0.0.1:{ports['pumping_plc']}", f"127.0.0.1:{after['pumping_plc']}"
    assert folder.site_file.read_text() == text.replace(f'"{old}"', f'"{new}"')


def test_ports_are_all_different(tmp_path: Path) -> None:
    ports = prepare_ports(DataFolder(tmp_path), demo_devices(Plant(1)))
    assert len(set(ports.values())) == len(ports) == 6


def test_a_port_that_console_or_broker_will_take_is_no_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first start neither listens yet when the devices get their ports."""
    folder = DataFolder(tmp_path)
    broker = prepare_address(folder)
    console = free_port()
    (folder.run / "console.port").write_text(str(console))
    promised = [console, broker.port, broker.mqtt_port, broker.monitor_port]
    given = iter(promised)
    monkeypatch.setattr(demo, "free_port", lambda: next(given, 0) or free_port())
    ports = prepare_ports(folder, demo_devices(Plant(1)))
    assert not set(ports.values()) & set(promised) and next(given, None) is None


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    write_demo_site(folder, ADDRESS)
    ports = read_ports(folder)
    (folder.run / "sim.json").write_text("{")
    with pytest.raises(Corrupt, match="SIM-1021"):
        write_demo_site(folder, ADDRESS)
    (folder.run / "sim.json").write_text(json.dumps({"ports": ports}))
    folder.site_file.write_text("[connection")
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", ports["cnc_1"]))
        thief.listen()
        with pytest.raises(Misconfigured, match="SITE-1002"):
            write_demo_site(folder, ADDRESS)


def test_the_site_file_is_toml_with_titles_in_two_languages(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    write_demo_site(folder, ADDRESS)
    site = tomllib.loads(folder.site_file.read_text(encoding="utf-8"))
    assert site["site"]["name"] == "mill"
    for kind in site["asset_type"].values():
        assert set(kind["title"]) == {"en", "zh"}
