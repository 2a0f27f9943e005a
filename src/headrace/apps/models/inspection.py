"""Whether ONNX bytes may be kept: the child process of :mod:`headrace.apps.models.probe` looks at them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Final

import msgspec

from headrace.apps.models.operators import SIZE_MAX
from headrace.model.errors import Misconfigured, Refused

PATIENCE_S: Final = 120.0


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """What a file is: columns of its rows and of its results, and the operators that it uses."""

    columns: int = 0
    outputs: int = 0
    operators: tuple[str, ...] = ()
    refused: str = ""


def need_libraries() -> None:
    """Pass when the libraries of models are installed.

    Raises:
        Misconfigured: APPS-2501 when they are not.
    """
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise Misconfigured(
            "APPS-2501",
            f"models need {' and '.join(missing)}, not installed here",
            "Run: pip install 'headrace[models]'.",
        )


def inspect_onnx(content: bytes, what: str) -> Inspected:
    """Look at a file in a process of its own.

    Args:
        what: how messages name it.

    Raises:
        Misconfigured: APPS-2501 when the libraries are not installed.
        Refused: APPS-2502 when it is too large, APPS-2503 when it may not be kept.
    """
    need_libraries()
    if not 0 < len(content) <= SIZE_MAX:
        raise Refused(
            "APPS-2502",
            f"{what} has {len(content):,} bytes; 1 to {SIZE_MAX:,} are possible",
            "Make a smaller model: fewer trees or layers.",
        )
    command = [sys.executable, "-m", "headrace.apps.models.probe"]
    try:
        done = subprocess.run(
            command,
            check=False,
            input=content,
            capture_output=True,
            timeout=PATIENCE_S,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(what, f"it was not done within {PATIENCE_S:.0f} s") from error
    if done.returncode != 0:
        told = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _refused(what, f"looking at it ended with {done.returncode} ({(told or ['-'])[-1]})")
    found = msgspec.json.decode(done.stdout, type=Inspected)
    if found.refused:
        raise _refused(what, found.refused)
    return found


def _refused(what: str, why: str) -> Refused:
    return Refused(
        "APPS-2503",
        f"{what} is refused: {why}",
        "Export it again as ONNX with standard operators and one input of rows (docs/models.md).",
    )
