"""Power cuts under load: what the log acknowledged is in the log or the table, once.

The broker and the historian run on a disk that forgets what was not synced. Frames are published as fast
as the log takes them; the historian commits every 20 ms and lets the log forget at once what the table
has. The power goes at a random moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest
from forgetting import ForgetfulDisk
from publishing import SAMPLES, TAGS, Publisher, tags

from headrace.bus.broker import BrokerAddress, prepare_address, start_broker
from headrace.bus.client import ensure_streams, open_bus
from headrace.bus.log import log_info
from headrace.historian.index import TableIndex
from headrace.historian.reader import open_reader
from headrace.historian.table import open_table
from headrace.model.errors import Corrupt
from headrace.model.folder import DataFolder
from headrace.model.tasks import end_tasks
from headrace.model.time import SystemClock
from waiting import until

pytestmark = [pytest.mark.kill, pytest.mark.foreign, pytest.mark.timeout(400)]

HISTORIAN = """
import asyncio, json, os, pathlib, sys
from headrace.bus.broker import BrokerAddress
from headrace.bus.subjects import Subjects
from headrace.historian import writer
from headrace.historian.role import run
from headrace.model.folder import DataFolder

folder, address, sync = sys.argv[1:]
writer.PURGE_S = writer.LOOK_S = 0.05
if sync == "without":
    os.fsync = lambda descriptor: None
settings = writer.WriterSettings(commit_interval_s=0.02, log_keep_s=0.0)
asyncio.run(run(DataFolder(pathlib.Path(folder)), BrokerAddress(**json.loads(address)),
                Subjects("acme", "mill"), asyncio.Event(), settings=settings))
"""


class Hub:
    """Broker and historian on one forgetful disk.

    Args:
        sync_interval: of the broker. sync: whether the historian calls fsync.
    """

    def __init__(
        self, disk: ForgetfulDisk, *, sync_interval: str = "always", sync: bool = True
    ) -> None:
        self.disk = disk
        self.folder = DataFolder(disk.root / "data")
        self.publisher = Publisher()
        self._sync_interval = sync_interval
        self._sync = sync
        self._processes: list[subprocess.Popen[bytes]] = []
        self.address: BrokerAddress

    def start_log(self) -> None:
        self.address = prepare_address(self.folder)
        self._processes = [
            start_broker(self.folder, self.address, sync_interval=self._sync_interval)
        ]

    def start_historian(self) -> None:
        words = [str(self.folder.root), json.dumps(asdict(self.address))]
        words.append("with" if self._sync else "without")
        self._processes.append(
            subprocess.Popen([sys.executable, "-c", HISTORIAN, *words], stderr=subprocess.DEVNULL)
        )

    async def publish_and_cut(
        self, frames: int, how: str, seed: int, *, forgotten: int = 0
    ) -> None:
        """Publish; cut the power in the middle, when so many more frames are acknowledged and the
        log has let go ``forgotten`` more of those that the table has."""
        async with open_bus(self.address, "test") as bus:
            await ensure_streams(bus)
            wanted = (await log_info(bus)).first_sequence + forgotten
            during = asyncio.Event()
            publishing = asyncio.create_task(self.publisher.publish(self.address, frames, during))
            await asyncio.wait_for(during.wait(), 60)
            async with asyncio.timeout(60):
                while (await log_info(bus)).first_sequence < wanted:  # noqa: ASYNC110 - the broker is asked
                    await asyncio.sleep(0.005)
        self.disk.power_cut([process.pid for process in self._processes], how, seed)
        await end_tasks(publishing)
        for process in self._processes:
            process.wait(10)

    async def read(self) -> pl.DataFrame:
        """Every sample, out of the table and the log."""
        async with open_bus(self.address, "test") as bus, open_reader(self.folder, bus) as reader:
            return await asyncio.to_thread(reader.read, tags(), -(2**62), 2**62)

    async def check(self, when: str) -> None:
        """Every acknowledged sample is there, before a historian could mend anything."""
        async with open_bus(self.address, "test") as bus:
            await ensure_streams(bus)
        assert not self.publisher.missing(await self.read()), when

    async def publish_the_rest(self) -> None:
        """The frames that were under way at the last cut, and a few more; all acknowledged."""
        during = asyncio.Event()
        publishing = asyncio.create_task(self.publisher.publish(self.address, 50, during))
        await asyncio.wait_for(during.wait(), 60)
        self.publisher.finish()
        await publishing

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture
def journal_disk(tmp_path: Path) -> Iterator[ForgetfulDisk]:
    """nats-server syncs no folder: it needs a file system whose journal keeps the names of synced
    files, as those of Linux do. What is ours alone is held to more, in ``test_power_cut_files.py``."""
    made = ForgetfulDisk(tmp_path / "disk", "journal")
    yield made
    made.close()


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    try:
        yield hub
    finally:
        hub.stop()


async def cut_many_times(hub: Hub, count: int, seed: int) -> None:
    chance = random.Random(seed)
    for turn in range(count):
        hub.start_log()
        await hub.check(f"after cut {turn} of seed {seed}")
        hub.start_historian()
        await hub.publish_and_cut(
            chance.randrange(50, 500),
            chance.choice(["lost", "torn"]),
            chance.randrange(1 << 30),
            forgotten=chance.randrange(300),
        )
    hub.start_log()
    await hub.check(f"after cut {count} of seed {seed}")
    hub.start_historian()
    await hub.publish_the_rest()
    index = TableIndex(hub.folder.table)
    wanted = sum(hub.publisher.acknowledged) * SAMPLES * TAGS
    with contextlib.suppress(AssertionError):  # the next line tells more
        await until(lambda: index.refresh().rows >= wanted, 120)
    assert index.refresh().rows == wanted, "each sample is in the files once"


async def test_power_cuts_lose_nothing_and_double_nothing(journal_disk: ForgetfulDisk) -> None:
    with running(Hub(journal_disk)) as hub:
        await cut_many_times(hub, 3, 1)


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("seed", range(2, 12))
async def test_a_hundred_power_cuts(journal_disk: ForgetfulDisk, seed: int) -> None:
    with running(Hub(journal_disk)) as hub:
        await cut_many_times(hub, 10, seed)


async def test_a_log_that_does_not_sync_is_seen_to_lose(journal_disk: ForgetfulDisk) -> None:
    """The test can fail: as nats-server comes, it acknowledges before the disk."""
    with running(Hub(journal_disk, sync_interval="2m")) as hub:
        hub.start_log()
        await hub.publish_and_cut(200, "lost", 1)
        hub.start_log()
        async with open_bus(hub.address, "test") as bus:
            await ensure_streams(bus)
            assert (await log_info(bus)).last_sequence < hub.publisher.sequence


async def test_a_historian_that_does_not_sync_is_seen_to_lose(journal_disk: ForgetfulDisk) -> None:
    """The test can fail: delta-rs alone syncs nothing, and the log has forgotten what was stored."""
    with running(Hub(journal_disk, sync=False)) as hub:
        hub.start_log()
        hub.start_historian()
        await hub.publish_and_cut(100, "lost", 1, forgotten=100)
        hub.start_log()
        try:
            open_table(hub.folder.table, SystemClock())
        except Corrupt:
            return
        assert hub.publisher.missing(await hub.read())
