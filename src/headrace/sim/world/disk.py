"""The historian's disk: data files are real, the table's log is a list in memory; both fail on command.

:class:`SimTable` stands for :class:`headrace.historian.table.Table` and :class:`SimIndex` for
:class:`headrace.historian.index.TableIndex`: the committer, the compactor, the tail and the reader above them
are the real ones. The real table takes 7 ms for a commit, this one a hundredth of it. Plans with
``real_table`` use the real table instead (:class:`FaultyTable`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from headrace.historian.index import Snapshot, TableIndex
from headrace.historian.layout import DataFile
from headrace.historian.partition import WHOLE
from headrace.historian.storage import LocalStorage
from headrace.historian.table import Table, open_table
from headrace.model.errors import Terminal
from headrace.model.time import Clock
from headrace.sim.world.loop import Killed, Process
from headrace.sim.world.trace import Trace


class SimDisk:
    """Decides what happens at each place of a commit; see :data:`headrace.sim.world.plan.PLACES`.

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
            len(self.entries) - 1,
            entry.files,
            entry.positions.get,
            entry.counters,
            bounds.T.copy(),
        )


class SimTable:
    """One process's open table; see :class:`headrace.historian.table.Table`."""

    def __init__(self, log: SimLog, disk: SimDisk) -> None:
        self.storage = LocalStorage(log.path)
        self.partition = WHOLE
        self.mark = ""
        self._log = log
        self._disk = disk
        self._version = len(log.entries) - 1
        self.snapshot = log.snapshot()

    @property
    def counters(self) -> Mapping[str, int]:
        """See the real one."""
        return self.snapshot.totals

    def refresh(self) -> Snapshot:
        """See the real one; one writer has all."""
        return self.snapshot

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
        *,
        counts: Mapping[str, int] | None = None,
        counters: Mapping[str, int] | None = None,
        data_change: bool = True,
    ) -> Snapshot:
        """See the real one."""
        del data_change
        self._disk.reach("entry")
        if len(self._log.entries) - 1 != self._version:
            raise Terminal("HIST-1010", f"another historian committed to {self.storage.uri}")
        last = self._log.entries[-1]
        gone = {file.path for file in removed}
        files = [file for file in last.files if file.path not in gone] + list(added)
        positions = {**last.positions, **({position[0]: position[1]} if position else {})}
        totals = {**self.counters, **(counters or {})}
        for name, count in (counts or {}).items():
            totals[name] = totals.get(name, 0) + count
        ordered = tuple(sorted(files, key=lambda file: (file.ordinal, file.path)))
        self._log.entries.append(Entry(ordered, positions, totals))
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


class FaultyTable:
    """The real table, met by the faults of a :class:`SimDisk`."""

    def __init__(self, table: Table, disk: SimDisk) -> None:
        self._table = table
        self._disk = disk
        self.storage = table.storage
        self.partition = table.partition
        self.mark = table.mark
        self.committed = table.committed
        self.refresh = table.refresh
        self.vacuum = table.vacuum

    @property
    def snapshot(self) -> Snapshot:
        """See the real one."""
        return self._table.snapshot

    @property
    def counters(self) -> Mapping[str, int]:
        """See the real one."""
        return self._table.counters

    def next_ordinal(self) -> int:
        """See the real one."""
        self._disk.reach("file")
        return self._table.next_ordinal()

    def commit(self, *args: Any, **settings: Any) -> Snapshot:
        """See the real one."""
        self._disk.reach("entry")
        snapshot = self._table.commit(*args, **settings)
        self._disk.reach("synced")
        return snapshot

    def sync(self) -> None:
        """See the real one."""
        self._disk.reach("synced")
        self._table.sync()


class SimStore:
    """What lies on the historian's disk, with a simulated log."""

    def __init__(self, path: Path, disk: SimDisk) -> None:
        self._log = SimLog(path)
        self._disk = disk

    def open(self, clock: Clock) -> Table:
        """The table of a historian that starts."""
        del clock
        return cast(Table, SimTable(self._log, self._disk))

    def index(self) -> TableIndex:
        """The table as a reader sees it."""
        return cast(TableIndex, SimIndex(self._log))

    def counters(self) -> dict[str, int]:
        """The totals that the newest entry has."""
        return dict(self._log.entries[-1].counters)


class RealStore:
    """What lies on the historian's disk: a real Delta table."""

    def __init__(self, path: Path, disk: SimDisk, clock: Clock) -> None:
        self._path = path
        self._disk = disk
        self._clock = clock

    def open(self, clock: Clock) -> Table:
        """The table of a historian that starts."""
        return cast(Table, FaultyTable(open_table(self._path, clock), self._disk))

    def index(self) -> TableIndex:
        """The table as a reader sees it."""
        return TableIndex(self._path, self._clock)

    def counters(self) -> dict[str, int]:
        """The totals that the newest entry has."""
        return dict(open_table(self._path, self._clock).counters)
