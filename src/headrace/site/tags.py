"""Tags, from spreadsheet columns or from ``[[tag]]``: one way of checking for both, by column."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from headrace.model.errors import Misconfigured
from headrace.model.ids import PATH_DEPTH_MAX, TAG_ID_MAX
from headrace.model.units import check_unit, same_dimension
from headrace.site.model import PLAIN_UNITS, Asset, AssetType, Tag, nearest_asset, parent_of
from headrace.site.notes import PROBLEMS_MAX, Notes, near
from headrace.site.sections import PATH_REMEDY, Section, is_kind
from headrace.site.tag_table import HEADERS, TagTable

SCAN_INTERVAL_MS_MIN: Final = 10
SCAN_INTERVAL_MS_MAX: Final = 86_400_000
FIELDS: Final = tuple(Tag.__struct_fields__)
_DEFAULTED: Final = FIELDS[-len(Tag.__struct_defaults__) :]
DEFAULTS: Final[dict[str, Any]] = dict(zip(_DEFAULTED, Tag.__struct_defaults__, strict=True))
REQUIRED: Final = ("path", "connection", "address")
_KIND: Final[dict[str, str]] = {
    "scan_interval_ms": "a whole number",
    "sample_interval_us": "a whole number",
    "id": "a whole number",
    "scale": "a number",
    "offset": "a number",
    "deadband": "a number",
    "write_minimum": "a number",
    "write_maximum": "a number",
    "writable": "true or false",
}
_TOKEN: Final = "[A-Za-z0-9_-]{1,64}"
_PATH: Final = re.compile(f"{_TOKEN}(?:/{_TOKEN}){{1,{PATH_DEPTH_MAX - 1}}}")
_TRUE: Final = frozenset({"true", "yes", "y", "1", "x", "是", "真"})
_FALSE: Final = frozenset({"false", "no", "n", "0", "否", "假"})
_DECIMAL_COMMA: Final = re.compile(r"^[+-]?\d+,\d+(?:[eE][+-]?\d+)?$")
_THOUSANDS: Final = re.compile(r"^[+-]?[1-9]\d{0,2},\d{3}$")


@dataclass
class TagColumns:
    """Tags of one file, by column, with the line of each; equal lengths.

    Attributes:
        tags: one a line; a field that was wrong has its default, and a note.
    """

    file: str
    lines: list[int]
    tags: list[Tag]

    def line_of(self, notes: Notes, line: int, field: str) -> int:
        """The line of a tag's field: in the site file a tag has several lines."""
        if self.file != notes.file:
            return line
        return notes.line_of(("tag", self.lines.index(line), field))


def from_table(notes: Notes, table: TagTable) -> TagColumns:
    """Tags of a spreadsheet or CSV file; a problem names its line and column."""
    for word in table.unknown:
        remedy = near(word, HEADERS) or "Remove the column or give it a known header."
        what = f"unknown column {word!r}"
        notes.add(table.file, table.header_line, word, "SITE-1003", what, remedy)
    for field in table.twice:
        what = f"two columns are {field}"
        notes.add(table.file, table.header_line, field, "SITE-1003", what, "Remove one of them.")
    lacking = [field for field in REQUIRED if field not in table.columns]
    for field in lacking:
        what = f"there is no column {field}"
        notes.add(table.file, table.header_line, field, "SITE-1004", what, f"Add {field}.")
    if lacking:
        return TagColumns(table.file, [], [])
    columns: dict[str, list[Any]] = {}
    for field, cells in table.columns.items():
        columns[field] = _convert(notes, table, field, cells)
    for field in REQUIRED:
        for line, cell in zip(table.lines, table.columns[field], strict=True):
            if not cell:
                notes.add(
                    table.file,
                    line,
                    field,
                    "SITE-1004",
                    f"the tag has no {field}",
                    "Fill the cell.",
                )
    return TagColumns(table.file, table.lines, _assemble(columns, len(table.lines)))


def _assemble(columns: dict[str, list[Any]], count: int) -> list[Tag]:
    full = [columns.get(field) or [DEFAULTS.get(field, "")] * count for field in FIELDS]
    return list(map(Tag, *full))


def _convert(notes: Notes, table: TagTable, field: str, cells: list[str]) -> list[Any]:
    if field == "was":
        return [tuple(re.split(r"[\s,;|]+", cell)) if cell else () for cell in cells]
    kind = _KIND.get(field)
    if kind is None:
        default = DEFAULTS.get(field, "")
        return [cell or default for cell in cells]
    default = DEFAULTS[field]
    parse = _PARSE[kind]
    memo: dict[str, Any] = {"": default}  # tag lists repeat a few values many times
    out = []
    for position, cell in enumerate(cells):
        if cell not in memo:
            try:
                memo[cell] = parse(cell, table.separator)
            except ValueError:
                what = f"{field} is {cell!r}, not {kind}"
                remedy = f"Write {kind}, with a point for decimals."
                if kind == "true or false":
                    remedy = "Write true or false."
                notes.add(table.file, table.lines[position], field, "SITE-1005", what, remedy)
                out.append(default)
                continue
        out.append(memo[cell])
    return out


def _parse_number(cell: str, separator: str) -> float:
    if separator in ";\t" and _DECIMAL_COMMA.match(cell):
        if _THOUSANDS.match(cell):
            raise ValueError("a thousand or a fraction")
        cell = cell.replace(",", ".")
    number = float(cell)
    if not math.isfinite(number) or "_" in cell:
        raise ValueError(cell)
    return number


def _parse_whole(cell: str, separator: str) -> int:
    if cell.isascii() and cell.removeprefix("-").isdigit():
        return int(cell)
    number = _parse_number(cell, separator)
    if number != int(number) or abs(number) > 2**53:
        raise ValueError(cell)
    return int(number)


def _parse_bool(cell: str, separator: str) -> bool:
    del separator
    word = cell.lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError(cell)


_PARSE: Final[dict[str, Callable[[str, str], Any]]] = {
    "a number": _parse_number,
    "a whole number": _parse_whole,
    "true or false": _parse_bool,
}


def from_toml(notes: Notes, data: dict[str, Any]) -> TagColumns:
    """Tags of the site file itself."""
    tables = data.get("tag", [])
    if not isinstance(tables, list):
        notes.at(("tag",), "SITE-1005", "tag is not a list of tables", "Write [[tag]].")
        tables = []
    tags, keys = [], []
    allowed = tuple(field for field in FIELDS if field != "title_zh")
    for position, table in enumerate(tables):
        section = Section(notes, ("tag", position), table, allowed)
        fields: dict[str, Any] = {}
        for field in FIELDS:
            if field in ("title", "title_zh", "was"):
                continue
            kind, required = _KIND.get(field, "a text"), field in REQUIRED
            value = section.take(field, kind, DEFAULTS.get(field, ""), required=required)
            fields[field] = float(value) if kind == "a number" and value is not None else value
        fields["title"], fields["title_zh"] = section.title()
        fields["was"] = _was(section)
        tags.append(Tag(**fields))
        keys.append(position)
    lines = [notes.line_of(("tag", position)) for position in keys]
    return TagColumns(notes.file, lines, tags)


def _was(section: Section) -> tuple[str, ...]:
    value = section.table.get("was", [])
    paths = [value] if isinstance(value, str) else value
    if isinstance(paths, list) and all(is_kind(path, "a text") for path in paths):
        return tuple(paths)
    section.wrong("was", f"was is {value!r}", 'Give the earlier path: was = "area/unit/old_name"')
    return ()


class TagChecks:
    """Checks that need all tags, or the rest of the site file. One object a check."""

    def __init__(self, notes: Notes, files: list[TagColumns]) -> None:
        self.notes = notes
        self.files = files
        self._near: dict[str, str] = {}

    def paths(self) -> None:
        """Grammar, duplicates, tags that stand where equipment is, and earlier paths."""
        first: dict[str, str] = {}
        places: set[str] = set()
        for columns in self.files:
            for line, tag in zip(columns.lines, columns.tags, strict=True):
                path = tag.path
                if not _PATH.fullmatch(path):
                    if path:
                        what = f"tag has the path {path!r}"
                        self._note(columns, line, "path", "SITE-1006", what, PATH_REMEDY)
                elif path in first:
                    what = f"the tag {path} is already declared at {first[path]}"
                    remedy = "Remove one, or give it another path."
                    self._note(columns, line, "path", "SITE-1007", what, remedy)
                else:
                    first[path] = f"{columns.file}:{line}"
                    places.add(parent_of(path))
        for place in tuple(places):
            while place := parent_of(place):
                places.add(place)
        self._path_clashes(first, places)

    def _path_clashes(self, first: dict[str, str], places: set[str]) -> None:
        clashes = first.keys() & places
        claimed: dict[str, str] = {}
        ids: dict[int, str] = {}
        for columns in self.files:
            for line, tag in zip(columns.lines, columns.tags, strict=True):
                if tag.path in clashes:
                    what = f"{tag.path} is a tag, and other tags lie below it"
                    remedy = "A path is either equipment or a tag: rename one of them."
                    self._note(columns, line, "path", "SITE-1007", what, remedy)
                if tag.was or tag.id:
                    self._identity(columns, line, tag, claimed, ids)

    def _identity(
        self,
        columns: TagColumns,
        line: int,
        tag: Tag,
        claimed: dict[str, str],
        ids: dict[int, str],
    ) -> None:
        for old in tag.was:
            if not _PATH.fullmatch(old):
                what = f"the earlier path {old!r} is no path"
                self._note(columns, line, "was", "SITE-1006", what, PATH_REMEDY)
            if claimed.setdefault(old, tag.path) != tag.path:
                what = f"{old} is the earlier path of {claimed[old]} as well"
                remedy = "Only one tag can go on with its history: remove one of them."
                self._note(columns, line, "was", "SITE-1020", what, remedy)
        if tag.id:
            if not 0 < tag.id <= TAG_ID_MAX:
                what = f"id is {tag.id}"
                self._note(columns, line, "id", "SITE-1020", what, "Leave it out; it is given.")
            elif ids.setdefault(tag.id, tag.path) != tag.path:
                what = f"id {tag.id} is that of {ids[tag.id]} as well"
                self._note(columns, line, "id", "SITE-1020", what, "Leave it out; it is given.")

    def references(self, connections: list[str], groups: list[str]) -> None:
        """Connections and groups that are not declared; one address read twice."""
        known_connections, known_groups = set(connections), set(groups)
        first: dict[tuple[str, str], str] = {}
        for columns in self.files:
            for line, tag in zip(columns.lines, columns.tags, strict=True):
                name = tag.connection
                if name not in known_connections and name:
                    what = f"the connection {name!r} is not declared"
                    remedy = self._meant(name, connections) or f"Declare it: [connection.{name}]"
                    self._note(columns, line, "connection", "SITE-1009", what, remedy)
                if tag.group not in known_groups:
                    what = f"the group {tag.group!r} is not declared"
                    remedy = self._meant(tag.group, groups) or f"Declare it: [group.{tag.group}]"
                    self._note(columns, line, "group", "SITE-1009", what, remedy)
                if tag.address:
                    here = (name, tag.address)
                    if first.setdefault(here, tag.path) != tag.path:
                        what = f"the address {tag.address!r} of {name} is read by {first[here]} too"
                        remedy = "Remove one of the two tags, or correct its address."
                        self._note(columns, line, "address", "SITE-1008", what, remedy)

    def _meant(self, word: str, known: list[str]) -> str:
        """As :func:`near`, once a word: a long list repeats the same mistake on every line."""
        if word not in self._near:
            self._near[word] = near(word, known)
        return self._near[word]

    def numbers(self) -> None:
        """Bounds of intervals, scale, dead-band and the envelope of writes."""
        for columns in self.files:
            for line, tag in zip(columns.lines, columns.tags, strict=True):
                if not SCAN_INTERVAL_MS_MIN <= tag.scan_interval_ms <= SCAN_INTERVAL_MS_MAX:
                    what = f"scan_interval_ms is {tag.scan_interval_ms}"
                    remedy = f"Give {SCAN_INTERVAL_MS_MIN} to {SCAN_INTERVAL_MS_MAX} (a day)."
                    self._note(columns, line, "scan_interval_ms", "SITE-1016", what, remedy)
                if tag.scale == 0:
                    remedy = "Give the factor from raw value to engineering unit."
                    self._note(columns, line, "scale", "SITE-1005", "scale is 0", remedy)
                if tag.deadband < 0:
                    what = f"deadband is {tag.deadband}"
                    remedy = "Give 0 (publish every value) or more."
                    self._note(columns, line, "deadband", "SITE-1005", what, remedy)
                if tag.sample_interval_us < 0:
                    what = f"sample_interval_us is {tag.sample_interval_us}"
                    remedy = "Give the time between two elements of the array, or leave it out."
                    self._note(columns, line, "sample_interval_us", "SITE-1005", what, remedy)
                if tag.write_minimum is not None or tag.write_maximum is not None:
                    self._envelope(columns, line, tag)

    def _envelope(self, columns: TagColumns, line: int, tag: Tag) -> None:
        low, high = tag.write_minimum, tag.write_maximum
        if not tag.writable:
            field = "write_minimum" if low is not None else "write_maximum"
            what = f"{field} is given, but the tag is not writable"
            remedy = "Add writable = true, or remove the bounds."
            self._note(columns, line, field, "SITE-1015", what, remedy)
        if low is not None and high is not None and low > high:
            what = f"write_minimum {low} is above write_maximum {high}"
            self._note(columns, line, "write_minimum", "SITE-1015", what, "Exchange the two.")

    def units(self, assets: list[Asset], types: list[AssetType]) -> None:
        """Unknown units, and tags whose unit does not measure their asset type's quantity.

        A tag without a unit takes that of the quantity; ``files`` is changed to say so.
        """
        by_path = {asset.path: asset for asset in assets}
        by_name = {kind.name: kind.quantities for kind in types}
        bad: dict[str, Misconfigured | None] = {"": None}
        for columns in self.files:
            for position, tag in enumerate(columns.tags):
                line = columns.lines[position]
                if tag.unit not in bad:
                    bad[tag.unit] = _unit_error(tag.unit)
                error = bad[tag.unit]
                if error is not None:
                    self.notes.error(
                        columns.file, columns.line_of(self.notes, line, "unit"), "unit", error
                    )
                    continue
                asset = nearest_asset(tag.path, by_path) if by_path else None
                if asset is None or parent_of(tag.path) != asset.path:
                    continue
                name = tag.path.rpartition("/")[2]
                declared = by_name.get(asset.type, {}).get(name)
                if declared is None or (declared in PLAIN_UNITS and not tag.unit):
                    continue
                if declared in PLAIN_UNITS:
                    what = (
                        f"{tag.path} has the unit {tag.unit}, {asset.type}.{name} is a {declared}"
                    )
                    self._note(columns, line, "unit", "SITE-1014", what, "Remove the unit.")
                elif not tag.unit:
                    columns.tags[position] = _with_unit(tag, declared)
                elif not same_dimension(tag.unit, declared) and _unit_error(declared) is None:
                    what = (
                        f"{tag.path} has the unit {tag.unit}, {asset.type}.{name} is in {declared}"
                    )
                    remedy = f"Give a unit of the same quantity as {declared}."
                    self._note(columns, line, "unit", "SITE-1014", what, remedy)

    def _note(
        self, columns: TagColumns, line: int, field: str, code: str, what: str, remedy: str
    ) -> None:
        if self.notes.count < PROBLEMS_MAX:
            line = columns.line_of(self.notes, line, field)
            self.notes.add(columns.file, line, field, code, what, remedy)
        else:
            self.notes.count += 1


def _unit_error(unit: str) -> Misconfigured | None:
    try:
        check_unit(unit)
    except Misconfigured as error:
        return error
    return None


def _with_unit(tag: Tag, unit: str) -> Tag:
    fields = [getattr(tag, name) for name in FIELDS]
    fields[FIELDS.index("unit")] = unit
    return Tag(*fields)
