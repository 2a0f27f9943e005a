"""Users, for admins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from nicegui import ui

from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, frame, html, pill, show_error
from headrace.console.pages.signing import allowed
from headrace.console.widgets.markup import tag
from headrace.console.widgets.spans import moment
from headrace.model.errors import HeadraceError
from headrace.security.identity import User
from headrace.security.policy import ROLES, Role


def show_users(visit: Visit) -> None:
    """Draw the list of users."""
    texts = visit.texts
    with frame(visit, texts("users.title"), nav="users", help_text=texts("users.help")):
        page = _Users(visit)
        with ui.element("div").classes("hr-bar"):
            html("").classes("hr-grow")
            button(texts("users.add"), page.open_add, "primary", icon_name="plus")
        page.body = ui.element("div").classes("hr-card")
        page.draw()


class _Users:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._identity = visit.services.identity
        self.body: Any = None

    def draw(self) -> None:
        self.body.clear()
        with self.body:
            for user in self._identity.users():
                self._draw_user(user)

    def _draw_user(self, user: User) -> None:
        texts = self._visit.texts
        state = "users.closed" if user.disabled else "users.open"
        state = "users.must_change" if user.must_change and not user.disabled else state
        color = "bad" if user.disabled else "warn" if user.must_change else "good"
        since = f"{texts('users.since')} {moment(user.created_us)[:10]}"
        row = ui.element("div").classes("hr-row hr-wrap hr-pad").props(f'data-user="{user.name}"')
        with row.style("border-bottom:1px solid var(--hr-line)"):
            html(tag("span.hr-avatar", user.name[:1].upper()))
            held = self._identity.grants.of(user.name)
            grants = ", ".join(f"{texts(f'role.{g.role}')}: {g.scope or '/'}" for g in held)
            about = tag("span.hr-sub", since), tag("span.hr-sub", grants) if grants else ""
            html(tag("div", tag("b", user.name), *about)).classes("hr-grow")
            html(pill(color, texts(state)))
            role = ui.select({r: texts(f"role.{r}") for r in ROLES}, value=user.role)
            role.props("outlined dense options-dense").style("min-width:120px")
            role.on_value_change(lambda event: self._set_role(user.name, cast(Role, event.value)))
            button(texts("users.reset"), lambda: self._reset(user.name), small=True)
            key = "users.reopen" if user.disabled else "users.close"
            button(
                texts(key),
                lambda: self._change(
                    lambda by: self._identity.set_disabled(user.name, not user.disabled, by=by)
                ),
                "" if user.disabled else "danger",
                small=True,
            )

    def _change(self, act: Callable[[str], None]) -> None:
        try:
            act(self._visit.require("administer", "users").name)
        except HeadraceError as error:
            show_error(self._visit, error)
        self.draw()

    async def _set_role(self, name: str, role: Role) -> None:
        """A change of rights, which the policy lets be signed."""
        what = ("administer", f"user_role/{name}", {"role": role})
        try:
            actor = await allowed(self._visit, lambda one: self._visit.require(*what, release=one))  # type: ignore[arg-type] # an action
            if actor is not None:
                await asyncio.to_thread(self._identity.set_role, name, role, by=actor.name)
        except HeadraceError as error:
            show_error(self._visit, error)
        self.draw()

    async def _reset(self, name: str) -> None:
        try:
            by = self._visit.require("administer", f"user/{name}").name
            secret = await asyncio.to_thread(self._identity.reset_password, name, by=by)
        except HeadraceError as error:
            show_error(self._visit, error)
            return
        texts = self._visit.texts
        show_secret(
            self._visit, texts("users.secret", name=name), secret, texts("users.secret_what")
        )
        self.draw()

    def open_add(self) -> None:
        """Ask for name and role, make the user, show the one-time password."""
        texts = self._visit.texts
        with ui.dialog() as dialog, ui.card().classes("hr-dialog"):
            html(texts("users.add"), tag_name="h2")
            name = ui.input(texts("users.name")).props("outlined dense autofocus")
            name.classes("full-width")
            role = ui.select(
                {r: texts(f"role.{r}") for r in ROLES}, value="viewer", label=texts("users.role")
            ).props("outlined dense options-dense")
            role.classes("full-width")

            async def add() -> None:
                try:
                    by = self._visit.require("administer", "users").name
                    user = str(name.value or "").strip()
                    secret = await asyncio.to_thread(
                        self._identity.add_user, user, role.value, by=by
                    )
                except HeadraceError as error:
                    show_error(self._visit, error)
                    return
                dialog.close()
                title = texts("users.secret", name=user)
                show_secret(self._visit, title, secret, texts("users.secret_what"))
                self.draw()

            with ui.element("div").classes("hr-row").style("justify-content:flex-end"):
                button(texts("shell.cancel"), dialog.close)
                button(texts("users.add"), add, "primary")
        dialog.open()


def show_secret(visit: Visit, title: str, secret: str, what: str) -> None:
    """Show a secret once, in a dialog."""
    with ui.dialog() as dialog, ui.card().classes("hr-dialog"):
        html(title, tag_name="h2")
        html(secret, tag_name="pre").classes("hr-toml full-width").props("data-secret")
        html(what).classes("hr-dim")
        with ui.element("div").classes("hr-row").style("justify-content:flex-end"):
            button(visit.texts("shell.close"), dialog.close, "primary")
    dialog.open()
