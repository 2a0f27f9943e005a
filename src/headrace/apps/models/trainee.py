"""The process in which an app trains: ``python -m headrace.apps.models.trainee FOLDER``.

It reads the job and the past from the folder, gives up all rights that it does not need, runs the app's
function and writes what came out, whole or not at all.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from headrace.app.records import Trained
from headrace.apps.models.baseline import Sight
from headrace.apps.runtime.executor import Executor
from headrace.apps.runtime.loading import load_module
from headrace.apps.runtime.sandbox import enclose
from headrace.model.deployment import AppDeployment
from headrace.model.errors import HeadraceError, Terminal

HISTORY: Final = "history.arrow"
JOB: Final = "job.json"
RESULT: Final = "trained.mp"
STEP: Final = "headrace-step "
"""Begins a line of the log that says which asset was trained, of how many."""
_log = logging.getLogger("headrace.apps.models")
THREADS: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done; see :class:`headrace.apps.models.training.Wanted`. ``type``: of the assets."""

    deployment: AppDeployment
    code: str
    model: str
    type: str
    seed: int
    at_us: int
    memory_mb: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came out, or the error as :meth:`HeadraceError.as_dict` has it.

    Attributes:
        trained: by path of the asset that it is for; empty: for all.
        sight: windows in which the model will see its inputs; None: no hook scores with it.
    """

    trained: dict[str, Trained] = {}
    sight: Sight | None = None
    error: dict[str, str] = {}


def run(folder: Path) -> None:
    """Do the job of a folder."""
    job = msgspec.json.decode((folder / JOB).read_bytes(), type=Job)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    enclose(Path(job.code), folder, memory_mb=job.memory_mb)
    try:
        answer = trained(folder, job)
    except HeadraceError as error:
        answer = Answer(error=error.as_dict())
    fresh = folder / f"{RESULT}.new"
    fresh.write_bytes(msgspec.msgpack.encode(answer))
    fresh.replace(folder / RESULT)


def trained(folder: Path, job: Job) -> Answer:
    """What the app's function makes of the past in a folder.

    Raises:
        HeadraceError: that of the model of all assets; an asset that fails alone is left out.
    """
    settings = {**job.deployment.settings, "seed": job.seed}
    deployment = msgspec.structs.replace(job.deployment, settings=settings)
    module = load_module(Path(job.code), deployment.manifest)
    executor = Executor(deployment.manifest, module, deployment)
    history = pl.read_ipc(folder / HISTORY)
    found = {"": executor.train(job.model, history, job.at_us)}
    if executor.trains(job.model).per_asset:
        parts = history.partition_by("asset", as_dict=True, maintain_order=True)
        for number, ((asset,), part) in enumerate(sorted(parts.items()), 1):
            try:
                found[str(asset)] = executor.train(job.model, part, job.at_us, str(asset))
            except Terminal as error:
                _log.warning("%s has no model of its own: %s", asset, error.what)
            _log.info("%s%s %s", STEP, number, len(parts))
    return Answer(trained=found, sight=executor.sight(job.model, job.type))


if __name__ == "__main__":
    os.environ.update(dict.fromkeys(THREADS, "1"))
    run(Path(sys.argv[1]))
