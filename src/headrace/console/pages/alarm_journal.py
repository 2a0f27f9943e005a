"""The alarms' journal: every transition with who, when and why; searched, and exported as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from nicegui import ui

from headrace.alarms.store import JournalFilter, JournalLine
from headrace.console.pages.alarm_table import (
    area_names,
    asset_title,
    deep_link,
    parts_nav,
    pick_one,
)
from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, empty_state, frame, html
from headrace.console.widgets.alarm_marks import priority_mark, state_mark
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.spans import moment
from headrace.model.alarm import EventName, Transition
from headrace.model.errors import HeadraceError
from headrace.model.time import US_PER_S

PAGE: Final = 200
SHOWN_MAX: Final = 2_000
REFRESH_S: Final = 1.0
SPANS: Final = (
    ("time.hours", 1, 3_600),
    ("time.hours", 8, 28_800),
    ("time.days", 1, 86_400),
    ("time.days", 7, 604_800),
    ("time.days", 30, 2_592_000),
    ("time.days", 365, 31_536_000),
)
KINDS: Final[dict[str, tuple[EventName, ...]]] = {
    "every": (),
    "process": ("alarm", "return_to_normal", "uncertain", "certain", "revoke", "missed"),
    "people": ("acknowledge", "reset", "comment", "assign"),
    "hidden": (
        "shelve", "unshelve", "suppress", "unsuppress", "remove_from_service", "return_to_service",
    ),
    "texts": ("configure", "retire"),
}  # fmt: skip


async def show(visit: Visit) -> None:
    """Draw the page and keep it live."""
    texts = visit.texts
    with frame(
        visit, texts("alarm.journal_title"), nav="alarms", help_text=texts("alarm.journal_help")
    ):
        page = _Page(visit)
        page.draw()
        await page.refresh()
        ui.timer(REFRESH_S, page.refresh)


class _Page:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._board = visit.alarms
        self._drawn: object = None
        self._limit = PAGE

    def draw(self) -> None:
        texts, asked = self._visit.texts, self._visit.request.query_params
        with ui.element("div").classes("hr-bar"):
            html(parts_nav(texts, "journal"))
            html("").classes("hr-grow")
            self.export = html("")
        with ui.element("div").classes("hr-bar hr-filters"):
            self.search = ui.input(
                placeholder=texts("alarm.journal_search"), value=asked.get("search", "")
            )
            self.search.props("outlined dense clearable debounce=200").classes("hr-alsearch")
            self.span = pick_one({str(s): texts(key, n=n) for key, n, s in SPANS}, "86400")
            self.kind = pick_one({kind: texts(f"alarm.kind_{kind}") for kind in KINDS}, "every")
            names = {"": texts("alarm.every_area")} | area_names(self._visit)
            self.below = pick_one(names, asked.get("below", ""))
        for control in (self.search, self.span, self.kind, self.below):
            control.on_value_change(self._changed)
        self.body = ui.element("div").classes("hr-card").style("overflow-x:auto")
        self.more = button(texts("alarm.older"), self._older)

    async def _changed(self) -> None:
        self._limit = PAGE
        await self.refresh()

    async def _older(self) -> None:
        self._limit = min(self._limit + PAGE, SHOWN_MAX)
        await self.refresh()

    def _filter(self) -> JournalFilter:
        now_us = self._visit.services.sources.clock.now_us()
        return JournalFilter(
            start_us=now_us - int(self.span.value or 86_400) * US_PER_S,
            area=str(self.below.value or ""),
            events=KINDS[str(self.kind.value or "every")],
            text=str(self.search.value or "").strip(),
            limit=self._limit,
        )

    async def refresh(self) -> None:
        """Draw anew when the journal or the filter changed."""
        asked = self.span.value, self.kind.value, self.below.value, self.search.value, self._limit
        state = self._board.version, asked
        if state == self._drawn:
            return
        self._drawn = state
        wanted = self._filter()
        try:
            lines, problem = await self._board.journal(wanted), ""
        except HeadraceError as error:
            lines, problem = [], f"{error.code} {error.what}"
        self.export.set_content(_export(self._visit, wanted, int(self.span.value or 86_400)))
        full = self._limit <= len(lines) < SHOWN_MAX
        self.more.classes(add="" if full else "hr-hide", remove="hr-hide" if full else "")
        self.body.clear()
        with self.body:
            self._draw_lines(lines, problem)

    def _draw_lines(self, lines: Sequence[JournalLine], problem: str) -> None:
        texts = self._visit.texts
        if problem:
            html(tag(".hr-alert", texts("alarm.offline", what=problem), role="alert"))
        elif not lines:
            empty_state("book", texts("alarm.journal_empty"), texts("alarm.journal_empty_what"))
        else:
            html(_table(self._visit, [line.transition for line in lines]))


def _export(visit: Visit, wanted: JournalFilter, span_s: int) -> Markup:
    query = {
        "start": f"-{span_s}s",
        "below": wanted.area,
        "search": wanted.text,
        "events": ",".join(wanted.events),
        "format": "csv",
    }
    href = "/api/v1/alarms/journal?" + urlencode({k: v for k, v in query.items() if v})
    return tag(
        "a.hr-btn", icon("download", 16), visit.texts("alarm.export"), href=href, download=True
    )


def _table(visit: Visit, lines: Sequence[Transition]) -> Markup:
    texts = visit.texts
    head = tag(
        "tr",
        tag("th", f"{texts('events.time')} (UTC)"),
        tag("th", ""),
        tag("th", texts("alarm.event")),
        tag("th", texts("alarm.alarm")),
        tag("th.wide", texts("alarm.became")),
        tag("th", texts("alarm.actor")),
    )
    body = tag("tbody", [_row(visit, line) for line in lines])
    return tag("table.hr-table.hr-journal", tag("thead", head), body)


def _row(visit: Visit, line: Transition) -> Markup:
    texts = visit.texts
    late = line.correction or line.recorded_us - line.at_us > 60 * US_PER_S
    recorded = texts("alarm.recorded", time=moment(line.recorded_us)) if line.recorded_us else ""
    notes = [line.comment, line.assignee and f"→ {line.assignee}"]
    if line.until_us:
        notes.append(texts("alarm.until", time=f"{moment(line.until_us)[5:16]} UTC"))
    words = " · ".join(note for note in notes if note)
    title = texts("alarm.first_out")
    first = tag("span.hr-almark", icon("first", 14), title=title) if line.first_out else None
    became = join(
        state_mark(line.after, texts(f"alarm.state_{line.after}"))
        if line.after != line.before
        else None
    )
    return tag(
        "tr",
        tag(
            "td.hr-nowrap.hr-num.hr-dim", moment(line.at_us),
            tag("span.hr-sub", recorded) if late and recorded else None, title=recorded,
        ),
        tag("td.prio", priority_mark(line.priority, texts(f"alarm.priority_{line.priority}"))),
        tag(
            "td",
            tag("b", texts(f"alarm_event.{line.event}")),
            first,
            tag("span.hr-sub", words) if words else None,
        ),
        tag(
            "td", tag("a", line.message.say(texts.language) or line.alarm, href=deep_link(line.alarm)),
            tag("span.hr-sub", f"{asset_title(visit, line.asset)} · {line.alarm.rpartition('/')[2]}",
                title=line.alarm),
        ),
        tag("td.wide", became),
        tag("td", line.actor or tag("span.hr-dim", texts("alarm.plant"))),
        data_event=line.event,
    )  # fmt: skip
