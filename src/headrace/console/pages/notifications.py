"""Notifications: each channel with its last result and a test, and every attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nicegui import ui

from headrace.alarms.notify.store import Attempt
from headrace.console.notifications import ChannelLine
from headrace.console.pages.alarm_table import parts_nav
from headrace.console.pages.parts import button
from headrace.console.pages.refreshed import Refreshed
from headrace.console.pages.shell import (
    Visit,
    empty_state,
    frame,
    html,
    pill,
    show_done,
    show_error,
)
from headrace.console.widgets.markup import Markup, tag
from headrace.console.widgets.spans import moment
from headrace.model.errors import HeadraceError, Transient

LOG_MAX: Final = 200
_COLOURS: Final = {
    "sent": "good",
    "retry": "warn",
    "limited": "warn",
    "open": "idle",
    "lost": "warn",
    "refused": "bad",
}


async def show(visit: Visit) -> None:
    """Draw the page and keep it live."""
    texts = visit.texts
    with frame(visit, texts("notify.title"), nav="alarms", help_text=texts("notify.help")):
        with ui.element("div").classes("hr-bar"):
            html(parts_nav(texts, "notifications"))
        await _Page(visit).part.begin()


class _Page:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._board = visit.services.sources.notifications
        self.part = Refreshed(visit, self._ask, self._draw_all)

    async def _ask(self) -> tuple[Sequence[ChannelLine], Sequence[Attempt]]:
        return await self._board.channels(), await self._board.log(limit=LOG_MAX)

    def _draw_all(self, found: tuple[Sequence[ChannelLine], Sequence[Attempt]]) -> None:
        self._draw(*found)

    def _draw(self, channels: Sequence[ChannelLine], log: Sequence[Attempt]) -> None:
        texts = self._visit.texts
        if not channels:
            empty_state("bell", texts("notify.empty"), texts("notify.empty_what"))
        else:
            with ui.element("div").classes("hr-card"):
                for line in channels:
                    self._draw_channel(line)
        if log:
            html(texts("notify.log"), tag_name="h2").classes("hr-h2")
            card = html(_log(self._visit, log)).classes("hr-card")
            card.style("overflow-x:auto")

    def _draw_channel(self, line: ChannelLine) -> None:
        texts = self._visit.texts
        row = ui.element("div").classes("hr-row hr-wrap hr-pad")
        row.props(f'data-channel="{line.name}"').style("border-bottom:1px solid var(--hr-line)")
        routes = ", ".join(line.routes) or texts("notify.no_route")
        about = f"{texts(f'notify.kind_{line.kind}')} · {routes}"
        with row:
            name = html(tag("div", tag("b", line.name), tag("span.hr-sub", about)))
            name.classes("hr-grow").style("min-width:11em")
            counts = texts(
                "notify.counts", waiting=line.waiting, sent=line.sent, failed=line.failed
            )
            html(tag("span.hr-dim.hr-num", counts))
            html(_last(self._visit, line.last))
            if self._visit.may("edit"):
                button(texts("notify.test"), lambda: self._test(line.name), small=True)

    async def _test(self, channel: str) -> None:
        texts = self._visit.texts
        try:
            self._visit.require("edit", f"channel/{channel}")
            outcome = await self._board.test(channel)
        except HeadraceError as error:
            show_error(self._visit, error)
            return
        if outcome.result == "sent":
            show_done(texts("notify.test_sent", channel=channel))
        else:
            text = f"{outcome.code} {outcome.text}".rstrip()
            what = f"channel {channel} did not deliver the test: {text}"
            show_error(self._visit, Transient("CONS-1350", what))
        await self.part.refresh()


def _last(visit: Visit, last: Attempt | None) -> Markup:
    if last is None:
        return pill("idle", visit.texts("notify.never"))
    return tag(
        "div",
        pill(_COLOURS.get(last.result, "bad"), visit.texts(f"notify.result_{last.result}")),
        tag("span.hr-sub.hr-num", f"{moment(last.at_us)} UTC"),
    )


def _log(visit: Visit, log: Sequence[Attempt]) -> Markup:
    texts = visit.texts
    head = tag(
        "tr",
        tag("th", f"{texts('events.time')} (UTC)"),
        tag("th", texts("notify.channel")),
        tag("th", ""),
        tag("th", texts("notify.message")),
        tag("th.wide", texts("notify.answer")),
    )
    rows = [
        tag(
            "tr",
            tag("td.hr-nowrap.hr-num.hr-dim", moment(each.at_us)),
            tag("td", each.channel),
            tag(
                "td",
                pill(_COLOURS.get(each.result, "bad"), texts(f"notify.result_{each.result}")),
            ),
            tag("td", each.title, tag("span.hr-sub", _kind(visit, each))),
            tag("td.wide.hr-dim", f"{each.code} {each.text}".strip()),
        )
        for each in log
    ]
    return tag("table.hr-table", tag("thead", head), tag("tbody", rows))


def _kind(visit: Visit, each: Attempt) -> str:
    return visit.texts(f"notify.said_{each.kind}", n=each.count)
