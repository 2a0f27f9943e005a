"""The dialog that writes a value to a device; the edge decides, writes, reads back and records."""

from __future__ import annotations

from nicegui import ui

from headrace.console.pages.overview import tag_title
from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, html, show_done, show_error
from headrace.console.site_view import TagView
from headrace.console.widgets.units import shown_unit
from headrace.console.writes import write_value
from headrace.model.errors import HeadraceError


def open_write_dialog(visit: Visit, view: TagView) -> None:
    """Ask for the new value and write it."""
    texts = visit.texts
    title = tag_title(view, texts)
    with ui.dialog() as dialog, ui.card().classes("hr-dialog"):
        html(texts("asset.write_title", name=title), tag_name="h2")
        html(texts("asset.write_what")).classes("hr-dim")
        box = ui.input(texts("asset.write_value"), placeholder=shown_unit(view.unit))
        box.props("outlined dense autofocus stack-label").classes("full-width")
        if view.write_minimum is not None or view.write_maximum is not None:
            low = "−∞" if view.write_minimum is None else view.write_minimum
            high = "∞" if view.write_maximum is None else view.write_maximum
            text = texts("asset.write_range", low=low, high=high)
            html(f"{text} {shown_unit(view.unit)}").classes("hr-dim")

        async def write() -> None:
            facts = {"equipment": view.unit_path, "value": str(box.value or "")}
            try:
                actor = visit.require("write", f"tag/{view.tag_id}", facts)
                read_back = await write_value(visit.services, actor, view, str(box.value or ""))
            except HeadraceError as error:
                show_error(visit, error)
                return
            dialog.close()
            show_done(texts("asset.written", value=read_back))

        with ui.element("div").classes("hr-row").style("justify-content:flex-end"):
            button(texts("shell.cancel"), dialog.close)
            button(texts("asset.write_do"), write, "primary")
    dialog.open()
