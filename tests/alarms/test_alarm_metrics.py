"""The figures of the standards, each counted by hand."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.alarms.metrics import CHATTER_US, PERIOD_US, AlarmMetrics, by_area, metrics
from headrace.alarms.store import JOURNAL_COLUMNS
from headrace.model.alarm import AlarmState

S = 1_000_000
DAY_US = 86_400 * S
Row = tuple[str, float, str, str, str, int, str]


def journal(*rows: Row) -> pl.DataFrame:
    """(alarm, seconds, event, before, after, priority, actor)."""
    made = [
        {
            "alarm": alarm,
            "key": "pump.x",
            "asset": alarm.rpartition("/")[0],
            "event": event,
            "before": before,
            "after": after,
            "at_us": round(at * S),
            "recorded_us": round(at * S),
            "priority": priority,
            "actor": actor,
            "correction": False,
        }
        for alarm, at, event, before, after, priority, actor in rows
    ]
    return pl.DataFrame(made, schema=JOURNAL_COLUMNS).sort("at_us", maintain_order=True)


def came(alarm: str, at: float, priority: int = 0) -> Row:
    return (alarm, at, "alarm", "RTNUN", "UNACK", priority, "")


def of(*rows: Row, end_s: int = 3600, states: tuple[AlarmState, ...] = ()) -> AlarmMetrics:
    return metrics(journal(*rows), states, 0, end_s * S)


def test_only_what_people_were_told_counts() -> None:
    found = of(
        came("a/p/x", 5),
        ("a/p/x", 6, "alarm", "DSUPR", "DSUPR", 0, ""),
        ("a/p/x", 7, "unsuppress", "DSUPR", "UNACK", 0, ""),
        ("a/p/x", 8, "comment", "UNACK", "UNACK", 0, "li"),
        ("a/p/x", 3600, "alarm", "NORM", "UNACK", 0, ""),
        ("a/p/x", 9, "revoke", "UNACK", "UNACK", 0, ""),
    )
    assert (found.told, found.revoked) == (2, 1)
    assert found.periods[0] == (0, 2) and len(found.periods) == 6
    assert found.average == pytest.approx(2 / 6)


def test_a_flood_lasts_from_more_than_ten_until_fewer_than_five() -> None:
    counts = [10, 11, 9, 5, 4, 0]
    rows = [
        came(f"a/p/x{n}", period * 600 + n) for period, c in enumerate(counts) for n in range(c)
    ]
    found = of(*rows)
    (flood,) = found.floods
    assert (flood.start_us, flood.end_us) == (600 * S, 2400 * S)
    assert (flood.count, flood.peak) == (25, 11)
    assert (found.peak, found.flood_share) == (11, 0.5)
    assert found.busy_share == pytest.approx(1 / 6)


def test_bad_actors_chattering_and_priorities() -> None:
    rows = [came("a/p/bad", 100 * n) for n in range(8)]
    rows += [came("a/p/quick", at, 3) for at in (0, 30, 60)]
    rows += [came("a/p/slow", at, 1) for at in (0, 31, 61)]
    rows += [came(f"b/p/{n}", 5, 2) for n in range(12)]
    found = of(*rows)
    assert [(each.alarm, each.count) for each in found.bad_actors[:2]] == [
        *(("a/p/bad", 8), ("a/p/quick", 3)),
    ]
    assert len(found.bad_actors) == 10
    assert found.bad_actors_share == pytest.approx((8 + 3 + 3 + 7) / 26)
    assert [each.alarm for each in found.chattering] == ["a/p/quick"]
    assert [(each.priority, each.count) for each in found.priorities] == [
        *(("low", 8), ("medium", 3), ("high", 12), ("urgent", 3)),
    ]
    areas = by_area(journal(*rows), (), 0, 3600 * S)
    assert {area: each.told for area, each in areas.items()} == {"a": 14, "b": 12}
    assert list(by_area(journal(*rows), (), 0, 3600 * S, depth=2)) == ["a/p", "b/p"]


def test_standing_stale_and_what_operators_did() -> None:
    def state(alarm: str, active_us: int, name: str = "UNACK") -> AlarmState:
        return AlarmState(
            alarm=alarm, key="k", asset="a/p", name="x", active=True, active_us=active_us,
            state=name,  # type: ignore[arg-type] # a state
        )  # fmt: skip

    states = (state("a/p/new", 2 * DAY_US), state("a/p/old", DAY_US), state("z", 0, "SHLVD"))
    rows = (
        came("a/p/x", 0),
        ("a/p/x", 10, "acknowledge", "UNACK", "ACKED", 0, "li"),
        came("a/p/y", 0),
        ("a/p/y", 30, "acknowledge", "UNACK", "ACKED", 0, "li"),
        ("a/p/y", 31, "shelve", "ACKED", "SHLVD", 0, "wang"),
        ("a/p/z", 32, "acknowledge", "UNACK", "ACKED", 0, "wang"),
    )
    found = metrics(journal(*rows), states, 0, 2 * DAY_US + 1)
    assert found.standing == ("a/p/old", "a/p/new")
    assert found.stale == ("a/p/old",)
    assert found.response_s == 20
    assert [(w.actor, w.acknowledged, w.shelved, w.response_s) for w in found.operators] == [
        ("li", 2, 0, 20.0),
        ("wang", 1, 1, None),
    ]


def test_an_empty_journal_has_no_figures_but_zero() -> None:
    found = of()
    assert (found.told, found.average, found.peak, found.bad_actors_share) == (0, 0, 0, 0)
    assert found.response_s is None and found.floods == () and found.chattering == ()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4000)), max_size=60),
    st.integers(0, 2000),
    st.integers(2001, 4000),
)
def test_counts_agree_with_counting_one_by_one(
    rows: list[tuple[str, int]], start_s: int, end_s: int
) -> None:
    found = metrics(journal(*(came(f"h/p/{a}", at) for a, at in rows)), (), start_s * S, end_s * S)
    inside = [(a, at * S) for a, at in rows if start_s <= at < end_s]
    assert found.told == len(inside) == sum(count for _, count in found.periods)
    for start_us, count in found.periods:
        assert count == sum(start_us <= at < start_us + PERIOD_US for _, at in inside)
    quick = {
        f"h/p/{a}"
        for a, at in inside
        if sum(a == b and at <= other <= at + CHATTER_US for b, other in inside) >= 3
    }
    assert {each.alarm for each in found.chattering} == quick
