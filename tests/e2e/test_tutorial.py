"""What docs/formula.md tells a newcomer to type, typed: from nothing to a back-tested alarm."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from installation import Installation

from headrace.alarms.store import AlarmStore
from headrace.site.registry import Registry
from waiting import until_sync

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formula.md").read_text("utf-8")
SECTION = PAGE.partition("## From nothing")[2].partition("\n## ")[0]
STEPS = re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)
ALARM = re.findall(r"```toml\n(.*?)```", SECTION, re.DOTALL)[0]
PUMP = "utilities/pumping/pump_2"


def typed(demo: Installation, step: str) -> str:
    """The output of the commands of one block."""
    told = ""
    for line in step.strip().splitlines():
        words = shlex.split(line.replace("data/demo", str(demo.folder.root)))
        assert words[0] == "headrace"
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *words[1:]],
            capture_output=True, text=True, timeout=240, env={**os.environ, "COLUMNS": "160"},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        told += done.stdout
    return told


def is_active(demo: Installation, alarm: str) -> bool:
    store = AlarmStore(demo.folder)
    try:
        state = store.get(f"{PUMP}/{alarm}")
        return state is not None and state.active
    finally:
        store.close()


def runs(demo: Installation, name: str) -> bool:
    registry = Registry.of(demo.folder)
    try:
        config = registry.apps()
    finally:
        registry.close()
    return config is not None and name in {each.name for each in config.formulas}


def test_a_newcomer_gets_from_nothing_to_a_back_tested_alarm(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    demo = Installation(tmp_path_factory.mktemp("tutorial") / "data", "--demo")
    try:
        demo.start()
        follow(demo)
    finally:
        demo.stop()


def follow(demo: Installation) -> None:
    begin, end, ask, sweep, check, by_name, again, finish = STEPS
    until_sync(lambda: runs(demo, "cavitation"), 60, "the demo's own alarms")
    typed(demo, begin)
    until_sync(lambda: is_active(demo, "cavitation"), 150, "the pump cavitates")
    typed(demo, end)
    until_sync(lambda: not is_active(demo, "cavitation"), 150, "it is well again")
    loudest = [
        float(each) for each in re.findall(r"pump_2 .*?│ *(\d+(?:\.\d+)?) *│", typed(demo, ask))
    ]
    assert max(loudest) > 85
    assert "on 2 assets" in typed(demo, sweep)
    file = demo.folder.site_file
    text = file.read_text("utf-8")
    head, mark, tail = text.partition("[asset_type.pump]")
    before, quotes, after = tail.partition("formulas = '''\n")
    file.write_text(head + mark + before + quotes + ALARM + after, "utf-8")
    typed(demo, check)
    until_sync(lambda: runs(demo, "noisy"), 30, "it applies")
    assert re.search(r"^1 times", typed(demo, by_name), re.MULTILINE)
    typed(demo, again)
    until_sync(lambda: is_active(demo, "noisy"), 150, "the new alarm")
    assert f"{PUMP}/noisy" in typed(demo, finish)
