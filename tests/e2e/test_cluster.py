"""A cluster of three brokers: its leader is killed under load, its majority is lost, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats.errors
import numpy as np
import polars as pl
import pytest
from cluster_nodes import NAMES, Cluster, running_cluster
from polars.testing import assert_frame_equal

from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.cluster import ClusterNode, load_node, plan_cluster
from headrace.bus.log import LogReader, log_info
from headrace.bus.subjects import SAMPLES_STREAM, Subjects
from headrace.edge.publisher import Lane
from headrace.historian import role
from headrace.historian.index import TableIndex
from headrace.historian.reader import Reader
from headrace.historian.writer import WriterSettings
from headrace.model.errors import HeadraceError, Misconfigured, Transient
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.tasks import end_tasks
from waiting import until

pytestmark = [pytest.mark.kill]

SUBJECTS = Subjects("acme", "mill")
START_US = 1_700_000_000_000_000
LINES = 3
AWAY = (nats.errors.Error, TimeoutError, OSError)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path / "cluster") as started:
        yield started


@pytest.fixture
def address(cluster: Cluster, folder: DataFolder) -> BrokerAddress:
    return cluster.join(folder)


async def ready(bus: Bus) -> None:
    """Wait until the nodes have found each other and take streams."""

    async def make() -> bool:
        try:
            await ensure_streams(bus)
            return True
        except AWAY:
            return False

    for _ in range(120):
        if await make():
            return
        await asyncio.sleep(0.25)
    raise AssertionError("the cluster takes no streams")


async def leader(bus: Bus) -> str:
    """The node that leads the stream SAMPLES; waits until there is one."""
    for _ in range(120):
        try:
            info = await bus.stream.stream_info(SAMPLES_STREAM)
        except AWAY:
            info = None
        if info is not None and info.cluster is not None and info.cluster.leader:
            return str(info.cluster.leader)
        await asyncio.sleep(0.25)
    raise AssertionError("nobody leads the stream")


class Load:
    """Lanes of an edge that publish without end; what was offered is known."""

    def __init__(self, bus: Bus) -> None:
        self.trouble: list[HeadraceError | None] = []
        self.sent = [0] * LINES
        self.stopped = False
        self.lanes = [
            Lane(
                bus, SUBJECTS.batch("local", f"plc_{line}"), edge="local",
                connection=f"plc_{line}", epoch=1, on_trouble=self.trouble.append,
            )
            for line in range(LINES)
        ]  # fmt: skip

    async def run(self) -> None:
        while not self.stopped:
            for line, lane in enumerate(self.lanes):
                await lane.room()
                lane.offer(batch_of(line, self.sent[line], 50))
                self.sent[line] += 50
            await asyncio.sleep(0.01)


def batch_of(line: int, first: int, count: int) -> pl.DataFrame:
    turn = np.arange(first, first + count, dtype=np.int64)
    at_us = START_US + turn * 1_000
    return make_batch(
        np.full(count, line + 1, np.int64), at_us, turn * 1.5, received_timestamp_us=at_us
    )


@asynccontextmanager
async def loaded(bus: Bus) -> AsyncIterator[Load]:
    load = Load(bus)
    tasks = [asyncio.create_task(lane.run()) for lane in load.lanes]
    tasks.append(asyncio.create_task(load.run()))
    try:
        yield load
        load.stopped = True
        for lane in load.lanes:
            assert await lane.drain(60) == 0
    finally:
        await end_tasks(*tasks)


async def messages(bus: Bus) -> list[tuple[str, int]]:
    """(subject, frame number) of everything in the log, in its order."""
    log = LogReader(bus, 0)
    last = (await log_info(bus)).last_sequence
    found: list[tuple[str, int]] = []
    async with asyncio.timeout(60):
        while log.next_sequence <= last:
            try:
                taken = await log.next(2.0)
            except Transient:
                continue  # it says so itself: call again
            for message in taken:
                found.append((message.subject, envelope.parse_sequence(message.headers)[1]))
    await log.close()
    return found


@pytest.mark.parametrize("kills", [2, pytest.param(30, marks=pytest.mark.soak)])
async def test_the_leader_is_killed_under_load(
    cluster: Cluster, address: BrokerAddress, folder: DataFolder, kills: int
) -> None:
    index = TableIndex(folder.table)
    stop = asyncio.Event()
    settings = WriterSettings(commit_interval_s=0.2)
    async with open_bus(address, "test") as bus:
        await ready(bus)
        await bus.put("desired", "edge.local", b'{"kept": true}')
        writing = asyncio.create_task(role.run(folder, address, SUBJECTS, stop, settings=settings))
        try:
            async with loaded(bus) as load:
                for _ in range(kills):
                    victim = await leader(bus)
                    before = load.lanes[0].published
                    cluster.kill(victim)
                    await until(lambda b=before: load.lanes[0].published > b + 200, 60)  # type: ignore[misc]
                    assert await leader(bus) != victim
                    assert await kept(bus) == b'{"kept": true}'
                    cluster.start(victim)
                    await until_whole(bus)
            await until(lambda: index.refresh().rows >= sum(load.sent), 60, "all rows stored")
            found = await messages(bus)
        finally:
            stop.set()
            await asyncio.wait_for(writing, 30)
    for line in range(LINES):
        own = [number for subject, number in found if subject.endswith(f"plc_{line}")]
        assert own == list(range(1, len(own) + 1)), "lost, doubled or out of order in the log"
    stored = Reader(folder.table).read(range(1, LINES + 1), 0, START_US * 2)
    wanted = pl.concat([batch_of(line, 0, count) for line, count in enumerate(load.sent)])
    assert_frame_equal(stored, wanted, check_exact=True)
    assert index.refresh().rows == stored.height


async def kept(bus: Bus) -> bytes | None:
    """A key's value, as soon as the nodes that are left have found a leader for it."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await bus.get("desired", "edge.local")
            except Transient:
                continue  # it says so itself: call again


async def until_whole(bus: Bus) -> None:
    """Wait until all three nodes have the whole stream, so that the next kill leaves a majority."""
    for _ in range(240):
        try:
            info = (await bus.stream.stream_info(SAMPLES_STREAM)).cluster
        except AWAY:
            info = None
        peers = info.replicas if info is not None and info.replicas else []
        if len(peers) == 2 and all(peer.current and not peer.offline for peer in peers):
            return
        await asyncio.sleep(0.25)
    raise AssertionError("the cluster does not become whole")


@pytest.mark.soak
async def test_without_a_majority_it_says_so_and_goes_on_later(
    cluster: Cluster, address: BrokerAddress
) -> None:
    async with open_bus(address, "test") as bus:
        await ready(bus)
        async with loaded(bus) as load:
            await until(lambda: load.lanes[0].published > 100, 60)
            last = await leader(bus)
            lost = [name for name in NAMES if name != last]
            for name in lost:
                cluster.kill(name)
            await until(lambda: any(load.trouble), 60, "trouble is said")
            await until(lambda: bus.client.is_connected, 60)
            with pytest.raises(Transient, match="BUS-1202"):
                await bus.publish_frame(SUBJECTS.batch("local", "other"), b"no batch", {})
            cluster.start(*lost)
            await until(lambda: load.trouble[-1] is None and all(
                lane.buffered < 5_000 for lane in load.lanes), 90, "it goes on")  # fmt: skip
        found = await messages(bus)
    for line in range(LINES):
        own = [number for subject, number in found if subject.endswith(f"plc_{line}")]
        assert own == list(range(1, len(own) + 1))


async def test_a_stranger_and_a_foreign_cluster_are_refused(
    cluster: Cluster, address: BrokerAddress, tmp_path: Path
) -> None:
    """Without the password, and to a server that another authority signed: no way in."""
    async with open_bus(address, "test") as bus:
        await ready(bus)
    nodes = [ClusterNode(name=name, host=f"127.0.0.{n}") for n, name in enumerate(NAMES, 1)]
    plan_cluster(tmp_path / "other", "other", nodes, START_US)
    other = load_node(tmp_path / "other" / "a.json")
    stranger = BrokerAddress(**{**vars(address), "platform_password": "wrong"})
    foreign = BrokerAddress(**{**vars(address), "authority_pem": other.authority_pem})
    for wrong in (stranger, foreign):
        with pytest.raises(Transient, match="BUS-1025"):
            async with open_bus(wrong, "test", wait_s=2):
                pass


def test_what_makes_no_cluster(tmp_path: Path) -> None:
    three = [ClusterNode(name=name, host=f"10.0.0.{n}") for n, name in enumerate(NAMES)]
    one_host = [ClusterNode(name=name, host="10.0.0.1") for name in NAMES]
    for nodes in (three[:2], three[:1], [*three, three[0]], one_host):
        with pytest.raises(Misconfigured, match="BUS-1203"):
            plan_cluster(tmp_path, "plant", nodes, START_US)
    paths = plan_cluster(tmp_path, "plant", three, START_US)
    assert [path.name for path in paths] == ["a.json", "b.json", "c.json", "client.json"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)
    with pytest.raises(Misconfigured, match="BUS-1203"):
        plan_cluster(tmp_path, "plant", three, START_US)
    with pytest.raises(Misconfigured, match="BUS-1204"):
        load_node(tmp_path / "d.json")
