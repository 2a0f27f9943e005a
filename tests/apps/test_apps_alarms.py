"""Alarms in the apps role: they come up, are worked on over the bus, and a kill repeats nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import numpy as np
import pytest

from apps_rig import SUBJECTS, Rig, apps, config, rig_on
from headrace.alarms.store import AlarmStore, JournalFilter
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.recent import recent_events
from headrace.model.alarm import Command, CommandAnswer
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.security.listener import Listener
from waiting import until

ALARM = 'alarm hot: power > 80 kW for 300 ms, off below 60 kW, priority high, message "too hot"'


@pytest.fixture
async def rig(folder: DataFolder, broker: BrokerAddress, bus: Bus) -> AsyncIterator[Rig]:
    async with rig_on(folder, broker, bus) as made:
        yield made


async def power(rig: Rig, *values: float) -> int:
    """The power of the pumps now."""
    at_us, n = rig.clock.now_us(), len(values)
    ids = np.arange(2, 2 * n + 2, 2)
    await rig.send(
        make_batch(ids, np.full(n, at_us), np.array(values), received_timestamp_us=at_us)
    )
    return at_us


async def state(store: AlarmStore, alarm: str, wanted: str) -> None:
    def is_so() -> bool:
        found = store.get(alarm)
        return found is not None and found.state == wanted

    await until(is_so, 30, f"{alarm} is {wanted}")


def journal(store: AlarmStore) -> list[tuple[str, str, str]]:
    return [
        (line.transition.alarm, line.transition.event, line.transition.after)
        for line in sorted(store.journal(JournalFilter()), key=lambda line: line.number)
        if line.transition.event != "configure"
    ]


async def test_an_alarm_comes_up_is_acknowledged_and_outlives_a_kill(rig: Rig) -> None:
    await rig.put(config("ratio = power / flow", ALARM))
    store = AlarmStore(rig.folder)
    first, second = "hall/pump_0/hot", "hall/pump_1/hot"
    async with apps(rig) as task:
        await rig.running()
        await power(rig, 85, 50, 50)
        await state(store, first, "UNACK")
        command = Command(id="c1", verb="acknowledge", alarms=(first,), actor="anna")
        body = msgspec.json.encode(command)
        for _ in range(2):  # the same command again gives the same answer
            answer = await rig.bus.request(SUBJECTS.apps_call("acknowledge"), body)
            told = msgspec.json.decode(answer, type=CommandAnswer)
            assert [(each.alarm, each.code) for each in told.outcomes] == [(first, "")]
        await state(store, first, "ACKED")
        with pytest.raises(Misconfigured, match="APPS-1008"):
            await rig.bus.request(SUBJECTS.apps_call("acknowledge"), b"{}")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await power(rig, 50, 90, 50)  # returns and comes up while nobody evaluates
    rig.states.clear()
    async with apps(rig):
        await state(store, second, "UNACK")
        await state(store, first, "NORM")
        await rig.running()
        last_us = await power(rig, 50, 50, 50)
        await state(store, second, "RTNUN")
        await rig.done(last_us)
    assert sorted(journal(store)) == sorted(
        [
            (first, "alarm", "UNACK"),
            (first, "acknowledge", "ACKED"),
            (first, "return_to_normal", "NORM"),
            (second, "alarm", "UNACK"),
            (second, "return_to_normal", "RTNUN"),
        ]
    )
    events = [each.text for each in await recent_events(rig.bus) if each.code == "APPS-1103"]
    assert events == [f"{first}: too hot", f"{second}: too hot"]
    store.close()


async def test_a_certificate_that_ends_soon_stands_in_the_list_and_is_acknowledged(
    rig: Rig,
) -> None:
    Listener(rig.folder).issue_device("press_3", rig.clock.now_us(), 5)
    await rig.put(config("ratio = power / flow"))
    store, alarm = AlarmStore(rig.folder), "certificates/device:press_3"
    async with apps(rig):
        await state(store, alarm, "UNACK")
        command = Command(id="c1", verb="acknowledge", alarms=(alarm,), actor="anna")
        body = msgspec.json.encode(command)
        await rig.bus.request(SUBJECTS.apps_call("acknowledge"), body)
        await state(store, alarm, "ACKED")
    store.close()
