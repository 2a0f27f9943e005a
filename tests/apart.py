"""A hub and an edge as two brokers on loopback hosts of their own, with a wire between them.

The hub's loop, the edge's joining and the edge's log keeper are the real ones, in this process; the
brokers are real processes, to be killed. Frames are published as a lane does.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from headrace.bus import envelope, leaf
from headrace.bus.broker import BrokerAddress, free_port, prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.log import LogMessage, LogReader, log_info
from headrace.bus.subjects import Subjects
from headrace.edge.log_keeper import LogKeeper
from headrace.model.errors import HeadraceError
from headrace.model.folder import DataFolder
from headrace.model.health import Event, HubState
from headrace.model.sample import make_batch
from headrace.model.tasks import end_tasks
from headrace.model.time import SystemClock
from headrace.site import edges, hub, joining, security_role
from waiting import until
from wire import Wire

HUB = "127.0.0.2"
DOOR = "127.0.0.3"
SUBJECTS = Subjects("acme", "mill")
HOUR_US = 3_600_000_000


def two_ports() -> int:
    """A port that is free on both hosts, and the next one too."""
    while True:
        port = free_port()
        try:
            for host in (HUB, DOOR):
                for number in (port, port + 1):
                    with socket.socket() as probe:
                        probe.bind((host, number))
        except OSError:
            continue
        return port


class Machine:
    """A data folder and its broker."""

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self.address: BrokerAddress
        self.process: subprocess.Popen[bytes] | None = None
        self._stack = AsyncExitStack()
        self.bus: Bus

    async def start(self, bytes_max: int = 1 << 30) -> None:
        self.address = prepare_address(self.folder)
        self.process = start_broker(self.folder, self.address, **leaf.broker_options(self.folder))
        self._stack = AsyncExitStack()
        self.bus = await self._stack.enter_async_context(open_bus(self.address, "test"))
        await ensure_streams(self.bus, bytes_max=bytes_max)

    async def stop(self, *, kill: bool = False) -> None:
        if self.process is None:
            return
        if kill:
            self.process.kill()
            self.process.wait()
        await self._stack.aclose()
        stop_broker(self.process)
        self.process = None


class Apart:
    """A hub, an edge ``north`` and the wire between them; use as ``async with Apart(tmp_path)``."""

    def __init__(self, root: Path, *, bytes_max: int = 1 << 30, on_full: str = "stop") -> None:
        self.hub = Machine(DataFolder(root / "hub"))
        self.edge = Machine(DataFolder(root / "edge"))
        self.port = two_ports()
        self.bytes_max = bytes_max
        self.on_full = on_full
        self.wires = [Wire((DOOR, p), (HUB, p)) for p in (self.port, self.port + 1)]
        self.wire = self.wires[1]
        self.state = HubState(at_us=0)
        self.events: list[Event] = []
        self.published: list[str] = []
        self.keeper: LogKeeper
        self._keeping: asyncio.Task[None] | None = None
        self._hub_stop = asyncio.Event()
        self._roles: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Apart:
        hub.prepare(self.hub.folder, HUB, self.port, (DOOR, HUB), SystemClock())
        for wire in self.wires:
            await wire.connect()
        await self.start_hub()
        await self.join()
        await self.start_edge()
        await self.connected()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop_edge()
        await self.stop_hub()
        for wire in self.wires:
            await wire.cut()

    def invite(self, name: str = "north") -> str:
        now_us = SystemClock().now_us()
        return edges.invite(self.hub.folder, name, now_us, now_us + HOUR_US)

    async def join(self, name: str = "north") -> None:
        token = edges.read_token(self.invite(name))
        own = await asyncio.to_thread(joining.join, self.edge.folder, DOOR, self.port, token)
        own = msgspec.structs.replace(own, log_bytes_max=self.bytes_max, on_full=self.on_full)
        leaf.save(self.edge.folder.edge / "joined.json", own)

    async def start_hub(self) -> None:
        await self.hub.start()
        self._hub_stop = asyncio.Event()
        await self.hub.bus.subscribe(SUBJECTS.hub_health(), self._hear)
        its = (self.hub.folder, self.hub.address, SUBJECTS, self._hub_stop)
        self._roles = [asyncio.create_task(run(*its)) for run in (hub.run, security_role.run)]

    async def _hear(self, message: Any) -> None:
        self.state = msgspec.json.decode(message.data, type=HubState)

    async def stop_hub(self, *, kill: bool = False) -> None:
        if kill:
            await end_tasks(*self._roles)
        self._hub_stop.set()
        await asyncio.gather(*self._roles, return_exceptions=kill)
        self._roles = []
        await self.hub.stop(kill=kill)
        self.state = HubState(at_us=0)

    async def start_edge(self) -> None:
        await self.edge.start(self.bytes_max)
        own = leaf.joined(self.edge.folder)
        assert own is not None
        self.keeper = LogKeeper(
            self.edge.bus,
            SUBJECTS,
            own,
            SystemClock(),
            report=self.events.append,
            disk=self.edge.folder.root,
        )
        await self.keeper.serve()
        self._keeping = asyncio.create_task(self.keeper.run())

    async def stop_edge(self, *, kill: bool = False) -> None:
        if self._keeping is not None:
            await end_tasks(self._keeping)
        await self.edge.stop(kill=kill)

    def is_connected(self) -> bool:
        return any(each.connected_us for each in self.state.edges)

    async def connected(self, timeout_s: float = 60.0) -> None:
        await until(self.is_connected, timeout_s, "the edge connected to the hub")

    def backup(self) -> Path:
        """A copy of the hub's folder; the hub must be stopped."""
        copy = self.hub.folder.root.with_name("hub.backup")
        shutil.copytree(self.hub.folder.root, copy)
        return copy

    def restore(self, copy: Path) -> None:
        shutil.rmtree(self.hub.folder.root)
        shutil.copytree(copy, self.hub.folder.root)

    async def publish(self, count: int, *, rows: int = 10, connection: str = "plc") -> int:
        """Frames into the edge's own log, as a lane does; gives how many were taken."""
        subject = SUBJECTS.batch("north", connection)
        for _ in range(count):
            sequence = len(self.published) + 1
            batch = frame(sequence, rows)
            headers = envelope.headers("north", connection, 1, sequence, rows)
            try:
                await self.edge.bus.publish_frame(subject, envelope.encode(batch), headers)
            except HeadraceError:
                return sequence - 1
            self.published.append(headers[envelope.HEADER_ID])
        return len(self.published)

    async def in_hub(self) -> list[LogMessage]:
        """All frames of the edge in the hub's log, in its order."""
        return await frames_in(self.hub.bus)

    async def arrived(self, count: int | None = None, timeout_s: float = 60.0) -> None:
        """Wait until the hub's log has so many frames; all that were published by default."""
        wanted = len(self.published) if count is None else count
        deadline = asyncio.get_running_loop().time() + timeout_s
        while (found := (await log_info(self.hub.bus)).messages) < wanted:
            assert asyncio.get_running_loop().time() < deadline, f"{found} of {wanted} frames"
            await asyncio.sleep(0.05)

    async def check_order(self) -> None:
        """The hub's log has exactly what was published, in order, each once."""
        ids = [message.headers[envelope.HEADER_ID] for message in await self.in_hub()]
        assert ids == self.published


async def frames_in(bus: Bus) -> list[LogMessage]:
    """All that a broker's log of samples holds now."""
    info = await log_info(bus)
    reader = LogReader(bus, info.first_sequence - 1)
    found: list[LogMessage] = []
    while info.messages and (not found or found[-1].sequence < info.last_sequence):
        found += await reader.next(1.0)
    await reader.close()
    return found


def frame(sequence: int, rows: int) -> pl.DataFrame:
    """Values that do not compress, so that a bound in bytes is reached after few frames."""
    start_us = 1_700_000_000_000_000 + sequence * 1_000_000
    return make_batch(
        np.ones(rows, dtype=np.int64),
        start_us + np.arange(rows, dtype=np.int64),
        np.random.default_rng(sequence).random(rows),
        received_timestamp_us=start_us,
    )
