"""The tag registry: permanent ids, and what each tag was called and where it came from, when.

One writer (the keeper, or a CLI command) applies a checked site file in one transaction; any number of
processes read. A tag that leaves the file is retired, not deleted, and has the same id when it returns
at the same path. A tag that names its earlier path in ``was`` goes on with that tag's id and history.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from sqlalchemy import Select, func, select
from sqlalchemy.engine import Connection, RowMapping
from sqlalchemy.exc import DatabaseError

from headrace.model.calendar import PlantCalendar
from headrace.model.errors import Corrupt, Misconfigured, Terminal, Transient
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig
from headrace.security.database import metadata_url, open_engine, shown
from headrace.security.files import make_folder
from headrace.site import schema
from headrace.site.app_places import AppPlace
from headrace.site.apply import APPS_ROW, Changes, app_places, apply_model, read_knowledge
from headrace.site.knowledge import FormulaVersion
from headrace.site.model import DERIVED, Level, SiteModel, parent_of

_WILD: Final = re.compile(r"[*?\[]")


class TagRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A tag as it is now.

    Attributes:
        tag_id: permanent 63-bit id.
        path, name: ``area/work_center/work_unit/name``, and its last part.
        title, title_zh: for people; may be empty.
        group: tag group, for retention.
        asset, asset_type: path and type of the nearest asset it lies in; "" when there is none.
        edge: where its connection runs.
        retired: it left the site file; its history stays.
    """

    tag_id: int
    path: str
    name: str
    unit: str
    title: str
    title_zh: str
    description: str
    connection: str
    address: str
    group: str
    asset: str
    asset_type: str
    edge: str
    scan_interval_ms: int
    sample_interval_us: int
    writable: bool
    write_minimum: float | None
    write_maximum: float | None
    retired: bool

    @property
    def derived(self) -> bool:
        """A formula gives it; ``address`` says which."""
        return self.connection == DERIVED


class TagVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a tag was from ``valid_from_us`` (UTC microseconds) until its next version."""

    tag_id: int
    valid_from_us: int
    path: str
    name: str
    place: str
    unit: str
    connection: str
    address: str
    retired: bool


class EquipmentNode(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of equipment with what lies below it; the root is the site, with the empty path.

    Attributes:
        tags: number of tags directly here; ``tags_below`` counts those of all children too.
    """

    path: str
    name: str
    level: Level
    title: str
    title_zh: str
    asset_type: str
    tags: int
    tags_below: int
    children: tuple[EquipmentNode, ...] = ()


class SiteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The site that this database belongs to, and the version of its file that was applied last."""

    enterprise: str
    name: str
    title: str
    title_zh: str
    time_zone: str
    content_hash: str
    applied_us: int
    revision: int


class ConnectionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A connection as the applied site file declares it."""

    name: str
    protocol: str
    endpoint: str
    edge: str
    enabled: bool
    title: str
    title_zh: str
    options: dict[str, Any]


class AssetTypeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An asset type, with the unit of each of its quantities."""

    name: str
    title: str
    title_zh: str
    quantities: dict[str, str]


class Registry:
    """The metadata database, as far as it belongs to the site.

    Args:
        url: SQLAlchemy URL, ``sqlite:////srv/headrace/metadata.db`` or ``postgresql+psycopg://...``.
        patience_s: how long a call waits for another process that is writing.

    Raises:
        Terminal: SITE-1101 when it cannot be opened.
        Corrupt: SITE-1102 when the file is no database.
        Misconfigured: SEC-1203 when the URL or its driver cannot be used.

    Example:
        >>> Registry("sqlite://").find("*")
        []
    """

    def __init__(self, url: str, *, patience_s: float = 10.0) -> None:
        try:
            self._engine = open_engine(url, schema.METADATA, patience_s)
        except DatabaseError as error:
            if "not a database" in str(error):
                raise Corrupt(
                    "SITE-1102",
                    f"{shown(url)} is not a database, or it is damaged",
                    "Put it back from a backup; tag ids live there.",
                ) from error
            raise Terminal(
                "SITE-1101",
                f"the metadata database {shown(url)} cannot be opened: {error.orig}",
                "See whether its folder exists and may be written.",
            ) from error
        self._cached: tuple[int, list[TagRecord]] = (-1, [])

    @classmethod
    def of(cls, folder: DataFolder) -> Registry:
        """The registry of a data folder, made when it is not there."""
        make_folder(folder.root)
        return cls(metadata_url(folder))

    def close(self) -> None:
        """Close its connections to the database."""
        self._engine.dispose()

    def apply(self, model: SiteModel, now_us: int) -> Changes:
        """Make the database say what the site file says, in one transaction.

        Args:
            now_us: UTC microseconds; new versions are valid from then on.

        Raises:
            Misconfigured: SITE-1103 when the database belongs to another site; SITE-1104 when two
                tags claim one history. Nothing was changed.
            Transient: SITE-1106 when the database is locked or its disk is full; nothing was changed.
        """
        with self._connect(write=True) as connection:
            return apply_model(connection, model, now_us)

    @contextmanager
    def _connect(self, *, write: bool = False) -> Iterator[Connection]:
        """One transaction; what the database says becomes an error of ours."""
        try:
            with self._engine.execution_options(immediate=write).begin() as connection:
                yield connection
        except DatabaseError as error:
            raise Transient(
                "SITE-1106",
                f"the metadata database does not answer: {error.orig}",
                "See its disk and who holds it; it is tried again.",
            ) from error

    def site(self) -> SiteRecord | None:
        """The site, or None when no site file was applied yet."""
        with self._connect() as connection:
            row = connection.execute(select(schema.SITE)).mappings().first()
        return SiteRecord(**row) if row else None

    def find(self, pattern: str = "*", include_retired: bool = False) -> list[TagRecord]:
        """Tags whose path matches, sorted by path.

        Args:
            pattern: a glob over paths: ``*`` and ``?`` stay within a name, ``**`` crosses ``/``,
                ``[a-f]`` is one of. Without a ``/`` it is matched against the last name, at any depth.
                When no current path matches, earlier paths are tried.
            include_retired: also tags that left the site file.

        Raises:
            Misconfigured: SITE-1105 when the pattern is empty or no glob.
        """
        matches = compile_pattern(pattern)
        records = [record for record in self._records() if include_retired or not record.retired]
        found = [record for record in records if matches.match(record.path)]
        if found:
            return found
        former = self._ids_of_former(pattern, matches)
        return [record for record in records if record.tag_id in former]

    def _ids_of_former(self, pattern: str, matches: re.Pattern[str]) -> set[int]:
        version = schema.TAG_VERSION.c
        query = select(version.tag_id, version.path).distinct()
        if not _WILD.search(pattern) and "/" in pattern:
            query = query.where(version.path == pattern)
        with self._connect() as connection:
            return {row[0] for row in connection.execute(query) if matches.match(row[1])}

    def tag(self, tag_id: int) -> TagRecord | None:
        """The tag with this id, retired or not."""
        query = _tag_query().where(schema.TAG.c.tag_id == tag_id)
        with self._connect() as connection:
            row = connection.execute(query).mappings().first()
        return _record(row) if row else None

    def versions(self, tag_id: int) -> list[TagVersion]:
        """What the tag was, oldest first."""
        version = schema.TAG_VERSION
        query = select(version).where(version.c.tag_id == tag_id).order_by(version.c.valid_from_us)
        with self._connect() as connection:
            return [TagVersion(**row) for row in connection.execute(query).mappings()]

    def ids(self) -> dict[str, int]:
        """Path -> tag_id of all tags that are not retired."""
        return {record.path: record.tag_id for record in self._records() if not record.retired}

    def tags_of(self, equipment_path: str) -> list[TagRecord]:
        """Tags at a piece of equipment or below it, sorted by path; "" is the whole site."""
        prefix = f"{equipment_path}/" if equipment_path else ""
        return [
            record
            for record in self._records()
            if not record.retired and record.path.startswith(prefix)
        ]

    def equipment(self) -> EquipmentNode:
        """The equipment tree; its root is the site."""
        query = select(schema.EQUIPMENT).where(schema.EQUIPMENT.c.retired_us.is_(None))
        with self._connect() as connection:
            rows = connection.execute(query.order_by(schema.EQUIPMENT.c.path)).mappings().all()
        site = self.site()
        counts: dict[str, int] = {}
        for record in self._records():
            if not record.retired:
                place = parent_of(record.path)
                counts[place] = counts.get(place, 0) + 1
        below: dict[str, list[RowMapping]] = {}
        for row in rows:
            below.setdefault(parent_of(row["path"]), []).append(row)
        root = {
            "path": "",
            "level": "site",
            "title": site.title if site else "",
            "title_zh": site.title_zh if site else "",
            "asset_type": "",
        }
        return _node(root, site.name if site else "", below, counts)

    def connections(self) -> list[ConnectionRecord]:
        """Connections of the applied site file, sorted by name."""
        table = schema.CONNECTION
        query = select(table).where(table.c.retired_us.is_(None)).order_by(table.c.name)
        with self._connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [ConnectionRecord(**_without_retired(row)) for row in rows]

    def asset_types(self) -> list[AssetTypeRecord]:
        """Asset types of the applied site file, sorted by name."""
        table = schema.ASSET_TYPE
        query = select(table).where(table.c.retired_us.is_(None)).order_by(table.c.name)
        with self._connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [AssetTypeRecord(**_without_retired(row)) for row in rows]

    def apps(self) -> AppsConfig | None:
        """What the apps role runs; None when no site file was applied yet."""
        with self._connect() as connection:
            found = read_knowledge(connection, APPS_ROW)
        if found:
            return msgspec.json.decode(found, type=AppsConfig)
        site = self.site()  # applied before formulas stood in site files
        if site is None:
            return None
        calendar = PlantCalendar(time_zone=site.time_zone)
        return AppsConfig(enterprise=site.enterprise, site=site.name, calendar=calendar)

    def app_places(self) -> dict[str, AppPlace]:
        """Word of each installed app -> where it is placed, and since when."""
        with self._connect() as connection:
            return app_places(connection)

    def formula_versions(self, asset_type: str = "", name: str = "") -> list[FormulaVersion]:
        """Versions of formulas, oldest first; of one formula, of a type's, or of all."""
        table = schema.FORMULA_VERSION
        query = select(table).order_by(table.c.asset_type, table.c.name, table.c.version)
        for column, wanted in ((table.c.asset_type, asset_type), (table.c.name, name)):
            query = query.where(column == wanted) if wanted else query
        with self._connect() as connection:
            return [FormulaVersion(**row) for row in connection.execute(query).mappings()]

    def edges(self) -> list[str]:
        """Every edge that ever had a connection, also those that have none any more."""
        with self._connect() as connection:
            return sorted(connection.execute(select(schema.EDGE.c.name)).scalars())

    def _records(self) -> list[TagRecord]:
        """All tags, sorted by path; read again only when a site file was applied since."""
        with self._connect() as connection:
            revision = _revision(connection)
            if revision != self._cached[0]:
                query = _tag_query().order_by(
                    schema.TAG.c.path, schema.TAG.c.retired_us.nulls_first()
                )
                rows = connection.execute(query).mappings()
                self._cached = (revision, [_record(row) for row in rows])
        return self._cached[1]


def _revision(connection: Connection) -> int:
    return int(
        connection.execute(select(func.coalesce(func.max(schema.SITE.c.revision), 0))).scalar_one()
    )


def _tag_query() -> Select[Any]:
    place = schema.CONNECTION
    return select(schema.TAG, place.c.edge).join_from(
        schema.TAG, place, schema.TAG.c.connection == place.c.name, isouter=True
    )


def _record(row: RowMapping) -> TagRecord:
    return TagRecord(
        tag_id=row["tag_id"],
        path=row["path"],
        name=row["path"].rpartition("/")[2],
        unit=row["unit"],
        title=row["title"],
        title_zh=row["title_zh"],
        description=row["description"],
        connection=row["connection"],
        address=row["address"],
        group=row["tag_group"],
        asset=row["asset"],
        asset_type=row["asset_type"],
        edge=row["edge"] or "",
        scan_interval_ms=row["scan_interval_ms"],
        sample_interval_us=row["sample_interval_us"],
        writable=row["writable"],
        write_minimum=row["write_minimum"],
        write_maximum=row["write_maximum"],
        retired=row["retired_us"] is not None,
    )


def _without_retired(row: RowMapping) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "retired_us"}


def _node(
    row: Any, name: str, below: dict[str, list[RowMapping]], counts: dict[str, int]
) -> EquipmentNode:
    path = row["path"]
    children = tuple(
        _node(child, child["path"].rpartition("/")[2], below, counts)
        for child in below.get(path, [])
    )
    tags = counts.get(path, 0)
    return EquipmentNode(
        path=path,
        name=name,
        level=row["level"],
        title=row["title"],
        title_zh=row["title_zh"],
        asset_type=row["asset_type"],
        tags=tags,
        tags_below=tags + sum(child.tags_below for child in children),
        children=children,
    )


PATTERN_MAX: Final = 500
WILDCARDS_MAX: Final = 8


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The expression that a glob over paths means.

    Raises:
        Misconfigured: SITE-1105 when it is empty or no glob, or has more than eight wildcards: each may end
            anywhere, and trying all ends of many takes longer than anybody waits.

    Example:
        >>> bool(compile_pattern("utilities/**/flow").match("utilities/pumping/pump_1/flow"))
        True
        >>> bool(compile_pattern("utilities/*").match("utilities/pumping/pump_1/flow"))
        False
    """
    found = re.findall(
        r"(?:\*\*/)+|\*{2,}|\*|\?|\[[^\]]*\]|[^*?\[]+|\[", pattern[: PATTERN_MAX + 1]
    )
    # Wildcards in a row mean one; as an expression they would be tried in every combination.
    parts = [
        "**/" if part.startswith("**/") else part[:2] if part[:2] == "**" else part
        for part in found
    ]
    wildcards = sum(part in ("*", "**", "**/") for part in parts)
    out = "" if "/" in pattern else r"(?:.*/)?"
    for part in parts:
        if part == "**/":
            out += r"(?:[^/]+/)*"
        elif part == "**":
            out += ".*"
        elif part == "*":
            out += "[^/]*"
        elif part == "?":
            out += "[^/]"
        elif part.startswith("[") and len(part) > 2:
            out += f"[{part[1:-1].replace('!', '^', 1).replace(chr(92), '')}]"
        else:
            out += re.escape(part)
    try:
        if pattern and len(pattern) <= PATTERN_MAX and wildcards <= WILDCARDS_MAX:
            return re.compile(out + r"\Z")
    except re.error:
        pass
    raise Misconfigured(
        "SITE-1105",
        f"{pattern[:80]!r} is no pattern of tag paths",
        "Write for example utilities/**/flow, or * for all.",
    )
