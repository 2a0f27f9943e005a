"""The tests' own connector, found by an entry point like any other."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from site_bench_connector import SITE

from headrace.edge import catalog
from postgres_server import postgres  # noqa: F401 # a fixture


@pytest.fixture(autouse=True)
def bench_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol ``bench`` is installed, ``broken`` is and cannot be imported."""
    points = {
        "bench": EntryPoint("bench", "site_bench_connector:CONNECTOR", "headrace.connectors"),
        "broken": EntryPoint("broken", "no_such_module:CONNECTOR", "headrace.connectors"),
    }
    monkeypatch.setattr(catalog, "_entry_points", lambda: points)


@pytest.fixture
def site_folder(tmp_path: Path) -> Path:
    """A data folder with a right site file."""
    (tmp_path / "site.toml").write_text(SITE, encoding="utf-8")
    return tmp_path
