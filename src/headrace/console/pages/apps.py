"""The apps of the site: what runs, of whom, how it does; and one app with its views."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final
from urllib.parse import quote

from nicegui import ui

from headrace.apps.catalog import entry_of
from headrace.console.app_board import AppView
from headrace.console.app_views.laid import Place, assets_of
from headrace.console.error_words import error_markup, markup_of
from headrace.console.pages.app_parts import (
    add_script,
    permissions_list,
    rating_mark,
    signature_mark,
)
from headrace.console.pages.app_service import draw_form
from headrace.console.pages.app_values import parts_nav
from headrace.console.pages.app_views import draw_view
from headrace.console.pages.parts import button
from headrace.console.pages.refreshed import Refreshed
from headrace.console.pages.shell import (
    Visit,
    empty_state,
    frame,
    html,
    pill,
    show_done,
    show_error,
)
from headrace.console.texts import Texts
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.spans import moment
from headrace.model.app_state import AppState
from headrace.model.errors import HeadraceError
from headrace.model.views import View

LOG_LINES_SHOWN: Final = 200
_STATES: Final = {
    "running": "good",
    "starting": "info",
    "catching_up": "warn",
    "throttled": "warn",
    "waiting": "warn",
    "stopped": "bad",
    "disabled": "idle",
}


async def show(visit: Visit) -> None:
    """The list of apps."""
    texts = visit.texts
    with frame(visit, texts("apps.title"), nav="apps", help_text=texts("apps.help")):
        with ui.element("div").classes("hr-bar"):
            html(parts_nav(visit, "apps"))
        await _List(visit).begin()


class _List:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._part = Refreshed(visit, self._ask, self._draw_all, "hr-apps")

    async def begin(self) -> None:
        await self._part.begin()

    async def _ask(self) -> tuple[list[AppView], list[str]]:
        apps = list(await self._visit.services.sources.apps.apps())
        return apps, [state_of(self._visit, each) for each in apps]

    def _draw_all(self, found: tuple[list[AppView], list[str]]) -> None:
        visit, texts = self._visit, self._visit.texts
        if not found[0]:
            may = visit.opens("/catalog", "read") and visit.may("edit")
            act = (texts("apps.open_catalog"), "/catalog") if may else None
            empty_state("apps", texts("apps.empty"), texts("apps.empty_what"), act)
        for app in found[0]:
            self._draw(app)

    def _draw(self, app: AppView) -> None:
        visit, texts, manifest = self._visit, self._visit.texts, app.manifest
        card = ui.element("article").classes("hr-card hr-pad").props(f'data-app="{manifest.id}"')
        with card:
            title = texts.title(manifest.title, manifest.id)
            link = tag("a", title, href=f"/apps/{quote(manifest.id)}")
            html(
                join(
                    tag("h3.hr-app-title", link, state_mark(visit, app)),
                    tag("p.hr-dim", texts.title(manifest.description, "")),
                    tag(".hr-row.hr-wrap", marks(texts, app)),
                )
            )
            if app.problem is not None:
                html(error_markup(visit.texts, app.problem))
            if visit.may("edit"):
                with ui.element("div").classes("hr-row").style("margin-top:10px"):
                    on = app.deployment.enabled
                    key = "apps.stop" if on else "apps.start"
                    button(texts(key), partial(self._enable, manifest.id, not on), small=True)
                    html(
                        tag("a.hr-btn.small", texts("bind.title"), href=f"/apps/{manifest.id}/bind")
                    )

    async def _enable(self, app_id: str, on: bool) -> None:
        try:
            await set_enabled(self._visit, app_id, on=on)
        except HeadraceError as error:
            show_error(self._visit, error)
            return
        show_done(self._visit.texts("apps.started" if on else "apps.stopped_now", name=app_id))
        await self._part.refresh()


async def set_enabled(visit: Visit, app_id: str, *, on: bool) -> None:
    """Let an app run or not, in the site file.

    Raises:
        HeadraceError: what the policy, the site file and its check refuse.
    """
    actor = visit.require("edit", f"app/{app_id}", {"enabled": on})
    await asyncio.to_thread(visit.services.catalog.set_enabled, app_id, by=actor.name, on=on)
    visit.services.sources.apps.forget()


def state_of(visit: Visit, app: AppView) -> str:
    """The word for how an app does."""
    if not app.deployment.enabled:
        return "disabled"
    if app.problem is not None:
        return "problem"
    if not app.manifest.python:
        return "formulas"
    health = visit.services.sources.health.app(app.manifest.word)
    return health.state if health is not None else "silent"


def state_mark(visit: Visit, app: AppView) -> Markup:
    """How an app does, as a coloured word."""
    state = state_of(visit, app)
    colours = {**_STATES, "problem": "bad", "formulas": "good", "silent": "bad"}
    return pill(colours[state], visit.texts(f"apps.state_{state}"))


def marks(texts: Texts, app: AppView) -> Markup:
    """Version, publisher, signature, bench."""
    manifest = app.manifest
    found = [tag("span.hr-pill.idle", f"{manifest.id} {manifest.version}")]
    if app.package is not None:
        entry = entry_of(app.package)
        found.append(signature_mark(texts, entry.publisher, is_signed=entry.is_signed))
        found.append(rating_mark(texts, entry.scenarios, entry.rating))
    return join(found)


# --- one app --------------------------------------------------------------------------------------------


async def show_app(visit: Visit) -> None:
    """The page of one app: its views, and what it is."""
    texts = visit.texts
    app_id = str(visit.request.path_params.get("app_id", ""))
    crumbs = [(texts("apps.title"), "/apps")]
    try:
        app = await visit.services.sources.apps.app(app_id)
    except HeadraceError as error:
        with frame(visit, app_id[:80], nav="apps", crumbs=crumbs):
            html(error_markup(visit.texts, error))
        return
    if app is None:
        with frame(visit, texts("apps.title"), nav="apps", crumbs=crumbs):
            empty_state(
                "tree", texts("apps.none", name=app_id[:80]), "", (texts("apps.title"), "/apps")
            )
        return
    add_script()
    title = texts.title(app.manifest.title, app.manifest.id)
    help_text = texts.title(app.manifest.description, "")
    with frame(visit, title, nav="apps", crumbs=crumbs, help_text=help_text):
        _AppPage(visit, app).draw()


class _AppPage:
    def __init__(self, visit: Visit, app: AppView) -> None:
        self._visit = visit
        self._texts = visit.texts
        self._app = app
        asked = visit.request.query_params.get("view", "")
        first = app.views[0].name if app.views else ABOUT
        self._here = asked if asked == ABOUT or any(v.name == asked for v in app.views) else first

    def draw(self) -> None:
        view = next((v for v in self._app.views if v.name == self._here), None)
        with ui.element("div").classes("hr-bar"):
            html(self._tabs()).classes("hr-view-tabs")
            if view is not None and view.scope == "asset":
                self._asset_select(view)
        if self._app.problem is not None:
            html(error_markup(self._visit.texts, self._app.problem))
        if view is None:
            _About(self._visit, self._app).draw()
            return
        assets = assets_of(self._app, self._visit.site, view)
        if view.scope == "asset":
            assets = tuple(one for one in assets if one.path == self._asset(view))[:1]
        draw_view(self._visit, Place(self._app, view, self._visit.site, self._texts, assets))

    def _asset(self, view: View) -> str:
        paths = [asset.path for asset in assets_of(self._app, self._visit.site, view)]
        asked = self._visit.request.query_params.get("asset", "")
        return asked if asked in paths else next(iter(paths), "")

    def _tabs(self) -> Markup:
        names = [(v.name, self._texts.title(v.title, v.name)) for v in self._app.views]
        names.append((ABOUT, self._texts("apps.about")))
        asset = self._visit.request.query_params.get("asset", "")
        more = f"&asset={quote(asset)}" if asset else ""
        base = f"/apps/{quote(self._app.manifest.id)}"
        links = [
            tag(
                "a",
                title,
                href=f"{base}?view={quote(name)}{more}",
                cls="on" if name == self._here else "",
            )
            for name, title in names
        ]
        return tag("nav.hr-seg.hr-parts", links)

    def _asset_select(self, view: View) -> None:
        found = assets_of(self._app, self._visit.site, view)
        titles = {a.path: self._visit.site.title_of(a.path, self._texts.language) for a in found}
        base = f"/apps/{quote(self._app.manifest.id)}?view={quote(view.name)}&asset="
        box = ui.select(
            titles, value=self._asset(view) or None, label=self._texts("app_views.asset")
        )
        box.props("outlined dense options-dense data-asset").style("min-width:220px")
        box.on_value_change(lambda event: ui.navigate.to(base + quote(str(event.value))))


ABOUT: Final = "about"
"""The tab that is not a view; no view can have this name, see its file's own."""


class _About:
    """What an app is and how it does: for all who may see the whole site's connections."""

    def __init__(self, visit: Visit, app: AppView) -> None:
        self._visit = visit
        self._texts = visit.texts
        self._app = app

    def draw(self) -> None:
        texts, app = self._texts, self._app
        html(tag(".hr-row.hr-wrap", state_mark(self._visit, app), marks(texts, app)))
        if app.package is not None:
            entry = entry_of(app.package)
            html(texts("catalog.may"), tag_name="h2").classes("hr-h2")
            html(permissions_list(texts, entry.permissions, has_python=entry.has_python))
        if self._visit.opens("/connections", "read"):
            self._draw_health()
        html(texts("apps.assets"), tag_name="h2").classes("hr-h2")
        card = html(self._assets()).classes("hr-card")
        card.style("overflow-x:auto")
        for service in app.manifest.services:
            title = texts.title(service.title, service.name)
            html(join(title, tag("span", texts("apps.service"))), tag_name="h2").classes("hr-h2")
            with ui.element("section").classes("hr-card hr-pad"):
                draw_form(self._visit, app, service.name)

    def _draw_health(self) -> None:
        if not self._app.manifest.python:
            return
        html(self._texts("apps.health"), tag_name="h2").classes("hr-h2")
        body = html("")
        drawn = [""]

        def refresh() -> None:
            made = self._health()
            if made != drawn[0]:
                drawn[0] = made
                body.set_content(made)

        refresh()
        ui.timer(1.0, refresh)

    def _health(self) -> Markup:
        """How it does in each place where it runs."""
        word = self._app.manifest.word
        states = self._visit.services.sources.health.app_places(word)
        if not states:
            return tag("p.hr-dim", self._texts("apps.silent_what"))
        return join(*map(self._health_of, states))

    def _health_of(self, state: AppState) -> Markup:
        texts, budgets = self._texts, self._app.manifest.budgets
        where = None
        if state.edge:
            mark = pill(_STATES[state.state], texts(f"apps.state_{state.state}"))
            where = tag("p.hr-row", texts("apps.on_edge", edge=state.edge), " ", mark)
        lines = [
            (texts("apps.memory"), state.memory_mb, budgets.memory_mb, "MB"),
            (texts("apps.cpu"), state.cpu_percent, budgets.cpu_percent, "%"),
            (texts("apps.messages"), state.messages_per_s, budgets.messages_per_s, "1/s"),
            (texts("apps.rows"), state.rows_per_s, budgets.rows_per_s, "1/s"),
        ]
        rows = [_budget_row(name, value, most, unit) for name, value, most, unit in lines]
        facts = texts(
            "apps.facts", restarts=state.restarts, calls=f"{state.calls:,}",
            position=moment(state.position_us) if state.position_us else "–",
        )  # fmt: skip
        wrong = None
        if state.last_error_code:
            wrong = markup_of(
                texts, state.last_error_code, state.last_error, state.last_error_remedy,
                more=tag("small", moment(state.last_error_us)), cls="old",
            )  # fmt: skip
        log = tag("pre.hr-toml", "\n".join(state.log[-LOG_LINES_SHOWN:])) if state.log else None
        table = tag("table.hr-table", tag("tbody", rows))
        return join(where, tag(".hr-card", table), tag("p.hr-dim", facts), wrong, log)

    def _assets(self) -> Markup:
        site, texts = self._visit.site, self._texts
        seen = {tag_.unit_path for tag_ in site.tags}
        rows = []
        for asset in self._app.deployment.assets:
            if asset.path in seen:
                title = site.title_of(asset.path, texts.language)
                link = tag("a", title, href=f"/equipment/{quote(asset.path)}")
                name = tag("td", link, tag("span.hr-sub", asset.path))
                rows.append(
                    tag("tr", name, tag("td", asset.type), tag("td", ", ".join(asset.tags)))
                )
        for key, why in self._app.deployment.unserved.items():
            kind, _, path = key.partition(" ")
            if path in seen:
                rows.append(
                    tag("tr", tag("td", site.title_of(path, texts.language), tag("span.hr-sub", path)),
                        tag("td", kind), tag("td.hr-warn", texts("apps.unserved", why=why)))
                )  # fmt: skip
        if not rows:
            return tag(".hr-pad.hr-dim", texts("app_views.no_asset_what"))
        head = tag(
            "tr", *(tag("th", texts(f"apps.col_{n}")) for n in ("asset", "type", "quantities"))
        )
        return tag("table.hr-table", tag("thead", head), tag("tbody", rows))


def _budget_row(name: str, value: float, most: float, unit: str) -> Markup:
    share = min(value / most, 1.0) if most else 0.0
    state = "bad" if share >= 1 else "warn" if share > 0.8 else "good"
    bar = tag("i.hr-share", tag("i", style=f"width:{100 * share:.0f}%", cls=state))
    said = f"{value:,.1f} / {most:,.0f} {unit}"
    return tag("tr", tag("td", name), tag("td", bar), tag("td.num", said))
