"""Reads a site file and its tag files, checks everything, and gives a frozen :class:`SiteModel`.

All problems are collected, not only the first; each names file, line, field and remedy. Nothing is
half accepted: either the whole file is right, or there is no model.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.edge.contract import ConnectorType
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import HeadraceError, Misconfigured
from headrace.security.secrets import reference
from headrace.site import sections
from headrace.site.app_package import InstalledApp, package_name, read_installed
from headrace.site.app_section import read_apps
from headrace.site.asset_sections import read_asset_types, read_assets
from headrace.site.calendar_section import read_calendar
from headrace.site.connectors import find_connector
from headrace.site.knowledge import check_formulas
from headrace.site.model import (
    Asset,
    Connection,
    Equipment,
    Problem,
    SiteModel,
    SiteProblems,
    Tag,
    level_of,
    parent_of,
)
from headrace.site.notes import Notes, near
from headrace.site.notify_section import known_names, read_notify
from headrace.site.protection_section import read_protections
from headrace.site.secret_words import secret_options
from headrace.site.tag_table import read_tag_table
from headrace.site.tags import TagChecks, TagColumns, from_table, from_toml
from headrace.site.zone_section import check_crossings, read_zones

_TOML_PLACE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class SiteFiles:
    """The bytes of a site file and its tag files, read once; ``overlay`` stands in for files.

    ``read`` holds what was read, ``named`` also the files that are not there.

    Args:
        path: the site file.
        overlay: name relative to the site file's folder -> content that is used instead.
    """

    def __init__(self, path: Path, overlay: Mapping[str, bytes] | None = None) -> None:
        self.path = path
        self.overlay = dict(overlay or {})
        self.read: dict[str, bytes] = {}
        self.named: list[str] = []
        self._packages: dict[str, InstalledApp] = {}

    def content(self, name: str) -> bytes:
        """Bytes of a file.

        Raises:
            Misconfigured: SITE-1001 when it is not there or cannot be read.
        """
        if name not in self.named:
            self.named.append(name)
        if name not in self.read:
            try:
                self.read[name] = (
                    self.overlay[name]
                    if name in self.overlay
                    else (self.path.parent / name).read_bytes()
                )
            except OSError as error:
                raise Misconfigured(
                    "SITE-1001",
                    f"{name} cannot be read: {error.strerror}",
                    "Create it in the folder of the site file, or correct its name.",
                ) from error
        return self.read[name]

    def package(self, app_id: str, version: str) -> InstalledApp:
        """An installed package; its file is watched as those that are read, and is none of the site's.

        Raises:
            Misconfigured: SITE-2101, SITE-2102. Corrupt: SITE-2103, SITE-2160. See :func:`read_installed`.
        """
        name = package_name(app_id, version)
        if name not in self.named:
            self.named.append(name)
        if name not in self._packages:
            self._packages[name] = read_installed(self.path.parent / name)
        return self._packages[name]

    def content_hash(self) -> str:
        """SHA-256 over names and bytes of all that was read, in hex."""
        digest = hashlib.sha256("".join(each.sha256 for each in self._packages.values()).encode())
        for name in sorted(self.named):
            content = self.read.get(name)
            digest.update(f"{name}\0{-1 if content is None else len(content)}\0".encode())
            digest.update(content or b"")
        return digest.hexdigest()


def load_site(path: Path, overlay: Mapping[str, bytes] | None = None) -> SiteModel:
    """The checked content of a site file.

    Args:
        path: the site file, usually ``site.toml``.
        overlay: contents to use instead of files, by name relative to the site file's folder; for
            checking an edit before it is written.

    Raises:
        SiteProblems: with every problem, when there is any.
    """
    model, problems = check_site(SiteFiles(path, overlay))
    if model is None:
        raise SiteProblems(problems)
    return model


def check_site(files: SiteFiles) -> tuple[SiteModel | None, list[Problem]]:
    """The model and no problems, or None and all problems, in the order of files and lines."""
    name = files.path.name
    notes = Notes(name)
    try:
        notes.text = files.content(name).decode("utf-8-sig")
        data = tomllib.loads(notes.text)
    except Misconfigured as error:
        notes.error(name, 1, "file", error)
        return None, notes.problems
    except UnicodeDecodeError as error:
        what = f"byte {error.start} is not UTF-8"
        notes.add(name, 1, "file", "SITE-1002", what, "Save the file in UTF-8.")
        return None, notes.problems
    except tomllib.TOMLDecodeError as error:
        _note_syntax(notes, name, str(error))
        return None, notes.problems
    except (RecursionError, ValueError):  # brackets without end; numbers of thousands of digits
        what = "the file is nested too deeply, or has a number that is too long"
        notes.add(name, 1, "file", "SITE-1002", what, "Write plain tables and lists.")
        return None, notes.problems
    for word in data:
        if word not in sections.SECTIONS:
            remedy = near(word, sections.SECTIONS)
            notes.at((word,), "SITE-1003", f"unknown section {word!r}", remedy)
    model = _read(notes, data, files)
    if not notes.problems:
        return model, []
    return None, _sorted(notes, files)


def _sorted(notes: Notes, files: SiteFiles) -> list[Problem]:
    order = {name: position for position, name in enumerate(files.read)}
    problems = sorted(notes.problems, key=lambda p: (order.get(p.file, 0), p.line))
    if notes.count > len(problems):
        more = notes.count - len(problems)
        what = f"there are {more} more problems"
        problems.append(
            Problem(notes.file, 1, "file", "SITE-1021", what, "Correct these, then check again.")
        )
    return problems


def _note_syntax(notes: Notes, name: str, text: str) -> None:
    place = _TOML_PLACE.search(text)
    line = int(place[1]) if place and place[1] else notes.text.count("\n") + 1
    what = f"this is no TOML: {_TOML_PLACE.sub('', text)}"
    remedy = 'Texts stand in quotation marks; a path in a header too: [asset."area/unit"].'
    if "Cannot" in text:
        remedy = "A key and a table stand once each: remove the second, or give it another name."
    notes.add(name, line, "file", "SITE-1002", what, remedy)


def _read(notes: Notes, data: dict[str, Any], files: SiteFiles) -> SiteModel:
    site = sections.read_site(notes, data)
    declared = sections.read_declared_equipment(notes, data)
    calendar = read_calendar(notes, data, site.get("time_zone", "UTC"))
    types = read_asset_types(notes, data, calendar)
    assets = read_assets(notes, data, types)
    groups = sections.read_groups(notes, data)
    connections = sections.read_connections(notes, data)
    columns = [from_toml(notes, data)] if "tag" in data else []
    columns += _tag_files(notes, site["tag_files"], files)
    checks = TagChecks(notes, columns)
    checks.paths()
    checks.references([each.name for each in connections], [each.name for each in groups])
    checks.numbers()
    checks.units(assets, types)
    _check_devices(notes, connections, columns)
    tags = tuple(tag for each in columns for tag in each.tags)
    _check_places(notes, declared, assets, tags)
    equipment = _equipment(declared, assets, tags)
    zones = read_zones(notes, data, equipment, connections, groups)
    check_crossings(notes, zones, connections, tags)
    known = known_names(types, [each.path for each in equipment], calendar)
    titles = site.get("title") or site["name"], site.get("title_zh", "")
    model = SiteModel(
        **site,
        equipment=equipment,
        asset_types=tuple(types),
        assets=tuple(asset for asset in assets if asset.type in {kind.name for kind in types}),
        groups=tuple(groups),
        connections=tuple(connections),
        tags=tags,
        calendar=calendar,
        notify=read_notify(notes, data, titles, known),
        protections=read_protections(notes, data, tags, connections),
        zones=zones,
    )
    apps = read_apps(notes, data, model, files.package) if "app" in data else ()
    return check_formulas(notes, msgspec.structs.replace(model, apps=apps), columns)


def _tag_files(notes: Notes, names: tuple[str, ...], files: SiteFiles) -> list[TagColumns]:
    found = []
    for position, name in enumerate(names):
        try:
            content = files.content(name)
        except Misconfigured as error:
            place = ("site", "tag_files", position)
            notes.error(notes.file, notes.line_of(place), "site.tag_files", error)
            continue
        try:
            found.append(from_table(notes, read_tag_table(name, content)))
        except Misconfigured as error:
            line = re.match(r"line (\d+) ", error.what)
            notes.error(name, int(line[1]) if line else 1, "file", error)
    return found


def _check_places(
    notes: Notes, declared: list[Equipment], assets: list[Asset], tags: tuple[Tag, ...]
) -> None:
    paths = {tag.path for tag in tags}
    keys = [("asset", asset.path) for asset in assets]
    keys += [(item.level, item.path) for item in declared]
    for key in keys:
        if key[1] in paths:
            what = f"{key[1]} is equipment, and a tag has this path too"
            notes.at(key, "SITE-1007", what, "A path is either equipment or a tag: rename one.")


def _equipment(
    declared: list[Equipment], assets: list[Asset], tags: tuple[Tag, ...]
) -> tuple[Equipment, ...]:
    """Everything that was declared, that assets are, and that paths imply; sorted by path."""
    titles = {asset.path: (asset.title, asset.title_zh) for asset in assets}
    titles |= {item.path: (item.title, item.title_zh) for item in declared if item.title}
    places = {parent_of(tag.path) for tag in tags} | titles.keys()
    places |= {item.path for item in declared}
    for place in tuple(places):
        while place := parent_of(place):
            places.add(place)
    found = []
    for path in sorted(places):
        title, title_zh = titles.get(path, ("", ""))
        found.append(Equipment(path=path, level=level_of(path), title=title, title_zh=title_zh))
    return tuple(found)


def tag_config(tag: Tag, tag_id: int) -> TagConfig:
    """A declared tag as an edge needs it."""
    return TagConfig(
        tag_id=tag_id,
        path=tag.path,
        address=tag.address,
        scan_interval_ms=tag.scan_interval_ms,
        scale=tag.scale,
        offset=tag.offset,
        deadband=tag.deadband,
        unit=tag.unit,
        group=tag.group,
        writable=tag.writable,
        write_minimum=tag.write_minimum,
        write_maximum=tag.write_maximum,
        sample_interval_us=tag.sample_interval_us,
    )


def connection_config(connection: Connection, tags: tuple[TagConfig, ...] = ()) -> ConnectionConfig:
    """A declared connection as an edge needs it."""
    return ConnectionConfig(
        name=connection.name,
        protocol=connection.protocol,
        endpoint=connection.endpoint,
        options=connection.options,
        tags=tags,
        enabled=connection.enabled,
    )


def _check_devices(notes: Notes, connections: list[Connection], columns: list[TagColumns]) -> None:
    """Each connection and each tag's address by the connector's own checks."""
    connectors: dict[str, ConnectorType] = {}
    for connection in connections:
        key = ("connection", connection.name)
        if not connection.protocol:
            continue
        try:
            connector = find_connector(connection.protocol)
        except Misconfigured as error:
            notes.error(
                notes.file, notes.line_of((*key, "protocol")), _field(key, "protocol"), error
            )
            continue
        connectors[connection.name] = connector
        if not connection.endpoint:
            continue
        known = _check_options(notes, connection, connector)
        try:
            connector.check_connection(connection_config(known))
        except HeadraceError as error:
            field = _named_field(error, connection)
            notes.error(notes.file, notes.line_of((*key, *field)), _field(key, *field), error)
    for each in columns:
        for line, tag in zip(each.lines, each.tags, strict=True):
            found = connectors.get(tag.connection)
            if found is None or not tag.address:
                continue
            try:
                found.check_tag(tag_config(tag, 0))
            except HeadraceError as error:
                notes.error(each.file, each.line_of(notes, line, "address"), "address", error)


def _field(key: tuple[str, ...], *more: str) -> str:
    return ".".join((*key, *more))


def _check_options(notes: Notes, connection: Connection, connector: ConnectorType) -> Connection:
    """Note options that the connector does not have; the connection without them."""
    known = [field.encode_name for field in msgspec.structs.fields(connector.options)]
    for word in connection.options:
        if word not in known:
            key = ("connection", connection.name, "options", word)
            what = f"unknown option {word!r} of {connection.protocol}"
            notes.at(key, "SITE-1003", what, near(word, known))
    secret = secret_options(connector.options)
    for word, value in connection.options.items():
        if reference(value) is not None and word in known and word not in secret:
            key = ("connection", connection.name, "options", word)
            what = f"{word} of {connection.protocol} cannot name a secret"
            notes.at(key, "SEC-1518", what, f"These can: {', '.join(sorted(secret)) or 'none'}.")
    options = {word: value for word, value in connection.options.items() if word in known}
    return msgspec.structs.replace(connection, options=options)


def _named_field(error: HeadraceError, connection: Connection) -> tuple[str, ...]:
    """The option that a connector's message names, else the options or the endpoint."""
    for word in connection.options:
        if re.search(rf"\b{re.escape(word)}\b", error.what):
            return ("options", word)
    return ("options",) if "option" in error.what else ("endpoint",)
