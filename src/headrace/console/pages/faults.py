"""Simulated faults: switch them on and off, when a simulated site answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from nicegui import ui

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
from headrace.console.widgets.markup import join, tag
from headrace.model.errors import HeadraceError

CALL_TIMEOUT_S: Final = 3.0


def show(visit: Visit) -> None:
    """Draw the page; what acts now is asked again each two seconds."""
    texts = visit.texts
    with frame(visit, texts("faults.title"), nav="faults", help_text=texts("faults.help")):
        _Faults(visit).part.begin_soon()


class _Faults:
    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self.part = Refreshed(visit, self._ask, self._draw_all, "")

    async def _ask(self) -> list[dict[str, Any]]:
        """What the simulated site says; nothing where there is none."""
        try:
            return list(await self._call("fault_list", None))
        except HeadraceError:
            return []

    def _draw_all(self, faults: list[dict[str, Any]]) -> None:
        texts = self._visit.texts
        if not faults:
            empty_state("fault", texts("faults.empty"), texts("faults.empty_what"))
            return
        with ui.element("div").classes("hr-conns"):
            for fault in faults:
                self._draw(fault)

    async def _call(self, verb: str, message: Any) -> Any:
        sources = self._visit.services.sources
        subject = sources.subjects.sim_call(verb)
        return await sources.request(subject, message, timeout_s=CALL_TIMEOUT_S)

    def _draw(self, fault: dict[str, Any]) -> None:
        texts = self._visit.texts
        name, active = str(fault["name"]), list(fault.get("active", []))
        title = texts.title(fault.get("title"), name)
        state = ("warning", "faults.active") if active else ("idle", "faults.off")
        head = tag(".hr-row.hr-between", tag("h3", title), pill(state[0], texts(state[1])))
        explained = texts.title(fault.get("explanation"), "")
        with ui.element("section").classes("hr-card hr-pad hr-conn hr-stack") as card:
            card.props(f'data-fault="{name}"')
            html(join(head, tag("p.hr-dim", explained, style="margin:6px 0 0")))
            for target in active:
                with ui.element("div").classes("hr-row hr-between"):
                    html(tag("b", target))
                    stop = self._act("fault_stop", name, title, target, "faults.stopped")
                    button(texts("faults.stop"), stop, "danger", small=True)
            free = [target for target in fault.get("targets", []) if target not in active]
            if free:
                with ui.element("div").classes("hr-row"):
                    target = ui.select(free, value=free[0], label=texts("faults.target"))
                    target.props("outlined dense options-dense").classes("hr-grow")
                    start = self._act("fault_start", name, title, target, "faults.started")
                    button(texts("faults.start"), start)

    def _act(
        self, verb: str, name: str, title: str, target: str | ui.select, done: str
    ) -> Callable[[], Any]:
        async def act() -> None:
            chosen = target if isinstance(target, str) else str(target.value)
            try:
                self._visit.require("simulate", f"fault/{name}/{chosen}")
                await self._call(verb, {"name": name, "target": chosen})
            except HeadraceError as error:
                show_error(self._visit, error)
                return
            show_done(self._visit.texts(done, name=title, target=chosen))
            await self.part.refresh()

        return act
