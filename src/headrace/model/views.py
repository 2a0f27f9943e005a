"""``views/<name>.toml`` of an app: what the console draws of it, in words alone; no code of an app runs there.

A widget names quantities, formulas, outputs and alarms as the app itself names them, never tags; where it is
drawn, the console lays them on the tags of an asset. Read by :mod:`headrace.apps.views`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from headrace.model.app_manifest import Text

Scope = Literal["asset", "fleet", "app"]
Width = Annotated[int, msgspec.Meta(ge=1, le=12)]
Height = Literal["small", "medium", "large"]
Names = Annotated[list[str], msgspec.Meta(min_length=1, max_length=8)]
SpanHours = Annotated[float, msgspec.Meta(gt=0, le=8_784)]
LimitState = Literal["good", "warn", "bad"]
Aggregate = Literal["now", "average", "minimum", "maximum", "change"]
Order = Literal["asset", "lowest", "highest"]
Shows = Literal["value", "colour", "level", "visible"]


class Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From which value on a quantity has a state; below the first limit it is good.

    Attributes:
        at: in the unit of the quantity. state: from there up to the next limit.
    """

    at: float
    state: LimitState


class Widget(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    """What all kinds have.

    Attributes:
        title: shown above it; where it is left out, that of what it shows.
        width: of twelve columns on a wide screen; on a phone each widget takes the whole width.
    """

    title: Text = {}
    width: Width = 6
    height: Height = "medium"


class Trend(Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="trend"):
    """Lines over time; in a fleet, one line an asset of the first name.

    Attributes:
        limits: drawn across, in the unit of the first name. band: two names, lower and upper, between which
            the area is filled; of an asset alone.
    """

    names: Names
    span_h: SpanHours = 8.0
    limits: list[Limit] = []
    band: Annotated[list[str], msgspec.Meta(max_length=2)] = []


class Gauge(Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="gauge"):
    """The newest value on an arc from ``minimum`` to ``maximum``."""

    name: str
    minimum: float = 0.0
    maximum: float = 100.0
    limits: list[Limit] = []
    width: Width = 3


class Kpi(Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="kpi"):
    """One number, large.

    Attributes:
        of: the newest value, or what the last ``span_h`` hours gave: ``change`` is their last value less
            their first.
    """

    name: str
    of: Aggregate = "now"
    span_h: SpanHours = 24.0
    limits: list[Limit] = []
    width: Width = 3
    height: Height = "small"


class Table(Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="table"):
    """Newest values: a row a name of an asset, or a row an asset of a fleet."""

    names: Names


class StatusGrid(Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="status_grid"):
    """A tile an asset (or, of an asset, a tile a name), coloured by limits.

    Attributes:
        order: by the newest values, or as the assets stand.
    """

    names: Names
    limits: list[Limit] = []
    order: Order = "asset"


class Bars(Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="bars"):
    """A bar for each part of a text such as ``flow -3.2 m3/h (90 %), head +0.4 m (10 %)``.

    Attributes:
        name: an output of unit ``text`` whose parts each end with their share, commas between.
    """

    name: str


class AlarmList(Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="alarm_list"):
    """Alarms of the assets that are shown, the most urgent first.

    Attributes:
        own: those of the app alone.
    """

    own: bool = True
    count_max: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


class XyPlot(Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="xy_plot"):
    """One quantity against another, as averages of equal parts of the span."""

    x: str
    y: str
    span_h: SpanHours = 24.0


class HeatMap(Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="heat_map"):
    """Averages as colours: day by hour of an asset, or asset by hour of a fleet."""

    name: str
    span_h: SpanHours = 168.0


class Binding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What moves an element of a picture.

    Attributes:
        element: its id in the SVG. show: ``value`` writes the number into a text, ``colour`` paints it by
            limits, ``level`` fills it from ``minimum`` to ``maximum``, ``visible`` shows it while the value
            is not zero.
    """

    element: str
    name: str
    show: Shows = "value"
    minimum: float = 0.0
    maximum: float = 100.0
    limits: list[Limit] = []


class Mimic(Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="mimic"):
    """A picture whose elements follow values.

    Attributes:
        file: an SVG file of the package, below ``views/``; what it may hold says
            :func:`headrace.apps.views.svg.clean_svg`.
    """

    file: str
    bindings: list[Binding] = []
    width: Width = 12
    height: Height = "large"


class Form(Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="form"):
    """The form of a service of the app; its fields come from the service's types."""

    service: str


class Markdown(Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="markdown"):
    """Words, in Markdown without HTML; see :func:`headrace.apps.views.markdown.to_html`."""

    text: Text


class WorkRequests(
    Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="work_requests"
):
    """What the app proposes and nobody has decided yet, newest first."""

    count_max: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


class ValueLedger(
    Widget, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="value_ledger"
):
    """What the app says that it gained: sums by month, and the newest entries."""

    count_max: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


AnyWidget = (
    Trend | Gauge | Kpi | Table | StatusGrid | Bars | AlarmList | XyPlot | HeatMap | Mimic | Form | Markdown
    | WorkRequests | ValueLedger
)  # fmt: skip
KINDS: dict[str, type[Widget]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        *(Trend, Gauge, Kpi, Table, StatusGrid, Bars, AlarmList, XyPlot, HeatMap),
        *(Mimic, Form, Markdown, WorkRequests, ValueLedger),
    )
}
"""Word in the file -> its struct."""


class View(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One page of an app.

    Attributes:
        name: of its file. scope: one page an asset of ``type``, one for all of them, or one of the app.
        type: needed type of the manifest; empty with the scope ``app``.

    Example:
        >>> View(name="all", title={"en": "All"}, scope="app").widgets
        ()
    """

    name: str = ""
    title: Text
    scope: Scope = "asset"
    type: str = ""
    widgets: tuple[AnyWidget, ...] = ()
