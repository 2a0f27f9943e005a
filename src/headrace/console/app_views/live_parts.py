"""Widgets that show newest values: plain markup, which ``headrace.js`` and ``views.js`` keep up to date."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from headrace.apps.views import clean_svg
from headrace.console.alarm_lines import AlarmFilter, chosen, ordered
from headrace.console.app_views.laid import Place, Shown
from headrace.console.error_words import error_markup
from headrace.console.texts import Texts
from headrace.console.widgets.alarm_marks import priority_mark, state_mark
from headrace.console.widgets.markup import Markup, join, tag
from headrace.console.widgets.spans import moment
from headrace.console.widgets.units import shown_unit
from headrace.console.widgets.why_dot import why_dot
from headrace.model.alarm import AlarmState
from headrace.model.deployment import BoundAsset
from headrace.model.errors import HeadraceError
from headrace.model.views import (
    AlarmList,
    Bars,
    Binding,
    Gauge,
    Kpi,
    Limit,
    Mimic,
    StatusGrid,
    Table,
)

_ARC: Final = "M 12 62 A 48 48 0 0 1 108 62"
_ID: Final = re.compile(
    r'(<(?:text|tspan|rect|path|g|circle|ellipse|polygon|polyline|line|use)) id="([^"]+)"'
)


def value_of(shown: Shown, texts: Texts, *, is_large: bool = False) -> Markup:
    """The newest value with its unit; a dash where the asset has none."""
    if shown.tag is None:
        return tag("span.hr-dim", "–", title=texts("app_views.lacks", name=shown.title))
    return join(
        tag("b.hr-num.hr-view-big" if is_large else "b.hr-num", "–", data_f="value"),
        tag("span.hr-unit", shown_unit(shown.tag.unit)),
        why_dot(texts, shown.tag.tag_id),
    )


def _id(shown: Shown) -> int | None:
    return shown.tag.tag_id if shown.tag is not None else None


def _limits(place: Place, shown: Shown, limits: list[Limit]) -> str | None:
    return json.dumps(place.limits(shown, limits)) if limits else None


def gauge(place: Place, widget: Gauge) -> Markup:
    """The newest value on an arc, in the colour of its limit."""
    shown = place.shown(place.asset, widget.name)
    low, high = shown.number(widget.minimum), shown.number(widget.maximum)
    limits = place.limits(shown, widget.limits)
    marks = [_mark((at - low) / (high - low), state) for at, state in limits if low < at < high]
    picture = (
        f'<svg viewBox="0 0 120 70" class="hr-gauge" aria-hidden="true"><path class="back" d="{_ARC}"/>'
        f'<path class="now" pathLength="100" d="{_ARC}"/>{"".join(marks)}</svg>'
    )
    return tag(
        ".hr-view-gauge",
        Markup(picture),
        tag("div", value_of(shown, place.texts, is_large=True)),
        tag(".hr-gauge-ends", tag("span", f"{low:g}"), tag("span", f"{high:g}")),
        data_tag=_id(shown),
        data_gauge=json.dumps([low, high]),
        data_limits=json.dumps(limits) if limits else None,
    )


def _mark(share: float, state: str) -> str:
    degrees = 180 * share
    return f'<path class="mark {state}" d="M 4 62 h 5" transform="rotate({degrees:.1f} 60 62)"/>'


def kpi(place: Place, widget: Kpi) -> Markup:
    """The newest value, large."""
    shown = place.shown(place.asset, widget.name)
    return tag(
        ".hr-view-kpi",
        value_of(shown, place.texts, is_large=True),
        data_tag=_id(shown),
        data_limits=_limits(place, shown, widget.limits),
    )


def kpi_fleet(place: Place, widget: Kpi) -> Markup:
    """The newest value of each asset."""
    return table(place, Table(names=[widget.name]))


def table(place: Place, widget: Table) -> Markup:
    """A row a name of the asset, or a row an asset of the fleet."""
    texts = place.texts
    if place.view.scope == "fleet":
        heads = [place.shown(place.assets[0], name).title for name in widget.names]
        rows = [_asset_row(place, asset, widget.names) for asset in place.assets]
        first = tag("tr", tag("th", texts("app_views.asset")), [tag("th.num", h) for h in heads])
        return tag("table.hr-table", tag("thead", first), tag("tbody", rows))
    rows = []
    for name in widget.names:
        shown = place.shown(place.asset, name)
        age = tag("td.num.hr-dim", tag("span", "–", data_f="age"))
        rows.append(
            tag("tr", tag("td", shown.title), tag("td.num", value_of(shown, texts)), age,
                data_tag=_id(shown))
        )  # fmt: skip
    return tag("table.hr-table", tag("tbody", rows))


def _asset_row(place: Place, asset: BoundAsset, names: Sequence[str]) -> Markup:
    cells = []
    for name in names:
        shown = place.shown(asset, name)
        cells.append(tag("td.num", value_of(shown, place.texts), data_tag=_id(shown)))
    return tag("tr", tag("td", _link(place, asset)), cells)


def _link(place: Place, asset: BoundAsset) -> Markup:
    """To the view of the asset, or to its page where the app has none."""
    own = next((v for v in place.app.views if v.scope == "asset" and v.type == asset.type), None)
    href = f"/equipment/{quote(asset.path)}"
    if own is not None:
        app_id = place.app.manifest.id
        href = f"/apps/{app_id}?view={quote(own.name)}&asset={quote(asset.path)}"
    return tag("a", place.title(asset), href=href, title=asset.path)


def status_grid(place: Place, widget: StatusGrid) -> Markup:
    """A tile an asset of the fleet, or a tile a name of the asset."""
    if place.view.scope == "fleet":
        pairs = [(asset, widget.names[0], _link(place, asset)) for asset in place.assets]
    else:
        names = [(name, place.shown(place.asset, name).title) for name in widget.names]
        pairs = [(place.asset, name, tag("span", title)) for name, title in names]
    tiles = []
    for asset, name, head in pairs:
        shown = place.shown(asset, name)
        tiles.append(
            tag(".hr-view-tile", head, tag("div", value_of(shown, place.texts)), data_tag=_id(shown),
                data_limits=_limits(place, shown, widget.limits) or "[]")
        )  # fmt: skip
    order = None if widget.order == "asset" else widget.order
    return tag(".hr-view-tiles", tiles, data_order=order)


def bars(place: Place, widget: Bars) -> Markup:
    """Parts of a text as bars; ``views.js`` draws them from the newest value."""
    shown = place.shown(place.asset, widget.name)
    none = tag("span.hr-dim", place.texts("app_views.no_parts"))
    return tag(
        ".hr-view-bars", none, data_tag=_id(shown), data_bars=place.texts("app_views.no_parts")
    )


def alarm_list(place: Place, widget: AlarmList, alarms: Sequence[AlarmState]) -> Markup:
    """What is active on the assets, the most urgent first."""
    texts, word = place.texts, place.app.manifest.word
    paths = {asset.path for asset in place.assets}
    found = [
        alarm
        for alarm in chosen(alarms, AlarmFilter())
        if alarm.asset in paths and (not widget.own or alarm.key.startswith(f"{word}."))
    ]
    if not found:
        return tag(".hr-pad.hr-dim", texts("app_views.no_alarms"))
    rows = [_alarm_row(place, alarm) for alarm in ordered(found, "priority")[: widget.count_max]]
    return tag("table.hr-table", tag("tbody", rows))


def _alarm_row(place: Place, alarm: AlarmState) -> Markup:
    texts = place.texts
    message = (alarm.message.zh if texts.language == "zh" else "") or alarm.message.en or alarm.name
    return tag(
        "tr",
        tag("td", priority_mark(alarm.priority, texts(f"alarm.priority_{alarm.priority}"))),
        tag("td", tag("a", message, href=f"/alarms?search={quote(alarm.alarm)}"),
            tag("span.hr-sub", place.site.title_of(alarm.asset, texts.language))),
        tag("td", state_mark(alarm.state, texts(f"alarm.state_{alarm.state}"))),
        tag("td.num.hr-dim", moment(alarm.since_us)),
    )  # fmt: skip


def mimic(place: Place, widget: Mimic, prefix: str) -> Markup:
    """The picture, made safe, with its bindings on the elements.

    Args:
        prefix: of all ids, so that two pictures of a page do not clash.
    """
    data = place.app.file(f"views/{widget.file}")
    if data is None:
        return tag(".hr-alert", place.texts("app_views.no_file", file=widget.file))
    try:
        picture = clean_svg(data, prefix)
    except HeadraceError as error:
        return error_markup(place.texts, error)
    by_element: dict[str, list[Binding]] = {}
    for binding in widget.bindings:
        by_element.setdefault(f"{prefix}{binding.element}", []).append(binding)

    def bound(found: re.Match[str]) -> str:
        given = "".join(_bound(place, one) for one in by_element.get(found[2], []))
        return f'{found[1]}{given} id="{found[2]}"' if given else found[0]

    return tag(".hr-view-mimic", Markup(_ID.sub(bound, picture)))


def _bound(place: Place, binding: Binding) -> str:
    """Attributes that ``views.js`` follows."""
    shown = place.shown(place.asset, binding.name)
    if shown.tag is None:
        return ""
    given = {"data-tag": str(shown.tag.tag_id)}
    if binding.show == "value":
        given["data-f"] = "value"
        given["data-unit"] = shown_unit(shown.tag.unit)
    elif binding.show == "level":
        low, high = shown.number(binding.minimum), shown.number(binding.maximum)
        given["data-level"] = json.dumps([low, high])
    elif binding.show == "visible":
        given["data-visible"] = "1"
    if binding.limits or binding.show == "colour":
        given["data-limits"] = json.dumps(place.limits(shown, binding.limits))
    made = tag("i", **{key.replace("-", "_"): value for key, value in given.items()})
    return str(made).removeprefix("<i").removesuffix("></i>")
