"""The engine: results in, transitions out, in source time."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl
import pytest
from alarm_world import S, bound_of, definitions, formulas_of, frame
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.alarms.book import Deed
from headrace.alarms.engine import AlarmEngine
from headrace.model.alarm import Transition

Line = tuple[str, int, str, str]


class World:
    """An engine with the alarms of some texts on two pumps."""

    def __init__(self, *texts: str, engine: AlarmEngine | None = None) -> None:
        self.formulas = formulas_of(*texts)
        self.bounds = bound_of(self.formulas)
        self.engine = engine or AlarmEngine()
        self.bind()

    def bind(self, at_s: int = 0) -> list[Transition]:
        return self.engine.bind(
            self.bounds.values(), definitions(self.formulas), at_s * S, at_s * S
        )

    def take(self, up_to_s: int, **frames: pl.DataFrame) -> list[Line]:
        """Take results: ``hot`` are those of the condition, ``hot_off`` and ``hot_suppressed``."""
        results = [
            (self.bounds["pump." + name.replace("_", "/", 1)], each)
            for name, each in frames.items()
        ]
        return lines(self.engine.take(results, up_to_s * S, up_to_s * S))

    def state(self, alarm: str) -> str:
        return self.engine.book.states[f"hall/{alarm}"].state


def lines(told: Iterable[Transition]) -> list[Line]:
    """(alarm, seconds, event, state after)."""
    return [(t.alarm.removeprefix("hall/"), t.at_us // S, t.event, t.after) for t in told]


def test_an_alarm_comes_and_goes_at_the_source_time_of_its_results() -> None:
    world = World("alarm hot: on")
    told = world.take(10, hot=frame([(0, 1, False), (0, 5, True), (1, 3, True), (0, 8, False)]))
    assert told == [
        ("p1/hot", 3, "alarm", "UNACK"),
        ("p0/hot", 5, "alarm", "UNACK"),
        ("p0/hot", 8, "return_to_normal", "RTNUN"),
    ]
    assert world.take(20, hot=frame([(1, 12, True)])) == []


def test_between_the_two_limits_the_state_is_held() -> None:
    world = World("alarm hot: x > 80, off below 75")
    on = [(0, 1, True), (0, 2, False), (0, 4, True), (0, 5, False)]
    off = [(0, 1, False), (0, 2, False), (0, 3, True), (0, 4, False), (0, 5, False)]
    assert world.take(9, hot=frame(on), hot_off=frame(off)) == [
        ("p0/hot", 1, "alarm", "UNACK"),
        ("p0/hot", 3, "return_to_normal", "RTNUN"),
        ("p0/hot", 4, "alarm", "UNACK"),
    ]


def test_bad_data_hold_the_state_and_mark_it() -> None:
    world = World("alarm hot: on")
    assert world.take(9, hot=frame([(0, 1, True), (0, 2, None), (0, 5, False)])) == [
        ("p0/hot", 1, "alarm", "UNACK"),
        ("p0/hot", 2, "uncertain", "UNACK"),
        ("p0/hot", 5, "certain", "UNACK"),
        ("p0/hot", 5, "return_to_normal", "RTNUN"),
    ]
    assert world.take(19, hot=frame([(1, 12, None)])) == []
    assert world.engine.book.states["hall/p1/hot"].uncertain


def test_what_is_suppressed_by_design_is_not_told_even_at_the_same_time() -> None:
    world = World("alarm low: on, suppressed when stopped")
    told = world.take(
        9,
        low=frame([(0, 2, True), (0, 7, False), (1, 3, True)]),
        low_suppressed=frame([(0, 2, True), (0, 7, False), (1, 2, True), (1, 5, False)]),
    )
    assert told == [
        ("p0/low", 2, "suppress", "DSUPR"),
        ("p1/low", 2, "suppress", "DSUPR"),
        *(("p0/low", 2, "alarm", "DSUPR"), ("p1/low", 3, "alarm", "DSUPR")),
        ("p1/low", 5, "unsuppress", "UNACK"),
        ("p0/low", 7, "return_to_normal", "DSUPR"),
        ("p0/low", 7, "unsuppress", "NORM"),
    ]


def test_the_first_of_a_group_is_marked_until_all_are_normal() -> None:
    texts = [f'alarm {name}: on, group "trip"' for name in ("a", "b")]
    world = World(*texts)
    world.take(9, a=frame([(0, 5, True)]), b=frame([(0, 3, True), (1, 8, True)]))
    states = world.engine.book.states
    assert [alarm for alarm in sorted(states) if states[alarm].first_out] == [
        *("hall/p0/b", "hall/p1/b"),
    ]
    for asset in (0, 1):
        for name in ("a", "b"):
            world.take(20, **{name: frame([(asset, 19, False)])})
    assert states["hall/p0/b"].first_out
    from_now = [deed(world, alarm) for alarm in ("hall/p0/b", "hall/p0/a")]
    assert from_now == ["NORM", "NORM"]
    assert not states["hall/p0/b"].first_out
    world.take(30, a=frame([(0, 25, True)]), b=frame([(0, 26, True)]))
    assert states["hall/p0/a"].first_out and not states["hall/p0/b"].first_out


def deed(world: World, alarm: str) -> str:
    """Acknowledge; the state after."""
    done = world.engine.book.apply(alarm, Deed(event="acknowledge", at_us=20 * S, actor="li"), 0)
    assert done is not None
    return done.after


# What was told first, then late rows and rows that are no more: what is told now.
LATE = (
    pytest.param(
        [(1, False), (9, False)], [(4, True), (6, False)], [],
        [(4, "alarm"), (6, "return_to_normal")], "RTNUN", id="an alarm that was missed",
    ),
    pytest.param(
        [(1, False), (5, True)], [], [5], [(5, "revoke"), (5, "return_to_normal")], "RTNUN",
        id="an active alarm that was none",
    ),
    pytest.param(
        [(1, False), (5, True), (7, False)], [], [5], [(5, "revoke")], "RTNUN",
        id="an earlier alarm that was none",
    ),
    pytest.param(
        [(1, False), (5, True), (7, False)], [], [7], [(7, "alarm")], "UNACK",
        id="it has not returned after all",
    ),
    pytest.param(
        [(1, False), (8, True)], [(3, True), (4, False)], [], [(3, "missed")], "UNACK",
        id="one more while it is active",
    ),
    pytest.param(
        [(1, False), (5, True)], [(3, True)], [], [], "UNACK", id="it began earlier",
    ),
    pytest.param(
        [(1, False), (5, True)], [(7, False)], [], [(7, "return_to_normal")], "RTNUN",
        id="new, in order",
    ),
)  # fmt: skip


@pytest.mark.parametrize(("told", "late", "gone", "expected", "state"), LATE)
def test_late_data_correct_what_was_told(
    told: list[tuple[int, bool]],
    late: list[tuple[int, bool]],
    gone: list[int],
    expected: list[tuple[int, str]],
    state: str,
) -> None:
    world = World("alarm hot: on")
    world.take(10, hot=frame([(0, at, value) for at, value in told]))
    rows = frame([(0, at, value) for at, value in late], [(0, at) for at in gone])
    found = world.engine.take([(world.bounds["pump.hot"], rows)], 11 * S, 11 * S)
    assert [(t.at_us // S, t.event) for t in found] == expected
    assert world.state("p0/hot") == state
    assert all(t.correction for t in found) or late == [(7, False)]


def test_what_comes_too_late_is_counted_and_changes_nothing() -> None:
    world = World("alarm hot: on", engine=AlarmEngine(horizon_us=60 * S))
    for at in range(0, 200, 10):
        world.take(at + 1, hot=frame([(0, at, False), (1, at, False)]))
    assert world.take(201, hot=frame([(0, 5, True), (0, 7, False)])) == []
    assert world.engine.too_late == 2
    assert world.take(202, hot=frame([(0, 175, True)])) == [
        ("p0/hot", 175, "alarm", "UNACK"),
        ("p0/hot", 180, "return_to_normal", "RTNUN"),
    ]


def test_a_restart_takes_its_results_again_and_tells_nothing_twice() -> None:
    history = [(0, 2, False), (0, 5, True), (0, 8, False), (0, 14, True), (1, 3, True)]
    whole = World("alarm hot: on")
    expected = whole.take(20, hot=frame(history))
    for cut in range(21):
        first = World("alarm hot: on")
        told = first.take(cut, hot=frame([row for row in history if row[1] < cut]))
        engine = AlarmEngine(first.engine.book.states.values(), cut * S, horizon_us=100 * S)
        second = World("alarm hot: on", engine=engine)
        told += second.take(cut, hot=frame([row for row in history if row[1] < cut]))
        told += second.take(20, hot=frame([row for row in history if row[1] >= cut]))
        assert sorted(told) == sorted(expected), cut
        assert second.engine.book.states == whole.engine.book.states or cut < 20


def test_a_correction_that_a_kill_took_away_comes_after_the_restart() -> None:
    first = World("alarm hot: on")
    first.take(10, hot=frame([(0, 2, False), (0, 5, True)]))
    engine = AlarmEngine(first.engine.book.states.values(), 10 * S)
    second = World("alarm hot: on", engine=engine)
    second.take(10, hot=frame([(0, 2, False)]))  # the row of 5 s is no more
    assert second.take(11) == [("p0/hot", 10, "return_to_normal", "RTNUN")]


def test_another_version_goes_on_and_what_is_gone_is_retired() -> None:
    world = World("alarm hot: on", "alarm low: on, suppressed when stopped")
    world.take(
        10,
        hot=frame([(0, 5, True)]),
        low_suppressed=frame([(1, 5, True)]),
        low=frame([(1, 6, True)]),
    )
    world.formulas = formulas_of("alarm hot: on, priority urgent", "alarm low: on", version=2)
    world.bounds = bound_of(world.formulas)
    told = lines(world.bind(11))
    assert ("p0/hot", 11, "configure", "UNACK") in told
    assert ("p1/low", 11, "unsuppress", "UNACK") in told
    assert world.engine.book.states["hall/p0/hot"].priority == "urgent"
    assert world.take(20, hot=frame([(0, 15, False)])) == [
        ("p0/hot", 15, "return_to_normal", "RTNUN")
    ]
    world.formulas = formulas_of("alarm hot: on, priority urgent", version=2)
    world.bounds = bound_of(world.formulas, assets=1)
    told = lines(world.bind(21))
    assert [(alarm, event) for alarm, _, event, _ in told] == [
        *(("p0/low", "retire"), ("p1/hot", "retire"), ("p1/low", "retire")),
    ]
    assert list(world.engine.book.states) == ["hall/p0/hot"]


rows_of_one = st.dictionaries(
    st.integers(0, 30), st.tuples(st.sampled_from([True, False, None]), st.booleans()), max_size=15
)


@settings(max_examples=80, deadline=None)
@given(rows_of_one, st.randoms(use_true_random=False), st.lists(st.integers(1, 30), max_size=5))
def test_whatever_the_order_of_arrival_the_alarm_is_at_the_end_as_the_data_say(
    rows: dict[int, tuple[bool | None, bool]], random: object, sizes: list[int]
) -> None:
    """Rows of one alarm in any order and portions; some of them are taken back at the end."""
    in_order = World("alarm hot: on")
    kept = [(0, at, value) for at, (value, gone) in sorted(rows.items()) if not gone]
    expected = in_order.take(99, hot=frame(kept))
    shuffled = [(0, at, value) for at, (value, _) in rows.items()]
    random.shuffle(shuffled)  # type: ignore[attr-defined] # a random.Random
    world, told, start = World("alarm hot: on"), list[Transition](), 0
    bound = world.bounds["pump.hot"]
    for n, size in enumerate([*sizes, 99]):
        portion = frame(shuffled[start : start + size])
        told += world.engine.take([(bound, portion)], (40 + n) * S, 0)
        start += size
    gone = [(0, at) for at, (_, gone) in rows.items() if gone]
    told += world.engine.take([(bound, frame([], gone))], 60 * S, 0)
    assert len({each.id for each in told}) == len(told)
    state, true = (
        world.engine.book.states["hall/p0/hot"],
        in_order.engine.book.states["hall/p0/hot"],
    )
    assert (state.active, state.uncertain) == (true.active, true.uncertain)
    before = "NORM"
    for each in told:
        assert each.before == before
        before = each.after
    if any(event == "alarm" for _, _, event, _ in expected):
        assert any(each.event == "alarm" for each in told)
