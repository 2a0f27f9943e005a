"""The plant calendar through changes of the clocks, in four time zones."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.calendar import DAY_US, HOUR_US, PlantCalendar, Shift, Stop
from headrace.model.errors import Misconfigured
from headrace.model.time import US_PER_S, to_datetime, to_us

ZONES = ("Europe/Berlin", "America/Sao_Paulo", "Asia/Shanghai", "Australia/Lord_Howe")
SHIFTS = (
    Shift(name="early", start="06:00", end="14:00", teams=("A", "B", "C")),
    Shift(name="late", start="14:00", end="22:00", teams=("B", "C", "A")),
    Shift(name="night", start="22:00", end="06:00", teams=("C", "A", "B")),
)
# Where the clocks change, the night that is not 8 hours long: (zone, its first day, hours).
CHANGES = (
    ("Europe/Berlin", "2026-03-28", 7.0),
    ("Europe/Berlin", "2026-10-24", 9.0),
    ("America/Sao_Paulo", "2018-11-03", 7.0),
    ("America/Sao_Paulo", "2018-02-17", 9.0),
    ("Australia/Lord_Howe", "2026-10-03", 7.5),
    ("Australia/Lord_Howe", "2026-04-04", 8.5),
    ("Asia/Shanghai", "2026-03-28", 8.0),
)
moments = st.integers(1_451_606_400, 1_798_761_600).map(lambda s: s * US_PER_S + 1)


def calendar(zone: str, **fields: object) -> PlantCalendar:
    return PlantCalendar(time_zone=zone, shifts=SHIFTS, **fields)  # type: ignore[arg-type] # its own


@pytest.mark.parametrize(("zone", "day", "hours"), CHANGES)
def test_the_night_on_which_the_clocks_change(zone: str, day: str, hours: float) -> None:
    start = to_us(datetime.fromisoformat(f"{day}T00:00:00+00:00")) - DAY_US
    windows = list(calendar(zone).between("shift", start, start + 3 * DAY_US))
    assert [w.hours for w in windows if (w.name, w.day) == ("night", day)] == [hours]
    assert {w.hours for w in windows if w.name != "night"} == {8.0}
    assert all(one.end_us == other.start_us for one, other in pairwise(windows))


@settings(deadline=None, max_examples=60)
@given(start=moments, zone=st.sampled_from(ZONES), name=st.sampled_from(
    ("minute", "hour", "shift", "day", "week", "month", "quarter", "year", "900000000us",
     "14400000000us", "7000000us", "100000000000us")))  # fmt: skip
def test_windows_follow_each_other_without_gap(start: int, zone: str, name: str) -> None:
    made = calendar(zone)
    span = 3 * made.longest_us(name)
    windows = list(made.between(name, start, start + span))
    assert windows and windows[0].start_us - start <= made.longest_us(name)
    assert all(one.end_us == other.start_us for one, other in pairwise(windows))
    assert all(0 < w.end_us - w.start_us <= made.longest_us(name) for w in windows)
    ended = made.windows(name, start, start + span)
    assert all(start <= end < start + span for _, end in ended)
    inner = {(w.start_us, w.end_us) for w in windows if w.end_us < start + span}
    assert inner <= set(ended)


@settings(deadline=None, max_examples=60)
@given(start=moments, zone=st.sampled_from(ZONES))
def test_days_begin_at_midnight_and_hours_are_whole_or_cut_by_a_change(
    start: int, zone: str
) -> None:
    made = calendar(zone)
    for window in made.between("day", start, start + 2 * DAY_US):
        local = to_datetime(window.start_us).astimezone(ZoneInfo(zone))
        # Where a change skips midnight, the day begins at the change.
        assert (local.hour, local.minute) in ((0, 0), (1, 0))
        assert made.between("hour", window.start_us, window.end_us)
    lengths = [w.hours for w in made.between("hour", start, start + 2 * DAY_US)]
    assert set(lengths) <= ({1.0, 0.5} if zone == "Australia/Lord_Howe" else {1.0})


def test_teams_take_turns_and_holidays_have_no_shift() -> None:
    start = to_us(datetime(2026, 1, 5, tzinfo=UTC))
    weekly = list(calendar("UTC").between("shift", start, start + 14 * DAY_US))
    early = [w.team for w in weekly if w.name == "early"]
    assert early == [early[0]] * 7 + [early[7]] * 7 and early[0] != early[7]
    daily = PlantCalendar(
        shifts=(Shift(name="day", start="08:00", end="16:00", teams=("A", "B"), rotate="day"),),
        holidays={"2026-01-06": "Epiphany"},
    )
    windows = list(daily.between("shift", start, start + 4 * DAY_US))
    assert [(w.day[-2:], w.team) for w in windows] in (
        [("05", "A"), ("07", "A"), ("08", "B")],
        [("05", "B"), ("07", "B"), ("08", "A")],
    )


def test_weekdays_and_planned_stops() -> None:
    start = to_us(datetime(2026, 1, 5, tzinfo=UTC))
    office = Shift(name="day", start="08:00", end="16:00", days=("mon", "fri"))
    made = PlantCalendar(shifts=(office,), stops=(Stop(start_us=start, end_us=start + HOUR_US),))
    days = [w.day[-2:] for w in made.between("shift", start, start + 7 * DAY_US)]
    assert days == ["05", "09"]
    assert made.is_planned_stop(start) and not made.is_planned_stop(start + HOUR_US)
    assert "shift" in made.names() and "shift" not in PlantCalendar().names()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"time_zone": "Mars/Olympus"}, "MODEL-1010"),
        ({"shifts": (Shift(name="a", start="6:00", end="14:00"),)}, "MODEL-1011"),
        ({"holidays": {"25.12.2026": "x"}}, "MODEL-1012"),
        (
            {
                "shifts": (
                    Shift(name="a", start="06:00", end="14:30"),
                    Shift(name="b", start="14:00", end="22:00"),
                )
            },
            "MODEL-1013",
        ),
    ],
)
def test_what_cannot_be_is_said(fields: dict[str, object], code: str) -> None:
    with pytest.raises(Misconfigured, match=code):
        made = PlantCalendar(**fields)  # type: ignore[arg-type] # its own fields, badly filled
        made.check()
        list(made.between("day", 0, US_PER_S))


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(["hour", "day", "week", "month", "shift", "900000000us", "25200000000us"]),
    st.integers(0, 400 * 24),
    st.integers(0, 70 * 24),
    st.integers(-1, 1),
)
def test_windows_of_a_time_are_those_that_end_in_it(
    zone: str, name: str, begin_h: int, hours: int, shifted_us: int
) -> None:
    """Asked again, of the whole and of both halves: what is kept between calls does not show."""
    made = PlantCalendar(time_zone=zone, shifts=SHIFTS)
    start = to_us(datetime(2026, 1, 1, tzinfo=UTC)) + begin_h * HOUR_US + shifted_us
    end, middle = start + hours * HOUR_US, start + hours * HOUR_US // 2
    expected = [
        (window.start_us, window.end_us)
        for window in made.between(name, start - made.longest_us(name), end)
        if start <= window.end_us < end
    ]
    assert made.windows(name, start, end) == expected
    assert made.windows(name, start, middle) + made.windows(name, middle, end) == expected


def test_a_new_plan_of_shifts_leaves_the_past_as_it_was() -> None:
    long = [Shift(name=n, start=s, end=e, valid_until="2026-06-01") for n, s, e in TWELVE_HOURS]
    short = [Shift(name=n, start=s, end=e, valid_from="2026-06-01") for n, s, e in EIGHT_HOURS]
    before, after = PlantCalendar(shifts=tuple(long)), PlantCalendar(shifts=(*long, *short))
    after.check()
    change = to_us(datetime(2026, 6, 1, 6, tzinfo=UTC))
    past = list(before.between("shift", change - 30 * DAY_US, change))
    assert past and list(after.between("shift", change - 30 * DAY_US, change)) == past
    assert [w.hours for w in after.between("shift", change, change + DAY_US)] == [8.0] * 3
    assert past[-1].end_us == change


@pytest.mark.parametrize("until", ["2026-06-02", "", "9999-12-31"])
def test_plans_that_meet_must_not_overlap(until: str) -> None:
    long = [Shift(name=n, start=s, end=e, valid_until=until) for n, s, e in TWELVE_HOURS]
    short = [Shift(name=n, start=s, end=e, valid_from="2026-06-01") for n, s, e in EIGHT_HOURS]
    with pytest.raises(Misconfigured, match="MODEL-1013"):
        PlantCalendar(shifts=(*long, *short)).check()


def test_a_plan_that_ends_on_no_date_is_refused() -> None:
    shift = Shift(name="early", start="06:00", end="14:00", valid_until="in June")
    with pytest.raises(Misconfigured, match="MODEL-1012"):
        PlantCalendar(shifts=(shift,)).check()


TWELVE_HOURS = (("day", "06:00", "18:00"), ("night", "18:00", "06:00"))
EIGHT_HOURS = (("early", "06:00", "14:00"), ("late", "14:00", "22:00"), ("night", "22:00", "06:00"))
