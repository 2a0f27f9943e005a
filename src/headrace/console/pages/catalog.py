"""The catalog: which packages there are and which are installed, what they may, and install to remove."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from nicegui import events, ui

from headrace.apps.catalog import CatalogEntry
from headrace.apps.package import Package, read_package
from headrace.console.app_shop import Shelf
from headrace.console.error_words import error_markup
from headrace.console.pages.app_parts import (
    permissions_list,
    rating_mark,
    signature_mark,
)
from headrace.console.pages.app_values import parts_nav
from headrace.console.pages.parts import busy_button, button, diff_markup
from headrace.console.pages.shell import (
    Visit,
    empty_state,
    frame,
    html,
    show_done,
    show_error,
)
from headrace.console.pages.signing import allowed
from headrace.console.widgets.markup import Markup, join, tag
from headrace.model.errors import HeadraceError

BYTES_MAX: Final = 64 * 1024 * 1024
NEWS_MAX: Final = 4_000


async def show(visit: Visit) -> None:
    """The page."""
    texts = visit.texts
    with frame(visit, texts("catalog.title"), nav="apps", help_text=texts("catalog.help")):
        page = _Catalog(visit)
        with ui.element("div").classes("hr-bar"):
            html(parts_nav(visit, "catalog"))
            if visit.may("edit"):
                upload = ui.upload(
                    label=texts("catalog.upload"), auto_upload=True, max_file_size=BYTES_MAX,
                    on_upload=page.uploaded, on_rejected=page.rejected,
                )  # fmt: skip
                page.upload = upload
                upload.props("flat bordered accept=.hrapp data-upload").classes("hr-upload")
        page.body = ui.element("div").classes("hr-stack")
        await page.refresh()


class _Catalog:
    body: ui.element
    upload: ui.upload

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._texts = visit.texts
        self._shop = visit.services.catalog

    async def refresh(self) -> None:
        """Draw anew."""
        self.body.clear()
        with self.body:
            try:
                shelves = await asyncio.to_thread(self._shop.shelves)
            except HeadraceError as error:
                html(error_markup(self._visit.texts, error))
                return
            if not shelves:
                empty_state(
                    "folder", self._texts("catalog.empty"), self._texts("catalog.empty_what")
                )
            for shelf in shelves:
                self._draw(shelf)

    def _draw(self, shelf: Shelf) -> None:
        texts, newest = self._texts, shelf.entries[-1]
        with ui.element("article").classes("hr-card hr-pad").props(f'data-package="{shelf.id}"'):
            title = texts.title(newest.title, shelf.id)
            kind = tag("span.hr-pill.idle", texts(f"catalog.kind_{newest.kind}"))
            now = shelf.installed
            state = (
                tag("span.hr-pill.good", texts("catalog.installed", version=now)) if now else None
            )
            html(
                join(
                    tag("h3.hr-app-title", title, kind, state),
                    tag("p.hr-dim", texts.title(newest.description, "")),
                )
            )
            rows = [self._row(shelf, entry) for entry in reversed(shelf.entries)]
            html(tag("table.hr-table", tag("tbody", rows))).style("overflow-x:auto")
            if self._visit.may("edit") and newest.kind == "app":
                self._buttons(shelf, newest)

    def _row(self, shelf: Shelf, entry: CatalogEntry) -> Markup:
        texts = self._texts
        needs = {**entry.requires, **entry.types}
        needed = ", ".join(f"{name} {versions}".strip() for name, versions in needs.items())
        return tag(
            "tr",
            tag("td", tag("b", entry.version), tag("span.hr-sub", f"{entry.size / 1024:,.0f} kB")),
            tag("td", signature_mark(texts, entry.publisher, is_signed=entry.is_signed)),
            tag(
                "td",
                rating_mark(texts, entry.scenarios, entry.rating) if entry.kind == "app" else "",
            ),
            tag("td.hr-dim", texts("catalog.needs", what=needed) if needed else ""),
            tag("td", tag("code", entry.sha256[:12], title=entry.sha256)),
            cls="on" if entry.version == shelf.installed else "",
        )

    def _buttons(self, shelf: Shelf, newest: CatalogEntry) -> None:
        texts, now = self._texts, shelf.installed
        with ui.element("div").classes("hr-row hr-wrap").style("margin-top:12px"):
            if not now:
                button(
                    texts("catalog.install"), partial(self._confirm, newest, "install"), "primary"
                )
                return
            if newest.version != now:
                text = texts("catalog.upgrade", version=newest.version)
                button(text, partial(self._confirm, newest, "upgrade"), "primary")
            if shelf.before:
                entry = next((e for e in shelf.entries if e.version == shelf.before), None)
                if entry is not None:
                    text = texts("catalog.rollback", version=shelf.before)
                    button(text, partial(self._confirm, entry, "rollback"))
            html(tag("a.hr-btn", texts("bind.title"), href=f"/apps/{shelf.id}/bind"))
            button(texts("catalog.remove"), partial(self._remove, shelf), "danger")

    async def _confirm(self, entry: CatalogEntry, what: str) -> None:
        """What it may and what is new, before anything is done."""
        texts = self._texts
        try:
            package = await asyncio.to_thread(self._shop.package, entry)
            plan = await asyncio.to_thread(self._shop.plan, entry, what, self._visit.actor.name)
        except HeadraceError as error:
            show_error(self._visit, error)
            return
        with ui.dialog() as dialog, ui.card().classes("hr-dialog"):
            title = texts.title(entry.title, entry.id)
            html(texts(f"catalog.{what}_title", name=title, version=entry.version), tag_name="h2")
            marks = signature_mark(texts, entry.publisher, is_signed=entry.is_signed)
            html(tag(".hr-row.hr-wrap", marks, rating_mark(texts, entry.scenarios, entry.rating)))
            if entry.rating < 1.0:
                key = "catalog.bench_failed" if entry.scenarios else "catalog.bench_none"
                html(tag(".hr-error.whole", texts(key)))
            html(texts("catalog.may"), tag_name="h3").classes("hr-h2")
            html(permissions_list(texts, entry.permissions, has_python=entry.has_python))
            if news := news_of(package):
                html(texts("catalog.news"), tag_name="h3").classes("hr-h2")
                html(tag("pre.hr-toml", news)).style("width:100%")
            html(
                tag(
                    "details",
                    tag("summary", texts("catalog.diff")),
                    tag("pre.hr-toml", diff_markup(plan.diff())),
                )
            )
            self._dialog_buttons(
                dialog, texts(f"catalog.{what}_do"), partial(self._do, dialog, entry, what)
            )
        dialog.open()

    def _remove(self, shelf: Shelf) -> None:
        texts = self._texts
        entry = next(e for e in shelf.entries if e.version == shelf.installed)
        with ui.dialog() as dialog, ui.card().classes("hr-dialog"):
            html(
                texts("catalog.remove_title", name=texts.title(entry.title, shelf.id)),
                tag_name="h2",
            )
            html(texts("catalog.remove_what")).classes("hr-dim")
            name = ui.input(texts("catalog.remove_type", name=shelf.id)).props(
                "outlined dense autofocus"
            )
            name.classes("full-width")

            async def remove() -> None:
                if str(name.value or "").strip() != shelf.id:
                    name.error = texts("catalog.remove_type", name=shelf.id)
                    return
                await self._do(dialog, entry, "remove")

            self._dialog_buttons(dialog, texts("catalog.remove"), remove, kind="danger")
        dialog.open()

    def _dialog_buttons(
        self, dialog: ui.dialog, text: str, act: Callable[[], Any], *, kind: str = "primary"
    ) -> None:
        with ui.element("div").classes("hr-row").style("justify-content:flex-end"):
            button(self._texts("shell.cancel"), dialog.close)
            busy_button(text, act, kind).props("data-do")

    async def _do(self, dialog: ui.dialog, entry: CatalogEntry, what: str) -> None:
        visit = self._visit
        try:
            facts = {"version": entry.version, "change": what, "has_python": entry.has_python}
            asked = partial(visit.require, "edit", f"app/{entry.id}", facts)
            actor = await allowed(visit, lambda one: asked(release=one))
            if actor is None:
                return
            await asyncio.to_thread(self._shop.act, entry, what, actor.name)
        except HeadraceError as error:
            show_error(visit, error)
            return
        dialog.close()
        visit.services.sources.apps.forget()
        show_done(self._texts(f"catalog.{what}_done", name=entry.id, version=entry.version))
        if what == "install":
            ui.navigate.to(f"/apps/{entry.id}/bind")
            return
        await self.refresh()  # last: the dialog goes with what it was opened from

    async def uploaded(self, event: events.UploadEventArguments) -> None:
        """A file was given: it is checked and kept, nothing runs of it."""
        content = await event.file.read()
        self.upload.reset()
        looking = ui.notification(
            self._texts("catalog.looking"), spinner=True, timeout=None, position="top-right"
        )
        try:
            package = await asyncio.to_thread(read_package, content, None)
            actor = self._visit.require("edit", f"app/{package.id}", {"version": package.version})
            entry = await asyncio.to_thread(self._shop.take, content, actor.name)
        except HeadraceError as error:
            show_error(self._visit, error)
            return
        finally:
            looking.dismiss()
        show_done(self._texts("catalog.taken", name=entry.id, version=entry.version))
        await self.refresh()

    def rejected(self) -> None:
        """The browser says that the file is too large or no package."""
        ui.notification(self._texts("catalog.rejected"), type="negative", position="top-right")


def news_of(package: Package) -> str:
    """The newest part of the package's CHANGELOG.md, as it is written; "" without one."""
    if "CHANGELOG.md" not in package.names:
        return ""
    text = package.file("CHANGELOG.md").decode("utf-8", errors="replace")[:NEWS_MAX]
    parts = text.split("\n## ")
    return parts[1].strip() if len(parts) > 1 else text.strip()
