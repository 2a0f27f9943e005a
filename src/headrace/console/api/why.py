"""Why is this value old? As JSON for programs, and as markup for the dialog of every page."""

from __future__ import annotations

import math
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from headrace.console.api.answers import json_answer
from headrace.console.services import Services
from headrace.console.sources import Sources
from headrace.console.texts import Texts
from headrace.console.why import explain
from headrace.console.why_text import WhyText, as_plain
from headrace.console.widgets.markup import Markup, join, tag
from headrace.model.time import US_PER_MS
from headrace.model.why import Diagnosis, Hop
from headrace.model.why_facts import WhyTag


def make_router(services: Services) -> APIRouter:
    """Both routes; each asks the policy."""
    router = APIRouter(prefix="/api/v1")
    sources = services.sources

    @router.get("/why", tags=["state"])
    async def why(request: Request, tag: str) -> Response:
        """Why a tag's value is as old as it is: every hop from device to screen with its state
        (proven, waiting, broken, unknown), last success, clock offset, error, next try; the first hop
        to look at; and the headline in English and Chinese. ``tag`` is a path or an id."""
        services.require(request, "read", "samples")
        found = await sources.find_tag(tag)
        services.require(request, "read", *_of_tag(found))
        diagnosis = await explain(sources, found)
        return json_answer(as_plain(diagnosis, _zone(sources)))

    @router.get("/why/dialog", include_in_schema=False)
    async def dialog(request: Request, tag: str, live: int = 1, seen_ms: float = 0.0) -> Response:
        actor = services.require(request, "read", "samples")
        seen_us = int(seen_ms * US_PER_MS) if math.isfinite(seen_ms) else 0
        found = await sources.find_tag(tag)
        services.require(request, "read", *_of_tag(found))
        diagnosis = await explain(sources, found, browser=bool(live), browser_source_us=seen_us)
        return HTMLResponse(_dialog(services.texts(request, actor), diagnosis, _zone(sources)))

    return router


def _of_tag(tag: WhyTag) -> tuple[str, dict[str, str]]:
    """The tag and its equipment, as the policy is asked."""
    return f"tag/{tag.tag_id}", {"equipment": tag.path.rpartition("/")[0]}


def _zone(sources: Sources) -> tzinfo:
    try:
        return ZoneInfo(sources.site.time_zone)
    except (ZoneInfoNotFoundError, ValueError):
        return UTC


def _dialog(texts: Texts, diagnosis: Diagnosis, zone: tzinfo) -> Markup:
    words = WhyText(texts, diagnosis, zone)
    state = "proven" if diagnosis.fresh else diagnosis.hop(diagnosis.culprit).state
    place = diagnosis.tag.path
    if diagnosis.tag.connection:
        place = texts("why.connection_of", path=place, connection=diagnosis.tag.connection)
    return join(
        tag(".hr-why-place", place),
        tag(".hr-why-headline", words.headline(), cls=state, role="status"),
        tag(".hr-why-row", [_chip(words, hop, diagnosis.culprit) for hop in diagnosis.hops]),
        tag("ol.hr-why-hops", [_line(texts, words, hop) for hop in diagnosis.hops]),
        [tag(".hr-why-note", texts("why.note", text=note)) for note in words.notes()],
    )


def _chip(words: WhyText, hop: Hop, culprit: str) -> Markup:
    return tag(
        "span.hr-why-chip",
        words.name(hop),
        cls=f"{hop.state} {'culprit' if hop.name == culprit else ''}".strip(),
        title=f"{words.state(hop)}: {words.reason(hop)}",
    )


def _line(texts: Texts, words: WhyText, hop: Hop) -> Markup:
    facts = [
        f"{texts('why.last_success')}: {words.age(hop)}" if words.age(hop) else "",
        f"{texts('why.offset')}: {words.offset(hop)}" if words.offset(hop) else "",
        texts("why.next_try", span=words.next_try(hop)) if words.next_try(hop) else "",
    ]
    error = None
    if hop.code:
        error = tag(
            ".hr-why-error",
            f"{texts('why.last_error')}: ",
            tag("code", hop.code),
            f" {hop.error}",
            f" ({words.error_age(hop)})" if words.error_age(hop) else None,
            cls="old" if hop.state == "proven" else "",
        )
    remedy = words.remedy(hop)
    return tag(
        "li",
        tag("b", words.name(hop)),
        tag("span.hr-why-state", words.state(hop), cls=hop.state),
        tag("span", words.reason(hop)),
        tag("small", " · ".join(filter(None, facts))) if any(facts) else None,
        error,
        tag(".hr-what-now", texts("why.do", remedy=remedy)) if remedy else None,
        data_hop=hop.name,
        data_state=hop.state,
    )
