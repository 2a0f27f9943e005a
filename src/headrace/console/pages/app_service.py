"""The form of a service of an app, made of the service's types; its answer as facts, table and plot."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from nicegui import ui

from headrace.console.app_board import AppView
from headrace.console.app_calls import call_facts, call_service
from headrace.console.app_views import charts
from headrace.console.pages.app_parts import make_chart
from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, html, show_error
from headrace.console.pages.signing import allowed
from headrace.console.schema_form import (
    Answer,
    SchemaField,
    answer_of,
    fields_of,
    request_of,
    shown,
)
from headrace.console.widgets.markup import tag
from headrace.console.widgets.units import shown_unit
from headrace.model.errors import HeadraceError


def draw_form(visit: Visit, app: AppView, name: str) -> None:
    """The form of one service, here."""
    service, schema = app.service(name), app.schemas.get(name)
    if service is None or schema is None:
        html(visit.texts("app_form.not_described", name=name)).classes("hr-dim")
        return
    _Form(visit, app, name, schema).draw()


class _Form:
    def __init__(self, visit: Visit, app: AppView, name: str, schema: dict[str, Any]) -> None:
        self._visit = visit
        self._texts = visit.texts
        self._app = app
        self._name = name
        self._schema = schema
        self._fields = fields_of(schema.get("request", {}))
        self._inputs: dict[str, Any] = {}
        self._edge = ""

    def draw(self) -> None:
        if text := str(self._schema.get("help", "")):
            html(tag("p.hr-dim", text, style="margin:0 0 12px"))
        with ui.element("div").classes("hr-form").props(f'data-service="{self._name}"'):
            for field in self._fields:
                self._inputs[field.name] = self._input(field)
            if len(self._app.deployment.edges) > 1:
                self._place_select()
        service = self._app.service(self._name)
        is_dangerous = service is not None and service.dangerous
        with ui.element("div").classes("hr-row hr-wrap").style("margin:12px 0"):
            key = "app_form.sign_and_ask" if is_dangerous else "app_form.ask"
            kind = "danger" if is_dangerous else "primary"
            button(self._texts(key), self._ask, kind).props("data-ask")
            if is_dangerous:
                html(self._texts("app_form.dangerous")).classes("hr-dim hr-grow")
        self._answer = ui.element("div").props("data-answer")

    def _place_select(self) -> None:
        """Whose answer is wanted, of an app that runs in several places."""
        known = self._app.deployment.edges
        self._edge = known[0]
        names = {edge: edge or self._texts("app_form.platform") for edge in known}
        box = ui.select(names, label=self._texts("app_form.place"), value=self._edge)
        box.props("outlined dense options-dense").classes("full-width")

        def choose() -> None:
            self._edge = str(box.value)

        box.on_value_change(choose)

    def _input(self, field: SchemaField) -> Any:
        unit = f" ({shown_unit(field.unit)})" if field.unit else ""
        star = " *" if field.required else ""
        label = f"{field.title}{unit}{star}"
        if field.kind == "boolean":
            return ui.checkbox(label, value=bool(field.default))
        if field.kind == "choice":
            default = field.default if field.default in field.choices else None
            box: Any = ui.select(list(field.choices), label=label, value=default)
            box.props("outlined dense options-dense")
        else:
            value = "" if field.default is None else shown(field.default)
            box = ui.input(label, value=value).props("outlined dense stack-label")
            if field.kind in ("number", "integer"):
                box.props("inputmode=decimal")
        bounds = self._bounds(field)
        hint = " · ".join(part for part in (field.help, bounds) if part)
        return box.props(f'hint="{_quoted(hint)}"' if hint else "").classes("full-width")

    def _bounds(self, field: SchemaField) -> str:
        low, high = field.minimum, field.maximum
        if low is not None and high is not None:
            return f"{low:g} … {high:g}"
        if low is not None:
            return f"≥ {low:g}"
        return "" if high is None else f"≤ {high:g}"

    async def _ask(self) -> None:
        answers = {name: box.value for name, box in self._inputs.items()}
        request, problems = request_of(self._fields, answers)
        wrong = {problem.field: problem for problem in problems}
        for name, box in self._inputs.items():
            found = wrong.get(name)
            if hasattr(box, "error"):
                box.error = self._texts(found.key, **found.values) if found else None
        if wrong:
            return
        try:
            given = await self._call(request)
        except HeadraceError as error:
            show_error(self._visit, error)
            return
        if given is not None:
            self._show(given[0])

    async def _call(self, request: dict[str, Any]) -> tuple[Any] | None:
        """What the service answered; None when a signature was not given."""
        manifest = self._app.manifest
        service = self._app.service(self._name)
        assert service is not None, "the form was drawn of it"
        body = msgspec.json.encode(request)
        facts = call_facts(service, body)
        asked = partial(self._visit.require, "operate", f"app/{manifest.id}", facts)
        actor = await allowed(self._visit, lambda one: asked(release=one))
        if actor is None:
            return None
        deployment = self._app.deployment
        answer = await call_service(
            self._visit.services, actor, deployment, service, body, self._edge
        )
        return (msgspec.json.decode(answer) if answer else None,)

    def _show(self, given: Any) -> None:
        answer = answer_of(self._schema.get("answer", {}), given)
        self._answer.clear()
        with self._answer:
            if answer.facts:
                rows = [
                    tag(
                        "tr",
                        tag("td", title),
                        tag("td.num", tag("b", value), " ", shown_unit(unit)),
                    )
                    for title, value, unit in answer.facts
                ]
                html(tag("table.hr-table", tag("tbody", rows)))
            if answer.rows:
                self._plot(answer)
                head = tag("tr", [tag("th", name) for name in answer.columns])
                body = [tag("tr", [tag("td", shown(v)) for v in row]) for row in answer.rows]
                made = html(tag("table.hr-table", tag("thead", head), tag("tbody", body)))
                made.style("max-height:320px;overflow:auto")

    def _plot(self, answer: Answer) -> None:
        """The first two columns of numbers against each other, the others beside."""
        if len(answer.numbers) < 2 or len(answer.rows) < 3:
            return
        x = answer.columns.index(answer.numbers[0])
        lines = [
            (name, [(row[x], row[answer.columns.index(name)]) for row in answer.rows])
            for name in answer.numbers[1:5]
        ]
        make_chart(charts.curves(answer.numbers[0], lines))


def _quoted(text: str) -> str:
    return text.replace("\\", "").replace('"', "'")[:300]
