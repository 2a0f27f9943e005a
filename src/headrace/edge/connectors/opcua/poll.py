"""Batched Reads at each tag's own interval, for servers without subscriptions (OPC 10000-4, 5.11.2)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import numpy as np
from asyncua import ua

from headrace.edge.connectors.opcua.decode import Undecodable, Values, decode_read
from headrace.edge.connectors.opcua.samples import TagTable
from headrace.edge.connectors.opcua.session import Session, status_name
from headrace.edge.connectors.opcua.subscription import Failure, resolve
from headrace.model.desired import TagConfig
from headrace.model.errors import Transient
from headrace.model.time import Clock

NODES_PER_READ: Final = 500
KEEP_SESSION_S: Final = 20.0
"""Slow polls must not let the session run into its time-out of 60 s."""
_NO_NODE: Final = frozenset(
    {
        ua.StatusCodes.BadNodeIdUnknown,
        ua.StatusCodes.BadNodeIdInvalid,
        ua.StatusCodes.BadAttributeIdInvalid,
        ua.StatusCodes.BadNotReadable,
        ua.StatusCodes.BadUserAccessDenied,
    }
)


@dataclass
class _Polled:
    node_id: ua.NodeId
    handle: int


class Poller:
    """Reads tags when they are due; each interval keeps its own pace."""

    def __init__(self, session: Session, table: TagTable, clock: Clock) -> None:
        self._session = session
        self._table = table
        self._clock = clock
        self._items: dict[int, list[_Polled]] = {}
        self._due_s: dict[int, float] = {}

    async def follow(self, tags: tuple[TagConfig, ...]) -> list[Failure]:
        """Poll exactly these tags from now on."""
        resolved = await resolve(self._session, tags)
        for polled in self._items.values():
            for item in polled:
                self._table.remove(item.handle)
        self._items = {}
        for target, node_id in resolved.targets:
            handle = self._table.add((target,))
            interval_ms = max(1, target.tag.scan_interval_ms)
            self._items.setdefault(interval_ms, []).append(_Polled(node_id, handle))
        now_s = self._clock.monotonic_s()
        self._due_s = {interval: self._due_s.get(interval, now_s) for interval in self._items}
        return resolved.failures

    async def next(self) -> list[Values]:
        """Wait until tags are due, then read them.

        Raises:
            Transient: EDGE-2013 the answer cannot be read.
        """
        if not self._items:
            await asyncio.sleep(1.0)
            return []
        wait_s = min(self._due_s.values()) - self._clock.monotonic_s()
        if wait_s > KEEP_SESSION_S:
            await asyncio.sleep(KEEP_SESSION_S)
            state = ua.NodeId(ua.ObjectIds.Server_ServerStatus_State)
            await self._session.read_attributes([(state, ua.AttributeIds.Value)])
            return []
        await asyncio.sleep(max(0.0, wait_s))
        now_s = self._clock.monotonic_s()
        due = [interval for interval, at_s in self._due_s.items() if at_s <= now_s + 0.001]
        items: list[_Polled] = []
        for interval in due:
            items += self._items[interval]
            step_s = interval / 1000
            missed = max(0, int((now_s - self._due_s[interval]) / step_s))
            self._due_s[interval] += (missed + 1) * step_s
        parts: list[Values] = []

        async def read(part: list[_Polled]) -> list[_Polled]:
            parts.append(await self._read(part))
            return part

        await self._session.in_batches("Read", items, read, NODES_PER_READ)
        return parts

    async def _read(self, items: list[_Polled]) -> Values:
        request = ua.ReadRequest()
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.NodesToRead = [
            ua.ReadValueId(NodeId=item.node_id, AttributeId=ua.AttributeIds.Value) for item in items
        ]
        body = await self._session.raw(request)
        try:
            values = decode_read(body)
        except Undecodable as error:
            raise self._unreadable(str(error)) from error
        if len(values) != len(items):
            raise self._unreadable(f"{len(values)} results for {len(items)} nodes")
        handles = np.array([item.handle for item in items], np.uint32)
        values.handle = handles[values.handle]
        return values

    def _unreadable(self, what: str) -> Transient:
        return Transient(
            "EDGE-2013",
            f"{self._session.connection.name} sent a read answer that cannot be read: {what}",
            "The session starts anew; if it stays, record the traffic and report it.",
        )

    def errors(self, values: Values) -> dict[int, str]:
        """Texts for the tags whose nodes the server does not give."""
        found: dict[int, str] = {}
        for i in np.flatnonzero(values.status >= 0x8000_0000):
            if int(values.status[i]) & 0xFFFF_0000 in _NO_NODE:
                for target in self._table.targets(int(values.handle[i])):
                    tag = target.tag
                    name = status_name(int(values.status[i]))
                    found[tag.tag_id] = (
                        f"EDGE-2010 {tag.path} ({tag.address}): the server answered {name}"
                    )
        return found
