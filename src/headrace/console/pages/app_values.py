"""The value ledger and the work requests of apps: what was gained, and what people make of proposals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, cast
from urllib.parse import quote

from nicegui import ui

from headrace.console.app_orders import seen as seen_orders
from headrace.console.app_records import KeptRecord, Kind, Verdict
from headrace.console.app_views import charts
from headrace.console.pages.app_orders import ask_order, draw_orders, is_sent
from headrace.console.pages.app_parts import add_script, make_chart
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
from headrace.console.schema_form import shown
from headrace.console.scope import may_see
from headrace.console.value_sums import ValueSum, by_month, money_text, sums
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.spans import moment
from headrace.model.errors import HeadraceError
from headrace.model.operations_request import OperationsRequest

ROWS_SHOWN: Final = 200
ORDERS: Final = "orders"
_STATES: Final = {"proposed": "warn", "accepted": "good", "rejected": "idle"}
_PRIORITIES: Final = {"high": "bad", "medium": "warn", "low": "idle"}


async def seen_records(
    visit: Visit, kind: Kind, *, app: str = "", state: str = ""
) -> list[KeptRecord]:
    """The records whose asset the actor may see, newest first."""
    found = await visit.services.sources.records.find(kind, app=app, state=state)
    seen: dict[str, bool] = {}
    for one in found:
        if one.asset not in seen:
            seen[one.asset] = may_see(visit.actor, one.asset)
    return [one for one in found if seen[one.asset]]


def parts_nav(visit: Visit, on: str) -> Markup:
    """Links between the pages of apps."""
    parts = [("apps", "/apps"), ("values", "/apps/values"), ("work", "/apps/work-requests")]
    if visit.opens("/catalog", "read"):
        parts.append(("catalog", "/catalog"))
    links = [
        tag("a", visit.texts(f"apps.nav_{name}"), href=href, cls="on" if name == on else "")
        for name, href in parts
    ]
    return tag("nav.hr-seg.hr-parts", links)


async def show_values(visit: Visit) -> None:
    """The page of the value ledger."""
    texts = visit.texts
    add_script()
    with frame(visit, texts("values.title"), nav="apps", help_text=texts("values.help")):
        with ui.element("div").classes("hr-bar"):
            html(parts_nav(visit, "values")).classes("hr-grow")
            link = tag(
                "a.hr-btn",
                icon("download", 16),
                "CSV",
                href="/api/v1/app-records/values?format=csv",
            )
            html(link)
        draw_values(visit, count_max=ROWS_SHOWN, is_whole=True)


def draw_values(
    visit: Visit,
    *,
    app_id: str = "",
    assets: set[str] | None = None,
    count_max: int,
    is_whole: bool = False,
) -> None:
    """Sums and newest entries, here, kept up to date.

    Args:
        assets: only theirs; None: of all that the actor sees. is_whole: with sums by asset and by app.
    """

    async def ask() -> list[KeptRecord]:
        found = await seen_records(visit, "value", app=app_id)
        return [one for one in found if assets is None or one.asset in assets]

    def draw(found: list[KeptRecord]) -> None:
        _values(visit, found, count_max, is_whole)

    with ui.element("div").props("data-values"):
        Refreshed(visit, ask, draw).begin_soon()


def _values(visit: Visit, found: Sequence[KeptRecord], count_max: int, is_whole: bool) -> None:
    texts = visit.texts
    if not found:
        empty_state("ledger", texts("values.empty"), texts("values.empty_what"))
        return
    months = by_month(found, visit.site.time_zone)
    total = sums(found, lambda one: "")[0]
    facts = (
        ("values.money", money_text(total.money) or "–"),
        ("values.hours", f"{total.hours:,.1f} h"),
        ("values.entries", str(total.entries)),
    )
    cards = [
        tag(".hr-card.hr-fact", tag("label", texts(key)), tag("b", value)) for key, value in facts
    ]
    html(join(cards)).classes("hr-values-facts")
    _month_chart(months, texts("values.hours"))
    if is_whole:
        title_of = visit.site.title_of
        with ui.element("div").classes("hr-values-sums"):
            for key, name in (
                ("values.by_asset", lambda one: title_of(one.asset, texts.language)),
                ("values.by_app", lambda one: one.app),
            ):
                _sums_table(
                    visit, texts(key), sums(found, cast("Callable[[KeptRecord], str]", name))
                )
    card = html(_entries(visit, found[:count_max])).classes("hr-card")
    card.style("overflow-x:auto")


def _month_chart(months: list[ValueSum], hours: str) -> None:
    currencies = sorted({currency for month in months for currency in month.money})
    rows = [(m.name, m.hours) for m in months]
    title = hours
    if currencies:
        title = currencies[0]
        rows = [(m.name, m.money.get(title, 0.0)) for m in months]
    make_chart(charts.months(rows, title, title), "small")


def _sums_table(visit: Visit, title: str, found: list[ValueSum]) -> None:
    rows = [
        tag("tr", tag("td", one.name), tag("td.num", f"{one.hours:,.1f} h"),
            tag("td.num", money_text(one.money) or "–"))
        for one in found
    ]  # fmt: skip
    with ui.element("section").classes("hr-card"):
        html(title, tag_name="h2").classes("hr-widget-title")
        html(tag("table.hr-table", tag("tbody", rows)))


def _entries(visit: Visit, found: Sequence[KeptRecord]) -> Markup:
    texts = visit.texts
    names = ("when", "asset", "kind", "hours", "money", "baseline", "evidence")
    head = tag("tr", [tag("th", texts(f"values.{name}")) for name in names])
    rows = [
        tag(
            "tr",
            tag("td.hr-nowrap.hr-num.hr-dim", moment(one.at_us)),
            tag("td", asset_link(visit, one.asset), tag("span.hr-sub", f"{one.app} {one.version}")),
            tag("td", one.text("kind").replace("_", " ")),
            tag("td.num", f"{one.number('hours'):,.1f}"),
            tag("td.num", money_text({one.text("currency"): one.number("money")})),
            tag("td", one.text("baseline") or "–"),
            tag("td", evidence(visit, one)),
        )
        for one in found
    ]
    return tag("table.hr-table", tag("thead", head), tag("tbody", rows))


def asset_link(visit: Visit, path: str) -> Markup:
    """An asset by its title."""
    title = visit.site.title_of(path, visit.texts.language)
    return tag("a", title, href=f"/equipment/{quote(path)}", title=path)


def evidence(visit: Visit, one: KeptRecord) -> Markup:
    """What shows it: a link to the trend of that time, and all that the app wrote down."""
    given = one.body.get("evidence")
    facts = given if isinstance(given, dict) else {}
    rows = [
        tag("tr", tag("td", str(key)[:80]), tag("td", shown(value)))
        for key, value in list(facts.items())[:40]
    ]
    unit = visit.site.unit(one.asset)
    link = None
    if unit is not None:
        ids = ",".join(str(view.tag_id) for view in unit.tags[:4])
        at_ms = one.at_us // 1_000
        href = f"/trend?tags={ids}&start={at_ms - 14_400_000}&end={at_ms + 3_600_000}"
        link = tag("a", visit.texts("values.trend"), href=href)
    table = tag("table.hr-table", tag("tbody", rows)) if rows else None
    more = None
    if rows:
        about = f"{visit.texts('values.evidence')} · {len(rows)}"
        more = tag("details.hr-evidence", tag("summary", about), table)
    return tag("div.hr-row", link, more)


async def show_work(visit: Visit) -> None:
    """The page of work requests."""
    texts = visit.texts
    with frame(visit, texts("work.title"), nav="apps", help_text=texts("work.help")):
        with ui.element("div").classes("hr-bar"):
            html(parts_nav(visit, "work"))
            names = ("proposed", "accepted", "rejected", ORDERS)
            choices = {name: texts(f"work.{name}") for name in names}
            state = ui.toggle(choices, value="proposed").classes("hr-grow")
            state.props("unelevated dense no-caps padding='4px 12px' toggle-color=primary")
            if visit.may("operate"):
                button(texts("orders.new"), lambda: ask_order(visit, page.part.refresh), small=True)
        page = _Work(visit, lambda: str(state.value))
        state.on_value_change(page.part.refresh)
        await page.part.begin()


def draw_work(visit: Visit, *, app_id: str, assets: set[str] | None, count_max: int) -> None:
    """What an app proposes and nobody has decided, here, kept up to date.

    Args:
        assets: only theirs; None: of all that the actor sees.
    """
    _Work(visit, lambda: "proposed", app_id, assets, count_max).part.begin_soon()


class _Seen(NamedTuple):
    state: str
    records: list[KeptRecord]
    sent: list[OperationsRequest]


class _Work:
    def __init__(
        self,
        visit: Visit,
        state: Callable[[], str],
        app_id: str = "",
        assets: set[str] | None = None,
        count_max: int = ROWS_SHOWN,
    ) -> None:
        self._visit = visit
        self._state = state
        self._app_id, self._assets, self._count_max = app_id, assets, count_max
        self._sent: list[OperationsRequest] = []
        self.part = Refreshed(visit, self._ask_all, self._draw_all)

    async def _ask_all(self) -> _Seen:
        state, visit = self._state(), self._visit
        sent = [] if state == "proposed" else await seen_orders(visit.services, visit.actor)
        if state == ORDERS:
            return _Seen(state, [], sent)
        every = await seen_records(visit, "work_request", app=self._app_id, state=state)
        found = [one for one in every if self._assets is None or one.asset in self._assets]
        return _Seen(state, found, sent)

    def _draw_all(self, seen: _Seen) -> None:
        texts = self._visit.texts
        self._sent = seen.sent
        if seen.state == ORDERS:
            draw_orders(self._visit, seen.sent)
        elif not seen.records:
            empty_state("wrench", texts("work.empty"), texts("work.empty_what"))
        else:
            with ui.element("div").classes("hr-card"):
                for one in seen.records[: self._count_max]:
                    self._draw(one)

    def _draw(self, one: KeptRecord) -> None:
        texts, visit = self._visit.texts, self._visit
        row = ui.element("div").classes("hr-row hr-wrap hr-pad hr-work")
        row.props(f'data-work="{one.text("title")[:60].replace(chr(34), "")}"')
        with row:
            about = f"{one.app} {one.version} · {moment(one.at_us)} UTC"
            lines = [
                tag("b", one.text("title")),
                tag("div", one.text("reason")),
                tag("span.hr-sub", asset_link(visit, one.asset), " · ", about),
            ]
            if one.decided_by:
                said = texts(
                    f"work.by_{one.state}", name=one.decided_by, time=moment(one.decided_us)
                )
                lines.append(tag("span.hr-sub", f"{said} {one.reason}".strip()))
            html(tag("div", lines)).classes("hr-grow").style("min-width:15em")
            priority = one.text("priority") or "medium"
            key = priority if priority in _PRIORITIES else "medium"
            html(pill(_PRIORITIES[key], texts(f"alarm.priority_{key}")))
            html(evidence(visit, one))
            if one.state == "proposed" and visit.may("operate"):
                button(
                    texts("work.accept"), lambda: self._ask(one, "accepted"), "primary", small=True
                )
                button(texts("work.reject"), lambda: self._ask(one, "rejected"), small=True)
            if one.state == "accepted" and visit.may("operate") and not is_sent(one, self._sent):
                button(
                    texts("work.order"),
                    lambda: ask_order(visit, self.part.refresh, one),
                    small=True,
                )

    def _ask(self, one: KeptRecord, verdict: Verdict) -> None:
        """A dialog for the reason, which a rejection needs."""
        texts = self._visit.texts
        with ui.dialog() as dialog, ui.card().classes("hr-dialog"):
            html(texts(f"work.{'accept' if verdict == 'accepted' else 'reject'}"), tag_name="h2")
            html(tag("b", one.text("title")))
            reason = ui.input(texts("work.reason")).props("outlined dense autofocus maxlength=500")
            reason.classes("full-width")

            async def decide() -> None:
                try:
                    await decide_work(self._visit, one, verdict, str(reason.value or ""))
                except HeadraceError as error:
                    show_error(self._visit, error)
                    return
                dialog.close()
                show_done(texts(f"work.{verdict}"))
                await self.part.refresh()

            with ui.element("div").classes("hr-row").style("justify-content:flex-end"):
                button(texts("shell.cancel"), dialog.close)
                button(texts("work.do"), decide, "primary")
        dialog.open()


async def decide_work(visit: Visit, one: KeptRecord, verdict: Verdict, reason: str) -> KeptRecord:
    """Decide, when the policy says yes; it stands in the audit chain.

    Raises:
        HeadraceError: what the policy and the store refuse.
    """
    facts = {"equipment": one.asset, "verdict": verdict}
    actor = visit.require("operate", f"app/{one.app}", facts)
    decided = await visit.services.sources.records.decide(one.id, verdict, actor.name, reason)
    visit.services.identity.audit.record(
        actor.name, f"work_request.{verdict}", f"app/{one.app}", "done",
        record=one.id, asset=one.asset, reason=reason.strip()[:200],
    )  # fmt: skip
    return decided
