"""How the process of an app gets its models: the platform lays into its folder what it may use now.

The process sees neither the metadata nor the data folder. :class:`headrace.apps.models.laid.LaidModels` in it
takes up a change at the next window.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from headrace.apps.models.laid import FOLDER, SHADOW, Laid
from headrace.apps.models.record import ModelRecord, ModelState
from headrace.apps.models.registry import ModelRegistry, open_models
from headrace.model.app_manifest import AppManifest
from headrace.model.errors import HeadraceError
from headrace.model.folder import DataFolder
from headrace.security.files import write_whole

FOLLOW_S: Final = 10.0
_log = logging.getLogger("headrace.apps.models")


Used = dict[tuple[str, str], ModelRecord]
"""(name, asset; empty: all) -> version in use."""


def used_by(
    registry: ModelRegistry, app: str, names: Iterable[str], state: ModelState = "champion"
) -> Used:
    """The champions, or challengers, of an app's models; those without one are left out."""
    known = set(names)
    found = [each for each in registry.models(app) if each.state == state and each.name in known]
    return {(each.name, each.asset): each for each in found}


def lay_models(
    registry: ModelRegistry,
    used: Mapping[tuple[str, str], ModelRecord],
    names: Iterable[str],
    to: Path,
) -> bool:
    """Write what an app uses now to a folder; gives whether something changed.

    Args:
        used: versions in use. names: all models of the app; those not in use are taken away.

    Raises:
        Corrupt: APPS-2512 when a file is not what it was; what was laid before stays.
    """
    changed = False
    for name in names:
        file = to / f"{name}.json"
        records = [used[key] for key in sorted(used) if key[0] == name]
        if not records:
            changed = changed or file.exists()
            file.unlink(missing_ok=True)
            continue
        body = msgspec.json.encode([_laid(each) for each in records])
        if file.is_file() and file.read_bytes() == body:
            continue
        for record in records:
            _lay_files(registry, record, to)
        write_whole(file, body, mode=0o644)
        changed = True
    return changed


def _laid(record: ModelRecord) -> Laid:
    has_baseline = record.window is not None and not record.lineage.imported
    return Laid(
        sha256=record.sha256,
        version=record.version,
        inputs=list(record.inputs),
        asset=record.asset,
        baseline=record.window.baseline_sha256 if record.window and has_baseline else "",
    )


def _lay_files(registry: ModelRegistry, record: ModelRecord, to: Path) -> None:
    write_whole(to / f"{record.sha256}.onnx", registry.content(record), mode=0o644)
    name = _laid(record).baseline
    if content := registry.baseline(record) if name else b"":
        write_whole(to / f"{name}.baseline", content, mode=0o644)


def hand_over(folder: DataFolder, manifest: AppManifest, files: Path) -> bool:
    """Lay what an app uses now into the folder of its files; gives whether something changed.

    Raises:
        Corrupt: APPS-2512 as :func:`lay_models`. Terminal: APPS-2510 when the registry cannot be opened.
    """
    names, to = manifest.models, files / FOLDER
    with open_models(folder) as registry:
        champions = used_by(registry, manifest.id, names)
        challengers = used_by(registry, manifest.id, names, "challenger")
        changed = lay_models(registry, champions, names, to)
        return lay_models(registry, challengers, names, to / SHADOW) or changed


Hand = Callable[[DataFolder, AppManifest, Path], bool]
"""Lays what an app uses now into the folder of its files, and gives whether something changed."""


async def follow_models(
    folder: DataFolder, manifest: AppManifest, files: Path, hand: Hand = hand_over
) -> None:
    """Hand over what is promoted later, until it is cancelled; what fails is told and tried again."""
    told = ""
    while manifest.models:
        await asyncio.sleep(FOLLOW_S)
        try:
            if await asyncio.to_thread(hand, folder, manifest, files):
                _log.info("%s takes up other models", manifest.id)
            told = ""
        except HeadraceError as error:
            if error.code != told:
                _log.error("%s: %s", manifest.id, error)
            told = error.code
