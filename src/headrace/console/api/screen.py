"""What the console's own scripts ask for: down-sampled trends and sparklines."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Final

import polars as pl
from fastapi import APIRouter, Query, Request, Response

from headrace.console.api.answers import TIME_MAX_US, TIME_MIN_US, json_answer, tag_list
from headrace.console.receipts import tell_read
from headrace.console.services import Services
from headrace.console.site_view import TagView
from headrace.console.widgets.units import shown_unit
from headrace.model.errors import Misconfigured
from headrace.model.time import US_PER_MS, US_PER_S

SPARK_US: Final = 900 * US_PER_S
SPARK_POINTS: Final = 60
SPARK_TAGS_MAX: Final = 50
TREND_TAGS_MAX: Final = 8
TREND_POINTS_MAX: Final = 4_000


def make_router(services: Services) -> APIRouter:
    """Routes for the pages' scripts; open to everybody who may read."""
    router = APIRouter(prefix="/api/v1", tags=["screen"])
    sources = services.sources

    @router.get("/sparklines")
    async def sparklines(request: Request, tag_ids: str) -> Response:
        """Last 15 minutes of up to 50 tags, lowest and highest value of each 15 seconds."""
        actor = services.require(request, "read", "samples")
        site = services.site(actor)
        views = tag_list(site, tag_ids, SPARK_TAGS_MAX)
        end_us = sources.clock.now_us() + US_PER_S
        ids = [view.tag_id for view in views]
        span = (end_us - SPARK_US, end_us)
        batch = await sources.history.read(ids, *span)
        tell_read(services, actor, "screen/sparklines", ids, batch.height, span)
        return json_answer(_sparks(batch))

    @router.get("/trend")
    async def trend(
        request: Request,
        tag_ids: str,
        start_ms: float,
        end_ms: float,
        points: Annotated[int, Query(ge=10, le=TREND_POINTS_MAX)] = 1_000,
    ) -> Response:
        """Up to eight tags as a screen draws them: every pixel keeps its lowest and highest value."""
        actor = services.require(request, "read", "samples")
        site = services.site(actor)
        views = tag_list(site, tag_ids, TREND_TAGS_MAX)
        limits_ms = TIME_MIN_US / US_PER_MS, TIME_MAX_US / US_PER_MS
        if not limits_ms[0] <= start_ms < end_ms <= limits_ms[1]:  # false for NaN too
            raise Misconfigured(
                "CONS-1003", f"the time from {start_ms} to {end_ms} is no span", "End after start."
            )
        start_us, end_us = int(start_ms * US_PER_MS), int(end_ms * US_PER_MS)
        ask = sources.history.screen
        found = await asyncio.gather(
            *(ask(v.tag_id, start_us, end_us, points, v.scan_interval_ms) for v in views)
        )
        samples = sum(line["samples"] for line in found)
        ids = [view.tag_id for view in views]
        tell_read(services, actor, "screen/trend", ids, samples, (start_us, end_us))
        lines = [{**_about(v), **line} for v, line in zip(views, found, strict=True)]
        return json_answer({"start_ms": start_ms, "end_ms": end_ms, "tags": lines})

    return router


def _about(view: TagView) -> dict[str, Any]:
    return {
        "tag_id": str(view.tag_id),
        "path": view.path,
        "unit": shown_unit(view.unit),
        "title": view.title,
        "title_zh": view.title_zh,
    }


def _sparks(batch: pl.DataFrame) -> dict[str, Any]:
    width = SPARK_US // SPARK_POINTS
    time = pl.col("source_timestamp").to_physical()
    found = (
        batch.lazy()
        .filter(pl.col("value").is_finite() & (pl.col("status") < 2**31))
        .group_by("tag_id", (time // width).alias("bucket"))
        .agg(
            (time.first() / US_PER_MS).alias("t"),
            pl.col("value").min().alias("lo"),
            pl.col("value").max().alias("hi"),
        )
        .sort("tag_id", "bucket")
        .group_by("tag_id", maintain_order=True)
        .agg("t", "lo", "hi")
        .collect()
    )
    return {str(tag_id): {"t": t, "lo": lo, "hi": hi} for tag_id, t, lo, hi in found.iter_rows()}
