"""The apps role as a process of its own, to be killed, and samples for it."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from headrace.cli.processes import ROLE_ENVIRONMENT
from headrace.cli.run import keep_site
from headrace.model.folder import DataFolder


class Process:
    """``headrace run apps``, as the supervisor starts it."""

    def __init__(self, folder: DataFolder, *arguments: str) -> None:
        keep_site(folder, "acme", "mill")
        self._arguments = arguments
        self._folder = folder
        self._log = folder.root / "apps.log"
        self._start()

    def _start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "headrace",
            "run",
            "apps",
            "--data",
            str(self._folder.root),
            *self._arguments,
        ]
        source = Path(__file__).resolve().parents[2] / "src"
        environment = {**os.environ, **ROLE_ENVIRONMENT, "PYTHONPATH": str(source)}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    def kill(self) -> None:
        """``kill -9``, and another one at once."""
        self.process.kill()
        self.process.wait()
        self._start()

    async def stop(self) -> None:
        self.process.terminate()
        await asyncio.to_thread(self.process.wait, 30)

    @property
    def log(self) -> str:
        return self._log.read_text()[-3_000:]


async def load(poll: Callable[..., Awaitable[int]], stop: asyncio.Event, seed: int) -> None:
    """Twenty polls a second; one in ten brings a late or a corrected sample too."""
    chance, times = random.Random(seed), []
    while not stop.is_set():
        times.append(await poll())
        if chance.random() < 0.1 and len(times) > 20:
            back_us = chance.choice([0, 17_000])
            await poll(at_us=chance.choice(times[-60:]) + back_us, seed=len(times))
        await asyncio.sleep(0.05)
