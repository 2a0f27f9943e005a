"""REST: tags, samples, aggregates, newest values, connections, events, writes, health, metrics.

Every route asks the policy. Tags are named by path or id; ids leave as text, since they may need 63
bits. Times are ISO 8601 with a zone, ``now``, ``-1h``, or microseconds since 1970.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
import polars as pl
from fastapi import APIRouter, Query, Request, Response

from headrace import __version__
from headrace.console.api.answers import (
    Format,
    frame_answer,
    json_answer,
    parse_span,
    parse_time,
    tag_list,
)
from headrace.console.api.metrics import metrics_text
from headrace.console.receipts import tell_read, told
from headrace.console.services import Services
from headrace.console.site_view import SiteView, TagView
from headrace.console.sources import Sources
from headrace.console.writes import write_value
from headrace.historian.by_calendar import is_window, windows_of
from headrace.model import status as status_codes
from headrace.model.calendar import PlantCalendar
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured, Refused
from headrace.model.sample import TIMESTAMP
from headrace.site.edges import edge_row

SAMPLES_MAX: Final = 5_000_000
JSON_SAMPLES_MAX: Final = 200_000
INTERVALS_MAX: Final = 200_000
POINTS_MAX: Final = 100_000
FOUND_MAX: Final = 1_000


class WriteRequest(msgspec.Struct):
    """A value in engineering units for one tag, by path or id."""

    tag: str
    value: float | str


def make_router(services: Services) -> APIRouter:
    """All routes below ``/api/v1`` that programs use."""
    router = APIRouter(prefix="/api/v1")
    _add_site(router, services)
    _add_history(router, services)
    _add_overviews(router, services)
    _add_state(router, services)
    _add_write(router, services)
    return router


def _add_site(router: APIRouter, services: Services) -> None:
    @router.get("/tags", tags=["site"])
    async def tags(
        request: Request,
        search: str = "",
        below: str = "",
        limit: Annotated[int, Query(ge=1, le=FOUND_MAX)] = 100,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        """Tags whose path, title or unit has all words of ``search``, at or below ``below``."""
        actor = services.require(request, "read", "tags")
        words = search.lower().split()
        site = services.site(actor)
        found = [
            view
            for view in (site.below(below.strip("/")) if below else site.tags)
            if all(word in _sought(view) for word in words)
        ]
        page = [about_tag(view) for view in found[offset : offset + limit]]
        return json_answer({"total": len(found), "tags": page})

    @router.get("/equipment", tags=["site"])
    async def equipment(request: Request) -> Response:
        """The equipment tree: path, title, number of tags, children."""
        actor = services.require(request, "read", "equipment")
        return json_answer(_tree(services.site(actor)))


def _add_history(router: APIRouter, services: Services) -> None:
    sources = services.sources

    @router.get("/samples", tags=["history"])
    async def samples(
        request: Request,
        tags: str,
        start: str = "-1h",
        end: str = "now",
        format: Format = "json",
        limit: Annotated[int | None, Query(ge=1, le=SAMPLES_MAX)] = None,
    ) -> Response:
        """Raw samples in [start, end), sorted by tag and time: JSON, CSV, Arrow or Parquet."""
        actor = services.require(request, "read", "samples")
        site = services.site(actor)
        views = tag_list(site, tags)
        start_us, end_us = _span(start, end, sources)
        most = JSON_SAMPLES_MAX if format == "json" else SAMPLES_MAX
        ids = [view.tag_id for view in views]
        batch = await sources.history.read(ids, start_us, end_us, limit or most + 1)
        if batch.height > most:
            raise Refused(
                "CONS-1005",
                f"more than {most:,} samples from {start} to {end}",
                "Ask for a shorter time, set limit, or use format=arrow.",
            )
        answer = frame_answer(batch, format, "samples", site)
        about = (services, actor, "rest/samples", ids)
        return await told(*about, answer, batch.height, (start_us, end_us))

    @router.get("/aggregate", tags=["history"])
    async def aggregate(
        request: Request,
        tags: str,
        every: str,
        aggregate: str = "Average",
        start: str = "-1h",
        end: str = "now",
        format: Format = "json",
    ) -> Response:
        """An aggregate of OPC UA Part 13 (Average, Minimum, TimeAverage...) for each interval: ``10s``,
        ``1h``, or each ``shift``, ``hour``, ``day``, ``week``, ``month`` of the plant calendar that begins in
        the time, with its true length ``duration_h`` and its ``shift``, ``team`` and ``day``."""
        actor = services.require(request, "read", "samples")
        site = services.site(actor)
        views = tag_list(site, tags)
        start_us, end_us = _span(start, end, sources)
        ids = [view.tag_id for view in views]
        about = (services, actor, "rest/aggregate", ids)
        if is_window(every):
            windows = windows_of(
                _calendar(site), every, start_us, end_us, INTERVALS_MAX // len(views)
            )
            batch = await sources.history.by_calendar(ids, windows, aggregate)
            answer = frame_answer(batch, format, aggregate, site)
            read = (windows[0].start_us, windows[-1].end_us) if windows else (start_us, end_us)
            return await told(*about, answer, batch.height, read)
        every_us = parse_span(every)
        count = len(views) * (end_us - start_us) // every_us
        if count > INTERVALS_MAX:
            raise Refused(
                "CONS-1005",
                f"{count:,} intervals were asked for",
                f"Ask for at most {INTERVALS_MAX:,}: a longer every, a shorter time, fewer tags.",
            )
        batch = await sources.history.aggregate(ids, start_us, end_us, every_us, aggregate)
        answer = frame_answer(batch, format, aggregate, site)
        return await told(*about, answer, batch.height, (start_us, end_us))


def _calendar(site: SiteView) -> PlantCalendar:
    return site.apps.calendar if site.apps is not None else PlantCalendar()


def _add_overviews(router: APIRouter, services: Services) -> None:
    sources = services.sources

    @router.get("/downsample", tags=["history"])
    async def downsample(
        request: Request,
        tag: str,
        start: str = "-1h",
        end: str = "now",
        points: Annotated[int, Query(ge=1, le=POINTS_MAX)] = 1_000,
        format: Format = "json",
    ) -> Response:
        """One tag in at most so many buckets of equal width, each with its minimum and maximum."""
        actor = services.require(request, "read", "samples")
        site = services.site(actor)
        view = tag_list(site, tag, 1)[0]
        start_us, end_us = _span(start, end, sources)
        buckets = await sources.history.downsample(view.tag_id, start_us, end_us, points)
        named = buckets.select(pl.lit(view.tag_id, pl.Int64).alias("tag_id"), pl.all())
        answer = frame_answer(named, format, "downsample", site)
        about = (services, actor, "rest/downsample", [view.tag_id])
        return await told(*about, answer, named.height, (start_us, end_us))

    @router.get("/last", tags=["history"])
    async def last(
        request: Request, tags: str, format: Annotated[Literal["json", "arrow"], Query()] = "json"
    ) -> Response:
        """The newest sample of each tag, as it is on the screen now."""
        actor = services.require(request, "read", "samples")
        site = services.site(actor)
        found = newest(sources, tag_list(site, tags))
        times = found["source_timestamp"].to_physical()
        span = (int(times.min()), int(times.max()) + 1) if found.height else (0, 0)  # type: ignore[arg-type] # integers
        tell_read(services, actor, "rest/last", found["tag_id"], found.height, span)
        return frame_answer(found, format, "last", site)


def _add_state(router: APIRouter, services: Services) -> None:
    sources = services.sources

    @router.get("/connections", tags=["state"])
    async def connections(request: Request) -> Response:
        """State, counts and last error of each connection."""
        services.require(request, "read", "connections")
        lines = sources.health.connections()
        return json_answer(
            {
                "connections": [
                    {**msgspec.to_builtins(line.state), "silent": line.silent} for line in lines
                ]
            }
        )

    @router.get("/edges", tags=["state"])
    async def edges(request: Request) -> Response:
        """Each edge on another machine: connection, lag, what it runs and what it should."""
        services.require(request, "read", "connections")
        states = {state.edge: state for state, silent in sources.health.edges() if not silent}
        joined = sources.health.joined
        return json_answer(
            {"edges": [edge_row(link, states.get(name)) for name, link in sorted(joined.items())]}
        )

    @router.get("/events", tags=["state"])
    async def events(
        request: Request,
        severity: str = "",
        search: str = "",
        limit: Annotated[int, Query(ge=1, le=2_000)] = 100,
    ) -> Response:
        """The newest events first."""
        services.require(request, "read", "events")
        found = [
            event
            for event in reversed(sources.events)
            if (not severity or event.severity == severity)
            and search.lower() in f"{event.code} {event.source} {event.text}".lower()
        ]
        return json_answer({"events": found[:limit]})

    @router.get("/health", tags=["state"])
    async def health() -> Response:
        """Open to everybody: whether this console serves; nothing about the site."""
        return json_answer({"status": "serving", "version": __version__})

    @router.get("/metrics", tags=["state"])
    async def metrics(request: Request) -> Response:
        """Counters and gauges in the Prometheus text format."""
        services.require(request, "read", "metrics")
        return Response(metrics_text(sources), media_type="text/plain; version=0.0.4")


def _add_write(router: APIRouter, services: Services) -> None:
    @router.post("/write", tags=["write"])
    async def write(request: Request) -> Response:
        """Write one value, ``{"tag": path or id, "value": 1.5}``; answers what was read back."""
        try:
            asked = msgspec.json.decode(await request.body(), type=WriteRequest)
        except UNREADABLE as error:
            raise Misconfigured(
                "CONS-1003", f"the body does not fit: {error}", 'Send {"tag": ..., "value": ...}.'
            ) from error
        seen = services.actor(request)
        view = tag_list(services.site(seen) if seen else SiteView(), asked.tag, 1)[0]
        facts = {"equipment": view.unit_path, "value": str(asked.value)}
        actor = services.require(request, "write", f"tag/{view.tag_id}", facts)
        read_back = await write_value(services, actor, view, str(asked.value))
        return json_answer({"tag": view.path, "value": read_back, "unit": view.unit})


def about_tag(view: TagView) -> dict[str, Any]:
    """One tag as REST shows it."""
    return {**msgspec.to_builtins(view), "tag_id": str(view.tag_id)}


def newest(sources: Sources, views: list[TagView]) -> pl.DataFrame:
    """Newest samples with path, unit and the status code's name; a tag that never had one is left out."""
    live = sources.live
    change = live.changes(live.slots([view.tag_id for view in views]), 0)
    seen = [views[place] for place in change.index.tolist()]
    names = {code: status_codes.name(code) for code in np.unique(change.status).tolist()}
    at = pl.Series("source_timestamp", change.source_us, pl.Int64).cast(TIMESTAMP)
    texts = [change.text.get(row) for row in range(len(seen))]
    return pl.DataFrame(  # of series: a dict of lists and types costs ten times as long
        [
            pl.Series("tag_id", np.array([view.tag_id for view in seen], np.int64)),
            pl.Series("path", [view.path for view in seen], pl.String),
            pl.Series("unit", [view.unit for view in seen], pl.String),
            pl.Series("value", change.value, pl.Float64, nan_to_null=True),
            pl.Series("text", texts, pl.String),
            pl.Series("status", change.status, pl.UInt32),
            pl.Series("quality", [names[code] for code in change.status.tolist()], pl.String),
            at,
        ]
    )


def _sought(view: TagView) -> str:
    return f"{view.path} {view.title} {view.title_zh} {view.unit}".lower()


def _span(start: str, end: str, sources: Sources) -> tuple[int, int]:
    now_us = sources.clock.now_us()
    start_us, end_us = parse_time(start, now_us), parse_time(end, now_us)
    if start_us >= end_us:
        raise Misconfigured(
            "CONS-1004", f"the time from {start} to {end} is empty", "Let start lie before end."
        )
    return start_us, end_us


def _tree(site: SiteView) -> dict[str, Any]:
    root: dict[str, Any] = {"path": "", "title": site.title or site.name, "tags": 0, "children": []}
    nodes = {"": root}
    for unit in site.units:
        tokens = unit.path.split("/")
        for depth in range(1, len(tokens) + 1):
            path = "/".join(tokens[:depth])
            if path not in nodes:
                nodes[path] = {
                    "path": path,
                    "title": site.title_of(path, "en"),
                    "title_zh": site.title_of(path, "zh"),
                    "tags": 0,
                    "children": [],
                }
                nodes["/".join(tokens[: depth - 1])]["children"].append(nodes[path])
        nodes[unit.path]["tags"] = len(unit.tags)
    return root
