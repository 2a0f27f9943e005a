"""A packed, signed app with Python on a running site, from its installation to its end, as real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import polars as pl
import psutil
import pytest
from installation import Installation
from modbus_device import Device
from replaying import stored
from typer.testing import CliRunner

from headrace.cli.app import build
from headrace.security.identity import Identity
from headrace.security.package_keys import new_key, public_of
from waiting import until_sync

pytestmark = [pytest.mark.kill]
APP = """\
id = "load-watch"
version = "1.0.0"
headrace = ">=0.1"
publisher = "acme"
license = "Apache-2.0"
title = { en = "Load", zh = "负荷" }
description = { en = "Load", zh = "负荷" }
python = "load_watch"
[types.pump]
package = "pump"
quantities = { power = "kW" }
[[outputs]]
type = "pump"
name = "windows"
unit = "1"
title = { en = "Windows", zh = "窗口" }
"""
PYTHON = """\
import polars as pl
from headrace import app

@app.on_window("pump", length="1 s", every="500 ms", step="100 ms", lateness="500 ms")
def watch(window):
    window.state["n"] = window.state.get("n", 0) + 1
    return window.frame.group_by("asset", maintain_order=True).agg(
        pl.col("time").last(), windows=pl.lit(float(window.state["n"])))
"""
SITE = """\
[site]
enterprise = "acme"
name = "replay"

[connection.plc]
protocol = "modbus"
endpoint = "{endpoint}"

[[tag]]
path = "hall/pump_1/power"
connection = "plc"
address = "holding:0:float32"
scan_interval_ms = 200
unit = "kW"

[asset_type.pump]
quantities = {{ power = "kW" }}

[asset."hall/pump_1"]
type = "pump"
"""


@pytest.fixture
def device() -> Iterator[Device]:
    made = Device()
    yield made
    made.stop()


@pytest.fixture
def plant(tmp_path: Path, device: Device) -> Iterator[Installation]:
    made = Installation(tmp_path / "data")
    made.folder.root.mkdir()
    made.folder.site_file.write_text(SITE.format(endpoint=device.emulator.endpoint))
    try:
        yield made.start()
    finally:
        made.stop()


def command(*arguments: str) -> str:
    done = CliRunner().invoke(build(), [*arguments])
    assert done.exit_code == 0, done.output + repr(done.exception)
    return done.output


def windows(plant: Installation) -> pl.DataFrame:
    return stored(plant.folder, "hall/pump_1/load_watch_windows").sort("source_timestamp")


def test_installed_seen_killed_and_removed(plant: Installation, tmp_path: Path) -> None:
    data = ("--data", str(plant.folder.root))
    source = tmp_path / "load-watch"
    source.mkdir()
    for name, text in (("app.toml", APP), ("load_watch.py", PYTHON), ("README.md", "# Load\n")):
        (source / name).write_text(text, encoding="utf-8")
    key = new_key()
    (tmp_path / "acme.pem").write_bytes(key)
    (tmp_path / "acme.pub").write_text(public_of(key))
    packed = str(tmp_path / "load-watch-1.0.0.hrapp")
    command("app", "pack", str(source), "--key", str(tmp_path / "acme.pem"), "--out", str(tmp_path))
    command("app", "trust", "add", "acme", str(tmp_path / "acme.pub"), *data)
    command("app", "install", packed, "--yes", *data)
    command("app", "bind", "load-watch", "--yes", *data)

    identity = Identity(plant.folder)
    identity.add_user("reader", "viewer", "a long enough password")
    token = identity.add_token("reader", "apps", role="viewer")
    identity.close()
    headers = {"authorization": f"Bearer {token}"}
    with httpx.Client(base_url=plant.url, headers=headers, timeout=30) as client:

        def state() -> dict:
            found = client.get("/api/v1/apps").json()["apps"]
            return next((s for app in found for s in app["states"]), {})

        def runs() -> bool:
            return state().get("samples", 0) >= 4 and state()["pid"] != 0

        until_sync(runs, 90, "the app runs: " + str(state()))
        before = state()
        assert "landlock" in before["holds"]
        os.kill(before["pid"], signal.SIGKILL)
        until_sync(
            lambda: state().get("pid", 0) not in (0, before["pid"]) and state()["restarts"] == 1,
            60,
            "another process",
        )
        again = state()
        until_sync(lambda: state().get("samples", 0) > again["samples"] + 3, 60, "it goes on")
        assert state()["last_error_code"] == "APPS-2244"
        given = windows(plant)
        command("app", "remove", "load-watch", "--yes", *data)
        until_sync(lambda: not client.get("/api/v1/apps").json()["apps"], 60, "it is gone")
        until_sync(lambda: not psutil.pid_exists(again["pid"]), 60, "its process is gone")
    assert given["value"].to_list() == [float(n + 1) for n in range(given.height)]
    assert given.height >= 8 and not given["source_timestamp"].is_duplicated().any()
