"""Reads ``views/<name>.toml``: every problem at once, each with line, field and remedy."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from typing import Any, Final, get_type_hints

import msgspec

from headrace.apps.views.names import ShownName, shown_names
from headrace.apps.views.svg import svg_ids
from headrace.model.app_manifest import AppManifest
from headrace.model.errors import Misconfigured
from headrace.model.views import (
    KINDS,
    AnyWidget,
    Bars,
    Form,
    Markdown,
    Mimic,
    StatusGrid,
    Trend,
    ValueLedger,
    View,
    Widget,
    WorkRequests,
)
from headrace.site.toml_lines import Key, key_lines

WIDGETS_MAX: Final = 60
BYTES_MAX: Final = 256 * 1024
_WITHOUT_TYPE: Final = frozenset(
    {"form", "markdown", "value_ledger", "alarm_list", "work_requests"}
)
_FLEET_NEEDS_ONE: Final = frozenset({"gauge", "mimic", "xy_plot", "bars"})
_PLACE: Final = re.compile(r"\(at line (\d+)")


class ViewProblem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong in a view.

    Attributes:
        line: from 1. field: such as ``widget.2.names``.
    """

    file: str
    line: int
    field: str
    code: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: {self.what}. {self.remedy} [{self.code}]"


class ViewRefused(Misconfigured):
    """A view with problems; ``problems`` has all of them, in the order of lines."""

    def __init__(self, problems: list[ViewProblem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        first = self.problems[0]
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        what = f"{first.file} line {first.line}: {first.field}: {first.what}{more}"
        super().__init__(first.code, what, first.remedy)


def read_view(
    text: str,
    manifest: AppManifest,
    *,
    name: str = "view",
    file: Callable[[str], bytes | None] | None = None,
) -> View:
    """A view of an app.

    Args:
        text: of ``views/<name>.toml``. manifest: of the app, whose names it may show.
        file: gives a file of the package by its path, None when there is none; without it pictures are not
            looked at.

    Raises:
        ViewRefused: APPS-2310 to APPS-2316, with every problem.

    Example:
        >>> from headrace.model.app_manifest import NeededType
        >>> needed = {"pump": NeededType(package="pump", quantities={"flow": "m3/h"})}
        >>> app = AppManifest(id="a", version="1.0.0", title={"en": "A"}, types=needed)
        >>> view = read_view('title = {en = "Pump"}\\ntype = "pump"\\n[[widget]]\\nkind = "trend"\\n'
        ...                  'names = ["flow"]\\n', app)
        >>> view.widgets[0].names
        ['flow']
        >>> read_view('title = {en = "Pump"}\\ntype = "fan"', app)
        Traceback (most recent call last):
        headrace.apps.views.reading.ViewRefused: APPS-2313 view.toml line 2: type: ...
    """
    return _Reading(text, manifest, name, file).view()


def read_views(manifest: AppManifest, file: Callable[[str], bytes | None]) -> list[View]:
    """All views that a manifest names, in its order.

    Raises:
        ViewRefused: with every problem of all of them; APPS-2310 for a file that is not there.
    """
    views, problems = [], []
    for entry in manifest.views:
        name = entry.removeprefix("views/").removesuffix(".toml")
        data = file(f"views/{name}.toml")
        if data is None or len(data) > BYTES_MAX:
            what = "the package has no such file" if data is None else f"it has {len(data):,} bytes"
            remedy = f"Add views/{name}.toml, at most {BYTES_MAX:,} bytes, or take it out of views."
            problems.append(_problem(name, 1, "views", "APPS-2310", what, remedy))
            continue
        try:
            text = data.decode("utf-8", errors="replace")
            views.append(read_view(text, manifest, name=name, file=file))
        except ViewRefused as refused:
            problems += refused.problems
    if problems:
        raise ViewRefused(problems)
    return views


def _problem(name: str, line: int, field: str, code: str, what: str, remedy: str) -> ViewProblem:
    return ViewProblem(
        file=f"{name}.toml", line=line, field=field, code=code, what=what, remedy=remedy
    )


class _Reading:
    def __init__(
        self,
        text: str,
        manifest: AppManifest,
        name: str,
        file: Callable[[str], bytes | None] | None,
    ) -> None:
        self._text = text
        self._manifest = manifest
        self._name = name
        self._file = file
        self._problems: list[ViewProblem] = []
        self._lines: dict[Key, int] = {}
        self._names: dict[str, ShownName] = {}
        self._scope = "asset"

    def view(self) -> View:
        table = self._parsed()
        self._lines = key_lines(self._text)
        widgets = table.pop("widget", [])
        view: View | None = self._struct(View, table, (), leave=("widgets", "name"))
        self._scope = str(table.get("scope", "asset"))
        self._check_type(str(table.get("type", "")))
        found = [self._widget(one, ("widget", i)) for i, one in enumerate(self._list(widgets))]
        if self._problems:
            raise ViewRefused(self._problems)
        assert view is not None, "without a problem there is a view"
        kept = tuple(widget for widget in found if widget is not None)
        return msgspec.structs.replace(view, name=self._name, widgets=kept)

    def _parsed(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            place = _PLACE.search(str(error))
            line = int(place[1]) if place else self._text.count("\n") + 1
            what = f"the file is no TOML: {error}"
            problem = _problem(self._name, line, "file", "APPS-2311", what, "Mend the line.")
            raise ViewRefused([problem]) from error

    def _list(self, widgets: object) -> list[dict[str, Any]]:
        if isinstance(widgets, list) and all(isinstance(one, dict) for one in widgets):
            if len(widgets) <= WIDGETS_MAX:
                return widgets
            what = f"it has {len(widgets)} widgets"
            self._wrong(
                ("widget",), "APPS-2312", what, f"At most {WIDGETS_MAX}; make another view."
            )
            return []
        self._wrong(("widget",), "APPS-2312", "it is no list of tables", "Write [[widget]].")
        return []

    def _wrong(self, key: Key, code: str, what: str, remedy: str) -> None:
        line = next(
            (self._lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in self._lines), 1
        )
        shown = ".".join(str(part + 1) if isinstance(part, int) else part for part in key)
        self._problems.append(_problem(self._name, line, shown, code, what, remedy))

    def _struct(
        self, kind: Any, table: dict[str, Any], key: Key, leave: tuple[str, ...] = ()
    ) -> Any:
        """A struct, each field on its own, so that all that is wrong is found; None with a problem."""
        hints = get_type_hints(kind, include_extras=True)
        fields = {
            each.name: each for each in msgspec.structs.fields(kind) if each.name not in leave
        }
        before, given = len(self._problems), {}
        for name in table.keys() - fields.keys():
            remedy = f"Known are {', '.join(fields)}."
            self._wrong((*key, name), "APPS-2312", "there is no such field", remedy)
        for name, each in fields.items():
            if name not in table:
                if each.required:
                    self._wrong((*key, name), "APPS-2312", "it is missing", f"Write {name} = ....")
                continue
            try:
                given[name] = msgspec.convert(table[name], hints[name])
            except msgspec.ValidationError as error:
                self._wrong(
                    (*key, name), "APPS-2312", f"{_short(table[name])}: {error}", "Change it."
                )
        return kind(**given) if len(self._problems) == before else None

    def _check_type(self, needed: str) -> None:
        known = ", ".join(self._manifest.types) or "none"
        if self._scope == "app":
            if needed:
                remedy = 'Take the type out, or write scope = "asset" or "fleet".'
                self._wrong(("type",), "APPS-2313", "a view of the app has no type", remedy)
        elif needed not in self._manifest.types:
            what = f"the app needs no type {needed!r}" if needed else "it is missing"
            self._wrong(("type",), "APPS-2313", what, f"Needed types of the app: {known}.")
        self._names = shown_names(self._manifest, needed)

    def _widget(self, table: dict[str, Any], key: Key) -> AnyWidget | None:
        kind = KINDS.get(str(table.get("kind", "")))
        if kind is None:
            what = f"{table['kind']!r} is no kind" if "kind" in table else "it is missing"
            self._wrong((*key, "kind"), "APPS-2314", what, f"Kinds: {', '.join(KINDS)}.")
            return None
        fields = {name: value for name, value in table.items() if name != "kind"}
        widget: AnyWidget | None = self._struct(kind, fields, key)
        if widget is None:
            return None
        self._check_scope(widget, key, str(table["kind"]))
        self._check_names(widget, key)
        if isinstance(widget, Mimic):
            self._check_picture(widget, key)
        if isinstance(widget, Form):
            self._check_service(widget, key)
        shown = self._names.get(widget.name) if isinstance(widget, Bars) else None
        if shown is not None and shown.unit != "text":
            what, remedy = f"{shown.name!r} is no text", "Name an output of unit text."
            self._wrong((*key, "name"), "APPS-2314", what, remedy)
        if isinstance(widget, Trend) and widget.band:
            self._check_band(widget, key)
        if isinstance(widget, StatusGrid) and self._scope == "fleet" and len(widget.names) > 1:
            what, remedy = f"{len(widget.names)} names", "A tile an asset shows one; leave one."
            self._wrong((*key, "names"), "APPS-2314", what, remedy)
        return widget

    def _check_band(self, widget: Trend, key: Key) -> None:
        if len(widget.band) != 2 or self._scope == "fleet":
            what = f"a band of {len(widget.band)} names in a view of scope {self._scope}"
            remedy = "Name its lower and its upper end, in a view of one asset."
            self._wrong((*key, "band"), "APPS-2314", what, remedy)

    def _check_scope(self, widget: Widget, key: Key, kind: str) -> None:
        if self._scope == "app" and kind not in _WITHOUT_TYPE:
            what, remedy = f"a view of the app has no {kind}", "Show it in a view of a type."
            self._wrong((*key, "kind"), "APPS-2314", what, remedy)
        if self._scope == "fleet" and kind in _FLEET_NEEDS_ONE:
            what, remedy = f"a {kind} shows one asset", 'Show it in a view with scope = "asset".'
            self._wrong((*key, "kind"), "APPS-2314", what, remedy)

    def _check_names(self, widget: AnyWidget, key: Key) -> None:
        if self._scope == "app" or isinstance(widget, Form | Markdown | ValueLedger | WorkRequests):
            return
        if not self._names:
            return  # without a type there is nothing to choose from, which was told
        asked: list[tuple[Key, str]] = []
        for field in ("name", "x", "y"):
            if isinstance(value := getattr(widget, field, None), str):
                asked.append(((*key, field), value))
        asked += [((*key, "names", i), each) for i, each in enumerate(getattr(widget, "names", ()))]
        asked += [((*key, "band", i), each) for i, each in enumerate(getattr(widget, "band", ()))]
        for i, binding in enumerate(widget.bindings if isinstance(widget, Mimic) else ()):
            asked.append(((*key, "bindings", i, "name"), binding.name))
        choices = [name for name, one in self._names.items() if one.kind != "alarm"]
        for place, name in asked:
            if name not in choices:
                what = f"{name!r} is no quantity, formula or output"
                self._wrong(place, "APPS-2315", what, f"Names: {', '.join(choices)}.")

    def _check_picture(self, widget: Mimic, key: Key) -> None:
        if self._file is None:
            return
        data = self._file(f"views/{widget.file}") if not widget.file.startswith("views/") else None
        if data is None:
            remedy = f"Add views/{widget.file} to the package."
            self._wrong((*key, "file"), "APPS-2316", f"there is no {widget.file!r}", remedy)
            return
        try:
            ids = svg_ids(data)
        except Misconfigured as error:
            self._wrong((*key, "file"), error.code, error.what, error.remedy)
            return
        for i, binding in enumerate(widget.bindings):
            if binding.element not in ids:
                what = f"the picture has no element {binding.element!r}"
                remedy = f"Its ids: {', '.join(sorted(ids)[:20]) or 'none'}."
                self._wrong((*key, "bindings", i, "element"), "APPS-2316", what, remedy)

    def _check_service(self, widget: Form, key: Key) -> None:
        known = [service.name for service in self._manifest.services]
        if widget.service not in known:
            what = f"the app has no service {widget.service!r}"
            remedy = f"Services: {', '.join(known) or 'none'}."
            self._wrong((*key, "service"), "APPS-2315", what, remedy)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
