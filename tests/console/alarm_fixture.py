"""Alarms of the site of ``site_fixture``: the desired state, a store, and an apps role that does commands."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import msgspec
from site_fixture import CLOCK, SUBJECTS, RunningSite

from headrace.alarms.definition import definition_of
from headrace.alarms.machine import Facts, step
from headrace.alarms.store import AlarmStore
from headrace.bus.client import Bus, open_bus
from headrace.bus.subjects import DESIRED_BUCKET
from headrace.model.alarm import (
    AlarmState,
    Command,
    CommandAnswer,
    EventName,
    Outcome,
    Transition,
    Verb,
)
from headrace.model.errors import HeadraceError, Refused
from headrace.model.knowledge import AppsConfig, AssetConfig, AssetTypeConfig, FormulaConfig
from headrace.model.time import US_PER_S

PUMPS = ("utilities/pumping/pump_1", "utilities/pumping/pump_2")
CNCS = ("machining/milling/cnc_1", "machining/milling/cnc_2")
TEXTS = {
    "pump.low_flow": (
        'alarm low_flow: flow < 20 m3/h for 30 s, off above 24 m3/h for 10 s, priority high, '
        'message "Flow too low" zh "流量过低", cause "Strainer blocked, or the suction valve is not open" '
        'zh "过滤器堵塞，或吸入阀未打开", consequence "The pump runs dry within 10 minutes" '
        'zh "泵将在 10 分钟内干转", action "Open the suction valve; then clean strainer S-12" '
        'zh "打开吸入阀，然后清洗过滤器 S-12", response 10 min, group "pump trip"'
    ),
    "pump.overload": (
        'alarm overload: power > 45 kW for 5 s, off below 42 kW, priority urgent, '
        'message "Motor overloaded" zh "电机过载", '
        'cause "Pump blocked or bearing seized" zh "泵堵转或轴承卡死", '
        'action "Stop the pump and start its neighbour" zh "停泵并启动备用泵", latched, group "pump trip"'
    ),
    "cnc.spindle_load": (
        'alarm spindle_load: spindle_load > 90 % for 10 s, priority medium, '
        'message "Spindle load high" zh "主轴负载高", action "Check the tool for wear" zh "检查刀具磨损"'
    ),
    "cnc.idle": 'alarm idle: spindle_load < 2 % for 15 min, priority low, message "Spindle idle" zh "主轴空闲"',
}  # fmt: skip


def apps_config(tags: dict[str, int]) -> AppsConfig:
    """Pumps and milling machines with their alarms."""
    quantities = {
        "pump": {"flow": "m3/h", "head": "m", "power": "kW"},
        "cnc": {"spindle_load": "%", "spindle_speed": "1/min", "power": "kW"},
    }
    return AppsConfig(
        enterprise="acme",
        site="mill",
        types=tuple(AssetTypeConfig(name=n, quantities=q) for n, q in quantities.items()),
        assets=tuple(
            AssetConfig(
                path=path, type=kind, tags={q: tags[f"{path}/{q}"] for q in quantities[kind]}
            )
            for kind, paths in (("pump", PUMPS), ("cnc", CNCS))
            for path in paths
        ),
        formulas=tuple(
            FormulaConfig(
                asset_type=key.split(".")[0], name=key.split(".")[1], kind="alarm", text=text
            )
            for key, text in TEXTS.items()
        ),
    )


class Alarms:
    """The alarms of a running site: put into any state, and changed by commands as the apps role would.

    The states follow the table of :mod:`headrace.alarms.machine`; the real role has its own tests.
    """

    def __init__(self, site: RunningSite) -> None:
        self.site = site
        self.store = AlarmStore(site.folder)
        self._states: dict[str, AlarmState] = {}
        self._number = 0

    def begin(self) -> None:
        """Write the desired state, and every alarm as normal."""
        body = msgspec.json.encode(apps_config(self.site.tags))

        async def put(bus: Bus) -> None:
            await bus.put(DESIRED_BUCKET, "apps", body)

        self.site.with_bus(put)
        for key, text in TEXTS.items():
            kind, name = key.split(".")
            found = definition_of(
                FormulaConfig(asset_type=kind, name=name, kind="alarm", text=text)
            )
            for asset in PUMPS if kind == "pump" else CNCS:
                state = AlarmState(
                    alarm=f"{asset}/{name}", key=key, asset=asset, name=name, group=found.group,
                    message=found.message, priority=found.priority,
                )  # fmt: skip
                self._states[state.alarm] = state
        self.store.write([], self._states.values())

    def do(
        self, alarm: str, event: EventName, *, at_us: int = 0, actor: str = "", **more: Any
    ) -> Transition:
        """Let an event happen to an alarm; what the table does not know is refused."""
        if alarm not in self._states:
            raise Refused("ALARM-1998", f"there is no alarm {alarm!r}", "Look at the list.")
        before = self._states[alarm]
        at_us = at_us or CLOCK.now_us()
        active = {"alarm": True, "return_to_normal": False}.get(event, before.active)
        latch = event != "reset" and (
            before.latch or (event == "alarm" and before.name == "overload")
        )
        after = step(before.state, event, Facts(latch=latch, active=active))
        if event in ("comment", "assign"):
            after = before.state
        if after is None:
            raise Refused("ALARM-1999", f"{alarm} is {before.state}", "Look at its state.")
        self._number += 1
        transition = Transition(
            id=f"test-{CLOCK.now_us()}-{self._number}", alarm=alarm, key=before.key, asset=before.asset,
            event=event, before=before.state, after=after, at_us=at_us, recorded_us=CLOCK.now_us(),
            priority=before.priority, message=before.message, actor=actor,
            comment=more.get("comment", ""), until_us=more.get("until_us", 0),
            assignee=more.get("assignee", ""),
        )  # fmt: skip
        changes: dict[str, Any] = {"active": active, "latch": latch, "state": after}
        if after != before.state:
            changes["since_us"] = at_us
        if event == "alarm":
            changes |= {"active_us": at_us, "occurrences": before.occurrences + 1}
        if event == "acknowledge":
            changes |= {"acknowledged_by": actor, "acknowledged_us": at_us}
        if event == "assign":
            changes["assignee"] = more["assignee"]
        if event in ("shelve", "remove_from_service"):
            changes |= {"reason": more["comment"], "shelved_by": actor}
            changes["shelved_until_us"] = more.get("until_us", 0)
        self._states[alarm] = msgspec.structs.replace(before, **changes, **more.get("set", {}))
        self.store.write([transition], [self._states[alarm]])
        return transition

    async def command(self, body: bytes) -> bytes:
        """Answer a command as the apps role does: each alarm is done or refused for itself."""
        asked = msgspec.json.decode(body, type=Command)
        outcomes = []
        for alarm in asked.alarms:
            try:
                done = self.do(
                    alarm, asked.verb, actor=asked.actor, comment=asked.comment,
                    until_us=asked.until_us, assignee=asked.assignee,
                )  # fmt: skip
                outcomes.append(Outcome(alarm=alarm, state=done.after, transition=done.id))
            except HeadraceError as error:
                outcomes.append(
                    Outcome(alarm=alarm, code=error.code, what=error.what, remedy=error.remedy)
                )
        return msgspec.json.encode(CommandAnswer(id=asked.id, outcomes=tuple(outcomes)))


@contextmanager
def serve_alarms(site: RunningSite) -> Iterator[Alarms]:
    """Alarms whose commands are answered on the bus as long as the context lasts."""
    alarms, ready, loop = Alarms(site), threading.Event(), asyncio.new_event_loop()
    alarms.begin()
    stop = asyncio.Event()

    async def serve() -> None:
        async with open_bus(site.address, "test") as bus:
            for verb in get_args(Verb):
                await bus.answer(SUBJECTS.apps_call(verb), alarms.command)
            await bus.client.flush()
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(20), "the test's apps role does not answer"
    try:
        yield alarms
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
        alarms.store.close()


def some_alarms(alarms: Alarms) -> None:
    """A believable picture: one alarm in each state that people meet."""
    now_us = CLOCK.now_us()
    ago = lambda minutes: now_us - minutes * 60 * US_PER_S  # noqa: E731 - shorter than a function
    pump_1, pump_2 = PUMPS
    cnc_1, cnc_2 = CNCS
    alarms.do(f"{pump_1}/overload", "alarm", at_us=ago(3), set={"first_out": True})
    alarms.do(f"{pump_1}/low_flow", "alarm", at_us=ago(2), set={"uncertain": True})
    alarms.do(f"{pump_2}/low_flow", "alarm", at_us=ago(38))
    alarms.do(f"{pump_2}/low_flow", "acknowledge", at_us=ago(36), actor="leo")
    alarms.do(f"{pump_2}/low_flow", "assign", at_us=ago(35), actor="leo", assignee="mia")
    alarms.do(f"{pump_2}/overload", "alarm", at_us=ago(190))
    alarms.do(f"{pump_2}/overload", "acknowledge", at_us=ago(188), actor="mia")
    alarms.do(f"{pump_2}/overload", "return_to_normal", at_us=ago(150))
    alarms.do(f"{cnc_1}/spindle_load", "alarm", at_us=ago(20))
    alarms.do(f"{cnc_1}/spindle_load", "return_to_normal", at_us=ago(12))
    alarms.do(f"{cnc_2}/spindle_load", "alarm", at_us=ago(45))
    alarms.do(
        f"{cnc_2}/spindle_load", "shelve", at_us=ago(40), actor="leo",
        comment="Worn tool is being replaced", until_us=now_us + 3_600 * US_PER_S,
    )  # fmt: skip
    alarms.do(
        f"{cnc_2}/idle", "remove_from_service", at_us=ago(900), actor="mia", comment="Overhaul",
    )  # fmt: skip
