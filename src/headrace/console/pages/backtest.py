"""Back-test: try a condition or an alarm on stored history, and see how it moves with its limit."""

from __future__ import annotations

from typing import Any, Final

from nicegui import ui

from headrace.console.history import Place
from headrace.console.pages.formula import wrong
from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, empty_state, frame, html
from headrace.console.receipts import tell_backtest
from headrace.console.texts import Texts
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.spans import moment, span
from headrace.historian.backtest import Outcome, Question
from headrace.historian.marks import parse_marks
from headrace.historian.sweep import parse_sweep
from headrace.model.errors import HeadraceError
from headrace.model.time import US_PER_MS, US_PER_S

ROWS_MAX: Final = 20
ASSETS_MAX: Final = 30
_TYPE: Final = "type:"
_SPANS: Final = ((1, 86_400), (7, 604_800), (30, 2_592_000), (90, 7_776_000), (365, 31_536_000))
_DEFAULT_SPAN_S: Final = 604_800


def show(visit: Visit) -> None:
    """Draw the page; ``?where=``, ``?formula=`` and ``?sweep=`` fill it."""
    texts = visit.texts
    with frame(visit, texts("backtest.title"), nav="formulas", help_text=texts("backtest.help")):
        _Backtest(visit).draw()


class _Backtest:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._asked = visit.request.query_params

    def draw(self) -> None:
        texts, options = self._visit.texts, self._places()
        first = self._asked.get("where") or next(iter(options), "")
        with ui.element("div").classes("hr-bar"):
            self.where = ui.select(
                {first: first} | options, value=first, label=texts("backtest.where"),
                with_input=True, new_value_mode="add-unique",
            ).props("outlined dense").style("min-width:260px")  # fmt: skip
            self.span = ui.select(
                {seconds: texts("time.days", n=n) for n, seconds in _SPANS}, value=_DEFAULT_SPAN_S
            ).props("outlined dense")
            self.sweep = ui.input(
                texts("backtest.sweep"),
                value=self._asked.get("sweep", ""),
                placeholder=texts("backtest.sweep_hint"),
            ).props("outlined dense stack-label autocomplete=off")
            html("").classes("hr-grow")
            button(texts("backtest.run"), self.run, "primary", icon_name="play")
        self.text = ui.input(
            texts("backtest.condition"),
            value=self._asked.get("formula", ""),
            placeholder=texts("backtest.placeholder"),
        ).props("outlined dense stack-label spellcheck=false autocomplete=off")
        self.text.classes("full-width hr-mono").on("keydown.enter", self.run)
        with ui.expansion(texts("backtest.events")).style("margin:8px 0"):
            self.events = ui.textarea(
                texts("backtest.events"), placeholder=texts("backtest.events_hint")
            ).props("outlined dense stack-label spellcheck=false")
            self.events.classes("full-width hr-mono")
        self.answer = ui.element("div")
        with self.answer:
            empty_state("trend", texts("backtest.empty"), texts("backtest.empty_what"))

    def _places(self) -> dict[str, str]:
        """Asset types, then equipment."""
        site, texts = self._visit.site, self._visit.texts
        types = site.apps.types if site.apps is not None else ()
        named = {_TYPE + each.name: texts("backtest.whole_type", name=each.name) for each in types}
        return named | {path: path for path in sorted({view.unit_path for view in site.tags})}

    async def run(self) -> None:
        visit, texts = self._visit, self._visit.texts
        if not str(self.text.value or "").strip():
            return
        self.answer.clear()
        with self.answer:
            html(texts("backtest.running")).classes("hr-dim").props("role=status")
        try:
            visit.require("read", "samples")
            outcome = await self._outcome()
        except HeadraceError as error:
            self.answer.clear()
            with self.answer:
                html(wrong(error, texts.language)).classes("hr-card hr-pad").props("role=alert")
            return
        self.answer.clear()
        with self.answer:
            _draw(outcome, texts)

    async def _outcome(self) -> Outcome:
        visit = self._visit
        sources = visit.services.sources
        where = str(self.where.value or "")
        of_type = where.startswith(_TYPE)
        place = Place("", where.removeprefix(_TYPE)) if of_type else Place(where)
        end_us = sources.clock.now_us()
        sweep = str(self.sweep.value or "").strip()
        question = Question(
            text=str(self.text.value).strip(),
            asset_type=place.asset_type,
            start_us=end_us - int(self.span.value or _DEFAULT_SPAN_S) * US_PER_S,
            end_us=end_us,
            marks=tuple(parse_marks(str(self.events.value or ""))),
            sweep=parse_sweep(sweep) if sweep else None,
        )
        tags = [(view.path, view.tag_id, view.unit) for view in visit.site.tags]
        actor = visit.require("read", "samples")
        found = await sources.history.backtest(place, question, tags, visit.site.apps)
        tell_backtest(visit.services, actor, "page/backtest", question, found)
        return found


def _draw(outcome: Outcome, texts: Texts) -> None:
    html(_said(outcome, texts)).props("role=status")
    if outcome.episodes:
        height = 90 + 26 * min(len(outcome.assets), ASSETS_MAX)
        with ui.element("div").classes("hr-card").style(f"height:{height}px;padding:8px"):
            ui.echart(_timeline(outcome)).classes("full-width full-height")
    if outcome.points:
        with ui.element("div").classes("hr-card").style("height:320px;padding:8px;margin-top:12px"):
            ui.echart(_limits(outcome, texts)).classes("full-width full-height").props(
                "data-limits"
            )
    html(join([_events(outcome, texts), _episodes(outcome, texts)])).style("overflow-x:auto")


def _said(outcome: Outcome, texts: Texts) -> Markup:
    tally, assets = outcome.tally, len(outcome.assets)
    lines = [texts("backtest.never", assets=assets)]
    if tally.count:
        total, longest = (
            span(texts, round(s * US_PER_S)) for s in (tally.total_s, tally.longest_s)
        )
        lines = [
            texts("backtest.found", n=tally.count, assets=assets, total=total, longest=longest)
        ]
    if tally.suppressed:
        lines.append(texts("backtest.suppressed", n=tally.suppressed))
    if tally.met is not None:
        met = tally.met
        count = met.hits + met.misses
        lines.append(texts("backtest.met", hits=met.hits, n=count, wrong=met.false_alarms))
    lines += [texts("backtest.lacking", path=path, name=name) for path, name in outcome.lacking[:5]]
    first, *rest = lines
    return join(
        [tag("p", tag("b", first), data_result=tally.count)]
        + [tag("p.hr-dim", line) for line in rest]
    )


def _timeline(outcome: Outcome) -> dict[str, Any]:
    """A thick line for each episode, in the row of its asset; marked events as lines across."""
    shown = outcome.assets[:ASSETS_MAX]
    points: dict[bool, list[list[Any]]] = {False: [], True: []}
    for each in outcome.episodes:
        if each.asset in shown:
            end_us = outcome.end_us if each.end_us is None else each.end_us
            ends = [[at_us / US_PER_MS, each.asset] for at_us in (each.start_us, end_us)]
            points[each.suppressed] += [*ends, [end_us / US_PER_MS, None]]
    met = outcome.tally.met
    events = [
        {"xAxis": each.mark.at_us / US_PER_MS, "label": {"formatter": each.mark.label or " "}}
        for each in (met.events if met is not None else ())
    ]
    series = [
        {
            "type": "line",
            "data": data,
            "symbol": "rect",  # so that a short one is seen too
            "symbolSize": [3, 12],
            "itemStyle": {"color": colour},
            "lineStyle": {"width": 12, "color": colour},
            "markLine": {"symbol": "none", "data": [] if quiet else events},
        }
        for quiet, data in points.items()
        for colour in ("#9aa3ad" if quiet else "#d9480f",)
    ]
    return {
        "animation": False,
        "grid": {"left": 12, "right": 24, "top": 24, "bottom": 30, "containLabel": True},
        "tooltip": {"trigger": "item"},
        "xAxis": {
            "type": "time",
            "min": outcome.start_us / US_PER_MS,
            "max": outcome.end_us / US_PER_MS,
        },
        "yAxis": {"type": "category", "data": list(reversed(shown))},
        "series": series,
    }


def _limits(outcome: Outcome, texts: Texts) -> dict[str, Any]:
    """Episodes, events and hours against the limit."""
    columns: list[tuple[str, list[float]]] = [
        ("backtest.times", [point.tally.count for point in outcome.points]),
    ]
    met = [point.tally.met for point in outcome.points if point.tally.met is not None]
    if met:
        columns.append(("backtest.hits", [each.hits for each in met]))
        columns.append(("backtest.wrong", [each.false_alarms for each in met]))
    columns.append(("backtest.hours", [point.tally.total_s / 3_600 for point in outcome.points]))
    values = [point.value for point in outcome.points]
    return {
        "animation": False,
        "legend": {"top": 0},
        "tooltip": {"trigger": "axis"},
        "grid": {"left": 48, "right": 56, "top": 40, "bottom": 44},
        "xAxis": {
            "type": "value",
            "scale": True,
            "name": texts("backtest.in_place", limit=outcome.swept),
            "nameLocation": "middle",
            "nameGap": 26,
        },
        "yAxis": [{"type": "value", "minInterval": 1}, {"type": "value"}],
        "series": [
            {
                "name": texts(key),
                "type": "line",
                "yAxisIndex": int(key == "backtest.hours"),
                "lineStyle": {"type": "dotted" if key == "backtest.hours" else "solid"},
                "data": [list(pair) for pair in zip(values, data, strict=True)],
            }
            for key, data in columns
        ],
    }


def _events(outcome: Outcome, texts: Texts) -> Markup:
    met = outcome.tally.met
    if met is None:
        return join([])
    rows = []
    for each in met.events[:ROWS_MAX]:
        key = "backtest.missed"
        if each.lead_s is not None:
            key = "backtest.before" if each.lead_s >= 0 else "backtest.after"
        lead = texts(key, span=span(texts, round(abs(each.lead_s or 0.0) * US_PER_S)))
        cells = (moment(each.mark.at_us) + " UTC", each.mark.label, each.mark.asset, lead)
        rows.append(tag("tr", [tag("td", cell) for cell in cells]))
    return _table(
        ("backtest.from", "backtest.event", "backtest.asset", "backtest.lead"), rows, texts
    )


def _episodes(outcome: Outcome, texts: Texts) -> Markup:
    rows = []
    for each in outcome.episodes[:ROWS_MAX]:
        end_us = outcome.end_us if each.end_us is None else each.end_us
        length = span(texts, end_us - each.start_us)
        cells = (
            moment(each.start_us) + " UTC",
            length + (" +" if each.end_us is None else ""),
            each.asset,
        )
        rows.append(tag("tr", [tag("td", cell) for cell in cells]))
    if not rows:
        return join([])
    left = outcome.tally.count + outcome.tally.suppressed - len(rows)
    table = _table(("backtest.from", "backtest.for", "backtest.asset"), rows, texts)
    return join([table, tag("p.hr-dim", texts("backtest.more", n=left)) if left > 0 else None])


def _table(heads: tuple[str, ...], rows: list[Markup], texts: Texts) -> Markup:
    head = tag("tr", [tag("th", texts(key)) for key in heads])
    return tag("table.hr-table", tag("thead", head), tag("tbody", rows), style="margin-top:12px")
