"""The edge process."""

from __future__ import annotations

import asyncio
from typing import Final

from headrace.bus.broker import BrokerAddress, with_client_files
from headrace.bus.client import SAMPLES_BYTES_MAX, Bus, ensure_streams, open_bus
from headrace.bus.leaf import joined
from headrace.bus.subjects import Subjects
from headrace.edge.agent import Agent, follow_desired
from headrace.edge.calls import Calls
from headrace.edge.log_keeper import LogKeeper
from headrace.model.folder import DataFolder
from headrace.model.tasks import end_tasks
from headrace.model.time import SystemClock
from headrace.security.sealing import own_edge_key

LOOK_S: Final = 1.0


async def run(
    folder: DataFolder,
    address: BrokerAddress,
    subjects: Subjects,
    stop: asyncio.Event,
    *,
    edge: str = "local",
) -> None:
    """Run one edge until ``stop`` is set; then give what was read to the log and return.

    On a machine of its own it keeps its own log besides (:mod:`headrace.edge.log_keeper`).

    Raises:
        Transient: BUS-1025 when the broker does not answer at first.
    """
    clock = SystemClock()
    address = with_client_files(folder, address)
    async with open_bus(address, f"edge-{edge}") as bus:
        own = joined(folder)
        await ensure_streams(bus, bytes_max=own.log_bytes_max if own else SAMPLES_BYTES_MAX)
        agent = Agent(
            bus,
            address,
            subjects,
            edge=edge,
            certificates=folder.certificates,
            clock=clock,
            key=own_edge_key(folder.keys, edge),
            folder=folder,
        )
        await Calls(agent, clock, edge).serve(bus, subjects)
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(_work(agent, bus, edge)),
                tasks.create_task(agent.publish_health()),
                tasks.create_task(agent.publish_events()),
                tasks.create_task(agent.keep_marks()),
                tasks.create_task(agent.load.watch()),
            ]
            if own is not None:
                keeper = LogKeeper(bus, subjects, own, clock, report=agent.report, disk=folder.root)
                agent.tell_log = keeper.state
                await keeper.serve()
                running.append(tasks.create_task(_tell_apps(agent, folder)))
                running.append(tasks.create_task(keeper.run()))
            await stop.wait()
            await agent.stop()
            await end_tasks(*running)
            await agent.end_ledger()


async def _tell_apps(agent: Agent, folder: DataFolder) -> None:
    """Let who starts the processes of this machine know whether a runtime of apps is among them."""
    while True:
        if agent.config.deployments:
            folder.placed_apps.touch()
        elif agent.config.enterprise:
            folder.placed_apps.unlink(missing_ok=True)
        await asyncio.sleep(LOOK_S)


async def _work(agent: Agent, bus: Bus, edge: str) -> None:
    """Open the books, then run what is desired; for ever."""
    await agent.begin_ledger()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follow_desired(agent, bus, edge))
        tasks.create_task(agent.keep_ledger())
