"""Operations requests on the page of work requests: the list of those sent, and the form of a new one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from nicegui import ui

from headrace.console.app_orders import PRIORITIES, WantedOrder, order_id, send
from headrace.console.app_records import KeptRecord
from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, empty_state, html, pill, show_done, show_error
from headrace.console.widgets.markup import Markup, tag
from headrace.console.widgets.spans import moment
from headrace.model.errors import HeadraceError
from headrace.model.operations_request import OPERATIONS_TYPES, OperationsRequest

Done = Callable[[], Awaitable[None]]
URGENT_MAX = 2


def draw_orders(visit: Visit, found: Sequence[OperationsRequest]) -> None:
    """Those sent, newest first, here."""
    texts = visit.texts
    if not found:
        empty_state("wrench", texts("orders.empty"), texts("orders.empty_what"))
        return
    names = ("when", "what", "equipment", "type", "priority", "by")
    head = tag("tr", [tag("th", texts(f"orders.{name}")) for name in names])
    rows = [_row(visit, each) for each in found]
    table = tag("table.hr-table", tag("thead", head), tag("tbody", rows))
    html(table).classes("hr-card").style("overflow-x:auto").props("data-orders")


def _row(visit: Visit, order: OperationsRequest) -> Markup:
    texts = visit.texts
    title = visit.site.title_of(order.equipment, texts.language) if order.equipment else ""
    what = order.description or order.operations_definition_id
    level = "bad" if order.priority <= URGENT_MAX else "idle"
    return tag(
        "tr",
        tag("td.hr-nowrap.hr-num.hr-dim", moment(order.at_us)),
        tag("td", what, tag("span.hr-sub", order.id)),
        tag("td", title or texts("orders.site")),
        tag("td", texts(f"orders.type_{order.operations_type}")),
        tag("td", pill(level, str(order.priority))),
        tag("td", order.asked_by),
    )


def is_sent(one: KeptRecord, sent: Sequence[OperationsRequest]) -> bool:
    """Whether a work request has led to an operations request."""
    return any(each.id == order_id(one) for each in sent)


def ask_order(visit: Visit, done: Done, one: KeptRecord | None = None) -> None:
    """A dialog for a new request.

    Args:
        done: what follows when it was sent. one: the accepted work request that it is for.
    """
    texts = visit.texts
    types = {name: texts(f"orders.type_{name}") for name in OPERATIONS_TYPES}
    with ui.dialog() as dialog, ui.card().classes("hr-dialog").props("data-order-form"):
        html(texts("orders.new"), tag_name="h2")
        what = ui.input(texts("orders.what"), value=one.text("title") if one else "")
        what.props("outlined dense autofocus maxlength=500").classes("full-width")
        kind = ui.select(types, value="maintenance", label=texts("orders.type"))
        kind.props("outlined dense").classes("full-width")
        place = ui.input(texts("orders.equipment"), value=one.asset if one else "")
        place.props("outlined dense" + (" readonly" if one else "")).classes("full-width")
        first = PRIORITIES.get(one.text("priority"), 5) if one else 5
        priority = ui.select(list(range(10)), value=first, label=texts("orders.priority_label"))
        priority.props("outlined dense").classes("full-width")

        async def do() -> None:
            wanted = WantedOrder(
                operations_type=kind.value or "maintenance",
                description=str(what.value or ""),
                equipment=str(place.value or "").strip("/ "),
                priority=priority.value,
                work_request=one.id if one else "",
            )
            try:
                await send(
                    visit.services,
                    wanted,
                    lambda name, facts: visit.require("operate", name, facts),
                )
            except HeadraceError as error:
                show_error(visit, error)
                return
            dialog.close()
            show_done(texts("orders.sent"))
            await done()

        with ui.element("div").classes("hr-row").style("justify-content:flex-end"):
            button(texts("shell.cancel"), dialog.close)
            button(texts("orders.send"), do, "primary")
    dialog.open()
