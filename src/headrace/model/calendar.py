"""The plant calendar: time zone, shifts with their teams, holidays and planned stops, as windows of time.

Everything is said in the plant's wall-clock time and worked out in UTC: a night shift from 22:00 to
06:00 has 7 or 9 hours on the night when the clocks change, and says so. A wall-clock time that a change
skips is the moment of the change; one that comes twice is the first of the two.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from headrace.model.calendar_words import GAP_MAX_US, TEXT_WORDS, Said, joined, steps_of
from headrace.model.errors import Misconfigured
from headrace.model.time import US_PER_S, to_datetime, to_us

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: Final[tuple[Weekday, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOUR_US: Final = 3_600 * US_PER_S
DAY_US: Final = 24 * HOUR_US
BLOCK_US: Final = 2 * DAY_US
BLOCK_WINDOWS: Final = 4
BLOCKS_MAX: Final = 512
WINDOWS: Final = ("minute", "hour", "shift", "day", "week", "month", "quarter", "year")
_LONGEST_DAYS: Final = {"day": 1, "week": 7, "month": 31, "quarter": 92, "year": 366}
_FIRST_PLAN, _LAST_PLAN = "1971-01-01", "2200-01-01"
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


class Window(NamedTuple):
    """A stretch of time.

    Attributes:
        start_us, end_us: ``[start, end)`` in UTC microseconds.
        name: of a shift; of others empty.
        team: who works in it; empty when nobody is named.
        day: ISO date of its beginning in the plant's time.
    """

    start_us: int
    end_us: int
    name: str = ""
    team: str = ""
    day: str = ""

    @property
    def hours(self) -> float:
        """Its true length: 7 or 9 for a night of 8 on which the clocks change."""
        return (self.end_us - self.start_us) / HOUR_US


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """A shift of each week.

    Attributes:
        start, end: wall-clock times, ``22:00``; an end that is not after the start is on the next day.
        days: on which it begins.
        teams: who works in it, in turn.
        rotate: when the turn passes on: each ``day`` or ``week``.
        on_holidays: whether it is worked on holidays too.
        valid_from, valid_until: ISO dates of the first day on which it begins, and of the first on which
            it does not any more; "" for always. So a new plan of shifts leaves past sums as they are.
    """

    name: str
    start: str
    end: str
    days: tuple[Weekday, ...] = WEEKDAYS
    teams: tuple[str, ...] = ()
    rotate: Literal["day", "week"] = "week"
    on_holidays: bool = False
    valid_from: str = ""
    valid_until: str = ""

    def begins_on(self, day: date) -> bool:
        """Whether it begins on a day that is no holiday."""
        text = day.isoformat()
        known = self.valid_from <= text and (not self.valid_until or text < self.valid_until)
        return known and WEEKDAYS[day.weekday()] in self.days


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """A planned stop: ``[start, end)`` in UTC microseconds."""

    start_us: int
    end_us: int
    reason: str = ""


class PlantCalendar(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The calendar of a site.

    Attributes:
        time_zone: IANA name.
        shifts: of a week, in any order.
        holidays: ISO dates with their names.
        stops: planned stops.
        rotation_start: ISO date from which the turns of teams are counted; a Monday.

    Example:
        >>> night = Shift(name="night", start="22:00", end="06:00")
        >>> calendar = PlantCalendar(time_zone="Europe/Berlin", shifts=(night,))
        >>> spring = to_us(datetime(2026, 3, 28, 12, tzinfo=UTC))
        >>> [window.hours for window in calendar.between("shift", spring, spring + DAY_US)]
        [7.0]
    """

    time_zone: str = "UTC"
    shifts: tuple[Shift, ...] = ()
    holidays: dict[str, str] = {}
    stops: tuple[Stop, ...] = ()
    rotation_start: str = "2024-01-01"

    @cached_property
    def zone(self) -> ZoneInfo:
        """Its time zone.

        Raises:
            Misconfigured: MODEL-1010 when the name is not known.
        """
        try:
            return ZoneInfo(self.time_zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise Misconfigured(
                "MODEL-1010",
                f"the time zone {self.time_zone!r} is not known",
                "Write an IANA name such as Europe/Berlin or Asia/Shanghai.",
            ) from error

    def check(self) -> None:
        """See that it can be worked with.

        Raises:
            Misconfigured: MODEL-1010 for the time zone, MODEL-1011 for a wall-clock time, MODEL-1012
                for a date, MODEL-1013 for shifts that overlap.
        """
        changes = {"2026-01-05"}
        for shift in self.shifts:
            _clock(shift.start), _clock(shift.end)
            changes |= {day for day in (shift.valid_from, shift.valid_until) if day}
        for day in (*self.holidays, self.rotation_start, *changes):
            _date(day)
        # A week of each plan, and the nights on which plans change.
        near = [_date(day) for day in changes if _FIRST_PLAN <= day < _LAST_PLAN]
        days = sorted({day + timedelta(days=n) for day in near for n in range(-1, 8)})
        weeks = [window for day in days for window in self._shifts_of(day, {})]
        for one, other in pairwise(weeks):
            if other.start_us < one.end_us:
                raise Misconfigured(
                    "MODEL-1013",
                    f"the shifts {one.name!r} and {other.name!r} overlap on {other.day}",
                    "Let one end when the next begins.",
                )

    def names(self) -> tuple[str, ...]:
        """What can stand after ``per``."""
        return WINDOWS if self.shifts else tuple(name for name in WINDOWS if name != "shift")

    def longest_us(self, name: str) -> int:
        """No window of this name is longer."""
        if name in _LONGEST_DAYS:
            return _LONGEST_DAYS[name] * DAY_US + 2 * HOUR_US
        if name == "shift":
            return DAY_US + 2 * HOUR_US
        if name in ("minute", "hour"):
            return HOUR_US if name == "hour" else HOUR_US // 60
        length_us = _length_us(name)
        on_the_clock = HOUR_US < length_us < DAY_US and DAY_US % length_us == 0
        return length_us + (2 * HOUR_US if on_the_clock else 0)

    def windows(self, name: str, start_us: int, end_us: int) -> list[tuple[int, int]]:
        """(start, end) of each window that ends in ``[start_us, end_us)``, in UTC microseconds.

        Evaluations ask for the same time again and again, so windows are worked out and kept by blocks.
        """
        width_us = max(BLOCK_US, BLOCK_WINDOWS * self.longest_us(name))
        blocks = range(start_us // width_us, -(-end_us // width_us))
        return [
            window
            for block in blocks
            for window in self._block(name, block * width_us, width_us)
            if start_us <= window[1] < end_us
        ]

    @cached_property
    def _blocks(self) -> dict[tuple[str, int], list[tuple[int, int]]]:
        return {}

    def _block(self, name: str, start_us: int, width_us: int) -> list[tuple[int, int]]:
        """The windows that end in ``[start_us, start_us + width_us)``."""
        found = self._blocks.get((name, start_us))
        if found is None:
            if len(self._blocks) >= BLOCKS_MAX:
                self._blocks.clear()
            end_us = start_us + width_us
            found = [
                (window.start_us, window.end_us)
                for window in self.between(name, start_us - self.longest_us(name), end_us)
                if start_us <= window.end_us < end_us
            ]
            self._blocks[name, start_us] = found
        return found

    def between(self, name: str, start_us: int, end_us: int) -> Iterator[Window]:
        """Each window that begins in ``[start_us, end_us)``, in order.

        Args:
            name: one of :meth:`names`, or a length such as ``900000000us``.
        """
        made = self._shift_windows if name == "shift" else self._plain_windows
        for window in made(name, start_us, end_us):
            if window.start_us >= end_us:
                return
            if window.start_us >= start_us:
                yield window

    def _plain_windows(self, name: str, start_us: int, end_us: int) -> Iterator[Window]:
        edges = self._edges(name, start_us, end_us)
        last = next(edges)
        for edge in edges:
            if edge > last:
                yield Window(last, edge, day=self._local(last).date().isoformat())
                last = edge

    def _edges(self, name: str, start_us: int, end_us: int) -> Iterator[int]:
        """Where windows begin, from one before the start to one after the end."""
        day = self._local(start_us).date()
        if name in _LONGEST_DAYS:
            day = _first_day(name, day)
            while True:
                yield self.at(day, "00:00")
                day = _next_day(name, day)
        length_us = {"minute": HOUR_US // 60, "hour": HOUR_US}.get(name) or _length_us(name)
        while True:
            yield from self._edges_of_day(day, length_us)
            day += timedelta(days=1)

    def _edges_of_day(self, day: date, length_us: int) -> Iterator[int]:
        midnight, end = self.at(day, "00:00"), self.at(day + timedelta(days=1), "00:00")
        if length_us >= DAY_US or DAY_US % length_us:
            # Not a part of a day: counted from the epoch, in elapsed time.
            yield from range(-(-midnight // length_us) * length_us, end, length_us)
        elif length_us > HOUR_US:
            for count in range(DAY_US // length_us):
                yield _resolve(self.zone, day, timedelta(microseconds=count * length_us))
        else:
            yield from self._short_edges(midnight, end, length_us)

    def _short_edges(self, midnight: int, end: int, length_us: int) -> Iterator[int]:
        """Up to an hour: each wall-clock hour counts for itself, also one that comes twice."""
        at = midnight
        while at < end:
            yield at
            offset = self._offset_us(at)
            step = length_us - (at + offset) % length_us
            following = at + step
            if self._offset_us(following) != offset:
                change = self._change(at, following)
                following = change if change > at else following
            at = min(following, end)

    def _change(self, low: int, high: int) -> int:
        """When the offset changes in ``(low, high]``."""
        offset = self._offset_us(low)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._offset_us(middle) == offset else (low, middle)
        return high

    def _shift_windows(self, _: str, start_us: int, end_us: int) -> Iterator[Window]:
        day = self._local(start_us).date() - timedelta(days=1)
        last = self._local(end_us).date() + timedelta(days=1)
        while day <= last:
            yield from self._shifts_of(day, self.holidays)
            day += timedelta(days=1)

    def _shifts_of(self, day: date, holidays: dict[str, str]) -> Iterator[Window]:
        found = []
        for shift in self.shifts:
            if not shift.begins_on(day):
                continue
            if day.isoformat() in holidays and not shift.on_holidays:
                continue
            over_midnight = _clock(shift.end) <= _clock(shift.start)
            end_day = day + timedelta(days=1) if over_midnight else day
            start, end = self.at(day, shift.start), self.at(end_day, shift.end)
            found.append(Window(start, end, shift.name, self._team(shift, day), day.isoformat()))
        yield from sorted(found)

    def _team(self, shift: Shift, day: date) -> str:
        if not shift.teams:
            return ""
        days = (day - _date(self.rotation_start)).days
        turn = days if shift.rotate == "day" else days // 7
        return shift.teams[turn % len(shift.teams)]

    def steps(self, word: str, start_us: int, end_us: int) -> list[tuple[int, Said]]:
        """(time, value) of each sample of a word in ``[start_us, end_us)``.

        Args:
            word: one of :data:`headrace.model.calendar_words.WORDS`.

        Example:
            >>> plain = PlantCalendar(holidays={"1970-01-02": "the second"})
            >>> plain.steps("holiday", 0, 3 * DAY_US)[1]
            (86400000000, 1.0)
        """
        begin_us = start_us - GAP_MAX_US - DAY_US  # what holds at the start is known then
        spans: Iterable[tuple[int, int, Said]]
        if word in TEXT_WORDS:
            spans = (
                (each.start_us, each.end_us, each.name if word == "shift" else each.team)
                for each in self.between("shift", begin_us, end_us)
            )
        elif word == "holiday":
            spans = joined(self._free_days(), begin_us, end_us)
        else:
            stops = sorted((stop.start_us, stop.end_us) for stop in self.stops)
            spans = joined(stops, begin_us, end_us)
        nothing: Said = "" if word in TEXT_WORDS else 0.0
        midnights = (day.start_us for day in self.between("day", start_us, end_us))
        return steps_of(spans, midnights, nothing, start_us, end_us)

    def _free_days(self) -> Iterator[tuple[int, int]]:
        for text in sorted(self.holidays):
            day = _date(text)
            yield self.at(day, "00:00"), self.at(day + timedelta(days=1), "00:00")

    def values(self, word: str) -> tuple[str, ...]:
        """What a word of texts can be, beside ``""``: the names of shifts, or of teams."""
        if word == "shift":
            return tuple(dict.fromkeys(shift.name for shift in self.shifts))
        return tuple(dict.fromkeys(team for shift in self.shifts for team in shift.teams))

    def is_planned_stop(self, at_us: int) -> bool:
        """Whether a planned stop covers the time."""
        return any(stop.start_us <= at_us < stop.end_us for stop in self.stops)

    def at(self, day: date, clock: str) -> int:
        """The wall-clock time of a day, in UTC microseconds."""
        wanted = _clock(clock)
        return _resolve(self.zone, day, timedelta(hours=wanted.hour, minutes=wanted.minute))

    def wall_us(self, wall: datetime) -> int:
        """A wall-clock time without an offset, in UTC microseconds."""
        midnight = datetime.combine(wall.date(), time())
        return _resolve(self.zone, wall.date(), wall - midnight)

    def _local(self, at_us: int) -> datetime:
        return to_datetime(at_us).astimezone(self.zone)

    def _offset_us(self, at_us: int) -> int:
        offset = self._local(at_us).utcoffset()
        assert offset is not None, "a zone has one"
        return offset // timedelta(microseconds=1)


@lru_cache(maxsize=65_536)
def _resolve(zone: ZoneInfo, day: date, since_midnight: timedelta) -> int:
    wall = datetime.combine(day, time()) + since_midnight
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == wall:
        return to_us(first)
    # Skipped by a change of the clocks: the moment of the change, which lies between both readings.
    late = to_us(first)
    early = to_us(wall.replace(tzinfo=zone, fold=1).astimezone(UTC))
    seconds = range(early // US_PER_S, late // US_PER_S + 1)
    change = bisect_left(
        seconds, wall, key=lambda s: to_datetime(s * US_PER_S).astimezone(zone).replace(tzinfo=None)
    )
    return seconds[change] * US_PER_S


def _length_us(name: str) -> int:
    return int(name.removesuffix("us"))


def _first_day(name: str, day: date) -> date:
    if name == "week":
        return day - timedelta(days=day.weekday())
    month = {"month": day.month, "quarter": (day.month - 1) // 3 * 3 + 1, "year": 1}.get(name)
    return day.replace(day=1, month=month) if month else day


def _next_day(name: str, day: date) -> date:
    if name in ("day", "week"):
        return day + timedelta(days=_LONGEST_DAYS[name])
    months = {"month": 1, "quarter": 3, "year": 12}[name]
    year, month = divmod(day.month - 1 + months, 12)
    return date(day.year + year, month + 1, 1)


def _clock(text: str) -> time:
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise Misconfigured(
            "MODEL-1011", f"{text!r} is no wall-clock time", "Write hours and minutes: 06:00."
        )
    return time(int(match[1]), int(match[2]))


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise Misconfigured(
            "MODEL-1012", f"{text!r} is no date", "Write year, month and day: 2026-12-25."
        ) from error
