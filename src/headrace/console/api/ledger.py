"""REST: the loss ledger."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from headrace.console.api.answers import json_answer, parse_time
from headrace.console.ledger import accounts
from headrace.console.services import Services
from headrace.historian.ledger_store import Wanted
from headrace.model.errors import Misconfigured
from headrace.model.ledger_view import By, Way, summed, total, ways


def make_router(services: Services) -> APIRouter:
    """``/api/v1/ledger``."""
    router = APIRouter(prefix="/api/v1")
    sources = services.sources

    @router.get("/ledger", tags=["state"])
    async def ledger(
        request: Request,
        start: str = "-1h",
        end: str = "now",
        by: By = "minute",
        connection: str = "",
        group: str = "",
    ) -> Response:
        """Where every sample went, from the poll that was due to the table.

        Each row has the counts of the edge and of the historian beside each other, and ``causes``:
        the named ways by which samples did not become rows of the table. ``unexplained`` is 0 when
        the books close.
        """
        services.require(request, "read", "ledger")
        now_us = sources.clock.now_us()
        wanted = Wanted(parse_time(start, now_us), parse_time(end, now_us), connection, group)
        if wanted.since_us >= wanted.until_us:
            raise Misconfigured(
                "CONS-1004", f"the time from {start} to {end} is empty", "Let start lie before end."
            )
        rows = summed(await accounts(sources, wanted), by)
        sums = total(rows)
        answer = {
            "rows": [{**row, "causes": _causes(ways(row))} for row in rows.iter_rows(named=True)],
            "total": sums,
            "unexplained": sums["unexplained"],
            "causes": {way.cause.name: _about(way) for way in ways(sums)},
        }
        return json_answer(answer)

    return router


def _causes(found: list[Way]) -> dict[str, int]:
    return {way.cause.name: way.samples for way in found}


def _about(way: Way) -> dict[str, Any]:
    cause = way.cause
    return {
        "samples": way.samples,
        "hop": cause.hop,
        "weight": cause.weight,
        "title": cause.title[0],
        "text": cause.text[0],
        "remedy": cause.remedy[0],
    }
