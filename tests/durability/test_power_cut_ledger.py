"""The loss ledger on the harshest disk: after a power cut it counts what the table has, no more, no less."""

from __future__ import annotations

from pathlib import Path

import pytest
from forgetting import ForgetfulDisk
from test_power_cut_files import do

from headrace.historian.commit import Committer
from headrace.historian.index import TableIndex
from headrace.historian.ledger_store import open_ledger
from headrace.historian.storage import sync_path
from headrace.historian.table import open_table
from headrace.model.folder import DataFolder
from headrace.model.ledger_view import total
from headrace.model.time import SystemClock

pytestmark = [pytest.mark.kill, pytest.mark.foreign]

APP = "headrace/SAMPLES/1"
COMMITS = f"""
sys.path[:0] = [{str(Path(__file__).parent.parent / "historian")!r}]
from historian_samples import wave
from headrace.historian.commit import Chunk, Committer
from headrace.historian.ledger_store import open_ledger
from headrace.historian.table import open_table
from headrace.model.ledger import CellKey, Taken
from headrace.model.time import SystemClock
clock = SystemClock()
table = open_table(folder.table, clock)
ledger = open_ledger(folder.ledger_file, clock)
committer = Committer(table, folder.root / "quarantine", clock, ledger)
key = CellKey("local", "plc", "1000ms", 60_000_000_000_000_000, 5)
for number in range(table.committed({APP!r}) or 0, %d):
    chunk = Chunk(number)
    runs = [Taken(key, 30 * number, 30)]
    chunk.take(number + 1, wave(3, 10, first=10 * number), 100, 0.0, runs=runs)
    committer.commit(chunk, {APP!r})
said = None
"""


@pytest.mark.parametrize("how", ["lost", "torn"])
def test_the_ledger_counts_what_the_table_has(
    disk: ForgetfulDisk, tmp_path: Path, how: str
) -> None:
    folder = DataFolder(disk.root / "data")
    folder.root.mkdir()
    for path in (folder.root, disk.root):
        sync_path(path)  # the folder has been there for long
    clock = SystemClock()
    for seed, commits in enumerate([1, 4]):
        do(disk, COMMITS % commits, how, seed)
        table = open_table(folder.table, clock)
        ledger = open_ledger(folder.ledger_file, clock)
        assert ledger.put_aside is None
        Committer(table, tmp_path / "quarantine", clock, ledger)  # takes over what was pending
        sums = total(ledger.accounts())
        assert sums["stored"] == TableIndex(folder.table).refresh().rows == 30 * commits
        assert sums["lost"] == sums["duplicate"] == sums["skipped"] == 0
        ledger.close()
