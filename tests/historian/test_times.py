"""Times and durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.historian.times import UNITS_US, parse_duration, parse_time
from headrace.model.errors import Misconfigured
from headrace.model.time import to_datetime


@given(st.integers(1, 10_000), st.sampled_from(sorted(UNITS_US)))
def test_one_number_and_unit(number: int, unit: str) -> None:
    assert parse_duration(f"{number}{unit}") == number * UNITS_US[unit]


@given(st.integers(-(10**15), 4 * 10**15), st.sampled_from(["", "+00:00"]))
def test_iso_round_trip(at_us: int, suffix: str) -> None:
    text = to_datetime(at_us).isoformat()
    assert parse_time(text if suffix else text.replace("+00:00", "Z"), 0) == at_us


@pytest.mark.parametrize("text", ["", "5", "h", "5 h", "-5s", "0s", "5x", "1h 30m", "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="HIST-1070"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "today", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="HIST-1071"):
        parse_time(text, 0)
