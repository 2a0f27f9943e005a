"""Who is told what and when, by pure functions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notify_samples import MINUTE_US, START_US, channel, config, notice, route

from headrace.alarms.notify.plan import (
    BURST,
    Allowance,
    parcel,
    plan,
    plan_fallback,
    plan_return,
    quiet_until_us,
    takes,
)
from headrace.model.calendar import PlantCalendar, Shift
from headrace.model.errors import Misconfigured
from headrace.model.notify import (
    NotifyConfig,
    QuietHours,
    check_channel,
    check_routes,
)
from headrace.model.time import to_us

CALENDAR = PlantCalendar(
    time_zone="Europe/Berlin",
    shifts=(
        Shift(name="day", start="06:00", end="22:00", teams=("red", "blue")),
        Shift(name="night", start="22:00", end="06:00", teams=("green",)),
    ),
)


def berlin(text: str) -> int:
    return to_us(datetime.fromisoformat(text).replace(tzinfo=CALENDAR.zone).astimezone(UTC))


def test_every_step_is_planned_at_once_and_due_in_its_turn():
    settings = config(
        [channel("phone"), channel("chief"), channel("mail", "email", expire_min=5)],
        [route((0, "phone"), (10, "chief mail"))],
    )
    planned = plan(notice(), settings, PlantCalendar())
    assert [(each.channel, each.step, each.due_us - START_US) for each in planned] == [
        ("phone", 0, 0),
        ("chief", 1, 10 * MINUTE_US),
        ("mail", 1, 10 * MINUTE_US),
    ]
    assert [each.waited_min for each in planned] == [0, 10, 10]
    assert planned[2].expires_us == planned[2].due_us + 5 * MINUTE_US
    assert len({each.key for each in planned}) == 3


def test_two_routes_tell_a_channel_once_a_step_at_the_earlier_time():
    quiet = QuietHours(start="00:00", end="23:59")
    settings = config(
        [channel("phone")],
        [
            route((0, "phone"), name="quiet", quiet=quiet),
            route((0, "phone"), name="all", tell_return=True),
        ],
    )
    (only,) = plan(notice(), settings, PlantCalendar())
    assert only.due_us == START_US and only.follow


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({}, True),
        ({"priorities": ("high", "urgent")}, True),
        ({"priorities": ("urgent",)}, False),
        ({"areas": ("utilities",)}, True),
        ({"areas": ("utilities/pumping/pump_1",)}, True),
        ({"areas": ("util",)}, False),
        ({"areas": ("melting", "utilities/pumping")}, True),
        ({"asset_types": ("press",)}, False),
        ({"alarms": ("pump.hot",)}, True),
        ({"alarms": ("pump.dry",)}, False),
        ({"shifts": ("night",)}, False),
        ({"shifts": ("day",), "teams": ("green",)}, False),
    ],
)
def test_a_route_takes_what_all_its_choices_take(fields, taken):
    noon = notice(at_us=berlin("2026-01-05T12:00"))
    assert takes(route((0, "phone"), **fields), noon, CALENDAR) is taken


def test_shift_and_team_are_those_at_the_time_of_the_alarm():
    to_green = route((0, "phone"), teams=("green",))
    to_red = route((0, "phone"), teams=("red",))
    to_blue = route((0, "phone"), teams=("blue",))
    at_night = notice(at_us=berlin("2026-01-05T23:00"))
    assert takes(to_green, at_night, CALENDAR)
    assert not takes(to_red, at_night, CALENDAR) and not takes(to_blue, at_night, CALENDAR)
    weeks = [notice(at_us=berlin(f"2026-01-{day:02}T12:00")) for day in (5, 12)]
    assert {takes(to_red, each, CALENDAR) for each in weeks} == {True, False}
    assert not takes(route((0, "phone"), shifts=("day",)), weeks[0], PlantCalendar())


@pytest.mark.parametrize(
    ("at", "until"),
    [
        ("2026-01-05T21:59", "2026-01-05T21:59"),
        ("2026-01-05T22:00", "2026-01-06T06:00"),
        ("2026-01-06T05:59", "2026-01-06T06:00"),
        ("2026-01-06T06:00", "2026-01-06T06:00"),
        ("2026-03-28T23:00", "2026-03-29T06:00"),  # the night when the clocks change
    ],
)
def test_quiet_hours_end_by_the_wall_clock(at, until):
    quiet = QuietHours(start="22:00", end="06:00")
    assert quiet_until_us(quiet, berlin(at), CALENDAR) == berlin(until)


def test_some_priorities_pass_quiet_hours():
    quiet = QuietHours(start="22:00", end="06:00", passing=("urgent",))
    settings = config([channel("phone")], [route((0, "phone"), (30, "phone"), quiet=quiet)])
    at_us = berlin("2026-01-05T21:45")
    held = plan(notice(at_us=at_us), settings, CALENDAR)
    assert [each.due_us for each in held] == [at_us, berlin("2026-01-06T06:00")]
    passed = plan(notice(at_us=at_us, priority="urgent"), settings, CALENDAR)
    assert [each.due_us for each in passed] == [at_us, at_us + 30 * MINUTE_US]


def test_returns_go_to_those_who_were_told_and_a_failed_channel_has_a_fallback():
    settings = config(
        [channel("phone", fallback="mail"), channel("mail", "email")], [route((0, "phone"))]
    )
    back = notice(event="returned", at_us=START_US + 1)
    told = plan_return(back, ["phone", "phone", "gone"], settings)
    assert [each.channel for each in told] == ["phone"]
    (failed,) = plan(notice(), settings, PlantCalendar())
    (instead,) = plan_fallback(failed, settings, START_US + 7)
    assert (instead.channel, instead.due_us) == ("mail", START_US + 7)
    assert plan_fallback(instead, settings, START_US) == ()


@given(
    rate=st.integers(1, 600),
    steps=st.lists(st.integers(0, 120_000_000), min_size=1, max_size=200),
)
def test_no_minute_has_more_messages_than_allowed(rate, steps):
    allowance, now_us, sent = Allowance(rate), START_US, []
    for step in steps:
        now_us += step
        while allowance.left(now_us):
            allowance.spend(now_us)
            sent.append(now_us)
    for at_us in sent:
        within = [each for each in sent if at_us <= each < at_us + MINUTE_US]
        assert len(within) <= rate + min(BURST, rate)


def test_the_allowance_says_when_the_next_may_go_and_survives_a_restart():
    allowance = Allowance(6)
    for _ in range(BURST):
        allowance.spend(START_US)
    assert not allowance.left(START_US)
    next_us = allowance.next_us(START_US)
    assert START_US + 9_900_000 < next_us <= START_US + 10_000_001
    assert not Allowance(6, [START_US] * BURST).left(START_US + 1)
    assert allowance.left(next_us) == 1


@given(st.integers(1, 10_000), st.integers(1, 3))
def test_a_flood_goes_as_one_and_few_go_alone(count, left):
    people, program = channel("phone"), channel("hook", "webhook")
    one = parcel(people, count, left)
    assert one == (1 if count <= min(3, left) else count)
    assert 1 <= parcel(program, count, left) <= min(one, 50)


@pytest.mark.parametrize(
    ("made", "code", "words"),
    [
        (channel("c", url="https://qyapi.weixin.qq.com/send?key=1"), "ALARM-2001", "env:NAME"),
        (channel("c", "webhook", url="http://h/", secret="abc"), "ALARM-2001", "env:NAME"),
        (channel("c", url="file:/etc/passwd"), "ALARM-2001", "data folder"),
        (channel("c", url="file:a/../../b"), "ALARM-2001", "data folder"),
        (channel("c", "webhook", url="ftp://h/"), "ALARM-2002", "http"),
        (channel("c", "webhook", url="http://u:p@h/"), "ALARM-2002", "http"),
        (channel("c", "webhook", url=""), "ALARM-2002", "url"),
        (channel("c", secret="env:A"), "ALARM-2002", "WeCom"),
        (channel("c", "email", server=""), "ALARM-2002", "server"),
        (channel("c", "email", to=()), "ALARM-2002", "mail address"),
        (channel("c", "email", to=("nobody",)), "ALARM-2002", "nobody"),
        (channel("c", "email", user="u"), "ALARM-2002", "together"),
        (
            channel("c", "email", server="mail", user="u", password="env:P", security="none"),
            "ALARM-2002",
            "clear",
        ),
        (channel("c", timeout_s=0), "ALARM-2002", "timeout_s"),
        (channel("c", rate_per_min=0), "ALARM-2002", "rate_per_min"),
    ],
)
def test_a_channel_that_cannot_be_used_says_why(made, code, words):
    with pytest.raises(Misconfigured, match=words) as caught:
        check_channel(made)
    assert caught.value.code == code and caught.value.remedy
    assert "=1" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (config([channel("a")], [route((0, "b"))]), "'b'"),
        (config([channel("a", fallback="c")], []), "'c'"),
        (config([channel("a", fallback="a")], []), "own fallback"),
        (config([channel("a")], [route((5, "a"), (5, "a"))]), r"\[5, 5\]"),
        (config([channel("a")], [route()]), r"\[\]"),
        (NotifyConfig(routes=(route((0, "a")),)), "'a'"),
    ],
)
def test_routes_that_lead_nowhere_say_so(settings, words):
    with pytest.raises(Misconfigured, match=words) as caught:
        check_routes(settings)
    assert caught.value.code == "ALARM-2003"
