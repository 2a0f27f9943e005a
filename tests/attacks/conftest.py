"""One running site that all attacks go against."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(_TESTS / each) for each in ("attacks", "console", "apps/package")]

from attack_target import Target, start_target  # noqa: E402 # the path is set above


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A real broker, historian and console, and a token of each role."""
    with start_target(tmp_path_factory.mktemp("target")) as started:
        yield started
