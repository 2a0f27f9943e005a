"""A forgetful disk for each test that asks for one; whole installations are those of the e2e tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forgetting import ForgetfulDisk

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ForgetfulDisk]:
    """Harsh on names; see :class:`ForgetfulDisk`."""
    made = ForgetfulDisk(tmp_path / "disk")
    yield made
    made.close()
