"""The models of an app as its process finds them: a folder that the platform writes and the app only reads::

<name>.json        which file, which version, which columns; replaced whole
<sha256>.onnx      the bytes; never changed
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from headrace.apps.models.scoring import OnnxModel

FOLDER: Final = ".models"
"""In the folder of the app's files."""


class Laid(msgspec.Struct, frozen=True, kw_only=True):
    """One model as it is laid out."""

    sha256: str
    version: int
    inputs: list[str]


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
