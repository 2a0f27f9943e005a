"""The app's package is no installed one: its folder is put on the path for these tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("lightgbm", reason="the extra headrace[health] is not installed")
pytest.importorskip("sklearn", reason="the extra headrace[health] is not installed")
pytest.importorskip("skl2onnx", reason="the extra headrace[health] is not installed")
pytest.importorskip("onnxmltools", reason="the extra headrace[health] is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "apps" / "asset-health"))
