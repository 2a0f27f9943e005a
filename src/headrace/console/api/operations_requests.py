"""REST: operations requests (IEC 62264-2), sent to apps and shown."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response

from headrace.bus.orders import SHOWN_MAX
from headrace.console.api.answers import json_answer
from headrace.console.app_orders import WantedOrder, seen, send
from headrace.console.services import Services
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured


def make_router(services: Services) -> APIRouter:
    """Two routes at ``/api/v1/operations-requests``."""
    router = APIRouter(prefix="/api/v1/operations-requests", tags=["apps"])

    @router.get("")
    async def orders(
        request: Request, limit: Annotated[int, Query(ge=1, le=SHOWN_MAX)] = 100
    ) -> Response:
        """Operations requests, newest first."""
        actor = services.require(request, "read", "apps")
        return json_answer({"operations_requests": await seen(services, actor, limit)})

    @router.post("")
    async def order(request: Request) -> Response:
        """Send one. Body: ``operations_type``, ``description``, ``equipment``, ``priority`` ..., or
        ``{"work_request": id}`` for one that was accepted. The same id again is refused."""
        services.require(request, "read", "apps")
        try:
            wanted = msgspec.json.decode(await request.body(), type=WantedOrder)
        except UNREADABLE as error:
            raise Misconfigured(
                "APPS-2285",
                f"the operations request cannot be read: {error}",
                'Send {"operations_type": "maintenance", "equipment": "...", "description": "..."}.',
            ) from error
        sent = await send(
            services, wanted, lambda what, facts: services.require(request, "operate", what, facts)
        )
        return json_answer(sent)

    return router
