"""The guided form: protocol, device, test, tags, preview and save."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from nicegui import ui

from headrace.console.draft import Draft
from headrace.console.options_form import OptionField, answers_to_options, fields_of
from headrace.console.pages.choose_tags import ChooseTags
from headrace.console.pages.parts import button, diff_markup
from headrace.console.pages.shell import Visit, frame, html, show_done, show_error
from headrace.console.site_view import readable
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.edge.catalog import connector_type, protocols
from headrace.model.errors import HeadraceError, Misconfigured
from headrace.site.secret_words import is_secret_word

CHECK_TIMEOUT_S: Final = 25.0
_STEPS: Final = ("protocol", "endpoint", "test", "tags", "save")


def show(visit: Visit) -> None:
    """Draw the page; the draft lives as long as the page is open."""
    texts = visit.texts
    crumbs = [(texts("connections.title"), "/connections")]
    with frame(
        visit, texts("add.title"), nav="connections", help_text=texts("add.help"), crumbs=crumbs
    ):
        _Wizard(visit).draw()


class _Wizard:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._texts = visit.texts
        self._draft = Draft()
        self._step = 0
        self._answers: dict[str, Callable[[], Any]] = {}
        self._fields: list[OptionField] = []
        self._diff = ""

    def draw(self) -> None:
        self._head = html("").classes("hr-steps")
        self._body = ui.element("div")
        self._go(0)

    def _go(self, step: int) -> None:
        self._step = step
        names = [self._texts(f"add.step_{name}") for name in _STEPS]
        self._head.set_content(join([self._step_pill(i, name) for i, name in enumerate(names)]))
        self._body.clear()
        with self._body:
            (
                self._protocol,
                self._endpoint,
                self._test,
                self._tags,
                self._save,
            )[step]()

    def _step_pill(self, index: int, name: str) -> Markup:
        state = "on" if index == self._step else "done" if index < self._step else ""
        mark: object = icon("check", 14) if index < self._step else index + 1
        return tag("span.hr-step", tag("i", mark), name, cls=state)

    def _buttons(self, forward: Callable[[], Any], text: str = "") -> None:
        with ui.element("div").classes("hr-row").style("margin-top:20px"):
            button(self._texts("add.back"), lambda: self._go(self._step - 1))
            button(text or self._texts("add.next"), forward, "primary").props("data-next")

    # 1 protocol

    def _protocol(self) -> None:
        with ui.element("div").classes("hr-proto"):
            for name in protocols():
                try:
                    connector = connector_type(name)
                except (HeadraceError, ImportError):
                    continue  # an entry point whose package is gone is no choice
                title = connector.title[1 if self._texts.language == "zh" else 0]
                card = join(
                    tag("b", title),
                    tag("div.hr-sub.hr-trunc", connector.endpoint_example),
                )
                chosen = html(card, tag_name="button").classes("hr-card")
                chosen.props(f'type=button data-protocol="{name}"')
                chosen.on("click", lambda n=name: self._choose(n), [])

    def _choose(self, protocol: str) -> None:
        if protocol != self._draft.protocol:
            self._draft = Draft(connector=connector_type(protocol), protocol=protocol)
        self._go(1)

    # 2 endpoint and options

    def _endpoint(self) -> None:
        connector, texts = self._draft.connector, self._texts
        assert connector is not None, "the step before chose it"
        with ui.element("div").classes("hr-card hr-pad"):
            with ui.element("div").classes("hr-form"):
                name = _input(texts("add.name"), self._draft.name, texts("add.name_hint"), "name")
                example = texts("add.example", text=connector.endpoint_example)
                endpoint = _input(texts("add.endpoint"), self._draft.endpoint, example, "endpoint")
                edges = [s.edge for s, _ in self._visit.services.sources.health.edges()] or [
                    "local"
                ]
                edge = ui.select(edges, value=edges[0], label=texts("add.edge"))
                edge.props("outlined dense options-dense")
            self._fields = fields_of(connector.options)
            summary = tag("span", f"{texts('add.options')} · {texts('add.options_hint')}")
            with ui.element("details").style("margin-top:18px"):
                html(summary, tag_name="summary").style("cursor:pointer;margin-bottom:12px")
                with ui.element("div").classes("hr-form"):
                    given = self._draft.options
                    self._answers = {f.name: _option(f, given.get(f.name)) for f in self._fields}

        def forward() -> None:
            self._draft.name = str(name.value or "").strip()
            self._draft.endpoint = str(endpoint.value or "").strip()
            self._draft.edge = str(edge.value)
            self._try(self._take_options)

        self._buttons(forward)

    def _take_options(self) -> None:
        answers = {name: get() for name, get in self._answers.items()}
        self._draft.options = answers_to_options(self._fields, answers)
        self._draft.config()
        known = self._visit.services.sources.health.connection(self._draft.name)
        if known is not None:
            raise Misconfigured(
                "CONS-1013",
                f"there is a connection {self._draft.name!r} already",
                "Choose another name.",
            )
        self._go(2)

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except HeadraceError as error:
            show_error(self._visit, error)

    # 3 test

    def _test(self) -> None:
        texts = self._texts
        with ui.element("div").classes("hr-card hr-pad hr-stack"):
            html(texts("add.test_what")).classes("hr-dim")
            result = html("").props("data-result")

            async def check() -> None:
                result.set_content(tag("span.hr-dim", texts("add.testing")))
                result.set_content(await self._check())

            button(texts("add.test"), check, "primary", icon_name="plug").props("data-test")
        self._buttons(lambda: self._go(3))

    async def _check(self) -> Markup:
        texts = self._texts
        try:
            self._visit.require("edit", "connection")
            folder = self._visit.services.sources.folder
            await self._visit.services.sources.ask_edge(
                self._draft.edge,
                "check",
                await asyncio.to_thread(self._draft.call, folder),
                timeout_s=CHECK_TIMEOUT_S,
            )
        except HeadraceError as error:
            return tag(
                ".hr-error",
                tag("b", texts("add.test_bad")),
                tag("div", tag("code", error.code), " ", error.what),
                tag("div.hr-what-now", error.remedy),
                tag("div.hr-sub", texts("add.test_skip")),
                style="margin:0",
            )
        return tag(".hr-alert.ok", texts("add.test_good"), role="status")

    # 4 tags

    def _tags(self) -> None:
        ChooseTags(self._visit, self._draft).draw()
        self._buttons(lambda: self._go(4))

    # 5 preview and save

    def _save(self) -> None:
        texts = self._texts
        html(texts("add.preview_what")).classes("hr-dim").style("margin-bottom:10px")
        preview = html("…", tag_name="pre").classes("hr-toml")
        folder = self._visit.services.sources.folder

        def prepare() -> str:
            edit = self._draft.edit(folder)
            edit.check()
            return edit.diff()

        async def look() -> None:
            try:
                preview.set_content(diff_markup(await asyncio.to_thread(prepare)))
            except HeadraceError as error:
                preview.set_content(tag("span.del", f"{error.code} {error.what}. {error.remedy}"))

        async def save() -> None:
            try:
                actor = self._visit.require("edit", f"connection/{self._draft.name}")
                audit = self._visit.services.identity.audit
                for name in await asyncio.to_thread(self._draft.save, folder):
                    audit.record(actor.name, "set_secret", f"secret/{name}", "done")
            except HeadraceError as error:
                show_error(self._visit, error)
                return
            show_done(texts("add.saved", name=self._draft.name))
            ui.navigate.to("/connections")

        ui.timer(0.01, look, once=True)
        self._buttons(save, texts("add.save"))


def _input(label: str, value: str, hint: str, mark: str) -> ui.input:
    return ui.input(label, value=value).props(f'outlined dense hint="{hint}" data-field="{mark}"')


def _option(field: OptionField, given: Any) -> Callable[[], Any]:
    """Draw one option; gives the way to read its answer."""
    value = field.default if given is None else given
    label = readable(field.name)
    with ui.element("div").classes("hr-field"):
        if field.kind == "boolean":
            box: Any = ui.checkbox(label, value=bool(value)).props("dense")
        elif field.kind == "choice":
            box = ui.select(list(field.choices), value=value, label=label)
            box.props("outlined dense options-dense")
        else:
            text = ", ".join(value) if isinstance(value, list) else "" if value is None else value
            box = ui.input(label, value=str(text)).props("outlined dense")
            if is_secret_word(field.name):
                box.props("type=password")
        if field.explained:
            html(tag("small", field.explained)).classes("hr-sub")
    return lambda: box.value
