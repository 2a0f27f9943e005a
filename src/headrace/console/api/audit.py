"""REST: the audit chain, for admins: entries, a look at the whole, a checkpoint to keep elsewhere."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from headrace.console.api.answers import json_answer, parse_time, tag_list
from headrace.console.services import Services

LIMIT_MAX = 10_000


def make_router(services: Services) -> APIRouter:
    """Routes below ``/api/v1/audit``."""
    router = APIRouter(prefix="/api/v1/audit", tags=["audit"])
    audit = services.identity.audit

    @router.get("")
    async def entries(
        request: Request,
        actor: str = "",
        action: str = "",
        resource: str = "",
        start: str = "-30d",
        end: str = "now",
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 100,
    ) -> Response:
        """The newest entries that match, newest first."""
        services.require(request, "audit", "audit")
        now_us = services.sources.clock.now_us()
        found = await asyncio.to_thread(
            audit.entries,
            actor=actor,
            action=action,
            resource=resource,
            start_us=parse_time(start, now_us),
            end_us=parse_time(end, now_us) + 1,
            limit=limit,
        )
        return json_answer({"entries": msgspec.to_builtins(found)})

    @router.get("/who-read")
    async def who_read(
        request: Request,
        tags: str,
        start: str = "-30d",
        end: str = "now",
        limit: Annotated[int, Query(ge=1, le=LIMIT_MAX)] = 1_000,
    ) -> Response:
        """Who read or took any of some tags in [start, end), by which door, under which rule."""
        services.require(request, "audit", "audit")
        now_us = services.sources.clock.now_us()
        views = tag_list(services.sources.site, tags)
        receipts = services.identity.receipts
        await asyncio.to_thread(receipts.flush)
        found = await asyncio.to_thread(
            receipts.who_read,
            [view.tag_id for view in views],
            parse_time(start, now_us),
            parse_time(end, now_us) + 1,
            limit,
        )
        return json_answer({"readings": msgspec.to_builtins(found)})

    @router.get("/verify")
    async def verify(request: Request) -> Response:
        """Look at the whole chain; ``flaws`` is empty when it is whole."""
        services.require(request, "audit", "audit")
        verdict = await asyncio.to_thread(audit.verify)
        return json_answer(msgspec.to_builtins(verdict))

    @router.get("/checkpoint")
    async def checkpoint(request: Request) -> Response:
        """The newest entry's number and digest, signed: keep it elsewhere."""
        services.require(request, "audit", "audit")
        return json_answer(msgspec.to_builtins(await asyncio.to_thread(audit.checkpoint)))

    return router
