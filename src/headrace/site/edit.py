"""Edits of the site file that leave everything else as a person wrote it: comments, order, spacing.

An edit is made in memory, checked as a whole, shown as a diff, and then written or not. Added and
removed tables are cut by line; changed values go through ``tomlkit``. After each step the text is read
again and must mean exactly what was asked for.
"""

from __future__ import annotations

import copy
import difflib
import re
import tomllib
from collections.abc import Callable, Iterable
from typing import Any, Final

import tomlkit
import tomlkit.exceptions

from headrace.model.errors import Misconfigured, Refused, Terminal
from headrace.model.folder import DataFolder
from headrace.model.knowledge import FormulaState
from headrace.site.file import SiteFiles, load_site
from headrace.site.model import SiteModel, Tag
from headrace.site.statements import (
    multi_line,
    one_statement,
    with_statement,
    without_statement,
)
from headrace.site.tag_list import CsvList
from headrace.site.tag_table import decode
from headrace.site.tags import DEFAULTS, FIELDS
from headrace.site.toml_lines import Key, header_lines
from headrace.site.writing import Version, read_version, site_lock, versions, write_files

_SITE: Final = "site.toml"
_PLACES: Final = ("area", "work_center", "work_unit", "asset")


class SiteEdit:
    """One edit of a data folder's site file. Steps may be combined; nothing is written until ``save``.

    Args:
        folder: its ``site.toml`` and tag files are read now.

    Raises:
        Misconfigured: SITE-1001 or SITE-1002 when the site file cannot be read as TOML.
    """

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        with site_lock(folder):
            files = SiteFiles(folder.site_file)
            try:
                self.text = files.content(_SITE).decode("utf-8-sig")
                self._data: dict[str, Any] = tomllib.loads(self.text)
            except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                raise Misconfigured(
                    "SITE-1002", f"{_SITE} is no TOML: {error}", "Run: headrace site check"
                ) from error
            names = self._data.get("site", {}).get("tag_files", [])
            for name in names if isinstance(names, list) else []:
                files.content(str(name))
        self._before = dict(files.read)
        self._lists: dict[str, CsvList] = {}
        self._new: dict[str, bytes] = {}
        self._rows: dict[str, int] | None = None

    # --- connections ------------------------------------------------------------------------------

    def add_connection(
        self,
        name: str,
        protocol: str,
        endpoint: str,
        *,
        edge: str = "local",
        enabled: bool = True,
        title: str = "",
        options: dict[str, Any] | None = None,
    ) -> None:
        """Append ``[connection.NAME]``.

        Raises:
            Misconfigured: SITE-1411 when there is one of this name.
        """
        if name in self._data.get("connection", {}):
            raise Misconfigured(
                "SITE-1411", f"there is a connection {name} already", "Choose another name."
            )
        table: dict[str, Any] = {"protocol": protocol, "endpoint": endpoint}
        if edge != "local":
            table["edge"] = edge
        if not enabled:
            table["enabled"] = False
        if title:
            table["title"] = title
        if options:
            table["options"] = dict(options)
        expected = copy.deepcopy(self._data)
        expected.setdefault("connection", {})[name] = table
        block = _toml_block(f"[connection.{_key(name)}]", table)
        self._take(self._insert_after("connection", block), expected)

    def change_connection(self, name: str, **fields: Any) -> None:
        """Set fields of a connection; None takes a field out.

        Raises:
            Misconfigured: SITE-1412 when there is no such connection.
        """
        self._connection(name)

        def change(data: Any) -> None:
            table = data["connection"][name]
            for field, value in fields.items():
                if value is None:
                    table.pop(field, None)
                elif table.get(field) != value:
                    is_plain = type(table) is dict
                    table[field] = value if is_plain else _inline(value)

        self._with_tomlkit(change)

    def change_option(self, name: str, option: str, value: Any) -> None:
        """Set one option of a connection that has it.

        Raises:
            Misconfigured: SITE-1412 when there is no such connection.
        """
        self._connection(name)

        def change(data: Any) -> None:
            data["connection"][name]["options"][option] = value

        self._with_tomlkit(change)

    def set_enabled(self, name: str, enabled: bool) -> None:
        """Enable or disable a connection.

        Raises:
            Misconfigured: SITE-1412 when there is no such connection.
        """
        self.change_connection(name, enabled=None if enabled else False)

    def remove_connection(self, name: str, *, with_tags: bool = False) -> None:
        """Take a connection out, and its tags when asked to.

        Raises:
            Misconfigured: SITE-1412 when there is no such connection.
            Refused: SITE-1413 when it has tags and ``with_tags`` is false.
        """
        self._connection(name)
        tags = [tag.path for tag in self._tags() if tag.connection == name]
        if tags and not with_tags:
            raise Refused(
                "SITE-1413",
                f"the connection {name} has {len(tags)} tags",
                "Remove them too, or give them another connection first. Their history stays.",
            )
        self.remove_tags(tags)
        expected = copy.deepcopy(self._data)
        del expected["connection"][name]
        if not expected["connection"]:
            del expected["connection"]
        self._take(self._without([("connection", name)]), expected)

    def _connection(self, name: str) -> None:
        if name not in self._data.get("connection", {}):
            known = ", ".join(self._data.get("connection", {})) or "none"
            raise Misconfigured(
                "SITE-1412", f"there is no connection {name} in {_SITE}", f"There are: {known}."
            )

    # --- formulas ---------------------------------------------------------------------------------

    def set_formula(
        self, asset_type: str, name: str, text: str, state: FormulaState | None = None
    ) -> None:
        """Give a formula or alarm of an asset type another text, or add it; and its state when asked to.

        Raises:
            Misconfigured: SITE-1419 when there is no such asset type; SITE-1118 when the text is not one
                statement of this name.
            FormulaProblem: when the text cannot be read.
        """
        self._asset_type(asset_type)
        statement = one_statement(name, text)

        def change(data: Any) -> None:
            table = data["asset_type"][asset_type]
            _set_text(table, with_statement(str(table.get("formulas", "")), name, statement))
            if state is not None:
                _set_state(table, name, state)

        self._with_tomlkit(change)

    def remove_formula(self, asset_type: str, name: str) -> None:
        """Take a formula out; its history and that of its tags stay.

        Raises:
            Misconfigured: SITE-1419 when there is no such asset type; SITE-1420 no such formula.
        """
        self._asset_type(asset_type)
        text = without_statement(
            str(self._data["asset_type"][asset_type].get("formulas", "")), name
        )
        if text is None:
            raise Misconfigured(
                "SITE-1420", f"{asset_type} has no formula {name}", "See: headrace formula list"
            )

        def change(data: Any) -> None:
            table = data["asset_type"][asset_type]
            _set_text(table, text)
            _set_state(table, name, "live")
            for word in ("start", "titles", "placement"):
                if isinstance(table.get(word), dict) and name in table[word]:
                    del table[word][name]

        self._with_tomlkit(change)

    def _asset_type(self, name: str) -> None:
        if name not in self._data.get("asset_type", {}):
            known = ", ".join(self._data.get("asset_type", {})) or "none"
            raise Misconfigured(
                "SITE-1419", f"there is no asset type {name} in {_SITE}", f"There are: {known}."
            )

    # --- apps -------------------------------------------------------------------------------------

    def apps(self) -> dict[str, dict[str, Any]]:
        """App -> its table ``[app.ID]``, as written."""
        tables = self._data.get("app", {})
        return {name: table for name, table in tables.items() if isinstance(table, dict)}

    def set_app(self, app: str, **fields: Any) -> None:
        """Give fields of ``[app.ID]`` values, all others stay; None takes a field out. It is added when
        it is not there."""
        if app in self._data.get("app", {}):

            def change(data: Any) -> None:
                table = data["app"][app]
                for field, value in fields.items():
                    if value is None:
                        table.pop(field, None)
                    elif table.get(field) != value:
                        table[field] = value if type(table) is dict else _inline(value)

            self._with_tomlkit(change)
            return
        table = {field: value for field, value in fields.items() if value is not None}
        expected = copy.deepcopy(self._data)
        expected.setdefault("app", {})[app] = table
        block = _toml_block(f"[app.{_key(app)}]", table)
        self._take(self._insert_after("app", block), expected)

    def add_tables(self, section: str, tables: dict[str, dict[str, Any]]) -> None:
        """Add ``[section.NAME]`` tables that are not there yet."""
        for name, table in tables.items():
            expected = copy.deepcopy(self._data)
            expected.setdefault(section, {})[name] = table
            block = _toml_block(f"[{section}.{_key(name)}]", table)
            self._take(self._insert_after(section, block), expected)

    def tables(self, section: str) -> dict[str, Any]:
        """Name -> what stands in ``[section.NAME]``."""
        return dict(self._data.get(section, {}))

    def remove_app(self, app: str) -> None:
        """Take ``[app.ID]`` out with all below it; nothing when it is not there."""
        expected = copy.deepcopy(self._data)
        if expected.get("app", {}).pop(app, None) is None:
            return
        if not expected["app"]:
            del expected["app"]
        self._take(self._without([("app", app)]), expected)

    # --- tags -------------------------------------------------------------------------------------

    def add_tags(self, tags: Iterable[Tag]) -> None:
        """Add tags: to the first CSV tag file when there is one, else to the site file."""
        tags = list(tags)
        if not tags:
            return
        file = self.csv_file()
        if file is not None:
            for tag in tags:
                self._list(file).add(tag)
            return
        expected = copy.deepcopy(self._data)
        blocks = ""
        for tag in tags:
            table = _tag_table(tag)
            expected.setdefault("tag", []).append(table)
            blocks += _toml_block("[[tag]]", table)
        self._take(self._insert_after("tag", blocks), expected)

    def csv_file(self) -> str | None:
        """The tag file that new tags go to; None when the site has no CSV."""
        return next((name for name in self._tag_files() if _is_csv(name)), None)

    def replace_tags(self, tags: Iterable[Tag]) -> None:
        """Give known tags (by path) other settings, each where it stands.

        Raises:
            Misconfigured: SITE-1414 when there is no tag of this path.
            Refused: SITE-1415 when one stands in a spreadsheet.
        """
        tables: dict[int, dict[str, Any]] = {}
        for tag in tags:
            file, row = self._find(tag.path)
            if file == _SITE:
                tables[row] = _tag_table(tag)
            else:
                self._list(file).set(row, tag)

        def change(data: Any) -> None:
            for row, table in tables.items():
                known = data["tag"][row]
                for field in [field for field in known if field not in table]:
                    del known[field]
                for field, value in table.items():
                    if known.get(field) != value:
                        known[field] = value if type(known) is dict else _inline(value)

        if tables:
            self._with_tomlkit(change)

    def remove_tags(self, paths: Iterable[str]) -> None:
        """Take tags out; their history stays in the registry.

        Raises:
            Misconfigured: SITE-1414 when there is no tag of this path.
            Refused: SITE-1415 when one stands in a spreadsheet.
        """
        rows: dict[str, list[int]] = {}
        for path in paths:
            file, row = self._find(path)
            rows.setdefault(file, []).append(row)
        positions = rows.pop(_SITE, [])
        for file, gone in rows.items():
            self._list(file).remove(gone)
        if positions:
            expected = copy.deepcopy(self._data)
            expected["tag"] = [
                table for place, table in enumerate(expected["tag"]) if place not in positions
            ]
            if not expected["tag"]:
                del expected["tag"]
            self._take(self._without([("tag", place) for place in positions]), expected)

    def rename(self, old: str, new: str) -> list[tuple[str, str]]:
        """Give a tag another path; or move equipment with all tags below it. Keeps their history.

        Returns:
            (earlier path, path) of each tag.

        Raises:
            Misconfigured: SITE-1414 when nothing has this path.
            Refused: SITE-1415 when a tag stands in a spreadsheet.
        """
        paths = {tag.path: tag for tag in self._tags()}
        if old in paths:
            moves = [(old, new)]
        else:
            below = f"{old}/"
            moves = [(p, f"{new}/{p.removeprefix(below)}") for p in paths if p.startswith(below)]
        places = self._renamed_places(old, new)
        if not moves and not places:
            self._find(old)
        for before, after in moves:
            self._rename_tag(paths[before], after)
        if places:
            self._rename_headers(places)
            self._rename_relations({path: after for (_, path), after in places.items()})
        return moves

    def _rename_relations(self, places: dict[str, str]) -> None:
        """Relations lead to where equipment is now."""

        def change(data: Any) -> None:
            for table in data.get("asset", {}).values():
                for name, path in table.get("relations", {}).items():
                    if path in places:
                        table["relations"][name] = places[path]

        expected = copy.deepcopy(self._data)
        change(expected)
        if expected != self._data:
            self._with_tomlkit(change)

    def _rename_tag(self, tag: Tag, new: str) -> None:
        file, row = self._find(tag.path)
        was = [*tag.was, tag.path]
        if file != _SITE:
            self._list(file).change(row, {"path": new, "was": " ".join(was)})
            return

        def change(data: Any) -> None:
            data["tag"][row]["path"] = new
            data["tag"][row]["was"] = was if len(was) > 1 else was[0]

        self._with_tomlkit(change)

    def _renamed_places(self, old: str, new: str) -> dict[tuple[str, str], str]:
        found = {}
        for section in _PLACES:
            for path in self._data.get(section, {}):
                if path == old or path.startswith(f"{old}/"):
                    found[section, path] = new + path.removeprefix(old)
        return found

    def _rename_headers(self, places: dict[tuple[str, str], str]) -> None:
        lines = self.text.splitlines(keepends=True)
        expected = copy.deepcopy(self._data)
        for (section, path), after in places.items():
            depth = len(after.split("/"))
            target = section if section == "asset" else _PLACES[min(depth, 3) - 1]
            expected.setdefault(target, {})[after] = expected[section].pop(path)
            if not expected[section]:
                del expected[section]
            for number, key in header_lines(self.text):
                if key[:2] == (section, path):
                    rest = "".join(f".{_key(str(part))}" for part in key[2:])
                    tail = lines[number - 1].rpartition("]")[2]
                    lines[number - 1] = f"[{target}.{_key(after)}{rest}]{tail}"
        self._take("".join(lines), expected)

    def _tags(self) -> tuple[Tag, ...]:
        return self.check().tags

    def _find(self, path: str) -> tuple[str, int]:
        place = self._site_rows().get(path)
        if place is not None:
            return _SITE, place
        for file in self._tag_files():
            if _is_csv(file):
                row = self._list(file).paths().get(path)
                if row is not None:
                    return file, row
        for tag in self._tags():
            if tag.path == path:
                raise Refused(
                    "SITE-1415",
                    f"the tag {path} stands in a spreadsheet, which is not edited from here",
                    "Change it there; or export the list as CSV and use that.",
                )
        raise Misconfigured(
            "SITE-1414", f"there is no tag {path} in the site file", "See: headrace site show"
        )

    def _site_rows(self) -> dict[str, int]:
        if self._rows is None:
            tables = self._data.get("tag", [])
            self._rows = {table.get("path", ""): place for place, table in enumerate(tables)}
        return self._rows

    def _tag_files(self) -> list[str]:
        return list(self._data.get("site", {}).get("tag_files", []))

    def _list(self, file: str) -> CsvList:
        if file not in self._lists:
            self._lists[file] = CsvList(file, self._new.get(file, self._before[file]))
        return self._lists[file]

    def replace_tag_file(self, file: str, content: bytes) -> None:
        """Set the whole content of a tag file; it is listed in the site file when it was not."""
        self._new[file] = content
        self._lists.pop(file, None)
        if file not in self._tag_files():

            def change(data: Any) -> None:
                files = [*data["site"].get("tag_files", []), file]
                data["site"]["tag_files"] = files

            self._with_tomlkit(change)

    # --- text -------------------------------------------------------------------------------------

    def _with_tomlkit(self, change: Callable[[Any], None]) -> None:
        expected = copy.deepcopy(self._data)
        change(expected)
        try:
            document = tomlkit.parse(self.text)
            change(document)
            text = tomlkit.dumps(document)
        except tomlkit.exceptions.TOMLKitError as error:
            raise _by_hand(str(error)) from error
        self._take(text, expected)

    def _take(self, text: str, expected: dict[str, Any]) -> None:
        """Go on with a text, when it means exactly what was asked for."""
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise _by_hand(str(error)) from error
        if data != expected:
            raise _by_hand("the result would not mean what was asked for")
        self.text, self._data, self._rows = text, data, None

    def _insert_after(self, section: str, block: str) -> str:
        """The text with a block after the last table of a section, or at the end."""
        lines = self.text.splitlines(keepends=True)
        blocks = _blocks(self.text)
        ends = [end for key, _, end in blocks if key[0] == section]
        at = ends[-1] if ends else len(lines)
        head, tail = "".join(lines[:at]).rstrip("\n"), "".join(lines[at:]).lstrip("\n")
        return head + "\n\n" + block.rstrip("\n") + "\n" + ("\n" + tail if tail else "")

    def _without(self, keys: list[Key]) -> str:
        """The text without some tables, their sub-tables and the comments right above them."""
        lines = self.text.splitlines(keepends=True)
        for key, start, end in reversed(_blocks(self.text)):
            if any(key[: len(gone)] == gone for gone in keys):
                del lines[start:end]
        return "".join(lines)

    # --- result -----------------------------------------------------------------------------------

    def contents(self) -> dict[str, bytes]:
        """Name -> new content of each file that differs from the disk."""
        new = {_SITE: self.text.encode(), **self._new}
        new |= {name: rows.content() for name, rows in self._lists.items()}
        return {name: body for name, body in new.items() if body != self._before.get(name)}

    def check(self) -> SiteModel:
        """The model of the edited files.

        Raises:
            SiteProblems: when the edit would not be accepted.
        """
        return load_site(self.folder.site_file, {**self._before, **self.contents()})

    def diff(self) -> str:
        """A unified diff of everything that the edit changes; "" when nothing."""
        return "".join(
            unified_diff(name, self._before.get(name, b""), content)
            for name, content in sorted(self.contents().items())
        )

    def save(self) -> str:
        """Check, then write all files or none; gives the diff.

        Raises:
            SiteProblems: when the edit would not be accepted; nothing was written.
            Refused: SITE-1416 when somebody else changed the files meanwhile; nothing was written.
        """
        self.check()
        with site_lock(self.folder):
            for name, content in self._before.items():
                path = self.folder.root / name
                if not path.exists() or path.read_bytes() != content:
                    raise Refused(
                        "SITE-1416",
                        f"{name} was changed by somebody else meanwhile",
                        "Open it again and repeat the edit.",
                    )
            diff = self.diff()
            if diff:
                write_files(self.folder, self.contents())
        return diff


def undo(folder: DataFolder, number: int = 0) -> tuple[Version, str]:
    """Put back an accepted version: the newest that differs from the files now, or a given one.

    Undoing an undo therefore brings back what was there before it.

    Returns:
        The version, and the unified diff that was applied.

    Raises:
        Misconfigured: SITE-1417 when there is none; SITE-1201 when it is damaged.
        SiteProblems: when that version would not be accepted today; nothing was written.
    """
    with site_lock(folder):
        for version in reversed(versions(folder)):
            if number and version.number != number:
                continue
            contents = read_version(version)
            before = {name: _read(folder, name) for name in contents}
            changed = {name: body for name, body in contents.items() if body != before[name]}
            if not changed and not number:
                continue
            load_site(folder.site_file, contents)
            diff = "".join(
                unified_diff(name, before[name] or b"", body)
                for name, body in sorted(changed.items())
            )
            if changed:
                write_files(folder, changed)
            return version, diff
    what = f"there is no version {number}" if number else "there is no earlier version"
    raise Misconfigured("SITE-1417", f"{what} of the site file", "See: headrace site undo --list")


def _read(folder: DataFolder, name: str) -> bytes | None:
    path = folder.root / name
    return path.read_bytes() if path.exists() else None


def unified_diff(name: str, before: bytes, after: bytes) -> str:
    """A unified diff of two contents of a file; of a spreadsheet only that it differs."""
    if not name.lower().endswith((".toml", ".csv", ".txt", ".tsv")):
        return f"{name}: {len(before)} -> {len(after)} bytes\n"
    old, new = (
        decode(name, body)[0].replace("\r\n", "\n").splitlines(keepends=True)
        for body in (before, after)
    )
    lines = difflib.unified_diff(old, new, f"a/{name}", f"b/{name}")
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _by_hand(why: str) -> Terminal:
    return Terminal(
        "SITE-1418",
        f"{_SITE} is written in a way that cannot be edited from here: {why}",
        "Make this change in a text editor.",
    )


def _blocks(text: str) -> list[tuple[Key, int, int]]:
    """(key, first line, line after the last) of each table with the comments right above it."""
    lines = text.splitlines(keepends=True)
    headers = header_lines(text)
    starts = []
    for number, _ in headers:
        start = number - 1
        while start and lines[start - 1].lstrip().startswith("#"):
            start -= 1
        starts.append(start)
    ends = [*starts[1:], len(lines)]
    return [(key, start, end) for (_, key), start, end in zip(headers, starts, ends, strict=True)]


def _is_csv(name: str) -> bool:
    return name.lower().endswith((".csv", ".txt", ".tsv"))


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else tomlkit.string(name).as_string()


def _toml_block(header: str, table: dict[str, Any]) -> str:
    lines = [header]
    for name, value in table.items():
        lines.append(f"{_key(name)} = {tomlkit.item(_inline(value)).as_string()}")
    return "\n" + "\n".join(lines) + "\n"


def _set_text(table: Any, text: str) -> None:
    if not text.strip():
        table.pop("formulas", None)
    else:
        table["formulas"] = text if type(table) is dict else multi_line(text)


def _set_state(table: Any, name: str, state: FormulaState) -> None:
    for word in ("shadow", "off"):
        names = list(table.get(word, []))
        wanted = [each for each in names if each != name] + ([name] if word == state else [])
        if wanted and wanted != names:
            table[word] = wanted
        elif names and not wanted:
            del table[word]


def _inline(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inline = tomlkit.inline_table()
    inline.update(value)
    return inline


def _tag_table(tag: Tag) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for field in FIELDS:
        value = getattr(tag, field)
        if value == DEFAULTS.get(field, object()) or field == "title_zh":
            continue
        if field == "title" and tag.title_zh:
            value = {"en": tag.title, "zh": tag.title_zh}
        table[field] = list(value) if isinstance(value, tuple) else value
    if tag.title_zh and not tag.title:
        table["title"] = {"zh": tag.title_zh}
    return table
