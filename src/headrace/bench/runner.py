"""Runs all scenarios of a bench, several at a time, each in a worker process; bounded in time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import msgspec

from headrace.apps.models.trainee import THREADS
from headrace.bench.trial import Trial
from headrace.bench.worker import Job

LIMIT_S: Final = 600.0
JOBS_MAX: Final = 32
Tell = Callable[[str, Trial | None], None]
"""(scenario, None) when it begins, (scenario, trial) when it is over."""


class _Worker:
    """One worker process; a new one where the last was ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, job: Job, limit_s: float) -> Trial:
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit_s, end)
        timer.start()
        try:
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            timer.cancel()
        if not line:
            code = process.wait()
            self.close()
            return _lost(job, limit_s if late.is_set() else 0.0, code)
        return msgspec.json.decode(line, type=Trial)

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "headrace.bench.worker"]
        # More threads add numbers in another order: a training would give other bits on other machines.
        alone = os.environ | dict.fromkeys(THREADS, "1")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=-1, env=alone
        )
        return self._process


def _lost(job: Job, limit_s: float, code: int | None) -> Trial:
    reason = (
        f"APPS-2420 the scenario was not done within {limit_s:g} s"
        if limit_s
        else f"APPS-2421 the worker ended with code {code}"
    )
    remedy = (
        "The app is too slow, or never comes back from a hook; give more time with --limit."
        if limit_s
        else "The app ended its process, or there was no memory left."
    )
    return Trial(
        scenario=job.scenario.name,
        title=job.scenario.title,
        sha256=job.scenario.content_hash(),
        outcome="error",
        reason=reason,
        remedy=remedy,
    )


class Runner:
    """Runs jobs.

    Args:
        jobs: workers at a time. limit_s: for one scenario, by the machine's clock.
        tell: told of each scenario, from several threads.
    """

    def __init__(
        self, jobs: int = 1, *, limit_s: float = LIMIT_S, tell: Tell = lambda name, trial: None
    ) -> None:
        self._count = min(max(jobs, 1), JOBS_MAX)
        self._limit_s = limit_s
        self._tell = tell
        self._local = threading.local()
        self._workers: list[_Worker] = []
        self._is_cancelled = threading.Event()

    def run(self, jobs: Sequence[Job]) -> list[Trial]:
        """The trials in the order of the jobs; fewer when cancelled."""
        try:
            with ThreadPoolExecutor(self._count) as pool:
                futures = [pool.submit(self._one, job) for job in jobs]
                try:
                    found = [each.result() for each in futures]
                except BaseException:
                    self.cancel()
                    raise
        finally:
            for worker in self._workers:
                worker.close()
        return [each for each in found if each is not None]

    def cancel(self) -> None:
        """End what runs; :meth:`run` returns what is done."""
        self._is_cancelled.set()
        for worker in self._workers:
            worker.close()

    def _one(self, job: Job) -> Trial | None:
        if self._is_cancelled.is_set():
            return None
        worker: _Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = _Worker()
            self._workers.append(worker)
        self._tell(job.scenario.name, None)
        trial = worker.run(job, self._limit_s)
        if self._is_cancelled.is_set():
            return None
        self._tell(job.scenario.name, trial)
        return trial
