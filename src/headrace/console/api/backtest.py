"""REST: a condition or an alarm on stored history, before it is enabled."""

from __future__ import annotations

from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response

from headrace.console.api.answers import json_answer, parse_time
from headrace.console.history import Place
from headrace.console.receipts import tell_backtest
from headrace.console.services import Services
from headrace.historian.backtest import Question
from headrace.historian.marks import EVENTS_MAX, Mark
from headrace.historian.sweep import Sweep
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured

SPAN_MAX_S: Final = 30 * 86_400.0


class MarkedEvent(msgspec.Struct, forbid_unknown_fields=True):
    """An event that an alarm should have met; times as those of the question."""

    time: str
    label: str = ""
    end: str = ""
    asset: str = ""


class Trial(msgspec.Struct, forbid_unknown_fields=True):
    """A condition or an alarm, the equipment (path or glob) or asset type, and the time."""

    formula: str
    equipment: str = ""
    asset_type: str = ""
    start: str = "-30d"
    end: str = "now"
    sweep: Sweep | None = None
    events: list[MarkedEvent] = []
    before_s: float = 3600.0
    after_s: float = 600.0


def make_router(services: Services) -> APIRouter:
    """The route ``/api/v1/formula/backtest``."""
    router = APIRouter(prefix="/api/v1/formula", tags=["formula"])
    sources = services.sources

    @router.post("/backtest")
    async def backtest(request: Request) -> Response:
        """Try ``{"formula", "equipment" or "asset_type", "start", "end", "sweep": {"low", "high", "step"},
        "events": [{"time", "label", "end", "asset"}]}``: episodes, which events they met, and both for
        each value of the number that is swept."""
        actor = services.require(request, "read", "samples")
        site = services.site(actor)
        try:
            asked = msgspec.json.decode(await request.body(), type=Trial)
        except UNREADABLE as error:
            raise Misconfigured(
                "CONS-1003",
                f"the body does not fit: {error}",
                'Send {"formula": ..., "asset_type": ...}.',
            ) from error
        tags = [(view.path, view.tag_id, view.unit) for view in site.tags]
        question = _question(asked, sources.clock.now_us())
        found = await sources.history.backtest(
            Place(asked.equipment, asked.asset_type), question, tags, site.apps
        )
        tell_backtest(services, actor, "rest/backtest", question, found)
        return json_answer(msgspec.to_builtins(found))

    return router


def _question(asked: Trial, now_us: int) -> Question:
    if len(asked.events) > EVENTS_MAX:
        raise Misconfigured(
            "CONS-1003",
            f"the body has {len(asked.events):,} events",
            f"Send at most {EVENTS_MAX:,}.",
        )
    if not (0 <= asked.before_s <= SPAN_MAX_S and 0 <= asked.after_s <= SPAN_MAX_S):
        raise Misconfigured(
            "CONS-1004", "before_s or after_s is no span of time", "Give seconds, up to 30 days."
        )
    return Question(
        text=asked.formula,
        asset_type=asked.asset_type,
        start_us=parse_time(asked.start, now_us),
        end_us=parse_time(asked.end, now_us),
        marks=tuple(
            Mark(
                at_us=parse_time(each.time, now_us),
                end_us=parse_time(each.end, now_us) if each.end else None,
                label=each.label,
                asset=each.asset,
            )
            for each in asked.events
        ),
        before_us=round(asked.before_s * 1e6),
        after_us=round(asked.after_s * 1e6),
        sweep=asked.sweep,
    )
