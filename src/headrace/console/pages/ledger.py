"""Where samples went: the loss ledger over time, both sides beside each other, causes by a click."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import polars as pl
from nicegui import ui
from nicegui.events import GenericEventArguments

from headrace.console.ledger import accounts, in_steps
from headrace.console.pages.shell import Visit, frame, html, pill
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.spans import moment
from headrace.historian.ledger_store import Wanted
from headrace.model.errors import Transient
from headrace.model.ledger import MINUTE_US
from headrace.model.ledger_view import SHARES, shares, summed, total, ways

STEPS: Final = 60
REFRESH_S: Final = 5.0
_MINUTES: Final = {"hour": 60, "hours": 360, "day": 1_440, "week": 10_080}
_SHOWN_MIN: Final = 8.0
_CHOSEN: Final = (
    "(e) => {{ const c = e.target.closest('[data-{name}]'); if (c) emit(c.dataset.{name}) }}"
)


@dataclass
class _View:
    """What is asked for, and what was found."""

    span: str = "hour"
    connection: str = ""
    cell: str = ""
    start_us: int = 0
    rows: pl.DataFrame | None = None

    @property
    def step_us(self) -> int:
        return _MINUTES[self.span] // STEPS * MINUTE_US

    def wanted(self, now_us: int) -> Wanted:
        until_us = (now_us // self.step_us + 1) * self.step_us
        self.start_us = until_us - STEPS * self.step_us
        return Wanted(self.start_us, until_us, self.connection)


async def show(visit: Visit) -> None:
    """Draw the page and keep it live."""
    texts, view = visit.texts, _View()
    with frame(visit, texts("ledger.title"), nav="ledger", help_text=texts("ledger.help")):
        with ui.element("div").classes("hr-bar"):
            span = ui.toggle(
                {name: texts(f"ledger.{name}") for name in _MINUTES}, value="hour"
            ).props("unelevated dense no-caps padding='4px 12px' toggle-color=primary")
            names = {"": texts("ledger.every")}
            connection = ui.select(names, value="").props("outlined dense options-dense")
        verdict, strip = html(""), html("")
        causes, sides = html(""), html("")
        for part in (strip, sides):
            part.style("margin-top: 22px")
    drawn: list[str] = []

    async def refresh() -> None:
        view.span, view.connection = str(span.value), str(connection.value or "")
        sources = visit.services.sources
        try:
            view.rows = await accounts(sources, view.wanted(sources.clock.now_us()))
        except Transient:
            view.rows = None
        for state in sources.health.connections():
            names.setdefault(state.state.connection, state.state.connection)
        connection.set_options(names, value=view.connection)
        draw()

    def draw() -> None:
        parts = _parts(visit, view)
        if parts != drawn:
            drawn[:] = parts
            for holder, content in zip((verdict, strip, causes, sides), parts, strict=True):
                holder.set_content(content)

    def choose(event: GenericEventArguments) -> None:
        view.cell = "" if event.args == view.cell else str(event.args)
        draw()

    for holder in (strip, sides):
        holder.on("click", choose, js_handler=_CHOSEN.format(name="cell"))
    span.on_value_change(refresh)
    connection.on_value_change(refresh)
    await refresh()
    ui.timer(REFRESH_S, refresh)


def _parts(visit: Visit, view: _View) -> list[str]:
    """The markup of the four parts of the page."""
    if view.rows is None or view.rows.is_empty():
        texts = visit.texts
        what = tag("p", texts("ledger.empty_what"))
        return [tag(".hr-empty", tag("h3", texts("ledger.empty")), what), "", "", ""]
    return [
        _verdict(visit, total(view.rows)),
        _strip(visit, view, in_steps(view.rows, view.start_us, view.step_us)),
        _causes(visit, view),
        _sides(visit, view, summed(view.rows, "connection")),
    ]


def _verdict(visit: Visit, sums: dict[str, int]) -> Markup:
    texts = visit.texts
    moving = sums["open"] + sums["in_log"] + sums["buffered"]
    if sums["unexplained"]:
        state, key, samples = "bad", "open", sums["unexplained"]
    elif moving:
        state, key, samples = "good", "moving", moving
    else:
        state, key, samples = "good", "closed", sums["expected"] + sums["marked"]
    number = f"{samples:,}"
    title = texts("ledger.open", samples=number) if key == "open" else texts(f"ledger.{key}")
    what = (
        texts(f"ledger.{key}_what")
        if key == "open"
        else texts(f"ledger.{key}_what", samples=number)
    )
    return tag(
        ".hr-card.hr-pad.hr-row.hr-wrap", pill(state, title), tag("span", what),
        data_verdict=state, data_unexplained=sums["unexplained"],
    )  # fmt: skip


def _strip(visit: Visit, view: _View, steps: pl.DataFrame) -> Markup:
    texts = visit.texts
    step = texts("ledger.minutes", count=view.step_us // MINUTE_US)
    lines = []
    for (edge, name), part in steps.group_by(["edge", "connection"], maintain_order=True):
        by_step = {row["step"]: row for row in part.iter_rows(named=True)}
        columns = [
            _column(visit, view, f"{edge}|{name}|{at}", by_step.get(at), at) for at in range(STEPS)
        ]
        lines.append(tag(".hr-line", tag("span.hr-trunc", name, title=name), tag("div", columns)))
    legend = [tag("span", tag(f"i.{share}"), texts(f"ledger.share_{share}")) for share in SHARES]
    head = tag(
        "h2.hr-h2", texts("ledger.over_time"),
        tag("span", texts("ledger.over_time_what", step=step)),
    )  # fmt: skip
    return join(head, tag(".hr-card.hr-pad.hr-ledger", lines, tag(".hr-legend", legend)))


def _column(visit: Visit, view: _View, cell: str, row: dict[str, Any] | None, at: int) -> Markup:
    start_us = view.start_us + at * view.step_us
    chosen = "on" if view.cell == cell else ""
    if row is None:
        return tag("i", cls=chosen, title=moment(start_us))
    parts = {name: n for name, n in shares(row).items() if n}
    whole = max(sum(parts.values()), 1)
    words = ", ".join(f"{n:,} {visit.texts(f'ledger.share_{name}')}" for name, n in parts.items())
    bars = [
        tag(f"b.{name}", style=f"flex:{max(100 * n / whole, _SHOWN_MIN):.0f}")
        for name, n in parts.items()
    ]
    title = f"{moment(start_us)}: {words}"
    return tag("i", bars, cls=chosen, title=title, data_cell=cell)


def _sides(visit: Visit, view: _View, rows: pl.DataFrame) -> Markup:
    texts = visit.texts
    numbers = ("expected", "read", "bad", "published", "stored", "late")
    head = tag(
        "tr",
        tag("th", texts("ledger.connection")),
        tag("th", texts("ledger.group")),
        [tag("th.num", texts(f"ledger.{name}")) for name in numbers],
        tag("th.num", texts("ledger.unexplained")),
        tag("th", texts("ledger.difference")),
    )
    body = []
    for row in rows.iter_rows(named=True):
        cell = f"{row['edge']}|{row['connection']}||{row['group']}"
        words = _words(visit, row)
        unexplained = row["unexplained"]
        body.append(
            tag(
                "tr",
                tag("td", tag("b", row["connection"])),
                tag("td.hr-dim", row["group"]),
                [tag("td.num", f"{row[name]:,}") for name in numbers],
                tag("td.num", pill("bad", f"{unexplained:,}") if unexplained else "0"),
                tag("td", words or tag("span.hr-dim", texts("ledger.nothing"))),
                cls="on" if view.cell == cell else "",
                data_cell=cell,
            )
        )
    title = tag(
        "h2.hr-h2", texts("ledger.sides"), tag("span", texts("ledger.sides_what"))
    )  # fmt: skip
    table = tag("table.hr-table.hr-sides", tag("thead", head), tag("tbody", body))
    return join(title, tag(".hr-card", table, style="overflow-x:auto"))


def _words(visit: Visit, row: dict[str, Any]) -> Markup:
    at = 1 if visit.texts.language == "zh" else 0
    pieces = [
        tag("span", tag(f"i.hr-cause.{way.cause.weight}"), f"{way.samples:,} {way.cause.title[at]}")
        for way in ways(row)
        if way.cause.name != "unexplained"
    ]
    if row["marked"]:
        own = visit.texts("ledger.marked", samples=f"{row['marked']:,}")
        pieces.insert(0, tag("span", tag("i.hr-cause.fine"), own))
    return join(*pieces)


def _causes(visit: Visit, view: _View) -> Markup:
    """What the chosen column or row is about."""
    texts = visit.texts
    row = _chosen(view)
    if row is None:
        return tag("p.hr-dim", texts("ledger.choose"))
    at = 1 if texts.language == "zh" else 0
    lines = [
        tag(
            ".hr-way",
            tag("b", tag(f"i.hr-cause.{way.cause.weight}"), f"{way.samples:,} {way.cause.title[at]}"),
            tag("span", way.cause.text[at]),
            tag(".hr-what-now", way.cause.remedy[at]) if way.cause.remedy[at] else None,
        )
        for way in ways(row)
    ]  # fmt: skip
    if not lines:
        lines = [tag(".hr-way", texts("ledger.all_stored"))]
    pairs = [
        tag("span", f"{texts(f'ledger.{name}')} ", tag("b", f"{row[name]:,}"))
        for name in ("expected", "read", "published", "stored")
    ]
    head = tag(".hr-row.hr-wrap.hr-between", tag("b", row["title"]), tag(".hr-row.hr-wrap", pairs))
    return tag(".hr-card.hr-pad.hr-stack.hr-causes", head, lines, data_causes=True)


def _chosen(view: _View) -> dict[str, Any] | None:
    """The counts of the chosen cell ``edge|connection|step|group``, with a title."""
    edge, name, step, group = (*view.cell.split("|"), "", "", "")[:4]
    if not name or view.rows is None:
        return None
    rows = view.rows.filter((pl.col("edge") == edge) & (pl.col("connection") == name))
    title = f"{name} · {group}" if group else name
    if group:
        rows = rows.filter(pl.col("group") == group)
    if step:
        start_us = view.start_us + int(step) * view.step_us
        minute = pl.col("minute_us")
        rows = rows.filter((minute >= start_us) & (minute < start_us + view.step_us))
        title = f"{title} · {moment(start_us)} UTC"
    return {"title": title, **total(rows)}
