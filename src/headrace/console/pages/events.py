"""Events: what happened, newest first."""

from __future__ import annotations

from typing import Final

from nicegui import ui

from headrace.console.pages.shell import Visit, empty_state, frame, html, pill
from headrace.console.widgets.markup import Markup, tag
from headrace.console.widgets.spans import moment
from headrace.model.health import Event

SHOWN_MAX: Final = 300
REFRESH_S: Final = 0.5
_SEVERITIES: Final = ("all", "info", "warning", "error")


def show(visit: Visit) -> None:
    """Draw the page and keep it live."""
    texts, sources = visit.texts, visit.services.sources
    with frame(visit, texts("events.title"), nav="events", help_text=texts("events.help")):
        with ui.element("div").classes("hr-bar"):
            severity = ui.toggle(
                {name: texts(f"events.{name}") for name in _SEVERITIES}, value="all"
            ).props("unelevated dense no-caps padding='4px 12px' toggle-color=primary")
            search = ui.input(placeholder=texts("events.search")).props("outlined dense clearable")
        holder = ui.element("div")
        drawn: list[object] = [None]

        def refresh() -> None:
            wanted = (sources.events_version, severity.value, search.value)
            if wanted == drawn[0]:
                return
            drawn[0] = wanted
            found = _matching(list(sources.events), str(severity.value), str(search.value or ""))
            holder.clear()
            with holder:
                if not found and not sources.events:
                    empty_state("events", texts("events.empty"), texts("events.empty_what"))
                else:
                    table = html(_table(visit, found)).classes("hr-card")
                    table.style("overflow-x:auto")

        severity.on_value_change(refresh)
        search.on_value_change(refresh)
        refresh()
        ui.timer(REFRESH_S, refresh)


def _matching(events: list[Event], severity: str, text: str) -> list[Event]:
    words = text.lower().split()
    newest = sorted(events, key=lambda event: event.at_us, reverse=True)
    return [
        event
        for event in newest
        if severity in ("all", event.severity)
        and all(w in f"{event.code} {event.source} {event.text}".lower() for w in words)
    ][:SHOWN_MAX]


def _table(visit: Visit, events: list[Event]) -> Markup:
    texts = visit.texts
    head = tag(
        "tr",
        tag("th", f"{texts('events.time')} (UTC)"),
        tag("th", ""),
        tag("th", texts("events.text")),
        tag("th.wide", texts("events.source")),
    )
    rows = [
        tag(
            "tr",
            tag("td.hr-nowrap.hr-num.hr-dim", moment(event.at_us)),
            tag("td", pill(event.severity, texts(f"events.{event.severity}"))),
            tag(
                "td",
                tag("code", event.code),
                " ",
                event.text,
                tag("span.hr-sub", event.remedy) if event.remedy else None,
            ),
            tag("td.wide.hr-dim", event.source),
        )
        for event in events
    ]
    return tag("table.hr-table", tag("thead", head), tag("tbody", rows))
