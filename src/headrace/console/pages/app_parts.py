"""Small parts of the pages of apps: charts, words for permissions and states."""

from __future__ import annotations

import json
from typing import Any, Final

from nicegui import ui

from headrace.console.texts import Texts
from headrace.console.widgets.markup import Markup, join, tag


def add_script() -> None:
    """What keeps gauges and charts; once a page."""
    ui.add_body_html('<script src="/static/views.js" defer></script>')


_BARE: Final = ("type", "xAxisIndex", "yAxisIndex")


def make_chart(options: dict[str, Any], cls: str = "") -> ui.echart:
    """A chart of these options, here: what the component itself sets at any time has the kinds of axes and
    series alone, so that it merges with what was drawn and takes nothing away."""

    def bare(part: Any) -> Any:
        if isinstance(part, list):
            return [bare(each) for each in part]
        return {name: part[name] for name in _BARE if name in part}

    kinds = {name: bare(options[name]) for name in ("xAxis", "yAxis", "series")}
    chart = ui.echart(kinds).classes(f"full-width hr-view-chart {cls}")
    ui.timer(0.05, lambda: put_chart(chart, options), once=True)
    return chart


def put_chart(chart: ui.echart, options: dict[str, Any]) -> None:
    """Fill a chart; its script may come after the first message of the page."""
    wait = "while (!(window.hr && hr.views)) await new Promise((done) => setTimeout(done, 20));"
    call = f"(async () => {{ {wait} hr.views.chart({chart.id}, {json.dumps(options)}); }})()"
    ui.run_javascript(call)


def permission_words(texts: Texts, permissions: tuple[str, ...], *, has_python: bool) -> list[str]:
    """What an app may, in plain words.

    Args:
        permissions: as :class:`headrace.apps.catalog.CatalogEntry` has them: ``writes pump.flow``.

    Example:
        >>> permission_words(Texts("en"), ("network mail.example:25",), has_python=False)
        ['Connects to mail.example:25']
    """
    found = [texts("app_may.python")] if has_python else []
    for each in permissions:
        word, _, what = each.partition(" ")
        found.append(texts(f"app_may.{word}", what=what))
    return found or [texts("app_may.nothing")]


def permissions_list(texts: Texts, permissions: tuple[str, ...], *, has_python: bool) -> Markup:
    """The same as a list."""
    words = permission_words(texts, permissions, has_python=has_python)
    return tag("ul.hr-may", [tag("li", word) for word in words])


def rating_mark(texts: Texts, scenarios: int, rating: float) -> Markup:
    """What the bench says."""
    if not scenarios:
        return tag("span.hr-pill.idle", texts("apps.not_benched"))
    state = "good" if rating >= 1.0 else "bad"
    text = texts("apps.benched", n=round(scenarios * rating), of=scenarios)
    return tag("span.hr-pill", text, cls=state)


def signature_mark(texts: Texts, publisher: str, *, is_signed: bool) -> Markup:
    """Whose it is."""
    if not is_signed:
        return tag("span.hr-pill.warn", texts("apps.unsigned"))
    return join(tag("span.hr-pill.good", texts("apps.signed_by", publisher=publisher)))
