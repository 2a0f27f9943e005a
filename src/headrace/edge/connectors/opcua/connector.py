"""One session's life: connect, follow the tags, give what changed, write, browse, close."""

from __future__ import annotations

import asyncio
from typing import Final

import numpy as np
import polars as pl

from headrace.edge.connectors.opcua.browse import browse
from headrace.edge.connectors.opcua.decode import NO_TIME, Undecodable, Values
from headrace.edge.connectors.opcua.history import HistoryReader
from headrace.edge.connectors.opcua.options import OpcUaOptions
from headrace.edge.connectors.opcua.poll import Poller
from headrace.edge.connectors.opcua.samples import TagTable
from headrace.edge.connectors.opcua.session import DRIVER_ERRORS, Session
from headrace.edge.connectors.opcua.subscription import Failure, Subscription
from headrace.edge.connectors.opcua.write import write
from headrace.edge.contract import BrowseItem, ConnectorContext, Reading, ScanGroup
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.sample import concat_batches, empty_batch, make_batch
from headrace.model.tasks import end_tasks

HELD_MAX: Final = 1_000_000
"""Live values held back while history is read; beyond this they stay in the server's queue."""


class OpcUaConnector:
    """See :class:`headrace.edge.contract.Connector`."""

    def __init__(
        self, connection: ConnectionConfig, options: OpcUaOptions, context: ConnectorContext
    ) -> None:
        self._options = options
        self._context = context
        self._session = Session(connection, options, context)
        self._table = TagTable(self._session.structures)
        self._subscription: Subscription | None = None
        self._poller: Poller | None = None
        self._history: HistoryReader | None = None
        self._held: list[Values] = []
        self._tags: tuple[TagConfig, ...] | None = None
        self._following: asyncio.Task[list[Failure]] | None = None
        self._noted_source_time = False

    async def connect(self) -> None:
        """Open channel and session; subscribe with the first read."""
        await self._session.open()

    async def read(self, group: ScanGroup) -> Reading:
        """Wait for the next changes of these tags (or, when polling, for the next poll)."""
        try:
            failures = await self._follow(group.tags)
            if failures:
                return self._failed(failures)
            return await self._next()
        except (*DRIVER_ERRORS, Undecodable) as error:
            raise self._session.explain(error, "cannot read") from error

    async def write(self, tag: TagConfig, value: float | str) -> float | str:
        """Write in the node's type and read back; see :func:`write.write`."""
        return await write(self._session, tag, value)

    async def browse(self, address: str) -> list[BrowseItem]:
        """Children of a node; see :func:`browse.browse`."""
        return await browse(self._session, address)

    async def close(self) -> None:
        """End the session; works on one that is dead or was never opened."""
        if self._following is not None:
            await end_tasks(self._following)
        if self._subscription is not None:
            await self._subscription.close()
        await self._session.close()

    async def _follow(self, tags: tuple[TagConfig, ...]) -> list[Failure]:
        """Let the server's items be these tags.

        The work is a task of its own: a read that is cancelled half-way must not leave items at the
        server that nobody knows of.
        """
        if self._following is None:
            retry = self._subscription is not None and self._subscription.retry_is_due()
            if not retry and (tags is self._tags or tags == self._tags):
                return []
            self._following = asyncio.create_task(self._change(tags))
        task = self._following
        await asyncio.wait([task])
        self._following = None
        return task.result()

    async def _change(self, tags: tuple[TagConfig, ...]) -> list[Failure]:
        first = self._tags is None
        if self._options.reading == "poll":
            if self._poller is None:
                self._poller = Poller(self._session, self._table, self._context.clock)
            failures = await self._poller.follow(tags)
        else:
            if self._subscription is None:
                self._subscription = Subscription(self._session, self._table, self._context.clock)
                await self._subscription.create()
            failures = await self._subscription.follow(tags)
        resume_us, first_us = self._context.resume_us, self._context.first_us
        if first and self._options.history_resume and (resume_us or first_us):
            self._history = HistoryReader(self._session, self._table, resume_us, first_us)
            await self._history.start(tags, self._context.clock.now_us())
        self._tags = tags
        return failures

    async def _next(self) -> Reading:
        if self._history is not None:
            return await self._next_of_history(self._history)
        notices: list[tuple[str, str]] = []
        device_time_us: int | None = None
        errors: dict[int, str] = {}
        values, self._held = self._held, []
        if values:
            return self._reading(values, notices)
        if self._poller is not None:
            values = await self._poller.next()
            for part in values:
                errors |= self._poller.errors(part)
                device_time_us = _latest(part.server_us)
        elif self._subscription is not None:
            for publish in await self._subscription.next():
                values += publish.values
                if publish.publish_time_us != NO_TIME:
                    device_time_us = publish.publish_time_us
            notices += self._subscription.take_notices()
        reading = self._reading(values, notices)
        if self._subscription is not None and (missing := self._subscription.take_missing()):
            reading.missed["gap"] = missing
        reading.tag_errors |= errors
        reading.device_time_us = device_time_us
        return reading

    async def _next_of_history(self, history: HistoryReader) -> Reading:
        """A page of history. What happens meanwhile is held back, so that time goes on in order.

        The host resumes from the newest sample that is durable: a live one before the last page would
        hide the rest of the gap from the next session.
        """
        if self._subscription is not None and sum(map(len, self._held)) < HELD_MAX:
            for publish in await self._subscription.next(wait=False):
                self._held += publish.values
        reading = self._reading(await history.next(), [])
        # Nodes come to different times page by page: a kill before the last page begins it anew.
        reading.resume_us = history.since_us
        if history.is_done:
            reading.resume_us = None
            self._history = None
            text = f"{history.read} samples came from the server's history"
            if history.refused:
                text += f"; {history.refused} nodes have none"
            reading.notices = (*reading.notices, ("EDGE-2018", text))
        return reading

    def _reading(self, values: list[Values], notices: list[tuple[str, str]]) -> Reading:
        received_us = self._context.clock.now_us()
        batches: list[pl.DataFrame] = []
        errors: dict[int, str] = {}
        overflows = without_time = expected = 0
        for part in values:
            samples = self._table.samples(part, received_us)
            batches.append(samples.batch)
            errors |= samples.tag_errors
            overflows += samples.overflows
            without_time += samples.without_source_time
            expected += samples.batch.height
        if overflows:
            notices.append(
                ("EDGE-2011", f"the server's queue dropped values of {overflows} samples' tags")
            )
        if without_time and not self._noted_source_time:
            self._noted_source_time = True
            notices.append(
                ("EDGE-2017", "the server sends values without source time; its own time is taken")
            )
        return Reading(
            batch=concat_batches(batches),
            expected=expected,
            tag_errors=errors,
            notices=tuple(notices),
            missed={"device": overflows} if overflows else {},
        )

    def _failed(self, failures: list[Failure]) -> Reading:
        """One sample without value for each tag that the server refuses."""
        now_us = self._context.clock.now_us()
        n = len(failures)
        batch = make_batch(
            np.array([failure.tag.tag_id for failure in failures], np.int64),
            np.full(n, now_us, np.int64),
            np.zeros(n, np.float64),
            status=np.array([failure.status for failure in failures], np.uint32),
            received_timestamp_us=now_us,
            value_is_null=np.ones(n, np.bool_),
        )
        return Reading(
            batch=batch if n else empty_batch(),
            expected=n,
            tag_errors={failure.tag.tag_id: failure.why for failure in failures},
        )


def _latest(times_us: np.ndarray[tuple[int], np.dtype[np.int64]]) -> int | None:
    known = times_us[times_us != NO_TIME]
    return int(known.max()) if known.size else None
