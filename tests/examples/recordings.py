"""The examples' scripts as modules, and areas below steps worked out with NumPy alone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def script(name: str) -> ModuleType:
    """``examples/<name>/run.py``."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / name / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def area_between(at_us: np.ndarray, value: np.ndarray, edges_us: np.ndarray) -> np.ndarray:
    """Area below the steps between neighbouring edges, in value times hours."""
    hours = np.diff(at_us) / 3.6e9
    until = np.r_[0.0, np.cumsum(value[:-1] * hours)]
    at_us, until = np.r_[at_us, at_us[-1] + 3.6e9], np.r_[until, until[-1] + value[-1]]
    return np.diff(np.interp(edges_us.astype(float), at_us.astype(float), until))
