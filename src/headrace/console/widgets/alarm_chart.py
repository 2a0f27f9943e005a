"""A chart whose colours are the theme's: ``var:bad`` in the options is the token of that name."""

from __future__ import annotations

import json
from typing import Any, Final

from nicegui import ui

_BARE: Final = ("type", "xAxisIndex", "yAxisIndex")


def draw_chart(options: dict[str, Any]) -> None:
    """Fill the place with a chart; ``static/alarms.js`` colours it, also when the theme changes.

    Args:
        options: of ECharts, with one of ``xAxis`` and ``yAxis`` or lists of them, and ``series``.
    """
    chart = ui.echart(_skeleton(options)).classes("full-width full-height")
    text = json.dumps(options)
    # The page's script may come after the first message of the page.
    wait = "while (!(window.hr && hr.alarms)) await new Promise((done) => setTimeout(done, 20));"
    call = f"(async () => {{ {wait} hr.alarms.draw({chart.id}, {text}); }})()"
    ui.timer(0.01, lambda: ui.run_javascript(call), once=True)


def _skeleton(options: dict[str, Any]) -> dict[str, Any]:
    """Axes and series without their content: what the component itself sets at any time merges with what
    was drawn, and takes nothing away."""

    def bare(part: Any) -> Any:
        if isinstance(part, list):
            return [bare(each) for each in part]
        return {name: part[name] for name in _BARE if name in part}

    return {name: bare(options[name]) for name in ("xAxis", "yAxis", "series")}
