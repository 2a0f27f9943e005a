"""From the edge to the log: frames, sequence, retry, acknowledgement; all of it bounded.

Each connection has a lane. A lane publishes at once after a quiet 100 ms, else it collects batches for
at most 100 ms or 10,000 samples; it gives the
frame the next sequence number, and publishes it under one id until the log has it on disk. Then, and
only then, it acknowledges to the source. One frame is in flight per lane, so a lane keeps its order;
lanes do not wait for each other.

Each frame names the cells of the loss ledger that its rows are of (:mod:`headrace.edge.books`), and how
much of them earlier frames had.

When the broker is away, lanes fill. A full lane makes its connection wait before the next read
(:meth:`Lane.room`): polls are then missed and counted, sources that keep their data keep it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import polars as pl

from headrace.bus import envelope
from headrace.edge.books import Cell
from headrace.model.errors import HeadraceError, Misconfigured, Refused, Transient
from headrace.model.ledger import Run
from headrace.model.sample import concat_batches, microseconds

FRAME_WAIT_S: Final = 0.1
GATHER_S: Final = 0.005
LANE_ROWS_MAX: Final = 500_000
LANE_BATCHES_MAX: Final = 20_000
RUNS_MAX: Final = 128
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 2.0

Acknowledge = Callable[[], Awaitable[None]]
Trouble = Callable[[HeadraceError | None], None]


@dataclass(frozen=True)
class Standing:
    """How a lane does now.

    Attributes:
        buffered: samples that the log does not have yet.
        waiting_s: for how long the oldest of them has been; None when there are none.
        acknowledged_s: how long ago the log took the last frame; None never.
        trouble: why the log takes nothing now; None when it does.
    """

    buffered: int
    waiting_s: float | None
    acknowledged_s: float | None
    trouble: HeadraceError | None


@dataclass(frozen=True)
class _Offer:
    batch: pl.DataFrame
    acknowledge: Acknowledge | None
    resume_us: int | None
    cell: Cell | None


class FramePublisher(Protocol):
    """The one call of the bus that a lane needs."""

    async def publish_frame(self, subject: str, body: bytes, headers: dict[str, str]) -> int: ...


class Lane:
    """The way of one connection into the log.

    Args:
        bus: where frames go.
        subject: the connection's batch subject.
        edge, connection, epoch: make the frames' ids; see :mod:`headrace.bus.envelope`.
        on_trouble: told once when the log stops taking frames (with the error) and once when it
            takes them again (with None).
    """

    def __init__(
        self,
        bus: FramePublisher,
        subject: str,
        *,
        edge: str,
        connection: str,
        epoch: int,
        on_trouble: Trouble,
    ) -> None:
        self._bus = bus
        self._subject = subject
        self._edge = edge
        self._connection = connection
        self._epoch = epoch
        self._on_trouble = on_trouble
        self._sequence = 0
        self._framed_s = float("-inf")
        self._waiting: deque[_Offer] = deque()  # bounded by room()
        self._rows = 0
        self._in_flight = 0
        self._flying: list[tuple[Cell, int]] = []
        self._unclosed: dict[Cell, None] = {}
        self._filled = asyncio.Event()
        self._full_frame = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self.published = 0
        self.unacknowledged = 0
        self.durable_us = 0
        self._trouble: HeadraceError | None = None
        self._acknowledged_s: float | None = None
        self._waits_since_s: float | None = None

    def standing(self) -> Standing:
        """How the lane does now."""
        now_s = asyncio.get_running_loop().time()
        since_s, acknowledged_s = self._waits_since_s, self._acknowledged_s
        return Standing(
            buffered=self.buffered,
            waiting_s=None if since_s is None else now_s - since_s,
            acknowledged_s=None if acknowledged_s is None else now_s - acknowledged_s,
            trouble=self._trouble,
        )

    @property
    def buffered(self) -> int:
        """Samples that the log does not have yet."""
        return self._rows + self._in_flight

    async def room(self) -> None:
        """Wait until the lane can take another reading."""
        await self._has_room.wait()

    def offer(
        self,
        batch: pl.DataFrame,
        acknowledge: Acknowledge | None = None,
        *,
        waits: bool = False,
        resume_us: int | None = None,
        cell: Cell | None = None,
    ) -> None:
        """Take a batch; call :meth:`room` before reading the next one.

        Args:
            waits: the source shows nothing new before it is acknowledged; publish at once.
            resume_us: see :class:`headrace.edge.contract.Reading`.
            cell: of the loss ledger; None for samples that nobody keeps books of.
        """
        if batch.height == 0 and acknowledge is None:
            return
        if self._waits_since_s is None:
            self._waits_since_s = asyncio.get_running_loop().time()
        self._waiting.append(_Offer(batch, acknowledge, resume_us, cell))
        if cell is not None:
            cell.buffer(batch.height)
        self._rows += batch.height
        self._empty.clear()
        self._filled.set()
        if waits or self._rows >= envelope.FRAME_ROWS_MAX:
            self._full_frame.set()
        if not self._fits():
            self._has_room.clear()

    async def run(self) -> None:
        """Publish for ever; cancel to stop (:meth:`drain` first, to lose nothing)."""
        while True:
            await self._filled.wait()
            try:
                # Not wait_for: in Python 3.11 it may swallow the cancel that stops this lane.
                async with asyncio.timeout(self._gather_s()):
                    await self._full_frame.wait()
            except TimeoutError:
                pass
            self._framed_s = now_s = asyncio.get_running_loop().time()
            offers = self._next_frame()
            batch = concat_batches([offer.batch for offer in offers if offer.batch.height])
            if batch.height:
                runs = self._runs(offers)
                await self._publish(batch, _resume_us(offers) or self.durable_us, runs)
            await self._acknowledge([o.acknowledge for o in offers if o.acknowledge is not None])
            # What came while this frame was on its way waits since it was framed, at the longest.
            self._waits_since_s = now_s if self._waiting else None
            if not self._waiting:
                self._empty.set()

    async def drain(self, timeout_s: float) -> int:
        """Wait until the log has everything, at most ``timeout_s``; gives what was left over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            pass
        return self.buffered

    def abandon(self) -> tuple[int, int]:
        """Give up what is left, once :meth:`run` is cancelled.

        Returns:
            Samples that never left, and samples of a frame that the log may have or not.
        """
        in_doubt, waiting = self._in_flight, self._rows
        for cell, rows in self._flying:
            cell.drop(rows, in_doubt=True)
        for offer in self._waiting:
            if offer.cell is not None:
                offer.cell.drop(offer.batch.height, in_doubt=False)
        self._flying, self._in_flight, self._rows = [], 0, 0
        self._waiting.clear()
        return waiting, in_doubt

    def _gather_s(self) -> float:
        """How long to wait for a fuller frame: hardly, when the lane was quiet, so that a single value
        is live; else until :data:`FRAME_WAIT_S` after the last frame, since each one is a disk sync."""
        passed_s = asyncio.get_running_loop().time() - self._framed_s
        return max(FRAME_WAIT_S - passed_s, GATHER_S)

    def _fits(self) -> bool:
        return self._rows < LANE_ROWS_MAX and len(self._waiting) < LANE_BATCHES_MAX

    def _next_frame(self) -> list[_Offer]:
        offers: list[_Offer] = []
        rows = 0
        runs, last = 0, None
        while self._waiting and rows < envelope.FRAME_ROWS_MAX:
            runs += self._waiting[0].cell is not last
            if runs > RUNS_MAX:
                break
            offers.append(self._waiting.popleft())
            last = offers[-1].cell
            rows += offers[-1].batch.height
        self._flying = [(o.cell, o.batch.height) for o in offers if o.cell is not None]
        self._rows -= rows
        self._in_flight = rows
        # A frame that is full of runs, not of rows, leaves more that need not wait.
        if self._rows < envelope.FRAME_ROWS_MAX and runs <= RUNS_MAX:
            self._full_frame.clear()
        if not self._waiting:
            self._filled.clear()
        if self._fits():
            self._has_room.set()
        return offers

    async def _acknowledge(self, acknowledges: list[Acknowledge]) -> None:
        for acknowledge in acknowledges:
            try:
                await acknowledge()
            except HeadraceError:
                # The source is gone before it heard us; it gives the same samples again, and the
                # historian stores a sample once.
                self.unacknowledged += 1

    def _runs(self, offers: list[_Offer]) -> list[Run]:
        """The cells of a frame's rows, and the totals of those that are over since the last frame."""
        if any(offer.cell is None for offer in offers):
            return []
        sent: dict[Cell, int] = {}
        runs: list[Run] = []
        for cell, rows in self._flying:
            if not rows:
                continue
            before = cell.counts.published + sent.get(cell, 0)
            sent[cell] = sent.get(cell, 0) + rows
            if runs and _is_of(runs[-1], cell):
                runs[-1] = runs[-1]._replace(rows=runs[-1].rows + rows)
            else:
                runs.append(_run(cell, before, rows))
        over = [cell for cell in self._unclosed if cell.final and cell not in sent]
        for cell in over[:RUNS_MAX]:
            runs.append(_run(cell, cell.counts.published, 0))
            del self._unclosed[cell]
        self._unclosed.update(dict.fromkeys(sent))
        return runs

    async def _publish(self, batch: pl.DataFrame, resume_us: int, runs: list[Run]) -> None:
        self._sequence += 1
        body = envelope.encode(batch)
        headers = envelope.headers(
            self._edge,
            self._connection,
            self._epoch,
            self._sequence,
            batch.height,
            resume_us=resume_us,
            runs=runs,
        )
        wait_s = RETRY_FIRST_S
        in_trouble = False
        while True:
            try:
                in_log = await self._bus.publish_frame(self._subject, body, headers)
                break
            except (Transient, Refused, Misconfigured) as error:
                if not in_trouble:
                    self._on_trouble(error)
                    in_trouble = True
                self._trouble = error
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, RETRY_MAX_S)
        if in_trouble:
            self._on_trouble(None)
        self._trouble, self._acknowledged_s = None, asyncio.get_running_loop().time()
        self.published += batch.height
        for cell, rows in self._flying:
            cell.publish(rows, in_log)
        self._flying, self._in_flight = [], 0
        self.durable_us = resume_us


def _run(cell: Cell, before: int, rows: int) -> Run:
    return Run(cell.key.epoch, cell.key.minute_us, cell.key.group, before, rows)


def _is_of(run: Run, cell: Cell) -> bool:
    return run[:3] == (cell.key.epoch, cell.key.minute_us, cell.key.group)


def _resume_us(offers: list[_Offer]) -> int:
    """Where to begin again after these; 0 when none of them tells (marks of a lost device)."""
    told = [offer.resume_us for offer in offers if offer.resume_us is not None]
    for offer in offers:
        if offer.resume_us is None:
            good = offer.batch["status"].to_numpy() < 1 << 30
            if good.any():
                told.append(int(microseconds(offer.batch["source_timestamp"])[good].min()))
    return max(min(told), 0) if told else 0
