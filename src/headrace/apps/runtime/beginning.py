"""From where an app goes on when its process starts: where it stopped, or where it moved to this place."""

from __future__ import annotations

from typing import Final

from headrace.apps.runtime import wire
from headrace.apps.runtime.executor import begun_anew
from headrace.bus.client import Bus
from headrace.bus.log import log_info, sequence_before
from headrace.model.deployment import AppDeployment
from headrace.model.time import US_PER_S, Clock

SKEW_US: Final = 60 * US_PER_S
"""A device's clock may be so far ahead of that of the log."""


def arrival(deployment: AppDeployment) -> int:
    """Source time from which assets are served here that were served elsewhere before; 0: none moved here."""
    came = any(asset.left not in (None, deployment.edge) for asset in deployment.assets)
    return deployment.moved_us if came and not deployment.until_us else 0


async def beginning(
    bus: Bus, clock: Clock, deployment: AppDeployment, kept: wire.Kept
) -> wire.Begun:
    """What the process begins with.

    What hooks keep goes on over a move when it is of this place and reaches up to it.

    Args:
        kept: of the last life.

    Raises:
        Transient: BUS-1030 when the broker does not answer.
    """
    moved_us = arrival(deployment)
    if moved_us and kept.moved_us != moved_us:
        state = kept.state if kept.to_us >= moved_us else b""
        after = await sequence_before(bus, moved_us - SKEW_US)
        return wire.Begun(state=begun_anew(state, moved_us, after), start_us=moved_us)
    # Before the clock is read: what comes from now on is read from the log, what came before from history.
    after = (await log_info(bus)).last_sequence
    return wire.Begun(state=kept.state, start_us=clock.now_us(), after=after)
