"""Widgets drawn as charts: options for ECharts. A colour is named ``--hr-...``, the page puts its own there."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from headrace.console.widgets.units import shown_unit
from headrace.model.time import US_PER_MS, US_PER_S

HOUR_US: Final = 3_600 * US_PER_S
SERIES_MAX: Final = 8
_TEXT: Final = {"color": "--hr-text-3", "fontSize": 11, "hideOverlap": True}
_GRID: Final = {"lineStyle": {"color": "--hr-line"}}
_TIP: Final = {
    "confine": True,
    "transitionDuration": 0,
    "backgroundColor": "--hr-raised",
    "borderColor": "--hr-line",
    "textStyle": {"color": "--hr-text", "fontSize": 12.5},
}


def trend(
    lines: list[dict[str, Any]],
    span_us: tuple[int, int],
    limits: list[tuple[float, str]] | None = None,
    band: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Lines over time.

    Args:
        lines: each with ``title``, ``unit``, and ``t`` (UTC ms), ``v`` as
            :meth:`headrace.console.history.History.screen` gives them.
        limits: value and state, drawn across in the unit of the first line.
        band: lower and upper end, as lines.
    """
    series = [_line(line, place, units_of(lines)) for place, line in enumerate(lines[:SERIES_MAX])]
    if limits and series:
        series[0]["markLine"] = _across(limits)
    if band and series:
        series = [*_band((band[0], band[1]), units_of(lines)), *series]
    units = units_of(lines)
    return {
        "animation": False,
        "legend": {**_legend(len(lines)), "data": [line["title"] for line in lines]},
        "grid": {
            "left": 48,
            "right": 48 if len(units) > 1 else 14,
            "top": 24,
            "bottom": 50 if len(lines) > 1 else 26,
        },
        "xAxis": {
            "type": "time",
            "min": span_us[0] / US_PER_MS,
            "max": span_us[1] / US_PER_MS,
            "axisLabel": _TEXT,
            "axisLine": {"lineStyle": {"color": "--hr-line-strong"}},
            "splitLine": {"show": False},
        },
        "yAxis": [_axis(unit, place) for place, unit in enumerate(units[:2])],
        "tooltip": {**_TIP, "trigger": "axis", "valueFormatter": "fn:format"},
        "series": series,
    }


def units_of(lines: list[dict[str, Any]]) -> list[str]:
    """Units of some lines, each once, in their order."""
    return list(dict.fromkeys(line["unit"] for line in lines)) or [""]


def _across(limits: list[tuple[float, str]]) -> dict[str, Any]:
    colours = {"good": "--hr-good", "warn": "--hr-warn", "bad": "--hr-bad"}
    marks = [
        {"yAxis": at, "lineStyle": {"color": colours[state], "type": "dashed", "width": 1.2}}
        for at, state in limits
    ]
    return {"symbol": "none", "silent": True, "label": {"show": False}, "data": marks}


def _band(ends: tuple[dict[str, Any], dict[str, Any]], units: list[str]) -> list[dict[str, Any]]:
    """The lower end without a line, and on top of it what is missing to the upper end, filled."""
    low, high = ends
    place = min(units.index(low["unit"]), 1) if low["unit"] in units else 0
    upper = dict(zip(high["t"], high["v"], strict=True))
    pairs = [(t, v, upper.get(t)) for t, v in zip(low["t"], low["v"], strict=True)]
    known = [(t, v, u) for t, v, u in pairs if v is not None and u is not None]
    common = {"type": "line", "yAxisIndex": place, "stack": "band", "showSymbol": False, "silent": True,
              "lineStyle": {"opacity": 0}, "tooltip": {"show": False}}  # fmt: skip
    return [
        {**common, "name": low["title"], "data": [[t, v] for t, v, _ in known]},
        {**common, "name": high["title"], "data": [[t, u - v] for t, v, u in known],
         "areaStyle": {"color": "--hr-accent", "opacity": 0.16}},
    ]  # fmt: skip


def _legend(count: int) -> dict[str, Any]:
    text = {"color": "--hr-text-2", "fontSize": 12}
    return {"show": count > 1, "bottom": 0, "icon": "roundRect", "itemHeight": 3, "itemWidth": 14,
            "textStyle": text, "type": "scroll", "pageTextStyle": text}  # fmt: skip


def _axis(unit: str, place: int) -> dict[str, Any]:
    return {
        "type": "value",
        "scale": True,
        "name": shown_unit(unit),
        "nameTextStyle": {
            "color": "--hr-text-3",
            "fontSize": 11,
            "align": "right" if place else "left",
        },
        "axisLabel": {**_TEXT, "formatter": "fn:tick"},
        "splitLine": {"show": not place, **_GRID},
    }


def _line(line: dict[str, Any], place: int, units: list[str]) -> dict[str, Any]:
    colour = f"--hr-series-{place % SERIES_MAX}"
    return {
        "type": "line",
        "name": line["title"],
        "yAxisIndex": min(units.index(line["unit"]), 1),
        "data": list(zip(line["t"], line["v"], strict=True)),
        "showSymbol": len(line["t"]) < 40,
        "symbolSize": 4,
        "connectNulls": False,
        "lineStyle": {"width": 1.4, "color": colour},
        "itemStyle": {"color": colour},
    }


def xy_plot(
    points: pl.DataFrame, titles: tuple[str, str], units: tuple[str, str]
) -> dict[str, Any]:
    """One quantity against another; later points are stronger.

    Args:
        points: columns ``x`` and ``y``, in the order of time.
    """
    count = max(points.height, 1)
    rows = [
        {"value": [x, y], "itemStyle": {"opacity": round(0.25 + 0.75 * (i + 1) / count, 3)}}
        for i, (x, y) in enumerate(points.select("x", "y").iter_rows())
    ]
    names = [f"{t} ({shown_unit(u)})" if u else t for t, u in zip(titles, units, strict=True)]
    name = {"color": "--hr-text-2", "fontSize": 12}
    label = {**_TEXT, "formatter": "fn:tick"}
    return {
        "animation": False,
        "grid": {"left": 52, "right": 18, "top": 30, "bottom": 44},
        "xAxis": {"type": "value", "scale": True, "name": names[0], "nameLocation": "middle",
                  "nameGap": 26, "nameTextStyle": name, "axisLabel": label, "splitLine": _GRID},
        "yAxis": {"type": "value", "scale": True, "name": names[1],
                  "nameTextStyle": {**name, "align": "left"}, "axisLabel": label, "splitLine": _GRID},
        "tooltip": {**_TIP, "trigger": "item", "valueFormatter": "fn:format"},
        "series": [{"type": "scatter", "symbolSize": 7, "data": rows,
                    "itemStyle": {"color": "--hr-series-0"}}],
    }  # fmt: skip


def heat_map(cells: pl.DataFrame, columns: list[str], rows: list[str], unit: str) -> dict[str, Any]:
    """Averages as colours.

    Args:
        cells: columns ``column`` and ``row`` (places in the two lists) and ``value``.
    """
    found = cells.drop_nulls("value")
    values = found["value"]
    numbers = values.to_numpy()
    low, high = (float(numbers.min()), float(numbers.max())) if found.height else (0.0, 1.0)
    data = [[c, r, round(v, 6)] for c, r, v in found.select("column", "row", "value").iter_rows()]
    return {
        "animation": False,
        "grid": {"left": 8, "right": 12, "top": 8, "bottom": 46, "containLabel": True},
        "xAxis": {"type": "category", "data": columns, "axisLabel": _TEXT, "axisTick": {"show": False}},
        "yAxis": {"type": "category", "data": rows, "axisLabel": _TEXT, "axisTick": {"show": False},
                  "inverse": True},
        "visualMap": {"min": low, "max": high if high != low else low + 1, "orient": "horizontal",
                      "left": "center", "bottom": 0, "itemHeight": 120, "itemWidth": 10,
                      "text": [shown_unit(unit), ""], "textStyle": {"color": "--hr-text-3", "fontSize": 11},
                      "formatter": "fn:tick",
                      "inRange": {"color": ["--hr-accent-soft", "--hr-accent", "--hr-high"]}},
        "tooltip": {**_TIP, "position": "top", "valueFormatter": "fn:format"},
        "series": [{"type": "heatmap", "data": data,
                    "itemStyle": {"borderColor": "--hr-surface", "borderWidth": 1}}],
    }  # fmt: skip


def months(rows: list[tuple[str, float]], title: str, unit: str) -> dict[str, Any]:
    """Sums by month as bars.

    Args:
        rows: (month, sum), oldest first.
    """
    return {
        "animation": False,
        "grid": {"left": 56, "right": 14, "top": 28, "bottom": 26},
        "xAxis": {"type": "category", "data": [month for month, _ in rows], "axisLabel": _TEXT},
        "yAxis": {**_axis("", 0), "scale": False, "name": unit},
        "tooltip": {**_TIP, "trigger": "axis", "valueFormatter": "fn:format"},
        "series": [{"type": "bar", "name": title, "barMaxWidth": 42, "data": [s for _, s in rows],
                    "itemStyle": {"color": "--hr-good", "borderRadius": [3, 3, 0, 0]}}],
    }  # fmt: skip


def curves(x: str, lines: list[tuple[str, list[tuple[float, float]]]]) -> dict[str, Any]:
    """Columns of an answer against its first one.

    Args:
        lines: (name, points).
    """
    label = {**_TEXT, "formatter": "fn:tick"}
    return {
        "animation": False,
        "legend": _legend(len(lines)),
        "grid": {"left": 52, "right": 18, "top": 24, "bottom": 66 if len(lines) > 1 else 44},
        "xAxis": {"type": "value", "scale": True, "name": x, "nameLocation": "middle", "nameGap": 26,
                  "nameTextStyle": {"color": "--hr-text-2", "fontSize": 12}, "axisLabel": label,
                  "splitLine": _GRID},
        "yAxis": {**_axis("", 0), "name": lines[0][0] if len(lines) == 1 else ""},
        "tooltip": {**_TIP, "trigger": "axis", "valueFormatter": "fn:format"},
        "series": [
            {"type": "line", "name": name, "data": points, "symbolSize": 5,
             "lineStyle": {"width": 1.4, "color": f"--hr-series-{i}"},
             "itemStyle": {"color": f"--hr-series-{i}"}}
            for i, (name, points) in enumerate(lines)
        ],
    }  # fmt: skip
