"""A file of another writer that appears after one with a higher ordinal is seen by the last values."""

from __future__ import annotations

from historian_samples import START_US, wave
from store import APP

from headrace.historian.commit import Chunk, Committer
from headrace.historian.compaction import Compactor
from headrace.historian.layout import file_name, write_file
from headrace.historian.partition import Partition
from headrace.historian.reader import Reader
from headrace.historian.table import open_table
from headrace.model.folder import DataFolder
from headrace.model.time import ManualClock


def test_a_late_file_with_a_low_ordinal_counts(folder: DataFolder) -> None:
    folder.root.mkdir()
    slow, quick = (open_table(folder.table, ManualClock(), Partition(index, 2)) for index in (0, 1))
    name = file_name(slow.next_ordinal(), 0, f"w{slow.mark}")
    written = write_file(folder.table, name, wave(1, 10, first=50), 0)
    committer = Committer(quick, folder.root / "quarantine", ManualClock())
    reader = Reader(folder.table)
    for turn in range(3):
        chunk = Chunk(turn)
        chunk.take(turn + 1, wave(1, 10, first=10 * turn), 100, 0.0)
        committer.commit(chunk, APP)
    reader.last([1])
    slow.commit([written], position=(APP, 9))
    newest = reader.last([1])["source_timestamp"].to_physical().to_list()
    assert newest == [START_US + 59_000_000]


def test_a_commit_that_a_rewrite_overtook_is_named_anew(folder: DataFolder) -> None:
    """A writer takes its ordinal, then the other commits and compacts beyond it: the older sample of
    that merged file may not win over the newer one of the same identity."""
    folder.root.mkdir()
    slow, quick = (open_table(folder.table, ManualClock(), Partition(index, 2)) for index in (1, 0))
    writer = Committer(slow, folder.root / "quarantine", ManualClock())
    first = Chunk(0)
    first.take(1, wave(1, 10), 100, 0.0)
    writer.commit(first, APP)
    committer = Committer(quick, folder.root / "quarantine", ManualClock())
    for turn in range(1, 16):
        chunk = Chunk(turn)
        chunk.take(turn + 1, wave(1, 10, first=10 * turn), 100, 0.0)
        committer.commit(chunk, APP)
    assert Compactor(quick, ManualClock()).step() is not None
    merged = max(file.ordinal for file in quick.snapshot.files)
    corrected = wave(1, 10).with_columns(value=wave(1, 10)["value"] + 1000)
    again = Chunk(1)
    again.take(2, corrected, 100, 0.0)
    writer.commit(again, APP)
    assert max(file.ordinal for file in slow.snapshot.files) > merged
    found = Reader(folder.table).read([1], START_US, START_US + 10_000_000)
    assert found["value"].drop_nulls().min() > 900  # type: ignore[operator] # floats
