"""``[calendar]`` of a site file: shifts, holidays and planned stops."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any, Final

from headrace.model.calendar import WEEKDAYS, PlantCalendar, Shift, Stop
from headrace.model.errors import Misconfigured
from headrace.model.time import to_us
from headrace.site.notes import Notes, near
from headrace.site.sections import Section, is_kind
from headrace.site.toml_lines import Key

KEY: Final = "calendar"
_SHIFT: Final = (
    *("name", "start", "end", "days", "teams", "rotate", "on_holidays"),
    *("valid_from", "valid_until"),
)


def read_calendar(notes: Notes, data: dict[str, Any], time_zone: str) -> PlantCalendar:
    """The plant calendar in the site's time zone; without ``[calendar]`` it has no shifts."""
    plain = PlantCalendar(time_zone=time_zone)
    try:
        _ = plain.zone
    except Misconfigured:
        return PlantCalendar()  # [site] says it
    if KEY not in data:
        return plain
    allowed = ("rotation_start", "holidays", "shift", "stop")
    section = Section(notes, (KEY,), data[KEY], allowed)
    calendar = PlantCalendar(
        time_zone=time_zone,
        shifts=tuple(_shifts(notes, section)),
        holidays=_holidays(section),
        stops=tuple(_stops(notes, section, plain)),
        rotation_start=_day(section, "rotation_start", plain.rotation_start),
    )
    _note_wrong(notes, (KEY, "shift"), calendar)
    return calendar


def _note_wrong(notes: Notes, key: Key, calendar: PlantCalendar) -> bool:
    try:
        calendar.check()
    except Misconfigured as error:
        notes.error(notes.file, notes.line_of(key), ".".join(map(str, key)), error)
        return False
    return True


def _day(section: Section, word: str, default: str) -> str:
    if word not in section.table:
        return default
    value = section.table[word]
    text = value.isoformat() if isinstance(value, date) else value
    try:
        if isinstance(text, str):
            return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    section.wrong(word, f"{word} is {text!r}, not a date", "Write year, month and day: 2026-01-05.")
    return default


def _holidays(section: Section) -> dict[str, str]:
    table = section.take("holidays", "a table", {})
    days = Section(section.notes, (KEY, "holidays"), table, tuple(table))
    found = {}
    for word in table:
        name = days.take(word, "a text", "")
        try:
            found[date.fromisoformat(word).isoformat()] = name
        except ValueError:
            days.wrong(word, f"{word!r} is no date", 'Write a day and its name: 2026-12-25 = "..."')
    return found


def _tables(section: Section, word: str) -> list[tuple[Key, Any]]:
    tables = section.take(word, "a list", [])
    return [((KEY, word, position), table) for position, table in enumerate(tables)]


def _shifts(notes: Notes, section: Section) -> list[Shift]:
    found: list[Shift] = []
    for key, table in _tables(section, "shift"):
        each = Section(notes, key, table, _SHIFT)
        name = each.take("name", "a text", "", required=True)
        shift = Shift(
            name=name,
            start=_clock(each, "start"),
            end=_clock(each, "end"),
            days=_words(each, "days", WEEKDAYS, WEEKDAYS),  # type: ignore[arg-type] # of WEEKDAYS
            teams=_words(each, "teams", ()),
            rotate=_rotate(each),
            on_holidays=each.take("on_holidays", "true or false", False),
            valid_from=_day(each, "valid_from", ""),
            valid_until=_day(each, "valid_until", ""),
        )
        if shift.start and shift.end and _note_wrong(notes, key, PlantCalendar(shifts=(shift,))):
            found.append(shift)
    return found


def _clock(section: Section, word: str) -> str:
    """A text ``06:00``, or TOML's own time of day."""
    value = section.table.get(word)
    if isinstance(value, time) and not value.second and not value.microsecond:
        return f"{value:%H:%M}"
    text: str = section.take(word, "a text", "", required=True)
    return text


def _words(
    section: Section, word: str, default: tuple[str, ...], known: tuple[str, ...] = ()
) -> tuple[str, ...]:
    found = section.take(word, "a list", list(default))
    for each in found:
        if not is_kind(each, "a text") or (known and each not in known):
            remedy = near(str(each), known) if known else 'Write texts: ["A", "B"].'
            section.wrong(word, f"{word} has {each!r}", remedy)
            return default
    return tuple(found)


def _rotate(section: Section) -> Any:
    rotate = section.take("rotate", "a text", "week")
    if rotate not in ("day", "week"):
        section.wrong("rotate", f"rotate is {rotate!r}", 'Write "day" or "week".')
        return "week"
    return rotate


def _stops(notes: Notes, section: Section, calendar: PlantCalendar) -> list[Stop]:
    found = []
    for key, table in _tables(section, "stop"):
        each = Section(notes, key, table, ("start", "end", "reason"))
        start_us, end_us = moment(each, "start", calendar), moment(each, "end", calendar)
        reason = each.take("reason", "a text", "")
        if start_us is None or end_us is None:
            continue
        if end_us <= start_us:
            each.wrong("end", "the stop ends before it begins", "Give an end after the start.")
            continue
        found.append(Stop(start_us=start_us, end_us=end_us, reason=reason))
    return found


def moment(section: Section, word: str, calendar: PlantCalendar) -> int | None:
    """A time in UTC microseconds: with an offset, or of the plant's wall clock; None and a note when
    it is none."""
    value = section.table.get(word)
    if value is None:
        section.take(word, "a text", required=True)
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            pass
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, datetime):
        try:
            return to_us(value) if value.tzinfo is not None else calendar.wall_us(value)
        except OverflowError:  # the first and last days that a datetime can say
            pass
    remedy = "Write a date and a time: 2026-08-03T06:00:00."
    section.wrong(word, f"{word} is {value!r}, not a time", remedy)
    return None
