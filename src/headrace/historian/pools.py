"""Where the parts of fleet-wide work run: processes of this machine, or Ray where there is a cluster.

A pool takes a function of a module and arguments that can be pickled. Nothing that needs Polars is imported
here: a worker must know how many threads it may have before Polars begins.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any, Final, Protocol, TypeVar

from headrace.model.errors import Misconfigured

THREADS_VARIABLE: Final = "POLARS_MAX_THREADS"
Result = TypeVar("Result")


class Pool(Protocol):
    """Runs functions beside each other.

    Attributes:
        size: how many at once.
    """

    size: int

    def submit(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Queue one call."""
        ...

    def close(self) -> None:
        """Drop what waits, and end when what runs has ended."""
        ...


class LocalPool:
    """One process a core, each with one thread.

    Args:
        size: processes; 0 means one a core that this process may use.
    """

    def __init__(self, size: int = 0) -> None:
        self.size = size or len(os.sched_getaffinity(0))
        self._executor = ProcessPoolExecutor(
            self.size,
            mp_context=multiprocessing.get_context("spawn"),  # threads of ours must not be forked
            initializer=_one_thread,
        )

    def submit(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        return self._executor.submit(work, *arguments)

    def close(self) -> None:
        self._executor.shutdown(cancel_futures=True)


def _one_thread() -> None:
    os.environ[THREADS_VARIABLE] = "1"


class RayPool:
    """The nodes of a Ray cluster; they must reach the table and the data folder by the same paths.

    Args:
        address: ``auto``, or ``ray://host:10001``.

    Raises:
        Misconfigured: HIST-2103 when Ray is not installed.
    """

    def __init__(self, address: str) -> None:
        try:
            self._ray = importlib.import_module("ray")
        except ImportError as error:
            raise Misconfigured(
                "HIST-2103",
                "Ray is not installed",
                "Run: pip install headrace[ray]. Without --ray, all cores of this machine are used.",
            ) from error
        self._ray.init(address=address, runtime_env={"env_vars": {THREADS_VARIABLE: "1"}})
        self.size = int(self._ray.cluster_resources().get("CPU", 1))
        self._remotes: dict[Callable[..., Any], Any] = {}

    def submit(self, work: Callable[..., Result], *arguments: Any) -> Future[Result]:
        if work not in self._remotes:
            self._remotes[work] = self._ray.remote(work)
        found: Future[Result] = self._remotes[work].remote(*arguments).future()
        return found

    def close(self) -> None:
        self._ray.shutdown()
