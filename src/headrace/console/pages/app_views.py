"""Draws a view of an app: its widgets on a grid of twelve columns, each kept up to date."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from nicegui import ui

from headrace.apps.views import to_html
from headrace.console.app_views import live_parts
from headrace.console.app_views.laid import Place
from headrace.console.app_views.past import Past
from headrace.console.error_words import error_markup
from headrace.console.pages.app_parts import make_chart, put_chart
from headrace.console.pages.app_service import draw_form
from headrace.console.pages.app_values import draw_values, draw_work
from headrace.console.pages.shell import Visit, empty_state, html
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.units import shown_unit
from headrace.model.errors import HeadraceError
from headrace.model.views import (
    AlarmList,
    AnyWidget,
    Bars,
    Form,
    Gauge,
    HeatMap,
    Kpi,
    Markdown,
    Mimic,
    StatusGrid,
    Table,
    Trend,
    ValueLedger,
    WorkRequests,
    XyPlot,
)

REFRESH_S: Final = 15.0
ALARMS_S: Final = 2.0


def draw_view(visit: Visit, place: Place) -> None:
    """The widgets of a view, in the order of its file."""
    needs_asset = place.view.scope != "app"
    if needs_asset and not place.assets:
        empty_state(
            "tree", visit.texts("app_views.no_asset"), visit.texts("app_views.no_asset_what")
        )
        return
    with ui.element("div").classes("hr-view").props(f'data-view="{place.view.name}"'):
        for number, widget in enumerate(place.view.widgets):
            card = ui.element("section").classes(f"hr-card hr-widget {widget.height}")
            card.style(f"--hr-columns:{widget.width}")
            card.props(f'data-kind="{kind_of(widget)}"')
            with card:
                if title := _title(place, widget):
                    html(title, tag_name="h2").classes("hr-widget-title")
                with ui.element("div").classes("hr-widget-body"):
                    _draw(visit, place, widget, number)


def kind_of(widget: AnyWidget) -> str:
    """The word of a widget's kind."""
    return str(type(widget).__struct_config__.tag)


def _title(place: Place, widget: AnyWidget) -> str:
    """As written; else what it shows."""
    if widget.title:
        return place.texts.title(widget.title, "")
    if isinstance(widget, Markdown):
        return ""
    if isinstance(widget, Form):
        service = place.app.service(widget.service)
        return place.texts.title(service.title if service else {}, widget.service)
    if isinstance(widget, AlarmList | ValueLedger | WorkRequests):
        return place.texts(f"app_views.{kind_of(widget)}")
    if not place.assets or isinstance(widget, Mimic):
        return ""
    names = [getattr(widget, name) for name in ("name", "y", "x") if hasattr(widget, name)]
    names += list(getattr(widget, "names", []))
    if place.view.scope == "fleet" and isinstance(widget, Trend):
        names = names[:1]
    return " · ".join(place.shown(place.assets[0], name).title for name in names[:4])


def _draw(visit: Visit, place: Place, widget: AnyWidget, number: int) -> None:
    """One widget. What shows newest values is markup that the page's own script keeps."""
    made = _markup(place, widget, number)
    if made is not None:
        html(made)
    elif isinstance(widget, AlarmList):
        _follow_alarms(visit, place, widget)
    elif isinstance(widget, Kpi):
        _kpi_of_past(visit, place, widget)
    elif isinstance(widget, Form):
        draw_form(visit, place.app, widget.service)
    elif isinstance(widget, ValueLedger | WorkRequests):
        assets = {asset.path for asset in place.assets} if place.view.scope != "app" else None
        draw = draw_work if isinstance(widget, WorkRequests) else draw_values
        draw(visit, app_id=place.app.manifest.id, assets=assets, count_max=widget.count_max)
    elif isinstance(widget, Trend | XyPlot | HeatMap):
        _draw_chart(visit, place, widget)


def _markup(place: Place, widget: AnyWidget, number: int) -> Markup | None:
    if isinstance(widget, Markdown):
        return Markup(f'<div class="hr-words">{to_html(place.texts.title(widget.text, ""))}</div>')
    if isinstance(widget, Gauge):
        return live_parts.gauge(place, widget)
    if isinstance(widget, Kpi) and widget.of == "now":
        is_fleet = place.view.scope == "fleet"
        return live_parts.kpi_fleet(place, widget) if is_fleet else live_parts.kpi(place, widget)
    if isinstance(widget, Table):
        return live_parts.table(place, widget)
    if isinstance(widget, StatusGrid):
        return live_parts.status_grid(place, widget)
    if isinstance(widget, Bars):
        return live_parts.bars(place, widget)
    if isinstance(widget, Mimic):
        return live_parts.mimic(place, widget, f"w{number}-")
    return None


def _follow_alarms(visit: Visit, place: Place, widget: AlarmList) -> None:
    body, drawn = html(""), [""]

    def refresh() -> None:
        made = live_parts.alarm_list(place, widget, visit.alarms.states)
        if made != drawn[0]:
            drawn[0] = made
            body.set_content(made)

    refresh()
    ui.timer(ALARMS_S, refresh)


def _kpi_of_past(visit: Visit, place: Place, widget: Kpi) -> None:
    body = html(tag(".hr-view-kpi", tag("b.hr-view-big", "…")))
    past = Past(visit.services, visit.actor, place)

    async def refresh() -> None:
        lines = [(asset, await past.kpi(widget, asset)) for asset in place.assets]
        if place.view.scope == "fleet":
            rows = [
                tag(
                    "tr",
                    tag("td", place.title(asset)),
                    tag("td.num", _number(place, widget, value)),
                )
                for asset, value in lines
            ]
            body.set_content(tag("table.hr-table", tag("tbody", rows)))
            return
        value = lines[0][1]
        state = _state(place, widget, value)
        body.set_content(
            tag(".hr-view-kpi", _number(place, widget, value, "hr-view-big"), data_state=state)
        )

    _keep(visit, body, refresh)


def _number(place: Place, widget: Kpi, value: float | None, cls: str = "") -> Markup:
    shown = place.shown(place.assets[0], widget.name)
    if value is None or shown.tag is None:
        return tag("span.hr-dim", "–")
    text = f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}".replace(",", "\u202f")
    note = place.texts(f"app_views.of_{widget.of}", h=f"{widget.span_h:g}")
    unit = tag("span.hr-unit", shown_unit(shown.tag.unit))
    return join(tag("b.hr-num", text, cls=cls), unit, tag("span.hr-sub", note))


def _state(place: Place, widget: Kpi, value: float | None) -> str | None:
    if value is None or not widget.limits:
        return None
    state = "good"
    for at, name in place.limits(place.shown(place.asset, widget.name), widget.limits):
        state = name if value >= at else state
    return state


def _draw_chart(visit: Visit, place: Place, widget: Trend | XyPlot | HeatMap) -> None:
    past = Past(visit.services, visit.actor, place)
    holder = ui.element("div")
    note = html("").classes("hr-dim hr-hide")
    made: list[ui.echart] = []

    async def refresh() -> None:
        options = await past.chart(widget)
        if options is None:
            note.classes(remove="hr-hide").set_content(place.texts("app_views.nothing"))
        elif made:
            put_chart(made[0], options)
        else:
            with holder:
                made.append(make_chart(options))

    _keep(visit, note, refresh)


def _keep(visit: Visit, note: ui.html, refresh: Callable[[], Awaitable[None]]) -> None:
    """Draw soon after the page stands, then each few seconds; trouble is told where the widget is."""

    async def tried() -> None:
        try:
            await refresh()
        except HeadraceError as error:
            note.classes(remove="hr-hide").set_content(error_markup(visit.texts, error))

    ui.timer(0.05, tried, once=True)
    ui.timer(REFRESH_S, tried)
