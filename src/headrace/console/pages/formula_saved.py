"""The formulas of the site on the page of formulas: what there is, saving one, taking one out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from nicegui import ui

from headrace.console.backfills import BackfillView
from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, html, show_done, show_error
from headrace.console.scope import is_whole
from headrace.console.texts import Texts
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.units import shown_unit
from headrace.formula.grammar import name_place, parse_statement
from headrace.model.errors import HeadraceError
from headrace.site.edit import SiteEdit
from headrace.site.formulas import FormulaLine, formula_lines

FORMULAS_SHOWN_MAX: Final = 500


class SavedFormulas:
    """The list with its buttons, and the row that saves.

    Args:
        read: the expression that is written now, and the asset type that it is for ("" when none).
        open_: shows a formula of the list: its expression and its asset type.
    """

    def __init__(
        self,
        visit: Visit,
        read: Callable[[], tuple[str, str]],
        open_: Callable[[str, str], object],
    ) -> None:
        self._visit = visit
        self._read = read
        self._open = open_
        self._lines: dict[str, FormulaLine] = {}
        self._drawn: object = None
        self._past_drawn: object = None

    def draw(self) -> None:
        """Draw the row for engineers, and the list, which follows the site."""
        texts = self._visit.texts
        if self._visit.may("edit") and self._types():
            with ui.element("div").classes("hr-bar").style("margin-top:16px"):
                self.name = ui.input(texts("formula.name")).props(
                    "outlined dense spellcheck=false autocomplete=off"
                )
                self.kind = ui.select(
                    self._types(), value=self._types()[0], label=texts("formula.type")
                ).props("outlined dense").style("min-width:180px")  # fmt: skip
                button(texts("formula.save"), self._save, icon_name="check")
        self._past = html("").style("margin-top:16px").props("role=status")
        self._past.on(
            "click",
            self._cancel,
            js_handler="(e) => { if (e.target.closest('[data-act=cancel]')) emit(); }",
        )
        self._body = html("").style("margin-top:16px;overflow-x:auto")
        self._body.on(
            "click",
            self._clicked,
            js_handler="(e) => { const b = e.target.closest('[data-act]');"
            " if (b) emit([b.dataset.act, b.dataset.key]); }",
        )
        self._refresh()
        ui.timer(1.0, self._refresh)

    def _types(self) -> list[str]:
        apps = self._visit.site.apps
        return [kind.name for kind in apps.types] if apps else []

    def suggest(self, asset_type: str, name: str = "") -> None:
        """Fill the row that saves."""
        if self._visit.may("edit") and asset_type in self._types():
            self.kind.set_value(asset_type)
            self.name.set_value(name or self.name.value)

    def _refresh(self) -> None:
        self._show_past()
        apps = self._visit.site.apps
        if apps is self._drawn:
            return
        self._drawn = apps
        lines = formula_lines(apps)
        self._lines = {f"{line.asset_type}.{line.name}": line for line in lines}
        self._body.set_content(self._table() if lines else "")

    def _show_past(self) -> None:
        whole = is_whole(self._visit.actor)
        view = self._visit.services.sources.backfills.view if whole else None
        if view is not self._past_drawn:
            self._past_drawn = view
            may = self._visit.may("edit")
            shown = past_progress(view, self._visit.texts, may) if view is not None else ""
            self._past.set_content(shown)

    async def _cancel(self) -> None:
        board = self._visit.services.sources.backfills
        try:
            self._visit.require("edit", f"formula/{board.view.key if board.view else '*'}")
        except HeadraceError as error:
            show_error(self._visit, error)
            return
        await board.cancel()

    async def _work_out(self, key: str) -> None:
        visit = self._visit
        try:
            actor = visit.require("edit", f"formula/{key}")
            await visit.services.sources.backfills.start(key, actor.name)
        except HeadraceError as error:
            show_error(visit, error)

    def _table(self) -> Markup:
        texts, may = self._visit.texts, self._visit.may("edit")
        rows = [
            tag(
                "tr",
                tag("td", tag("b", key), tag("span.hr-sub", _state(line, texts))),
                tag("td.hr-mono", tag("pre", line.text, style="margin:0;white-space:pre-wrap")),
                tag("td", _unit(line, texts)),
                tag("td", texts("formula.assets", n=line.assets)),
                tag("td", _buttons(key, line, texts, may)),
                data_formula=key,
            )
            for key, line in list(self._lines.items())[:FORMULAS_SHOWN_MAX]
        ]
        head = tag("h2.hr-h2", texts("formula.saved_list"))
        table = tag("table.hr-table", tag("tbody", rows))
        return join([head, tag(".hr-card", table, style="overflow-x:auto")])

    async def _clicked(self, event: Any) -> None:
        act, key = event.args
        line = self._lines.get(key)
        if line is None:
            return
        if act == "open":
            statement = parse_statement(line.text)
            expression = line.text[name_place(statement).end :].lstrip().removeprefix("=").strip()
            self._open(expression, line.asset_type)
            self.suggest(line.asset_type, line.name)
        elif act == "past":
            await self._work_out(key)
        else:
            self._confirm(key, line)

    def _confirm(self, key: str, line: FormulaLine) -> None:
        texts = self._visit.texts
        with ui.dialog() as dialog, ui.card().classes("hr-dialog"):
            html(texts("formula.remove_what", name=key), tag_name="h2")
            html(tag("p", texts("formula.remove_stays")))

            async def remove() -> None:
                dialog.close()
                await self._change(
                    key,
                    lambda edit: edit.remove_formula(line.asset_type, line.name),
                    texts("formula.removed", name=key),
                )

            with ui.element("div").classes("hr-row"):
                button(texts("shell.cancel"), dialog.close)
                button(texts("formula.remove"), remove, "danger")
        dialog.open()

    async def _save(self) -> None:
        expression, _ = self._read()
        name, kind = str(self.name.value or "").strip(), str(self.kind.value or "")
        if not expression or not name:
            ui.notification(self._visit.texts("formula.save_what"), position="top-right")
            return
        await self._change(
            f"{kind}.{name}",
            lambda edit: edit.set_formula(kind, name, f"{name} = {expression}"),
            self._visit.texts("formula.saved", name=f"{kind}.{name}"),
        )

    async def _change(self, key: str, change: Callable[[SiteEdit], None], done: str) -> None:
        visit = self._visit

        def work() -> None:
            edit = SiteEdit(visit.services.sources.folder)
            change(edit)
            edit.save()

        try:
            visit.require("edit", f"formula/{key}")
            await asyncio.to_thread(work)
        except HeadraceError as error:
            show_error(visit, error)
            return
        show_done(done)


def _state(line: FormulaLine, texts: Any) -> str:
    version = texts("formula.version", n=line.version)
    return version if line.state == "live" else f"{version} · {texts(f'formula.{line.state}')}"


def _unit(line: FormulaLine, texts: Any) -> str:
    is_kind = line.unit in ("condition", "text")
    return texts(f"formula.{line.unit}") if is_kind else shown_unit(line.unit)


def _buttons(key: str, line: FormulaLine, texts: Any, may: bool) -> Markup:
    made = []
    if line.kind == "formula":
        made.append(_button("open", key, texts("formula.open")))
    if may and line.kind == "formula" and line.state != "off":
        made.append(_button("past", key, texts("formula.past")))
    if may:
        made.append(_button("remove", key, texts("formula.remove")))
    return tag("span.hr-row", made)


def _button(act: str, key: str, text: str) -> Markup:
    return tag(
        "button.hr-btn.small", text, type="button", data_act=act, data_key=key,
        aria_label=f"{text} {key}",
    )  # fmt: skip


def past_progress(view: BackfillView, texts: Texts, may: bool) -> Markup:
    """How far the back-fill is: a bar with its formula, rate and time left, or how it ended."""
    said = texts(f"formula.past_{view.state}", name=view.key)
    if view.state == "running":
        done = {"value": view.parts_done, "max": view.parts} if view.parts else {}
        rate = texts("formula.past_rate", n=f"{view.samples_per_s / 1e6:.2f}")
        left = "" if view.left_s is None else texts("formula.past_left", n=f"{view.left_s:,.0f}")
        parts = [
            tag("b", said),
            tag("progress", aria_label=said, style="width:240px", **done),
            tag("span.hr-dim", f"{view.parts_done}/{view.parts}" if view.parts else ""),
            tag("span.hr-dim", " · ".join(filter(None, (rate, left)))),
        ]
        if may:
            parts.append(_button("cancel", view.key, texts("shell.cancel")))
        return tag(".hr-row", parts, data_past=view.state)
    if view.state == "done":
        told = texts(
            "formula.past_counts", n=f"{view.results:,}", changed=f"{view.changed:,}",
            gone=f"{view.retracted:,}",
        )  # fmt: skip
    else:
        told = " ".join(filter(None, (view.code, view.what, view.remedy)))
    return tag(".hr-row", tag("b", said), tag("span.hr-dim", told), data_past=view.state)
