"""``headrace site`` as a person uses it: what it prints, what it writes, its exit codes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from headrace.bus.broker import BrokerAddress
from headrace.bus.client import ensure_streams, open_bus
from headrace.cli import site as site_commands
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock
from headrace.site.file import load_site
from headrace.site.keeper import Keeper
from headrace.site.registry import Registry

SITE = """\
[site]
enterprise = "acme"
name = "mill"

[connection.plc]
protocol = "modbus"
endpoint = "127.0.0.1:1502"

# kept
[[tag]]
path = "utilities/pumping/pump_1/flow"
connection = "plc"
address = "holding:0:float32"
unit = "m3/h"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "site.toml").write_text(SITE, encoding="utf-8")
    return tmp_path


def run(*arguments: object) -> Result:
    app = typer.Typer()
    site_commands.register(app)
    return CliRunner().invoke(app, ["site", *map(str, arguments)])


def test_check_says_what_is_there(root: Path) -> None:
    result = run("check", "--data", root)
    assert result.exit_code == 0, result.output
    assert "is right: 1 tag, 1 connection" in result.output
    assert run("check", root / "site.toml", "--json").output.strip() == "[]"


def test_check_names_every_problem_and_exits_with_2(root: Path) -> None:
    text = SITE.replace('"holding:0:float32"', '"holding:zero"').replace("m3/h", "m3/hr")
    (root / "site.toml").write_text(text, encoding="utf-8")
    result = run("check", "--data", root)
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert lines[0].startswith("site.toml:13 address: EDGE-")
    assert "Did you mean m3/h?" in lines[1]
    assert "2 problems" in lines[2]
    found = json.loads(run("check", "--data", root, "--json").stdout)
    assert [problem["line"] for problem in found] == [13, 14]


def test_show_tells_tree_connections_and_that_no_broker_runs(root: Path) -> None:
    assert "Not applied yet" in run("show", "--data", root).output
    folder = DataFolder(root)
    Keeper(folder, Registry.of(folder), ManualClock()).look()
    output = run("show", "--data", root, "--tags").output
    for text in ("mill", "pump_1", "plc", "modbus", "No broker runs here"):
        assert text in output


def test_export_and_import(root: Path, tmp_path: Path) -> None:
    assert run("export", "--data", root, root / "out.csv").exit_code == 0
    same = run("import", "--data", root, root / "out.csv")
    assert same.exit_code == 0 and "1 the same" in same.output and "Nothing to write" in same.output

    text = (root / "out.csv").read_text("utf-8-sig").replace("m3/h", "L/min")
    (root / "out.csv").write_text(text, "utf-8")
    dry = run("import", "--data", root, root / "out.csv", "--dry-run")
    assert dry.exit_code == 0 and '+unit = "L/min"' in dry.output
    unasked = run("import", "--data", root, root / "out.csv")
    assert unasked.exit_code == 1 and "add --yes" in unasked.output
    assert (root / "site.toml").read_text("utf-8") == SITE
    done = run("import", "--data", root, root / "out.csv", "--yes")
    assert done.exit_code == 0 and "Written." in done.output
    assert load_site(root / "site.toml").tags[0].unit == "L/min"

    whole = root / "out.json"
    assert run("export", "--data", root, whole).exit_code == 0
    assert json.loads(whole.read_text())["tags"][0]["unit"] == "L/min"


def test_export_with_ids_carries_history_to_another_installation(root: Path) -> None:
    folder = DataFolder(root)
    Keeper(folder, Registry.of(folder), ManualClock()).look()
    (tag_id,) = Registry.of(folder).ids().values()
    run("export", "--data", root, root / "out.csv", "--ids")
    assert str(tag_id) in (root / "out.csv").read_text("utf-8-sig")


def test_rename_and_undo(root: Path) -> None:
    folder = DataFolder(root)
    keeper = Keeper(folder, Registry.of(folder), ManualClock())
    keeper.look()
    before = keeper.registry.ids()
    old = "utilities/pumping/pump_1/flow"
    renamed = run("rename", "--data", root, old, "utilities/pumping/pump_1/q", "--yes")
    assert renamed.exit_code == 0 and f'+was = "{old}"' in renamed.output
    keeper.look()
    assert keeper.registry.ids() == {"utilities/pumping/pump_1/q": before[old]}
    assert "2" in run("undo", "--data", root, "--list").output
    undone = run("undo", "--data", root)
    assert undone.exit_code == 0 and "Version 1 is back" in undone.output
    assert (root / "site.toml").read_text("utf-8") == SITE
    keeper.look()
    assert keeper.registry.ids() == before, "undoing a rename keeps the history too"


def test_show_beside_a_running_broker(folder: DataFolder, broker: BrokerAddress) -> None:
    folder.site_file.write_text(SITE, encoding="utf-8")
    keeper = Keeper(folder, Registry.of(folder), ManualClock())
    keeper.look()

    async def send() -> None:
        async with open_bus(broker, "test") as bus:
            await ensure_streams(bus)
            await keeper.send(bus)

    asyncio.run(send())
    output = run("show", "--data", folder.root).output
    assert "never heard" in output and "does not follow" in output
