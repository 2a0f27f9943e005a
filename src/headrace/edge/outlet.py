"""The way of what a connection read: to the log, to this edge's own log, or out encrypted.

Between host and lanes: everything that a host reads or marks passes here, and what a protection keeps back
is kept back here, before any frame is made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import polars as pl

from headrace.edge.books import Cell
from headrace.edge.local_log import LocalLog
from headrace.edge.protection import Protection
from headrace.edge.publisher import LANE_ROWS_MAX, FramePublisher, Lane
from headrace.model.desired import ProtectionRule
from headrace.model.errors import HeadraceError
from headrace.security.frames import FrameKey

Acknowledge = Callable[[], Awaitable[None]]
Marked = Callable[[pl.DataFrame], None]


class SealingPublisher:
    """Publishes frames encrypted; a lane in front of it frames, repeats and acknowledges as ever.

    Args:
        bus: where frames go. load: finds the tenant's key; it may raise, then nothing goes out.
    """

    def __init__(self, bus: FramePublisher, load: Callable[[], FrameKey]) -> None:
        self._bus = bus
        self._load = load
        self._key: FrameKey | None = None

    async def publish_frame(self, subject: str, body: bytes, headers: dict[str, str]) -> int:
        """Encrypt a frame and publish it.

        Raises:
            Misconfigured: SEC-1532 when the key is not on this machine.
            Transient, Refused: what the bus raises.
        """
        if self._key is None:
            self._key = self._load()
        return await self._bus.publish_frame(subject, self._key.seal(body, subject), headers)


class Outlet:
    """The ways out of one connection.

    Args:
        lane: to the log.
        rules: protection of its tags.
        local: makes the log of what stays.
        sealed: rule's name -> lane of encrypted frames.
        trouble: told when what stays cannot be kept, with None when it can again.
    """

    def __init__(
        self,
        lane: Lane,
        rules: tuple[ProtectionRule, ...] = (),
        *,
        local: Callable[[int], LocalLog] | None = None,
        sealed: Mapping[str, Lane] | None = None,
        trouble: Callable[[HeadraceError | None], None] = lambda error: None,
    ) -> None:
        self.lane = lane
        self.sealed = dict(sealed or {})
        self.protection = Protection(rules)
        self.overflown = 0
        self._make_local = local
        self._local: LocalLog | None = None
        self._trouble = trouble
        self._in_trouble = False

    def offer(
        self,
        batch: pl.DataFrame,
        now_us: int,
        acknowledge: Acknowledge | None = None,
        *,
        waits: bool = False,
        resume_us: int | None = None,
        cell: Cell,
        marked: Marked,
    ) -> int:
        """Take what was read; gives how many samples a protection kept back.

        Args:
            cell: of the books.
            marked: takes samples of our own that go to the log: aggregates.
        """
        split = self.protection.split(batch, now_us)
        if split.kept is not None:
            self._keep(split.kept)
        lanes = {name: part for name, part in split.sealed.items() if self._has_room(name, part)}
        if acknowledge is not None and lanes:
            acknowledge = _Together(acknowledge, 1 + len(lanes)).one
        for name, part in lanes.items():
            self.sealed[name].offer(part, acknowledge, waits=waits, resume_us=resume_us)
        self.lane.offer(split.open, acknowledge, waits=waits, resume_us=resume_us, cell=cell)
        if split.aggregates is not None:
            marked(split.aggregates)
        cell.counts.protected += split.protected
        return split.protected

    def mark(self, batch: pl.DataFrame, cell: Cell) -> pl.DataFrame:
        """Give marks of our own to the log, those that may leave; gives these."""
        told = self.protection.marks(batch)
        if told.height:
            self.lane.offer(told, cell=cell)
        return told

    def _has_room(self, name: str, part: pl.DataFrame) -> bool:
        lane = self.sealed.get(name)
        has_room = lane is not None and lane.buffered + part.height <= LANE_ROWS_MAX
        self.overflown += 0 if has_room else part.height
        return has_room

    def _keep(self, batch: pl.DataFrame) -> None:
        if self._make_local is None:
            return
        keep_bytes = max((rule.keep_bytes for rule in self.protection.rules), default=0)
        try:
            if self._local is None:
                self._local = self._make_local(keep_bytes)
            self._local.keep(batch)
        except HeadraceError as error:
            self._tell(error)
        else:
            self._tell(None)

    def _tell(self, error: HeadraceError | None) -> None:
        if (error is not None) != self._in_trouble:
            self._in_trouble = error is not None
            self._trouble(error)


class _Together:
    """Acknowledges once all parts of a reading are durable."""

    def __init__(self, acknowledge: Acknowledge, parts: int) -> None:
        self._acknowledge = acknowledge
        self._parts = parts

    async def one(self) -> None:
        self._parts -= 1
        if self._parts == 0:
            await self._acknowledge()
