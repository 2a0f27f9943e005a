"""The running site for console tests: started once for all of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from site_fixture import RunningSite, start_site


@pytest.fixture(scope="session")
def running_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSite]:
    """A real broker, historian and console; tests publish what an edge would."""
    with start_site(tmp_path_factory.mktemp("site")) as site:
        yield site
