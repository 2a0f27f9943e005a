"""Words of the plant calendar: as history has them, cut anyhow, and as a stream has them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import pairwise

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.formula import tags
from headrace.formula.stream import Stream
from headrace.model.calendar import DAY_US, HOUR_US, PlantCalendar
from headrace.model.calendar_words import GAP_MAX_US, WORDS
from headrace.model.time import to_us
from streams import BUSY, SECOND, Told, arrivals, bounds_of, same, truth

UNIT_US = 600 * SECOND
NIGHTS = ("2026-03-28T17:30:00Z", "2026-10-24T17:30:00Z")
FORMULAS = (
    ("planned_stop()",),
    ("shift()", 'f0 = "night" and x > 0 m3/h'),
    ("team()", "transitions(f0, 2 d)"),
    ("if planned_stop() or holiday() then 0 m3/h else x",),
    ("if planned_stop() then 0 kW else y", "integral(f0) per shift", "f1 - lag(f1, 8 h)"),
    ("x > 0 m3/h and not planned_stop() for 20 min",),
    ("duration(planned_stop()) per shift", "duration(holiday()) per day"),
    ('mean(x) per cycle of shift() = "night"',),
    ("count(x) per value of team()",),
    ('shift() in ("night", "early")',),
    ("state = shift() or state = team()",),
    ("lag(planned_stop(), 90 min) and not planned_stop()",),
    ("hold(holiday(), 3 h)", "f0 is good"),
    ("derivative(if holiday() then 1 else 0)",),
)


def us(text: str) -> int:
    return to_us(datetime.fromisoformat(text))


def stream_agrees(
    formulas: tuple[str, ...], night: str, seed: int, shares: list[float], wait: int
) -> None:
    start_us = us(night)
    bounds = [replace(b, start_us=start_us) for b in bounds_of(*formulas, calendar=BUSY)]
    samples = arrivals(seed, start_us=start_us, unit_us=UNIT_US)
    stream = Stream(bounds, BUSY, lateness_us=1000 * UNIT_US, start_us=start_us)
    told = Told(bounds)
    told.take(stream, start_us)
    for rows in pieces(len(samples), shares):
        stream.put(samples.batch(rows))
        newest_us = int(samples.at_us[: rows[-1] + 1].max()) + 1
        told.take(stream, max(newest_us - wait * UNIT_US, start_us))
    end_us = int(samples.at_us.max(initial=start_us)) + 60 * UNIT_US
    told.take(stream, end_us)
    assert not told.behind
    for bound, wanted in zip(bounds, truth(bounds, samples, end_us, start_us, BUSY), strict=True):
        same(told.rows(bound), wanted)


def pieces(rows: int, shares: list[float]) -> list[np.ndarray]:
    places = sorted({0, rows, *(int(share * rows) for share in shares)})
    return [np.arange(a, b) for a, b in pairwise(places)]


@pytest.mark.parametrize("night", NIGHTS)
@given(
    formulas=st.sampled_from(FORMULAS),
    seed=st.integers(0, 2**31),
    shares=st.lists(st.floats(0.0, 1.0), max_size=20),
    wait=st.integers(0, 20),
)
@settings(max_examples=6, deadline=None)
def test_a_stream_has_what_history_has(
    night: str, formulas: tuple[str, ...], seed: int, shares: list[float], wait: int
) -> None:
    stream_agrees(formulas, night, seed, shares, wait)


@pytest.mark.soak
@pytest.mark.parametrize("formulas", FORMULAS, ids=lambda f: f[-1])
@pytest.mark.parametrize("night", NIGHTS)
@given(
    seed=st.integers(0, 2**31),
    shares=st.lists(st.floats(0.0, 1.0), max_size=40),
    wait=st.integers(0, 20),
)
@settings(max_examples=30, deadline=None)
def test_every_word_however_its_samples_come(
    night: str, formulas: tuple[str, ...], seed: int, shares: list[float], wait: int
) -> None:
    stream_agrees(formulas, night, seed, shares, wait)


@given(
    formulas=st.sampled_from(FORMULAS),
    seed=st.integers(0, 2**31),
    cuts=st.lists(st.integers(1, 400), max_size=8),
)
@settings(max_examples=8, deadline=None)
def test_history_in_pieces_is_history_in_one_go(
    formulas: tuple[str, ...], seed: int, cuts: list[int]
) -> None:
    start_us = us(NIGHTS[0])
    end_us = start_us + 400 * UNIT_US
    bounds = bounds_of(formulas[0], calendar=BUSY)
    samples = arrivals(seed, start_us=start_us, unit_us=UNIT_US)
    (whole,) = truth(bounds, samples, end_us, start_us, BUSY)
    edges = [start_us, *sorted({start_us + cut * UNIT_US for cut in cuts}), end_us]
    parts = [truth(bounds, samples, b, a, BUSY)[0] for a, b in pairwise(edges)]
    same(pl.concat(parts).sort("asset", "at_us"), whole)


def test_texts_are_the_same_when_old_ones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tags, "WORDS_MIN", 0)
    for seed in range(2):
        start_us = us(NIGHTS[0])
        formulas = ("shift()", 'f0 = "night" and state = "RUN"')
        bounds = [replace(b, start_us=start_us) for b in bounds_of(*formulas, calendar=BUSY)]
        samples = arrivals(seed, start_us=start_us, unit_us=UNIT_US, delay=1)
        stream = Stream(bounds, BUSY, lateness_us=DAY_US // 8, start_us=start_us)
        told = Told(bounds)
        told.take(stream, start_us)
        end_us = start_us + 30 * DAY_US  # further than the almanac fetches at once
        for from_us in range(start_us, end_us, 12 * HOUR_US):
            until_us = from_us + 12 * HOUR_US
            stream.put(samples.batch((samples.at_us >= from_us) & (samples.at_us < until_us)))
            told.take(stream, until_us, samples.known())
        told.take(stream, end_us, samples.known())
        for bound, wanted in zip(
            bounds, truth(bounds, samples, end_us, start_us, BUSY), strict=True
        ):
            same(*told.mended(bound, wanted))


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Sao_Paulo", "Asia/Shanghai",
                                  "Australia/Lord_Howe", "Pacific/Apia"])  # fmt: skip
@pytest.mark.parametrize("word", WORDS)
def test_no_sample_of_a_word_is_old(zone: str, word: str) -> None:
    """Also in Apia, which left out 30 December 2011: what looks back rests on it."""
    calendar = msgspec.structs.replace(BUSY, time_zone=zone)
    start_us, end_us = us("2011-12-01T00:00:00Z"), us("2012-02-01T00:00:00Z")
    times = [at_us for at_us, _ in calendar.steps(word, start_us, end_us)]
    gaps = np.diff([start_us, *times, end_us])
    assert gaps.max() <= GAP_MAX_US
    assert gaps[1:-1].min() > 0


@given(first=st.integers(0, 400), length=st.integers(1, 400))
@settings(max_examples=25, deadline=None)
def test_a_word_is_the_same_wherever_one_begins_to_look(first: int, length: int) -> None:
    start_us, end_us = us(NIGHTS[0]) - 3 * DAY_US, us(NIGHTS[0]) + 6 * DAY_US
    from_us = start_us + first * 30 * 60 * SECOND
    until_us = min(end_us, from_us + length * 1000 * SECOND)
    for word in WORDS:
        whole = BUSY.steps(word, start_us, end_us)
        part = [step for step in whole if from_us <= step[0] < until_us]
        assert BUSY.steps(word, from_us, until_us) == part


def test_stops_that_touch_are_one() -> None:
    found = BUSY.steps("planned_stop", us("2026-03-28T18:00:00Z"), us("2026-03-28T22:59:00Z"))
    assert [(at_us // SECOND, value) for at_us, value in found] == [
        (1_774_729_800, 1.0),
        (1_774_735_200, 0.0),
    ]


def test_without_a_calendar_no_stop_is_planned() -> None:
    assert {value for _, value in PlantCalendar().steps("planned_stop", 0, 9 * DAY_US)} == {0.0}
