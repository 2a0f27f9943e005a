"""The running challenger beside the champion, and the drift of now, as the page of models shows them."""

from __future__ import annotations

import asyncio
from typing import Final

import polars as pl
from nicegui import ui

from headrace.apps.models.installed import deployment_of
from headrace.apps.models.live_shadow import DriftNow, LiveShadow, drift_now, shadow_live
from headrace.apps.models.record import ModelRecord
from headrace.apps.models.registry import open_models
from headrace.apps.models.shadow import Agreement
from headrace.console.pages.shell import Visit, html, pill
from headrace.console.widgets.markup import Markup, tag
from headrace.console.widgets.shadow_chart import legend, shadow_chart
from headrace.model.deployment import AppDeployment
from headrace.model.errors import HeadraceError
from headrace.model.time import US_PER_S, to_datetime

REFRESH_S: Final = 10.0
SPAN_US: Final = 86_400 * US_PER_S


class ShadowPart:
    """Below the chosen model; drawn again every ten seconds while it is open.

    Args:
        record: of the model; which version of it does not matter.
    """

    def __init__(self, visit: Visit, record: ModelRecord) -> None:
        self._visit = visit
        self._record = record
        self._deployment: AppDeployment | None = None
        self._found: LiveShadow | None = None
        self._told: list[DriftNow] = []
        self._which: ui.select | None = None

    def draw(self) -> None:
        """The empty places; they fill at once."""
        self._choice = ui.element("div").classes("hr-row hr-wrap").style("margin-top:16px")
        self._chart = html("").props("data-model-shadow")
        self._drift = html("").props("data-model-drift-now")
        ui.timer(REFRESH_S, self._refresh, immediate=True)

    async def _refresh(self) -> None:
        now_us = self._visit.services.sources.clock.now_us()
        try:
            await asyncio.to_thread(self._read, now_us)
        except HeadraceError as error:
            self._found = None
            is_idle = error.code == "APPS-2530"
            said = self._visit.texts("models.shadow_idle") if is_idle else str(error)
            self._chart.set_content(tag("p.hr-dim", said))
        self._drift.set_content(self._drifts(self._told))
        if self._found is not None:
            self._offer(self._found.both)
            self._show()

    def _read(self, now_us: int) -> None:
        sources, record = self._visit.services.sources, self._record
        if self._deployment is None:
            self._deployment = deployment_of(sources.folder, record.app)
        reader, span = sources.history.reader, (now_us - SPAN_US, now_us)
        self._told = drift_now(reader, self._deployment, record.name)
        with open_models(sources.folder) as registry:
            self._found = shadow_live(
                reader, registry, self._deployment, record.name, span, asset=record.asset
            )

    def _offer(self, both: pl.DataFrame) -> None:
        """Which output of which asset; asked once, for what there is."""
        found = both.select("asset", "output").unique().sort("asset", "output").rows()
        names = {f"{asset}\n{output}": f"{asset} · {output}" for asset, output in found}
        if self._which is not None or not names:
            return
        with self._choice:
            self._which = ui.select(
                names, value=next(iter(names)), label=self._visit.texts("models.shadow_of")
            ).props("outlined dense")
            self._which.on_value_change(self._show)

    def _show(self) -> None:
        found, texts = self._found, self._visit.texts
        if found is None:
            return
        if self._which is None:
            self._chart.set_content(tag("p.hr-dim", texts("models.shadow_none")))
            return
        asset, _, output = str(self._which.value).partition("\n")
        its = found.both.filter(pl.col("asset") == asset, pl.col("output") == output)
        agreed = next(each for each in found.found.outputs if each.output == output)
        unit = found.units[output]
        since = to_datetime(found.found.start_us).strftime("%Y-%m-%d %H:%M UTC")
        title = texts(
            "models.shadow_title",
            champion=str(found.found.champion),
            challenger=str(found.found.challenger),
            since=since,
        )
        self._chart.set_content(
            tag(
                "div.hr-card",
                tag("p.hr-pad", tag("b", title)),
                legend(texts),
                tag("div.hr-pad", shadow_chart(its, unit, texts)),
                self._agreement(agreed, unit),
            )
        )

    def _agreement(self, each: Agreement, unit: str) -> Markup:
        texts = self._visit.texts
        alone = each.only_champion + each.only_challenger
        shown = [
            ("models.both", f"{each.windows:,}"),
            ("models.only_one", f"{alone:,}"),
            ("models.mean_difference", f"{each.mean_difference:.4g} {unit}"),
            ("models.rms_difference", f"{each.rms_difference:.4g} {unit}"),
            ("models.correlation", "–" if each.correlation is None else f"{each.correlation:.3f}"),
        ]
        head = tag("tr", [tag("th", texts(key)) for key, _ in shown])
        row = tag("tr", [tag("td", value) for _, value in shown])
        return tag("table.hr-table", tag("thead", head), tag("tbody", row))

    def _drifts(self, told: list[DriftNow]) -> Markup:
        texts = self._visit.texts
        if not told:
            return tag("p.hr-dim", texts("models.drift_none"))
        rows = []
        for each in told:
            word = "drifted" if each.score > 1 else "steady"
            at = to_datetime(each.at_us).strftime("%Y-%m-%d %H:%M:%S UTC")
            color = "bad" if each.score > 1 else "good"
            cells = [each.asset, f"{each.score:.2f}", at, pill(color, texts(f"models.{word}"))]
            rows.append(tag("tr", [tag("td", cell) for cell in cells]))
        heads = ("asset", "drift", "at", "verdict")
        head = tag("tr", [tag("th", texts(f"models.{word}")) for word in heads])
        table = tag("table.hr-table", tag("thead", head), tag("tbody", rows))
        note = tag("p.hr-pad.hr-dim", texts("models.drift_note"))
        return tag("div.hr-card", note, table, style="margin-top:16px")
