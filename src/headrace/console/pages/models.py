"""Models of apps: what there is, where it comes from, how it does, and which one is used."""

from __future__ import annotations

import asyncio
from functools import partial

from nicegui import ui

from headrace.apps.models.drift import ALPHA, Drift
from headrace.apps.models.record import ModelRecord
from headrace.apps.models.registry import open_models
from headrace.apps.models.watch import Watched
from headrace.console.api.models import Change, apply, watched
from headrace.console.pages.model_shadow import ShadowPart
from headrace.console.pages.parts import button
from headrace.console.pages.shell import (
    Visit,
    empty_state,
    frame,
    html,
    pill,
    show_done,
    show_error,
)
from headrace.console.scope import is_whole
from headrace.console.widgets.lineage import lineage
from headrace.console.widgets.markup import Markup, tag
from headrace.model.errors import HeadraceError
from headrace.model.time import US_PER_S
from headrace.security.policy import decide

DAY_US = 86_400 * US_PER_S
_COLORS = {"champion": "good", "challenger": "warn", "retired": "bad"}


async def show(visit: Visit) -> None:
    """Draw the page."""
    texts = visit.texts
    with frame(visit, texts("models.title"), nav="models", help_text=texts("models.help")):
        page = _Page(visit)
        await page.draw()


class _Page:
    """The list, and one version that was chosen."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._texts = visit.texts
        self._chosen: tuple[str, str, int] | None = None

    async def draw(self) -> None:
        self._list = ui.element("div")
        self._detail = ui.element("div").props("data-model-detail")
        await self._refresh()

    async def _refresh(self) -> None:
        try:
            self._found = await asyncio.to_thread(self._read)
        except HeadraceError as error:
            show_error(self._visit, error)
            return
        self._list.clear()
        with self._list:
            if not self._found:
                empty_state("chart", self._texts("models.empty"), self._texts("models.empty_what"))
                return
            with ui.element("div").classes("hr-card"):
                for record in self._found:
                    self._row(record)
        self._show_chosen()

    def _read(self) -> list[ModelRecord]:
        if not is_whole(self._visit.actor):
            return []  # a model is of all its assets
        with open_models(self._visit.services.sources.folder) as registry:
            return registry.models()

    def _row(self, record: ModelRecord) -> None:
        key = f"{record.app}/{record.name}/{record.version}"
        with ui.element("div").classes("hr-row hr-wrap hr-pad").props(f'data-model="{key}"'):
            of = f" · {record.asset}" if record.asset else ""
            title = tag("b", f"{record.app} · {record.name} {record.version}{of}")
            metrics = ", ".join(f"{n} {v:.4g}" for n, v in sorted(record.metrics.items()))
            html(tag("div", title, tag("span.hr-sub", metrics))).classes("hr-grow")
            html(pill(_COLORS.get(record.state, ""), self._texts(f"models.{record.state}")))
            button(self._texts("models.open"), partial(self._choose, record), small=True)

    def _choose(self, record: ModelRecord) -> None:
        self._chosen = (record.app, record.name, record.version)
        self._show_chosen()

    def _show_chosen(self) -> None:
        self._detail.clear()
        record = next((r for r in self._found if (r.app, r.name, r.version) == self._chosen), None)
        if record is None:
            return
        texts = self._texts
        family = [e for e in self._found if (e.app, e.name) == (record.app, record.name)]
        with self._detail:
            html(f"{record.app} · {record.name} {record.version}", tag_name="h2").classes("hr-h2")
            html(lineage(record, family, texts)).classes("hr-card hr-pad")
            resource = f"model/{record.app}/{record.name}"
            if decide(self._visit.actor, "edit", resource).allowed:
                self._actions(record)
            with ui.element("div").classes("hr-row hr-wrap").style("margin-top:16px"):
                look = partial(self._look, record)
                button(texts("models.look"), look, icon_name="search")
            self._drift = html("").props("data-model-drift")
            ShadowPart(self._visit, record).draw()

    def _actions(self, record: ModelRecord) -> None:
        texts = self._texts
        with ui.element("div").classes("hr-row hr-wrap").style("margin-top:16px"):
            why = ui.input(texts("models.why")).props("outlined dense").classes("hr-grow")
            for verb in ("promote", "challenge", "retire", "rollback"):
                kind = {"promote": "primary", "retire": "danger"}.get(verb, "")
                do = partial(self._change, record, verb, why)
                button(texts(f"models.{verb}"), do, kind, small=True)

    async def _change(self, record: ModelRecord, verb: str, why: ui.input) -> None:
        visit = self._visit
        try:
            actor = visit.require("edit", f"model/{record.app}/{record.name}")
            asked = Change(why=str(why.value or ""), version=record.version, asset=record.asset)
            changed = await asyncio.to_thread(
                apply, visit.services, record.app, record.name, verb, asked, actor.name
            )
        except HeadraceError as error:
            show_error(visit, error)
            return
        show_done(f"{changed.name} {changed.version}: {self._texts(f'models.{changed.state}')}")
        await self._refresh()

    async def _look(self, record: ModelRecord) -> None:
        visit = self._visit
        now_us = visit.services.sources.clock.now_us()
        try:
            found = await asyncio.to_thread(
                watched, visit.services, record.app, record.name, record.version, now_us, DAY_US,
                ALPHA,
            )  # fmt: skip
        except HeadraceError as error:
            show_error(visit, error)
            return
        self._drift.set_content(self._picture(found))

    def _picture(self, found: Watched) -> Markup:
        texts = self._texts
        heads = ("asset", "quantity", "psi", "ks", "p", "missing", "verdict")
        head = tag("tr", [tag("th", texts(f"models.{word}")) for word in heads])
        rows = [self._line(each) for each in found.quantities]
        told = texts(
            "models.by_chance",
            drifted=str(len(found.drifted)),
            all=str(len(found.quantities)),
            chance=f"{found.by_chance:.1f}",
        )
        table = tag("table.hr-table", tag("thead", head), tag("tbody", rows))
        return tag("div.hr-card", tag("p.hr-pad", told), table, style="overflow-x:auto")

    def _line(self, each: Drift) -> Markup:
        word = "drifted" if each.drifted else "steady" if each.can_tell else "too_few"
        color = {"drifted": "bad", "steady": "good"}.get(word, "")
        cells = [
            each.asset,
            each.quantity,
            _bar(each.psi, each.psi_before),
            _bar(each.ks, each.ks_before),
            f"{each.p:.3f}",
            f"{each.missing:.0%}",
            pill(color, self._texts(f"models.{word}")),
        ]
        return tag("tr", [tag("td", cell) for cell in cells])


def _bar(value: float, before: float) -> Markup:
    """A number with its length, and a mark where it usually is."""
    top = max(value, before, 1e-9) * 1.1
    bar = (
        f'<svg width="90" height="12" role="img" aria-label="{value:.3f}, {before:.3f}">'
        f'<rect x="0" y="2" width="{90 * value / top:.1f}" height="8" fill="currentColor" '
        f'fill-opacity="0.35"/><rect x="{90 * before / top:.1f}" y="0" width="2" height="12" '
        'fill="currentColor"/></svg>'
    )
    return tag("span", Markup(bar), f" {value:.3f}")
