"""Drift of a model on a site: the app's quantities and outputs, now and in the time that it was trained on."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
import polars as pl

from headrace.apps.models.drift import ALPHA, Drift, Kind, added, judge_frames
from headrace.apps.models.history import Asked, check_asked, parts_of, read_part
from headrace.apps.models.record import ModelRecord
from headrace.historian.reader import Reader
from headrace.historian.times import parse_duration
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.errors import Misconfigured

PARTS: Final = 16
"""Quantities that a part of the assets is sized for."""


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """One look at a model.

    Attributes:
        end_us, stretch_us: the newest stretch. alpha: false alarms, as a share of looks at a quantity.
        by_chance: how many of the quantities that can tell would be told by chance alone, at most.
        p: of the model as a whole: in which share of stretches, this one and the blocks of the training, at
            least as many quantities are told; quantities that move together count as what they are.
    """

    app: str
    model: str
    version: int
    end_us: int
    stretch_us: int
    alpha: float
    by_chance: float
    p: float
    quantities: list[Drift]

    @property
    def drifted(self) -> list[Drift]:
        """What is told."""
        return [each for each in self.quantities if each.drifted]


def look_for_drift(
    reader: Reader,
    deployment: AppDeployment,
    record: ModelRecord,
    end_us: int,
    stretch_us: int,
    alpha: float = ALPHA,
) -> Watched:
    """Compare the stretch that ends at ``end_us`` with the training window of a model.

    Inputs are compared with the training window. Outputs are compared with what the app gave in it too, which
    is there when the app worked then or was back-filled; where there is nothing, outputs are left out.

    Raises:
        Misconfigured: APPS-2536 when the model has no training window here, or its assets are gone;
            APPS-2521 when a stretch has no rows.
    """
    window = record.window
    types = {each.path: each.type for each in deployment.assets}
    assets = sorted(set(window.assets) & set(types)) if window is not None else []
    if window is None or not assets:
        raise Misconfigured(
            "APPS-2536",
            f"model {record.app}/{record.name} version {record.version} was not trained on assets of "
            "this site",
            "Train it here: headrace model train",
        )
    step_us = parse_duration(window.every)
    found: list[Drift] = []
    counts = np.zeros(0, np.int64)
    for kind in sorted({types[path] for path in assets}):
        chosen = tuple(path for path in assets if types[path] == kind)
        spans = ((window.start_us, window.end_us), (end_us - stretch_us, end_us))
        sides: tuple[tuple[Kind, AppDeployment], ...] = (
            ("input", deployment),
            ("output", outputs_as_inputs(deployment)),
        )
        for side, app in sides:
            for part in parts_of(chosen, _asked(kind, chosen, spans[0], step_us), PARTS):
                before, now = (_frame(reader, app, kind, part, span, step_us) for span in spans)
                judged, told = judge_frames(before, now, side, alpha)
                found += judged
                counts = added(counts, told)
    drifted = sum(each.drifted for each in found)
    return Watched(
        app=record.app,
        model=record.name,
        version=record.version,
        end_us=end_us,
        stretch_us=stretch_us,
        alpha=alpha,
        by_chance=alpha * sum(each.can_tell for each in found),
        p=float((1 + (counts >= drifted).sum()) / (1 + len(counts))),
        quantities=found,
    )


def _frame(
    reader: Reader,
    deployment: AppDeployment,
    kind: str,
    assets: tuple[str, ...],
    span: tuple[int, int],
    step_us: int,
) -> pl.DataFrame:
    asked = _asked(kind, assets, span, step_us)
    frame = read_part(reader, deployment, asked, check_asked(deployment, asked))
    status = [name for name in frame.columns if name.endswith("_status")]
    return frame.drop("held_out", *status)


def _asked(kind: str, assets: tuple[str, ...], span: tuple[int, int], step_us: int) -> Asked:
    return Asked(
        type=kind,
        start_us=span[0],
        end_us=span[1],
        held_out_us=span[1] - 1,
        step_us=step_us,
        assets=assets,
    )


def outputs_as_inputs(deployment: AppDeployment) -> AppDeployment:
    """The same app as if its outputs were its quantities, so that one way reads both."""
    manifest = deployment.manifest
    types = {
        name: msgspec.structs.replace(
            kind,
            quantities={o.name: o.unit for o in manifest.outputs if o.type == name},
            optional={},
        )
        for name, kind in manifest.types.items()
    }
    assets = tuple(_with_outputs(asset) for asset in deployment.assets)
    return msgspec.structs.replace(
        deployment, manifest=msgspec.structs.replace(manifest, types=types), assets=assets
    )


def _with_outputs(asset: BoundAsset) -> BoundAsset:
    return msgspec.structs.replace(asset, tags=asset.outputs, units={})
