"""Each user's own profile: preferences, second factor, sessions, tokens."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, frame, html, pill, show_error
from headrace.console.pages.users import show_secret
from headrace.console.widgets.markup import join, tag
from headrace.console.widgets.spans import moment
from headrace.model.errors import HeadraceError
from headrace.security.identity import Token
from headrace.security.policy import ROLES, lesser_role
from headrace.security.sessions import ID_LENGTH, SessionEntry
from headrace.security.tokens import token_hash


def show_profile(visit: Visit) -> None:
    """Draw the user's own settings."""
    texts = visit.texts
    shell = frame(visit, texts("nav.profile"), nav="profile", help_text=texts("profile.help"))
    with shell, ui.element("div").classes("hr-stack").style("max-width:680px"):
        with ui.element("section").classes("hr-card hr-pad hr-stack"):
            _preferences(visit)
        with ui.element("section").classes("hr-card hr-pad hr-stack"):
            _second_factor(visit)
        with ui.element("section").classes("hr-card hr-pad hr-stack"):
            html(texts("session.title"), tag_name="b")
            html(texts("session.what")).classes("hr-dim")
            SessionList(visit, visit.actor.name).draw_all()
        with ui.element("section").classes("hr-card hr-pad hr-stack"):
            html(texts("profile.tokens"), tag_name="b")
            html(texts("profile.tokens_what")).classes("hr-dim")
            _Tokens(visit).draw_all()


def _preferences(visit: Visit) -> None:
    texts, actor = visit.texts, visit.actor
    html(
        tag(
            ".hr-row.hr-between",
            tag("div", tag("b", actor.name), tag("span.hr-sub", texts(f"role.{actor.role}"))),
            tag(
                ".hr-row",
                tag("a.hr-btn", texts("profile.change"), href="/change-password"),
                tag(
                    "form",
                    tag("button.hr-btn", texts("shell.sign_out"), type="submit"),
                    method="post",
                    action="/sign-out",
                    style="margin:0",
                ),
            ),
        )
    )

    def prefer(reload: bool, **fields: str) -> None:
        visit.services.identity.set_preferences(actor.name, **fields)
        if reload:
            ui.navigate.reload()

    with ui.element("div").classes("hr-form"):
        language = ui.select(
            {"en": "English", "zh": "中文"}, value=texts.language, label=texts("profile.language")
        ).props("outlined dense options-dense")
        language.on_value_change(lambda event: prefer(True, language=event.value))
        theme = ui.select(
            {name: texts(f"profile.{name}") for name in ("auto", "light", "dark")},
            value=actor.theme,
            label=texts("profile.theme"),
        ).props("outlined dense options-dense")
        theme.on_value_change(lambda event: prefer(True, theme=event.value))


class _Tokens:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._identity = visit.services.identity

    def draw_all(self) -> None:
        texts = self._visit.texts
        self._list = ui.element("div")
        self._draw()
        with ui.element("div").classes("hr-row hr-wrap"):
            title = ui.input(texts("profile.token_title")).props("outlined dense")
            own = self._visit.actor.role
            roles = [role for role in ROLES if lesser_role(role, own) == role]
            role = ui.select({r: texts(f"role.{r}") for r in roles}, value="viewer")
            role.props("outlined dense options-dense").style("min-width:120px")

            def add() -> None:
                try:
                    actor = self._visit.require("change_own", "token")
                    secret = self._identity.add_token(
                        actor.name, title.value, role=role.value, by=actor.name
                    )
                except HeadraceError as error:
                    show_error(self._visit, error)
                    return
                once = texts("profile.token_once")
                show_secret(self._visit, texts("profile.token_secret"), secret, once)
                self._draw()

            button(texts("profile.token_add"), add, icon_name="key")

    def _draw(self) -> None:
        texts = self._visit.texts
        self._list.clear()
        with self._list:
            tokens = self._identity.tokens(self._visit.actor.name)
            if not tokens:
                html(texts("profile.token_none")).classes("hr-dim")
            for token in tokens:
                self._draw_token(token)

    def _draw_token(self, token: Token) -> None:
        texts = self._visit.texts
        until = texts("profile.token_until", time=moment(token.expires_us)[:10])
        about = f"{texts(f'role.{token.role}')} · {until}"
        with ui.element("div").classes("hr-row hr-between").style("padding:6px 0"):
            html(join(tag("b", token.title), tag("span.hr-sub", about)))
            button(texts("profile.revoke"), lambda: self._revoke(token.id), "danger", small=True)

    def _revoke(self, token_id: int) -> None:
        try:
            actor = self._visit.require("change_own", "token")
        except HeadraceError as error:
            show_error(self._visit, error)
            return
        self._identity.revoke_token(token_id, actor.name, by=actor.name)
        self._draw()


def _second_factor(visit: Visit) -> None:
    texts = visit.texts
    state = visit.services.identity.factors_of(visit.actor.name)
    text = texts("factor.on", n=state.recovery_left) if state.totp else texts("factor.off")
    action = (
        ("factor.remove", "/second-factor/remove")
        if state.totp
        else ("factor.set_up", "/second-factor")
    )
    html(
        tag(
            ".hr-row.hr-between",
            tag("div", tag("b", texts("factor.title")), tag("span.hr-sub", text)),
            tag(
                ".hr-row",
                pill(
                    "good" if state.totp else "warn",
                    texts("factor.is_on" if state.totp else "factor.is_off"),
                ),
                tag("a.hr-btn", texts(action[0]), href=action[1]),
            ),
        )
    ).props("data-factor")


class SessionList:
    """The open sessions of one user, each with a button that ends it.

    Args:
        visit: who looks; the policy is asked again at each act.
        name: whose sessions.
    """

    def __init__(self, visit: Visit, name: str) -> None:
        self._visit = visit
        self._identity = visit.services.identity
        self._name = name
        self._own = token_hash(visit.services.secret(visit.request))[:ID_LENGTH]
        self._list: Any = None

    def draw_all(self) -> None:
        """Draw the list and, below it, what ends many."""
        texts = self._visit.texts
        self._list = ui.element("div").classes("full-width")
        self._draw()
        key = "session.revoke_others" if self._is_mine else "session.revoke_all"
        with ui.element("div").classes("hr-row"):
            button(texts(key), self._end_all, "danger", small=True)

    @property
    def _is_mine(self) -> bool:
        return self._name == self._visit.actor.name

    def _draw(self) -> None:
        self._list.clear()
        with self._list:
            entries = self._identity.sessions.list(self._name)
            if not entries:
                html(self._visit.texts("session.none")).classes("hr-dim")
            for entry in entries:
                self._draw_entry(entry)

    def _draw_entry(self, entry: SessionEntry) -> None:
        texts = self._visit.texts
        own = entry.id == self._own
        about = " · ".join(
            (
                entry.address,
                texts("session.since", time=moment(entry.created_us)[:16]),
                texts("session.seen", time=moment(entry.seen_us)[:16]),
                ", ".join(sorted(entry.factors)),
            )
        )
        row = ui.element("div").classes("hr-row hr-between").style("padding:6px 0")
        with row.props(f'data-session="{entry.id}"'):
            name = agent_name(entry.agent) or texts("session.unknown_agent")
            mark = pill("good", texts("session.this")) if own else None
            html(join(tag(".hr-row", tag("b", name), mark), tag("span.hr-sub", about)))
            if not own:
                button(texts("session.revoke"), lambda: self._end(entry.id), "danger", small=True)

    async def _end(self, id: str) -> None:
        await self._act(self._identity.end_session, id)

    async def _end_all(self) -> None:
        await self._act(self._end_others)

    def _end_others(self, name: str, *, by: str) -> None:
        visit = self._visit
        but = visit.services.secret(visit.request) if self._is_mine else ""
        self._identity.end_sessions(name, by=by, but=but)

    async def _act(self, call: Any, *args: str) -> None:
        visit = self._visit
        action, resource = (
            ("change_own", "session") if self._is_mine else ("administer", f"user/{self._name}")
        )
        try:
            by = visit.require(action, resource).name  # type: ignore[arg-type] # both are actions
            await asyncio.to_thread(call, self._name, *args, by=by)
        except HeadraceError as error:
            show_error(visit, error)
            return
        self._draw()


def agent_name(agent: str) -> str:
    """Browser and system out of what a browser calls itself, for people.

    Example:
        >>> agent_name("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36")
        'Chrome, Linux'
    """
    browsers = (
        ("Edg/", "Edge"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    )
    systems = (
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    )
    found = [
        next((name for mark, name in marks if mark in agent), "") for marks in (browsers, systems)
    ]
    return ", ".join(name for name in found if name) or agent[:40]
