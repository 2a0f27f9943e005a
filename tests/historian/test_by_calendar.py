"""Aggregates by shift, day and month: whole windows of the plant's time, with their true length."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest
from store import Store

from headrace.historian.aggregates import AGGREGATES
from headrace.historian.by_calendar import aggregate_windows, windows_of
from headrace.historian.reader import Reader
from headrace.model.calendar import PlantCalendar, Shift
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.model.time import to_us

MINUTE_US = 60_000_000
SHIFTS = (
    Shift(name="early", start="06:00", end="14:00", teams=("A", "B"), rotate="day"),
    Shift(name="night", start="22:00", end="06:00", teams=("C",)),
)


def us(text: str) -> int:
    return to_us(datetime.fromisoformat(text))


@pytest.fixture
def reader(folder: DataFolder) -> Reader:
    """Ten days around each change of the clocks, a sample a minute of two tags."""
    store = Store(folder)
    for day in ("2026-03-25T00:00:00Z", "2026-10-20T00:00:00Z"):
        at_us = us(day) + np.arange(10 * 24 * 60) * MINUTE_US
        for tag in (4, 9):
            value = np.full(len(at_us), 60.0 * tag)
            store.commit(
                make_batch(np.full(len(at_us), tag), at_us, value, received_timestamp_us=at_us)
            )
    return Reader(folder.table)


@pytest.mark.parametrize(
    ("zone", "start", "hours"),
    [
        ("Europe/Berlin", "2026-03-28T12:00:00+01:00", 7.0),
        ("Europe/Berlin", "2026-10-24T12:00:00+02:00", 9.0),
        ("America/Sao_Paulo", "2026-03-28T12:00:00-03:00", 8.0),
        ("Asia/Shanghai", "2026-03-28T12:00:00+08:00", 8.0),
    ],
)
def test_a_night_says_how_long_it_was(reader: Reader, zone: str, start: str, hours: float) -> None:
    calendar = PlantCalendar(time_zone=zone, shifts=SHIFTS)
    windows = windows_of(calendar, "shift", us(start), us(start) + 24 * 60 * MINUTE_US)
    rows = aggregate_windows(reader, [9, 4], "Count", windows)
    assert rows["tag_id"].to_list() == [4, 4, 9, 9]
    assert rows["shift"].to_list() == ["night", "early"] * 2
    assert rows["duration_h"].to_list() == [hours, 8.0] * 2
    assert rows["value"].to_list() == [hours * 60, 480.0] * 2
    assert rows["team"].to_list()[0] == "C"
    assert rows["day"].to_list()[:2] == [start[:10], windows[1].day]


def test_lord_howe_moves_by_half_an_hour(folder: DataFolder) -> None:
    at_us = us("2026-04-01T00:00:00Z") + np.arange(8 * 24 * 60) * MINUTE_US
    Store(folder).commit(
        make_batch(np.full(len(at_us), 1), at_us, np.ones(len(at_us)), received_timestamp_us=at_us)
    )
    calendar = PlantCalendar(time_zone="Australia/Lord_Howe")
    windows = windows_of(
        calendar, "day", us("2026-04-04T00:00:00+11:00"), us("2026-04-06T00:00:00Z")
    )
    rows = aggregate_windows(Reader(folder.table), [1], "Count", windows)
    assert rows["duration_h"].to_list()[:2] == [24.0, 24.5]
    assert rows["value"].to_list()[:2] == [1440.0, 1470.0]
    assert rows["shift"].null_count() == rows.height


def test_a_window_is_what_it_is_alone(reader: Reader) -> None:
    """With gaps between shifts, and for aggregates whose time is not the window's start."""
    calendar = PlantCalendar(time_zone="Europe/Berlin", shifts=SHIFTS)
    windows = windows_of(calendar, "shift", us("2026-03-28T00:00:00Z"), us("2026-03-30T00:00:00Z"))
    for aggregate in AGGREGATES:
        rows = aggregate_windows(reader, [4], aggregate, windows)
        alone = [
            reader.aggregate([4], aggregate, window.start_us, window.end_us, 0)
            for window in windows
        ]
        assert rows.select("tag_id", "timestamp", "value", "status").equals(pl.concat(alone))


def test_a_plant_without_shifts_says_so() -> None:
    with pytest.raises(Misconfigured, match="HIST-2601"):
        windows_of(PlantCalendar(), "shift", 0, MINUTE_US)


def test_too_many_windows_are_refused() -> None:
    with pytest.raises(Misconfigured, match="HIST-2602"):
        windows_of(PlantCalendar(), "minute", 0, 100 * MINUTE_US, most=50)


def test_no_window_begins_in_so_short_a_time(reader: Reader) -> None:
    windows = windows_of(
        PlantCalendar(), "day", us("2026-03-27T01:00:00Z"), us("2026-03-27T02:00:00Z")
    )
    assert aggregate_windows(reader, [4], "Count", windows).height == 0
