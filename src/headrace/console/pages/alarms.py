"""Alarms: the list that people work, live, with what is done to one or to many of them."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import urlencode

from nicegui import ui

from headrace.console.alarm_lines import (
    SORTS,
    STATES,
    VIEWS,
    WORST_FIRST,
    AlarmFilter,
    chosen,
    ordered,
)
from headrace.console.pages.alarm_actions import Actions, verbs_for
from headrace.console.pages.alarm_detail import Detail
from headrace.console.pages.alarm_table import (
    SHOWN_MAX,
    area_names,
    bulk_bar,
    parts_nav,
    pick_one,
    priorities_bar,
    table,
    views_bar,
)
from headrace.console.pages.shell import Visit, empty_state, frame, html
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import tag
from headrace.console.widgets.spans import moment
from headrace.model.alarm import AlarmState

REFRESH_S: Final = 0.5
PICKED_MAX: Final = 1_000
_EMIT: Final = (
    "(e) => {{ const c = e.target.closest('[data-{name}]'); if (c) emit(c.dataset.{name}); }}"
)
# A click means the nearest of: a box, a button of the row, the row.
_EMIT_ROW: Final = """(e) => {
  const box = e.target.closest('[data-choose]'), act = e.target.closest('[data-act]');
  const row = e.target.closest('[data-alarm]'), id = row ? row.dataset.alarm : '';
  if (box) { e.preventDefault(); emit(['choose', box.dataset.choose]); }
  else if (act) emit([act.dataset.act, id]);
  else if (row && !e.target.closest('a')) emit(['open', id]);
}"""


async def show(visit: Visit) -> None:
    """Draw the page; the query (``view``, ``priority``, ``state``, ``below``, ``search``, ``mine``,
    ``sort``, ``alarm``) fills it."""
    texts = visit.texts
    ui.add_body_html('<script src="/static/alarms.js" defer></script>')
    with frame(visit, texts("alarm.title"), nav="alarms", help_text=texts("alarm.help")):
        page = _Page(visit)
        page.draw()
        await page.refresh()
        ui.timer(REFRESH_S, page.refresh)


class _Page:
    def __init__(self, visit: Visit) -> None:
        asked = visit.request.query_params
        self._visit = visit
        self._board = visit.alarms
        self._view = asked.get("view", "") if asked.get("view") in VIEWS else "active"
        self._priorities = frozenset(asked.get("priority", "").split(",")) & set(WORST_FIRST)
        self._first = {name: asked.get(name, "") for name in ("state", "below", "search", "sort")}
        self._mine = bool(asked.get("mine"))
        self._picked: set[str] = set()
        self._shown: list[AlarmState] = []
        self._drawn: object = None
        self._actions = Actions(visit, self._after)
        self._detail = Detail(visit, self._actions, asked.get("alarm", ""), self._closed)

    def draw(self) -> None:
        texts = self._visit.texts
        with ui.element("div").classes("hr-bar"):
            html(parts_nav(texts, "list"))
            html("").classes("hr-grow")
            self.views = html("").on(
                "click", self._choose_view, js_handler=_EMIT.format(name="view")
            )
        self._draw_filters()
        self.notice = html("")
        self.bulk = html("").classes("hr-bulk hr-hide").props('role="toolbar"')
        self.bulk.on("click", self._bulk, js_handler=_EMIT.format(name="bulk"))
        self.body = ui.element("div").classes("hr-card hr-alarm-list")
        self.body.on("click", self._clicked, js_handler=_EMIT_ROW)
        self._actions.draw_undo()
        self._detail.draw()

    def _draw_filters(self) -> None:
        texts, first = self._visit.texts, self._first
        states = ("waits", *STATES[:5])
        names = {"": texts("alarm.any_state"), "waits": texts("alarm.waits")}
        names |= {state: texts(f"alarm.state_{state}") for state in states[1:]}
        areas = {"": texts("alarm.every_area")} | area_names(self._visit)
        with ui.element("div").classes("hr-bar hr-filters"):
            self.search = ui.input(placeholder=texts("alarm.search"), value=first["search"])
            self.search.props("outlined dense clearable debounce=150").classes("hr-alsearch")
            html(icon("filter", 18), tag_name="button").classes("hr-btn hr-filterbtn").props(
                f'type=button data-filters aria-label="{texts("alarm.filters")}"'
            )
            self.prios = html("").on(
                "click", self._toggle_priority, js_handler=_EMIT.format(name="priority")
            )
            self.state = pick_one(names, first["state"])
            self.below = pick_one(areas, first["below"])
            self.sort = pick_one({s: texts(f"alarm.sort_{s}") for s in SORTS}, first["sort"])
            self.mine = ui.checkbox(texts("alarm.mine"), value=self._mine).props("dense")
        for control in (self.search, self.state, self.below, self.sort, self.mine):
            control.on_value_change(self.refresh)

    def _filter(self) -> AlarmFilter:
        return AlarmFilter(
            view=self._view,
            priorities=self._priorities,
            state=str(self.state.value or "") if self._view in ("active", "all") else "",
            below=str(self.below.value or ""),
            search=str(self.search.value or ""),
            mine=self._visit.actor.name if self.mine.value else "",
        )

    async def refresh(self) -> None:
        """Draw what changed; ages go on in the browser."""
        board, wanted, sort = self._board, self._filter(), str(self.sort.value or SORTS[0])
        state = (board.version, wanted, sort, frozenset(self._picked), self._visit.site.fingerprint)
        if state == self._drawn:
            return
        self._drawn = state
        self._shown = ordered(chosen(board.states, wanted), sort)
        self._picked &= {line.alarm for line in board.states}
        self._draw_bars(wanted)
        self._draw_rows(wanted)
        self._keep_address(wanted, sort)
        await self._detail.refresh()

    def _draw_bars(self, wanted: AlarmFilter) -> None:
        visit, texts = self._visit, self._visit.texts
        self.views.set_content(views_bar(texts, self._board.states, wanted.view))
        self.prios.set_content(priorities_bar(texts, wanted.priorities))
        self.notice.set_content(self._notice())
        picked = self._picked_lines()
        verbs = verbs_for(visit, picked)
        self.bulk.classes(add="" if picked else "hr-hide", remove="hr-hide" if picked else "")
        self.bulk.set_content(bulk_bar(visit, len(picked), verbs) if picked else "")

    def _notice(self) -> str:
        texts, board = self._visit.texts, self._board
        if board.problem:
            return tag(".hr-alert", texts("alarm.offline", what=board.problem), role="alert")
        if board.flood_since_us:
            since, count = moment(board.flood_since_us)[11:16] + " UTC", board.recent
            text = texts("alarm.flood", time=since, n=count)
            return tag(".hr-alert", text, role="status")
        return ""

    def _draw_rows(self, wanted: AlarmFilter) -> None:
        now_us = self._visit.services.sources.clock.now_us()
        self.body.clear()
        with self.body:
            if self._shown:
                html(table(self._visit, self._shown, self._picked, now_us))
            else:
                self._draw_empty(wanted)

    def _draw_empty(self, wanted: AlarmFilter) -> None:
        texts, view = self._visit.texts, wanted.view
        if not self._board.defined:
            action = (texts("alarm.to_formulas"), "/formulas")
            empty_state(
                "bell", texts("alarm.none_defined"), texts("alarm.none_defined_what"), action
            )
        elif wanted != AlarmFilter(view=view):
            empty_state("search", texts("alarm.none_found"), texts("alarm.none_found_what"))
        elif view == "active":
            empty_state("check", texts("alarm.empty"), texts("alarm.empty_what"))
        else:
            empty_state("list", texts("alarm.none_in_view"), texts(f"alarm.none_{view}"))

    def _keep_address(self, wanted: AlarmFilter, sort: str) -> None:
        """The address says what is shown, so that it can be sent to a colleague."""
        said = {
            "view": "" if wanted.view == "active" else wanted.view,
            "priority": ",".join(p for p in WORST_FIRST if p in wanted.priorities),
            "state": wanted.state,
            "below": wanted.below,
            "search": wanted.search,
            "mine": "1" if wanted.mine else "",
            "sort": "" if sort == SORTS[0] else sort,
            "alarm": self._detail.alarm,
        }
        query = urlencode({name: value for name, value in said.items() if value})
        address = json.dumps("/alarms" + (f"?{query}" if query else ""))
        ui.run_javascript(f"history.replaceState(null, '', {address})")

    async def _choose_view(self, event: Any) -> None:
        if event.args in VIEWS:
            self._view = str(event.args)
            self._picked.clear()
            await self.refresh()

    async def _toggle_priority(self, event: Any) -> None:
        self._priorities ^= {str(event.args)} & set(WORST_FIRST)
        await self.refresh()

    async def _clicked(self, event: Any) -> None:
        what, name = str(event.args[0]), str(event.args[1])
        if what == "choose":
            self._choose(name)
            await self.refresh()
            return
        line = self._board.find(name)
        if line is None:
            return
        if what == "open":
            await self._detail.open(line.alarm)
            self._keep_address(self._filter(), str(self.sort.value or SORTS[0]))
        else:
            await self._actions.start(what, [line])

    def _choose(self, name: str) -> None:
        shown = {line.alarm for line in self._shown[:SHOWN_MAX]}
        if name == "all":
            self._picked = set() if shown <= self._picked else shown
        elif name in self._picked:
            self._picked.discard(name)
        elif len(self._picked) < PICKED_MAX:
            self._picked.add(name)

    def _picked_lines(self) -> list[AlarmState]:
        return [line for line in self._board.states if line.alarm in self._picked]

    async def _bulk(self, event: Any) -> None:
        if event.args == "clear":
            self._picked.clear()
            await self.refresh()
            return
        await self._actions.start(str(event.args), self._picked_lines())

    async def _after(self) -> None:
        """Something was done: what was chosen for it is done with."""
        self._picked.clear()
        await self.refresh()

    def _closed(self) -> None:
        self._keep_address(self._filter(), str(self.sort.value or SORTS[0]))
