"""Equipment tree, and the values of what is chosen in it."""

from __future__ import annotations

from urllib.parse import quote

from nicegui import ui

from headrace.console.pages.overview import tag_title
from headrace.console.pages.shell import (
    Visit,
    empty_state,
    frame,
    html,
)
from headrace.console.pages.write import open_write_dialog
from headrace.console.site_view import TagView, roll_up
from headrace.console.texts import Texts
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.units import shown_unit
from headrace.console.widgets.why_dot import why_dot

ROWS_MAX = 500
TREE_REFRESH_S = 1.0
# On a phone the tree is a low box above the values: what is chosen shall be in it.
_SHOW_CHOSEN = (
    "const tree = document.querySelector('.hr-tree'), on = tree && tree.querySelector('a.on');"
    " if (on) tree.scrollTop += on.getBoundingClientRect().top - tree.getBoundingClientRect().top"
    " - tree.clientHeight / 2;"
)


def show(visit: Visit) -> None:
    """Draw the page for the equipment path in the URL; "" is the whole site."""
    texts, site = visit.texts, visit.site
    path = str(visit.request.path_params.get("path", "")).strip("/")
    tags = site.in_type_order(site.below(path))
    title = site.title_of(path, texts.language) if path else texts("asset.all_site")
    crumbs = _crumbs(visit, path)
    with frame(
        visit, title, nav="assets", help_text=f"{texts('asset.tree_help')} {texts('asset.help')}",
        crumbs=crumbs,
    ), ui.element("div").classes("hr-split"):  # fmt: skip
        _tree(visit, path)
        with ui.element("div"):
            if not tags:
                empty_state("tree", texts("asset.empty"), texts("asset.empty_what"))
                return
            _toolbar(texts)
            if len(tags) > ROWS_MAX:
                note = texts("asset.limited", n=ROWS_MAX, total=len(tags))
                html(note).classes("hr-dim").style("margin-bottom:8px")
            _values(visit, tags[:ROWS_MAX], path)


def _crumbs(visit: Visit, path: str) -> list[tuple[str, str]]:
    if not path:
        return []
    tokens = path.split("/")
    above = ["/".join(tokens[:depth]) for depth in range(1, len(tokens))]
    language = visit.texts.language
    first = (visit.texts("asset.title"), "/equipment")
    return [first, *((visit.site.title_of(p, language), f"/equipment/{quote(p)}") for p in above)]


def _toolbar(texts: Texts) -> None:
    html(
        join(
            tag(
                "input.hr-input.hr-grow", type="search", data_filter=True,
                placeholder=texts("asset.filter"), aria_label=texts("asset.filter"),
                style="max-width:320px",
            ),
            tag("span.hr-grow"),
            tag(
                "button.hr-btn", icon("trend", 18), texts("asset.trend_selected"),
                data_do="trend-chosen",
            ),
        )
    ).classes("hr-bar")  # fmt: skip


def _tree(visit: Visit, chosen: str) -> None:
    holder = html("").classes("hr-card hr-tree")

    def refresh() -> None:
        holder.set_content(_tree_markup(visit, chosen))

    refresh()
    ui.timer(TREE_REFRESH_S, refresh)
    ui.timer(0.05, lambda: ui.run_javascript(_SHOW_CHOSEN), once=True)


def _tree_markup(visit: Visit, chosen: str) -> Markup:
    sources = visit.services.sources
    now_us = sources.clock.now_us()
    states = {u.path: roll_up(u, sources.live, now_us).state for u in visit.site.units}
    paths = sorted({p for unit in visit.site.units for p in _ancestors(unit.path)})
    children: dict[str, list[str]] = {}
    for path in paths:
        children.setdefault(path.rpartition("/")[0], []).append(path)

    def node(path: str) -> Markup:
        title = visit.site.title_of(path, visit.texts.language)
        state = states.get(path)
        on = path == chosen
        link = tag(
            "a",
            tag("span.hr-trunc", title),
            tag("span.hr-dot", cls=state, title=visit.texts(f"state.{state}")) if state else None,
            href=f"/equipment/{quote(path)}",
            cls="on" if on else "",
            aria_current="page" if on else None,
        )
        below = children.get(path)
        if not below:
            return link
        summary = tag("summary", tag("span.hr-chev", icon("chevron", 14)), link)
        return tag("details", summary, tag("div", [node(p) for p in below]), open=True)

    whole = tag(
        "a", icon("overview", 16), visit.texts("asset.all_site"), href="/equipment",
        cls="" if chosen else "on",
    )  # fmt: skip
    return join(whole, [node(path) for path in children.get("", [])])


def _ancestors(path: str) -> list[str]:
    tokens = path.split("/")
    return ["/".join(tokens[:depth]) for depth in range(1, len(tokens) + 1)]


def _values(visit: Visit, tags: list[TagView], path: str) -> None:
    texts = visit.texts
    head = tag(
        "tr",
        tag("th", ""),
        tag("th", texts("asset.name")),
        tag("th.num", texts("asset.value")),
        tag("th", texts("asset.quality")),
        tag("th.num.wide", texts("asset.age")),
        tag("th.wide", texts("asset.spark")),
        tag("th", ""),
    )
    may_write = visit.may("write")
    rows = [_row(view, path, texts, may_write) for view in tags]
    table = tag("table.hr-table", tag("thead", head), tag("tbody", rows))
    holder = html(table).classes("hr-card").style("overflow-x:auto")
    if may_write:
        by_id = {str(view.tag_id): view for view in tags}
        holder.on(
            "click",
            lambda event: _clicked(visit, by_id, event.args),
            js_handler="(e) => { const b = e.target.closest('[data-write]');"
            " if (b) emit(b.dataset.write); }",
        )


def _clicked(visit: Visit, by_id: dict[str, TagView], tag_id: object) -> None:
    view = by_id.get(str(tag_id))
    if view is not None:
        open_write_dialog(visit, view)


def _row(view: TagView, path: str, texts: Texts, may_write: bool) -> Markup:
    title = tag_title(view, texts)
    place = view.path[len(path) + 1 :] if path else view.path
    hint = f"{view.connection} · {view.address} · {texts('asset.id')} {view.tag_id}"
    if view.derived:
        place = f"{place} · {texts('asset.derived', name=view.address)}"
    name = tag(
        "a.hr-tagname", title, tag("small", place), href=f"/trend?tags={view.tag_id}", title=hint
    )
    value = join(
        tag("span", "–", data_f="value"),
        tag("span.hr-unit", shown_unit(view.unit)),
        why_dot(texts, view.tag_id),
    )
    write = tag(
        "button.hr-iconbtn", icon("edit", 16), data_write=view.tag_id,
        title=texts("asset.write"), aria_label=f"{texts('asset.write')} {title}",
    )  # fmt: skip
    box = tag("input", type="checkbox", data_pick=view.tag_id, aria_label=title)
    return tag(
        "tr",
        tag("td", box, style="width:1px"),
        tag("td", name),
        tag("td.num.val", value),
        tag("td", tag("span.hr-pill", texts("state.idle"), data_f="quality")),
        tag("td.num.wide.hr-dim", tag("span", "–", data_f="age")),
        tag("td.wide", Markup('<svg class="hr-spark" data-f="spark" aria-hidden="true"></svg>')),
        tag("td", write if may_write and view.writable else None, style="width:1px"),
        data_tag=view.tag_id,
        data_search=f"{view.path} {title} {view.description}".lower(),
    )
