"""Which results an edited calendar makes others: none too few, and not all."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import msgspec
import pytest

from headrace.apps.restart import edited_spans
from headrace.model.calendar import DAY_US, PlantCalendar, Stop
from headrace.model.time import to_us
from streams import BUSY, SECOND, arrivals, bounds_of, truth

START_US = to_us(datetime.fromisoformat("2026-03-27T00:00:00+00:00"))
END_US = START_US + 5 * DAY_US
NOON_US = to_us(datetime.fromisoformat("2026-03-28T12:00:00+00:00"))
UNIT_US = 600 * SECOND


def edits() -> dict[str, PlantCalendar]:
    early, night = BUSY.shifts
    extra = Stop(start_us=NOON_US, end_us=NOON_US + 90 * 60 * SECOND)
    return {
        "a stop more": msgspec.structs.replace(BUSY, stops=(*BUSY.stops, extra)),
        "no holiday": msgspec.structs.replace(BUSY, holidays={}),
        "a longer shift": msgspec.structs.replace(
            BUSY, shifts=(msgspec.structs.replace(early, end="15:00"), night)
        ),
        "other teams": msgspec.structs.replace(
            BUSY, shifts=(early, msgspec.structs.replace(night, teams=("D",)))
        ),
    }


@pytest.mark.parametrize("edit", edits())
@pytest.mark.parametrize(
    "formula",
    [
        "if planned_stop() or holiday() then 0 m3/h else x",
        "shift()",
        'team() = "B" and x > 0 m3/h',
        "duration(planned_stop()) per shift",
        "integral(y) per shift",
        "lag(planned_stop(), 90 min)",
        'mean(x) per cycle of shift() = "early"',
    ],
)
def test_all_that_differs_lies_in_the_spans(formula: str, edit: str) -> None:
    new = edits()[edit]
    samples = arrivals(7, start_us=START_US, unit_us=UNIT_US, size=400)
    (before,) = bounds_of(formula, calendar=BUSY)
    (after,) = bounds_of(formula, calendar=new)
    spans = list(edited_spans([after], BUSY, new, START_US, END_US))
    (old_rows,) = truth([before], samples, END_US, START_US, BUSY)
    (new_rows,) = truth([after], samples, END_US, START_US, new)
    rows = {(a, t): rest for a, t, *rest in old_rows.rows()}
    for asset, at_us, *rest in new_rows.rows():
        if rows.pop((asset, at_us), None) != rest:
            assert any(s.start_us <= at_us < s.end_us for s in spans), at_us
    for _, at_us in rows:
        assert any(s.start_us <= at_us < s.end_us for s in spans), at_us


def test_what_does_not_ask_the_calendar_is_left_alone() -> None:
    new = edits()["a stop more"]
    bounds = bounds_of("mean(x, 5 min)", "shift()", "holiday()", calendar=BUSY)
    bounds += [replace(bound, key="pump.g") for bound in bounds_of("planned_stop()", calendar=BUSY)]
    spans = list(edited_spans(bounds, BUSY, new, START_US, END_US))
    assert {span.key for span in spans} == {"pump.g"}
    assert [(span.start_us, span.end_us) for span in spans] == [
        (NOON_US, to_us(datetime.fromisoformat("2026-03-28T20:30:00+00:00")) + 1)
    ]
