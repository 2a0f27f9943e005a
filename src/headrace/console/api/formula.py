"""REST: formulas on stored history, before anything is saved, and the functions of the language."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response

from headrace.console.api.answers import json_answer, parse_time
from headrace.console.history import Place
from headrace.console.receipts import tell_read
from headrace.console.services import Services
from headrace.formula.functions import FUNCTIONS
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured, Refused
from headrace.model.knowledge import FormulaState
from headrace.site.edit import SiteEdit
from headrace.site.formulas import formula_lines

ROWS_MAX: Final = 200_000
T = TypeVar("T")


class Preview(msgspec.Struct, forbid_unknown_fields=True):
    """A formula, the equipment it is for (path or glob) or an asset type, and the time."""

    formula: str
    equipment: str = ""
    asset_type: str = ""
    start: str = "-1h"
    end: str = "now"


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """A formula or alarm to save: the whole statement, and its state when that is to change too."""

    text: str
    state: FormulaState | None = None


def make_router(services: Services) -> APIRouter:
    """The routes below ``/api/v1/formula``."""
    router = APIRouter(prefix="/api/v1/formula", tags=["formula"])
    sources = services.sources

    @router.post("/preview")
    async def preview(request: Request) -> Response:
        """Evaluate ``{"formula", "equipment" or "asset_type", "start", "end"}``; what is wrong with a
        formula is told with line, column, reason and remedy, also in Chinese (``what_zh``, ``remedy_zh``)."""
        actor = services.require(request, "read", "samples")
        site = services.site(actor)
        asked = _decoded(await request.body(), Preview, 'Send {"formula": ..., "equipment": ...}.')
        now_us = sources.clock.now_us()
        span = parse_time(asked.start, now_us), parse_time(asked.end, now_us)
        if span[1] <= span[0]:
            raise Misconfigured("CONS-1004", "the time is empty", "Give an end after the start.")
        tags = [(view.path, view.tag_id, view.unit) for view in site.tags]
        place = Place(asked.equipment, asked.asset_type)
        plan, laid, rows = await sources.history.formula(
            asked.formula, place, tags, span, site.apps
        )
        if rows.height > ROWS_MAX:
            raise Refused(
                "CONS-1005",
                f"the formula has {rows.height:,} samples in this time",
                f"Ask for at most {ROWS_MAX:,}: a shorter time or less equipment.",
            )
        read = laid.tag_ids
        tell_read(services, actor, "rest/formula", read, rows.height, span)
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

    _add_saving(router, services)
    return router


def _add_saving(router: APIRouter, services: Services) -> None:
    """Formulas of the site file: list, versions, save, remove."""
    sources = services.sources

    @router.get("")
    async def listed(request: Request) -> Response:
        """Every formula and alarm with its version, its state, and where it is evaluated."""
        site = services.site(services.require(request, "read", "samples"))
        lines = await asyncio.to_thread(formula_lines, site.apps)
        return json_answer({"formulas": msgspec.to_builtins(lines)})

    @router.get("/{asset_type}/{name}/versions")
    async def versions(request: Request, asset_type: str, name: str) -> Response:
        """Every text that a formula had, oldest first, with the source time from which it counts."""
        services.require(request, "read", f"formula/{asset_type}.{name}")
        found = await sources.formula_versions(asset_type, name)
        return json_answer({"versions": [version._asdict() for version in found]})

    @router.put("/{asset_type}/{name}")
    async def save(request: Request, asset_type: str, name: str) -> Response:
        """Save ``{"text": "name = ...", "state": "live", "shadow" or "off"}`` into the site file. With
        ``?check=true`` it is only checked. Gives the diff."""
        services.require(request, "edit", f"formula/{asset_type}.{name}")
        asked = _decoded(await request.body(), Wanted, 'Send {"text": "name = ..."}.')

        def work() -> str:
            edit = SiteEdit(sources.folder)
            edit.set_formula(asset_type, name, asked.text, asked.state)
            return _done(edit, request)

        return json_answer({"diff": await asyncio.to_thread(work)})

    @router.delete("/{asset_type}/{name}")
    async def remove(request: Request, asset_type: str, name: str) -> Response:
        """Take a formula out of the site file; its history stays. ``?check=true`` as above."""
        services.require(request, "edit", f"formula/{asset_type}.{name}")

        def work() -> str:
            edit = SiteEdit(sources.folder)
            edit.remove_formula(asset_type, name)
            return _done(edit, request)

        return json_answer({"diff": await asyncio.to_thread(work)})


def _done(edit: SiteEdit, request: Request) -> str:
    if request.query_params.get("check", "") not in ("", "0", "false"):
        edit.check()
        return edit.diff()
    return edit.save()


def _decoded(body: bytes, kind: type[T], remedy: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise Misconfigured("CONS-1003", f"the body does not fit: {error}", remedy) from error
