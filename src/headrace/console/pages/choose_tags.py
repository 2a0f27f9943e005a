"""The step of the guided form in which a device is browsed and tags are chosen."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from nicegui import ui

from headrace.console.draft import Draft, TagDraft, items_from
from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, html, show_error
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.edge.contract import BrowseItem
from headrace.model.desired import TagConfig
from headrace.model.errors import HeadraceError, Transient

BROWSE_TIMEOUT_S: Final = 25.0
SHOWN_MAX: Final = 1_000
EDITED_MAX: Final = 300
_PICK: Final = (
    "(e) => { const r = e.target.closest('[data-row]');"
    " if (r) { e.preventDefault(); emit(Number(r.dataset.row)); } }"
)


class ChooseTags:
    """Device on the left, chosen tags on the right.

    Args:
        visit: the page. draft: gets the chosen tags.
    """

    def __init__(self, visit: Visit, draft: Draft) -> None:
        self._visit = visit
        self._draft = draft
        self._items: list[BrowseItem] = []
        self._way: list[tuple[str, str]] = [("", visit.texts("add.browse_root"))]

    def draw(self) -> None:
        """Draw both sides and begin to browse at the root."""
        texts = self._visit.texts
        style = "display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:16px"
        with ui.element("div").style(style):
            with ui.element("div").classes("hr-card hr-pad hr-stack"):
                html(texts("add.browse"), tag_name="b")
                self._crumbs = html("").classes("hr-row hr-wrap")
                self._crumbs.on("click", self._up, js_handler=_PICK)
                self._list = html("").classes("hr-pick").props("data-browse")
                self._list.on("click", self._clicked, js_handler=_PICK)
                button(texts("add.choose_all"), self._all, small=True)
                self._by_hand()
            with ui.element("div").classes("hr-card hr-pad hr-stack"):
                base = ui.input(texts("add.base"), value=self._draft.base)
                base.props(f'outlined dense hint="{texts("add.base_hint")}" data-field="base"')
                base.on("change", lambda: self._rebase(str(base.value or "")))
                self._count = html("", tag_name="b")
                self._chosen = ui.element("div").style("max-height:52vh;overflow:auto")
        self._draw_chosen()
        ui.timer(0.01, self._browse, once=True)

    def _by_hand(self) -> None:
        texts, connector = self._visit.texts, self._draft.connector
        assert connector is not None, "a protocol was chosen"
        with ui.element("div").classes("hr-row"):
            box = ui.input(texts("add.address"), placeholder=connector.address_example)
            box.props('outlined dense stack-label data-field="address"').classes("hr-grow")

            def add() -> None:
                address = str(box.value or "").strip()
                try:
                    connector.check_tag(TagConfig(tag_id=0, path="a/b", address=address))
                    self._draft.choose(BrowseItem(address=address, name=address))
                except HeadraceError as error:
                    show_error(self._visit, error)
                    return
                box.value = ""
                self._redraw()

            button(texts("add.address_add"), add).props("data-add-address")

    async def _browse(self) -> None:
        texts = self._visit.texts
        self._list.set_content(tag(".hr-pad.hr-dim", texts("add.browsing")))
        try:
            self._visit.require("edit", "connection")
            folder = self._visit.services.sources.folder
            call = await asyncio.to_thread(self._draft.call, folder)
            answer = await self._visit.services.sources.ask_edge(
                self._draft.edge,
                "browse",
                {**call, "address": self._way[-1][0]},
                timeout_s=BROWSE_TIMEOUT_S,
            )
            self._items = items_from(answer)[:SHOWN_MAX]
        except msgspec.ValidationError as error:
            self._fail(Transient("CONS-1014", f"the edge's answer does not fit: {error}"))
            return
        except HeadraceError as error:
            self._fail(error)
            return
        self._redraw()

    def _fail(self, error: HeadraceError) -> None:
        self._items = []
        text = tag("div", tag("code", error.code), " ", error.what, tag("div.hr-sub", error.remedy))
        self._list.set_content(tag(".hr-pad", text))

    def _redraw(self) -> None:
        texts = self._visit.texts
        crumbs = [
            join(
                icon("chevron", 14) if i else None,
                tag("button.hr-textbtn", name, type="button", data_row=i),
            )
            for i, (_, name) in enumerate(self._way)
        ]
        self._crumbs.set_content(join(crumbs))
        rows: object = [self._row(i, item) for i, item in enumerate(self._items)]
        self._list.set_content(
            join(rows) if self._items else tag(".hr-pad.hr-dim", texts("add.browse_empty"))
        )
        self._draw_chosen()

    def _row(self, index: int, item: BrowseItem) -> Markup:
        about = " · ".join(text for text in (item.data_type, item.value, item.unit) if text)
        if item.folder:
            mark = icon("folder", 18)
        else:
            mark = tag("input", type="checkbox", checked=item.address in self._draft.tags)
        name = tag("span.hr-tagname.hr-grow", item.name, tag("small.hr-trunc", item.address))
        return tag(
            ".hr-pickrow", mark, name, tag("span.hr-dim.hr-nowrap", about), data_row=index,
            data_address=item.address,
        )  # fmt: skip

    async def _clicked(self, event: Any) -> None:
        item = self._items[int(event.args)]
        if item.folder:
            self._way.append((item.address, item.name))
            await self._browse()
            return
        if item.address in self._draft.tags:
            del self._draft.tags[item.address]
        else:
            self._choose([item])
        self._redraw()

    async def _up(self, event: Any) -> None:
        self._way = self._way[: int(event.args) + 1]
        await self._browse()

    def _all(self) -> None:
        missing = [i for i in self._items if not i.folder and i.address not in self._draft.tags]
        self._choose(missing)
        self._redraw()

    def _choose(self, items: list[BrowseItem]) -> None:
        try:
            for item in items:
                self._draft.choose(item)
        except HeadraceError as error:
            show_error(self._visit, error)

    def _rebase(self, base: str) -> None:
        self._draft.rebase(base)
        self._draw_chosen()

    def _draw_chosen(self) -> None:
        texts = self._visit.texts
        self._count.set_content(f"{texts('add.chosen')} ({len(self._draft.tags)})")
        self._chosen.clear()
        with self._chosen:
            if not self._draft.tags:
                html(texts("add.chosen_none")).classes("hr-dim")
            for chosen in list(self._draft.tags.values())[:EDITED_MAX]:
                self._draw_tag(chosen)

    def _draw_tag(self, chosen: TagDraft) -> None:
        texts = self._visit.texts
        with ui.element("div").classes("hr-row").style("margin-bottom:8px").props("data-chosen"):
            path = ui.input(texts("add.path"), value=chosen.path)
            path.props("outlined dense").classes("hr-grow")
            path.on_value_change(lambda event: setattr(chosen, "path", str(event.value or "")))
            unit = ui.input(texts("add.unit"), value=chosen.unit)
            unit.props("outlined dense").style("width:84px")
            unit.on_value_change(lambda event: setattr(chosen, "unit", str(event.value or "")))
            remove = html(icon("close", 16), tag_name="button").classes("hr-iconbtn")
            remove.props("type=button").on("click", lambda: self._drop(chosen), [])

    def _drop(self, chosen: TagDraft) -> None:
        self._draft.tags.pop(chosen.address, None)
        self._redraw()
