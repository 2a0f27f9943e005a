"""What charts of a view need of history, read for the tags that the actor may see."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import polars as pl

from headrace.console.app_views import charts
from headrace.console.app_views.charts import HOUR_US
from headrace.console.app_views.laid import Place, Shown
from headrace.console.receipts import tell_read
from headrace.console.services import Services
from headrace.model.deployment import BoundAsset
from headrace.model.time import to_datetime
from headrace.model.views import HeatMap, Kpi, Trend, XyPlot
from headrace.security.policy import Actor

POINTS: Final = 400
XY_PARTS: Final = 240
HEAT_COLUMNS_MAX: Final = 48
_AGGREGATES: Final = {
    "average": "Average",
    "minimum": "Minimum",
    "maximum": "Maximum",
    "change": "Delta",
}
Chart = Trend | XyPlot | HeatMap


class Past:
    """The past of a place, told in the receipts of reads.

    Args:
        actor: who looks.
    """

    def __init__(self, services: Services, actor: Actor, place: Place) -> None:
        self._services = services
        self._actor = actor
        self._place = place
        self._history = services.sources.history

    async def chart(self, widget: Chart) -> dict[str, Any] | None:
        """Options for ECharts; None when no asset has what the widget shows.

        Raises:
            HeadraceError: what history and receipts raise.
        """
        if isinstance(widget, Trend):
            return await self._trend(widget)
        if isinstance(widget, XyPlot):
            return await self._xy_plot(widget)
        return await self._heat_map(widget)

    async def kpi(self, widget: Kpi, asset: BoundAsset) -> float | None:
        """What the span gave of a quantity; None when nothing was."""
        shown = self._place.shown(asset, widget.name)
        if shown.tag is None:
            return None
        start_us, end_us = self._span(widget.span_h)
        found = await self._history.aggregate(
            [shown.tag.tag_id], start_us, end_us, 0, _AGGREGATES[widget.of]
        )
        self._tell([shown], found.height, (start_us, end_us))
        value = found["value"].drop_nulls()
        return float(value[0]) if len(value) else None

    def _span(self, span_h: float) -> tuple[int, int]:
        now_us = self._services.sources.clock.now_us()
        return now_us - int(span_h * HOUR_US), now_us

    def _tell(self, shown: list[Shown], samples: int, span: tuple[int, int]) -> None:
        ids = [one.tag.tag_id for one in shown if one.tag is not None]
        door = f"view/{self._place.app.manifest.id}"
        tell_read(self._services, self._actor, door, ids, samples, span)

    async def _trend(self, widget: Trend) -> dict[str, Any] | None:
        place = self._place
        if place.view.scope == "fleet":
            pairs = [(place.title(a), place.shown(a, widget.names[0])) for a in place.assets]
        else:
            pairs = [(s.title, s) for s in (place.shown(place.asset, n) for n in widget.names)]
        pairs = [(title, shown) for title, shown in pairs if shown.tag is not None]
        if not pairs:
            return None
        span = self._span(widget.span_h)
        ask = self._history.screen
        ends = [(s.title, s) for s in (place.shown(place.asset, n) for n in widget.band) if s.tag]
        count = min(len(pairs), charts.SERIES_MAX)
        pairs = [*pairs[:count], *(ends if len(ends) == 2 else [])]
        tags = [shown.tag for _, shown in pairs if shown.tag is not None]
        found = await asyncio.gather(
            *(ask(tag.tag_id, *span, POINTS, tag.scan_interval_ms) for tag in tags)
        )
        self._tell([shown for _, shown in pairs], sum(one["samples"] for one in found), span)
        lines = [
            {"title": title, "unit": tag.unit, "t": one["t"], "v": one["v"]}
            for (title, _), tag, one in zip(pairs, tags, found, strict=True)
        ]
        limits = place.limits(pairs[0][1], widget.limits)
        return charts.trend(lines[:count], span, limits, lines[count:])

    async def _xy_plot(self, widget: XyPlot) -> dict[str, Any] | None:
        x = self._place.shown(self._place.asset, widget.x)
        y = self._place.shown(self._place.asset, widget.y)
        if x.tag is None or y.tag is None:
            return None
        span = self._span(widget.span_h)
        every_us = max((span[1] - span[0]) // XY_PARTS, 1)
        ids = [x.tag.tag_id, y.tag.tag_id]
        found = await self._history.aggregate(ids, *span, every_us, "Average")
        self._tell([x, y], found.height, span)
        one, other = (
            found.filter(pl.col("tag_id") == tag_id).select("timestamp", "value").drop_nulls()
            for tag_id in ids
        )
        points = one.join(other, on="timestamp", suffix="_y").sort("timestamp")
        points = points.select(pl.col("value").alias("x"), pl.col("value_y").alias("y"))
        return charts.xy_plot(points, (x.title, y.title), (x.tag.unit, y.tag.unit))

    async def _heat_map(self, widget: HeatMap) -> dict[str, Any] | None:
        place = self._place
        shown = [place.shown(asset, widget.name) for asset in place.assets]
        pairs = [(a, s) for a, s in zip(place.assets, shown, strict=True) if s.tag is not None]
        if not pairs:
            return None
        unit = next(s.tag.unit for _, s in pairs if s.tag is not None)
        ids = [s.tag.tag_id for _, s in pairs if s.tag is not None]
        end_us = -(-self._span(widget.span_h)[1] // HOUR_US) * HOUR_US
        hours = max(int(widget.span_h), 1)
        is_fleet = place.view.scope == "fleet"
        step_h = -(-hours // HEAT_COLUMNS_MAX) if is_fleet else 1
        start_us = end_us - -(-hours // step_h) * step_h * HOUR_US
        found = await self._history.aggregate(ids, start_us, end_us, step_h * HOUR_US, "Average")
        self._tell(shown, found.height, (start_us, end_us))
        if is_fleet:
            titles = [place.title(asset) for asset, _ in pairs]
            cells, columns = _by_asset(found, ids, start_us, step_h)
            return charts.heat_map(cells, columns, titles, unit)
        cells, days = _by_day(found, place.site.time_zone)
        return charts.heat_map(cells, [f"{hour:02}" for hour in range(24)], days, unit)


def _by_asset(
    found: pl.DataFrame, ids: list[int], start_us: int, step_h: int
) -> tuple[pl.DataFrame, list[str]]:
    place = (pl.col("timestamp").to_physical() - start_us) // (step_h * HOUR_US)
    cells = found.select(
        place.alias("column"),
        pl.col("tag_id").replace_strict(ids, range(len(ids))).alias("row"),
        "value",
    )
    count = int(cells["column"].to_numpy().max()) + 1 if cells.height else 0
    columns = [
        to_datetime(start_us + n * step_h * HOUR_US).strftime("%d %H:%M") for n in range(count)
    ]
    return cells, columns


def _by_day(found: pl.DataFrame, time_zone: str) -> tuple[pl.DataFrame, list[str]]:
    """By the plant's own clock; the hour that a change of it doubles is the mean of both."""
    local = found.select(
        pl.col("timestamp").dt.convert_time_zone(time_zone).alias("at"), pl.col("value")
    )
    cells = local.select(
        pl.col("at").dt.strftime("%m-%d").alias("day"),
        pl.col("at").dt.hour().cast(pl.Int64).alias("column"),
        "value",
    )
    days = cells["day"].unique(maintain_order=True).to_list()
    cells = cells.group_by("day", "column", maintain_order=True).agg(pl.col("value").mean())
    row = pl.col("day").replace_strict(days, range(len(days))).alias("row")
    return cells.select("column", row, "value"), days
