"""Which assets an app serves under which names: a form with a proposal, and its change of the site file."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

from nicegui import ui

from headrace.apps.asset_types.proposal import Proposal as Fitted
from headrace.console.app_binding import Proposal, bind_table, form_of, site_types
from headrace.console.app_board import AppView
from headrace.console.error_words import error_markup
from headrace.console.pages.parts import button, diff_markup
from headrace.console.pages.shell import Visit, empty_state, frame, html, show_done, show_error
from headrace.console.site_view import readable
from headrace.console.widgets.markup import tag
from headrace.console.widgets.units import shown_unit
from headrace.model.app_manifest import NeededType, Setting
from headrace.model.errors import HeadraceError, Misconfigured
from headrace.model.knowledge import AssetTypeConfig

NOTHING: Final = ""
IN_FORCE_TRIES: Final = 30
IN_FORCE_S: Final = 0.3


async def show(visit: Visit) -> None:
    """The page."""
    texts = visit.texts
    app_id = str(visit.request.path_params.get("app_id", ""))
    crumbs = [(texts("apps.title"), "/apps")]
    with frame(visit, texts("bind.title"), nav="apps", help_text=texts("bind.help"), crumbs=crumbs):
        try:
            app = await _in_force(visit, app_id)
            if app is None:
                raise Misconfigured("CONS-2321", f"the app {app_id[:64]} is not installed")
            table = await asyncio.to_thread(visit.services.catalog.table, app_id)
            fitted = await asyncio.to_thread(visit.services.catalog.fit, app.manifest, {})
        except HeadraceError as error:
            html(error_markup(texts, error))
            return
        _Bind(visit, app, table, fitted).draw()


async def _in_force(visit: Visit, app_id: str) -> AppView | None:
    """The app; one that is installed a moment ago is in force as soon as the site file is."""
    board = visit.services.sources.apps
    for _ in range(IN_FORCE_TRIES):
        app = await board.app(app_id)
        if app is not None:
            return app
        await asyncio.to_thread(
            visit.services.catalog.table, app_id
        )  # raises when it is not installed
        await asyncio.sleep(IN_FORCE_S)
        board.forget()
    return None


class _Bind:
    def __init__(
        self, visit: Visit, app: AppView, table: dict[str, object], fitted: Fitted
    ) -> None:
        self._visit = visit
        self._texts = visit.texts
        self._app = app
        self._types = {kind.name: kind for kind in site_types(visit.services.sources.site.apps)}
        self._proposals = {
            name: form_of(name, needed, tuple(self._types.values()), table, fitted)
            for name, needed in app.manifest.types.items()
        }
        settings = table.get("settings")
        self._given = settings if isinstance(settings, dict) else {}
        self._settings: dict[str, Any] = {}

    def draw(self) -> None:
        texts, manifest = self._texts, self._app.manifest
        title = texts.title(manifest.title, manifest.id)
        html(tag("p.hr-dim", texts("bind.what", name=title)))
        if not self._types:
            empty_state("tree", texts("bind.no_types"), texts("bind.no_types_what"))
            return
        self._parts = ui.element("div").classes("hr-stack")
        self._draw_types()
        if manifest.settings:
            with ui.element("section").classes("hr-card hr-pad").style("margin-top:12px"):
                html(texts("bind.settings"), tag_name="h2").classes("hr-h2")
                with ui.element("div").classes("hr-form"):
                    for name, setting in manifest.settings.items():
                        self._settings[name] = self._setting(name, setting)
        with ui.element("div").classes("hr-row").style("margin:16px 0"):
            button(texts("bind.preview"), partial(self._save, dry=True))
            button(texts("bind.save"), self._save, "primary").props("data-save")
        self._diff = html("")

    def _draw_types(self) -> None:
        self._parts.clear()
        with self._parts:
            for name, needed in self._app.manifest.types.items():
                with ui.element("section").classes("hr-card hr-pad").props(f'data-needed="{name}"'):
                    self._draw_type(name, needed, self._proposals[name])

    def _draw_type(self, name: str, needed: NeededType, proposal: Proposal) -> None:
        texts = self._texts
        html(texts("bind.needs", name=readable(name)), tag_name="h2").classes("hr-h2")
        zh = texts.language == "zh"
        titles = {
            kind.name: (kind.title_zh if zh else "") or kind.title or readable(kind.name)
            for kind in self._types.values()
        }
        if proposal.several:
            names = ", ".join(str(each.get("type", "")) for each in proposal.several)
            html(tag("p", texts("bind.several", names=names)))
            return
        box = ui.select({NOTHING: "–", **titles}, value=proposal.type, label=texts("bind.type"))
        box.props("outlined dense options-dense").style("max-width:320px")

        async def chosen(event: Any) -> None:
            said = {name: str(event.value)} if event.value else {}
            catalog = self._visit.services.catalog
            fitted = await asyncio.to_thread(catalog.fit, self._app.manifest, said)
            kinds = tuple(self._types.values())
            self._proposals[name] = form_of(name, needed, kinds, {}, fitted) if said else Proposal()
            self._draw_types()

        box.on_value_change(chosen)
        kind = self._types.get(proposal.type)
        if kind is None:
            return
        with ui.element("div").classes("hr-form").style("margin-top:12px"):
            for quantity, unit in {**needed.quantities, **needed.optional}.items():
                self._choice(
                    proposal.quantities,
                    quantity,
                    unit,
                    kind.quantities,
                    quantity in needed.quantities,
                    proposal.reasons.get(quantity, ""),
                )
            for attribute, unit in needed.attributes.items():
                self._attribute(proposal, attribute, unit, kind)
            for relation in needed.relations:
                self._choice(
                    proposal.relations, relation, "", dict.fromkeys(kind.relations, ""), False
                )
        count = sum(asset.type == proposal.type for asset in self._assets())
        html(tag("p.hr-dim", texts("bind.serves", n=count)))

    def _assets(self) -> tuple[Any, ...]:
        apps = self._visit.services.sources.site.apps
        return apps.assets if apps is not None else ()

    def _choice(
        self,
        into: dict[str, str],
        name: str,
        unit: str,
        known: dict[str, str],
        required: bool,
        reason: str = "",
    ) -> None:
        options = {NOTHING: "–"} | {
            one: f"{one} ({shown_unit(its)})" if its else one for one, its in known.items()
        }
        label = f"{readable(name)} ({shown_unit(unit)})" if unit else readable(name)
        value = into.get(name, NOTHING)
        box = ui.select(
            options, value=value if value in options else NOTHING, label=label + " *" * required
        )
        box.props(f'outlined dense options-dense data-quantity="{name}"').classes("full-width")
        if reason:
            box.props('hint="{}"'.format(reason.replace('"', "'")))
        if required and not value:
            box.error = self._texts("bind.lacking")
        box.on_value_change(lambda event: self._take(into, name, str(event.value or ""), box))

    def _take(self, into: dict[str, str], name: str, value: str, box: Any) -> None:
        into[name] = value
        box.error = None

    def _attribute(self, proposal: Proposal, name: str, unit: str, kind: AssetTypeConfig) -> None:
        """By the name of the site's attribute, or a value that all assets have."""
        said = proposal.values.get(name, proposal.attributes.get(name, ""))
        label = f"{readable(name)} ({shown_unit(unit)}) *" if unit else f"{readable(name)} *"
        box = ui.input(label, value=str(said), autocomplete=list(kind.attributes))
        hint = self._texts("bind.attribute", names=", ".join(kind.attributes) or "–").replace(
            '"', ""
        )
        box.props(f'outlined dense stack-label hint="{hint}" data-attribute="{name}"').classes(
            "full-width"
        )

        def taken(event: Any) -> None:
            text = str(event.value or "").strip()
            proposal.attributes.pop(name, None)
            proposal.values.pop(name, None)
            if text in kind.attributes:
                proposal.attributes[name] = text
            elif text:
                proposal.values[name] = text

        box.on_value_change(taken)

    def _setting(self, name: str, setting: Setting) -> Any:
        title = self._texts.title(setting.title, readable(name))
        label = f"{title} ({shown_unit(setting.unit)})" if setting.unit else title
        value = self._given.get(name, setting.default)
        if setting.kind == "condition":
            return ui.checkbox(label, value=bool(value))
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        box = ui.input(label, value=shown).props("outlined dense stack-label").classes("full-width")
        low = "" if setting.minimum is None else f"{setting.minimum:g}"
        high = "" if setting.maximum is None else f"{setting.maximum:g}"
        bounds = f"{low} … {high}" if low or high else ""
        hint = " · ".join(p for p in (self._texts.title(setting.help, ""), bounds) if p)
        return box.props('hint="{}"'.format(hint.replace('"', "'"))) if hint else box

    def _settings_table(self) -> dict[str, Any]:
        """Settings that differ from the app's own."""
        found: dict[str, Any] = {}
        for name, setting in self._app.manifest.settings.items():
            value = self._settings[name].value
            if setting.kind == "number":
                try:
                    value = float(str(value).strip())
                except ValueError:
                    raise Misconfigured(
                        "CONS-2322", f"the setting {name} is {str(value)[:40]!r}", "Write a number."
                    ) from None
            if value != setting.default:
                found[name] = value
        return found

    async def _save(self, *, dry: bool = False) -> None:
        visit, app_id = self._visit, self._app.manifest.id
        try:
            bind = bind_table(self._proposals, self._app.manifest.types)
            actor = visit.require("edit", f"app/{app_id}", {"change": "bind"})
            act = partial(
                visit.services.catalog.bind, app_id,
                by=actor.name, bind=bind, settings=self._settings_table(), dry=dry,
            )  # fmt: skip
            diff = await asyncio.to_thread(act)
        except HeadraceError as error:
            show_error(visit, error)
            return
        if dry:
            self._diff.set_content(
                tag("pre.hr-toml", diff_markup(diff) or self._texts("bind.same"))
            )
            return
        if diff:
            await self._until_in_force()
        show_done(self._texts("bind.saved"))
        ui.navigate.to(f"/apps/{app_id}?view=about")

    async def _until_in_force(self) -> None:
        """So that the next page shows what was saved, and not what was before; gives up after a while."""
        board, before = self._visit.services.sources.apps, self._app.deployment.content_hash()
        for _ in range(IN_FORCE_TRIES):
            board.forget()
            app = await board.app(self._app.manifest.id)
            if app is None or app.deployment.content_hash() != before:
                return
            await asyncio.sleep(IN_FORCE_S)
