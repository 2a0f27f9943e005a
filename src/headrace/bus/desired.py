"""Desired state as a role reads it: one key of the bucket, or a Transient error."""

from __future__ import annotations

import nats.errors
import nats.js.errors

from headrace.bus.client import Bus
from headrace.bus.subjects import DESIRED_BUCKET
from headrace.model.errors import Transient


async def read_desired(bus: Bus, key: str) -> bytes | None:
    """The desired state under ``key``; None when it was never set.

    Raises:
        Transient: BUS-1033 when the broker does not answer.
    """
    try:
        return await bus.get(DESIRED_BUCKET, key)
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
        raise Transient("BUS-1033", f"the desired state {key!r} cannot be read now") from error
