"""``headrace cluster``: the files of a cluster, and a node as a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from headrace.bus.broker import free_port
from waiting import until_sync

HEADRACE = [sys.executable, "-m", "headrace"]


def headrace(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [*HEADRACE, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_the_files_of_a_cluster_and_one_node_of_it(tmp_path: Path) -> None:
    wrong = headrace("cluster", "new", "plant", "--node", "a", cwd=tmp_path)
    assert wrong.returncode == 2 and "CLI-1202" in wrong.stderr, wrong.stderr
    nodes: list[str] = []
    ports = {name: [free_port() for _ in range(4)] for name in "abc"}
    for name, own in ports.items():
        nodes += ["--node", f"{name}=127.0.0.1:{':'.join(map(str, own))}"]
    made = headrace("cluster", "new", "plant", *nodes, "--out", "files", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "headrace cluster run a.json" in made.stdout
    assert "headrace up --bus client.json" in made.stdout

    log = tmp_path / "a" / "logs" / "broker.log"
    command = [*HEADRACE, "cluster", "run", "files/a.json", "--data", "a"]
    node = subprocess.Popen(command, cwd=tmp_path)
    try:
        until_sync(lambda: log.exists() and "Listening for client" in log.read_text(), 60)
        assert f"127.0.0.1:{ports['a'][0]}" in log.read_text()
        node.send_signal(signal.SIGTERM)
        assert node.wait(20) == 0
    finally:
        node.kill()
    assert "Server Exiting" in log.read_text() or "Initiating Shutdown" in log.read_text()
    broken = headrace("cluster", "run", "files/client.json", cwd=tmp_path)
    assert broken.returncode == 2 and "BUS-1204" in broken.stderr
