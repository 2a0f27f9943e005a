"""What a server's history holds of the time that we missed (OPC 10000-11, 6.5.3)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Final

import numpy as np
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from headrace.edge.connectors.opcua.decode import NO_TIME, Values, decode_history_data
from headrace.edge.connectors.opcua.samples import TagTable
from headrace.edge.connectors.opcua.session import Session
from headrace.edge.connectors.opcua.subscription import resolve
from headrace.model.desired import TagConfig
from headrace.model.time import to_datetime

NODES_PER_CALL: Final = 20
VALUES_PER_NODE: Final = 5_000
OVERLAP_US: Final = 2_000_000
"""Tags of one connection end at different times; doubles are the same sample and count once."""
CLOCK_AHEAD_US: Final = 86_400_000_000
"""A server's clock may be ahead of ours: its newest history lies in our future."""


@dataclass
class _Wanted:
    node_id: ua.NodeId
    handle: int
    since_us: int
    continuation: bytes | None = None
    is_known: bool = False


class HistoryReader:
    """Raw history since a time, page by page; nodes without history are passed over.

    When nothing is durable (``since_us`` is 0), ``first_us`` says by the edge's clock since when it
    should be: a history that the server began after that is taken whole, whatever its source times
    are; of an older one, what came since.
    """

    def __init__(self, session: Session, table: TagTable, since_us: int, first_us: int = 0) -> None:
        self._session = session
        self._table = table
        self.since_us = since_us
        self._first_us = first_us
        self._until_us = 0
        self._wanted: deque[_Wanted] = deque()  # bounded by the number of tags
        self.refused = 0
        self.read = 0

    async def start(self, tags: tuple[TagConfig, ...], until_us: int) -> None:
        """Ask for these tags, up to the time when the subscription began."""
        resolved = await resolve(self._session, tags)
        self._until_us = until_us + CLOCK_AHEAD_US
        since_us = max(0, self.since_us - OVERLAP_US)
        for target, node_id in resolved.targets:
            self._wanted.append(_Wanted(node_id, self._table.add((target,)), since_us))

    @property
    def is_done(self) -> bool:
        """True when there is nothing more to ask for."""
        return not self._wanted

    async def next(self) -> list[Values]:
        """The next page of up to 20 nodes."""
        # They leave the queue only with their answer: a read may be cancelled while it waits.
        since_us = self._wanted[0].since_us
        ahead = islice(self._wanted, NODES_PER_CALL)
        part = list(takewhile(lambda wanted: wanted.since_us == since_us, ahead))
        results = await self._session.in_batches("HistoryRead", part, self._ask, NODES_PER_CALL)
        for _ in part:
            self._wanted.popleft()
        pages: list[Values] = []
        for wanted, result in zip(part, results, strict=True):
            if not result.StatusCode.is_good():
                self.refused += 1
                continue
            values = _values(result.HistoryData)
            if self._is_older(wanted, values):
                await self._give_back(wanted.node_id, result.ContinuationPoint)
                wanted.since_us = max(0, self._first_us - OVERLAP_US)
                self._wanted.append(wanted)
                continue
            values.handle = np.full(len(values), wanted.handle, np.uint32)
            self.read += len(values)
            pages.append(values)
            if result.ContinuationPoint:
                wanted.continuation = result.ContinuationPoint
                self._wanted.append(wanted)
        return pages

    def _is_older(self, wanted: _Wanted, values: Values) -> bool:
        """Whether a node's first page shows a history from before our first session."""
        if self.since_us or wanted.is_known or not len(values):
            return False
        wanted.is_known = True
        stored_us = int(values.server_us[0])
        began_us = int(values.source_us[0]) if stored_us == NO_TIME else stored_us
        return began_us < self._first_us - OVERLAP_US

    async def _give_back(self, node_id: ua.NodeId, continuation: bytes | None) -> None:
        """Free a continuation point; a server has few of them for a session."""
        if not continuation:
            return
        request = ua.HistoryReadRequest()
        request.Parameters.HistoryReadDetails = ua.ReadRawModifiedDetails()
        request.Parameters.ReleaseContinuationPoints = True
        request.Parameters.NodesToRead = [
            ua.HistoryReadValueId(NodeId=node_id, ContinuationPoint=continuation)
        ]
        await self._session.call(request, ua.HistoryReadResponse)

    async def _ask(self, part: list[_Wanted]) -> list[ua.HistoryReadResult]:
        request = ua.HistoryReadRequest()
        request.Parameters.HistoryReadDetails = ua.ReadRawModifiedDetails(
            IsReadModified=False,
            StartTime=to_datetime(part[0].since_us),
            EndTime=to_datetime(self._until_us),
            NumValuesPerNode=VALUES_PER_NODE,
            ReturnBounds=False,
        )
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.NodesToRead = [
            ua.HistoryReadValueId(NodeId=w.node_id, ContinuationPoint=w.continuation) for w in part
        ]
        return (await self._session.call(request, ua.HistoryReadResponse)).Results or []


def _values(data: object) -> Values:
    """Columns of a HistoryData; asyncua has split it already, so it is joined once more."""
    if isinstance(data, ua.ExtensionObject):
        return decode_history_data(data.Body or b"\0\0\0\0")
    return decode_history_data(struct_to_binary(data))
