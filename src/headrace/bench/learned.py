"""Models of an app on the bench: a file that comes with the scenario, or trained by the app's own hook on the
scenario's first part."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

import msgspec
import numpy as np
import polars as pl

from headrace.app.hooks import hooks_of
from headrace.app.records import Trained
from headrace.apps.models.history import ROWS_MAX
from headrace.apps.models.inspection import need_libraries
from headrace.apps.models.operators import SIZE_MAX
from headrace.apps.models.scoring import OnnxModel
from headrace.apps.runtime.executor import Executor
from headrace.apps.runtime.frames import Shape
from headrace.apps.runtime.store import Store
from headrace.bench.ground import Ground
from headrace.bench.scenario import LearnedModel, Scenario, Training
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Misconfigured, Refused
from headrace.model.sample import microseconds
from headrace.model.time import US_PER_S

Load = Callable[[], ModuleType]
_SHOWN: Final = 12


class Models:
    """The models that hooks find, each from a moment of the scenario on.

    Args:
        found: name -> model. from_us: name -> since when it is there.
        notes: what the report says of them.

    Attributes:
        now_us: until where the scenario has come.
    """

    def __init__(
        self,
        found: Mapping[str, OnnxModel] | None = None,
        from_us: Mapping[str, int] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self._found = dict(found or {})
        self._from_us = dict(from_us or {})
        self.notes = tuple(notes)
        self.now_us = 0

    def __call__(self, name: str) -> OnnxModel | None:
        """The model of that name; None when there is none yet."""
        return self._found.get(name) if self.now_us >= self._from_us.get(name, 0) else None

    def moments(self, after_us: int, to_us: int) -> list[int]:
        """When models come up in this time, and its end, in order.

        Example:
            >>> Models(from_us={"a": 30, "b": 90}).moments(10, 60)
            [30, 60]
        """
        return sorted({to_us, *(us for us in self._from_us.values() if after_us < us < to_us)})


def learn(
    scenario: Scenario, folder: Path, ground: Ground, deployment: AppDeployment, load: Load
) -> Models:
    """Get the models that a scenario names.

    Args:
        folder: that model files are below. load: gives the app's Python.

    Raises:
        Misconfigured: APPS-2466 when a model is not the app's, or its file or training part cannot be;
            APPS-2501 when the libraries of models are not installed; APPS-2217 when the app does not train it.
        Refused: APPS-2467 when a platform would not take it.
        HeadraceError: what the app's training raised.
    """
    found: dict[str, OnnxModel] = {}
    from_us: dict[str, int] = {}
    notes = [
        f"Model {name}: none, so its hooks give nothing."
        for name in deployment.manifest.models
        if name not in scenario.model
    ]
    for name, asked in scenario.model.items():
        if name not in deployment.manifest.models:
            raise _unfit(scenario, name, f"{deployment.manifest.id} has no model of that name")
        need_libraries()
        if asked.train is None:
            trained = _of_file(scenario, name, asked, folder)
            from_us[name], how = 0, f"from {asked.file}"
        else:
            trained = _trained(scenario, name, asked.train, ground, deployment, load)
            # A window that ends with the training part is part of it, and is asked for a little later.
            until_us = ground.start_us + round(asked.train.until_s * US_PER_S)
            from_us[name] = until_us + _lateness_us(name, load) + 1
            how = f"trained on second {asked.train.from_s:g} to {asked.train.until_s:g}"
        _check(scenario, name, trained)
        found[name] = OnnxModel(trained.onnx, trained.inputs, "1")
        notes.append(_note(name, how, trained))
    return Models(found, from_us, notes)


def _lateness_us(name: str, load: Load) -> int:
    """How long after its end a window is given to the hooks that score with this model."""
    hooks = [each for each in hooks_of(load()) if (each.kind, each.model) == ("score", name)]
    return max((each.lateness_us for each in hooks), default=0)


def _note(name: str, how: str, trained: Trained) -> str:
    digest = hashlib.sha256(trained.onnx).hexdigest()[:_SHOWN]
    figures = ", ".join(f"{n} {value:.6g}" for n, value in sorted(trained.metrics.items()))
    held_out = f", on what was held out: {figures}" if figures else ""
    return f"Model {name}: {how}, {len(trained.onnx)} bytes, SHA-256 {digest}{held_out}."


def _of_file(scenario: Scenario, name: str, asked: LearnedModel, folder: Path) -> Trained:
    path = folder / asked.file
    if not path.is_file():
        raise _unfit(scenario, name, f"there is no file {path}")
    if path.stat().st_size > SIZE_MAX:
        raise _unfit(scenario, name, f"{path} has more than {SIZE_MAX:,} bytes")
    return Trained(onnx=path.read_bytes(), inputs=list(asked.inputs))


def _trained(
    scenario: Scenario,
    name: str,
    asked: Training,
    ground: Ground,
    deployment: AppDeployment,
    load: Load,
) -> Trained:
    frame = _history(scenario, name, asked, ground, deployment)
    settings = {**deployment.settings, "seed": asked.seed}
    seeded = msgspec.structs.replace(deployment, settings=settings)
    until_us = ground.start_us + round(asked.until_s * US_PER_S)
    return Executor(deployment.manifest, load(), seeded).train(name, frame, until_us)


def _history(
    scenario: Scenario, name: str, asked: Training, ground: Ground, deployment: AppDeployment
) -> pl.DataFrame:
    """The frame that a training of the platform gets, of the scenario's first part."""
    bound = [
        each
        for each in deployment.assets
        if each.type == asked.type and (not asked.assets or each.path in asked.assets)
    ]
    start_us, until_us = (
        ground.start_us + round(second * US_PER_S) for second in (asked.from_s, asked.until_s)
    )
    step_us = round(asked.every_s * US_PER_S)
    count = max(-(-(until_us - start_us) // step_us), 0)
    if not bound:
        raise _unfit(scenario, name, f"no asset is bound to the type {asked.type}")
    if until_us > ground.end_us or not 0 < count * len(bound) <= ROWS_MAX:
        raise _unfit(
            scenario, name, f"second {asked.from_s:g} to {asked.until_s:g} is no part of it"
        )
    shape = Shape(deployment.manifest, asked.type, bound)
    store = Store(np.array(sorted(shape.tag_ids), np.int64))
    known = microseconds(ground.samples["received_timestamp"]) < until_us
    store.put(ground.samples.filter(pl.Series(known)))
    frame = shape.frame(store, start_us, step_us, count)
    held_out_us = until_us - round((until_us - start_us) * asked.held_out)
    held_out = microseconds(frame["time"]) >= held_out_us
    return frame.insert_column(2, pl.Series("held_out", held_out))


def _check(scenario: Scenario, name: str, trained: Trained) -> None:
    """Hold a model against what a platform takes; here, as the worker is a process of its own already."""
    # It needs the libraries of models, which not every installation has.
    probe = importlib.import_module("headrace.apps.models.probe")
    try:
        found = probe.look(trained.onnx)
    except probe.Bad as error:
        raise Refused(
            "APPS-2467",
            f"model {name} of scenario {scenario.name} would be refused: {error}",
            "Export it as docs/models.md says.",
        ) from error
    if found["columns"] != len(trained.inputs):
        raise Refused(
            "APPS-2467",
            f"model {name} of scenario {scenario.name} has {found['columns']} columns, and"
            f" {len(trained.inputs)} are named",
            "Name the columns of a row, in order: inputs = [...].",
        )


def _unfit(scenario: Scenario, name: str, what: str) -> Misconfigured:
    return Misconfigured(
        "APPS-2466",
        f"model {name} of scenario {scenario.name} cannot be had: {what}",
        "Correct [model] of the scenario.",
    )
