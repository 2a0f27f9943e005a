"""Results on their way into the log: one lane an asset type, with the guarantees and books of an edge.

A result is a sample like any other: its identity is (tag_id, source time), and of two the one counts that
was given later. So each batch gets a receive time after all that were given before, also over restarts
and over a clock that was set back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from headrace.bus.client import Bus
from headrace.bus.subjects import Subjects, apps_edge
from headrace.edge.books import Books
from headrace.edge.ledger import LedgerTeller
from headrace.edge.publisher import Lane, Standing
from headrace.formula.bound import Bound
from headrace.model.errors import HeadraceError
from headrace.model.knowledge import connection_of
from headrace.model.ledger import DERIVED_GROUP, RECOMPUTED_GROUP
from headrace.model.sample import Int64Array, make_batch
from headrace.model.tasks import end_tasks
from headrace.model.time import Clock

DRAIN_S: Final = 2.0
TELL_S: Final = 1.0
LATENCIES_MAX: Final = 1_000

Trouble = Callable[[str, HeadraceError | None], None]
"""(asset type, why the log takes nothing; None when it does again)."""


@dataclass
class _Way:
    lane: Lane
    task: asyncio.Task[None]
    offered: int = 0


@dataclass
class _Waiting:
    """Results whose way into the log is timed."""

    mark: Mapping[str, int]
    arrived_us: list[int] = field(default_factory=list)


class Outlet:
    """Gives results to the log.

    Args:
        bus: open. subjects: of the site.
        clock: gives receive times.
        received_us: no result was given a later receive time than this.
        edge: on whose machine; empty: on the platform.
        on_trouble: told once when the log stops taking frames of a type and once when it takes them
            again.

    Attributes:
        results: samples given. latencies_us: of the last frames; see :class:`AppsState`.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        clock: Clock,
        received_us: int,
        on_trouble: Trouble,
        *,
        edge: str = "",
    ) -> None:
        self._name = apps_edge(edge)
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._on_trouble = on_trouble
        self._books = Books(self._name, clock)
        self._teller = LedgerTeller(bus, subjects, self._books)
        self._ways: dict[str, _Way] = {}
        self._timed: deque[_Waiting] = deque(maxlen=LATENCIES_MAX)
        self.latencies_us: deque[int] = deque(maxlen=LATENCIES_MAX)
        self.received_us = received_us
        self.results = 0

    async def begin(self) -> None:
        """Open the books; waits for the broker as long as it takes."""
        await self._teller.begin()

    async def keep_books(self) -> None:
        """Tell the books each second, for ever."""
        while True:
            await asyncio.sleep(TELL_S)
            await self._teller.tell(())

    def stamp(self) -> int:
        """A receive time after every one that was given before."""
        self.received_us = max(self._clock.now_us(), self.received_us + 1)
        return self.received_us

    async def give(
        self, results: Sequence[tuple[Bound, pl.DataFrame]], *, recomputed: bool
    ) -> None:
        """Give results to the log, those of one asset type together; waits while it is too far behind.

        Args:
            results: rows with the columns of :data:`headrace.formula.evaluate.SCHEMA`; no identity in
                two of them.
            recomputed: they are of a time whose results were out already.
        """
        by_type: dict[str, list[tuple[Bound, pl.DataFrame]]] = {}
        for bound, rows in results:
            if rows.height:
                by_type.setdefault(bound.key.rpartition(".")[0], []).append((bound, rows))
        for asset_type, parts in by_type.items():
            way = self._way(asset_type)
            await way.lane.room()
            tag_id = np.concatenate([b.outputs[rows["asset"].to_numpy()] for b, rows in parts])
            rows = pl.concat([rows for _, rows in parts], rechunk=True)
            batch = samples_of(tag_id, rows, self.stamp())
            connection = connection_of(asset_type)
            cell = self._books.cell(connection, RECOMPUTED_GROUP if recomputed else DERIVED_GROUP)
            cell.take(batch.height, int((batch["status"].to_numpy() >= 1 << 31).sum()))
            way.offered += batch.height
            self.results += batch.height
            way.lane.offer(batch, cell=cell)

    def mark(self) -> Mapping[str, int]:
        """What was given up to now, for :meth:`has`."""
        return {asset_type: way.offered for asset_type, way in self._ways.items()}

    def has(self, mark: Mapping[str, int]) -> bool:
        """Whether the log has all that was given up to a mark."""
        return all(self._ways[name].lane.published >= offered for name, offered in mark.items())

    async def flush(self) -> None:
        """Wait until the log has all that was given, as long as it takes."""
        for way in self._ways.values():
            while way.lane.buffered:
                await way.lane.drain(DRAIN_S)

    def time(self, arrived_us: list[int]) -> None:
        """Measure how long samples that came at these times took until the log has what was given
        for them."""
        if arrived_us:
            self._timed.append(_Waiting(self.mark(), arrived_us))

    def take_times(self) -> None:
        """Note what has reached the log since the last call."""
        now_us = self._clock.now_us()
        while self._timed and self.has(self._timed[0].mark):
            self.latencies_us.extend(now_us - at_us for at_us in self._timed.popleft().arrived_us)

    def standing(self, asset_type: str) -> Standing | None:
        """How the way of one type does; None when nothing was given on it yet."""
        way = self._ways.get(asset_type)
        return way.lane.standing() if way is not None else None

    @property
    def buffered(self) -> int:
        """Results that the log does not have yet."""
        return sum(way.lane.buffered for way in self._ways.values())

    async def end(self) -> None:
        """Give the log what is left, for at most two seconds, and close the books."""
        for way in self._ways.values():
            await way.lane.drain(DRAIN_S)
            await end_tasks(way.task)
            way.lane.abandon()
        await self._teller.end()

    def _way(self, asset_type: str) -> _Way:
        found = self._ways.get(asset_type)
        if found is None:
            connection = connection_of(asset_type)
            lane = Lane(
                self._bus,
                self._subjects.batch(self._name, connection),
                edge=self._name,
                connection=connection,
                epoch=self._books.epoch,
                on_trouble=lambda error: self._on_trouble(asset_type, error),
            )
            found = self._ways[asset_type] = _Way(lane, asyncio.create_task(lane.run()))
        return found


def samples_of(tag_id: Int64Array, rows: pl.DataFrame, received_us: int) -> pl.DataFrame:
    """Results as samples.

    Args:
        tag_id: of each row's derived tag.
        rows: columns of :data:`headrace.formula.evaluate.SCHEMA`.

    Example:
        >>> from headrace.formula.evaluate import SCHEMA
        >>> rows = pl.DataFrame([(1, 5, 2.5, None, 0)], schema=SCHEMA, orient="row")
        >>> samples_of(np.array([8]), rows, 9)["tag_id"].to_list()
        [8]
    """
    value = rows["value"]
    return make_batch(
        tag_id,
        rows["at_us"].to_numpy(),
        value.fill_null(float("nan")).to_numpy(),
        status=rows["status"].to_numpy(),
        received_timestamp_us=received_us,
        text=rows["text"] if rows["text"].null_count() < rows.height else None,
        value_is_null=np.asarray(value.is_null().to_numpy()),
    )
