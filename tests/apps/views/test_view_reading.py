"""Views of apps: what is read, and that all that is wrong is told at once with its line."""

from __future__ import annotations

import pytest

from headrace.apps.views import ViewRefused, read_view, read_views, shown_names
from headrace.model.app_manifest import AppManifest, NeededType, Output, Service
from headrace.model.views import KINDS, Kpi, Mimic, Trend

APP = AppManifest(
    id="pump-check",
    version="1.0.0",
    title={"en": "Pump check", "zh": "水泵检查"},
    types={"pump": NeededType(package="pump", quantities={"flow": "m3/h"}, optional={"head": "m"})},
    formulas={"pump": "wide = flow + 1 m3/h\nalarm low: flow < 3 m3/h, priority high\n"},
    titles={"pump": {"wide": {"en": "Wide flow"}}},
    outputs=[
        Output(type="pump", name="score", unit="%"),
        Output(type="pump", name="cause", unit="text"),
    ],
    services=[Service(name="what_if")],
    views=["pump"],
)
HEAD = 'title = { en = "Pump", zh = "水泵" }\ntype = "pump"\n'
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><text id="now">-</text></svg>'
ONE_EACH = """
[[widget]]
kind = "trend"
names = ["flow", "wide", "score"]
width = 8
[[widget]]
kind = "gauge"
name = "flow"
maximum = 80
limits = [{ at = 60, state = "warn" }, { at = 70, state = "bad" }]
[[widget]]
kind = "kpi"
name = "head"
of = "average"
[[widget]]
kind = "table"
names = ["flow", "head"]
[[widget]]
kind = "status_grid"
names = ["flow", "score"]
[[widget]]
kind = "bars"
name = "cause"
[[widget]]
kind = "alarm_list"
[[widget]]
kind = "xy_plot"
x = "flow"
y = "head"
[[widget]]
kind = "heat_map"
name = "flow"
[[widget]]
kind = "mimic"
file = "pump.svg"
[[widget.bindings]]
element = "now"
name = "flow"
[[widget]]
kind = "form"
service = "what_if"
[[widget]]
kind = "markdown"
text = { en = "Words" }
[[widget]]
kind = "work_requests"
[[widget]]
kind = "value_ledger"
"""


def files(path: str) -> bytes | None:
    return {"views/pump.svg": SVG, "views/pump.toml": (HEAD + ONE_EACH).encode()}.get(path)


def test_every_kind_is_read() -> None:
    view = read_view(HEAD + ONE_EACH, APP, name="pump", file=files)
    assert view.name == "pump" and view.scope == "asset"
    assert [type(widget) for widget in view.widgets] == list(KINDS.values())
    trend, kpi, mimic = view.widgets[0], view.widgets[2], view.widgets[9]
    assert isinstance(trend, Trend) and trend.width == 8 and trend.span_h == 8.0
    assert isinstance(kpi, Kpi) and kpi.width == 3 and kpi.of == "average"
    assert isinstance(mimic, Mimic) and mimic.bindings[0].show == "value"
    assert read_views(APP, files) == [view]


def test_names_have_kind_unit_and_title() -> None:
    names = shown_names(APP, "pump")
    assert [(one.name, one.kind, one.unit) for one in names.values()] == [
        ("flow", "quantity", "m3/h"),
        ("head", "quantity", "m"),
        ("wide", "formula", ""),
        ("low", "alarm", ""),
        ("score", "output", "%"),
        ("cause", "output", "text"),
    ]
    assert names["wide"].title == {"en": "Wide flow"}
    assert shown_names(APP, "fan") == {}


WRONG = """\
title = { en = "Pump" }
type = "pump"
colour = "red"
[[widget]]
kind = "trend"
names = ["flow",
  "speed"]
width = 13
[[widget]]
kind = "dial"
[[widget]]
kind = "gauge"
[[widget]]
kind = "mimic"
file = "pump.svg"
bindings = [
  { element = "then", name = "flow" },
  { element = "now", name = "low" },
]
[[widget]]
kind = "form"
service = "stop"
[[widget]]
names = []
"""


def test_every_problem_is_told_with_its_line_and_field() -> None:
    with pytest.raises(ViewRefused) as caught:
        read_view(WRONG, APP, name="pump", file=files)
    told = {(p.line, p.field, p.code) for p in caught.value.problems}
    assert told == {
        (3, "colour", "APPS-2312"),
        (8, "widget.1.width", "APPS-2312"),
        (10, "widget.2.kind", "APPS-2314"),
        (11, "widget.3.name", "APPS-2312"),
        (17, "widget.4.bindings.1.element", "APPS-2316"),
        (18, "widget.4.bindings.2.name", "APPS-2315"),
        (22, "widget.5.service", "APPS-2315"),
        (23, "widget.6.kind", "APPS-2314"),
    }
    assert all(problem.remedy and problem.what for problem in caught.value.problems)
    assert "and 7 more" in str(caught.value)
    repaired = WRONG.replace("width = 13", "")
    with pytest.raises(ViewRefused) as again:  # names are looked at once the widget can be read
        read_view(repaired, APP, file=files)
    assert (7, "widget.1.names.2", "APPS-2315") in {
        (p.line, p.field, p.code) for p in again.value.problems
    }


@pytest.mark.parametrize(
    ("text", "line", "field", "code"),
    [
        ("title = ", 1, "file", "APPS-2311"),
        ('type = "pump"', 1, "title", "APPS-2312"),
        ('title = { en = "A" }\n', 1, "type", "APPS-2313"),
        ('title = { en = "A" }\ntype = "fan"', 2, "type", "APPS-2313"),
        ('title = { en = "A" }\nscope = "app"\ntype = "pump"', 3, "type", "APPS-2313"),
        (HEAD + "widget = 3", 3, "widget", "APPS-2312"),
        (
            'title = { en = "A" }\nscope = "app"\n[[widget]]\nkind = "trend"\nnames = ["flow"]',
            4, "widget.1.kind", "APPS-2314",
        ),
        (
            HEAD + 'scope = "fleet"\n[[widget]]\nkind = "gauge"\nname = "flow"',
            5, "widget.1.kind", "APPS-2314",
        ),
        (HEAD + '[[widget]]\nkind = "mimic"\nfile = "../app.toml"', 5, "widget.1.file", "APPS-2316"),
        (HEAD + '[[widget]]\nkind = "markdown"\n' * 61, 3, "widget", "APPS-2312"),
    ],
)  # fmt: skip
def test_a_view_that_cannot_be(text: str, line: int, field: str, code: str) -> None:
    with pytest.raises(ViewRefused) as caught:
        read_view(text, APP, file=files)
    first = caught.value.problems[0]
    assert (first.line, first.field, first.code) == (line, field, code)


def test_a_view_that_the_package_does_not_have() -> None:
    with pytest.raises(ViewRefused) as caught:
        read_views(APP, lambda path: None)
    assert caught.value.code == "APPS-2310"


@pytest.mark.parametrize(
    ("widget", "field"),
    [
        ('kind = "bars"\nname = "score"\n', "widget.1.name"),
        ('kind = "trend"\nnames = ["flow"]\nband = ["flow"]\n', "widget.1.band"),
        ('kind = "trend"\nnames = ["flow"]\nband = ["flow", "nothing"]\n', "widget.1.band.2"),
        ('kind = "status_grid"\nnames = ["flow"]\norder = "best"\n', "widget.1.order"),
    ],
)
def test_bars_bands_and_orders_that_cannot_be_drawn_are_told(widget: str, field: str) -> None:
    with pytest.raises(ViewRefused) as refused:
        read_view(f"{HEAD}[[widget]]\n{widget}", APP)
    assert [problem.field for problem in refused.value.problems] == [field]
