"""Alarms of the installation itself: in the list like any other, until what is wrong is over."""

from __future__ import annotations

from headrace.alarms.runtime import AlarmRuntime
from headrace.alarms.store import AlarmStore
from headrace.apps.care import ending
from headrace.model.alarm import Command, Transition
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock
from headrace.security.listener import US_PER_DAY, Listener

ALARM = "certificates/device:press_3"


def acknowledge(runtime: AlarmRuntime, number: int) -> None:
    command = Command(id=f"c{number}", verb="acknowledge", alarms=(ALARM,), actor="ida")
    assert not runtime.command(command).refused


def test_a_certificate_that_ends_is_an_alarm_until_it_is_renewed(folder: DataFolder) -> None:
    clock, told = ManualClock(), list[Transition]()
    listener = Listener(folder)
    listener.issue_device("press_3", clock.now_us(), 60)
    store = AlarmStore(folder)
    runtime = AlarmRuntime(store, clock, told.extend)

    def look(days: int = 0) -> tuple[str, str] | None:
        clock.advance_us(days * US_PER_DAY)
        runtime.bind([], [])  # a new configuration takes none of them away
        runtime.stand(ending(listener.in_use(), clock.now_us()))
        found = store.get(ALARM)
        return (found.state, found.priority) if found is not None else None

    assert look() is None
    assert look(31) == ("UNACK", "low")
    acknowledge(runtime, 1)
    assert look() == ("ACKED", "low")
    runtime.close()
    runtime = AlarmRuntime(AlarmStore(folder), clock, told.extend)
    assert look() == ("ACKED", "low"), "a restart tells nothing again"
    assert look(23) == ("UNACK", "medium"), "graver: it comes up again"
    assert look(5) == ("UNACK", "high")
    assert look(2) == ("UNACK", "urgent")
    found = store.get(ALARM)
    assert found is not None and "has ended on" in found.message.en and "到期" in found.message.zh
    listener.issue_device("press_3", clock.now_us(), 60)
    assert look() == ("RTNUN", "urgent")
    acknowledge(runtime, 2)
    assert look() is None
    assert store.states() == []
    events = [each.event for each in told if each.event in ("alarm", "acknowledge", "retire")]
    assert events == ["alarm", "acknowledge", "alarm", "alarm", "alarm", "acknowledge", "retire"]
    store.close()
