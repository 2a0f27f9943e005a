"""The alarm list as markup: views with counts, filters, rows, the bar of what is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

from nicegui import ui

from headrace.console.alarm_lines import VIEWS, WORST_FIRST, counts, waits
from headrace.console.pages.shell import Visit
from headrace.console.site_view import readable
from headrace.console.texts import Texts
from headrace.console.widgets.alarm_marks import priority_mark, state_mark
from headrace.console.widgets.icons import icon
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.spans import moment, span
from headrace.console.widgets.units import shown_unit
from headrace.model.alarm import AlarmState
from headrace.model.time import US_PER_MS

SHOWN_MAX: Final = 200
_NEXT: Final = {
    "UNACK": "acknowledge",
    "RTNUN": "acknowledge",
    "LATUN": "acknowledge",
    "LATCH": "reset",
    "SHLVD": "unshelve",
}
_PARTS: Final = (
    ("list", "/alarms", "list"),
    ("journal", "/alarms/journal", "book"),
    ("metrics", "/alarms/metrics", "chart"),
    ("notifications", "/alarms/notifications", "bell"),
)


def parts_nav(texts: Texts, here: str) -> Markup:
    """Links between list, journal, metrics and notifications."""
    links = [
        tag(
            "a", icon(picture, 16), texts(f"alarm.{name}"), href=href,
            cls="on" if name == here else "", aria_current="page" if name == here else None,
        )
        for name, href, picture in _PARTS
    ]  # fmt: skip
    return tag("nav.hr-seg.hr-parts", links, aria_label=texts("alarm.sections"))


def views_bar(texts: Texts, lines: Sequence[AlarmState], view: str) -> Markup:
    """One button for each view, with how many alarms it has."""
    numbers = counts(lines)
    buttons = [
        tag(
            "button", texts(f"alarm.view_{name}"), tag("b", numbers[name]), type="button",
            data_view=name, cls="on" if name == view else "",
            aria_pressed="true" if name == view else "false",
        )
        for name in VIEWS
    ]  # fmt: skip
    return tag(".hr-seg.hr-views", buttons, role="group", aria_label=texts("alarm.views"))


def priorities_bar(texts: Texts, on: frozenset[str]) -> Markup:
    """One button for each priority; none pressed shows all."""
    buttons = [
        tag(
            "button.hr-priobtn", priority_mark(name, texts(f"alarm.priority_{name}")), type="button",
            data_priority=name, cls="on" if name in on else "",
            aria_pressed="true" if name in on else "false",
            aria_label=texts(f"alarm.priority_{name}"),
        )
        for name in WORST_FIRST
    ]  # fmt: skip
    return tag(".hr-row", buttons, role="group", aria_label=texts("alarm.priority"))


def table(visit: Visit, lines: Sequence[AlarmState], picked: set[str], now_us: int) -> Markup:
    """The rows, at most ``SHOWN_MAX`` of them."""
    texts = visit.texts
    shown = lines[:SHOWN_MAX]
    every = bool(shown) and all(line.alarm in picked for line in shown)
    head = tag(
        "tr",
        tag("th.pick", _box("all", texts("alarm.choose_all"), every)),
        tag("th.prio", ""),
        tag("th", texts("alarm.state")),
        tag("th", texts("alarm.alarm")),
        tag("th", texts("alarm.value")),
        tag("th.num", texts("alarm.since")),
        tag("th.who", texts("alarm.assigned")),
        tag("th.act", ""),
    )
    body = [_row(visit, line, line.alarm in picked, now_us) for line in shown]
    rest = len(lines) - len(shown)
    more = tag("p.hr-dim.hr-pad", texts("alarm.more", n=rest)) if rest else None
    return join(tag("table.hr-table.hr-alarms", tag("thead", head), tag("tbody", body)), more)


def _box(name: str, title: str, checked: bool) -> Markup:
    return tag("input", type="checkbox", data_choose=name, checked=checked, aria_label=title)


def _row(visit: Visit, line: AlarmState, picked: bool, now_us: int) -> Markup:
    texts = visit.texts
    title = f"{asset_title(visit, line.asset)} · {message(texts, line)}"
    act = None
    if visit.may("operate"):
        act = _row_button(texts, line)
    classes = [line.priority, "waits" if waits(line) else "", "picked" if picked else ""]
    return tag(
        "tr",
        tag("td.pick", _box(line.alarm, texts("alarm.choose", name=title), picked)),
        tag("td.prio", priority_mark(line.priority, texts(f"alarm.priority_{line.priority}"))),
        tag("td.state", state_cell(texts, line)),
        tag("td.what", _what(visit, line)),
        tag("td.val", value_cell(visit, line)),
        tag("td.num.since", since(texts, line.since_us, now_us)),
        tag("td.who", line.assignee or tag("span.hr-dim", "–")),
        tag("td.act", act),
        cls=" ".join(filter(None, classes)),
        data_alarm=line.alarm,
        data_state=line.state,
        tabindex="0",
        aria_label=texts("alarm.open", name=title),
    )


def _row_button(texts: Texts, line: AlarmState) -> Markup | None:
    """The one thing that is most often done next."""
    name = _NEXT.get(line.state)
    if name is None:
        return None
    text = texts(f"alarm_do.{name}")
    picture = {"acknowledge": "check", "reset": "undo", "unshelve": "undo"}[name]
    return tag(
        "button.hr-btn.small", icon(picture, 15), tag("span", text), type="button", data_act=name,
        title=text,
    )  # fmt: skip


def state_cell(texts: Texts, line: AlarmState) -> Markup:
    """The state, with the end of shelving and the reason below it."""
    below = None
    if line.state == "SHLVD" and line.shelved_until_us:
        until = texts("alarm.until", time=moment(line.shelved_until_us)[5:16] + " UTC")
        below = tag("span.hr-sub", until, title=line.reason)
    elif line.state == "OOSRV" and line.reason:
        below = tag("span.hr-sub", line.reason)
    elif line.acknowledged_by and not waits(line):
        below = tag("span.hr-sub", line.acknowledged_by)
    return join(state_mark(line.state, texts(f"alarm.state_{line.state}")), below)


def _what(visit: Visit, line: AlarmState) -> Markup:
    texts = visit.texts
    marks = [
        tag("span.hr-almark", icon(picture, 14), title=texts(f"alarm.{key}"), role="img",
            aria_label=texts(f"alarm.{key}"))
        for key, picture, on in (
            ("first_out", "first", line.first_out),
            ("uncertain", "help", line.uncertain),
            ("shadow", "moon", line.shadow),
        )
        if on
    ]  # fmt: skip
    place = tag("b", asset_title(visit, line.asset), title=line.asset)
    return join(
        tag("span.hr-alwhere", place, tag("span.hr-dim", line.name.replace("_", " ")), marks),
        tag("span.hr-almsg", message(texts, line)),
    )


def message(texts: Texts, line: AlarmState) -> str:
    """What the alarm tells; its name where nobody wrote it."""
    return line.message.say(texts.language) or readable(line.name)


def deep_link(alarm: str) -> str:
    """The list with one alarm open, whatever its state."""
    return f"/alarms?{urlencode({'view': 'all', 'alarm': alarm})}"


def area_names(visit: Visit) -> dict[str, str]:
    """Areas and equipment that have alarms, by path, for a choice."""
    site, language = visit.site, visit.texts.language
    assets = sorted({line.asset for line in visit.alarms.states})
    areas = dict.fromkeys(asset.partition("/")[0] for asset in assets)
    names = {path: site.title_of(path, language) for path in areas}
    return names | {path: f"\u2003{site.title_of(path, language)}" for path in assets}


def pick_one(options: dict[str, str], value: str) -> ui.select:
    """A choice in the bar; what is not among the options gives the first."""
    chosen = value if value in options else next(iter(options))
    return ui.select(options, value=chosen).props("outlined dense options-dense")


def asset_title(visit: Visit, path: str) -> str:
    """An asset's title in the user's language; its path where it has none."""
    return visit.site.title_of(path, visit.texts.language) or path


def value_cell(visit: Visit, line: AlarmState) -> Markup:
    """The newest value of the first quantity it reads, live, and what it is compared with."""
    about = visit.services.sources.alarms.about(line)
    view = visit.site.by_id.get(about.tag_ids[0]) if about.tag_ids else None
    limit = tag("span.hr-sub", shown_limit(about.limit)) if about.limit else None
    if view is None:
        return join(limit)
    value = tag(
        "span.hr-nowrap", tag("b.hr-num", "–", data_f="value"),
        tag("span.hr-unit", shown_unit(view.unit)), data_tag=view.tag_id,
    )  # fmt: skip
    return join(value, limit)


def shown_limit(limit: str) -> str:
    """A limit with its unit as people write it.

    Example:
        >>> shown_limit("< 20 m3/h")
        '< 20 m³/h'
    """
    sign, number, unit = (*limit.split(" ", 2), "", "")[:3]
    return f"{sign} {number} {shown_unit(unit)}".strip()


def since(texts: Texts, at_us: int, now_us: int) -> Markup:
    """An age that goes on in the browser; the time itself as its title."""
    if not at_us:
        return tag("span.hr-dim", "–")
    title = f"{moment(at_us)} UTC"
    return tag("span", span(texts, now_us - at_us), data_since=at_us // US_PER_MS, title=title)


def bulk_bar(visit: Visit, picked: int, verbs: Sequence[str]) -> Markup:
    """What can be done with all that is chosen."""
    texts = visit.texts
    pictures = {
        "acknowledge": "check", "shelve": "clock", "unshelve": "undo", "assign": "user",
        "comment": "comment", "reset": "undo", "remove_from_service": "wrench",
        "return_to_service": "undo",
    }  # fmt: skip
    buttons = [
        tag(
            "button.hr-btn.small", icon(pictures[verb], 15), tag("span", texts(f"alarm_do.{verb}")),
            type="button", data_bulk=verb, cls="primary" if verb == "acknowledge" else "",
            title=texts(f"alarm_do.{verb}"), aria_label=texts(f"alarm_do.{verb}"),
        )
        for verb in verbs
    ]  # fmt: skip
    clear = tag(
        "button.hr-iconbtn", icon("close", 16), type="button", data_bulk="clear",
        title=texts("alarm_do.clear"), aria_label=texts("alarm_do.clear"),
    )  # fmt: skip
    return join(tag("b", texts("alarm_do.chosen", n=picked)), buttons, tag("span.hr-grow"), clear)
