"""What a server's history holds of the time that we missed (OPC 10000-11, 6.5.3)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from headrace.edge.connectors.opcua.decode import Values, decode_history_data
from headrace.edge.connectors.opcua.samples import TagTable
from headrace.edge.connectors.opcua.session import Session
from headrace.edge.connectors.opcua.subscription import resolve
from headrace.model.desired import TagConfig
from headrace.model.time import to_datetime

NODES_PER_CALL: Final = 20
VALUES_PER_NODE: Final = 5_000
OVERLAP_US: Final = 2_000_000
"""Tags of one connection end at different times; doubles are the same sample and count once."""


@dataclass
class _Wanted:
    node_id: ua.NodeId
    handle: int
    continuation: bytes | None = None


class HistoryReader:
    """Raw history since a time, page by page; nodes without history are passed over."""

    def __init__(self, session: Session, table: TagTable, since_us: int) -> None:
        self._session = session
        self._table = table
        self._since_us = since_us
        self._until_us = 0
        self._wanted: deque[_Wanted] = deque()  # bounded by the number of tags
        self.refused = 0
        self.read = 0

    async def start(self, tags: tuple[TagConfig, ...], until_us: int) -> None:
        """Ask for these tags, up to the time when the subscription began."""
        resolved = await resolve(self._session, tags)
        self._until_us = until_us
        for target, node_id in resolved.targets:
            self._wanted.append(_Wanted(node_id, self._table.add((target,))))

    @property
    def is_done(self) -> bool:
        """True when there is nothing more to ask for."""
        return not self._wanted

    async def next(self) -> list[Values]:
        """The next page of up to 20 nodes."""
        part = [self._wanted.popleft() for _ in range(min(NODES_PER_CALL, len(self._wanted)))]
        results = await self._session.in_batches("HistoryRead", part, self._ask, NODES_PER_CALL)
        pages: list[Values] = []
        for wanted, result in zip(part, results, strict=True):
            if not result.StatusCode.is_good():
                self.refused += 1
                continue
            values = _values(result.HistoryData)
            values.handle = np.full(len(values), wanted.handle, np.uint32)
            self.read += len(values)
            pages.append(values)
            if result.ContinuationPoint:
                wanted.continuation = result.ContinuationPoint
                self._wanted.append(wanted)
        return pages

    async def _ask(self, part: list[_Wanted]) -> list[ua.HistoryReadResult]:
        request = ua.HistoryReadRequest()
        request.Parameters.HistoryReadDetails = ua.ReadRawModifiedDetails(
            IsReadModified=False,
            StartTime=to_datetime(max(0, self._since_us - OVERLAP_US)),
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
