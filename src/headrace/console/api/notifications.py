"""REST: channels on which people are told of alarms, the log of attempts, and a test message."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request, Response

from headrace.console.api.answers import json_answer, parse_time
from headrace.console.services import Services

LIMIT_MAX = 10_000


def make_router(services: Services) -> APIRouter:
    """Routes below ``/api/v1/notifications``."""
    router = APIRouter(prefix="/api/v1/notifications", tags=["alarms"])
    board = services.sources.notifications

    @router.get("")
    async def channels(request: Request) -> Response:
        """Every channel, what waits on it, and its newest attempt."""
        services.require(request, "read", "notifications")
        return json_answer({"channels": msgspec.to_builtins(await board.channels())})

    @router.get("/log")
    async def log(
        request: Request,
        channel: str = "",
        start: str = "-7d",
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 200,
    ) -> Response:
        """Attempts, newest first."""
        services.require(request, "read", "notifications")
        start_us = parse_time(start, services.sources.clock.now_us())
        found = await board.log(channel=channel, start_us=start_us, limit=limit)
        return json_answer({"attempts": msgspec.to_builtins(found)})

    @router.post("/{channel}/test")
    async def test(request: Request, channel: str) -> Response:
        """Send a test message; ``result`` is ``sent`` when it was delivered."""
        services.require(request, "edit", f"channel/{channel}")
        outcome = await board.test(channel)
        return json_answer({"result": outcome.result, "code": outcome.code, "text": outcome.text})

    return router
