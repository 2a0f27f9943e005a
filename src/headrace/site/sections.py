"""Reading sections of a site file, and the plain ones: site, titles, groups, connections."""

from __future__ import annotations

import math
import zoneinfo
from typing import Any, Final

from headrace.bus.subjects import APPS_EDGE
from headrace.model.errors import Misconfigured
from headrace.model.ids import NAME
from headrace.model.units import check_unit
from headrace.security.redaction import BLOT
from headrace.site.model import DERIVED, Connection, Equipment, Group, level_of
from headrace.site.notes import Notes, near
from headrace.site.secret_words import is_secret_word
from headrace.site.toml_lines import Key

SECTIONS: Final = (
    "site",
    "area",
    "work_center",
    "work_unit",
    "calendar",
    "asset_type",
    "asset",
    "app",
    "group",
    "connection",
    "tag",
    "notify",
    "protection",
    "zone",
    "conduit",
)
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "a text": (str,),
    "true or false": (bool,),
    "a whole number": (int,),
    "a number": (int, float),
    "a table": (dict,),
    "a list": (list,),
}
NAME_REMEDY: Final = "Use 1 to 64 of A-Z a-z 0-9 _ and -."
PATH_REMEDY: Final = "Use area/work_center/work_unit/tag, each of A-Z a-z 0-9 _ and -."


class Section:
    """One table of the site file while it is read: takes fields, notes what is wrong with them."""

    def __init__(self, notes: Notes, key: Key, table: Any, allowed: tuple[str, ...]) -> None:
        self.notes = notes
        self.key = key
        self.table: dict[str, Any] = table if isinstance(table, dict) else {}
        if not isinstance(table, dict):
            notes.at(
                key, "SITE-1005", f"{_name(key)} is {table!r}, not a table", "Make it a table."
            )
        for word in self.table:
            if word not in allowed:
                notes.at((*key, word), "SITE-1003", f"unknown key {word!r}", near(word, allowed))

    def take(self, word: str, kind: str, default: Any = None, *, required: bool = False) -> Any:
        """The field's value when it is there and of its kind, else the default."""
        if word not in self.table:
            if required:
                remedy = f'Add: {word} = "..."' if kind == "a text" else f"Add {word}."
                self.notes.at(self.key, "SITE-1004", f"{_name(self.key)} has no {word}", remedy)
            return default
        value = self.table[word]
        if is_kind(value, kind):
            return value
        shown = BLOT if is_secret_word(word) else repr(value)
        self.wrong(word, f"{word} is {shown}, not {kind}", f"Give {kind}.")
        return default

    def wrong(self, word: str, what: str, remedy: str, code: str = "SITE-1005") -> None:
        """Note that a field is wrong."""
        self.notes.at((*self.key, word), code, what, remedy)

    def title(self) -> tuple[str, str]:
        """(title, title_zh): one text for all, or ``{ en = "...", zh = "..." }``."""
        value = self.table.get("title", "")
        if isinstance(value, str):
            return value, ""
        if not isinstance(value, dict):
            self.wrong(
                "title", f"title is {value!r}", 'Give a text, or { en = "...", zh = "..." }.'
            )
            return "", ""
        titles = Section(self.notes, (*self.key, "title"), value, ("en", "zh"))
        return titles.take("en", "a text", ""), titles.take("zh", "a text", "")


def _name(key: Key) -> str:
    return "[" + ".".join(str(part) for part in key) + "]"


def is_kind(value: Any, kind: str) -> bool:
    """Whether a TOML value is of a kind; true and false are no numbers, nan and inf neither.

    Example:
        >>> is_kind(3, "a number"), is_kind(True, "a number")
        (True, False)
    """
    if not isinstance(value, _KINDS[kind]):
        return False
    if isinstance(value, bool):
        return kind == "true or false"
    return not isinstance(value, float) or math.isfinite(value)


def read_site(notes: Notes, data: dict[str, Any]) -> dict[str, Any]:
    """The fields of ``[site]`` for :class:`SiteModel`."""
    if "site" not in data:
        notes.at((), "SITE-1004", "there is no [site]", "Add [site] with enterprise and name.")
        return {"enterprise": "", "name": "", "tag_files": ()}
    allowed = ("enterprise", "name", "title", "time_zone", "tag_files")
    section = Section(notes, ("site",), data["site"], allowed)
    fields: dict[str, Any] = {}
    for word in ("enterprise", "name"):
        fields[word] = section.take(word, "a text", "", required=True)
        if fields[word] and not NAME.match(fields[word]):
            section.wrong(word, f"{word} is {fields[word]!r}", NAME_REMEDY, "SITE-1006")
    fields["title"], fields["title_zh"] = section.title()
    zone = section.take("time_zone", "a text", "UTC")
    if not _is_time_zone(zone):
        known = zoneinfo.available_timezones()
        remedy = near(zone, known) or "Use a name of the IANA list, such as Europe/Berlin."
        section.wrong("time_zone", f"the time zone {zone!r} is not known", remedy, "SITE-1019")
    fields["time_zone"] = zone
    fields["tag_files"] = tuple(_tag_files(section))
    return fields


def _is_time_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _tag_files(section: Section) -> list[str]:
    files = []
    for position, name in enumerate(section.take("tag_files", "a list", [])):
        inside = isinstance(name, str) and name and not name.startswith(("/", "~"))
        if not inside or ".." in name.replace("\\", "/").split("/") or ":" in name:
            what = f"the tag file {name!r} is not in the site file's folder"
            section.notes.at(
                ("site", "tag_files", position), "SITE-1005", what, "Give a path relative to it."
            )
        elif name in files:
            what = f"the tag file {name!r} is listed twice"
            section.notes.at(("site", "tag_files", position), "SITE-1005", what, "Remove one.")
        else:
            files.append(name)
    return files


def named_tables(notes: Notes, data: dict[str, Any], word: str) -> list[tuple[str, Any]]:
    """(name, table) of each ``[word.NAME]``."""
    tables = data.get(word, {})
    if not isinstance(tables, dict):
        what = f"{word} is {type(tables).__name__}, not a table of names"
        notes.at((word,), "SITE-1005", what, f"Write [{word}.NAME].")
        return []
    return list(tables.items())


def read_declared_equipment(notes: Notes, data: dict[str, Any]) -> list[Equipment]:
    """``[area.X]``, ``[work_center."X/Y"]``, ``[work_unit."X/Y/Z"]``: titles of equipment."""
    found = []
    for depth, level in enumerate(("area", "work_center", "work_unit"), 1):
        for path, table in named_tables(notes, data, level):
            section = Section(notes, (level, path), table, ("title",))
            title, title_zh = section.title()
            tokens = path.split("/")
            if len(tokens) != depth or not all(NAME.match(token) for token in tokens):
                shape = "/".join(("area", "work_center", "work_unit")[:depth])
                notes.at(
                    (level, path),
                    "SITE-1006",
                    f"{level} has the path {path!r}",
                    f'Write [{level}."{shape}"], each of A-Z a-z 0-9 _ and -.',
                )
                continue
            found.append(Equipment(path=path, level=level_of(path), title=title, title_zh=title_zh))
    return found


def note_unit(notes: Notes, file: str, unit: str, key: Key) -> None:
    """Note a unit of the site file that is not known."""
    try:
        check_unit(unit)
    except Misconfigured as error:
        notes.error(file, notes.line_of(key), ".".join(map(str, key)), error)


def check_name(notes: Notes, key: Key, name: str, what: str) -> None:
    """Note a name that cannot stand in a path."""
    if not NAME.match(name):
        notes.at(key, "SITE-1006", f"{what} has the name {name!r}", NAME_REMEDY)


def read_groups(notes: Notes, data: dict[str, Any]) -> list[Group]:
    """``[group.X]``; the group ``default`` is always there."""
    found = {"default": Group(name="default")}
    for name, table in named_tables(notes, data, "group"):
        section = Section(notes, ("group", name), table, ("retention_days",))
        check_name(notes, ("group", name), name, "group")
        days = section.take("retention_days", "a whole number", 0)
        if days < 0:
            section.wrong(
                "retention_days", f"retention_days is {days}", "Give 0 (for ever) or more."
            )
        found[name] = Group(name=name, retention_days=max(days, 0))
    return list(found.values())


def read_connections(notes: Notes, data: dict[str, Any]) -> list[Connection]:
    """``[connection.X]``; options are checked by the connector afterwards."""
    allowed = ("protocol", "endpoint", "edge", "enabled", "title", "options")
    found = []
    for name, table in named_tables(notes, data, "connection"):
        key = ("connection", name)
        section = Section(notes, key, table, allowed)
        check_name(notes, key, name, "connection")
        if name == DERIVED:
            what, remedy = f"the name {name} is that of derived tags", "Choose another name."
            notes.at(key, "SITE-1110", what, remedy)
        title, title_zh = section.title()
        edge = section.take("edge", "a text", "local")
        if not NAME.match(edge):
            section.wrong("edge", f"edge has the name {edge!r}", NAME_REMEDY, "SITE-1006")
        if edge.partition("-")[0] == APPS_EDGE:
            what = f"the edge {edge!r} has the name of one that gives results of formulas"
            section.wrong("edge", what, "Choose another name.", "APPS-1403")
        found.append(
            Connection(
                name=name,
                protocol=section.take("protocol", "a text", "", required=True),
                endpoint=section.take("endpoint", "a text", "", required=True),
                edge=edge,
                enabled=section.take("enabled", "true or false", True),
                title=title,
                title_zh=title_zh,
                options=section.take("options", "a table", {}),
            )
        )
    return found
