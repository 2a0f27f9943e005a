"""A hub with its historian, and an edge ``north`` that evaluates formulas beside its own broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from apart import SUBJECTS, Apart
from apps_rig import Rig, config, rig_on
from headrace.apps import role as apps_role
from headrace.bus import envelope
from headrace.bus.subjects import DESIRED_BUCKET
from headrace.model.apps import AppsState
from headrace.model.desired import EdgeConfig
from headrace.model.knowledge import AppsConfig
from headrace.model.sample import make_batch
from headrace.model.time import SystemClock
from headrace.site.placement import edge_apps
from waiting import until


def placed(made: AppsConfig, edge: str = "north") -> AppsConfig:
    """The same with all its formulas on an edge."""
    names = [each.name for each in made.formulas]
    return msgspec.structs.replace(
        made,
        formulas=tuple(msgspec.structs.replace(f, placement="edge") for f in made.formulas),
        assets=tuple(
            msgspec.structs.replace(asset, edges=dict.fromkeys(names, edge))
            for asset in made.assets
        ),
    )


@dataclass
class EdgeRig:
    """What a test works with.

    Attributes:
        pair: hub and edge. hub: history on the hub, and its apps role. states: what the edge's role says.
    """

    pair: Apart
    hub: Rig
    states: list[AppsState] = field(default_factory=list)
    frames: int = 0
    clock: SystemClock = field(default_factory=SystemClock)

    async def desire(self, made: AppsConfig) -> None:
        """What the hub gives its edge to run."""
        whole = EdgeConfig(
            enterprise="acme", site="mill", edge="north", apps=edge_apps(made, "north")
        )
        await self.pair.edge.bus.put(DESIRED_BUCKET, "edge.north", msgspec.json.encode(whole))

    async def poll(self, *, at_us: int = 0, assets: int = 3, seed: int = 0) -> int:
        """One sample of each input, into the edge's own log; gives its time."""
        now_us = self.clock.now_us()
        at_us = at_us or now_us
        values = np.random.default_rng(at_us + seed).normal(50, 10, 2 * assets)
        ids = np.arange(1, 2 * assets + 1)
        times = np.full(len(ids), at_us)
        batch = make_batch(ids, times, values, received_timestamp_us=now_us)
        self.frames += 1
        headers = envelope.headers("north", "plc", 1, self.frames, batch.height)
        subject = SUBJECTS.batch("north", "plc")
        await self.pair.edge.bus.publish_frame(subject, envelope.encode(batch), headers)
        return at_us

    async def polls(self, count: int, *, every_s: float = 0.1) -> tuple[int, int]:
        """So many in real time; gives the first and last source time."""
        times = []
        for _ in range(count):
            times.append(await self.poll())
            await asyncio.sleep(every_s)
        return times[0], times[-1]

    async def done(self, at_us: int) -> AppsState:
        """Wait until the edge's results are out up to a time and nothing is left to mend."""

        def holds() -> bool:
            last = self.states[-1] if self.states else None
            return last is not None and last.done_us > at_us and not last.repairs

        await until(holds, 60, f"results of the edge; last told {self.states[-1:]}")
        return self.states[-1]

    async def running(self) -> AppsState:
        """Wait until the edge's role runs."""

        def holds() -> bool:
            return bool(self.states) and self.states[-1].state == "running"

        await until(holds, 60, f"the edge's role runs; last told {self.states[-1:]}")
        return self.states[-1]

    async def listen(self) -> None:
        """Hear the edge's role at its own broker."""

        async def hear(message) -> None:
            self.states.append(msgspec.json.decode(message.data, type=AppsState))

        await self.pair.edge.bus.subscribe(SUBJECTS.apps_health("north"), hear)

    @asynccontextmanager
    async def role(self) -> AsyncIterator[asyncio.Task[None]]:
        """The apps role beside the edge, in this event loop."""
        stop = asyncio.Event()
        machine = self.pair.edge
        task = asyncio.create_task(
            apps_role.run(machine.folder, machine.address, SUBJECTS, stop, edge="north")
        )
        try:
            yield task
        finally:
            stop.set()
            if not task.cancelled():
                await task


@asynccontextmanager
async def edge_rig(root: Path) -> AsyncIterator[EdgeRig]:
    async with (
        Apart(root) as pair,
        rig_on(pair.hub.folder, pair.hub.address, pair.hub.bus) as hub,
    ):
        made = EdgeRig(pair, hub)
        await made.listen()
        yield made


__all__: Sequence[str] = ["EdgeRig", "config", "edge_rig", "placed"]
