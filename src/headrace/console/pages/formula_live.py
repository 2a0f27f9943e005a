"""What the apps role says of the formulas it evaluates: state, version, newest result, trouble."""

from __future__ import annotations

from typing import Final

from nicegui import ui

from headrace.console.pages.shell import Visit, html, pill
from headrace.console.texts import Texts
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.spans import moment
from headrace.model.apps import AppsState, FormulaHealth
from headrace.model.time import US_PER_MS

REFRESH_S: Final = 1.0
_COLOURS: Final = {
    "running": "info",
    "idle": "info",
    "catching_up": "warning",
    "waiting": "warning",
}


class LiveFormulas:
    """The part of a page that shows them, and follows.

    Args:
        visit: of the page.
    """

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._drawn = ""

    def draw(self) -> None:
        """Put it here."""
        if not self._visit.opens("/connections", "read"):
            return  # the role's state tells of all the site's formulas
        with ui.expansion(self._visit.texts("formula_live.title")).style("margin-top:16px"):
            self._head = html("").classes("hr-row hr-wrap").style("margin-bottom:8px")
            self._table = html("").classes("hr-card").style("overflow-x:auto")
        self._refresh()
        ui.timer(REFRESH_S, self._refresh)

    def _refresh(self) -> None:
        texts, state = self._visit.texts, self._visit.services.sources.health.apps
        self._head.set_content(head(texts, state))
        made = table(texts, state)
        if made != self._drawn:
            self._drawn = made
            self._table.set_content(made)


def head(texts: Texts, state: AppsState | None) -> Markup:
    """How the role does, in a line."""
    if state is None:
        return join(pill("error", texts("formula_live.silent")))
    told = [
        pill(_COLOURS[state.state], texts(f"formula_live.{state.state}")),
        tag("span", texts("formula_live.rate", n=f"{state.results_rate:,.0f}")),
        tag("span", texts("formula_live.lag", n=f"{state.lag_us // US_PER_MS:,}")),
    ]
    if state.latency_p99_us:
        told.append(
            tag("span", texts("formula_live.p99", n=f"{state.latency_p99_us // US_PER_MS:,}"))
        )
    if state.repairs:
        told.append(tag("span", texts("formula_live.repairs", n=state.repairs)))
    return join(*told)


def table(texts: Texts, state: AppsState | None) -> Markup:
    """A row a formula."""
    if state is None or not state.formulas:
        return tag("p.hr-dim.hr-pad", texts("formula_live.none"))
    names = ("formula", "state", "version", "assets", "results", "changed", "newest")
    first = tag("tr", *(tag("th", texts(f"formula_live.{name}")) for name in names))
    rows = [_row(texts, each) for each in state.formulas]
    return tag("table.hr-table", tag("thead", first), tag("tbody", rows))


def _row(texts: Texts, each: FormulaHealth) -> Markup:
    wrong = None
    if each.error_code:
        wrong = tag(
            ".hr-what-now", tag("code", each.error_code), f" {each.error}. {each.error_remedy}"
        )
    newest = moment(each.last_us) if each.last_us else "–"
    lacking = f" (−{each.missing})" if each.missing else ""
    return tag(
        "tr",
        tag("td", tag("code", each.key), wrong),
        tag(
            "td",
            pill("error", texts("formula_live.stopped"))
            if wrong is not None
            else texts(f"formula_live.{each.state}"),
        ),
        tag("td.hr-num", str(each.version)),
        tag("td.hr-num", f"{each.assets}{lacking}"),
        tag("td.hr-num", f"{each.results:,}"),
        tag("td.hr-num", f"{each.changed:,}"),
        tag("td.hr-num.hr-nowrap", newest),
        data_formula=each.key,
    )
