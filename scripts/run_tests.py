"""Runs all tests on all cores; the few that fall get one more go, alone, and are named as unsteady.

``python scripts/run_tests.py [argument of pytest...]``. Why a second go: docs/adr/0049. With ``STRICT=1``
in the environment there is none. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

FAILED = Path(".pytest_cache/v/cache/lastfailed")
FILES_MAX = 5
FAILURES = 1  # pytest's exit code for "tests ran and some failed"
SPREAD = ["-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"]


def run(arguments: list[str]) -> int:
    """Gives the exit code: 0 when all passed, some of them perhaps only alone."""
    FAILED.unlink(missing_ok=True)
    code = _pytest([*SPREAD, "--durations=15", *arguments])
    if code != FAILURES or os.environ.get("STRICT") == "1":
        return code
    failed = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if not 0 < len({each.partition("::")[0] for each in failed}) <= FILES_MAX:
        return code
    say(f"{len(failed)} failed beside others; once more, alone")
    if second := _pytest(failed):
        return second
    for each in failed:
        say(f"UNSTEADY (failed beside others, passed alone; find out why): {each}")
    return 0


def _pytest(arguments: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], check=False).returncode


def say(text: str) -> None:
    sys.stdout.write(f"==> {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
