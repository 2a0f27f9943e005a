"""The log as the evaluation takes it: what is on time at once, what is late a moment later.

Inputs of one poll come a little apart. What is on time meets by itself, since results follow the time
:data:`SETTLE_US` behind; what is late is held for as long, so that its inputs meet too.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from headrace.bus import envelope
from headrace.bus.client import Bus
from headrace.bus.log import LogMessage, LogReader
from headrace.bus.subjects import APPS_EDGE, parse_batch
from headrace.model.errors import Corrupt
from headrace.model.sample import Int64Array, concat_batches, empty_batch, microseconds
from headrace.model.time import Clock

SETTLE_US: Final = 200_000
HELD_ROWS_MAX: Final = 500_000


class Held(NamedTuple):
    """Late samples that wait.

    Attributes:
        since_us: when they were read. sequence: of their message.
    """

    since_us: int
    sequence: int
    batch: pl.DataFrame


class Taken(NamedTuple):
    """What one turn brought.

    Attributes:
        batch: samples to evaluate. known_us: source time up to which everything that was on time
            is known. arrived: (newest source time, first arrival at an edge) of each message.
        late: rows of the batch that came late, as (tag_id, source time). late_sequence: of the first
            message that they are of; 0 when there are none.
    """

    batch: pl.DataFrame
    known_us: int
    arrived: list[tuple[int, int]]
    late: pl.DataFrame
    late_sequence: int


class Feed:
    """Follows the log for the samples of some tags.

    Args:
        bus: open.
        after_sequence: what is known already.
        tag_ids: sorted, int64, shape (n,): tags that some formula reads.
        clock: wall-clock; results follow it.
        own: in whose name our own results come.

    Attributes:
        samples: how many were taken. corrupt: messages that could not be read, which the historian
            puts aside.
    """

    def __init__(
        self,
        bus: Bus,
        after_sequence: int,
        tag_ids: Int64Array,
        clock: Clock,
        own: str = APPS_EDGE,
    ) -> None:
        self._own = own
        self._log = LogReader(bus, after_sequence)
        self._tag_ids = tag_ids
        self._clock = clock
        self._held: deque[Held] = deque()  # bounded by HELD_ROWS_MAX and by time
        self._held_rows = 0
        self._known_us = 0
        self.samples = 0
        self.corrupt = 0

    @property
    def sequence(self) -> int:
        """Every message up to it was given out."""
        held = self._held[0].sequence if self._held else self._log.next_sequence
        return held - 1

    @property
    def lost(self) -> list[tuple[int, int]]:
        """Ranges of messages that the log had no more; see :class:`LogReader`."""
        return self._log.lost

    async def turn(self, wait_s: float, done_us: int) -> Taken:
        """What is there now, waiting for it ``wait_s`` at most.

        Args:
            done_us: source time up to which results are out: what is older is late.

        Raises:
            Transient: BUS-1032 when the broker is away; call again.
        """
        messages = await self._log.next(wait_s)
        now_us = self._clock.now_us()
        await self._know(messages, now_us)
        batches, arrived = [], []
        for message in messages:
            batch = self.wanted(message)
            if batch.height:
                newest_us = int(microseconds(batch["source_timestamp"]).max())
                arrived.append((newest_us, int(microseconds(batch["received_timestamp"]).min())))
                batches.append(self._hold_late(batch, message.sequence, now_us, done_us))
        first = self._held[0].sequence if self._held else 0
        late = self._settled(now_us)
        self.samples += sum(batch.height for batch in batches) + late.height
        return Taken(
            concat_batches([*batches, late]),
            self._known_us - SETTLE_US,
            arrived,
            late.select(_IDENTITY),
            first if late.height else 0,
        )

    async def _know(self, messages: list[LogMessage], now_us: int) -> None:
        """Up to when everything that was on time was read: that of the newest message, or now when the
        log has no more. Nothing that comes is not nothing that is there: the broker may be slow."""
        if messages:
            self._known_us = max(self._known_us, min(messages[-1].at_us, now_us))
        elif await self._log.has_all():
            self._known_us = max(self._known_us, now_us)

    def wanted(self, message: LogMessage) -> pl.DataFrame:
        """The samples of a message that somebody reads; none of our own."""
        try:
            if parse_batch(message.subject)[2] == self._own:
                return empty_batch()
            batch = envelope.decode(message.body)
        except Corrupt:
            self.corrupt += 1
            return empty_batch()
        read = np.isin(batch["tag_id"].to_numpy(), self._tag_ids)
        return batch if read.all() else batch.filter(pl.Series(read))

    async def close(self) -> None:
        """Give the log back."""
        await self._log.close()

    def _hold_late(
        self, batch: pl.DataFrame, sequence: int, now_us: int, done_us: int
    ) -> pl.DataFrame:
        """Put the late samples aside; gives the others."""
        late = microseconds(batch["source_timestamp"]) < done_us
        if not late.any():
            return batch
        held = batch.filter(pl.Series(late))
        self._held.append(Held(now_us, sequence, held))
        self._held_rows += held.height
        return batch.filter(pl.Series(~late))

    def _settled(self, now_us: int) -> pl.DataFrame:
        """Late samples that have waited long enough, or are many."""
        batches = []
        while self._held and (
            self._held_rows > HELD_ROWS_MAX or not 0 <= now_us - self._held[0].since_us < SETTLE_US
        ):
            held = self._held.popleft()
            self._held_rows -= held.batch.height
            batches.append(held.batch)
        return concat_batches(batches)


_IDENTITY: Final = ("tag_id", "source_timestamp")
