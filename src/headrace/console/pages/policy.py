"""Policy, for security officers: who may do what and why, what waits for approval, and what is in force."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from headrace.console.api.policy import may_answer
from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, frame, html, pill, show_done, show_error
from headrace.console.policy_questions import ACTIONS, actor_named, explain
from headrace.console.widgets.markup import Markup, join, tag
from headrace.model.errors import HeadraceError
from headrace.security.policy import in_force
from headrace.security.signatures import Release


def show(visit: Visit) -> None:
    """Draw the page."""
    texts = visit.texts
    with (
        frame(visit, texts("policy.title"), nav="policy", help_text=texts("policy.help")),
        ui.element("div").classes("hr-stack"),
    ):
        _Question(visit).draw()
        _Waiting(visit).draw()
        _in_force(visit)


class _Question:
    """May leo write pump_1, and why."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit

    def draw(self) -> None:
        texts, users = self._visit.texts, self._visit.services.identity.users()
        names = [user.name for user in users if not user.disabled]
        html(texts("policy.ask"), tag_name="h2").classes("hr-h2")
        with ui.element("div").classes("hr-row hr-wrap"):
            self.actor = ui.select(names, value=names[0], label=texts("policy.actor"))
            self.action = ui.select(list(ACTIONS), value="write", label=texts("policy.action"))
            for control in (self.actor, self.action):
                control.props("outlined dense options-dense").style("min-width:140px")
            self.resource = ui.input(texts("policy.resource"), placeholder="pump_1")
            self.resource.props("outlined dense").on("keydown.enter", self._ask)
            button(texts("policy.ask_do"), self._ask, "primary")
        self.answer = html("").props("data-policy-answer")

    async def _ask(self) -> None:
        visit = self._visit
        try:
            visit.require("administer", "policy_question")
            actor = await asyncio.to_thread(actor_named, visit.services, str(self.actor.value))
            asked = str(self.resource.value or "").strip() or "site"
            found = explain(visit.site, actor, str(self.action.value), asked)
        except HeadraceError as error:
            show_error(visit, error)
            return
        self.answer.set_content(_answer(visit, found))


def _answer(visit: Visit, found: dict[str, Any]) -> Markup:
    texts = visit.texts
    key = "policy.yes" if found["allowed"] else f"policy.needs_{found['needs'] or 'nothing'}"
    color = "good" if found["allowed"] else "warn" if found["needs"] else "bad"
    held = ", ".join(
        f"{texts('role.' + grant['role'])} · {grant['scope'] or texts('asset.all_site')}"
        for grant in found["held"]
    )
    return tag(
        ".hr-card.hr-pad",
        tag("div", pill(color, texts(key)), tag("span", f" {found['resource']}")),
        tag("p.hr-dim", held),
        tag("p", found["reason"]),
        _table(found["policies"]) if found["policies"] else tag("p", texts("policy.no_policy")),
    )


def _table(policies: list[dict[str, Any]]) -> Markup:
    rows = [
        tag(
            "tr",
            tag("td", tag("b", one["id"]), tag("span.hr-sub", f"{one['file']}:{one['line']}")),
            tag("td", pill("good" if one["effect"] == "permit" else "bad", one["effect"])),
            tag("td", one["says"], tag("span.hr-sub", one["needs"])),
            tag("td.hr-mono", tag("pre", one["text"], style="margin:0;white-space:pre-wrap")),
        )
        for one in policies
    ]
    return tag("table.hr-table", tag("tbody", rows))


class _Waiting:
    """What waits for a second person."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._drawn: object = None

    def draw(self) -> None:
        html(self._visit.texts("policy.waiting"), tag_name="h2").classes("hr-h2")
        self._body = ui.element("div").classes("hr-card")
        self._refresh()
        ui.timer(2.0, self._refresh)

    def _refresh(self) -> None:
        actor = self._visit.actor
        found = self._visit.services.identity.releases.waiting()
        shown = [one for one in found if may_answer(actor, one)]
        if shown == self._drawn:
            return
        self._drawn = shown
        self._body.clear()
        with self._body:
            for one in shown:
                self._row(one)
            if not shown:
                html(self._visit.texts("policy.none_waiting")).classes("hr-pad hr-dim")

    def _row(self, one: Release) -> None:
        texts = self._visit.texts
        with ui.element("div").classes("hr-row hr-wrap hr-pad").props(f'data-release="{one.id}"'):
            what = f"{one.actor}: {one.action} {one.resource} {one.facts}"
            html(join(tag("b", what), tag("span.hr-sub", one.reason))).classes("hr-grow")
            button(texts("policy.approve"), lambda: self._say(one, True), "primary", small=True)
            button(texts("policy.reject"), lambda: self._say(one, False), "danger", small=True)

    def _say(self, one: Release, approved: bool) -> None:
        visit = self._visit
        try:
            actor = visit.require("approve", one.resource, {"equipment": one.equipment})
            visit.services.identity.releases.answer(one.id, actor.name, approved)
        except HeadraceError as error:
            show_error(visit, error)
        else:
            show_done(visit.texts("policy.answered"))
        self._refresh()


def _in_force(visit: Visit) -> None:
    texts, policies = visit.texts, in_force().policies
    html(texts("policy.in_force", n=len(policies.policies), own=policies.own), tag_name="h2")
    problem = visit.services.policies.problem if visit.services.policies is not None else None
    if problem is not None:
        what = texts("policy.broken", what=f"{problem.code} {problem.what}")
        html(tag(".hr-alert", what, role="alert"))
    shown = [
        {name: getattr(one, name) for name in ("id", "effect", "file", "line", "says", "needs", "text")}
        for one in policies.policies
    ]  # fmt: skip
    html(_table(shown)).classes("hr-card").style("overflow-x:auto")
