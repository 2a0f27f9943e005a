"""Back-fill on Ray; where it is not installed there is nothing to try."""

from __future__ import annotations

import pytest
from polars.testing import assert_frame_equal
from test_backfill import config_of, historian, run, small_parts, stored, wanted

from headrace.bus.client import Bus
from headrace.historian.pools import RayPool
from headrace.historian.reader import open_reader
from headrace.model.folder import DataFolder

pytest.importorskip("ray", reason="Ray is not installed: pip install headrace[ray]")
__all__ = ["historian", "small_parts"]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")
async def test_ray_gives_what_one_machine_gives(
    request: pytest.FixtureRequest, bus: Bus, small_parts: None, historian: DataFolder
) -> None:
    config = config_of()
    expected = wanted(historian, config)
    pool = RayPool("local")
    request.addfinalizer(pool.close)
    made = await run(historian, bus, config, pool)
    assert (made.results, made.changed) == (expected.height, expected.height)
    async with open_reader(historian, bus) as reader:
        assert_frame_equal(stored(reader), expected)
