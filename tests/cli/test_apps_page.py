"""What docs/apps.md tells an engineer to type, typed: from nothing to a benched, signed, running app.

The site is small here; ``tests/e2e/test_apps_page_demo.py`` types the same beside the running demo.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from apps_page import PAGE, STEPS, edited
from apps_rig import Rig, apps, rig_on
from headrace.apps.package import read_package
from headrace.bus.broker import prepare_address, start_broker, stop_broker
from headrace.bus.client import ensure_streams, open_bus
from headrace.cli.app import build
from headrace.model.app_manifest import AppManifest
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.site.keeper import Keeper
from headrace.site.registry import Registry

PUMP = "utilities/pumping/pump_1"
INPUTS = {
    "flow": "m3/h",
    "head": "m",
    "active_power": "kW",
    "npsh_margin": "m",
    "noise_level": "dB",
}
SITE = f"""\
[site]
enterprise = "acme"
name = "mill"

[asset_type.pump]
package = "pump"
[asset_type.pump.quantities]
{chr(10).join(f'{name} = "{unit}"' for name, unit in INPUTS.items())}

[asset."{PUMP}"]
type = "pump"

[connection.plc]
protocol = "modbus"
endpoint = "127.0.0.1:1502"
""" + "".join(
    f'[[tag]]\npath = "{PUMP}/{name}"\nconnection = "plc"\naddress = "holding:{n}:uint16"\n'
    for n, name in enumerate(INPUTS)
)
VALUES = {"flow": 50.0, "head": 40.0, "active_power": 10.0, "npsh_margin": 3.0, "noise_level": 70.0}
RUNNER = CliRunner(env={"COLUMNS": "160"})


def typed(step: str, where: Path) -> str:
    """The output of the commands of one block; ``> file`` is the shell's."""
    told = ""
    for line in step.strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "headrace"
        target = words[words.index(">") + 1] if ">" in words else ""
        words = words[1 : words.index(">")] if target else words[1:]
        done = RUNNER.invoke(build((words[0],)), words)
        assert done.exit_code == 0, f"{line}\n{done.output}{done.exception}"
        if target:
            (where / target).write_text(done.stdout)
        told += done.stdout
    return told


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    """A small site that runs, in the folder that the page names."""
    monkeypatch.chdir(tmp_path)
    folder = DataFolder(tmp_path / "data" / "demo")
    folder.root.mkdir(parents=True)
    folder.site_file.write_text(SITE)
    address = prepare_address(folder)
    process = start_broker(folder, address)
    try:
        async with open_bus(address, "test") as bus:
            await ensure_streams(bus)
            async with rig_on(folder, address, bus) as rig:
                yield rig
    finally:
        stop_broker(process)


async def test_an_engineer_gets_from_nothing_to_a_running_app(tmp_path: Path, site: Rig) -> None:
    begin, check, bench, pack, publish, install, see = STEPS
    typed(begin, tmp_path)
    edited(tmp_path / "pump-watch")
    assert "is right" in typed(check, tmp_path)
    assert "passed" in await asyncio.to_thread(typed, bench, tmp_path)
    assert "1 of 1 scenarios" in typed(pack, tmp_path)
    assert read_package(tmp_path / "pump-watch-0.1.0.hrapp", None).certificate is not None
    typed(publish, tmp_path)
    told = await asyncio.to_thread(typed, install, tmp_path)
    assert "pump-watch 0.1.0 is bound" in told and "1 assets are served" in told
    registry = Registry.of(site.folder)
    try:
        keeper = Keeper(site.folder, registry, site.clock)
        assert keeper.look() and not keeper.problems
        await keeper.send(site.bus)
        ids = registry.ids()
    finally:
        registry.close()
    async with apps(site):
        await site.running()
        at_us = site.clock.now_us()
        tags = np.array([ids[f"{PUMP}/{name}"] for name in VALUES])
        batch = make_batch(
            tags,
            np.full(len(tags), at_us),
            np.array([*VALUES.values()]),
            received_timestamp_us=at_us,
        )
        await site.send(batch)
        await site.done(at_us)
        seen = await asyncio.to_thread(typed, see, tmp_path)
    (line,) = [each for each in seen.splitlines() if "pump_watch_specific_energy" in each]
    assert "0.2" in line, "10 kW for 50 m3/h"


def test_the_page_names_every_field_of_the_manifest_and_every_command() -> None:
    part = PAGE.partition("## The manifest")[2].partition("\n## ")[0]
    for field in AppManifest.__struct_fields__:
        assert re.search(rf"`\[*{field}[.\]`]", part) or f"`{field}`" in part, field
    for step in (*STEPS, *re.findall(r"```\n(headrace.*?)```", PAGE, re.DOTALL)):
        assert all(line.startswith(("headrace ", "curl ")) for line in step.strip().splitlines())
    tomllib.loads(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1])
