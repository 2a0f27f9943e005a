"""How far each connection has come, kept on the bus: what a killed edge must know of its own past.

The log alone does not tell: it has nothing of a connection whose edge was killed before its first
sample was durable, and the historian purges what it has stored.
"""

from __future__ import annotations

import msgspec

from headrace.bus.client import Bus
from headrace.bus.subjects import EDGE_BUCKET


class Mark(msgspec.Struct, frozen=True):
    """One connection's mark.

    Attributes:
        first_us: when its first session began, by the edge's clock.
        durable_us: source time from which a source's memory is read again; 0 when nothing is durable.
    """

    first_us: int
    durable_us: int = 0


class Marks:
    """The marks of one edge's connections.

    Args:
        bus: open connection to the broker.
        edge: the edge's name.
    """

    def __init__(self, bus: Bus, edge: str) -> None:
        self._bus = bus
        self._edge = edge
        self._known: dict[str, Mark] = {}

    async def begin(self, connection: str, now_us: int) -> Mark | None:
        """The mark of a connection before a session; None, and a new mark is made, when it is the first.

        Raises:
            Transient: BUS-1026 or BUS-1027 when the broker is away.
        """
        raw = await self._bus.get(EDGE_BUCKET, self._key(connection))
        if raw is not None:
            self._known[connection] = mark = msgspec.json.decode(raw, type=Mark)
            return mark
        await self._put(connection, Mark(first_us=now_us))
        return None

    async def keep(self, connection: str, durable_us: int) -> None:
        """Note how far a connection's log has come; costs nothing when it has not moved.

        Raises:
            Transient: BUS-1026 or BUS-1027 when the broker is away.
        """
        mark = self._known.get(connection)
        if mark is not None and durable_us and mark.durable_us != durable_us:
            await self._put(connection, Mark(mark.first_us, durable_us))

    async def _put(self, connection: str, mark: Mark) -> None:
        await self._bus.put(EDGE_BUCKET, self._key(connection), msgspec.json.encode(mark))
        self._known[connection] = mark

    def _key(self, connection: str) -> str:
        return f"{self._edge}.{connection}"
