"""Footprint of the whole demo: resident memory, CPU, time to the first value; peer: an idle Node-RED.

Prints one JSON line, of the run with the median memory of three. The peer is the gateway that most
plants know, started in the same run with an empty flow; it is left out, with the reason, where npm
cannot install it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

RUNS = 3
STEADY_S = 30.0
READY_S = 90.0
NODE_RED = "node-red@4.1.15"


def tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def measure(pid: int, seconds: float) -> dict[str, dict[str, float]]:
    """Resident and proportional MB and CPU % of one core, of each process of a tree, over a while."""
    processes = tree(pid)
    for process in processes:
        process.cpu_percent()
    time.sleep(seconds)
    figures = {}
    for process in processes:
        words = process.cmdline()
        name = words[words.index("run") + 1] if "run" in words else Path(words[0]).name
        name = "up" if "up" in words else name
        memory = process.memory_full_info()
        figures[name] = {
            "rss_mb": round(memory.rss / 1e6, 1),
            "pss_mb": round(memory.pss / 1e6, 1),
            "cpu_percent": round(process.cpu_percent(), 1),
        }
    return figures


def demo() -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "up.log"
        start_s = time.monotonic()
        with log.open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "headrace", "up", "--demo", "--data", f"{folder}/data"],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "COLUMNS": "200"},
            )
        try:
            ready: float | None = None
            while time.monotonic() - start_s < READY_S and ready is None:
                found = re.search(r"first values after ([0-9.]+) s", log.read_text())
                ready = float(found.group(1)) if found else None
                time.sleep(0.1)
            parts = measure(process.pid, STEADY_S)
        finally:
            stop_s = time.monotonic()
            process.send_signal(signal.SIGINT)
            process.wait(20)
        return {
            "first_value_s": ready,
            "stop_s": round(time.monotonic() - stop_s, 2),
            "processes": parts,
            "rss_mb": round(sum(part["rss_mb"] for part in parts.values()), 1),
            "pss_mb": round(sum(part["pss_mb"] for part in parts.values()), 1),
            "cpu_percent": round(sum(part["cpu_percent"] for part in parts.values()), 1),
        }


def node_red() -> dict[str, object]:
    if shutil.which("npm") is None:
        return {"skipped": "npm is not installed"}
    cache = Path.home() / ".cache" / "headrace-bench" / "node-red"
    cache.mkdir(parents=True, exist_ok=True)
    script = cache / "node_modules" / "node-red" / "red.js"
    if not script.exists():
        install = subprocess.run(
            ["npm", "install", "--ignore-scripts", "--silent", NODE_RED], cwd=cache, check=False
        )
        if install.returncode or not script.exists():
            return {"skipped": f"npm could not install {NODE_RED}"}
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder) / "settings.js"
        settings.write_text(
            'module.exports = {uiHost: "127.0.0.1", uiPort: 0, flowFile: "f.json"};'
        )
        process = subprocess.Popen(
            ["node", str(script), "-u", folder, "-s", str(settings)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(10)
            # It gives its process a title of its own, so there is no name to look for.
            parts = measure(process.pid, 5).values()
            total = {key: sum(part[key] for part in parts) for key in ("rss_mb", "pss_mb")}
            return total | {"version": NODE_RED}
        finally:
            process.kill()
            process.wait()


def main() -> None:
    ours = sorted((demo() for _ in range(RUNS)), key=lambda run: float(run["pss_mb"]))[RUNS // 2]  # type: ignore[arg-type]
    peer = node_red()
    ratio = round(float(ours["pss_mb"]) / float(peer["pss_mb"]), 2) if "pss_mb" in peer else None  # type: ignore[arg-type]
    line = {
        "name": "footprint",
        "unit": "MB proportional set size, all processes",
        "ours": ours["pss_mb"],
        "peer": peer.get("pss_mb"),
        "ratio": ratio,
        "details": {"headrace_demo": ours, "node_red_idle": peer},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
