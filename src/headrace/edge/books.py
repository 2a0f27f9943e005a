"""The edge's side of the loss ledger: which cell a count goes into, and which cells are to be told. Pure.

Each reading belongs to the cell of the minute in which it came, and stays with it until the log has it;
so a cell closes when its minute is over and nothing of it waits. The books of a running edge are at
all times the cells that are not told for good: hosts and lanes count into them, :meth:`Books.page`
writes them down, :meth:`Books.forget` lets go of what the bus has.

When the wall clock is set back into an earlier minute, a new epoch begins: a closed cell never opens
again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from headrace.model.ledger import MINUTE_US, CellKey, EdgeCounts, LedgerPage, PageCell
from headrace.model.time import Clock

CELLS_MAX: Final = 20_000
PAGE_CELLS_MAX: Final = 2_000


@dataclass(eq=False)
class Cell:
    """One cell that is counted into.

    Attributes:
        over: its minute is past; nothing more is read into it.
    """

    key: CellKey
    counts: EdgeCounts = field(default_factory=EdgeCounts)
    over: bool = False

    @property
    def final(self) -> bool:
        """Nothing of it is in motion any more."""
        return self.over and self.counts.buffered == 0

    def take(self, read: int, bad: int) -> None:
        """Count samples that came."""
        self.counts.expected += read
        self.counts.read += read
        self.counts.bad += bad

    def miss(self, cause: str, samples: int) -> None:
        """Count samples that were due and did not come.

        Args:
            cause: a ``missed_*`` of :class:`EdgeCounts`, without that prefix.
        """
        name = f"missed_{cause}"
        setattr(self.counts, name, getattr(self.counts, name) + samples)
        self.counts.expected += samples

    def buffer(self, samples: int) -> None:
        """Count samples that now wait for the log."""
        self.counts.buffered += samples

    def publish(self, samples: int, sequence: int) -> None:
        """Count samples that the log has, in the message ``sequence``."""
        counts = self.counts
        counts.buffered -= samples
        counts.published += samples
        counts.last_sequence = max(counts.last_sequence, sequence)

    def drop(self, samples: int, *, in_doubt: bool) -> None:
        """Count samples that the log will not get, or about which it never answered."""
        self.counts.buffered -= samples
        if in_doubt:
            self.counts.dropped_in_doubt += samples
        else:
            self.counts.dropped_stopped += samples


class Books:
    """The cells of one edge.

    Args:
        edge: its name.
        clock: time.

    Example:
        >>> from headrace.model.time import ManualClock
        >>> clock = ManualClock()
        >>> books = Books("local", clock)
        >>> books.account("plc_1").cell("1000ms").miss("slow", 3)
        >>> [cell.counts.expected for cell in books.page().cells]
        [3]
        >>> clock.advance_us(MINUTE_US)
        >>> [cell.final for cell in books.closed()]
        [True]
    """

    def __init__(self, edge: str, clock: Clock) -> None:
        self.edge = edge
        self.log_us = 0
        self._clock = clock
        self._cells: dict[CellKey, Cell] = {}
        self._accounts: dict[str, Account] = {}
        self._sequence = 0
        self.epoch = clock.now_us()
        self.minute_us = self.epoch - self.epoch % MINUTE_US

    def account(self, connection: str) -> Account:
        """The account of one connection, the same at each call."""
        return self._accounts.setdefault(connection, Account(self, connection))

    def cell(self, connection: str, group: str) -> Cell:
        """The cell into which a reading goes that comes now."""
        self.turn()
        key = CellKey(self.edge, connection, group, self.minute_us, self.epoch)
        found = self._cells.get(key)
        if found is None:
            found = self._cells[key] = Cell(key)
        return found

    def turn(self) -> None:
        """Take notice of the time: past minutes are over."""
        now_us = self._clock.now_us()
        minute_us = now_us - now_us % MINUTE_US
        if minute_us < self.minute_us:
            self.begin_epoch()
        if minute_us != self.minute_us:
            self.minute_us = minute_us
            for cell in self._cells.values():
                cell.over = True

    def begin_epoch(self) -> None:
        """Go on in new cells: what the log has of the old ones can no longer be known for certain."""
        self.epoch = max(self.epoch + 1, self._clock.now_us())
        for cell in self._cells.values():
            cell.over = True

    def end(self) -> None:
        """All connections have stopped: every cell is over."""
        for cell in self._cells.values():
            cell.over = True

    def closed(self) -> list[Cell]:
        """Cells that are final, oldest first, at most a page of them."""
        self.turn()
        self._bound()
        return [cell for cell in self._cells.values() if cell.final][:PAGE_CELLS_MAX]

    def forget(self, cells: list[Cell]) -> None:
        """Let go of cells that the bus has on disk."""
        for cell in cells:
            self._cells.pop(cell.key, None)

    def page(
        self, cells: list[Cell] | None = None, *, end: str = "", polled: tuple[str, ...] = ()
    ) -> LedgerPage:
        """Write cells down, all when none are given."""
        chosen = list(self._cells.values()) if cells is None else cells
        self._sequence += 1
        return LedgerPage(
            edge=self.edge,
            epoch=self.epoch,
            sequence=self._sequence,
            at_us=self._clock.now_us(),
            log_us=self.log_us,
            end=end,
            epochs=sorted({self.epoch, *(cell.key.epoch for cell in self._cells.values())}),
            polled=list(polled),
            cells=[_written(cell) for cell in chosen],
        )

    def _bound(self) -> None:
        """While the bus is away, minutes in which nothing was published go into one cell a group."""
        if len(self._cells) <= CELLS_MAX:
            return
        first: dict[tuple[str, str, int], Cell] = {}
        for cell in [cell for cell in self._cells.values() if cell.final]:
            if cell.counts.published:
                continue
            kept = first.setdefault((cell.key.connection, cell.key.group, cell.key.epoch), cell)
            if kept is not cell:
                _add(kept.counts, cell.counts)
                del self._cells[cell.key]


class Account:
    """The books of one connection.

    Args:
        books: of its edge.
        connection: its name.
    """

    def __init__(self, books: Books, connection: str) -> None:
        self._books = books
        self.connection = connection

    def cell(self, group: str) -> Cell:
        """The cell of a group into which a reading goes that comes now."""
        return self._books.cell(self.connection, group)

    def doubt(self) -> None:
        """Whether the log has the last frame is unknown: count what follows in new cells."""
        self._books.begin_epoch()


def _written(cell: Cell) -> PageCell:
    key = cell.key
    counts = EdgeCounts(
        **{name: getattr(cell.counts, name) for name in EdgeCounts.__struct_fields__}
    )
    counts.final = cell.final
    return PageCell(
        connection=key.connection,
        group=key.group,
        minute_us=key.minute_us,
        epoch=key.epoch,
        counts=counts,
    )


def _add(to: EdgeCounts, other: EdgeCounts) -> None:
    for name in EdgeCounts.__struct_fields__:
        if name not in ("last_sequence", "final"):
            setattr(to, name, getattr(to, name) + getattr(other, name))
