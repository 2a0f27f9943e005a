"""Where the shared recordings are; tests that need them skip where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parent.parent


def data_folder(name: str) -> Path:
    """The folder of one data set, or a skip with the reason."""
    root = Path(os.environ.get("HEADRACE_DATA", _REPOSITORY.parent / "shared" / "data"))
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}; set HEADRACE_DATA")
    return folder
