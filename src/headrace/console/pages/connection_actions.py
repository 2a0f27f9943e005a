"""What a person can do about a connection: pause, resume, undo, trust a certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from nicegui import ui

from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, html, show_done, show_error
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import join, tag
from headrace.console.widgets.spans import moment
from headrace.model.errors import HeadraceError
from headrace.model.health import ConnectionState
from headrace.security import certificates
from headrace.site import edit
from headrace.site.edit import SiteEdit

WAITING: Final = ("waiting", "refused")


def draw_actions(visit: Visit, state: ConnectionState) -> None:
    """Pause or resume, below a card."""
    texts, name = visit.texts, state.connection
    paused = state.state == "disabled"

    async def toggle() -> None:
        def save() -> None:
            change = SiteEdit(visit.services.sources.folder)
            change.set_enabled(name, paused)
            change.save()

        key = "connections.resumed" if paused else "connections.paused"
        await _do(visit, "operate", f"connection/{name}", save, texts(key, name=name))

    async def try_now() -> None:
        visit.require("operate", f"connection/{name}")
        await _ask_retry(visit, state.edge, name)

    with ui.element("div").classes("hr-row").style("padding:0 16px 14px"):
        text = texts("connections.resume" if paused else "connections.pause")
        made = button(text, toggle, small=True, icon_name="play" if paused else "pause")
        made.props(f'title="{texts("connections.pause_what")}"')
        if state.state in WAITING:
            button(texts("connections.try_now"), try_now, small=True, icon_name="undo")


def draw_undo(visit: Visit) -> None:
    """Put the site file back to the version before the last."""
    texts = visit.texts

    async def undo() -> None:
        folder = visit.services.sources.folder
        done = texts("connections.undone")
        await _do(visit, "edit", "site", lambda: edit.undo(folder), done)

    button(texts("connections.undo"), undo, icon_name="undo")


class Certificates:
    """Certificates that this installation refused, each with a button to trust it.

    Args:
        visit: the page.
    """

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._body = ui.element("div")
        self._drawn: tuple[str, ...] = ()

    def refresh(self) -> None:
        """Draw again when the list changed."""
        folder = self._visit.services.sources.folder.certificates
        found = [e for e in certificates.list_certificates(folder) if e.kept_in == "rejected"]
        prints = tuple(entry.thumbprint for entry in found)
        if prints == self._drawn:
            return
        self._drawn = prints
        self._body.clear()
        texts = self._visit.texts
        if not found:
            return
        with self._body, ui.element("section").classes("hr-card hr-pad hr-stack") as card:
            card.style("margin-bottom:14px")
            html(join(icon("shield", 18), " ", texts("connections.certificates")), tag_name="b")
            for entry in found:
                self._draw(entry)

    def _draw(self, entry: certificates.CertificateEntry) -> None:
        about = f"{entry.application_uri} · {moment(entry.not_after_us)[:10]}"
        texts = self._visit.texts
        with ui.element("div").classes("hr-row hr-between hr-wrap"):
            html(
                tag(
                    "div",
                    tag("b", entry.subject),
                    tag(".hr-sub", about),
                    tag("code.hr-sub", entry.thumbprint),
                )
            ).style("overflow-wrap:anywhere;min-width:0")
            button(texts("connections.trust"), lambda: self._trust(entry.thumbprint), "primary")

    async def _trust(self, thumbprint: str) -> None:
        folder = self._visit.services.sources.folder.certificates
        await _do(
            self._visit,
            "edit",
            f"certificate/{thumbprint}",
            lambda: certificates.trust(folder, thumbprint),
            self._visit.texts("connections.trusted"),
        )
        for edge in {line.state.edge for line in self._visit.services.sources.health.connections()}:
            await _ask_retry(self._visit, edge, "")


async def _ask_retry(visit: Visit, edge: str, connection: str) -> None:
    try:
        await visit.services.sources.ask_edge(edge, "retry", {"connection": connection})
    except HeadraceError as error:
        show_error(visit, error)


async def _do(
    visit: Visit, action: Any, resource: str, act: Callable[[], object], done: str
) -> None:
    try:
        visit.require(action, resource)
        await asyncio.to_thread(act)
    except HeadraceError as error:
        show_error(visit, error)
        return
    show_done(done)
