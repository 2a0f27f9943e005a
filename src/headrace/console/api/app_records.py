"""REST: the value ledger and the work requests of apps."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response

from headrace.console.api.answers import json_answer
from headrace.console.app_records import SHOWN_MAX, KeptRecord, Verdict
from headrace.console.scope import may_see
from headrace.console.services import Services
from headrace.console.value_sums import by_month, sums
from headrace.model.csv_text import defuse
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured
from headrace.model.time import to_datetime
from headrace.security.policy import Actor

_COLUMNS = ("time", "app", "version", "asset", "kind", "hours", "money", "currency", "baseline")
_NUMBERS = (_COLUMNS.index("hours"), _COLUMNS.index("money"))


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a decision: which work request, and why."""

    id: str
    reason: str = ""


def make_router(services: Services) -> APIRouter:
    """Three routes below ``/api/v1/app-records``."""
    router = APIRouter(prefix="/api/v1/app-records", tags=["apps"])
    records = services.sources.records

    def seen(actor: Actor, found: list[KeptRecord], limit: int) -> list[KeptRecord]:
        return [one for one in found if may_see(actor, one.asset)][:limit]

    @router.get("/values")
    async def values(
        request: Request,
        app: str = "",
        format: Literal["json", "csv"] = "json",
        limit: Annotated[int, Query(ge=1, le=SHOWN_MAX)] = 1_000,
    ) -> Response:
        """Lines of the value ledger, newest first, and their sums by month, asset and app. Amounts of
        different currencies are never added."""
        actor = services.require(request, "read", "apps")
        found = seen(actor, await records.find("value", app=app), limit)
        if format == "csv":
            await asyncio.to_thread(_tell_export, services, actor, len(found), app)
            body = _csv(found)
            head = {"Content-Disposition": 'attachment; filename="value_ledger.csv"'}
            return Response(body, media_type="text/csv; charset=utf-8", headers=head)
        zone = services.site(actor).time_zone
        by = {
            "month": by_month(found, zone),
            "asset": sums(found, lambda one: one.asset),
            "app": sums(found, lambda one: one.app),
        }
        return json_answer({"entries": found, "sums": by})

    @router.get("/work-requests")
    async def work_requests(
        request: Request,
        app: str = "",
        state: Literal["", "proposed", "accepted", "rejected"] = "",
        limit: Annotated[int, Query(ge=1, le=SHOWN_MAX)] = 1_000,
    ) -> Response:
        """Work that apps proposed, newest first, and what was decided."""
        actor = services.require(request, "read", "apps")
        found = await records.find("work_request", app=app, state=state)
        return json_answer({"work_requests": seen(actor, found, limit)})

    @router.post("/work-requests/{verdict}")
    async def decide(request: Request, verdict: str) -> Response:
        """Decide a proposed one: ``accepted``, or ``rejected`` with a reason. Body: ``{"id", "reason"}``."""
        services.require(request, "read", "apps")
        try:
            body = msgspec.json.decode(await request.body(), type=Decision)
            said: Verdict = msgspec.convert(verdict, Verdict)
        except UNREADABLE as error:
            raise Misconfigured(
                "CONS-2314",
                f"the decision cannot be read: {error}",
                'Send {"id": "...", "reason": "..."}.',
            ) from error
        before = await records.one(body.id)
        actor = services.require(
            request, "operate", f"app/{before.app}", {"equipment": before.asset, "verdict": said}
        )
        kept = await records.decide(body.id, said, actor.name, body.reason)
        services.identity.audit.record(
            actor.name, f"work_request.{said}", f"app/{kept.app}", "done",
            record=kept.id, asset=kept.asset, reason=kept.reason[:200],
        )  # fmt: skip
        return json_answer(kept)

    return router


def _tell_export(services: Services, actor: Actor, rows: int, app: str) -> None:
    audit = services.identity.audit
    audit.record(actor.name, "export", "app-records/values", "done", rows=rows, app=app)


def _csv(found: list[KeptRecord]) -> str:
    """Rows for a spreadsheet; a text that would be a formula there is quoted (CWE-1236)."""
    made = io.StringIO()
    writer = csv.writer(made)
    writer.writerow((*_COLUMNS, "evidence"))
    for one in found:
        row = (
            to_datetime(one.at_us).isoformat(), one.app, one.version, one.asset, one.text("kind"),
            f"{one.number('hours'):g}", f"{one.number('money'):g}", one.text("currency"),
            one.text("baseline"), msgspec.json.encode(one.body.get("evidence", {})).decode(),
        )  # fmt: skip
        writer.writerow(
            cell if place in _NUMBERS else defuse(cell) for place, cell in enumerate(row)
        )
    return made.getvalue()
