"""Who asks the broker to be let in, and what is answered: words without a connection.

Apart from :mod:`headrace.bus.callout`, so that the supervisor, which only writes the broker's configuration,
need not hold the libraries of the data path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headrace.bus.rights import Rights
from headrace.security.rights import Actor


@dataclass(frozen=True)
class Knock:
    """Somebody who connects.

    Attributes:
        certificate: PEM of what it showed under TLS, verified by the broker; "" for none.
        is_leaf: another broker, as an edge on its own machine has.
    """

    name: str
    secret: str
    certificate: str
    address: str
    is_leaf: bool = False


@dataclass(frozen=True)
class Admitted:
    """Who that is and what it may."""

    actor: Actor
    rights: Rights


class Judge(Protocol):
    """Decides; blocking work is its own thread's."""

    async def admit(self, knock: Knock) -> Admitted | None:
        """Who that is; None refuses."""
