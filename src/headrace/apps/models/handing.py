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

from headrace.apps.models.laid import FOLDER, Laid
from headrace.apps.models.record import ModelRecord
from headrace.apps.models.registry import ModelRegistry, open_models
from headrace.model.app_manifest import AppManifest
from headrace.model.errors import HeadraceError
from headrace.model.folder import DataFolder
from headrace.security.files import write_whole

FOLLOW_S: Final = 10.0
_log = logging.getLogger("headrace.apps.models")


def used_by(registry: ModelRegistry, app: str, names: Iterable[str]) -> dict[str, ModelRecord]:
    """The champions of an app's models, by name; those without one are left out."""
    champions = {each.name: each for each in registry.models(app) if each.state == "champion"}
    return {name: champions[name] for name in names if name in champions}


def lay_models(
    registry: ModelRegistry, used: Mapping[str, ModelRecord], names: Iterable[str], to: Path
) -> bool:
    """Write what an app uses now to a folder; gives whether something changed.

    Args:
        used: name -> version in use. names: all models of the app; those not in use are taken away.

    Raises:
        Corrupt: APPS-2512 when a file is not what it was; what was laid before stays.
    """
    changed = False
    for name in names:
        file = to / f"{name}.json"
        record = used.get(name)
        if record is None:
            changed = changed or file.exists()
            file.unlink(missing_ok=True)
            continue
        laid = Laid(sha256=record.sha256, version=record.version, inputs=list(record.inputs))
        body = msgspec.json.encode(laid)
        if file.is_file() and file.read_bytes() == body:
            continue
        write_whole(to / f"{record.sha256}.onnx", registry.content(record), mode=0o644)
        write_whole(file, body, mode=0o644)
        changed = True
    return changed


def hand_over(folder: DataFolder, manifest: AppManifest, files: Path) -> bool:
    """Lay what an app uses now into the folder of its files; gives whether something changed.

    Raises:
        Corrupt: APPS-2512 as :func:`lay_models`. Terminal: APPS-2510 when the registry cannot be opened.
    """
    with open_models(folder) as registry:
        used = used_by(registry, manifest.id, manifest.models)
        return lay_models(registry, used, manifest.models, files / FOLDER)


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
