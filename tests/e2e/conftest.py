"""An empty installation that replays are pointed at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import Installation
from replaying import SITE


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "data")
    made.folder.root.mkdir()
    made.folder.site_file.write_text(SITE)
    try:
        yield made.start()
    finally:
        made.stop()
