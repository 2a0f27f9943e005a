"""The models of an app as its process finds them: a folder that the platform writes and the app only reads::

<name>.json          which files, which versions, which columns; replaced whole
<sha256>.onnx        the bytes; never changed
<sha256>.baseline    what its inputs looked like in its training; never changed
shadow/<name>.json   the same of its challengers
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from headrace.app.records import Model
from headrace.apps.models.baseline import Baseline
from headrace.apps.models.scoring import OnnxModel
from headrace.apps.runtime.shelf import Use

FOLDER: Final = ".models"
"""In the folder of the app's files."""
SHADOW: Final = "shadow"
"""In that folder: challengers."""


class Laid(msgspec.Struct, frozen=True, kw_only=True):
    """One model as it is laid out.

    Attributes:
        asset: path of the one that it is for; empty: all that have none of their own.
        baseline: SHA-256 of it; empty: none.
    """

    sha256: str
    version: int
    inputs: list[str]
    asset: str = ""
    baseline: str = ""


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
        self._known: dict[tuple[str, str], tuple[bytes, list[Use]]] = {}

    def __call__(self, name: str) -> Model | None:
        """The model of that name that all assets use now; None when there is none."""
        found = self.uses(name)
        return next((each.model for each in found if not each.asset), None)

    def uses(self, name: str, side: Literal["champion", "challenger"] = "champion") -> list[Use]:
        """The models of that name that are in use now: that of all assets first, then those of one each."""
        folder = self._folder / SHADOW if side == "challenger" else self._folder
        try:
            body = (folder / f"{name}.json").read_bytes()
        except FileNotFoundError:
            self._known.pop((name, side), None)
            return []
        known = self._known.get((name, side))
        if known is None or known[0] != body:
            laid = msgspec.json.decode(body, type=list[Laid])
            known = body, [self._load(folder, each) for each in laid]
            self._known[name, side] = known
        return known[1]

    @staticmethod
    def _load(folder: Path, laid: Laid) -> Use:
        content = (folder / f"{laid.sha256}.onnx").read_bytes()
        baseline = None
        file = folder / f"{laid.baseline}.baseline"
        if laid.baseline and file.is_file():
            baseline = msgspec.msgpack.decode(file.read_bytes(), type=Baseline)
        model = OnnxModel(content, laid.inputs, str(laid.version))
        return Use(model=model, asset=laid.asset, baseline=baseline)
