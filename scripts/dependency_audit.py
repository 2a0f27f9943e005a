"""Looks up known vulnerabilities of what is installed; without network or tool it says so and passes.

Ends with 1 only when there is a vulnerability. ``make check`` runs it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

WAIT_S = 60


def main() -> int:
    """The exit code."""
    if importlib.util.find_spec("pip_audit") is None:
        return skipped("pip-audit is not installed (it is in the extra dev)")
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(
            [*command, "--skip-editable", "--timeout", "10"],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        found = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return skipped(f"no answer in {WAIT_S} s")
    except (ValueError, KeyError):
        last = done.stderr.strip().splitlines()[-1:] or ["no reason was given"]
        return skipped(f"no advisories could be had: {last[0][:200]}")
    bad = [(each["name"], each["version"], v) for each in found for v in each.get("vulns", ())]
    for name, version, known in bad:
        fixed = ", ".join(known.get("fix_versions") or ["none yet"])
        sys.stdout.write(f"{name} {version}: {known['id']}, mended in {fixed}\n")
    sys.stdout.write(f"dependency audit: {len(found)} packages, {len(bad)} known vulnerabilities\n")
    return 1 if bad else 0


def skipped(why: str) -> int:
    """Say why nothing was looked up."""
    sys.stdout.write(f"dependency audit: skipped, {why}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
