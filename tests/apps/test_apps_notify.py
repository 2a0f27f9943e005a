"""From a sample over the limit to a message on a phone, through the real apps role."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from apps_rig import SUBJECTS, Rig, apps, config, rig_on
from headrace.alarms.notify.store import NotifyStore
from headrace.alarms.store import AlarmStore
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.subjects import DESIRED_BUCKET
from headrace.model.alarm import Command
from headrace.model.folder import DataFolder
from headrace.model.notify import ChannelConfig, EscalationStep, NotifyConfig, NotifyRoute
from headrace.model.sample import make_batch
from waiting import until

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "alarms" / "notify"))
from robot_servers import Robot, serving

ALARM = (
    'alarm hot: power > 80 kW for 300 ms, off below 60 kW, priority high, message "too hot", '
    'action "open the valve"'
)


@pytest.fixture
async def rig(folder: DataFolder, broker: BrokerAddress, bus: Bus) -> AsyncIterator[Rig]:
    async with rig_on(folder, broker, bus) as made:
        yield made


async def power(rig: Rig, value: float) -> None:
    at_us = rig.clock.now_us()
    columns = np.array([2]), np.array([at_us]), np.array([value])
    await rig.send(make_batch(*columns, received_timestamp_us=at_us))


async def test_an_alarm_is_told_and_its_acknowledgement_ends_the_escalation(rig: Rig) -> None:
    settings = NotifyConfig(
        site="Mill",
        channels=(ChannelConfig(name="ops", kind="webhook", url="file:secrets/ops.url"),),
        routes=(
            NotifyRoute(
                name="pumps",
                asset_types=("pump",),
                steps=(
                    EscalationStep(channels=("ops",)),
                    EscalationStep(channels=("ops",), after_min=10),
                ),
            ),
        ),
    )
    secrets = rig.folder.root / "secrets"
    secrets.mkdir()
    await rig.put(config("ratio = power / flow", ALARM))
    await rig.bus.put(DESIRED_BUCKET, "notify", msgspec.json.encode(settings))
    with serving(Robot("webhook")) as robot:
        (secrets / "ops.url").write_text(robot.url())
        async with apps(rig):
            await rig.running()
            await power(rig, 85)
            await until(lambda: len(robot.got) == 1, 40, "somebody is told")
            (notice,) = robot.got[0]["notices"]
            assert (notice["alarm"], notice["event"]) == ("hall/pump_0/hot", "raised")
            assert notice["message"] == ["too hot", ""]
            assert notice["action"] == ["open the valve", ""]
            store = NotifyStore(rig.folder)
            await until(lambda: store.counts()["ops"] == {"sent": 1, "waiting": 1}, 40)
            command = Command(id="c1", verb="acknowledge", alarms=(notice["alarm"],), actor="eva")
            await rig.bus.request(SUBJECTS.apps_call("acknowledge"), msgspec.json.encode(command))

            def ended() -> bool:
                return store.counts()["ops"] == {"sent": 1, "settled": 1}

            await until(ended, 40, "the escalation ended")
            store.close()
    alarms = AlarmStore(rig.folder)
    store = NotifyStore(rig.folder)
    assert store.position() == str(alarms.last_number())
    await asyncio.to_thread(store.close)
    alarms.close()
