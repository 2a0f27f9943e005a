"""What people do with alarms: acknowledge, shelve, assign, comment, reset, out of service; and undo."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from nicegui import ui

from headrace.alarms.machine import possible
from headrace.console.alarms import RIGHTS, Act
from headrace.console.pages.parts import button
from headrace.console.pages.shell import Visit, html, show_done, show_error
from headrace.console.texts import Texts
from headrace.console.widgets.markup import join
from headrace.console.widgets.spans import moment
from headrace.model.alarm import SUPPRESSED, AlarmState, Outcome, Verb
from headrace.model.errors import HeadraceError
from headrace.model.time import US_PER_S

UNDO_S: Final = 20.0
REASON_MAX: Final = 500
_SPANS: Final = (
    ("time.minutes", 15, 900),
    ("time.hours", 1, 3_600),
    ("time.hours", 4, 14_400),
    ("time.hours", 8, 28_800),
    ("time.hours", 24, 86_400),
    ("time.days", 3, 259_200),
)
ORDER: Final[tuple[Verb, ...]] = (
    "acknowledge", "reset", "unshelve", "return_to_service", "shelve", "assign", "comment",
    "remove_from_service",
)  # fmt: skip
_UNDO_OF: Final[dict[Verb, Verb]] = {
    "shelve": "unshelve",
    "remove_from_service": "return_to_service",
}


def verbs_for(visit: Visit, lines: Sequence[AlarmState]) -> list[Verb]:
    """What may be done with some of these alarms, by this user, in the order of the buttons."""
    return [verb for verb in ORDER if visit.may(RIGHTS[verb]) and _fitting(verb, lines)]


def _fitting(verb: Verb, lines: Sequence[AlarmState]) -> list[AlarmState]:
    """Of the chosen ones those whose state knows the verb; words fit every state."""
    if verb in ("comment", "assign"):
        return [*lines]
    if verb == "shelve":
        return [line for line in lines if line.state not in SUPPRESSED]
    return [line for line in lines if verb in possible(line.state)]


class Actions:
    """Asks for what a verb needs, does it, says what came of it, and offers to undo it.

    Args:
        after: awaited after anything was done.
    """

    def __init__(self, visit: Visit, after: Callable[[], Awaitable[None]]) -> None:
        self._visit = visit
        self._texts = visit.texts
        self._after = after
        self._undo: Act | None = None

    def draw_undo(self) -> None:
        """The bar that offers to take the last act back."""
        with ui.element("div").classes("hr-undo hr-hide").props('role="status"') as self.bar:
            self.said = html("", tag_name="span")
            button(self._texts("alarm_do.undo"), self._take_back, small=True, icon_name="undo")
        self.timer = ui.timer(UNDO_S, self._hide_undo, active=False)

    async def start(self, name: str, lines: Sequence[AlarmState]) -> None:
        """Do a verb; what needs a reason, an end, a person or words asks first."""
        verb = next((verb for verb in ORDER if verb == name), None)
        meant = _fitting(verb, lines) if verb else []
        if verb is None or not meant:
            return
        ask = {
            "shelve": self._ask_shelve,
            "remove_from_service": self._ask_out_of_service,
            "assign": self._ask_assign,
            "comment": self._ask_comment,
        }.get(verb)
        if ask is None:
            await self.run(Act(verb=verb, alarms=tuple(line.alarm for line in meant)))
        else:
            await ask(meant)

    async def run(self, act: Act, *, undo: Act | None = None) -> bool:
        """Send it; True when nothing was refused."""
        visit, texts = self._visit, self._texts
        try:
            actor = visit.require_all(RIGHTS[act.verb], visit.services.sources.alarms.things(act))
            answer = await visit.services.sources.alarms.act(
                actor, act, visit.services.identity.audit
            )
        except HeadraceError as error:
            show_error(visit, error)
            return False
        refused = answer.refused
        if refused:
            show_refused(texts, refused, len(act.alarms))
        done = len(answer.outcomes) - len(refused)
        if done:
            self._say(act, done, undo)
        await self._after()
        return not refused

    def _say(self, act: Act, count: int, undo: Act | None) -> None:
        texts = self._texts
        values: dict[str, object] = {"n": count}
        if act.verb == "shelve":
            values["time"] = moment(act.until_us)[5:16] + " UTC"
        if act.verb == "assign":
            values["who"] = act.assignee or texts("alarm_do.to_nobody")
        said = texts(f"alarm_do.done_{act.verb}", **values)
        back = undo
        if back is None and act.verb in _UNDO_OF:
            back = Act(verb=_UNDO_OF[act.verb], alarms=act.alarms)
        if back is None:
            show_done(said)
            return
        self._undo = back
        self.said.set_content(join(said))
        self.bar.classes(remove="hr-hide")
        self.timer.deactivate()
        self.timer.activate()

    def _hide_undo(self) -> None:
        self._undo = None
        self.bar.classes(add="hr-hide")
        self.timer.deactivate()

    async def _take_back(self) -> None:
        act = self._undo
        self._hide_undo()
        if act is not None:
            await self.run(act)

    async def _ask_shelve(self, lines: list[AlarmState]) -> None:
        texts = self._texts
        spans = {seconds: texts(key, n=n) for key, n, seconds in _SPANS}
        with self._dialog("shelve_title", lines, texts("alarm_do.shelve_what")) as dialog:
            span = ui.select(spans, value=3_600, label=texts("alarm_do.for_how_long"))
            span.props("outlined dense").classes("full-width")
            reason = self._field("reason", "reason_hint")

            def act() -> Act:
                now_us = self._visit.services.sources.clock.now_us()
                until_us = now_us + int(span.value or 0) * US_PER_S
                alarms, why = tuple(line.alarm for line in lines), str(reason.value or "").strip()
                return Act(verb="shelve", alarms=alarms, until_us=until_us, comment=why)

            self._buttons(dialog, "shelve", reason, "reason_missing", act)
        dialog.open()

    async def _ask_out_of_service(self, lines: list[AlarmState]) -> None:
        texts = self._texts
        what = texts("alarm_do.out_of_service_what")
        with self._dialog("out_of_service_title", lines, what) as dialog:
            reason = self._field("reason", "reason_hint")

            def act() -> Act:
                alarms, why = tuple(line.alarm for line in lines), str(reason.value or "").strip()
                return Act(verb="remove_from_service", alarms=alarms, comment=why)

            self._buttons(dialog, "remove_from_service", reason, "reason_missing", act)
        dialog.open()

    async def _ask_comment(self, lines: list[AlarmState]) -> None:
        with self._dialog("comment_title", lines, "") as dialog:
            words = self._field("comment", "reason_hint")

            def act() -> Act:
                alarms, text = tuple(line.alarm for line in lines), str(words.value or "").strip()
                return Act(verb="comment", alarms=alarms, comment=text)

            self._buttons(dialog, "comment", words, "comment_missing", act)
        dialog.open()

    async def _ask_assign(self, lines: list[AlarmState]) -> None:
        texts, visit = self._texts, self._visit
        users = await asyncio.to_thread(visit.services.identity.users)
        names = {"": texts("alarm_do.to_nobody")}
        names |= {user.name: user.name for user in users if not user.disabled}
        with self._dialog("assign_title", lines, "") as dialog:
            me = visit.actor.name if visit.actor.name in names else ""
            whom = ui.select(names, value=me, label=texts("alarm_do.to_whom"))
            whom.props("outlined dense").classes("full-width")

            async def send() -> None:
                dialog.close()
                alarms, before = (
                    tuple(line.alarm for line in lines),
                    {line.assignee for line in lines},
                )
                act = Act(verb="assign", alarms=alarms, assignee=str(whom.value or ""))
                undo = (
                    Act(verb="assign", alarms=alarms, assignee=before.pop())
                    if len(before) == 1
                    else None
                )
                await self.run(act, undo=undo)

            with ui.element("div").classes("hr-row").style("justify-content:flex-end"):
                button(texts("shell.cancel"), dialog.close)
                button(texts("alarm_do.assign"), send, "primary")
        dialog.open()

    def _dialog(self, title: str, lines: Sequence[AlarmState], what: str) -> Any:
        dialog = ui.dialog()
        with dialog, ui.card().classes("hr-dialog") as card:
            html(self._texts(f"alarm_do.{title}", n=len(lines)), tag_name="h2")
            if what:
                html(what, tag_name="p").classes("hr-dim").style("margin:0")
        return _Inside(dialog, card)

    def _field(self, label: str, hint: str) -> ui.textarea:
        texts = self._texts
        field = ui.textarea(texts(f"alarm_do.{label}"), placeholder=texts(f"alarm_do.{hint}"))
        field.props(f"outlined stack-label autogrow autofocus maxlength={REASON_MAX}").classes(
            "full-width"
        )
        return field

    def _buttons(
        self,
        dialog: ui.dialog,
        verb: str,
        needed: ui.textarea,
        missing: str,
        act: Callable[[], Act],
    ) -> None:
        texts = self._texts

        async def send() -> None:
            if not str(needed.value or "").strip():
                needed.props(f'error error-message="{texts(f"alarm_do.{missing}")}"')
                return
            dialog.close()
            await self.run(act())

        with ui.element("div").classes("hr-row").style("justify-content:flex-end"):
            button(texts("shell.cancel"), dialog.close)
            button(texts(f"alarm_do.{verb}"), send, "primary")


def show_refused(texts: Texts, refused: Sequence[Outcome], total: int) -> None:
    """A notice of what was refused, with the first reason."""
    first = refused[0]
    why = f"{first.code} · {first.what}. {first.remedy}".strip()
    ui.notification(
        texts("alarm_do.not_done", n=len(refused), total=total, why=why),
        type="negative",
        position="top-right",
        timeout=12,
        close_button=texts("shell.close"),
        multi_line=True,
    )


class _Inside:
    """Enters the card of a dialog, and gives the dialog."""

    def __init__(self, dialog: ui.dialog, card: ui.card) -> None:
        self._dialog = dialog
        self._card = card

    def __enter__(self) -> ui.dialog:
        self._card.__enter__()
        return self._dialog

    def __exit__(self, *error: object) -> None:
        self._card.__exit__(*error)
