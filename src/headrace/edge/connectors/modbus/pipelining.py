"""How many requests a device bears at once: proven before it is used, given up at the first oddity.

A round trip costs far more than reading, so several requests on their way at once make a poll several
times as fast. Modbus Messaging on TCP/IP V1.0b (clause 4.4.1.2) allows it and leaves the number to the
device; many take one only, and some answer the others wrongly. So, with ``requests_in_flight = 0``:

1. The first poll is made one by one; it tells how long an answer takes.
2. Then as many requests as shall be in flight are sent at once: parts of the poll's own blocks, each of
   another length. Every one must come back, in order, under its number and in its length, and all of
   them in half the timeout. Their values are not used.
3. From then on polls are made so. A missing answer, one out of turn or of another length, or a busy
   device ends it: the poll is made again one by one, on a new connection. When that works, the device is
   asked one by one for :data:`REFUSAL_S`; when it does not, it was not the number of requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from headrace.edge.connectors.modbus.address import BIT_TABLES
from headrace.edge.connectors.modbus.plan import Block
from headrace.edge.connectors.modbus.protocol import EXCEPTION_FLAG, Request, read_request
from headrace.edge.connectors.modbus.session import Answer, ModbusSession
from headrace.model.errors import Transient

IN_FLIGHT_MAX: Final = 16
BLOCKS_MIN: Final = 3
"""With fewer reads in a poll there is little to win."""
REFUSAL_S: Final = 3600.0
REFUSALS_MAX: Final = 1_000
BUSY: Final = (5, 6)


class Refusals:
    """Devices that bear one request at a time, by endpoint; shared by the sessions of a process.

    Example:
        >>> refusals = Refusals()
        >>> refusals.add("plc:502", 0.0)
        >>> refusals.has("plc:502", 10.0), refusals.has("plc:502", 4000.0)
        (True, False)
    """

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def add(self, endpoint: str, now_s: float) -> None:
        """Ask this device one by one for a while (monotonic seconds)."""
        self._until_s.pop(endpoint, None)
        if len(self._until_s) >= REFUSALS_MAX:
            del self._until_s[next(iter(self._until_s))]
        self._until_s[endpoint] = now_s + REFUSAL_S

    def has(self, endpoint: str, now_s: float) -> bool:
        """True when the device is asked one by one."""
        return now_s < self._until_s.get(endpoint, now_s)


def trial(blocks: Sequence[Block], number: int) -> list[Block]:
    """At most ``number`` parts of blocks, each with an answer of another length; fewer when the blocks
    are too short to give more.

    Example:
        >>> from headrace.edge.connectors.modbus.plan import plan_blocks, Limits, Span
        >>> spans = [Span(1, "holding", at, 2) for at in (0, 200, 400)]
        >>> [part.count for part in trial(plan_blocks(spans, Limits()), 16)]
        [2, 1]
    """
    parts: list[Block] = []
    lengths: set[int] = set()
    for block in blocks:
        if block.table in BIT_TABLES or len(parts) == number:
            continue
        count = block.count
        while count and count in lengths:
            count -= 1
        if count:
            lengths.add(count)
            parts.append(Block(block.unit, block.table, block.start, count, ()))
    return parts


async def prove(session: ModbusSession, blocks: Sequence[Block], answer_s: float) -> bool:
    """Try whether the device bears several requests; when it does the session goes on so.

    Args:
        session: open and one by one until now.
        blocks: reads that the device has answered just now.
        answer_s: how long it took for one answer.

    Returns:
        True when nothing is wrong (it bears several, or there was nothing to try), False when it does
        not: the session has ended or is not to be trusted, open another.
    """
    timeout_s = session.timeout_s
    bearable = int(timeout_s / 2 / answer_s) if answer_s > 0 else IN_FLIGHT_MAX
    parts = trial(blocks, min(IN_FLIGHT_MAX, bearable))
    if len(parts) < 2:
        return True
    session.in_flight, session.strict = len(parts), True
    requests = [
        Request(part.unit, read_request(part.table, part.start, part.count)) for part in parts
    ]
    begin_s = asyncio.get_running_loop().time()
    try:
        answers = await session.exchange(requests)
    except Transient:
        return False
    in_time = asyncio.get_running_loop().time() - begin_s <= timeout_s / 2
    return in_time and all(_fits(*each) for each in zip(parts, answers, strict=True))


def _fits(part: Block, answer: Answer | None) -> bool:
    if answer is None:
        return False
    if answer.pdu[0] & EXCEPTION_FLAG:
        return len(answer.pdu) == 2 and answer.pdu[1] not in BUSY
    return len(answer.pdu) == 2 + 2 * part.count
