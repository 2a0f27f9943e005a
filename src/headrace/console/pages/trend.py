"""Trend of any tags: the chart lives in the browser, this page picks the tags."""

from __future__ import annotations

import json
from typing import Any, Final

from nicegui import ui

from headrace.console.api.answers import tag_id_of
from headrace.console.pages.overview import tag_title
from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, empty_state, frame, html
from headrace.console.site_view import TagView
from headrace.console.texts import Texts
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.units import shown_unit
from headrace.console.widgets.why_dot import why_dot

TAGS_MAX: Final = 8
SHOWN_MAX: Final = 60
_SPANS: Final = (
    ("time.minutes", 1, 60),
    ("time.minutes", 15, 900),
    ("time.hours", 1, 3_600),
    ("time.hours", 8, 28_800),
    ("time.days", 1, 86_400),
    ("time.days", 7, 604_800),
)


def show(visit: Visit) -> None:
    """Draw the page for the tags in the URL (``?tags=id,id``, or paths)."""
    texts = visit.texts
    page = _Trend(visit)
    with frame(visit, texts("trend.title"), nav="trend", help_text=texts("trend.help")):
        with ui.element("div").classes("hr-bar"):
            button(texts("trend.add"), page.open_picker, "primary", icon_name="plus")
            html(_ranges(texts)).classes("hr-row hr-wrap")
            html("").classes("hr-grow")
            html(_exports(texts)).classes("hr-row hr-wrap")
        page.chips = html("").classes("hr-chips").style("margin-bottom:12px")
        page.chips.on(
            "click",
            lambda event: page.remove(str(event.args)),
            js_handler="(e) => { const b = e.target.closest('[data-remove]');"
            " if (b) emit(b.dataset.remove); }",
        )
        with ui.element("div").classes("hr-card hr-plot"):
            chart = ui.echart({})
            with ui.element("div").props("data-trend-empty").classes("hr-hide"):
                empty_state("trend", texts("trend.empty"), texts("trend.empty_what"))
        html("").classes("hr-plot-note")
        page.draw_chips()
    ui.add_body_html('<script src="/static/trend.js" defer></script>')
    options = {"tags": page.as_json(), "texts": _chart_texts(texts)}
    ui.timer(
        0.01,
        lambda: ui.run_javascript(f"hr.trend.init({chart.id}, {json.dumps(options)})"),
        once=True,
    )


def _chart_texts(texts: Texts) -> dict[str, str]:
    return {
        "none": texts("trend.no_data"),
        "raw": texts("trend.raw"),
        "reduced": texts("trend.reduced"),
    }


def _ranges(texts: Texts) -> Markup:
    buttons = [
        tag("button", texts(key, n=n), type="button", data_span=seconds * 1_000)
        for key, n, seconds in _SPANS
    ]
    live = tag(
        "button.hr-btn", icon("live", 18), texts("trend.live"), type="button", data_live=True
    )
    return join(tag(".hr-seg", buttons, role="group", aria_label=texts("trend.range")), live)


def _exports(texts: Texts) -> Markup:
    def export(name: str) -> Markup:
        return tag(
            "button.hr-btn", icon("download", 16), texts(f"trend.{name}"), type="button",
            data_export=name, title=texts("trend.export"),
        )  # fmt: skip

    link = tag(
        "button.hr-btn", icon("link", 16), texts("trend.link"), type="button", data_permalink=True
    )
    return join(link, export("csv"), export("parquet"))


class _Trend:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self.chips: ui.html | None = None
        site = visit.site
        names = visit.request.query_params.get("tags", "").split(",")
        views = [site.by_path.get(n) or site.by_id.get(tag_id_of(n)) for n in names]
        self.tags: list[TagView] = [view for view in views if view is not None][:TAGS_MAX]

    def as_json(self) -> list[dict[str, Any]]:
        return [{"tag_id": str(view.tag_id)} for view in self.tags]

    def draw_chips(self) -> None:
        assert self.chips is not None
        self.chips.set_content(join([self._chip(i, view) for i, view in enumerate(self.tags)]))

    def _chip(self, index: int, view: TagView) -> Markup:
        texts = self._visit.texts
        place = self._visit.site.title_of(view.unit_path, texts.language)
        value = join(
            tag("b", "–", data_f="value"),
            tag("span.hr-unit", shown_unit(view.unit)),
            why_dot(texts, view.tag_id),
        )
        remove = tag(
            "button.hr-iconbtn", icon("close", 14), data_remove=view.tag_id,
            aria_label=f"{texts('trend.remove')} {view.path}",
        )  # fmt: skip
        return tag(
            "span.hr-chip",
            tag("i", style=f"background:var(--hr-series-{index})"),
            tag("span.hr-trunc", f"{place} · {tag_title(view, texts)}", title=view.path),
            tag("span.hr-nowrap", value),
            remove,
            data_tag=view.tag_id,
        )

    def remove(self, tag_id: str) -> None:
        self.tags = [view for view in self.tags if str(view.tag_id) != tag_id]
        self._changed()

    def toggle(self, view: TagView) -> None:
        if view in self.tags:
            self.tags.remove(view)
        elif len(self.tags) < TAGS_MAX:
            self.tags.append(view)
        else:
            ui.notification(self._visit.texts("trend.too_many"), position="top")
        self._changed()

    def _changed(self) -> None:
        self.draw_chips()
        ui.run_javascript(f"hr.trend.setTags({json.dumps(self.as_json())})")

    def open_picker(self) -> None:
        """A dialog with a search over all tags."""
        texts = self._visit.texts
        with ui.dialog() as dialog, ui.card().classes("hr-dialog"):
            html(texts("trend.add"), tag_name="h2")
            search = ui.input(placeholder=texts("trend.search")).classes("full-width")
            search.props("outlined dense autofocus clearable")
            rows = html("").classes("hr-pick")

            def refresh() -> None:
                rows.set_content(self._rows(str(search.value or "")))

            def clicked(event: Any) -> None:
                view = self._visit.site.by_id.get(int(event.args))
                if view is not None:
                    self.toggle(view)
                    refresh()

            rows.on(
                "click",
                clicked,
                js_handler="(e) => { const r = e.target.closest('[data-row]');"
                " if (r) { e.preventDefault(); emit(r.dataset.row); } }",
            )
            search.on_value_change(refresh)
            refresh()
            with ui.element("div").classes("hr-row").style("justify-content:flex-end"):
                button(texts("trend.done"), dialog.close, "primary")
        dialog.open()

    def _rows(self, text: str) -> Markup:
        texts = self._visit.texts
        words = text.lower().split()
        found = []
        for view in self._visit.site.tags:
            sought = f"{view.path} {view.title} {view.title_zh} {view.unit}".lower()
            if all(word in sought for word in words):
                found.append(view)
                if len(found) == SHOWN_MAX:
                    break
        if not found:
            return tag(".hr-pad.hr-dim", texts("trend.no_match"))
        return join([self._pick_row(view, texts) for view in found])

    def _pick_row(self, view: TagView, texts: Texts) -> Markup:
        box = tag("input", type="checkbox", checked=view in self.tags, tabindex="-1")
        name = tag("span.hr-tagname.hr-grow", tag_title(view, texts), tag("small", view.path))
        return tag(
            "label", box, name, tag("span.hr-dim", shown_unit(view.unit)), data_row=view.tag_id
        )
