"""A broker, a runtime and a packed app, for tests with real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import numpy as np
import polars as pl

from headrace.apps.package.package import pack, read_package
from headrace.apps.runtime import role
from headrace.bus import envelope
from headrace.bus.broker import BrokerAddress
from headrace.bus.callout import Callout
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.knock import Admitted, Knock
from headrace.bus.log import LogReader
from headrace.bus.rights import actor_rights
from headrace.bus.subjects import DESIRED_BUCKET, EVENTS_STREAM, Subjects
from headrace.model.app_state import AppEvent, AppState
from headrace.model.deployment import AppDeployment, BoundAsset
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.tasks import end_tasks
from headrace.model.time import SystemClock
from headrace.security.policy import Actor

SUBJECTS = Subjects("acme", "mill")
WAIT_S = 60.0
HEAD = """
id = "load-watch"
version = "1.0.0"
headrace = ">=0.1"
publisher = "acme"
license = "Apache-2.0"
title = {en = "Load", zh = "负荷"}
description = {en = "Load", zh = "负荷"}
python = "load_watch"
[types.pump]
package = "pump"
quantities = {power = "kW"}
[[outputs]]
type = "pump"
name = "load"
unit = "kW"
title = {en = "Load", zh = "负荷"}
"""


@dataclass
class Known:
    """Users of apps: who was given a secret may come, as an actor of kind ``app``."""

    given: dict[str, str] = field(default_factory=dict)

    def secret(self, word: str) -> str:
        return self.given.setdefault(word, f"secret-of-{word}")

    async def admit(self, knock: Knock) -> Admitted | None:
        if self.given.get(knock.name) != knock.secret:
            return None
        actor = Actor(knock.name, "viewer", kind="app")
        rights = actor_rights(actor)
        assert rights is not None
        return Admitted(actor, rights)


@dataclass
class Site:
    """What a test asks and does."""

    folder: DataFolder
    address: BrokerAddress
    bus: Bus
    known: Known
    states: dict[str, AppState] = field(default_factory=dict)
    frames: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def install(
        self, source: str, more: str = "", app_id: str = "load-watch", unit: str = "kW"
    ) -> AppDeployment:
        """Pack and deploy an app on one pump, whose power is tag 11."""
        files = self.folder.root / "src" / app_id
        files.mkdir(parents=True)
        module = app_id.replace("-", "_")
        head = HEAD.replace("load-watch", app_id).replace("load_watch", module)
        (files / "app.toml").write_text(head + more, encoding="utf-8")
        (files / f"{module}.py").write_text(source, encoding="utf-8")
        (files / "README.md").write_text("# Load\n")
        content = pack(files, None)
        self.folder.packages.mkdir(parents=True, exist_ok=True)
        (self.folder.packages / f"{app_id}-1.0.0.hrapp").write_bytes(content)
        package = read_package(content, None)
        assert package.manifest is not None
        deployment = AppDeployment(
            enterprise="acme",
            site="mill",
            manifest=package.manifest,
            package_sha256=package.sha256,
            assets=(
                BoundAsset(
                    path="south/p1",
                    type="pump",
                    tags={"power": 11},
                    units={"power": unit},
                    outputs={"load": 101},
                    writes={"power": ("local", "plc_1", "p1/power")},
                ),
            ),
        )
        key = f"app.{package.manifest.word}"
        await self.bus.put(DESIRED_BUCKET, key, msgspec.json.encode(deployment))
        return deployment

    async def sample(self, value: float, at_us: int) -> None:
        self.frames += 1
        batch = make_batch(
            np.array([11]), np.array([at_us]), np.array([value]), received_timestamp_us=at_us
        )
        headers = envelope.headers("local", "plc_1", 1, self.frames, 1)
        await self.bus.publish_frame(
            SUBJECTS.batch("local", "plc_1"), envelope.encode(batch), headers
        )

    async def state(self, when: Callable[[AppState], bool], word: str = "load_watch") -> AppState:
        """The state, once it is as wanted."""
        async with asyncio.timeout(WAIT_S):
            while word not in self.states or not when(self.states[word]):
                self.heard.clear()
                await self.heard.wait()
        return self.states[word]

    async def outputs(self) -> pl.DataFrame:
        """All samples that apps gave, in the order of the log."""
        reader = LogReader(self.bus, 0, only=[SUBJECTS.every_batch("runtime")])
        found = []
        while messages := await reader.next(0.3):
            found += [envelope.decode(message.body) for message in messages]
        await reader.close()
        return pl.concat(found) if found else pl.DataFrame(schema={"tag_id": pl.Int64})

    async def events(self, word: str = "load_watch") -> list[AppEvent]:
        reader = LogReader(self.bus, 0, EVENTS_STREAM, [SUBJECTS.event("app", word)])
        found = []
        while messages := await reader.next(0.3):
            found += [msgspec.json.decode(m.body, type=AppEvent) for m in messages]
        await reader.close()
        return found

    async def event(self, code: str, word: str = "load_watch") -> AppEvent:
        """The first event with a code, once it is there."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for each in await self.events(word):
                    if each.code == code:
                        return each


@asynccontextmanager
async def runtime(site: Site, **more: float) -> AsyncIterator[asyncio.Task[None]]:
    """The role, running."""
    stop = asyncio.Event()
    address = site.address.as_role("runtime")
    work = role.run(site.folder, address, SUBJECTS, stop, app_secrets=site.known, **more)
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait({task}, timeout=20)
        task.result()


@asynccontextmanager
async def site(folder: DataFolder, address: BrokerAddress) -> AsyncIterator[Site]:
    """A broker that asks who an app is, and health as it comes."""
    stop, ready = asyncio.Event(), asyncio.Event()
    known = Known()
    door = asyncio.create_task(Callout(address, known, SystemClock()).run(stop, ready))
    await ready.wait()
    async with open_bus(address, "test") as bus:
        await ensure_streams(bus)
        await bus.key_value(DESIRED_BUCKET)
        made = Site(folder, address, bus, known)

        async def hear(message) -> None:
            state = msgspec.json.decode(message.data, type=AppState)
            made.states[state.app.replace("-", "_")] = state
            made.heard.set()

        await bus.subscribe(f"{SUBJECTS.prefix}.health.app.*", hear)
        try:
            yield made
        finally:
            stop.set()
            await end_tasks(door)
