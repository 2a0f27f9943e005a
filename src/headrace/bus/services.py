"""Services that tools of NATS find and count by themselves: ``$SRV.PING``, ``INFO`` and ``STATS``.

The same requests and answers as :meth:`headrace.bus.client.Bus.answer`, on the same subjects; beside them the
service says what it is and how often each of its endpoints was asked. Protocol: NATS ADR-32.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from nats.micro import add_service
from nats.micro.request import Request
from nats.micro.service import EndpointConfig, EndpointStats

from headrace.bus.client import Bus
from headrace.bus.rights import ALL_SERVICES
from headrace.model.errors import HeadraceError

SERVICES_MAX: Final = 1_000
_STATS: Final = ALL_SERVICES.replace(">", "STATS")


@dataclass(frozen=True)
class Endpoint:
    """One question that a service answers.

    Attributes:
        handler: as of :meth:`headrace.bus.client.Bus.answer`. metadata: told to who looks for services.
    """

    name: str
    subject: str
    handler: Callable[[bytes], Awaitable[bytes]]
    metadata: Mapping[str, str] = field(default_factory=dict)


class EndpointFigures(msgspec.Struct, frozen=True):
    """How often an endpoint was asked since its service began; times are in nanoseconds."""

    name: str
    subject: str
    num_requests: int = 0
    num_errors: int = 0
    average_processing_time: int = 0


class ServiceFigures(msgspec.Struct, frozen=True):
    """A service that answered, with its endpoints."""

    name: str
    id: str
    version: str
    metadata: dict[str, str] = {}
    endpoints: list[EndpointFigures] = []


async def serve(
    bus: Bus,
    name: str,
    version: str,
    endpoints: Sequence[Endpoint],
    *,
    description: str = "",
    metadata: Mapping[str, str] | None = None,
) -> Callable[[], Awaitable[None]]:
    """Answer as a service until the function that is given back is called.

    Args:
        name: letters, digits, ``-`` and ``_``. version: semantic.
    """
    refused: Counter[str] = Counter()

    def count(told: EndpointStats) -> None:
        told.num_errors += refused[told.subject]  # the library counts only what is raised

    service = await add_service(
        bus.client,
        name=name,
        version=version,
        description=description,
        metadata=dict(metadata or {}),
        stats_handler=count,
    )
    for each in endpoints:
        await service.add_endpoint(
            EndpointConfig(
                name=each.name,
                subject=each.subject,
                handler=_answering(each, refused),
                metadata=dict(each.metadata),
            )
        )
    return service.stop


def _answering(endpoint: Endpoint, refused: Counter[str]) -> Callable[[Request], Awaitable[None]]:
    async def answer(request: Request) -> None:
        try:
            body = await endpoint.handler(request.data)
        except HeadraceError as error:
            refused[endpoint.subject] += 1
            told = b"-" + msgspec.json.encode(error.as_dict())
            await request.respond_error("500", error.code, told)
        else:
            await request.respond(b"+" + body)

    return answer


async def services(bus: Bus, wait_s: float = 1.0) -> list[ServiceFigures]:
    """Each service on this broker that says its figures in time, by name."""
    found: dict[str, ServiceFigures] = {}

    async def take(message: Any) -> None:
        if len(found) < SERVICES_MAX:
            told = msgspec.json.decode(message.data, type=ServiceFigures)
            found[told.id] = told

    answers = bus.client.new_inbox()
    stop = await bus.subscribe(answers, take)
    try:
        await bus.client.publish(_STATS, b"", reply=answers)
        await asyncio.sleep(wait_s)
    finally:
        await stop()
    return sorted(found.values(), key=lambda each: (each.name, each.id))
