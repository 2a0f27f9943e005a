"""A small ledger for tests of its views: one connection whose books close, one whose do not."""

from __future__ import annotations

from pathlib import Path

from headrace.historian.ledger_store import open_ledger
from headrace.model.ledger import MINUTE_US, CellKey, EdgeCounts, LedgerPage, PageCell, Taken
from headrace.model.time import ManualClock

APP = "headrace/SAMPLES/7"
CLOSED = {"expected": 10, "read": 8, "missed_slow": 2, "filtered": 1, "published": 7}
WRONG = {"expected": 9, "read": 9, "published": 9}


def write_books(path: Path, now_us: int) -> int:
    """Write the ledger as ten minutes ago; gives the minute of its cells."""
    clock = ManualClock(now_us - 10 * MINUTE_US)
    minute_us = clock.now_us() // MINUTE_US * MINUTE_US
    store = open_ledger(path, clock)
    sides = {"press_1": (CLOSED, 6, 1), "press_2": (WRONG, 5, 0)}
    cells, taken = [], []
    for connection, (counts, stored, duplicate) in sides.items():
        key = CellKey("local", connection, "1000ms", minute_us, 5)
        edge = EdgeCounts(**counts, last_sequence=1, final=True)  # type: ignore[arg-type] # counts
        cells.append(
            PageCell(
                connection=connection, group=key.group, minute_us=minute_us, epoch=5, counts=edge
            )
        )
        rows = stored + duplicate
        taken.append(Taken(key, 0, rows, stored=stored, duplicate=duplicate))
    page = LedgerPage(
        edge="local", epoch=5, sequence=1, at_us=minute_us, log_us=7, cells=cells, epochs=[5]
    )
    store.take_pages([page])
    store.prepare(APP, 1, taken)
    store.settle(APP, 1)
    store.close()
    return minute_us
