"""REST: work out the past of a formula, see how far that is, and end it."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request, Response

from headrace.console.api.answers import json_answer, parse_time
from headrace.console.scope import is_whole
from headrace.console.services import Services
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured


class Span(msgspec.Struct, forbid_unknown_fields=True):
    """The time of the results; nothing for all history."""

    start: str = ""
    end: str = "now"


def make_router(services: Services) -> APIRouter:
    """``/api/v1/formula/backfill`` and ``/api/v1/formula/{asset_type}/{name}/backfill``."""
    router = APIRouter(prefix="/api/v1/formula", tags=["formula"])
    board, clock = services.sources.backfills, services.sources.clock

    @router.get("/backfill")
    async def progress(request: Request) -> Response:
        """The running back-fill of this console, or its last one: state, parts, rate, time left."""
        actor = services.require(request, "read", "samples")
        view = board.view if is_whole(actor) else None  # a formula is of a type, on all its assets
        return json_answer({"backfill": msgspec.to_builtins(view)})

    @router.post("/{asset_type}/{name}/backfill")
    async def start(request: Request, asset_type: str, name: str) -> Response:
        """Make all results of a formula on stored history, or those of ``{"start", "end"}``; one at a
        time. One that was cancelled goes on where it was."""
        key = f"{asset_type}.{name}"
        actor = services.require(request, "edit", f"formula/{key}")
        asked = _span(await request.body())
        span = None
        if asked.start:
            now_us = clock.now_us()
            span = parse_time(asked.start, now_us), parse_time(asked.end, now_us)
            if span[1] <= span[0]:
                raise Misconfigured(
                    "CONS-1004", "the time is empty", "Give an end after the start."
                )
        view = await board.start(key, actor.name, span)
        return json_answer({"backfill": msgspec.to_builtins(view)})

    @router.delete("/backfill")
    async def cancel(request: Request) -> Response:
        """End the running back-fill; what it made stays."""
        key = board.view.key if board.view is not None else "*"
        services.require(request, "edit", f"formula/{key}")
        return json_answer({"backfill": msgspec.to_builtins(await board.cancel())})

    return router


def _span(body: bytes) -> Span:
    if not body:
        return Span()
    try:
        return msgspec.json.decode(body, type=Span)
    except UNREADABLE as error:
        raise Misconfigured(
            "CONS-1003", f"the body does not fit: {error}", 'Send {"start": ..., "end": ...}.'
        ) from error
