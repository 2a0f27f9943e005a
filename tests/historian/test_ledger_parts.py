"""The loss ledger of two writers: each has its own place, and the one furthest behind decides what waits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from historian_samples import wave
from store import APP

from headrace.historian.commit import Chunk, Committer
from headrace.historian.ledger_store import LedgerStore, open_ledger
from headrace.historian.partition import Partition
from headrace.historian.table import open_table
from headrace.model.folder import DataFolder
from headrace.model.ledger import CellKey, Taken
from headrace.model.time import ManualClock


@pytest.fixture
def stores(folder: DataFolder) -> Iterator[list[LedgerStore]]:
    folder.root.mkdir()
    opened = [open_ledger(folder.ledger_file, ManualClock()) for _ in range(2)]
    yield opened
    for store in opened:
        store.close()


def key(line: int) -> CellKey:
    return CellKey("local", f"plc_{line}", "1000ms", 0, 1)


def committer(folder: DataFolder, store: LedgerStore, partition: Partition) -> Committer:
    table = open_table(folder.table, ManualClock(), partition)
    return Committer(table, folder.root / "quarantine", ManualClock(), store)


def chunk(line: int, sequence: int) -> Chunk:
    made = Chunk(sequence - 1)
    batch = wave(1, 10, first=10 * sequence)
    before = {2: 0, 5: 10, 9: 0}[sequence]
    made.take(sequence, batch, 100, 0.0, 0, [Taken(key(line), before, 10)])
    return made


def stored(store: LedgerStore) -> dict[str, int]:
    return {cell.connection: counts.stored for cell, counts in store.untold()[0]}


def places(store: LedgerStore) -> dict[str, int]:
    return dict(store._read("SELECT app, sequence FROM committed"))


def test_two_writers_keep_one_ledger(folder: DataFolder, stores: list[LedgerStore]) -> None:
    one, two = (committer(folder, store, Partition(index, 2)) for index, store in enumerate(stores))
    one.commit(chunk(0, 2), APP)
    two.commit(chunk(1, 9), APP)
    one.commit(chunk(0, 5), APP)
    assert stored(stores[0]) == stored(stores[1]) == {"plc_0": 20, "plc_1": 10}
    assert places(stores[0]) == {
        "headrace/SAMPLES.0of2/1": 5,
        "headrace/SAMPLES.1of2/1": 9,
    }


def test_a_start_leaves_the_other_alone_and_settles_its_own(
    folder: DataFolder, stores: list[LedgerStore]
) -> None:
    one = committer(folder, stores[0], Partition(0, 2))
    one.commit(chunk(0, 2), APP)
    stores[1].prepare("headrace/SAMPLES.1of2/1", 9, [Taken(key(1), 0, 10, 10)])
    committer(folder, stores[0], Partition(0, 2))
    assert stores[0]._read("SELECT app FROM pending") == [("headrace/SAMPLES.1of2/1",)]
    committer(folder, stores[1], Partition(1, 2))
    assert stores[0]._read("SELECT app FROM pending") == [], "that commit never came"
    assert stored(stores[0]) == {"plc_0": 10}


def test_another_number_of_writers_forgets_the_old_places(
    folder: DataFolder, stores: list[LedgerStore]
) -> None:
    """Also what a writer of the old number had put into the table, and was killed before it said so."""
    two = committer(folder, stores[1], Partition(1, 2))
    committer(folder, stores[0], Partition(0, 2)).commit(chunk(0, 2), APP)
    settle, stores[1].settle = stores[1].settle, lambda app, sequence: None  # type: ignore[method-assign]
    two.commit(chunk(1, 9), APP)
    stores[1].settle = settle  # type: ignore[method-assign]
    assert stored(stores[0]) == {"plc_0": 10}
    whole = committer(folder, stores[0], Partition(0, 1))
    assert places(stores[0]) == {}
    whole.commit(chunk(0, 5), APP)
    assert places(stores[0]) == {APP: 5}
    assert stored(stores[0]) == {"plc_0": 20, "plc_1": 10}
