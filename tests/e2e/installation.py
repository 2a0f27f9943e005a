"""A whole installation as real processes, for tests that kill, replay and look."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from headrace.model.folder import DataFolder
from waiting import until_sync


class Installation:
    """``headrace up`` on a folder of its own.

    Args:
        root: the data folder.
        arguments: of ``headrace up`` beside ``--data``.
        prefix: what runs a command on another machine; see ``namespace.py``.
    """

    def __init__(
        self,
        root: Path,
        *arguments: str,
        python: str = sys.executable,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.folder = DataFolder(root)
        self.prefix = prefix
        self._command = [*prefix, python, "-m", "headrace", "up", "--data", str(root), *arguments]
        self._log = root.parent / f"{root.name}.up.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def output(self) -> str:
        """All that ``up`` has printed so far."""
        return self._log.read_text() if self._log.exists() else ""

    @property
    def url(self) -> str:
        return re.findall(r"Console\s+(http://\S+)", self.output)[-1]

    @property
    def password(self) -> str:
        return re.findall(r"one-time password (\S+)", self.output)[-1]

    def start(self, *, ready: bool = True) -> Installation:
        with self._log.open("w") as out:
            self.process = subprocess.Popen(
                self._command,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
                cwd=self._log.parent,
            )
        if ready:
            until_sync(lambda: "Headrace runs" in self.output or self.ended, 90, "headrace up")
            assert not self.ended, self.output
        return self

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def pid(self, name: str) -> int:
        text = (self.folder.run / f"{name}.pid").read_text().strip()
        return int(text) if text else 0  # being written at this moment

    def kill(self, name: str) -> int:
        """``kill -9`` one process and wait until the supervisor has started another."""
        until_sync(lambda: self.pid(name) != 0, 5, f"the pid of {name}")
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        until_sync(lambda: self.pid(name) not in (pid, 0), 20, f"a new {name}")
        return pid

    def family(self) -> list[psutil.Process]:
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def stop(self) -> None:
        """Ctrl-C; fails when a process is left."""
        if self.process is None or self.ended:
            return
        family = self.family()
        self.process.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(family, timeout=10)
        for process in alive:
            process.kill()
        assert not alive, f"left behind: {alive}"

    def logs(self) -> str:
        """The end of every log, for a failing test."""
        parts = [self.output]
        for log in sorted(self.folder.logs.glob("*.log")):
            parts.append(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}")
        return "\n".join(parts)
