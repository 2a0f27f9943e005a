"""A forgetful disk for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from forgetting import ForgetfulDisk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ForgetfulDisk]:
    """Harsh on names; see :class:`ForgetfulDisk`."""
    made = ForgetfulDisk(tmp_path / "disk")
    yield made
    made.close()
