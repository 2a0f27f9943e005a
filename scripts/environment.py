"""Makes the virtual environment and installs a lock into it, with one moving line of progress.

``python3 scripts/environment.py .venv requirements.lock``. Standard library only, since it is the first
thing that runs. Where Python comes without ``ensurepip`` (Debian keeps it in a package of its own), that
package is installed, or named to whoever may install it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

SHOWN_ON_ERROR = 15


def make_environment(place: Path) -> None:
    """A virtual environment with pip, made anew unless a whole one stands there."""
    python = place / "bin" / "python"
    if python.exists() and _has_pip(python):
        return
    say(f"Making the virtual environment {place} (Python {sys.version.split()[0]})")
    if importlib.util.find_spec("ensurepip") is None:
        _install_ensurepip()
    # In a process of its own: this one may have begun without ensurepip.
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)


def _has_pip(python: Path) -> bool:
    asked = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
    return asked.returncode == 0


def _install_ensurepip() -> None:
    """Debian and Ubuntu keep ensurepip in a package of its own; take it where we may."""
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise SystemExit(
            f"!!  This Python comes without ensurepip. On Debian or Ubuntu: sudo apt-get install {package}"
        )
    say(f"This Python comes without ensurepip: installing the system package {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", package]):
        done = subprocess.run(
            ["apt-get", "-qq", *command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{done.stdout}{done.stderr}!!  {package} could not be installed")


def install(place: Path, lock: Path) -> None:
    """Install all that a lock lists, then this repository itself."""
    start_s = time.monotonic()
    total = sum("==" in line for line in lock.read_text(encoding="utf-8").splitlines())
    say(f"Installing the {total} libraries of {lock.name}")
    _pip(place, ["-r", str(lock)], total)
    _pip(place, ["--no-deps", "--editable", "."], 0)
    # Compiled now, not by five processes at once in the first start.
    subprocess.run([place / "bin" / "python", "-m", "compileall", "-q", "src"], check=True)
    say(f"Installed in {time.monotonic() - start_s:.0f} s")


def _pip(place: Path, what: list[str], total: int) -> None:
    command = [place / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check"]
    process = subprocess.Popen(
        [*command, "--no-input", *what], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    lines, seen = [], 0
    for line in process.stdout:
        lines = [*lines[1 - SHOWN_ON_ERROR :], line]
        words = line.split()
        known = words[:3] == ["Requirement", "already", "satisfied:"]
        if total and (known or words[:1] == ["Collecting"]):
            seen += 1
            _progress(f"{min(seen, total)}/{total} {words[3 if known else 1]}")
        elif words[:2] == ["Installing", "collected"]:
            _progress("unpacking...")
    _progress("")
    if process.wait():
        sys.stderr.write("".join(lines))
        raise SystemExit(
            "!!  The libraries could not be installed. Without a network, say where they are: "
            "PIP_INDEX_URL=... or PIP_FIND_LINKS=..."
        )


def _progress(text: str) -> None:
    if sys.stdout.isatty():
        sys.stdout.write(f"\r\033[K    {text}" if text else "\r\033[K")
        sys.stdout.flush()


def say(text: str) -> None:
    """One line for the person who waits."""
    sys.stdout.write(f"==> {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    make_environment(Path(sys.argv[1]))
    install(Path(sys.argv[1]), Path(sys.argv[2]))
