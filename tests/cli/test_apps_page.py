"""What docs/apps.md tells an engineer to type, typed: from nothing to a benched, signed, bound app."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from headrace.apps.package import read_package
from headrace.bus.broker import prepare_address
from headrace.model.app_manifest import AppManifest
from headrace.model.folder import DataFolder
from headrace.sim.demo import write_demo_site
from headrace.site.file import load_site

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "apps.md").read_text("utf-8")
SECTION = PAGE.partition("## From nothing")[2].partition("\n## ")[0]
STEPS = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
LINE = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)[0]


def typed(step: str, where: Path) -> str:
    """The output of the commands of one block; ``> file`` is the shell's."""
    told = ""
    for line in step.strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "headrace"
        target = words[words.index(">") + 1] if ">" in words else ""
        words = words[1 : words.index(">")] if target else words[1:]
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *words],
            cwd=where, capture_output=True, text=True, timeout=150,
            env={**os.environ, "COLUMNS": "160"},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        if target:
            (where / target).write_text(done.stdout)
        told += done.stdout
    return told


@pytest.fixture
def demo(tmp_path: Path) -> DataFolder:
    """The demo's data folder as its first start leaves it."""
    folder = DataFolder(tmp_path / "data" / "demo")
    write_demo_site(folder, prepare_address(folder))
    return folder


@pytest.mark.soak
def test_an_engineer_gets_from_nothing_to_an_installed_app(
    tmp_path: Path, demo: DataFolder
) -> None:
    begin, check, bench, pack, publish, install = STEPS
    typed(begin, tmp_path)
    manifest = tmp_path / "pump-watch" / "app.toml"
    text = manifest.read_text()
    at = text.index("alarm cavitating")
    manifest.write_text(text[:at] + LINE + text[at:])
    assert "is right" in typed(check, tmp_path)
    assert "passed" in typed(bench, tmp_path)
    assert "1 of 1 scenarios" in typed(pack, tmp_path)
    typed(publish, tmp_path)
    told = typed(install, tmp_path)
    assert "pump-watch 0.1.0 is bound" in told and "2 assets are served" in told
    assert read_package(tmp_path / "pump-watch-0.1.0.hrapp", None).certificate is not None
    model = load_site(demo.site_file)
    derived = {tag.path for tag in model.derived if "pump_watch_" in tag.path}
    assert "utilities/pumping/pump_1/pump_watch_specific_energy" in derived


def test_the_page_names_every_field_of_the_manifest_and_every_command() -> None:
    part = PAGE.partition("## The manifest")[2].partition("\n## ")[0]
    for field in AppManifest.__struct_fields__:
        assert re.search(rf"`\[*{field}[.\]`]", part) or f"`{field}`" in part, field
    for step in (*STEPS, *re.findall(r"```\n(headrace.*?)```", PAGE, re.DOTALL)):
        assert all(line.startswith(("headrace ", "curl ")) for line in step.strip().splitlines())
    tomllib.loads(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1])
