"""The store: what belongs together is written together, once; many read."""

from __future__ import annotations

import sqlite3

import msgspec
import pytest

from headrace.alarms.store import AlarmFilter, AlarmStore, JournalFilter
from headrace.model.alarm import AlarmState, CommandAnswer, Outcome, Transition, Wording
from headrace.model.errors import Corrupt, Terminal, Transient
from headrace.model.folder import DataFolder

DAY_US = 86_400_000_000


def state(asset: str, name: str, **fields: object) -> AlarmState:
    made = AlarmState(alarm=f"{asset}/{name}", key=f"pump.{name}", asset=asset, name=name)
    return msgspec.structs.replace(made, **fields)


def line(number: int, **fields: object) -> Transition:
    made = Transition(
        id=f"id{number}",
        alarm="hall/pump_1/hot",
        key="pump.hot",
        asset="hall/pump_1",
        event="alarm",
        before="NORM",
        after="UNACK",
        at_us=number,
        recorded_us=number,
    )
    return msgspec.structs.replace(made, **fields)


@pytest.fixture
def store(folder: DataFolder) -> AlarmStore:
    folder.root.mkdir()
    return AlarmStore(folder)


def test_the_same_transition_is_in_the_journal_once(store: AlarmStore) -> None:
    store.write([line(1), line(2)], positions={"known": 5})
    store.write([line(2, comment="again"), line(3)], positions={"known": 9})
    found = store.journal()
    assert [each.transition.id for each in found] == ["id3", "id2", "id1"]
    assert found[1].transition.comment == ""
    assert store.position("known") == 9
    assert [each.transition.id for each in store.after(found[-1].number)] == ["id2", "id3"]


def test_lists_are_filtered_sorted_and_cut(store: AlarmStore) -> None:
    states = [
        state("hall/pump_1", "hot", state="UNACK", priority="high", since_us=1),
        state("hall/pump_1", "slow", state="ACKED", priority="high", since_us=5, assignee="li"),
        state("hall/pump_10", "hot", state="RTNUN", priority="urgent", message=Wording(zh="过热")),
        state("hall_2/pump_1", "hot", uncertain=True),
        state("hall/pump_2", "hot", state="UNACK", shadow=True),
    ]
    store.write([], states)

    def paths(**fields: object) -> list[str]:
        return [each.alarm for each in store.find(AlarmFilter(**fields))]  # type: ignore[arg-type]

    assert paths() == [
        *("hall/pump_10/hot", "hall/pump_1/hot", "hall/pump_1/slow", "hall_2/pump_1/hot"),
    ]
    assert paths(area="hall/pump_1") == ["hall/pump_1/hot", "hall/pump_1/slow"]
    assert paths(area="hall", sort="alarm", limit=2) == ["hall/pump_1/hot", "hall/pump_1/slow"]
    assert paths(area="hall", sort="time", limit=1) == ["hall/pump_1/slow"]
    assert paths(unacknowledged=True) == ["hall/pump_10/hot", "hall/pump_1/hot"]
    assert paths(states=("ACKED",)) == paths(assignee="li") == ["hall/pump_1/slow"]
    assert paths(priorities=("urgent",)) == paths(text="过热") == ["hall/pump_10/hot"]
    assert paths(text="100%") == []
    assert paths(uncertain=True) == ["hall_2/pump_1/hot"]
    assert paths(shadow=True) == ["hall/pump_2/hot"]
    assert store.count(AlarmFilter(area="hall", limit=1)) == 3
    assert store.counts()[("UNACK", "high")] == 1
    assert store.get("hall/pump_1/hot") == states[0]
    store.write([], [], retired=["hall/pump_1/hot"])
    assert store.get("hall/pump_1/hot") is None


def test_the_journal_is_searched_and_given_as_columns(store: AlarmStore) -> None:
    store.write(
        [
            line(10),
            line(20, event="acknowledge", actor="li", before="UNACK", after="ACKED"),
            line(30, asset="yard", alarm="yard/hot", shadow=True),
        ]
    )
    assert [n.transition.id for n in store.journal(JournalFilter(actor="li"))] == ["id20"]
    assert [n.transition.id for n in store.journal(JournalFilter(text="pump", end_us=20))] == [
        "id10"
    ]
    assert len(store.journal(JournalFilter(shadow=None))) == 3
    frame = store.journal_frame(0, 100, area="hall")
    assert frame["event"].to_list() == ["alarm", "acknowledge"]
    assert frame["priority"].to_list() == [1, 1]


def test_only_what_was_handed_on_is_pruned(store: AlarmStore) -> None:
    store.write([line(1), line(2), line(3)])
    assert store.prune(3) == 0
    store.write([], positions={"told": store.last_number() - 1})
    assert store.prune(3) == 2
    assert store.last_number() == 3


def test_an_answer_is_kept_a_week(store: AlarmStore) -> None:
    first = CommandAnswer(id="a", outcomes=(Outcome(alarm="x", code="ALARM-1003"),))
    store.write([], answer=first, now_us=DAY_US)
    assert store.answer("a") == first
    store.write([], answer=CommandAnswer(id="b"), now_us=9 * DAY_US)
    assert store.answer("a") is None and store.answer("b") is not None


def test_a_broken_or_busy_database_says_so(folder: DataFolder) -> None:
    with pytest.raises(Terminal, match="ALARM-1101"):
        AlarmStore(DataFolder(folder.root / "not" / "there"))
    folder.root.mkdir()
    store = AlarmStore(folder, patience_s=0.05)
    with sqlite3.connect(folder.metadata_file) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Transient, match="ALARM-1103"):
            store.write([line(1)])
        other.execute("ROLLBACK")
    assert store.journal() == []
    store.close()
    folder.metadata_file.write_bytes(b"no database at all" * 100)
    for rest in folder.root.glob("metadata.db-*"):
        rest.unlink()
    with pytest.raises(Corrupt, match="ALARM-1102"):
        AlarmStore(folder)
