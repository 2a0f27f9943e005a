"""The process in which champion and challenger score the same windows: ``python -m ... FOLDER``.

Both run through the executor that runs the app in operation, each with its own state. Effects beside samples
are dropped: a challenger proposes no work and writes to no device.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from headrace.apps.models.laid import LaidModels
from headrace.apps.runtime.executor import Executor
from headrace.apps.runtime.loading import load_module
from headrace.apps.runtime.sandbox import enclose
from headrace.model.deployment import AppDeployment
from headrace.model.errors import HeadraceError

JOB: Final = "job.json"
SAMPLES: Final = "samples.arrow"
RESULT: Final = "judged.json"
SIDES: Final = ("champion", "challenger")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be scored: the windows that come due in ``(start_us, end_us]``."""

    deployment: AppDeployment
    code: str
    start_us: int
    end_us: int
    memory_mb: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """How many samples each side gave, problems that the hooks told, or the error."""

    samples: dict[str, int] = {}
    problems: list[str] = []
    error: dict[str, str] = {}


def run(folder: Path) -> None:
    """Do the job of a folder."""
    job = msgspec.json.decode((folder / JOB).read_bytes(), type=Job)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s")
    models = {side: LaidModels(folder / side) for side in SIDES}
    enclose(Path(job.code), folder, memory_mb=job.memory_mb)
    try:
        answer = _scored(folder, job, models)
    except HeadraceError as error:
        answer = Answer(error=error.as_dict())
    fresh = folder / f"{RESULT}.new"
    fresh.write_bytes(msgspec.json.encode(answer))
    fresh.replace(folder / RESULT)


def _scored(folder: Path, job: Job, models: dict[str, LaidModels]) -> Answer:
    module = load_module(Path(job.code), job.deployment.manifest)
    samples = pl.read_ipc(folder / SAMPLES)
    given, problems = {}, []
    for side, source in models.items():
        executor = Executor(
            job.deployment.manifest, module, job.deployment, start_us=job.start_us, models=source
        )
        executor.feed(samples)
        effects = executor.advance(job.end_us)
        effects.samples.write_ipc(folder / f"{side}.arrow")
        given[side] = effects.samples.height
        problems += [f"{side}: {each.code} {each.what}" for each in effects.problems]
    return Answer(samples=given, problems=sorted(set(problems))[:20])


if __name__ == "__main__":
    run(Path(sys.argv[1]))
