"""A table filled without a broker, through the historian's own commit."""

from __future__ import annotations

import polars as pl

from headrace.historian.commit import Chunk, Committed, Committer
from headrace.historian.table import Table, open_table
from headrace.model.folder import DataFolder
from headrace.model.time import Clock, ManualClock

APP = "headrace/SAMPLES/1"


class Store:
    """One open table and its committer."""

    def __init__(self, folder: DataFolder, clock: Clock | None = None) -> None:
        used = clock or ManualClock()
        folder.root.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.table: Table = open_table(folder.table, used)
        self.committer = Committer(self.table, folder.root / "quarantine", used)

    def commit(self, *batches: pl.DataFrame) -> Committed:
        """Commit batches as the next messages of the log."""
        chunk = Chunk(self.table.committed(APP) or 0)
        for batch in batches:
            chunk.take(chunk.sequence + 1, batch, 100, 0.0)
        return self.committer.commit(chunk, APP)
