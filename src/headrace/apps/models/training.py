"""Training: the app's own function, in a process of its own with budgets, on a frame of the past.

::

    models/work/<job>/part-*.arrow   the past, part by part; a run that was ended goes on with what is there
                     history.arrow   all of it, and job.json: what the process is to do
                     trained.mp      what the process gave; a run that was killed after it only registers it

The last part of the time is marked ``held_out`` in the frame: the app fits on the rest and measures there. It
is not left to trust: with ``prove`` the function runs a second time with the held-out rows emptied, and only
when the same ONNX bytes come out the record says so.
"""

from __future__ import annotations

import hashlib
import shutil
import threading
from pathlib import Path

import msgspec
import polars as pl

from headrace import __version__
from headrace.apps.models import trainee
from headrace.apps.models.baseline import build_baseline
from headrace.apps.models.history import Asked, Told, frame_hash, read_history
from headrace.apps.models.process import Lines, run_process
from headrace.apps.models.record import DataWindow, Lineage, ModelRecord
from headrace.apps.models.registry import ModelRegistry
from headrace.historian.pools import Pool
from headrace.historian.reader import Reader
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Misconfigured, error_from_dict
from headrace.model.folder import DataFolder
from headrace.model.status import BAD_NO_DATA


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What a training may take: memory of its process, and time."""

    memory_mb: int = 2048
    seconds: float = 3600.0


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One training.

    Attributes:
        model: name of the manifest. seed: given to the app as the setting ``seed``. every: as people wrote it.
        prove: run twice to prove that what was held out has no part in the model. by: who asked.
    """

    model: str
    asked: Asked
    by: str
    every: str = "1min"
    seed: int = 0
    prove: bool = False
    budget: Budget = Budget()


class _Steps:
    """How far the app's function is: of each run all assets, or the run alone where it is not per asset."""

    def __init__(self, told: Told) -> None:
        self._told = told
        self.begin(1)

    def begin(self, runs: int) -> None:
        self._runs, self._done, self._of = runs, 0, 1

    def step(self, done: int, of: int) -> None:
        self._of = of
        self._told(self._done * of + done, self._runs * of)

    def end_run(self) -> None:
        self._done += 1
        self._told(self._done * self._of, self._runs * self._of)


class Trainer:
    """Trains models of one installed app.

    Args:
        folder: data folder. registry: where the result is kept. deployment: of the app.
        code: folder of the unpacked package. told: parts of the past. trained: runs of the app's function,
            and assets of a model that is per asset. line: what the app's log says.
    """

    def __init__(
        self,
        folder: DataFolder,
        registry: ModelRegistry,
        deployment: AppDeployment,
        code: Path,
        *,
        told: Told = lambda done, of: None,
        trained: Told = lambda done, of: None,
        line: Lines = lambda text: None,
    ) -> None:
        self._folder = folder
        self._registry = registry
        self._deployment = deployment
        self._code = code
        self._told = told
        self._steps = _Steps(trained)
        self._line = line

    def train(
        self,
        reader: Reader,
        wanted: Wanted,
        pool: Pool | None = None,
        cancelled: threading.Event | None = None,
    ) -> list[ModelRecord]:
        """Read the past, train, and keep the model as a new version that is not used yet; where the app
        trains it per asset, that of all first, then one an asset.

        Args:
            cancelled: when set, the process is ended; what was read stays for the next try.

        Raises:
            Misconfigured: APPS-2520, APPS-2521, APPS-2522 when the manifest names no such model, and what
                :meth:`ModelRegistry.add` says.
            Refused: APPS-2523 when it took more than its budget, APPS-2524 when it was cancelled, and what
                the registry refuses.
            Terminal: APPS-2525 when the process ended without a result; else what the app's code raised.
        """
        manifest = self._deployment.manifest
        if wanted.model not in manifest.models:
            raise Misconfigured(
                "APPS-2522",
                f"{manifest.id} {manifest.version} has no model {wanted.model!r}",
                f"Its models: {', '.join(manifest.models) or 'none'}.",
            )
        cancelled = cancelled or threading.Event()
        work = self._folder.models / "work" / self._job_id(wanted)
        frame = read_history(
            reader, self._folder, self._deployment, wanted.asked, work, pool, self._told
        )
        self._steps.begin(2 if wanted.prove else 1)
        answer = self._run(work, "first", frame, wanted, cancelled)
        proven: set[str] = set()
        if wanted.prove:
            again = self._run(work, "again", emptied(frame), wanted, cancelled).trained
            proven = {
                asset
                for asset, made in answer.trained.items()
                if asset in again and again[asset].onnx == made.onnx
            }
        records = [
            self._keep(wanted, frame, asset, answer, is_proven=asset in proven)
            for asset in sorted(answer.trained)
        ]
        shutil.rmtree(work)
        return records

    def _job_id(self, wanted: Wanted) -> str:
        about = (self._deployment.content_hash(), msgspec.json.encode(wanted).decode())
        return hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]

    def _run(
        self, work: Path, name: str, frame: pl.DataFrame, wanted: Wanted, cancelled: threading.Event
    ) -> trainee.Answer:
        place = work / name
        result = place / trainee.RESULT
        if not result.exists():
            place.mkdir(exist_ok=True)
            frame.write_ipc(place / trainee.HISTORY, compression="lz4")
            job = trainee.Job(
                deployment=self._deployment,
                code=str(self._code),
                model=wanted.model,
                type=wanted.asked.type,
                seed=wanted.seed,
                at_us=wanted.asked.end_us,
                memory_mb=wanted.budget.memory_mb,
            )
            (place / trainee.JOB).write_bytes(msgspec.json.encode(job))
            run_process(
                trainee.__name__,
                place,
                trainee.RESULT,
                f"the training of {self._deployment.manifest.id}/{wanted.model}",
                seconds=wanted.budget.seconds,
                cancelled=cancelled,
                line=self._hear,
            )
        answer = msgspec.msgpack.decode(result.read_bytes(), type=trainee.Answer)
        if answer.error:
            shutil.rmtree(place)
            raise error_from_dict(answer.error)
        self._steps.end_run()
        return answer

    def _hear(self, text: str) -> None:
        if text.startswith(trainee.STEP):
            done, of = text.removeprefix(trainee.STEP).split()
            self._steps.step(int(done), int(of))
        else:
            self._line(text)

    def _keep(
        self,
        wanted: Wanted,
        frame: pl.DataFrame,
        asset: str,
        answer: trainee.Answer,
        *,
        is_proven: bool,
    ) -> ModelRecord:
        manifest, asked, trained = self._deployment.manifest, wanted.asked, answer.trained[asset]
        if asset:
            frame = frame.filter(pl.col("asset") == asset)
        assets = set(frame["asset"].unique())
        tags = {t for a in self._deployment.assets if a.path in assets for t in a.tags.values()}
        parent = self._registry.in_use(manifest.id, wanted.model, "champion", asset)
        baseline = None
        if answer.sight is not None:
            span_us = asked.start_us, asked.end_us
            baseline = build_baseline(frame, span_us, asked.step_us, answer.sight)
        return self._registry.add(
            manifest.id,
            wanted.model,
            trained.onnx,
            trained.inputs,
            by=wanted.by,
            metrics=trained.metrics,
            asset=asset,
            baseline=msgspec.msgpack.encode(baseline) if baseline is not None else b"",
            window=DataWindow(
                start_us=asked.start_us,
                end_us=asked.end_us,
                held_out_us=asked.held_out_us,
                every=wanted.every,
                assets=tuple(sorted(assets)),
                tags=tuple(sorted(tags)),
                rows=frame.height,
                frames_sha256=frame_hash(frame),
            ),
            lineage=Lineage(
                app_version=manifest.version,
                code_sha256=self._deployment.package_sha256,
                parent=parent.sha256 if parent is not None else "",
                platform=__version__,
                by=wanted.by,
                seed=wanted.seed,
                proven=is_proven,
            ),
        )


def emptied(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with nothing in what is held out: the rows are there, their quantities say BadNoData."""
    rest = [name for name in frame.columns if name not in ("asset", "time", "held_out")]
    nothing = {name: BAD_NO_DATA if name.endswith("_status") else None for name in rest}
    return frame.with_columns(
        pl.when(~pl.col("held_out"))
        .then(pl.col(name))
        .otherwise(pl.lit(nothing[name], frame.schema[name]))
        .alias(name)
        for name in rest
    )
