"""Whole installations: an empty one that replays are pointed at, and the demo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from installation import Installation
from observing import Observer
from replaying import SITE

from waiting import until_sync


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path / "data")
    made.folder.root.mkdir()
    made.folder.site_file.write_text(SITE)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = Installation(tmp_path_factory.mktemp("demo") / "data", "--demo")
    try:
        yield installation.start()
    finally:
        installation.stop()


@pytest.fixture(scope="module")
def seen(demo: Installation) -> Iterator[Observer]:
    observer = Observer(demo.folder)
    until_sync(lambda: not observer.not_good(), 60, "every tag Good")
    yield observer
    observer.close()
