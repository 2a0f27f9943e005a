"""One alarm in a drawer: what to do, the trend around its onset, what happened to it, comments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

from nicegui import ui

from headrace.alarms.definition import AlarmDefinition
from headrace.alarms.store import JournalFilter
from headrace.console.alarms import Act
from headrace.console.pages.alarm_actions import Actions, verbs_for
from headrace.console.pages.alarm_table import asset_title, bulk_bar, message, state_cell
from headrace.console.pages.overview import tag_title
from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, empty_state, html
from headrace.console.receipts import tell_read
from headrace.console.site_view import TagView
from headrace.console.texts import Texts
from headrace.console.widgets.alarm_chart import draw_chart
from headrace.console.widgets.alarm_marks import priority_mark
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.spans import moment, span
from headrace.console.widgets.units import shown_unit
from headrace.console.widgets.why_dot import why_dot
from headrace.model.alarm import AlarmState, Transition
from headrace.model.errors import HeadraceError
from headrace.model.time import US_PER_MS, US_PER_S

INPUTS_MAX: Final = 4
POINTS: Final = 400
HISTORY_MAX: Final = 50
BEFORE_US: Final = 1_200 * US_PER_S
AFTER_US: Final = 1_200 * US_PER_S


class Detail:
    """The drawer; closed it is empty.

    Args:
        alarm: id of the one that is open at first, or "".
        closed: called after it was closed.
    """

    def __init__(
        self, visit: Visit, actions: Actions, alarm: str, closed: Callable[[], None]
    ) -> None:
        self._visit = visit
        self._texts = visit.texts
        self._actions = actions
        self._closed = closed
        self._board = visit.alarms
        self._drawn: object = None
        self._charted: object = None
        self.alarm = alarm

    def draw(self) -> None:
        texts = self._texts
        drawer = ui.element("aside").classes("hr-drawer hr-hide")
        drawer.props(f'aria-label="{texts("alarm_detail.guidance")}"')
        with drawer:
            with ui.element("div").classes("hr-drawer-head"):
                self.head = html("").classes("hr-grow")
                close = button("", self.close, icon_name="close")
                close.classes(replace="hr-iconbtn").props(
                    f'data-drawer-close aria-label="{texts("alarm_detail.close")}"'
                )
            with ui.element("div").classes("hr-drawer-body"):
                self.bar = html("").classes("hr-row hr-wrap")
                self.bar.on(
                    "click",
                    self._act,
                    js_handler="(e) => { const c = e.target.closest('[data-bulk]');"
                    " if (c) emit(c.dataset.bulk); }",
                )
                self.guidance = html("")
                self.plot = ui.element("div")
                html(texts("alarm_detail.history"), tag_name="h2").classes("hr-h2")
                with ui.element("div").classes("hr-row hr-comment") as self.writing:
                    self.words = ui.input(placeholder=texts("alarm_detail.comment_hint"))
                    self.words.props("outlined dense maxlength=500").classes("hr-grow")
                    self.words.on("keydown.enter", self._comment)
                    button(texts("alarm_detail.send"), self._comment)
                self.history = html("")
        self.drawer = drawer

    async def open(self, alarm: str) -> None:
        """Show an alarm; the one that is open already is closed."""
        if alarm == self.alarm:
            self.close()
            return
        self.alarm = alarm
        await self.refresh()

    def close(self) -> None:
        self.alarm, self._drawn, self._charted = "", None, None
        self.drawer.classes(add="hr-hide")
        self._closed()

    async def refresh(self) -> None:
        """Draw the open alarm anew when something about it changed."""
        line = self._board.find(self.alarm)
        if not self.alarm or (line, self.alarm) == self._drawn:
            return
        self._drawn = line, self.alarm
        self.drawer.classes(remove="hr-hide")
        if line is None:
            self._draw_gone()
            return
        visit, texts = self._visit, self._texts
        self.head.set_content(_head(visit, line))
        verbs = verbs_for(visit, [line])
        verbs = [verb for verb in verbs if verb != "comment"]
        self.bar.set_content(join(_state(visit, line), _buttons(visit, verbs)))
        self.guidance.set_content(_guidance(texts, line, self._board.about(line).definition))
        self.writing.classes(
            add="" if visit.may("operate") else "hr-hide",
            remove="hr-hide" if visit.may("operate") else "",
        )
        entries = await self._entries(line)
        self.history.set_content(_history(texts, entries))
        if self._charted != (line.alarm, line.active_us):
            self._charted = line.alarm, line.active_us
            await self._draw_plot(line)

    def _draw_gone(self) -> None:
        self.head.set_content(tag("b", self.alarm))
        for part in (self.bar, self.history):
            part.set_content("")
        self.guidance.set_content("")
        self.plot.clear()
        with self.plot:
            texts = self._texts
            empty_state("bell", texts("alarm_detail.gone"), texts("alarm_detail.gone_what"))

    async def _entries(self, line: AlarmState) -> list[Transition]:
        try:
            found = await self._board.journal(
                JournalFilter(alarm=line.alarm, limit=HISTORY_MAX, shadow=None)
            )
        except HeadraceError:
            return []  # the list's own notice says that the store cannot be read
        return [each.transition for each in found]

    async def _act(self, event: Any) -> None:
        line = self._board.find(self.alarm)
        if line is not None:
            await self._actions.start(str(event.args), [line])

    async def _comment(self) -> None:
        text = str(self.words.value or "").strip()
        if text and await self._actions.run(
            Act(verb="comment", alarms=(self.alarm,), comment=text)
        ):
            self.words.set_value("")
            self._drawn = None
            await self.refresh()

    async def _draw_plot(self, line: AlarmState) -> None:
        visit, texts = self._visit, self._texts
        views = [
            visit.site.by_id[t] for t in self._board.about(line).tag_ids if t in visit.site.by_id
        ][:INPUTS_MAX]
        now_us = visit.services.sources.clock.now_us()
        around_us = line.active_us or now_us
        start_us, end_us = around_us - BEFORE_US, min(now_us, around_us + AFTER_US)
        lines: list[tuple[TagView, dict[str, Any]]] = []
        for view in views:
            try:
                drawn = await visit.services.sources.history.screen(
                    view.tag_id, start_us, end_us, POINTS, view.scan_interval_ms
                )
                about = (view.tag_id,), drawn["samples"], (start_us, end_us)
                tell_read(visit.services, visit.actor, "page/alarm", *about)
            except HeadraceError:
                continue  # what can be read is shown
            lines.append((view, drawn))
        self.plot.clear()
        with self.plot:
            html(texts("alarm_detail.around"), tag_name="h2").classes("hr-h2")
            if not lines:
                html(texts("alarm_detail.no_inputs"), tag_name="p").classes("hr-dim")
                return
            html(_chips(texts, [view for view, _ in lines])).classes("hr-chips")
            with ui.element("div").classes("hr-alplot"):
                limit = self._board.about(line).limit_in(lines[0][0].unit)
                options = chart(lines, line, (start_us, end_us), limit, texts)
                draw_chart(options)
            html(_links(texts, line, views, (start_us, end_us))).classes("hr-row hr-wrap")


def _head(visit: Visit, line: AlarmState) -> Markup:
    texts = visit.texts
    return join(
        tag(
            ".hr-row",
            priority_mark(line.priority, texts(f"alarm.priority_{line.priority}")),
            tag("h2", message(texts, line)),
        ),
        tag("span.hr-dim", f"{asset_title(visit, line.asset)} · {line.alarm}"),
    )


def _state(visit: Visit, line: AlarmState) -> Markup:
    return tag(".hr-alnow", state_cell(visit.texts, line))


def _buttons(visit: Visit, verbs: Sequence[str]) -> Markup:
    bar = bulk_bar(visit, 1, verbs)
    return tag(".hr-row.hr-wrap.hr-alverbs", bar)


def _guidance(texts: Texts, line: AlarmState, definition: AlarmDefinition | None) -> Markup:
    head = tag("h2.hr-h2", texts("alarm_detail.guidance"))
    if definition is None:
        return join(head, tag("p.hr-dim", texts("alarm_detail.no_guidance")))
    say = texts.language
    respond = span(texts, definition.response_us) if definition.response_us else ""
    words = (
        ("cause", definition.cause.say(say)),
        ("action", definition.action.say(say)),
        ("consequence", definition.consequence.say(say)),
        ("response", respond),
    )
    rows = [
        tag("div", tag("dt", texts(f"alarm_detail.{name}")), tag("dd", text))
        for name, text in words
        if text
    ]
    none = tag("p.hr-dim", texts("alarm_detail.no_guidance"))
    return join(head, tag("dl.hr-guide", rows) if rows else none, _facts(texts, line, definition))


def _facts(texts: Texts, line: AlarmState, definition: AlarmDefinition) -> Markup:
    onset = f"{moment(line.active_us)} UTC" if line.active_us else texts("alarm_detail.never")
    version = texts("alarm_detail.version", n=line.version)
    condition = join(tag("code", definition.condition), " ", tag("span.hr-dim", version))
    facts = (
        ("condition", condition),
        ("off", tag("code", definition.off) if definition.off else None),
        ("suppressed", tag("code", definition.suppressed) if definition.suppressed else None),
        ("onset", onset),
        ("occurrences", line.occurrences),
        ("group", line.group or None),
        ("class", line.alarm_class or None),
        ("assigned", line.assignee or None),
        ("reason", line.reason or None),
    )
    rows = [
        tag("div", tag("dt", texts(f"alarm_detail.{name}")), tag("dd", value))
        for name, value in facts
        if value is not None
    ]
    return tag("dl.hr-alfacts", rows)


def _chips(texts: Texts, views: Sequence[TagView]) -> Markup:
    return join(
        [
            tag(
                "span.hr-chip",
                tag("i", style=f"background:var(--hr-series-{place})"),
                tag("span.hr-trunc", tag_title(view, texts), title=view.path),
                tag(
                    "span.hr-nowrap",
                    tag("b", "–", data_f="value"),
                    tag("span.hr-unit", shown_unit(view.unit)),
                    why_dot(texts, view.tag_id),
                ),
                data_tag=view.tag_id,
            )
            for place, view in enumerate(views)
        ]
    )


def _links(
    texts: Texts, line: AlarmState, views: Sequence[TagView], span_us: tuple[int, int]
) -> Markup:
    ids = ",".join(str(view.tag_id) for view in views)
    start_ms, end_ms = (at_us // US_PER_MS for at_us in span_us)
    trend = f"/trend?tags={ids}&start={start_ms}&end={end_ms}"
    equipment = f"/equipment/{quote(line.asset)}"
    return join(
        tag("a.hr-btn.small", icon("trend", 15), texts("alarm_detail.to_trend"), href=trend),
        tag("a.hr-btn.small", icon("tree", 15), texts("alarm_detail.to_equipment"), href=equipment),
    )


def _history(texts: Texts, entries: Sequence[Transition]) -> Markup:
    if not entries:
        return tag("p.hr-dim", texts("alarm_detail.no_history"))
    rows = [
        tag(
            "li",
            tag("span.hr-when.hr-num", f"{moment(entry.at_us)[5:]} UTC", title=moment(entry.at_us)),
            tag(
                "span",
                tag("b", texts(f"alarm_event.{entry.event}")),
                tag("span.hr-dim", f" {entry.actor}") if entry.actor else None,
                tag("span.hr-sub", entry.comment) if entry.comment else None,
            ),
        )
        for entry in entries
    ]
    return tag("ol.hr-happened", rows)


def chart(
    lines: Sequence[tuple[TagView, dict[str, Any]]],
    line: AlarmState,
    span_us: tuple[int, int],
    limit: float | None,
    texts: Texts,
) -> dict[str, Any]:
    """Chart options: the inputs around the onset; lines mark it and the limit of the first input."""
    units = list(dict.fromkeys(view.unit for view, _ in lines))
    marked: list[dict[str, Any]] = []
    if line.active_us:
        label = {"formatter": texts("alarm_detail.onset"), "position": "insideEndTop"}
        marked.append({"xAxis": line.active_us / US_PER_MS, "label": label})
    if limit is not None:
        label = {"formatter": texts("alarm_detail.limit"), "position": "insideStartTop"}
        marked.append({"yAxis": limit, "label": label})
    mark = {
        "silent": True,
        "symbol": "none",
        "data": marked,
        "lineStyle": {"type": "dashed", "color": f"var:{line.priority}"},
    }
    return {
        "animation": False,
        "grid": {"left": 48, "right": 48 if len(units) > 1 else 16, "top": 26, "bottom": 26},
        "tooltip": {"trigger": "axis", "confine": True},
        "xAxis": {"type": "time", "min": span_us[0] / US_PER_MS, "max": span_us[1] / US_PER_MS,
                  "axisLabel": {"hideOverlap": True, "fontSize": 11}},
        "yAxis": [
            {"type": "value", "scale": True, "name": shown_unit(unit), "show": place < 2,
             **(_reaching(lines, unit, limit) if place == 0 else {}),
             "position": "right" if place else "left", "splitLine": {"show": place == 0},
             "axisLabel": {"fontSize": 11, "hideOverlap": True}}
            for place, unit in enumerate(units)
        ],
        "series": [
            {
                "type": "line",
                "name": tag_title(view, texts),
                "yAxisIndex": units.index(view.unit),
                "data": [list(pair) for pair in zip(drawn["t"], drawn["v"], strict=True)],
                "showSymbol": False,
                "step": "end" if len(drawn["t"]) < 4 else False,
                "lineStyle": {"width": 1.4, "color": f"var:series-{place}"},
                "itemStyle": {"color": f"var:series-{place}"},
                **({"markLine": mark} if place == 0 else {}),
            }
            for place, (view, drawn) in enumerate(lines)
        ],
    }  # fmt: skip


def _reaching(
    lines: Sequence[tuple[TagView, dict[str, Any]]], unit: str, limit: float | None
) -> dict[str, float]:
    """Ends of the axis that show the limit too; left to the chart when it lies among the values."""
    values = [v for view, drawn in lines if view.unit == unit for v in drawn["v"] if v is not None]
    if limit is None or not values or min(values) <= limit <= max(values):
        return {}
    return {"min": limit} if limit < min(values) else {"max": limit}
