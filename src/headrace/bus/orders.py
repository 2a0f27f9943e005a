"""Operations requests on the bus: sent once each, kept in the stream ORDERS, one subject an id."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import nats.errors
import nats.js.errors

from headrace.bus.client import Bus
from headrace.bus.subjects import ORDERS_STREAM, Subjects
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Refused, Transient
from headrace.model.operations_request import OperationsRequest

SHOWN_MAX: Final = 1_000
_ONE_A_SUBJECT: Final = 10_077
"""JSStreamMaxMsgsPerSubject: the id is there already."""
_AWAY: Final = (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError)


async def send_order(bus: Bus, subjects: Subjects, order: OperationsRequest) -> int:
    """Store a request; gives its place in the stream.

    Raises:
        Misconfigured: APPS-2285 when a field is wrong.
        Refused: APPS-2286 when there is one with its id, or the stream is full.
        Transient: BUS-1034 when the broker is away: send the same again, it is stored once.
    """
    order.check()
    # No id of a message beside the subject: what was sent twice is refused, not swallowed.
    try:
        answer = await bus.stream.publish(
            subjects.order(order.id), msgspec.json.encode(order), timeout=5
        )
    except nats.js.errors.APIError as error:
        known = error.err_code == _ONE_A_SUBJECT
        why = "there is one with this id" if known else str(error.description)
        raise Refused(
            "APPS-2286",
            f"the operations request {order.id} was not taken: {why}",
            "Look at it: headrace order list. Give a new one another id.",
        ) from error
    except _AWAY as error:
        raise Transient(
            "BUS-1034",
            f"no acknowledgement for the operations request {order.id}",
            "See whether it is there (headrace order list), and send it again with the same id.",
        ) from error
    return int(answer.seq)


async def recent_orders(bus: Bus, limit: int = 100) -> list[OperationsRequest]:
    """The newest requests, newest first; what is none of ours is left out.

    Args:
        limit: at most so many, and never more than 1,000.

    Raises:
        Transient: BUS-1034 when the broker is away.
    """
    try:
        state: Any = (await bus.stream.stream_info(ORDERS_STREAM)).state
        first, last = max(int(state.first_seq), 1), int(state.last_seq)
        found: list[OperationsRequest] = []
        for sequence in range(last, first - 1, -1):
            if len(found) >= min(limit, SHOWN_MAX):
                break
            try:
                message = await bus.stream.get_msg(ORDERS_STREAM, sequence, direct=True)
                found.append(msgspec.json.decode(message.data or b"", type=OperationsRequest))
            except (nats.js.errors.NotFoundError, *UNREADABLE):
                continue
    except nats.js.errors.NotFoundError:
        return []
    except _AWAY as error:
        raise Transient("BUS-1034", "the operations requests cannot be read now") from error
    return found
