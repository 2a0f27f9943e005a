"""REST: what the apps role does, and which results of the past it worked out again."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from headrace.apps.changes import CHANGES_MAX, recent_changes
from headrace.console.api.answers import json_answer
from headrace.console.services import Services


def make_router(services: Services) -> APIRouter:
    """Two routes below ``/api/v1/formula``."""
    router = APIRouter(prefix="/api/v1/formula", tags=["formula"])
    sources = services.sources

    @router.get("/changes")
    async def changes(request: Request, key: str = "", limit: int = 200) -> Response:
        """Results of the past that changed, oldest first: formula, assets, first and last source time
        (microseconds), how many changed or were taken back, and the cause: ``late``, ``restart``,
        ``calendar``, ``version`` or ``upstream``. ``key`` is for example ``pump.efficiency``."""
        services.require(request, "read", "apps")
        bounded = min(max(limit, 1), CHANGES_MAX)
        found = await recent_changes(sources.bus, sources.subjects, bounded, key=key)
        return json_answer({"changes": found})

    @router.get("/live")
    async def live(request: Request) -> Response:
        """The apps role as it said of itself in the last five seconds, with each formula: state,
        version, assets, results, newest result, error; null when it says nothing."""
        services.require(request, "read", "apps")
        return json_answer({"apps": sources.health.apps})

    return router
