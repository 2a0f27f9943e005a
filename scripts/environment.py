"""Makes the virtual environment and installs a lock into it, with one moving line of progress.

``python3 scripts/environment.py .venv requirements.lock``. Standard library only, since it is the first
thing that runs. Where Python comes without ``ensurepip`` (Debian keeps it in a package of its own), pip is
fetched from the package index and checked against the sum below.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from pathlib import Path
from urllib.parse import urljoin

PIP_WHEEL = "pip-26.3-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
INDEX = ""
SHOWN_ON_ERROR = 15


def make_environment(place: Path) -> None:
    """A virtual environment with pip, made anew unless a whole one stands there."""
    python = place / "bin" / "python"
    if python.exists() and _has_pip(python):
        return
    say(f"Making the virtual environment {place} (Python {sys.version.split()[0]})")
    try:
        import ensurepip  # noqa: F401 # only whether it is there
    except ImportError:
        venv.create(place, with_pip=False, clear=True)
        _fetch_pip(python)
    else:
        venv.create(place, with_pip=True, clear=True)


def _has_pip(python: Path) -> bool:
    asked = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
    return asked.returncode == 0


def _fetch_pip(python: Path) -> None:
    index = os.environ.get("PIP_INDEX_URL", INDEX).rstrip("/")
    say(f"This Python comes without ensurepip: fetching {PIP_WHEEL} from {index}")
    try:
        wheel = _download(f"{index}/pip/")
    except (OSError, ValueError, LookupError) as error:
        raise SystemExit(
            f"!!  pip could not be fetched: {error}\n"
            "!!  On Debian or Ubuntu this is enough: apt-get install python3-venv"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PIP_WHEEL
        path.write_bytes(wheel)
        command = [python, f"{path}/pip", "install", "--quiet", "--no-index", str(path)]
        subprocess.run(command, check=True)


def _download(page: str) -> bytes:
    accept = {"Accept": "application/vnd.pypi.simple.v1+json, text/html;q=0.1"}
    with urllib.request.urlopen(urllib.request.Request(page, headers=accept), timeout=60) as answer:
        url = _link(answer.read().decode("utf-8"))
    if url is None:
        raise LookupError(f"{page} has no {PIP_WHEEL}")
    with urllib.request.urlopen(urljoin(page, url), timeout=60) as answer:
        wheel = bytes(answer.read())
    if hashlib.sha256(wheel).hexdigest() != PIP_SHA256:
        raise ValueError(f"{PIP_WHEEL} from {page} is not the file it should be")
    return wheel


def _link(listing: str) -> str | None:
    """Where the wheel is, by PEP 691 (JSON) or PEP 503 (HTML, from mirrors and caches)."""
    if listing.lstrip().startswith("{"):
        files = json.loads(listing)["files"]
        return next((file["url"] for file in files if file["filename"] == PIP_WHEEL), None)
    found = re.search(rf'href="([^"#]+)[^"]*"[^>]*>\s*{re.escape(PIP_WHEEL)}\s*<', listing)
    return html.unescape(found.group(1)) if found else None


def install(place: Path, lock: Path) -> None:
    """Install all that a lock lists, then this repository itself."""
    start_s = time.monotonic()
    total = sum("==" in line for line in lock.read_text(encoding="utf-8").splitlines())
    say(f"Installing the {total} libraries of {lock.name}")
    _pip(place, ["-r", str(lock)], total)
    _pip(place, ["--no-deps", "--editable", "."], 0)
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
