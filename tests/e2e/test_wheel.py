"""One wheel runs the demo on a machine without the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from installation import Installation

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.kill, pytest.mark.timeout(600)]


def test_the_wheel_runs_the_demo_without_the_repository(tmp_path: Path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("headrace-*.whl")
    place = tmp_path / "env"
    venv.create(place)
    python = str(place / "bin" / "python")
    # The libraries are those of the test environment; its own headrace is not seen, since a path
    # that a .pth file adds does not have its .pth files read.
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    into = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps"]
    subprocess.run(
        [*into, "--no-index", str(wheel)],
        check=True,
        env={**os.environ, "PIP_FIND_LINKS": ""},
    )
    where = subprocess.run(
        [python, "-c", "import headrace; print(headrace.__file__)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    ).stdout
    assert str(place) in where
    installation = Installation(tmp_path / "data", "--demo", python=python)
    try:
        installation.start()
        assert "first values" in installation.output
    finally:
        installation.stop()
