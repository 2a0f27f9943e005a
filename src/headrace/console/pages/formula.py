"""Formulas: write one, see at once what it gives on stored history, or what is wrong and where."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl
from nicegui import ui

from headrace.console.history import Place
from headrace.console.pages.formula_live import LiveFormulas
from headrace.console.pages.formula_saved import SavedFormulas
from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, empty_state, frame, html
from headrace.console.receipts import tell_read
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.units import shown_unit
from headrace.formula.binding import names_in
from headrace.formula.functions import FUNCTIONS
from headrace.formula.plan import Plan
from headrace.formula.problems import FormulaProblem
from headrace.historian.formulas import AssetTags
from headrace.model.errors import HeadraceError
from headrace.model.time import US_PER_MS, US_PER_S
from headrace.site.registry import compile_pattern

LINES_MAX: Final = 8
TYPE: Final = "type "
"""What stands before an asset type in the list of equipment."""
POINTS_MAX: Final = 4_000
TEXT_ROWS_MAX: Final = 200
_SPANS: Final = (
    ("time.minutes", 15, 900),
    ("time.hours", 1, 3_600),
    ("time.hours", 8, 28_800),
    ("time.days", 1, 86_400),
    ("time.days", 7, 604_800),
)
_DEFAULT_SPAN_S: Final = 3_600


def show(visit: Visit) -> None:
    """Draw the page; ``?equipment=`` and ``?formula=`` fill it."""
    texts = visit.texts
    equipment = sorted({view.unit_path for view in visit.site.tags})
    with frame(visit, texts("formula.title"), nav="formulas", help_text=texts("formula.help")):
        if not equipment:
            empty_state("trend", texts("formula.no_equipment"), texts("formula.no_equipment_what"))
            return
        _Formulas(visit, equipment).draw()


class _Formulas:
    def __init__(self, visit: Visit, equipment: list[str]) -> None:
        self._visit = visit
        self._equipment = equipment
        asked = visit.request.query_params
        self._first = asked.get("equipment") or equipment[0]
        self._formula = asked.get("formula", "")

    def draw(self) -> None:
        texts = self._visit.texts
        apps = self._visit.site.apps
        types = [f"{TYPE}{kind.name}" for kind in apps.types] if apps else []
        options = list(dict.fromkeys([self._first, *types, *self._equipment]))
        with ui.element("div").classes("hr-bar"):
            self.equipment = ui.select(
                options, value=self._first, label=texts("formula.equipment"), with_input=True,
                new_value_mode="add-unique", on_change=self._list_quantities,
            ).props("outlined dense").style("min-width:260px")  # fmt: skip
            self.span = ui.select(
                {seconds: texts(key, n=n) for key, n, seconds in _SPANS}, value=_DEFAULT_SPAN_S
            ).props("outlined dense")
            html("").classes("hr-grow")
            html(tag("a.hr-btn", texts("backtest.open"), href="/formulas/backtest"))
            button(texts("formula.run"), self.evaluate, "primary", icon_name="play")
        self.text = ui.input(
            texts("formula.formula"), value=self._formula, placeholder=texts("formula.placeholder")
        ).props("outlined dense stack-label spellcheck=false autocomplete=off")
        self.text.classes("full-width hr-mono").on("keydown.enter", self.evaluate)
        self.quantities = html("").classes("hr-chips").style("margin:8px 0")
        self.quantities.on(
            "click",
            self._insert,
            js_handler="(e) => { const b = e.target.closest('[data-insert]');"
            " if (b) emit(b.dataset.insert); }",
        )
        self.answer = ui.element("div")
        self.saved = SavedFormulas(self._visit, self._written, self._open)
        self.saved.draw()
        LiveFormulas(self._visit).draw()
        with ui.expansion(texts("formula.functions")).style("margin-top:16px"):
            html(self._functions()).classes("hr-card").style("overflow-x:auto")
        self._list_quantities()
        with self.answer:
            empty_state("trend", texts("formula.empty"), texts("formula.empty_what"))

    def _place(self) -> Place:
        value = str(self.equipment.value or "")
        is_type = value.startswith(TYPE)
        return Place(asset_type=value.removeprefix(TYPE)) if is_type else Place(value)

    def _asset_type(self) -> str:
        """That of the chosen type, or of the chosen equipment; "" when there is none."""
        place, apps = self._place(), self._visit.site.apps
        if place.asset_type or apps is None:
            return place.asset_type
        return next((asset.type for asset in apps.assets if asset.path == place.pattern), "")

    def _written(self) -> tuple[str, str]:
        return str(self.text.value or "").strip(), self._asset_type()

    def _open(self, expression: str, asset_type: str) -> None:
        self.equipment.set_value(f"{TYPE}{asset_type}")
        self.text.set_value(expression)

    def _list_quantities(self) -> None:
        place, apps = self._place(), self._visit.site.apps
        asset_type = self._asset_type()
        units: dict[str, str] = {}
        if not place.asset_type:
            matches = compile_pattern(place.pattern) if place.pattern else None
            for view in self._visit.site.tags:
                if matches is not None and matches.fullmatch(view.unit_path):
                    units.setdefault(view.name, shown_unit(view.unit))
        if apps is not None and asset_type:
            for name, quantity in names_in(apps, asset_type).items():
                unit = shown_unit(quantity.unit) if quantity.kind == "number" else ""
                units.setdefault(name, unit)
        chips = [
            tag(
                "button.hr-chip", tag("b", name), tag("span.hr-unit", unit), type="button",
                data_insert=name,
            )
            for name, unit in units.items()
        ]  # fmt: skip
        self.quantities.set_content(join(chips))
        self.saved.suggest(asset_type)

    def _insert(self, event: Any) -> None:
        text = str(self.text.value or "")
        self.text.set_value(f"{text} {event.args}".strip() if text else str(event.args))

    def _functions(self) -> Markup:
        chinese = self._visit.texts.language == "zh"
        rows = [
            tag("tr", tag("td.hr-mono", f.usage), tag("td", f.help_zh if chinese else f.help))
            for name, f in FUNCTIONS.items()
            if name != "status"
        ]
        return tag("table.hr-table", tag("tbody", rows))

    async def evaluate(self) -> None:
        visit, texts = self._visit, self._visit.texts
        sources = visit.services.sources
        text = str(self.text.value or "").strip()
        if not text:
            return
        self.answer.clear()
        with self.answer:
            html(texts("formula.running")).classes("hr-dim").props("role=status")
        end_us = sources.clock.now_us()
        span = end_us - int(self.span.value or _DEFAULT_SPAN_S) * US_PER_S, end_us
        tags = [(view.path, view.tag_id, view.unit) for view in visit.site.tags]
        try:
            actor = visit.require("read", "samples")
            plan, laid, rows = await sources.history.formula(
                text, self._place(), tags, span, visit.site.apps
            )
            read = laid.tag_ids
            tell_read(visit.services, actor, "page/formulas", read, rows.height, span)
        except HeadraceError as error:
            self.answer.clear()
            with self.answer:
                html(wrong(error, texts.language)).classes("hr-card hr-pad").props("role=alert")
            return
        self.answer.clear()
        with self.answer:
            self._show(plan, laid.assets, rows)

    def _show(self, plan: Plan, assets: list[AssetTags], rows: pl.DataFrame) -> None:
        texts = self._visit.texts
        if not rows.height:
            empty_state("trend", texts("formula.none"), "")
            return
        unit = shown_unit(plan.unit) if plan.kind == "number" else texts(f"formula.{plan.kind}")
        said = texts("formula.result", n=f"{rows.height:,}", unit=unit)
        doubtful = int((rows["status"] >= 0x4000_0000).sum())
        if doubtful:
            said = f"{said} · {texts('formula.not_good', n=f'{doubtful:,}')}"
        html(tag("p.hr-dim", said, data_result=rows.height)).props("role=status")
        if plan.kind == "text":
            html(_text_table(assets, rows)).classes("hr-card").style("overflow-x:auto")
            return
        lines, reduced = _lines(assets, rows)
        with ui.element("div").classes("hr-card").style("height:420px;padding:8px"):
            ui.echart(_chart(lines, unit, plan)).classes("full-width full-height")
        if reduced:
            html(texts("formula.reduced")).classes("hr-plot-note")


def wrong(error: HeadraceError, language: str) -> Markup:
    """What is wrong: for a formula with the line and a caret below the place."""
    if not isinstance(error, FormulaProblem):
        return join([tag("b", error.code), " ", error.what, tag("p.hr-dim", error.remedy)])
    head, line, caret, *rest = error.show(language).split("\n")
    return join(
        [
            tag("p", tag("b", head)),
            tag("pre.hr-mono", f"{line}\n{caret}", style="color:var(--hr-bad)"),
            tag("p", rest[0]),
            tag("p.hr-dim", " ".join(rest[1:])),
        ]
    )


def _text_table(assets: list[AssetTags], rows: pl.DataFrame) -> Markup:
    """Each change of a text, newest first."""
    shown = rows.filter(
        (pl.col("text") != pl.col("text").shift(1).over("asset")).fill_null(True)
    ).sort("at_us", descending=True)
    at = pl.from_epoch("at_us", time_unit="us").dt.strftime("%Y-%m-%d %H:%M:%S")
    lines = [
        tag("tr", tag("td", assets[row[0]].path), tag("td", f"{row[1]} UTC"), tag("td", row[2]))
        for row in shown.head(TEXT_ROWS_MAX).select("asset", at, "text").iter_rows()
    ]
    return tag("table.hr-table", tag("tbody", lines))


def _lines(
    assets: list[AssetTags], rows: pl.DataFrame
) -> tuple[list[tuple[str, list[list[Any]]]], bool]:
    """Points to draw for each asset, and whether there were more."""
    lines, reduced = [], False
    for number in rows["asset"].unique().sort().to_list()[:LINES_MAX]:
        mine = rows.filter(pl.col("asset") == number)
        if mine.height > POINTS_MAX:
            mine, reduced = _reduced(mine), True
        at_ms = mine["at_us"].to_numpy() / US_PER_MS
        values = mine["value"].to_list()
        lines.append((assets[number].path, [list(p) for p in zip(at_ms, values, strict=True)]))
    return lines, reduced


def _reduced(rows: pl.DataFrame) -> pl.DataFrame:
    bucket = np.linspace(0, POINTS_MAX // 2, rows.height, endpoint=False).astype(np.int64)
    value = pl.col("value")
    low = value == value.min().over("bucket")
    high = value == value.max().over("bucket")
    edge = pl.col("bucket") != pl.col("bucket").shift(1)
    kept = rows.with_columns(pl.Series("bucket", bucket)).filter(low | high | edge)
    return kept.unique(["bucket", "value"], maintain_order=True).drop("bucket")


def _chart(lines: list[tuple[str, list[list[Any]]]], unit: str, plan: Plan) -> dict[str, Any]:
    axis: dict[str, Any] = {"type": "value", "name": unit, "scale": plan.kind == "number"}
    if plan.kind == "condition":
        axis |= {"min": 0, "max": 1, "interval": 1}
    return {
        "animation": False,
        "legend": {"show": len(lines) > 1, "top": 0},
        "tooltip": {"trigger": "axis"},
        "grid": {"left": 64, "right": 24, "top": 40, "bottom": 64},
        "xAxis": {"type": "time"},
        "yAxis": axis,
        "dataZoom": [{"type": "inside"}, {"type": "slider", "height": 20, "bottom": 12}],
        "series": [
            {
                "name": name,
                "type": "line",
                "step": "end",
                "showSymbol": len(points) < 40,
                "symbolSize": 5,
                "data": points,
            }
            for name, points in lines
        ],
    }
