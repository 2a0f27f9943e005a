"""The frame around every page: navigation, title, help, language, theme; and the page decorator."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from nicegui import ui

from headrace.console import theme
from headrace.console.alarms import AlarmBoard
from headrace.console.api.guard import nonce_of
from headrace.console.error_words import error_words
from headrace.console.scope import ScopedBoard
from headrace.console.services import Services, first_refused
from headrace.console.site_view import SiteView
from headrace.console.texts import Texts
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.model.errors import HeadraceError
from headrace.security.policy import Action, Actor, decide

_NAV: Final[tuple[tuple[str, str, str, Action], ...]] = (
    ("overview", "/", "overview", "read"),
    ("alarms", "/alarms", "bell", "read"),
    ("assets", "/equipment", "tree", "read"),
    ("trend", "/trend", "trend", "read"),
    ("apps", "/apps", "apps", "read"),
    ("formulas", "/formulas", "formula", "read"),
    ("models", "/models", "chart", "read"),
    ("connections", "/connections", "plug", "read"),
    ("ledger", "/ledger", "ledger", "read"),
    ("events", "/events", "events", "read"),
    ("faults", "/faults", "fault", "simulate"),
    ("audit", "/audit", "shield", "audit"),
    ("users", "/users", "users", "administer"),
    ("actors", "/actors", "key", "administer"),
    ("policy", "/policy", "shield", "administer"),
)
_TAB_COUNT: Final = 4
BADGE_S: Final = 1.0
LEAVE_S: Final = 0.3
"""A page whose session is over has so long to leave by itself."""
SESSION_CHECK_S: Final = 10.0
_JS_TEXTS: Final = {
    "seconds": "time.seconds",
    "minutes": "time.minutes",
    "hours": "time.hours",
    "days": "time.days",
    "never": "time.never",
    "good": "state.good",
    "uncertain": "state.uncertain",
    "bad": "state.bad",
    "why": "why.title",
    "close": "why.close",
    "why_no_console": "why.no_console",
}


@dataclass(frozen=True)
class Visit:
    """One opened page: who, in which language, and what it may use."""

    services: Services
    actor: Actor
    texts: Texts
    request: Request

    @property
    def site(self) -> SiteView:
        """The site as this actor may see it."""
        return self.services.site(self.actor)

    @property
    def alarms(self) -> AlarmBoard | ScopedBoard:
        """The alarms that this actor may see."""
        return self.services.alarms(self.actor)

    def may(self, action: Action) -> bool:
        """Whether to offer something, on whatever part of the site; the act itself asks again with
        :meth:`require`."""
        scopes = {grant.scope for grant in self.actor.held}
        return any(
            decision.allowed or decision.needs
            for decision in (decide(self.actor, action, "shown", {"equipment": s}) for s in scopes)
        )

    def opens(self, path: str, action: Action) -> bool:
        """Whether a page opens for this actor."""
        return decide(self.actor, action, page_resource(path)).allowed

    def require(
        self,
        action: Action,
        resource: str,
        context: Mapping[str, Any] | None = None,
        *,
        release: str = "",
    ) -> Actor:
        """The actor as of now: a page may stay open after its session was revoked.

        Raises:
            Refused: as the policy says.
        """
        actor = self.services.actor(self.request)
        return self.services.decide(actor, action, resource, context, release=release)

    def require_all(
        self, action: Action, things: Sequence[tuple[str, Mapping[str, Any]]], *, release: str = ""
    ) -> Actor:
        """The same for several things, told as one decision."""
        worst = first_refused(self.services.actor(self.request), action, things)
        return self.require(action, *worst, release=release)


DOOR_PAGES: Final = (
    "/", "/equipment", "/equipment/{path:path}", "/alarms", "/alarms/journal", "/alarms/metrics",
    "/trend", "/formulas", "/formulas/backtest", "/apps", "/apps/{app_id}", "/apps/values",
    "/apps/work-requests",
)  # fmt: skip
"""Pages that show each actor only what it may read."""


def page_resource(path: str) -> str:
    """What the policy is asked for a page.

    Example:
        >>> page_resource("/trend"), page_resource("/users"), page_resource("/profile")
        ('console', 'page/users', 'page/profile')
    """
    return "console" if path in DOOR_PAGES else f"page{path}"


PageBody = Callable[[Visit], Awaitable[None] | None]


def add_page(services: Services, path: str, body: PageBody, *, action: Action = "read") -> None:
    """Register a page: signed-in users only, and the policy decides."""

    async def open_page(request: Request) -> Response | None:
        actor = services.actor(request)
        if actor is None:
            query = f"?{request.url.query}" if request.url.query else ""
            return RedirectResponse(f"/sign-in?next={quote(request.url.path + query)}", 303)
        if actor.must_change:
            return RedirectResponse("/change-password", 303)
        visit = Visit(services, actor, services.texts(request, actor), request)
        _head(visit)
        if not visit.opens(path, action):
            with frame(visit, visit.texts("shell.denied")):
                empty_state("shield", visit.texts("shell.denied"), "")
            return None
        _end_with_session(visit)
        result = body(visit)
        if inspect.isawaitable(result):
            await result
        return None

    ui.page(path, title="Headrace", response_timeout=15)(open_page)


def _end_with_session(visit: Visit) -> None:
    """A page whose session is revoked shows the sign-in, and gets nothing more."""
    client = ui.context.client

    def over() -> None:
        client.run_javascript("location.href = '/sign-in'")
        # Its elements and timers go; NiceGUI itself forgets the empty client once the socket is closed.
        asyncio.get_running_loop().call_later(LEAVE_S, client.remove_all_elements)

    client.on_delete(visit.services.watch.add(visit.services.secret(visit.request), over))


def _head(visit: Visit) -> None:
    texts = {name: visit.texts(key) for name, key in _JS_TEXTS.items()}
    nonce = nonce_of(visit.request)
    ui.add_head_html(
        f"<style>{theme.css()}</style>"
        f'<link rel="stylesheet" href="/static/headrace.css">'
        f"<script nonce={nonce}>{theme.early_script(visit.actor.theme)}"
        f"window.hrTexts={json.dumps(texts)};document.documentElement.lang='{visit.texts.language}'"
        f'</script><script nonce={nonce} src="/static/headrace.js" defer></script>'
    )
    ui.dark_mode({"light": False, "dark": True}.get(visit.actor.theme))


@contextmanager
def frame(
    visit: Visit,
    title: str,
    *,
    nav: str = "",
    help_text: str = "",
    crumbs: list[tuple[str, str]] | None = None,
) -> Iterator[None]:
    """Draw the shell; the page's own content goes into the context.

    Args:
        crumbs: (title, href) of the places above this one.
    """
    ui.page_title(f"{title} · Headrace")
    with ui.element("div").classes("hr-shell"):
        html(_side(visit, nav), tag_name="nav").classes("hr-nav").props(
            f'aria-label="{visit.texts("nav.main")}"'
        )
        with ui.element("div").classes("hr-main"):
            html(_top(visit, title, help_text, crumbs or []), tag_name="header").classes("hr-top")
            html(visit.texts("shell.offline")).classes("hr-offline").props('role="alert"')
            with ui.element("main").classes("hr-page"):
                yield
    html(_tabs(visit, nav), tag_name="nav").classes("hr-tabs")
    _keep_badge(visit)
    _leave_with_session(visit)


def html(content: str, tag_name: str = "div") -> ui.html:
    """Our own markup; everything foreign in it was escaped by ``tag``."""
    return ui.html(content, sanitize=False, tag=tag_name)


def _entries(visit: Visit) -> list[tuple[str, str, str]]:
    return [(key, href, name) for key, href, name, action in _NAV if visit.opens(href, action)]


def _side(visit: Visit, nav: str) -> Markup:
    links = [
        tag(
            "a.hr-navlink",
            icon(name),
            tag("span", visit.texts(f"nav.{key}")),
            _badge(visit) if key == "alarms" else None,
            href=href,
            cls="on" if key == nav else "",
            title=visit.texts(f"nav.{key}"),
            aria_current="page" if key == nav else None,
        )
        for key, href, name in _entries(visit)
    ]
    who = tag(
        "a.hr-who",
        tag("span.hr-avatar", visit.actor.name[:1].upper()),
        tag("div", tag("b", visit.actor.name), tag("small", visit.texts(f"role.{visit.actor.role}"))),
        href="/profile",
        title=visit.texts("nav.profile"),
    )  # fmt: skip
    brand = tag("a.hr-brand", icon("logo", 24), tag("span", "Headrace"), href="/")
    return join(brand, links, tag(".hr-push"), who)


def _badge(visit: Visit) -> Markup:
    """How many alarms wait to be acknowledged; hidden when none do."""
    count, priority = visit.alarms.badge
    return tag(
        "span.hr-badge", _count(count), cls=priority or "hr-hide", data_alarm_badge=True,
        title=_badge_title(visit, count, priority),
    )  # fmt: skip


def _count(count: int) -> str:
    return "99+" if count > 99 else str(count)


def _badge_title(visit: Visit, count: int, priority: str) -> str:
    if not count:
        return ""
    return visit.texts("alarm.badge", n=count, priority=visit.texts(f"alarm.priority_{priority}"))


def _keep_badge(visit: Visit) -> None:
    """Both badges follow the alarms as long as the page is open."""
    shown = [visit.alarms.badge]

    def refresh() -> None:
        now = visit.alarms.badge
        if now == shown[0]:
            return
        shown[0] = now
        count, priority = now
        values = json.dumps(
            [
                _count(count),
                f"hr-badge {priority or 'hr-hide'}",
                _badge_title(visit, count, priority),
            ]
        )
        ui.run_javascript(
            f"const [n, c, t] = {values}; for (const b of document.querySelectorAll('[data-alarm-badge]'))"
            " { b.textContent = n; b.className = c; b.title = t; }"
        )

    ui.timer(BADGE_S, refresh)


def _leave_with_session(visit: Visit) -> None:
    """A page that stays open shows nothing any more once its session has ended."""

    def check() -> None:
        if visit.services.actor(visit.request) is None:
            ui.navigate.to("/sign-in")

    ui.timer(SESSION_CHECK_S, check)


def _top(visit: Visit, title: str, help_text: str, crumbs: list[tuple[str, str]]) -> Markup:
    path = [join(tag("a", name, href=href), icon("chevron", 14)) for name, href in crumbs]
    site = visit.site.title_zh if visit.texts.language == "zh" else ""
    site = site or visit.site.title or visit.site.name
    other = "en" if visit.texts.language == "zh" else "zh"
    helper = tag(
        "details.hr-help",
        tag("summary", icon("help", 18), aria_label=visit.texts("shell.help")),
        tag("p", help_text),
    )
    return join(
        tag("span.hr-crumbs", path) if path else None,
        tag("h1", title),
        helper if help_text else None,
        tag("span.hr-grow"),
        tag("span.hr-row.hr-site", tag("span.hr-beat.on"), site),
        tag("button.hr-textbtn", visit.texts("shell.language"), data_do="language", data_to=other),
        tag(
            "button.hr-iconbtn", icon("moon", 18), data_do="theme",
            title=visit.texts("shell.theme"), aria_label=visit.texts("shell.theme"),
        ),
    )  # fmt: skip


def _tabs(visit: Visit, nav: str) -> Markup:
    entries = _entries(visit)
    first = [
        tag(
            "a", icon(name), tag("span", visit.texts(f"nav.{key}")),
            _badge(visit) if key == "alarms" else None, href=href, cls="on" if key == nav else "",
        )
        for key, href, name in entries[:_TAB_COUNT]
    ]  # fmt: skip
    rest = [*entries[_TAB_COUNT:], ("profile", "/profile", "user")]
    sheet = tag(
        "details",
        tag("summary", icon("more"), tag("span", visit.texts("nav.more"))),
        tag(
            ".hr-sheet",
            [
                tag("a", icon(name), visit.texts(f"nav.{key}"), href=href)
                for key, href, name in rest
            ],
        ),
    )
    return join(first, sheet)


def empty_state(
    icon_name: str, title: str, what: str, action: tuple[str, str] | None = None
) -> None:
    """An empty page says what to do; ``action`` is (text, href)."""
    html(
        tag(
            ".hr-empty",
            icon(icon_name, 36),
            tag("h3", title),
            tag("p", what) if what else None,
            tag("a.hr-btn.primary", action[0], href=action[1]) if action else None,
        )
    )


def show_error(visit: Visit, error: HeadraceError) -> None:
    """An error of ours as a notice: code, what, remedy."""
    sentence, detail, remedy = error_words(visit.texts, error)
    ui.notification(
        f"{error.code} · {sentence}{f' ({detail})' if detail else ''} {remedy}".strip(),
        type="negative",
        position="top-right",
        timeout=12,
        close_button=visit.texts("shell.close"),
        multi_line=True,
    )


def show_done(text: str) -> None:
    """A short notice that something was done."""
    ui.notification(text, type="positive", position="top-right", timeout=4)


def pill(state: str, text: str, **attributes: Any) -> Markup:
    """A state as a coloured word; never colour alone."""
    return tag("span.hr-pill", text, cls=state, **attributes)
