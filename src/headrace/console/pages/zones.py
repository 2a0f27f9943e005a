"""Zones and conduits of the site, as the site file declares them."""

from __future__ import annotations

import asyncio

from nicegui import ui

from headrace.console.pages.shell import Visit, empty_state, frame, html, show_error
from headrace.console.widgets.markup import Markup, tag
from headrace.console.widgets.zone_picture import zone_picture
from headrace.model.errors import HeadraceError
from headrace.site.file import load_site
from headrace.site.model import SiteModel


async def show(visit: Visit) -> None:
    """Draw the page."""
    texts, path = visit.texts, visit.services.sources.folder.site_file
    with frame(visit, texts("zones.title"), nav="connections", help_text=texts("zones.help")):
        try:
            model = await asyncio.to_thread(load_site, path)
        except HeadraceError as error:
            show_error(visit, error)
            return
        if not model.zones.zones:
            empty_state("plug", texts("zones.empty"), texts("zones.empty_what"))
            return
        with ui.element("div").classes("hr-card hr-pad").style("overflow-x:auto"):
            html(zone_picture(model.zones, texts))
        html(_ways(visit, model)).classes("hr-card").style("margin-top:16px;overflow-x:auto")


def _ways(visit: Visit, model: SiteModel) -> Markup:
    zones, texts = model.zones, visit.texts
    words = ("connection", "zone", "edge", "zone", "by")
    rows = []
    for each in model.connections:
        device = zones.zone_of_connection(each.name, each.endpoint)
        edge = zones.zone_of_edge(each.edge)
        found = zones.conduits_of(device, edge, each.protocol)
        by = ", ".join(f"{c.source} → {c.target}" for c in found) or texts("zones.same")
        cells = (each.name, device, each.edge, edge, by)
        rows.append(tag("tr", [tag("td", cell) for cell in cells]))
    head = tag("tr", [tag("th", texts(f"zones.{word}")) for word in words])
    return tag("table.hr-table", tag("thead", head), tag("tbody", rows))
