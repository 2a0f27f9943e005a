"""The audit chain: who did what, who read which data, and whether it is whole."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from nicegui import ui

from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, empty_state, frame, html, pill, show_error
from headrace.console.widgets.markup import Markup, tag
from headrace.console.widgets.spans import moment
from headrace.model.errors import HeadraceError
from headrace.model.time import US_PER_S
from headrace.security.audit import AuditEntry, Verdict
from headrace.security.policy import require
from headrace.security.receipts import Reading

SHOWN_MAX: Final = 300
_SPANS_S: Final = {"hour": 3_600, "day": 86_400, "week": 604_800, "month": 30 * 86_400}
_OUTCOMES: Final = {"done": "good", "allowed": "good", "denied": "warn", "failed": "bad"}


async def show(visit: Visit) -> None:
    """Draw the page."""
    texts = visit.texts
    with frame(visit, texts("audit.title"), nav="audit", help_text=texts("audit.help")):
        page = _Audit(visit)
        page.draw_bars()
        page.verdict = html("").style("margin: 12px 0")
        page.body = ui.element("div")
    try:
        visit.require("audit", "audit")  # told once a visit, not at each letter of a filter
    except HeadraceError as error:
        show_error(visit, error)
        return
    await page.refresh()


class _Audit:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._audit = visit.services.identity.audit
        self._looked = (0, 0)
        self.verdict: Any = None
        self.body: Any = None

    def draw_bars(self) -> None:
        """What is shown, and what can be done."""
        texts = self._visit.texts
        with ui.element("div").classes("hr-bar"):
            self.kind = ui.toggle(
                {"entries": texts("audit.entries"), "reads": texts("audit.reads")}, value="entries"
            ).props("unelevated dense no-caps padding='4px 12px' toggle-color=primary")
            self.span = ui.toggle(
                {name: texts(f"audit.{name}") for name in _SPANS_S}, value="day"
            ).props("unelevated dense no-caps padding='4px 12px' toggle-color=primary")
            html("").classes("hr-grow")
            button(texts("audit.verify"), self.verify, "primary", icon_name="check")
            button(texts("audit.checkpoint"), self.checkpoint, icon_name="download")
        with ui.element("div").classes("hr-bar"):
            self.actor = self._field("actor")
            self.action = self._field("action")
            self.resource = self._field("resource").style("min-width: 220px")
            self.tag = self._field("tag").style("min-width: 320px")
        for part in (self.kind, self.span):
            part.on_value_change(self.refresh)

    def _field(self, name: str) -> ui.input:
        field = ui.input(placeholder=self._visit.texts(f"audit.by_{name}"))
        field.props(f"outlined dense clearable debounce=400 data-by={name}")
        field.on_value_change(self.refresh)
        return field

    async def refresh(self) -> None:
        """Read and show anew."""
        of_reads = self.kind.value == "reads"
        for field in (self.action, self.resource):
            field.set_visibility(not of_reads)
        self.tag.set_visibility(of_reads)
        end_us = self._visit.services.sources.clock.now_us() + 1
        start_us = end_us - _SPANS_S[str(self.span.value)] * US_PER_S
        try:
            require(self._visit.services.actor(self._visit.request), "audit", "audit")
            if of_reads:
                content = await self._reads(start_us, end_us)
            else:
                content = await self._entries(start_us, end_us)
        except HeadraceError as error:
            show_error(self._visit, error)
            return
        self.body.clear()
        with self.body:
            if content is None:
                texts = self._visit.texts
                wanting = of_reads and not self.tag.value
                key = "audit.which" if wanting else "audit.none"
                empty_state("shield", texts(key), texts(f"{key}_what"))
            else:
                html(content).classes("hr-card").style("overflow-x:auto")

    async def _entries(self, start_us: int, end_us: int) -> Markup | None:
        found = await asyncio.to_thread(
            self._audit.entries,
            actor=str(self.actor.value or "").strip(),
            action=str(self.action.value or "").strip(),
            resource=str(self.resource.value or "").strip(),
            start_us=start_us,
            end_us=end_us,
            limit=SHOWN_MAX,
        )
        return self._entry_table(found) if found else None

    async def _reads(self, start_us: int, end_us: int) -> Markup | None:
        site = self._visit.site
        words = str(self.tag.value or "").strip().lower().split()
        views = [v for v in site.tags if words and all(w in v.path.lower() for w in words)]
        if not views:
            return None
        receipts = self._visit.services.identity.receipts
        await asyncio.to_thread(receipts.flush)
        ids = [view.tag_id for view in views]
        found = await asyncio.to_thread(receipts.who_read, ids, start_us, end_us, SHOWN_MAX)
        actor = str(self.actor.value or "").strip()
        lines = [each for each in reversed(found) if actor in ("", each.actor)]
        return self._read_table(lines) if lines else None

    def _entry_table(self, found: list[AuditEntry]) -> Markup:
        texts = self._visit.texts
        heads = ("number", "at", "who", "what", "on", "outcome", "detail")
        rows = [
            tag(
                "tr",
                tag("td.num", entry.number),
                tag("td", moment(entry.at_us), style="white-space:nowrap"),
                tag("td", tag("b", entry.actor)),
                tag("td", entry.action),
                tag("td", entry.resource),
                tag(
                    "td",
                    pill(_OUTCOMES.get(entry.outcome, ""), texts(f"audit.{entry.outcome}")),
                ),
                tag("td.hr-dim", _facts(entry), style="overflow-wrap:anywhere;min-width:260px"),
            )
            for entry in found
        ]
        return _table([texts(f"audit.head_{name}") for name in heads], rows)

    def _read_table(self, found: list[Reading]) -> Markup:
        texts = self._visit.texts
        heads = ("at", "who", "kind", "door", "reads", "samples", "span", "rule")
        rows = [
            tag(
                "tr",
                tag("td", moment(each.at_us), style="white-space:nowrap"),
                tag("td", tag("b", each.actor)),
                tag("td", pill("" if each.kind == "read" else "warn", texts(f"audit.{each.kind}"))),
                tag("td", each.door),
                tag("td.num", f"{each.reads:,}"),
                tag("td.num", f"{each.samples:,}"),
                tag("td", f"{moment(each.start_us)} – {moment(each.end_us)}"),
                tag("td.hr-dim", each.rule),
                title=each.sha256 and f"SHA-256 {each.sha256}",
            )
            for each in found
        ]
        return _table([texts(f"audit.head_{name}") for name in heads], rows)

    async def verify(self) -> None:
        """Look at the whole chain, and say how far that is."""
        texts = self._visit.texts
        self._looked = (0, 0)
        self.verdict.set_content(self._progress())
        timer = ui.timer(0.2, lambda: self.verdict.set_content(self._progress()))
        try:
            self._visit.require("audit", "audit")
            verdict = await asyncio.to_thread(self._audit.verify, (), self._note)
        except HeadraceError as error:
            self.verdict.set_content("")
            show_error(self._visit, error)
            return
        finally:
            timer.cancel()
        self.verdict.set_content(_verdict(texts, verdict))

    def _note(self, done: int, total: int) -> None:
        self._looked = (done, total)

    def _progress(self) -> Markup:
        done, total = self._looked
        words = self._visit.texts("audit.looking", done=f"{done:,}", total=f"{total:,}")
        bar = tag("progress", value=done, max=max(total, 1), style="width:240px")
        return tag(".hr-card.hr-pad.hr-row", bar, tag("span", words), role="status")

    async def checkpoint(self) -> None:
        """Give the chain's state as a file."""
        try:
            self._visit.require("audit", "audit")
            place = await asyncio.to_thread(self._audit.checkpoint)
        except HeadraceError as error:
            show_error(self._visit, error)
            return
        if place is not None:
            name = f"headrace-checkpoint-{place.number}.json"
            ui.download.content(msgspec.json.encode(place) + b"\n", name)


def _facts(entry: AuditEntry) -> str:
    return " · ".join(f"{name} {value}" for name, value in entry.facts().items() if value != "")


def _table(heads: list[str], rows: list[Markup]) -> Markup:
    head = tag("thead", tag("tr", [tag("th", name) for name in heads]))
    return tag("table.hr-table", head, tag("tbody", rows))


def _verdict(texts: Any, verdict: Verdict) -> Markup:
    count = f"{verdict.entries:,}"
    if not verdict.flaws:
        what = texts("audit.whole_what", entries=count)
        return tag(
            ".hr-card.hr-pad.hr-row.hr-wrap", pill("good", texts("audit.whole")),
            tag("span", what), role="status", data_verdict="good",
        )  # fmt: skip
    lines = [tag("li", f"{f.code} · {f.number} · {f.what}") for f in verdict.flaws[:20]]
    return tag(
        ".hr-card.hr-pad", pill("bad", texts("audit.broken")), tag("ul", lines),
        role="alert", data_verdict="bad",
    )  # fmt: skip
