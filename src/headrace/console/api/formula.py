"""REST: formulas on stored history, before anything is saved, and the functions of the language."""

from __future__ import annotations

from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response

from headrace.console.api.answers import json_answer, parse_time
from headrace.console.history import Place
from headrace.console.services import Services
from headrace.formula.functions import FUNCTIONS
from headrace.model.errors import Misconfigured, Refused

ROWS_MAX: Final = 200_000


class Preview(msgspec.Struct, forbid_unknown_fields=True):
    """A formula, the equipment it is for (path or glob) or an asset type, and the time."""

    formula: str
    equipment: str = ""
    asset_type: str = ""
    start: str = "-1h"
    end: str = "now"


def make_router(services: Services) -> APIRouter:
    """The routes below ``/api/v1/formula``."""
    router = APIRouter(prefix="/api/v1/formula", tags=["formula"])
    sources = services.sources

    @router.post("/preview")
    async def preview(request: Request) -> Response:
        """Evaluate ``{"formula", "equipment" or "asset_type", "start", "end"}``; what is wrong with a
        formula is told with line, column, reason and remedy, also in Chinese (``what_zh``, ``remedy_zh``)."""
        services.require(request, "read", "samples")
        try:
            asked = msgspec.json.decode(await request.body(), type=Preview)
        except msgspec.DecodeError as error:
            raise Misconfigured(
                "CONS-1003",
                f"the body does not fit: {error}",
                'Send {"formula": ..., "equipment": ...}.',
            ) from error
        now_us = sources.clock.now_us()
        span = parse_time(asked.start, now_us), parse_time(asked.end, now_us)
        if span[1] <= span[0]:
            raise Misconfigured("CONS-1004", "the time is empty", "Give an end after the start.")
        tags = [(view.path, view.tag_id, view.unit) for view in sources.site.tags]
        place = Place(asked.equipment, asked.asset_type)
        plan, laid, rows = await sources.history.formula(
            asked.formula, place, tags, span, sources.site.apps
        )
        if rows.height > ROWS_MAX:
            raise Refused(
                "CONS-1005",
                f"the formula has {rows.height:,} samples in this time",
                f"Ask for at most {ROWS_MAX:,}: a shorter time or less equipment.",
            )
        return json_answer(
            {
                "unit": plan.unit,
                "kind": plan.kind,
                "inputs": plan.inputs,
                "looks_back_us": plan.back_us,
                "equipment": list(laid.bound.assets),
                "lacking": laid.lacking,
                "columns": {name: rows[name].to_list() for name in rows.columns},
            }
        )

    @router.get("/functions")
    async def functions(request: Request) -> Response:
        """Each function with how it is written and what it means, in English and Chinese."""
        services.require(request, "read", "samples")
        return json_answer(
            {
                "functions": [
                    {"name": name, "usage": f.usage, "help": f.help, "help_zh": f.help_zh}
                    for name, f in FUNCTIONS.items()
                    if name != "status"
                ]
            }
        )

    return router
