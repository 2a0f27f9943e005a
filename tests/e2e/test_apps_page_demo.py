"""What docs/apps.md tells an engineer to type, typed as it stands beside the running demo."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from installation import Installation

from apps_page import STEPS, edited
from waiting import until_sync

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]


def typed(step: str, where: Path) -> str:
    """The output of the commands of one block, each a process of its own; ``> file`` is the shell's."""
    told = ""
    for line in step.strip().splitlines():
        words = shlex.split(line)
        target = words[words.index(">") + 1] if ">" in words else ""
        words = words[1 : words.index(">")] if target else words[1:]
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *words],
            cwd=where, capture_output=True, text=True, timeout=240,
            env={**os.environ, "COLUMNS": "160"},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        if target:
            (where / target).write_text(done.stdout)
        told += done.stdout
    return told


def test_an_engineer_gets_from_nothing_to_a_running_app(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    where = tmp_path_factory.mktemp("engineer")
    (where / "data").mkdir()
    demo = Installation(where / "data" / "demo", "--demo")
    try:
        demo.start()
        *_, see = STEPS
        for step in STEPS[:-1]:
            told = typed(step, where)
            if " new " in step:
                edited(where / "pump-watch")
        assert "pump-watch 0.1.0 is bound" in told and "2 assets are served" in told

        def is_seen() -> bool:
            rows = typed(see, where).splitlines()
            found = [row for row in rows if "pump_watch_specific_energy" in row]
            return any(re.search(r"0\.\d", row) for row in found)

        until_sync(is_seen, 120, "a value of the app in the history")
    finally:
        demo.stop()
