"""What the benches of the edge share: the real edge in a process of its own, its broker, and C devices.

The edge is ``headrace run edge``, as an installation runs it: connector, pipeline, lane, log on disk.
What it used is read from outside, from the kernel's books of its process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psutil

from headrace.bus import envelope
from headrace.bus.broker import prepare_address, start_broker, stop_broker
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.subjects import DESIRED_BUCKET, Subjects
from headrace.model.desired import ConnectionConfig, EdgeConfig, TagConfig
from headrace.model.folder import DataFolder
from headrace.model.health import ConnectionState, EdgeState, Event

SUBJECTS = Subjects("bench", "edge")
MODBUS_SOURCE = (
    Path(__file__)
    .resolve()
    .parent.parent.joinpath("tests", "edge", "connectors", "modbus", "libmodbus_server.c")
)


async def until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for a condition; a bench that cannot go on says what it waited for."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(0.02)


def build_modbus_server(folder: Path) -> Path | str:
    """The libmodbus server in C, or why there is none."""
    program = folder / "modbus_server"
    flags = ["-O2", "-I/usr/include/modbus", "-o", str(program), str(MODBUS_SOURCE), "-lmodbus"]
    try:
        subprocess.run(["gcc", *flags], capture_output=True, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return f"gcc and libmodbus-dev are needed: {error}"
    return program


@contextlib.contextmanager
def modbus_devices(count: int, places: int) -> Iterator[list[tuple[str, int]]]:
    """(endpoint, process id) of each of ``count`` libmodbus servers of ``places`` registers."""
    with tempfile.TemporaryDirectory() as folder:
        program = build_modbus_server(Path(folder))
        if isinstance(program, str):
            raise SystemExit(program)
        processes = [
            subprocess.Popen(
                [str(program), str(places)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        try:
            yield [(f"127.0.0.1:{int(_line(each))}", each.pid) for each in processes]
        finally:
            for each in processes:
                each.terminate()
                each.wait()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def register_tags(
    count: int, interval_ms: int, first_id: int = 1, table: str = "holding"
) -> tuple[TagConfig, ...]:
    """One tag a register."""
    return tuple(
        TagConfig(
            tag_id=first_id + at,
            path=f"line/unit_{first_id}/tag_{at}",
            address=f"{table}:{at}",
            scan_interval_ms=interval_ms,
        )
        for at in range(count)
    )


@dataclass
class Used:
    """CPU seconds and time of a process between two looks."""

    cpu_s: float
    seconds: float

    @property
    def cores(self) -> float:
        """Share of one core."""
        return self.cpu_s / self.seconds


class Meter:
    """Looks at a process and its children from outside."""

    def __init__(self, pid: int) -> None:
        root = psutil.Process(pid)
        self._processes = [root, *root.children(recursive=True)]
        self._begin = self._look()

    def _look(self) -> tuple[float, float]:
        times = [process.cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times), time.monotonic()

    def used(self) -> Used:
        """Since this meter was made."""
        cpu_s, at_s = self._look()
        return Used(cpu_s - self._begin[0], at_s - self._begin[1])

    def rss_mb(self) -> float:
        """Resident memory now."""
        return float(sum(process.memory_info().rss for process in self._processes)) / 1e6


@dataclass
class Edge:
    """The running edge as the bus shows it."""

    bus: Bus
    pid: int
    broker_pid: int
    folder: DataFolder
    broker: Any
    states: dict[str, ConnectionState] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    logged: dict[str, int] = field(default_factory=dict)
    config_hash: str = ""

    async def run(self, *connections: ConnectionConfig) -> None:
        """Give the edge its desired state, and wait until it says that it runs it."""
        config = EdgeConfig(
            enterprise="bench", site="edge", edge="local", connections=tuple(connections)
        )
        await self.bus.put(DESIRED_BUCKET, "edge.local", msgspec.json.encode(config))
        wanted = config.content_hash()
        await until(lambda: self.config_hash == wanted, 120, "the edge to run what it shall")

    def total(self, count: str) -> int:
        """Sum of a count over all connections."""
        return sum(getattr(state, count) for state in self.states.values())

    @property
    def rows(self) -> int:
        """Samples that came out of the log."""
        return sum(self.logged.values())


def _start_edge(folder: DataFolder) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "headrace", "run", "edge", "--data", str(folder.root)]
    return subprocess.Popen(command)


@contextlib.asynccontextmanager
async def running_edge() -> AsyncIterator[Edge]:
    """A broker and an edge on an empty folder, each in its own process."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as temporary:
        folder = DataFolder(Path(temporary) / "data")
        address = prepare_address(folder)
        broker = start_broker(folder, address)
        (folder.run / "site.json").write_text(json.dumps(["bench", "edge"]))
        process = None
        try:
            async with open_bus(address, "bench") as bus:
                await ensure_streams(bus)
                process = _start_edge(folder)
                edge = Edge(bus, process.pid, broker.pid, folder, address)
                await _follow(edge)
                yield edge
        finally:
            if process is not None:
                process.terminate()
                process.wait(20)
            stop_broker(broker)


async def _follow(edge: Edge) -> None:
    async def health(message: Any) -> None:
        state = msgspec.json.decode(message.data, type=EdgeState)
        edge.states = {each.connection: each for each in state.connections}
        edge.config_hash = state.config_hash

    async def batch(message: Any) -> None:
        name = message.subject.rsplit(".", 1)[-1]
        rows = int(message.headers[envelope.HEADER_ROWS])
        edge.logged[name] = edge.logged.get(name, 0) + rows

    async def event(message: Any) -> None:
        edge.events.append(msgspec.json.decode(message.data, type=Event))

    await edge.bus.subscribe(SUBJECTS.every_edge_health(), health)
    await edge.bus.subscribe("v1.*.*.batch.>", batch)
    await edge.bus.subscribe("v1.*.*.event.>", event)
