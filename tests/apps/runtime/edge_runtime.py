"""A hub and an edge ``north`` apart, each with its runtime: an app is installed on the hub and placed there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from site_runtime import HEAD

from apart import SUBJECTS, Apart
from headrace.apps.catalog.publishers import Publishers
from headrace.apps.package.package import pack, read_package
from headrace.apps.runtime import role
from headrace.bus import envelope
from headrace.bus.client import Bus
from headrace.bus.log import LogReader
from headrace.bus.subjects import DESIRED_BUCKET, EVENTS_STREAM
from headrace.model.app_state import AppEvent, AppState
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.desired import EdgeConfig
from headrace.model.sample import make_batch
from headrace.model.time import SystemClock
from headrace.security.package_keys import new_key, public_of
from waiting import until

WAIT_S = 60.0
TAGS = (11, 12)
OUTPUTS = {11: 101, 12: 102}


def packed(source: str, more: str, key: bytes | None, root: Path) -> bytes:
    """The app ``load-watch`` with this Python."""
    files = root / "src"
    files.mkdir(parents=True, exist_ok=True)
    (files / "app.toml").write_text(HEAD + more, encoding="utf-8")
    (files / "load_watch.py").write_text(source, encoding="utf-8")
    (files / "README.md").write_text("# Load\n")
    return pack(files, key)


@dataclass
class EdgeRuntime:
    """What a test works with. ``states``: what runtimes say, heard at the hub, by edge."""

    pair: Apart
    states: dict[str, AppState] = field(default_factory=dict)
    frames: int = 0
    clock: SystemClock = field(default_factory=SystemClock)
    deployment: AppDeployment | None = None

    async def listen(self) -> None:
        async def hear(message: Any) -> None:
            state = msgspec.json.decode(message.data, type=AppState)
            self.states[state.edge] = state

        for subject in ("health.app.*", "health.app.*.*"):
            await self.pair.hub.bus.subscribe(f"{SUBJECTS.prefix}.{subject}", hear)

    def install(self, source: str, more: str = "", *, edge: str = "north") -> AppDeployment:
        """On the hub, signed by a publisher that it trusts."""
        folder = self.pair.hub.folder
        key = new_key()
        content = packed(source, more, key, folder.root)
        folder.packages.mkdir(parents=True, exist_ok=True)
        (folder.packages / "load-watch-1.0.0.hrapp").write_bytes(content)
        Publishers(folder).add("acme", public_of(key), "test")
        package = read_package(content, None)
        assert package.manifest is not None
        self.deployment = AppDeployment(
            enterprise="acme",
            site="mill",
            manifest=package.manifest,
            package_sha256=package.sha256,
            assets=tuple(
                BoundAsset(
                    path=f"south/p{tag}",
                    type="pump",
                    tags={"power": tag},
                    units={"power": "W"},
                    outputs={"load": OUTPUTS[tag]},
                    edge=edge,
                )
                for tag in TAGS
            ),
        )
        return self.deployment

    async def desire(self, whole: AppDeployment) -> None:
        """What the keeper puts on the hub, and the hub gives its edge."""
        await self.desire_platform(whole)
        await self.desire_edge(whole)

    async def desire_platform(self, whole: AppDeployment) -> None:
        key = f"app.{whole.manifest.word}"
        await self.pair.hub.bus.put(DESIRED_BUCKET, key, msgspec.json.encode(whole))
        await self.pair.hub.bus.put(DESIRED_BUCKET, "edge.north", self._edge_config(whole))

    async def desire_edge(self, whole: AppDeployment) -> None:
        await self.pair.edge.bus.put(DESIRED_BUCKET, "edge.north", self._edge_config(whole))

    @staticmethod
    def _edge_config(whole: AppDeployment) -> bytes:
        part = whole.part("north")
        parts = (part,) if part is not None else ()
        config = EdgeConfig(enterprise="acme", site="mill", edge="north", deployments=parts)
        return msgspec.json.encode(config)

    async def poll(self, at_us: int = 0) -> int:
        """A sample of each tag into the edge's own log; gives its time."""
        now_us = self.clock.now_us()
        at_us = at_us or now_us
        values = np.random.default_rng(at_us).normal(50_000, 10_000, len(TAGS))
        batch = make_batch(
            np.array(TAGS), np.full(len(TAGS), at_us), values, received_timestamp_us=now_us
        )
        self.frames += 1
        headers = envelope.headers("north", "plc", 1, self.frames, batch.height)
        subject = SUBJECTS.batch("north", "plc")
        await self.pair.edge.bus.publish_frame(subject, envelope.encode(batch), headers)
        return at_us

    async def polls(self, count: int, *, every_s: float = 0.2) -> int:
        """So many in real time; gives the last source time."""
        last = 0
        for _ in range(count):
            last = await self.poll()
            await asyncio.sleep(every_s)
        return last

    async def gave(self, bus: Bus, when: Callable[[pl.DataFrame], bool]) -> pl.DataFrame:
        """All that the app gave, by the log of a broker, once it is as wanted."""
        async with asyncio.timeout(WAIT_S):
            while True:
                found = await given(bus)
                if when(found):
                    return found

    async def state(self, when: Callable[[AppState], bool], edge: str = "north") -> AppState:
        """The state of the app there, once it is as wanted."""

        def holds() -> bool:
            return edge in self.states and when(self.states[edge])

        await until(holds, WAIT_S, f"the app on {edge!r}; last told {self.states}")
        return self.states[edge]

    @asynccontextmanager
    async def runtime(self, edge: str = "") -> AsyncIterator[asyncio.Task[None]]:
        """The runtime of the hub, or beside the edge."""
        stop = asyncio.Event()
        machine = self.pair.edge if edge else self.pair.hub
        address = machine.address
        working = role.run(
            machine.folder,
            address.as_role("runtime"),
            SUBJECTS,
            stop,
            edge=edge,
            door=address if edge else None,
        )
        task = asyncio.create_task(working)
        try:
            yield task
        finally:
            stop.set()
            await asyncio.wait({task}, timeout=20)
            task.result()


async def given(bus: Bus, *, edge: str = "runtime-north") -> pl.DataFrame:
    """All that apps gave in a name, in the order of a log."""
    return await _samples(bus, [SUBJECTS.every_batch(edge)])


async def read_in(bus: Bus) -> pl.DataFrame:
    """All that the edge read."""
    return await _samples(bus, [SUBJECTS.every_batch("north")])


async def _samples(bus: Bus, only: list[str]) -> pl.DataFrame:
    reader = LogReader(bus, 0, only=only)
    found = []
    while messages := await reader.next(0.5):
        found += [envelope.decode(message.body) for message in messages]
    await reader.close()
    return pl.concat(found) if found else pl.DataFrame(schema={"tag_id": pl.Int64})


async def records(bus: Bus) -> list[dict[str, Any]]:
    """All records of the app in the events of a broker, as they came."""
    reader = LogReader(bus, 0, EVENTS_STREAM, [SUBJECTS.event("app", "load_watch")])
    found = []
    while messages := await reader.next(0.5):
        found += [msgspec.json.decode(m.body, type=AppEvent).record for m in messages]
    await reader.close()
    return [each for each in found if each]


@asynccontextmanager
async def edge_runtime(root: Path) -> AsyncIterator[EdgeRuntime]:
    async with Apart(root) as pair:
        made = EdgeRuntime(pair)
        await made.listen()
        yield made
