"""A chart whose colours are the theme's: ``var:bad`` in the options is the token of that name."""

from __future__ import annotations

import json
from typing import Any

from nicegui import ui


def draw_chart(options: dict[str, Any]) -> None:
    """Fill the place with a chart; ``static/alarms.js`` colours it, also when the theme changes."""
    chart = ui.echart({}).classes("full-width full-height")
    text = json.dumps(options)
    ui.timer(0.01, lambda: ui.run_javascript(f"hr.alarms.draw({chart.id}, {text})"), once=True)
