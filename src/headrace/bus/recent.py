"""The newest messages of a stream, for a reader that starts now and wants to know what was."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import nats.errors
import nats.js.errors

from headrace.bus import subjects
from headrace.bus.client import Bus
from headrace.model.errors import Transient
from headrace.model.health import Event

RECENT_MAX: Final = 2_000


async def recent_events(bus: Bus, limit: int = 500) -> list[Event]:
    """The newest events, oldest first; those that are no events are left out.

    Args:
        limit: at most so many, and never more than 2,000.

    Raises:
        Transient: BUS-1030 when the broker is away.
    """
    try:
        state: Any = (await bus.stream.stream_info(subjects.EVENTS_STREAM)).state
    except nats.js.errors.NotFoundError:
        return []
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
        raise Transient("BUS-1030", "cannot read the events", "The console tries again.") from error
    first = max(int(state.first_seq), int(state.last_seq) - min(limit, RECENT_MAX) + 1, 1)
    events = []
    for sequence in range(first, int(state.last_seq) + 1):
        try:
            message = await bus.stream.get_msg(subjects.EVENTS_STREAM, sequence, direct=True)
            events.append(msgspec.json.decode(message.data or b"", type=Event))
        except (nats.js.errors.NotFoundError, msgspec.DecodeError):
            continue
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
            raise Transient(
                "BUS-1030", "cannot read the events", "The console tries again."
            ) from error
    return events


async def next_event(bus: Bus, after: int, subject: str) -> tuple[int, str, bytes] | None:
    """The first stored event on a subject after a place in the stream: (its place, subject, body); None when
    there is none.

    Args:
        after: 0 begins with the oldest. subject: may have wildcards.

    Raises:
        Transient: BUS-1030 when the broker is away.
    """
    try:
        message = await bus.stream.get_msg(
            subjects.EVENTS_STREAM, after + 1, subject, direct=True, next=True
        )
    except nats.js.errors.NotFoundError:
        return None
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
        raise Transient("BUS-1030", "cannot read the events", "The console tries again.") from error
    return int(message.seq or after + 1), str(message.subject), message.data or b""
