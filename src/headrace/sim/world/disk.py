"""The historian's disk: data files are real, the table's log is a list in memory; both fail on command.

:class:`SimTable` stands for :class:`headrace.historian.table.Table` and :class:`SimIndex` for
:class:`headrace.historian.index.TableIndex`: the committer, the compactor, the tail and the reader above them
are the real ones. The real table takes 7 ms for a commit, this one a hundredth of it. Worlds of the size
``full`` use the real table instead (:class:`FaultyTable`).
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from deltalake import DeltaTable

from headrace.historian.index import Snapshot
from headrace.historian.layout import DataFile
from headrace.historian.table import Table
from headrace.model.errors import Terminal
from headrace.model.time import Clock
from headrace.sim.world.loop import Killed, Process
from headrace.sim.world.trace import Trace

PLACES: Final = ("file", "entry", "synced")
"""Where a commit can be met: before its files, between files and log entry, after the entry."""


class SimDisk:
    """Decides what happens at each place of a commit.

    Attributes:
        full_at: the disk is full at this place; "" when it is not.
        kill_at: the process dies when it next reaches this place; "" for never.
    """

    def __init__(self, trace: Trace) -> None:
        self.full_at = ""
        self.kill_at = ""
        self.process: Process | None = None
        self.on_kill: Callable[[], None] = lambda: None
        self._trace = trace

    def reach(self, place: str) -> None:
        """The historian's commit is at ``place`` now.

        Raises:
            OSError: ENOSPC.
            Killed: the process is dead.
        """
        if self.full_at == place:
            self._trace.note("disk", f"full at {place}")
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.kill_at == place and self.process is not None:
            self.kill_at = ""
            self._trace.note("historian", f"killed at {place}")
            self.process.kill()
            self.on_kill()
            raise Killed


@dataclass(frozen=True)
class Entry:
    """One entry of the table's log, with the state after it."""

    files: tuple[DataFile, ...] = ()
    positions: Mapping[str, int] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)


class SimLog:
    """The table's log, as it lies on disk: what every process sees, and what outlives them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = [Entry()]

    def snapshot(self) -> Snapshot:
        """The newest version."""
        entry = self.entries[-1]
        bounds = np.array(
            [
                [file.tag_id_min, file.tag_id_max, file.start_us, file.end_us]
                for file in entry.files
            ],
            np.int64,
        ).reshape(len(entry.files), 4)
        return Snapshot(
            len(self.entries) - 1, entry.files, entry.positions.get, bounds.T.copy()
        )


class SimTable:
    """One process's open table; see :class:`headrace.historian.table.Table`."""

    def __init__(self, log: SimLog, disk: SimDisk) -> None:
        self.path = log.path
        self._log = log
        self._disk = disk
        self._version = len(log.entries) - 1
        self.snapshot = log.snapshot()
        self.counters: dict[str, int] = dict(log.entries[-1].counters)

    def committed(self, app: str) -> int | None:
        """See the real one."""
        return self.snapshot.committed(app)

    def next_ordinal(self) -> int:
        """See the real one."""
        self._disk.reach("file")
        return self.snapshot.version + 1

    def commit(
        self,
        added: Iterable[DataFile],
        removed: Iterable[DataFile] = (),
        position: tuple[str, int] | None = None,
        counters: Mapping[str, int] | None = None,
        *,
        data_change: bool = True,
    ) -> Snapshot:
        """See the real one."""
        del data_change
        self._disk.reach("entry")
        if len(self._log.entries) - 1 != self._version:
            raise Terminal("HIST-1010", f"another historian committed to {self.path}")
        last = self._log.entries[-1]
        gone = {file.path for file in removed}
        files = [file for file in last.files if file.path not in gone] + list(added)
        positions = {**last.positions, **({position[0]: position[1]} if position else {})}
        self.counters = {**self.counters, **(counters or {})}
        ordered = tuple(sorted(files, key=lambda file: (file.ordinal, file.path)))
        self._log.entries.append(Entry(ordered, positions, dict(self.counters)))
        self._version += 1
        self.snapshot = self._log.snapshot()
        self._disk.reach("synced")
        return self.snapshot

    def sync(self) -> None:
        """See the real one."""
        self._disk.reach("synced")


class SimIndex:
    """A reader's view of the table's log."""

    def __init__(self, log: SimLog) -> None:
        self._log = log
        self.snapshot = Snapshot()

    def refresh(self, *, force: bool = False) -> Snapshot:
        """See the real one."""
        del force
        if self.snapshot.version != len(self._log.entries) - 1:
            self.snapshot = self._log.snapshot()
        return self.snapshot


class FaultyTable(Table):
    """The real table, met by the faults of a :class:`SimDisk`."""

    def __init__(self, path: Path, handle: DeltaTable, clock: Clock, disk: SimDisk) -> None:
        super().__init__(path, handle, clock)
        self._disk = disk
        self._lock = threading.Lock()

    def next_ordinal(self) -> int:
        self._disk.reach("file")
        return super().next_ordinal()

    def _sync_log(self) -> None:
        self._disk.reach("synced")
        super()._sync_log()
