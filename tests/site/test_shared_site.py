"""Site files of consoles on several machines are brought in step, and no change is lost unsaid."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from site_bench_connector import SITE

from headrace.bus.client import Bus
from headrace.bus.subjects import DESIRED_BUCKET
from headrace.model.errors import Corrupt
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock
from headrace.site.sharing import FILES_KEY, AgreedFiles, SharedSite


class Machine:
    """One console's folder; its process may begin anew."""

    def __init__(self, root: Path, bus: Bus, text: str) -> None:
        root.mkdir()
        self.folder, self.bus = DataFolder(root), bus
        self.folder.site_file.write_text(text, encoding="utf-8")
        self.start()

    def start(self) -> None:
        self.shared = SharedSite(self.folder, self.bus, ManualClock())

    async def step(self) -> bool:
        return await self.shared.step()

    @property
    def text(self) -> str:
        return self.folder.site_file.read_text(encoding="utf-8")

    @text.setter
    def text(self, text: str) -> None:
        self.folder.site_file.write_text(text, encoding="utf-8")


def noted(text: str, note: str) -> str:
    return f"{text}\n# {note}\n"


@pytest.fixture
def one(tmp_path: Path, bus: Bus) -> Machine:
    return Machine(tmp_path / "one", bus, SITE)


@pytest.fixture
def two(tmp_path: Path, bus: Bus) -> Machine:
    return Machine(tmp_path / "two", bus, '[site]\nenterprise = "acme"\nname = "mill"\n')


async def test_the_first_shares_and_the_second_takes_over(one: Machine, two: Machine) -> None:
    assert await one.step() and await two.step()
    assert two.text == SITE
    (aside,) = two.shared.conflicts
    assert "acme" in (aside / "site.toml").read_text(), "what the second had is kept"


async def test_changes_go_both_ways(one: Machine, two: Machine) -> None:
    assert await one.step() and await two.step()
    for turn, (here, there) in enumerate([(one, two), (two, one), (two, one)]):
        here.text = noted(SITE, f"turn {turn}")
        assert await here.step() and await there.step()
        assert there.text == here.text == noted(SITE, f"turn {turn}")
        there.start()
    assert len(two.shared.conflicts) == 0


async def test_of_two_changes_the_first_counts_and_the_other_is_kept(
    one: Machine, two: Machine
) -> None:
    assert await one.step() and await two.step()
    two.shared.conflicts.clear()
    one.text, two.text = noted(SITE, "mine"), noted(SITE, "yours")
    assert await one.step() and await two.step()
    assert two.text == one.text == noted(SITE, "mine")
    (aside,) = two.shared.conflicts
    assert (aside / "site.toml").read_text(encoding="utf-8") == noted(SITE, "yours")


async def test_a_wrong_file_stays_where_it_is(one: Machine, two: Machine) -> None:
    assert await one.step() and await two.step()
    one.text = "this is no TOML ["
    assert await one.step() and await two.step()
    assert two.text == SITE
    one.text = noted(SITE, "mended")
    assert await one.step() and await two.step()
    assert two.text == noted(SITE, "mended")


async def test_a_bus_restored_from_a_backup_does_not_take_changes_back(
    one: Machine, two: Machine
) -> None:
    assert await one.step() and await two.step()
    backup = await one.bus.get(DESIRED_BUCKET, FILES_KEY)
    assert backup is not None
    one.text = noted(SITE, "after the backup")
    assert await one.step() and await two.step()
    await one.bus.put(DESIRED_BUCKET, FILES_KEY, backup)
    for machine in (two, one, two):
        machine.start()
        assert await machine.step()
    assert one.text == two.text == noted(SITE, "after the backup")


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside.toml"])
async def test_names_outside_the_folder_are_refused(one: Machine, name: str) -> None:
    evil = AgreedFiles(number=9, content_hash="x", files={name: b"x"})
    await one.bus.put(DESIRED_BUCKET, FILES_KEY, msgspec.json.encode(evil))
    with pytest.raises(Corrupt, match="SITE-1203"):
        await one.step()
    await one.bus.put(DESIRED_BUCKET, FILES_KEY, b"[]")
    with pytest.raises(Corrupt, match="SITE-1203"):
        await one.step()
