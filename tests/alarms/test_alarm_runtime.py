"""What the apps role holds: no sequence leads outside the table, nothing is lost or told twice, whatever
is killed when."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from alarm_world import S, bound_of, formulas_of, frame
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.alarms.book import NOTES
from headrace.alarms.commands import SHELF_MAX_US
from headrace.alarms.machine import TABLE
from headrace.alarms.runtime import AlarmRuntime
from headrace.alarms.store import AlarmFilter, AlarmStore
from headrace.model.alarm import Command, Transition, Verb
from headrace.model.errors import Misconfigured, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock

TEXTS = (
    'alarm hot: on, group "trip"',
    'alarm low: x < 5, off above 8, latched, group "trip", suppressed when stopped',
)
ALARMS = ("hall/p0/hot", "hall/p0/low", "hall/p1/hot", "hall/p1/low")
VERBS: tuple[Verb, ...] = (
    *("acknowledge", "reset", "shelve", "unshelve"),
    *("remove_from_service", "return_to_service", "comment", "assign"),
)
STEPS = {(row.before, row.event, row.after) for row in TABLE}


class BreakingStore(AlarmStore):
    """A store that a kill, or another writer, can hit before or after the transaction."""

    fails = ""

    def write(self, *arguments: object, **named: object) -> None:  # type: ignore[override]
        if self.fails.startswith("before"):
            raise Transient("ALARM-1103", "busy")
        super().write(*arguments, **named)  # type: ignore[arg-type]
        if self.fails == "after":
            raise KeyboardInterrupt


def command(verb: Verb, *alarms: str, clock: ManualClock, number: int = 1) -> Command:
    return Command(
        id=f"c{number}",
        verb=verb,
        alarms=alarms,
        actor="li",
        comment="why",
        until_us=clock.now_us() + 30 * S,
        assignee="wang",
    )


class AlarmMachine(RuleBasedStateMachine):
    """Two alarms on two pumps, people, restarts and kills."""

    @initialize()
    def begin(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.folder = DataFolder(Path(self.place.name))
        self.clock = ManualClock(1_000 * S)
        self.formulas = formulas_of(*TEXTS)
        self.bounds = bound_of(self.formulas)
        self.history: list[tuple[str, int, int, object]] = []
        self.published: list[Transition] = []
        self.commands = 0
        self.done_s = self.now_s
        self.start()

    def start(self) -> None:
        self.store = BreakingStore(self.folder)
        self.runtime = AlarmRuntime(self.store, self.clock, self.publish)
        self.runtime.bind(self.bounds.values(), self.formulas)
        needs_us = self.runtime.needs_us
        # As the apps role does: its own position moves on only after the alarms took the results.
        start_s = self.done_s if needs_us is None else min(self.done_s, needs_us // S)
        self.results(start_s, self.now_s)

    def publish(self, transitions: Sequence[Transition]) -> None:
        self.published += transitions

    @property
    def now_s(self) -> int:
        return self.clock.now_us() // S

    def results(self, start_s: int, end_s: int) -> None:
        frames = []
        for key, bound in self.bounds.items():
            rows = [
                (a, at, v) for k, a, at, v in self.history if k == key and start_s <= at < end_s
            ]
            frames.append((bound, frame(sorted(rows, key=lambda row: row[:2]))))
        self.runtime.take(frames, end_s * S)
        self.done_s = end_s

    @rule(
        key=st.sampled_from(["pump.hot", "pump.low", "pump.low/off", "pump.low/suppressed"]),
        rows=st.lists(st.tuples(st.integers(0, 1), st.sampled_from([True, False, None]))),
        fails=st.sampled_from(["", "", "", "before", "before, then killed", "after"]),
    )
    def data(self, key: str, rows: list[tuple[int, object]], fails: str) -> None:
        start_s = self.now_s
        self.history += [(key, asset, start_s + n, value) for n, (asset, value) in enumerate(rows)]
        self.clock.advance_us((len(rows) + 1) * S)
        self.store.fails = fails
        try:
            self.results(start_s, self.now_s)
        except Transient:
            self.store.fails = ""
            if "killed" in fails:
                self.restart()
            self.runtime.tick()  # the next call writes it
        except KeyboardInterrupt:
            self.restart()
        self.store.fails = ""

    @rule(
        verb=st.sampled_from(VERBS),
        alarms=st.lists(st.sampled_from(ALARMS), min_size=1, unique=True),
        fails=st.sampled_from(["", "", "", "before", "after"]),
    )
    def people(self, verb: Verb, alarms: list[str], fails: str) -> None:
        self.commands += 1
        made = command(verb, *alarms, clock=self.clock, number=self.commands)
        self.clock.advance_us(1)
        self.runtime.tick()
        self.store.fails = fails
        try:
            self.runtime.command(made)
        except Transient:
            assert self.store.answer(made.id) is None
        except KeyboardInterrupt:
            self.restart()
        self.store.fails = ""
        answer = self.runtime.command(made)
        lines = len(self.store.journal())
        assert self.runtime.command(made) == answer
        assert len(self.store.journal()) == lines
        assert {outcome.alarm for outcome in answer.outcomes} == set(alarms)

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        start_s = self.now_s
        self.clock.advance_us(seconds * S)
        self.results(start_s, self.now_s)

    @rule()
    def restart(self) -> None:
        self.store.fails = ""
        self.store.close()
        self.start()

    @invariant()
    def what_is_written_follows_the_table(self) -> None:
        self.runtime.tick()
        journal = [line.transition for line in reversed(self.store.journal())]
        assert len({each.id for each in journal}) == len(journal)
        after = defaultdict(lambda: "NORM")
        for each in journal:
            assert each.before == after[each.alarm], each
            if each.event in NOTES:
                assert each.before == each.after
            else:
                assert (each.before, each.event, each.after) in STEPS, each
            after[each.alarm] = each.after
        states = {state.alarm: state for state in self.store.states()}
        assert states == {state.alarm: state for state in self.runtime.states()}
        assert {alarm: state.state for alarm, state in states.items()} == {
            alarm: after[alarm] for alarm in ALARMS
        }
        assert {each.id for each in journal} == {each.id for each in self.published}

    @invariant()
    def every_edge_of_the_data_is_told_once(self) -> None:
        for asset in (0, 1):
            edges, active = [], False
            for key, number, at, value in self.history:
                if key == "pump.hot" and number == asset and value is not None and value != active:
                    active = bool(value)
                    edges.append((at * S, "alarm" if active else "return_to_normal"))
            told = [
                (line.transition.at_us, line.transition.event)
                for line in reversed(self.store.journal())
                if line.transition.alarm == f"hall/p{asset}/hot"
                and line.transition.event in ("alarm", "return_to_normal")
            ]
            assert told == edges

    def teardown(self) -> None:
        if hasattr(self, "place"):
            self.store.close()
            self.place.cleanup()


# Making a failing sequence shorter takes minutes here.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
TestAlarms = AlarmMachine.TestCase
TestAlarms.settings = settings(
    max_examples=15, stateful_step_count=15, deadline=None, phases=PHASES
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000 * S)


@pytest.fixture
def runtime(folder: DataFolder, clock: ManualClock) -> AlarmRuntime:
    folder.root.mkdir()
    formulas = formulas_of(*TEXTS)
    made = AlarmRuntime(AlarmStore(folder), clock)
    made.bind(bound_of(formulas).values(), formulas)
    return made


def test_people_work_the_list_and_each_alarm_answers_for_itself(
    runtime: AlarmRuntime, clock: ManualClock, folder: DataFolder
) -> None:
    bound = bound_of(formulas_of(*TEXTS))["pump.hot"]
    runtime.take([(bound, frame([(0, 5, True)]))], 10 * S)
    answer = runtime.command(command("acknowledge", *ALARMS[::2], "no/such", clock=clock))
    assert [(o.alarm, o.state, o.code) for o in answer.outcomes] == [
        ("hall/p0/hot", "ACKED", ""),
        ("hall/p1/hot", "NORM", "ALARM-1003"),
        ("no/such", "NORM", "ALARM-1002"),
    ]
    assert len(answer.refused) == 2
    store = AlarmStore(folder)
    (line,) = [each for each in store.journal() if each.transition.actor]
    assert (line.transition.actor, line.transition.comment) == ("li", "why")
    shelve = command("shelve", "hall/p0/hot", clock=clock, number=2)
    assert runtime.command(shelve).outcomes[0].state == "SHLVD"
    (state,) = store.find(AlarmFilter(states=("SHLVD",)))
    assert (state.reason, state.shelved_by, state.active) == ("why", "li", True)
    clock.advance_us(30 * S)
    runtime.tick()
    newest = store.journal()[0].transition
    assert (newest.event, newest.at_us, newest.actor) == ("unshelve", state.shelved_until_us, "")
    assert store.get("hall/p0/hot").state == "UNACK"  # type: ignore[union-attr] # it is there


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("ALARM-1010", {"actor": ""}),
        ("ALARM-1010", {"id": ""}),
        ("ALARM-1011", {"alarms": ()}),
        ("ALARM-1012", {"comment": " "}),
        ("ALARM-1013", {"comment": 1_001 * "x"}),
        ("ALARM-1014", {"until_us": 1_000 * S}),
        ("ALARM-1014", {"until_us": 1_000 * S + SHELF_MAX_US + 1}),
        ("ALARM-1015", {"assignee": 201 * "x"}),
    ],
)
def test_a_command_that_cannot_be_meant_does_nothing(
    runtime: AlarmRuntime, clock: ManualClock, code: str, fields: dict[str, object]
) -> None:
    import msgspec

    good = command("shelve", "hall/p0/hot", clock=clock)
    with pytest.raises(Misconfigured, match=code):
        runtime.command(msgspec.structs.replace(good, **fields))
    assert all(state.state == "NORM" for state in runtime.states())
