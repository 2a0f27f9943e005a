"""From the alarms' journal to a message, over the real stores, the real bus and a local robot."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from notify_samples import channel, config, route
from robot_servers import Robot, in_json, serving

from headrace.alarms.machine import TABLE
from headrace.alarms.notify.notices import event_of, guide_of, notice_of
from headrace.alarms.notify.service import run_notify
from headrace.alarms.notify.store import NotifyStore
from headrace.alarms.store import AlarmStore
from headrace.bus.client import Bus
from headrace.bus.subjects import DESIRED_BUCKET
from headrace.model.alarm import SUPPRESSED, Transition, Wording
from headrace.model.folder import DataFolder
from headrace.model.health import Event
from headrace.model.knowledge import AppsConfig, AssetConfig, FormulaConfig
from headrace.model.tasks import end_tasks
from headrace.model.time import SystemClock
from waiting import until

ASSET = "utilities/pumping/pump_1"
TEXT = (
    'alarm hot: t > 80 degC, priority high, message "too hot" zh "过热", cause "no oil", '
    'action "stop the pump"'
)
APPS = AppsConfig(
    enterprise="acme",
    site="mill",
    assets=(AssetConfig(path=ASSET, type="pump", title="Pump 1", title_zh="1 号泵"),),
    formulas=(
        FormulaConfig(asset_type="pump", name="hot", kind="alarm", text=TEXT),
        FormulaConfig(asset_type="pump", name="broken", kind="alarm", text="alarm broken: ("),
    ),
)


def line(event: Any, before: Any, after: Any, at_us: int, **fields: Any) -> Transition:
    given: dict[str, Any] = {
        "id": f"{ASSET}/hot {at_us} {event}",
        "alarm": f"{ASSET}/hot",
        "key": "pump.hot",
        "asset": ASSET,
        "recorded_us": at_us,
        "priority": "high",
        "message": Wording("too hot", "过热"),
    }
    return Transition(event=event, before=before, after=after, at_us=at_us, **given | fields)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.before}-{row.event}-{row.after}")
def test_every_row_of_the_machine_means_one_thing_to_those_who_are_told(row: Any):
    event = event_of(line(row.event, row.before, row.after, 1))
    if row.before == row.after:
        assert event is None
    elif row.after == "UNACK":
        assert event == "raised"
    elif row.after in SUPPRESSED:
        assert event == "withdrawn"
    elif row.event == "return_to_normal":
        assert event == (None if row.after == "LATUN" else "returned")
    else:
        assert event in ("acknowledged", "withdrawn")


def test_a_notice_has_what_the_site_says_and_shadows_are_told_to_nobody():
    guide = guide_of(APPS)
    assert set(guide.alarms) == {"pump.hot"}
    raised = line("alarm", "NORM", "UNACK", 7)
    made = notice_of(raised, guide)
    assert made is not None
    assert (made.asset_type, made.asset_title) == ("pump", ("Pump 1", "1 号泵"))
    assert (made.cause, made.action) == (("no oil", ""), ("stop the pump", ""))
    assert made.message == ("too hot", "过热")
    assert notice_of(line("alarm", "NORM", "UNACK", 7, shadow=True), guide) is None
    assert notice_of(line("comment", "UNACK", "UNACK", 7), guide) is None
    gone = notice_of(line("retire", "UNACK", "UNACK", 7), guide)
    assert gone is not None and gone.event == "withdrawn"
    unknown = notice_of(line("alarm", "NORM", "UNACK", 7, key="pump.other", asset="x"), guide)
    assert unknown is not None and unknown.cause == ("", "")


class Role:
    """What the apps role starts, and stops as a kill does."""

    def __init__(self, folder: DataFolder, bus: Bus) -> None:
        self.folder = folder
        self.bus = bus
        self.events: list[Event] = []
        self.may_work = True
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(
            run_notify(
                self.folder,
                self.bus,
                SystemClock(),
                self.stop,
                report=self.events.append,
                may_work=lambda: self.may_work,
            )
        )

    async def end(self) -> None:
        self.stop.set()
        assert self.task is not None
        await self.task

    async def kill(self) -> None:
        assert self.task is not None
        await end_tasks(self.task)


async def test_the_journal_is_told_once_over_kills_and_only_where_it_may(
    folder: DataFolder, bus: Bus, monkeypatch: pytest.MonkeyPatch
):
    alarms, role = AlarmStore(folder), Role(folder, bus)
    settings = config(
        [channel("ops", rate_per_min=600)],
        [route((0, "ops"), areas=("utilities",), tell_return=True)],
    )
    await bus.put(DESIRED_BUCKET, "apps", msgspec.json.encode(APPS))
    await bus.put(DESIRED_BUCKET, "notify", msgspec.json.encode(settings))
    now_us = SystemClock().now_us()
    old_us = now_us - 7_200_000_000
    alarms.write([line("alarm", "NORM", "UNACK", old_us), line("alarm", "NORM", "UNACK", now_us)])
    with serving(Robot("wecom")) as robot:
        monkeypatch.setenv("ROBOT", robot.url())
        role.may_work = False
        role.start()
        alarms.write([line("acknowledge", "UNACK", "ACKED", now_us + 1, actor="eva")])
        alarms.write([line("alarm", "RTNUN", "UNACK", now_us + 2)])
        role.may_work = True
        known = NotifyStore(folder)  # what the robot got and nobody wrote down is told again
        await until(lambda: known.counts().get("ops", {}).get("sent") == 1)
        await role.kill()
        alarms.write([line("return_to_normal", "UNACK", "RTNUN", now_us + 3)])
        role.start()
        await until(lambda: len(robot.got) == 2)
        robot.scripted = [in_json({"errcode": 93000, "errmsg": "invalid webhook url"})]
        alarms.write([line("alarm", "RTNUN", "UNACK", now_us + 4)])
        await until(lambda: bool(role.events))
        await role.end()
    told = [each["markdown"]["content"].splitlines()[0] for each in robot.got]
    assert "[HIGH] Pump 1: too hot" in told[0] and "[returned to normal]" in told[1]
    assert [event.code for event in role.events] == ["ALARM-2010", "ALARM-2012"]
    store = NotifyStore(folder)
    assert store.counts() == {"ops": {"sent": 2, "failed": 1, "settled": 1}}
    assert store.position() == str(alarms.last_number())
    store.close()
    alarms.close()


async def test_settings_that_come_later_and_cannot_be_read_are_waited_for(
    folder: DataFolder, bus: Bus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    role = Role(folder, bus)
    await bus.put(DESIRED_BUCKET, "apps", b"{}")
    await bus.put(DESIRED_BUCKET, "notify", b"[1]")
    role.start()
    alarms = AlarmStore(folder)
    alarms.write([line("alarm", "NORM", "UNACK", SystemClock().now_us())])
    with serving(Robot("wecom")) as robot:
        monkeypatch.setenv("ROBOT", robot.url())
        settings = config([channel("ops")], [route((0, "ops"))])
        await bus.put(DESIRED_BUCKET, "notify", msgspec.json.encode(settings))
        await bus.put(DESIRED_BUCKET, "apps", msgspec.json.encode(APPS))
        await until(lambda: len(robot.got) == 1)
        await role.end()
    alarms.close()
