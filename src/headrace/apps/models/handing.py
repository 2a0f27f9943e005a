"""How the process of an app gets its models: a folder that the platform writes and the app reads.

The process sees neither the metadata nor the data folder. The platform lays into the app's folder what the app
may use now, by :func:`lay_models`; :class:`LaidModels` in the process takes up a change at the next window::

    <name>.json        which file, which version, which columns; replaced whole
    <sha256>.onnx      the bytes; never changed
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from headrace.apps.models.record import ModelRecord
from headrace.apps.models.registry import ModelRegistry
from headrace.apps.models.scoring import OnnxModel
from headrace.security.files import write_whole


class Laid(msgspec.Struct, frozen=True, kw_only=True):
    """One model as it is laid out."""

    sha256: str
    version: int
    inputs: list[str]


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


class LaidModels:
    """Models of a folder, for the hooks of an app; loaded once a version.

    Args:
        folder: that :func:`lay_models` writes.

    Raises on a call:
        Misconfigured: APPS-2501 when ``onnxruntime`` is not installed.
        Corrupt: APPS-2504 when the bytes cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, tuple[Laid, OnnxModel]] = {}

    def __call__(self, name: str) -> OnnxModel | None:
        """The model of that name that is in use now; None when there is none."""
        try:
            body = (self._folder / f"{name}.json").read_bytes()
        except FileNotFoundError:
            return None
        laid = msgspec.json.decode(body, type=Laid)
        known = self._loaded.get(name)
        if known is None or known[0] != laid:
            content = (self._folder / f"{laid.sha256}.onnx").read_bytes()
            known = laid, OnnxModel(content, laid.inputs, str(laid.version))
            self._loaded[name] = known
        return known[1]
