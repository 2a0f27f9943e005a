"""Escalation, retries, floods, dead channels and restarts, by a clock that is held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from notify_samples import MINUTE_US, START_US, channel, config, notice, route
from robot_servers import Robot, in_json, serving

from headrace.alarms.notify import taking
from headrace.alarms.notify.notifier import Notifier, send_test
from headrace.alarms.notify.robots import Outcome
from headrace.alarms.notify.sending import Sender
from headrace.alarms.notify.store import NotifyStore
from headrace.model.calendar import PlantCalendar
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.health import Event
from headrace.model.notify import NotifyConfig, QuietHours
from headrace.model.time import ManualClock, SystemClock
from waiting import until

SENT = Outcome("sent", "errcode 0")
RETRY = Outcome("retry", "http 503", "down")
REFUSED = Outcome("refused", "errcode 93000", "invalid webhook url")


class Plant:
    """A notifier on a folder, with channels that answer what they are told to answer."""

    def __init__(self, folder: Path, made: NotifyConfig, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock(START_US)
        self.config = made
        self.folder = DataFolder(folder)
        self.store = NotifyStore(self.folder)
        self.events: list[Event] = []
        self.answers: dict[str, Outcome] = {}
        self.told: list[tuple[str, str]] = []
        self.notifier = self._start()

    def _start(self) -> Notifier:
        return Notifier(self.store, self.clock, send=self._send, report=self.events.append)

    async def _send(self, made, message, key) -> Outcome:
        del key
        outcome = self.answers.get(made.name, SENT)
        if outcome.result == "sent":
            self.told.append((made.name, message.title.removesuffix(" · Mill")))
        return outcome

    async def restart(self) -> None:
        """As after a kill: all that is remembered is the store."""
        self.store.close()
        self.store = NotifyStore(self.folder)
        self.store.recover()
        self.notifier = self._start()
        await self.configure()

    async def configure(self) -> None:
        await self.notifier.configure(self.config, PlantCalendar())

    async def take(self, *notices) -> None:
        await self.notifier.take(notices, f"to {notices[-1].id}")

    async def work(self) -> int:
        """All channels, until each has nothing to do now; gives when one has."""
        while True:
            now_us = self.clock.now_us()
            turns = [await self.notifier.turn(each.name) for each in self.config.channels]
            nexts = [each for each in turns if each is not None]
            if all(each > now_us for each in nexts):
                return min(nexts, default=now_us + 3_600_000_000)

    async def after(self, minutes: float) -> None:
        """Let time go by, as the channels ask to be called."""
        end_us = self.clock.now_us() + int(minutes * MINUTE_US)
        while (next_us := await self.work()) <= end_us:
            self.clock.advance_us(next_us - self.clock.now_us())
        self.clock.advance_us(end_us - self.clock.now_us())

    def codes(self) -> list[str]:
        return [event.code for event in self.events]


PHONE_THEN_CHIEF = config(
    [channel("phone"), channel("chief"), channel("mail", "email")],
    [route((0, "phone"), (10, "chief"), tell_return=True)],
)


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    made = Plant(tmp_path, PHONE_THEN_CHIEF)
    await made.configure()
    yield made
    made.store.close()


async def test_an_alarm_escalates_until_it_is_acknowledged(plant: Plant):
    await plant.take(notice(1))
    await plant.take(notice(2))
    await plant.after(5)
    assert plant.told == [
        ("phone", "[HIGH] Pump 1: bearing too hot"),
        ("phone", "[HIGH] Pump 2: bearing too hot"),
    ]
    acknowledged_us = plant.clock.now_us()
    await plant.take(notice(1, "acknowledged", acknowledged_us))
    await plant.after(6)
    assert plant.told[2:] == [("chief", "[HIGH] Pump 2: bearing too hot")]
    await plant.after(30)
    assert len(plant.told) == 3
    assert plant.store.counts() == {"phone": {"sent": 2}, "chief": {"sent": 1, "settled": 1}}


@pytest.mark.parametrize("event", ["returned", "withdrawn", "acknowledged"])
async def test_what_ends_an_alarm_ends_its_escalation_and_a_return_is_told(plant: Plant, event):
    await plant.take(notice(1))
    await plant.work()
    plant.clock.advance_us(MINUTE_US)
    await plant.take(notice(1, event, plant.clock.now_us()))
    await plant.after(30)
    back = [("phone", "[returned to normal] Pump 1: bearing too hot")]
    assert plant.told[1:] == (back if event == "returned" else [])


async def test_who_was_not_told_of_an_alarm_does_not_hear_that_it_returned(plant: Plant):
    at_us = plant.clock.now_us()
    await plant.take(notice(1), notice(1, "returned", at_us + 1), notice(2))
    await plant.work()
    assert plant.told == [("phone", "[HIGH] Pump 2: bearing too hot")]


async def test_an_alarm_that_comes_again_escalates_from_anew(plant: Plant):
    await plant.take(notice(1))
    await plant.after(9)
    await plant.take(notice(1, at_us=plant.clock.now_us()))
    await plant.after(2)
    assert [name for name, _ in plant.told] == ["phone", "phone"]
    await plant.after(9)
    assert [name for name, _ in plant.told] == ["phone", "phone", "chief"]


async def test_a_flood_is_a_few_messages_and_one_digest_each_time_one_may_go(plant: Plant):
    for number in range(100):
        await plant.take(notice(number, recorded_us=plant.clock.now_us()))
        await plant.work()
    assert len(plant.told) == 3
    await plant.after(0.2)
    assert len(plant.told) == 4  # 15 a minute: one each 4 s
    assert plant.told[3][1] == "97 alarms"
    assert plant.store.counts()["phone"] == {"sent": 100}
    for number in range(200, 210):
        await plant.take(notice(number, priority="urgent" if number == 205 else "low"))
    await plant.after(0.1)
    digest = plant.told[-1][1]
    assert digest == "10 alarms: 1 URGENT, 9 LOW"


async def test_a_digest_gets_the_right_return_messages(plant: Plant):
    await plant.take(*(notice(number) for number in range(20)))
    await plant.work()
    assert [title for _, title in plant.told] == ["20 alarms: 20 HIGH"]
    plant.clock.advance_us(MINUTE_US)
    await plant.take(notice(7, "returned", plant.clock.now_us()))
    await plant.work()
    assert plant.told[1] == ("phone", "[returned to normal] Pump 7: bearing too hot")


async def test_a_channel_that_fails_is_tried_on_while_the_next_is_told_once(plant: Plant):
    plant.answers["phone"] = RETRY
    await plant.take(notice(1))
    await plant.after(1)
    assert plant.told == [("chief", "[HIGH] Pump 1: bearing too hot")]
    assert plant.codes() == ["ALARM-2010"]
    assert "http 503 down" in plant.events[0].text
    await plant.take(notice(2, recorded_us=plant.clock.now_us()))
    await plant.after(0.1)
    assert plant.told[1:] == [("chief", "[HIGH] Pump 2: bearing too hot")]
    del plant.answers["phone"]
    await plant.after(6)
    assert [name for name, _ in plant.told[2:]] == ["phone", "phone"]
    assert plant.codes() == ["ALARM-2010", "ALARM-2011"]
    results = [each.result for each in plant.store.log(channel="phone")]
    assert results[:2] == ["sent", "sent"] and 3 <= results.count("retry") <= 8
    await plant.after(20)
    assert len(plant.told) == 4  # the tenth minute tells the chief no second time


async def test_what_is_refused_falls_at_once_and_with_nobody_left_it_is_said(plant: Plant):
    plant.answers["phone"] = plant.answers["chief"] = REFUSED
    await plant.take(notice(1))
    await plant.work()
    assert plant.codes() == ["ALARM-2010", "ALARM-2010", "ALARM-2012"]
    assert "URL" in plant.events[0].remedy
    assert "utilities/pumping/pump_1/hot" in plant.events[2].text
    assert plant.store.counts() == {"phone": {"failed": 1}, "chief": {"failed": 1}}
    await plant.after(20)
    assert len(plant.events) == 3


async def test_the_fallback_is_told_when_the_route_has_no_further_step(tmp_path: Path):
    made = config(
        [channel("phone", fallback="mail"), channel("mail", "email")], [route((0, "phone"))]
    )
    plant = Plant(tmp_path, made)
    await plant.configure()
    plant.answers["phone"] = RETRY
    await plant.take(notice(1))
    await plant.after(1)
    assert plant.told == [("mail", "[HIGH] Pump 1: bearing too hot")]
    await plant.take(notice(2), notice(2, "acknowledged", START_US + 1))
    await plant.after(1)
    assert len(plant.told) == 1  # what was acknowledged falls to nobody
    plant.store.close()


async def test_too_much_is_waited_for_and_is_no_failure(plant: Plant):
    plant.answers["phone"] = Outcome("limited", "errcode 45009", "", 60.0)
    await plant.take(notice(1))
    await plant.after(0.9)
    assert len(plant.store.log()) == 1 and not plant.events
    del plant.answers["phone"]
    await plant.after(0.2)
    assert len(plant.told) == 1


async def test_what_cannot_be_delivered_in_time_expires_and_falls(tmp_path: Path):
    made = config(
        [channel("phone", expire_min=2), channel("chief")], [route((0, "phone"), (30, "chief"))]
    )
    plant = Plant(tmp_path, made)
    await plant.configure()
    plant.answers["phone"] = Outcome("limited", "errcode 45009", "", 600.0)
    await plant.take(notice(1))
    await plant.after(3)
    assert plant.store.counts() == {"phone": {"expired": 1}, "chief": {"sent": 1}}
    plant.store.close()


async def test_quiet_hours_hold_a_message_until_they_end(tmp_path: Path):
    quiet = QuietHours(start="00:00", end="00:05")
    made = config([channel("phone")], [route((0, "phone"), quiet=quiet)])
    plant = Plant(tmp_path, made)
    await plant.configure()
    await plant.take(notice(1), notice(2))
    await plant.after(4)
    assert not plant.told
    await plant.take(notice(2, "acknowledged", plant.clock.now_us()))
    await plant.after(2)
    assert [title for _, title in plant.told] == ["[HIGH] Pump 1: bearing too hot"]
    plant.store.close()


async def test_settings_may_change_while_messages_wait(plant: Plant):
    await plant.take(notice(1))
    await plant.work()
    plant.config = config([channel("phone"), channel("mail", "email")], [route((0, "mail"))])
    await plant.configure()
    assert plant.codes() == ["ALARM-2014"]
    assert plant.store.counts()["chief"] == {"failed": 1}
    await plant.take(notice(2))
    await plant.work()
    assert plant.told[1:] == [("mail", "[HIGH] Pump 2: bearing too hot")]


async def test_no_room_is_said_and_what_waits_stays(plant: Plant, monkeypatch):
    monkeypatch.setattr(taking, "WAITING_MAX", 5)
    await plant.take(*(notice(number) for number in range(4)))
    assert plant.codes() == ["ALARM-2015"] and plant.events[0].text.startswith("3 ")
    counts = plant.store.counts()
    assert sum(states["waiting"] for states in counts.values()) == 5


HOWEVER = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=8, deadline=None, suppress_health_check=HOWEVER)
@given(data=st.data())
def test_nothing_is_told_twice_or_lost_however_it_is_killed_and_taken_again(tmp_path, data):
    """Kills between steps; the journal is given again from an old position."""
    asyncio.run(_with_kills(tmp_path / str(len(list(tmp_path.iterdir()))), data))


@pytest.mark.soak
@settings(max_examples=150, deadline=None, suppress_health_check=HOWEVER)
@given(data=st.data())
def test_nothing_is_told_twice_or_lost_in_many_ways(tmp_path, data):
    asyncio.run(_with_kills(tmp_path / str(len(list(tmp_path.iterdir()))), data))


async def _with_kills(folder: Path, data) -> None:
    plant = Plant(folder, PHONE_THEN_CHIEF)
    await plant.configure()
    journal = []
    for number in range(data.draw(st.integers(1, 6))):
        journal.append(notice(number, recorded_us=START_US + number * 1_000_000))
        if data.draw(st.booleans()):
            event = data.draw(st.sampled_from(["acknowledged", "withdrawn"]))
            journal.append(notice(number, event, START_US + number * 1_000_000 + 500_000))
    ended = {each.alarm for each in journal if each.event != "raised"}
    taken = 0
    while taken < len(journal) or data.draw(st.booleans()):
        start = data.draw(st.integers(0, taken))
        taken = min(len(journal), taken + data.draw(st.integers(1, 3)))
        if journal[start:taken]:
            await plant.take(*journal[start:taken])
        if data.draw(st.booleans()):
            await plant.work()
        if data.draw(st.booleans()):
            await plant.restart()
        plant.clock.advance_us(4_000_000)
    await plant.restart()
    await plant.after(20)
    counts = plant.store.counts()
    raised = {each.alarm for each in journal}
    for name in ("phone", "chief"):
        states = counts[name]
        assert set(states) <= {"sent", "settled"}
        assert states.get("sent", 0) >= len(raised - ended)
        told = sum(
            int(title.split(" ")[0]) if "alarms" in title else 1
            for each, title in plant.told
            if each == name
        )
        assert told == states.get("sent", 0)
    assert await plant.notifier.position() == f"to {journal[-1].id}"
    plant.store.close()


async def test_an_attempt_that_a_kill_cut_short_goes_once_more_under_the_same_key(plant: Plant):
    await plant.take(notice(1))
    number = plant.store.begin("phone", "alarm", "title", plant.clock.now_us(), 1)
    await plant.restart()
    await plant.work()
    assert len(plant.told) == 1
    lost = [each for each in plant.store.log() if each.id == number]
    assert lost[0].result == "lost"


async def test_what_is_done_leaves_after_ninety_days(plant: Plant):
    await plant.take(notice(1), notice(2))
    await plant.work()
    await plant.take(notice(1, "acknowledged", plant.clock.now_us()))
    plant.store.tidy(plant.clock.now_us() + 91 * 86_400_000_000)
    assert plant.store.counts() == {"chief": {"waiting": 1}}
    assert plant.store.log() == []


async def test_run_sends_by_itself_each_channel_at_its_own_pace(tmp_path: Path, monkeypatch):
    """The real loop, the real clock, real servers: one that hangs does not hold up the other."""
    clock, events = SystemClock(), []
    store = NotifyStore(DataFolder(tmp_path))
    sender = Sender(tmp_path, clock.now_us)
    notifier = Notifier(store, clock, send=sender.send, report=events.append)
    with serving(Robot("wecom")) as good, serving(Robot("webhook")) as odd:
        monkeypatch.setenv("ROBOT", good.url())
        gone = odd.url().replace("/hooks", "/nowhere")
        odd.scripted = [(503, {}, b"")] * 3
        made = config(
            [channel("bad", "webhook", url=gone), channel("phone", rate_per_min=600)],
            [route((0, "bad phone"))],
        )
        stop = asyncio.Event()
        await notifier.configure(made, PlantCalendar())
        running = asyncio.create_task(notifier.run(stop))
        await notifier.take([notice(1, recorded_us=clock.now_us())], "1")
        await until(lambda: len(good.got) == 1 and len(odd.posts) == 1)
        good.scripted = [in_json({"errcode": -1, "errmsg": "system busy"})]
        await notifier.take([notice(2, recorded_us=clock.now_us())], "2")
        await until(lambda: len(good.got) == 2)
        stop.set()
        await running
    assert [each.result for each in reversed(store.log(channel="phone"))] == [
        "sent",
        "retry",
        "sent",
    ]
    store.close()


async def test_a_test_message_is_recorded(plant: Plant):
    async def send(made, message, key) -> Outcome:
        assert message.title == "Test message · Mill" and key.startswith("test/phone/")
        return SENT

    calendar = PlantCalendar(time_zone="Asia/Shanghai")
    outcome = await send_test("phone", plant.config, calendar, plant.store, plant.clock, send)
    assert outcome == SENT
    (attempt,) = plant.store.log()
    assert (attempt.kind, attempt.result, attempt.code) == ("test", "sent", "errcode 0")
    with pytest.raises(Misconfigured, match="Known: phone, chief, mail"):
        await send_test("none", plant.config, calendar, plant.store, plant.clock, send)
