"""How good the alarms are, by ISA-18.2 and EEMUA 191: rate, floods, standing, stale, chattering, bad
actors, priorities; each beside the figure that the standards ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from nicegui import ui

from headrace.alarms.metrics import (
    ACCEPTABLE_RATE,
    BUSY_SHARE_MAX,
    FLOOD_FROM,
    MANAGEABLE_RATE,
    STALE_MAX,
    AlarmMetrics,
    Count,
    Flood,
    OperatorWork,
)
from headrace.console.alarm_lines import WORST_FIRST
from headrace.console.pages.alarm_journal import SPANS
from headrace.console.pages.alarm_table import (
    area_names,
    asset_title,
    deep_link,
    message,
    parts_nav,
    pick_one,
    since,
)
from headrace.console.pages.shell import Visit, frame, html
from headrace.console.texts import Texts
from headrace.console.widgets.alarm_chart import draw_chart
from headrace.console.widgets.alarm_marks import priority_mark
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.spans import moment, span
from headrace.model.errors import HeadraceError
from headrace.model.time import US_PER_MS, US_PER_S

REFRESH_S: Final = 10.0
ROWS_SHOWN: Final = 12


async def show(visit: Visit) -> None:
    """Draw the page; figures are counted anew every 10 s when something changed."""
    texts = visit.texts
    title, help_text = texts("alarm_metric.title"), texts("alarm_metric.help")
    ui.add_body_html('<script src="/static/alarms.js" defer></script>')
    with frame(visit, title, nav="alarms", help_text=help_text):
        page = _Page(visit)
        page.draw()
        await page.refresh()
        ui.timer(REFRESH_S, page.refresh)


class _Page:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._drawn: object = None

    def draw(self) -> None:
        texts = self._visit.texts
        with ui.element("div").classes("hr-bar"):
            html(parts_nav(texts, "metrics"))
            html("").classes("hr-grow")
            html(_sheets(texts)).classes("hr-row hr-wrap")
            self.span = pick_one({str(s): texts(key, n=n) for key, n, s in SPANS[1:5]}, "86400")
            self.below = pick_one({"": texts("alarm.every_area")} | area_names(self._visit), "")
        for control in (self.span, self.below):
            control.on_value_change(self.refresh)
        self.body = ui.element("div")

    async def refresh(self) -> None:
        """Count and draw when the journal, the time's tenth minute, or the choice changed."""
        sources = self._visit.services.sources
        now_us = sources.clock.now_us()
        choice = self.span.value, self.below.value
        state = sources.alarms.version, now_us // (600 * US_PER_S), choice
        if state == self._drawn:
            return
        self._drawn = state
        start_us = now_us - int(self.span.value or 86_400) * US_PER_S
        below = str(self.below.value or "")
        try:
            found = await self._visit.alarms.metrics(start_us, now_us, below=below)
            areas = await self._visit.alarms.metrics(start_us, now_us, below=below, depth=1)
        except HeadraceError as error:
            self.body.clear()
            with self.body:
                what = self._visit.texts("alarm.offline", what=f"{error.code} {error.what}")
                html(tag(".hr-alert", what, role="alert"))
            return
        self.body.clear()
        with self.body:
            self._draw_view(found[below], areas, now_us)

    def _draw_view(self, view: AlarmMetrics, areas: dict[str, AlarmMetrics], now_us: int) -> None:
        visit, texts = self._visit, self._visit.texts
        html(_facts(texts, view), tag_name="section").classes("hr-facts hr-metric-facts")
        with ui.element("div").classes("hr-metric-grid"):
            with _card(texts("alarm_metric.rate"), texts("alarm_metric.rate_what"), "wide"):
                _plot(rate_chart(view, texts))
            with _card(texts("alarm_metric.actors"), texts("alarm_metric.actors_what")):
                _plot(pareto_chart(visit, view.bad_actors, texts))
            with _card(texts("alarm_metric.priorities"), texts("alarm_metric.priorities_what")):
                _plot(priority_chart(view, texts))
            with _card(texts("alarm_metric.floods"), texts("alarm_metric.floods_what")):
                html(_floods(texts, view.floods))
            with _card(texts("alarm_metric.chattering"), texts("alarm_metric.chattering_what")):
                html(_chattering(visit, view))
            with _card(texts("alarm_metric.areas"), texts("alarm_metric.areas_what")):
                html(_areas(visit, areas))
            with _card(texts("alarm_metric.operators"), texts("alarm_metric.operators_what")):
                html(_operators(texts, view.operators))
            with _card(texts("alarm_metric.standing"), texts("alarm_metric.standing_what"), "wide"):
                html(_standing(visit, view, now_us))


def _sheets(texts: Texts) -> Markup:
    """The rationalisation sheet, to take along."""
    return join(
        [
            tag(
                "a.hr-btn", icon("download", 16), texts("alarm_metric.sheet", format=kind.upper()),
                href=f"/api/v1/alarms/sheet?format={kind}", download=True,
                title=texts("alarm_metric.sheet_what"),
            )
            for kind in ("csv", "xlsx")
        ]
    )  # fmt: skip


def _card(title: str, what: str, width: str = "") -> ui.element:
    card = ui.element("div").classes(f"hr-card {width}")
    with card:
        html(join(title, tag("span.hr-dim", " ", what)), tag_name="h2")
    return card


def _plot(options: dict[str, Any]) -> None:
    with ui.element("div").classes("hr-metric-plot"):
        draw_chart(options)


def _facts(texts: Texts, view: AlarmMetrics) -> Markup:
    share = view.flood_share * 100
    facts = (
        ("average", f"{view.average:.2f}", _judge(view.average, ACCEPTABLE_RATE, MANAGEABLE_RATE)),
        ("peak", f"{view.peak:,}", _judge(view.peak, FLOOD_FROM, FLOOD_FROM)),
        (
            "in_flood",
            f"{share:.1f} %",
            _judge(view.flood_share, BUSY_SHARE_MAX, 5 * BUSY_SHARE_MAX),
        ),
        ("standing_now", f"{len(view.standing):,}", ""),
        ("stale", f"{len(view.stale):,}", _judge(len(view.stale), STALE_MAX - 1, STALE_MAX - 1)),
        ("chattering_now", f"{len(view.chattering):,}", _judge(len(view.chattering), 0, 0)),
    )
    return join([_fact(texts, name, value, judged) for name, value, judged in facts])


def _judge(value: float, good: float, bad: float) -> str:
    """``good`` up to the target, ``bad`` above the bound, ``warn`` between."""
    return "good" if value <= good else "warn" if value <= bad else "bad"


def _fact(texts: Texts, name: str, value: str, judged: str) -> Markup:
    pictures = {"good": "check", "warn": "fault", "bad": "fault"}
    mark = None
    if judged:
        words = texts(f"alarm_metric.judge_{judged}")
        mark = tag("span.hr-judge", icon(pictures[judged], 14), words, cls=judged)
    return tag(
        ".hr-card.hr-fact", tag("label", texts(f"alarm_metric.{name}")), tag("b.hr-num", value),
        tag("small", texts(f"alarm_metric.{name}_target"), title=texts(f"alarm_metric.{name}_target")),
        mark, data_metric=name,
    )  # fmt: skip


def rate_chart(view: AlarmMetrics, texts: Texts) -> dict[str, Any]:
    """Alarms in each 10 minutes, the targets as lines, floods shaded."""
    data = [[at_us / US_PER_MS, count] for at_us, count in view.periods]
    shaded = [
        [{"xAxis": flood.start_us / US_PER_MS}, {"xAxis": flood.end_us / US_PER_MS}]
        for flood in view.floods
    ]
    lines = [
        {
            "yAxis": at,
            "lineStyle": {"color": f"var:{colour}", "type": "dashed"},
            "label": {
                "formatter": texts(f"alarm_metric.{name}"),
                "position": "insideStartTop",
                "color": f"var:{colour}",
            },
        }
        for at, name, colour in ((1, "line_target", "good"), (10, "line_flood", "bad"))
    ]
    high = max([count for _, count in view.periods] or [0])
    return {
        "animation": False,
        "grid": {"left": 40, "right": 16, "top": 18, "bottom": 26},
        "tooltip": {"trigger": "axis"},
        "xAxis": {"type": "time", "min": view.start_us / US_PER_MS, "max": view.end_us / US_PER_MS,
                  "axisLabel": {"hideOverlap": True}},
        "yAxis": {"type": "value", "minInterval": 1, "max": max(12, high)},
        "series": [
            {
                "type": "bar",
                "name": texts("alarm_metric.rate"),
                "data": data,
                "barMinWidth": 1,
                "barMaxWidth": 14,
                "barCategoryGap": "10%",
                "itemStyle": {"color": "var:accent"},
                "markLine": {"silent": True, "symbol": "none", "data": lines},
                "markArea": {"silent": True, "data": shaded,
                             "itemStyle": {"color": "var:bad", "opacity": 0.12}},
            }
        ],
    }  # fmt: skip


def pareto_chart(visit: Visit, actors: Sequence[Count], texts: Texts) -> dict[str, Any]:
    """The alarms that come most often, and what share of all they make together."""
    names = [f"{asset_title(visit, actor.asset)} {_name(actor)}" for actor in actors]
    together, total = [], 0.0
    for actor in actors:
        total += actor.share * 100
        together.append(round(total, 1))
    return {
        "animation": False,
        "grid": {"left": 8, "right": 44, "top": 8, "bottom": 24, "containLabel": True},
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}},
        "yAxis": {"type": "category", "data": names, "inverse": True,
                  "axisLabel": {"width": 150, "overflow": "truncate", "fontSize": 11}},
        "xAxis": [
            {"type": "value", "minInterval": 1, "splitLine": {"show": True}},
            {"type": "value", "min": 0, "max": 100, "show": False},
        ],
        "series": [
            {"type": "bar", "name": texts("alarm_metric.count"), "barMaxWidth": 15,
             "data": [actor.count for actor in actors], "itemStyle": {"color": "var:accent"},
             "label": {"show": True, "position": "right", "color": "var:text-2"}},
            {"type": "line", "name": texts("alarm_metric.together"), "xAxisIndex": 1, "data": together,
             "itemStyle": {"color": "var:series-1"}, "lineStyle": {"color": "var:series-1"}},
        ],
    }  # fmt: skip


def priority_chart(view: AlarmMetrics, texts: Texts) -> dict[str, Any]:
    """Share of each priority beside what the standards advise, in percent."""
    order = WORST_FIRST[::-1]
    shares = {each.priority: (each.share, each.target) for each in view.priorities}
    series = (
        ("alarm_metric.now", [round(shares[p][0] * 100, 1) for p in order], "accent"),
        ("alarm_metric.target", [round(shares[p][1] * 100, 1) for p in order], "idle"),
    )
    return {
        "animation": False,
        "legend": {"show": True, "top": 0, "right": 0, "itemWidth": 12, "itemHeight": 8},
        "grid": {"left": 40, "right": 12, "top": 30, "bottom": 24},
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "shadow"}},
        "xAxis": {"type": "category", "data": [texts(f"alarm.priority_{p}") for p in order]},
        "yAxis": {"type": "value", "min": 0, "max": 100, "axisLabel": {"formatter": "{value} %"}},
        "series": [
            {"type": "bar", "name": texts(name), "data": data, "barMaxWidth": 26,
             "itemStyle": {"color": f"var:{colour}"},
             "label": {"show": True, "position": "top", "color": "var:text-2", "fontSize": 11}}
            for name, data, colour in series
        ],
    }  # fmt: skip


def _floods(texts: Texts, floods: Sequence[Flood]) -> Markup:
    if not floods:
        return tag("p.hr-dim", texts("alarm_metric.no_floods"))
    rows = [
        tag(
            "tr", tag("td.hr-nowrap.hr-num", f"{moment(flood.start_us)[5:16]} UTC"),
            tag("td.num", span(texts, flood.end_us - flood.start_us)),
            tag("td.num", flood.count), tag("td.num", flood.peak),
        )
        for flood in sorted(floods, key=lambda flood: -flood.start_us)[:ROWS_SHOWN]
    ]  # fmt: skip
    heads = ("began", "lasted", "alarms", "peak_in_10")
    head = tag(
        "tr",
        [tag("th.num" if i else "th", texts(f"alarm_metric.{h}")) for i, h in enumerate(heads)],
    )
    return tag("table.hr-table", tag("thead", head), tag("tbody", rows))


def _chattering(visit: Visit, view: AlarmMetrics) -> Markup:
    texts = visit.texts
    if not view.chattering:
        return tag("p.hr-dim", texts("alarm_metric.no_chattering"))
    rows = [
        tag(
            "tr", tag("td", _named(visit, actor)), tag("td.num", actor.count),
        )
        for actor in view.chattering[:ROWS_SHOWN]
    ]  # fmt: skip
    head = tag("tr", tag("th", texts("alarm.alarm")), tag("th.num", texts("alarm_metric.times")))
    return tag("table.hr-table", tag("thead", head), tag("tbody", rows))


def _name(count: Count) -> str:
    return count.alarm.rpartition("/")[2].replace("_", " ")


def _areas(visit: Visit, areas: dict[str, AlarmMetrics]) -> Markup:
    texts = visit.texts
    if not areas:
        return tag("p.hr-dim", texts("alarm.journal_empty"))
    heads = ("alarms", "average", "peak", "standing_now")
    head = [
        tag("th", texts("alarm_metric.area")),
        *(tag("th.num", texts(f"alarm_metric.{h}")) for h in heads),
    ]
    rows = [
        tag(
            "tr", tag("td", asset_title(visit, area)), tag("td.num", f"{found.told:,}"),
            tag("td.num", f"{found.average:.2f}"), tag("td.num", found.peak),
            tag("td.num", len(found.standing)),
        )
        for area, found in areas.items()
    ]  # fmt: skip
    return tag("table.hr-table", tag("thead", tag("tr", head)), tag("tbody", rows))


def _operators(texts: Texts, operators: Sequence[OperatorWork]) -> Markup:
    if not operators:
        return tag("p.hr-dim", texts("alarm_metric.no_operators"))
    heads = ("acknowledged", "shelved", "comments", "response")
    head = [
        tag("th", texts("alarm_metric.operator")),
        *(tag("th.num", texts(f"alarm_metric.{h}")) for h in heads),
    ]
    rows = [
        tag(
            "tr", tag("td", each.actor), tag("td.num", each.acknowledged), tag("td.num", each.shelved),
            tag("td.num", each.comments),
            tag("td.num", "–" if each.response_s is None else span(texts, round(each.response_s * US_PER_S))),
        )
        for each in operators
    ]  # fmt: skip
    return tag("table.hr-table", tag("thead", tag("tr", head)), tag("tbody", rows))


def _named(visit: Visit, actor: Count) -> Markup:
    words = f"{asset_title(visit, actor.asset)} · {_name(actor)}"
    return tag("a", words, href=deep_link(actor.alarm))


def _standing(visit: Visit, view: AlarmMetrics, now_us: int) -> Markup:
    texts = visit.texts
    if not view.standing:
        return tag("p.hr-dim", texts("alarm_metric.no_standing"))
    board = visit.alarms
    oldest = [one for one in map(board.find, view.standing[:ROWS_SHOWN]) if one is not None]
    rows = [
        tag(
            "tr",
            tag("td.prio", priority_mark(one.priority, texts(f"alarm.priority_{one.priority}"))),
            tag("td", tag("a", message(texts, one), href=deep_link(one.alarm)),
                tag("span.hr-sub", asset_title(visit, one.asset))),
            tag("td", texts(f"alarm.state_{one.state}")),
            tag("td.num", since(texts, one.active_us, now_us)),
        )
        for one in oldest
    ]  # fmt: skip
    return tag("table.hr-table.hr-journal", tag("tbody", rows))
