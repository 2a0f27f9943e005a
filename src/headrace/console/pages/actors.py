"""All actors of the installation in one list, for who administers: disable, renew, add, end sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from nicegui import ui

from headrace.console.pages.parts import button
from headrace.console.pages.profile import SessionList
from headrace.console.pages.shell import Visit, frame, html, pill, show_done, show_error
from headrace.console.pages.users import show_secret
from headrace.console.widgets.markup import tag
from headrace.console.widgets.spans import moment
from headrace.model.errors import HeadraceError
from headrace.security.actors import DAYS_MAX, MACHINES, ActorEntry, MachineKind
from headrace.security.policy import ROLES, Grant, Role

_COLORS = {"open": "good", "disabled": "bad", "expired": "warn"}


def show(visit: Visit) -> None:
    """Draw the list of actors."""
    texts = visit.texts
    with frame(visit, texts("actor.title"), nav="actors", help_text=texts("actor.help")):
        page = _Actors(visit)
        with ui.element("div").classes("hr-bar"):
            html("").classes("hr-grow")
            button(texts("actor.add"), page.open_add, "primary", icon_name="plus")
        page.body = ui.element("div").classes("hr-card")
        page.draw()


class _Actors:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._identity = visit.services.identity
        self.body: Any = None

    def draw(self) -> None:
        self.body.clear()
        with self.body:
            for entry in self._identity.actors.list():
                self._draw_entry(entry)

    def _draw_entry(self, entry: ActorEntry) -> None:
        texts = self._visit.texts
        row = ui.element("div").classes("hr-row hr-wrap hr-pad").props(f'data-actor="{entry.name}"')
        with row.style("border-bottom:1px solid var(--hr-line)"):
            html(tag("span.hr-avatar", entry.name[:1].upper()))
            title = tag("b", entry.name)
            html(tag("div", title, tag("span.hr-sub", self._about(entry)))).classes("hr-grow")
            html(pill("", texts(f"actor.kind_{entry.kind}")))
            html(pill(_COLORS[entry.state], texts(f"actor.state_{entry.state}")))
            if entry.kind == "person":
                button(texts("actor.sessions"), lambda: self._open_sessions(entry.name), small=True)
                button(
                    texts("actor.reset_factor"),
                    lambda: self._reset_factor(entry.name),
                    small=True,
                )
            else:
                button(texts("actor.renew"), lambda: self._renew(entry.name), small=True)
            is_off = entry.state == "disabled"
            button(
                texts("actor.enable" if is_off else "actor.disable"),
                lambda: self._act(
                    entry.name, self._identity.set_actor_disabled, entry.name, not is_off
                ),
                "" if is_off else "danger",
                small=True,
            )

    def _about(self, entry: ActorEntry) -> str:
        texts = self._visit.texts
        rights = [
            f"{texts(f'role.{g.role}')} {g.scope}".strip() if g.scope else texts(f"role.{g.role}")
            for g in entry.grants
        ]
        seen = (
            texts("actor.seen", time=moment(entry.seen_us)[:16])
            if entry.seen_us
            else texts("actor.never_seen")
        )
        parts = [
            ", ".join(rights) or texts("actor.no_role"),
            texts("actor.created", time=moment(entry.created_us)[:10]),
            seen,
        ]
        if entry.kind != "person":
            until = texts("actor.expires", time=moment(entry.expires_us)[:10])
            parts.append(until if entry.expires_us else texts("actor.no_end"))
        if entry.tenant:
            parts.append(entry.tenant)
        return " · ".join(parts)

    async def _act(self, name: str, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Ask the policy, then do it off the loop; what fails is shown, and gives None."""
        try:
            by = self._visit.require("administer", f"actor/{name}").name
            found = await asyncio.to_thread(call, *args, **named, by=by)
        except HeadraceError as error:
            show_error(self._visit, error)
            return None
        self.draw()
        return found

    async def _renew(self, name: str) -> None:
        self._show(name, await self._act(name, self._identity.actors.renew, name))

    async def _reset_factor(self, name: str) -> None:
        try:
            by = self._visit.require("administer", f"user/{name}").name
            await asyncio.to_thread(self._identity.remove_second_factor, name, by=by)
        except HeadraceError as error:
            show_error(self._visit, error)
            return
        show_done(self._visit.texts("actor.factor_reset", name=name))

    def _show(self, name: str, secret: str | None) -> None:
        if secret is not None:
            texts = self._visit.texts
            title = texts("actor.secret", name=name)
            show_secret(self._visit, title, secret, texts("actor.secret_what"))

    def _open_sessions(self, name: str) -> None:
        texts = self._visit.texts
        with ui.dialog() as dialog, ui.card().classes("hr-dialog").style("min-width:560px"):
            html(texts("session.of", name=name), tag_name="h2")
            SessionList(self._visit, name).draw_all()
            with ui.element("div").classes("hr-row").style("justify-content:flex-end"):
                button(texts("shell.close"), dialog.close, "primary")
        dialog.open()

    def open_add(self) -> None:
        """Ask for kind, name and rights, make the actor, show its secret."""
        texts = self._visit.texts
        with ui.dialog() as dialog, ui.card().classes("hr-dialog"):
            html(texts("actor.add"), tag_name="h2")
            kinds = {kind: texts(f"actor.kind_{kind}") for kind in MACHINES}
            kind = _wide(ui.select(kinds, value="service", label=texts("actor.kind")))
            name = _wide(ui.input(texts("actor.name")))
            roles = {"": texts("actor.no_role")} | {r: texts(f"role.{r}") for r in ROLES}
            role = _wide(ui.select(roles, value="viewer", label=texts("actor.role")))
            scope = _wide(ui.input(texts("actor.scope")))
            days = _wide(
                ui.number(texts("actor.days"), value=365, min=0, max=DAYS_MAX, format="%d")
            )

            async def add() -> None:
                called = str(name.value or "").strip()
                place = str(scope.value or "").strip("/ ")
                grants = [Grant(cast(Role, role.value), place)] if role.value else []
                secret = await self._act(
                    called,
                    self._identity.actors.add,
                    cast(MachineKind, kind.value),
                    called,
                    grants,
                    days=int(days.value or 0),
                )
                if secret is not None:
                    dialog.close()
                    self._show(called, secret)

            with ui.element("div").classes("hr-row").style("justify-content:flex-end"):
                button(texts("shell.cancel"), dialog.close)
                button(texts("actor.add"), add, "primary")
        dialog.open()


def _wide(field: Any) -> Any:
    return field.props("outlined dense options-dense").classes("full-width")
