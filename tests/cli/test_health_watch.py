"""What commands hear of a site: with several historians, none is called missing before its turn."""

from __future__ import annotations

import asyncio

from headrace.bus.client import Bus
from headrace.bus.subjects import Subjects
from headrace.cli.health import HealthWatch
from headrace.model.health import EdgeState, HistorianState
from headrace.model.time import SystemClock

SUBJECTS = Subjects("acme", "mill")
CLOCK = SystemClock()


def historian(partition: str) -> HistorianState:
    now_us = CLOCK.now_us()
    return HistorianState(state="running", at_us=now_us, started_us=now_us, partition=partition)


async def test_all_historians_and_the_edge_are_waited_for(bus: Bus) -> None:
    told: list[str] = []
    watch = HealthWatch(CLOCK, lambda state: told.append(state.edge))
    await watch.start(bus, SUBJECTS)
    waiting = asyncio.create_task(watch.until("local", 20))
    await bus.publish(SUBJECTS.historian_health(), historian("0/2"))
    state = EdgeState(
        edge="local", config_hash="", at_us=CLOCK.now_us(), started_us=0, connections=[]
    )
    await bus.publish(SUBJECTS.edge_health("local"), state)
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done, "the other historian was not heard"
    await bus.publish(SUBJECTS.historian_health(), historian("1/2"))
    await waiting
    assert told == ["local"] and watch.edges["local"][0].edge == "local"
    assert watch.historian is not None and watch.historian[0].state == "running"


async def test_nobody_is_waited_for_longer_than_was_said(bus: Bus) -> None:
    watch = HealthWatch(CLOCK)
    await watch.start(bus, SUBJECTS)
    await watch.until("local", 0.05)
    assert watch.historian is None and not watch.edges
