"""Brings the registry's tables to what a site file says: who is who, what changed, what is new.

Pure bookkeeping over dictionaries between one read and one write of each table; the caller holds the
transaction, so a crash leaves the old state or the new one.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Table, bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection

from headrace.model.errors import Misconfigured
from headrace.model.knowledge import AppsConfig
from headrace.site import schema
from headrace.site.app_places import AppPlace, next_places
from headrace.site.knowledge import FormulaVersion, apps_config, next_versions
from headrace.site.model import DERIVED, SiteModel, Tag, nearest_asset
from headrace.site.placement import with_moves
from headrace.site.secret_words import without_secrets

_TAG_COLUMNS = tuple(column.name for column in schema.TAG.columns)
APPS_ROW = "apps"
PLACES_ROW = "app_places"
_VERSIONED = ("path", "unit", "connection", "address")


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What applying a site file changed; paths, sorted.

    Attributes:
        renamed: (earlier path, path).
        returned: were retired and have their id and history again.
        changed: same path, other settings.
        connections: names of connections that were added, changed or removed.
        formulas: ``asset type.name`` of formulas that came, left or have another text.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    returned: tuple[str, ...] = ()
    retired: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    formulas: tuple[str, ...] = ()
    other: bool = False

    @property
    def is_empty(self) -> bool:
        """Nothing at all was changed."""
        lists = (self.added, self.changed, self.renamed, self.returned, self.retired)
        return not any((*lists, self.connections, self.formulas, self.other))

    def summary(self) -> str:
        """One line for people, such as ``3 tags added, 1 renamed``."""
        words = ("added", "changed", "renamed", "returned", "retired")
        parts = [f"{len(getattr(self, word))} {word}" for word in words if getattr(self, word)]
        told = ["tags: " + ", ".join(parts)] if parts else []
        told += [f"connections: {', '.join(self.connections)}"] if self.connections else []
        told += [f"formulas: {', '.join(self.formulas)}"] if self.formulas else []
        text = "; ".join(told)
        return text or ("titles or settings of the site" if self.other else "nothing")


class _Known(msgspec.Struct):
    """What the database knows of tags."""

    rows: dict[int, dict[str, Any]]
    active: dict[str, int]
    retired: dict[str, int]
    former: dict[int, set[str]]
    last_version_us: dict[int, int]


def apply_model(connection: Connection, model: SiteModel, now_us: int) -> Changes:
    """See :meth:`headrace.site.registry.Registry.apply`; inside its transaction."""
    site = connection.execute(select(schema.SITE)).mappings().first()
    if site is not None:
        require_same_site(site["enterprise"], site["name"], model)
    known = _read_known(connection)
    ids = _identify((*model.tags, *model.derived), known)
    changes = _write_tags(connection, model, ids, known, now_us)
    connections = _write_connections(connection, model, now_us)
    other = _write_equipment(connection, model, now_us)
    other |= _write_asset_types(connection, model, now_us)
    formulas, differs = _write_knowledge(connection, model, ids, now_us)
    changes = msgspec.structs.replace(
        changes, connections=connections, formulas=formulas, other=other or differs
    )
    _write_site(connection, model, dict(site) if site else None, now_us, changes)
    return changes


def require_same_site(enterprise: str, name: str, model: SiteModel) -> None:
    """A data folder is one site's for good.

    Raises:
        Misconfigured: SITE-1103 when the model is of another one.
    """
    if (enterprise, name) != (model.enterprise, model.name):
        raise Misconfigured(
            "SITE-1103",
            f"this data folder belongs to the site {enterprise}/{name}, "
            f"the site file is of {model.enterprise}/{model.name}",
            "Put the name back, or start the other site in its own data folder.",
        )


def _read_known(connection: Connection) -> _Known:
    known = _Known({}, {}, {}, {}, {})
    for row in connection.execute(
        select(schema.TAG).order_by(schema.TAG.c.retired_us.nulls_first())
    ).mappings():
        tag_id, path = row["tag_id"], row["path"]
        known.rows[tag_id] = dict(row)
        (known.active if row["retired_us"] is None else known.retired)[path] = tag_id
    version = schema.TAG_VERSION.c
    query = select(version.tag_id, version.path, version.valid_from_us)
    for tag_id, path, valid_from_us in connection.execute(query):
        known.former.setdefault(tag_id, set()).add(path)
        known.last_version_us[tag_id] = max(known.last_version_us.get(tag_id, 0), valid_from_us)
    return known


def _identify(tags: tuple[Tag, ...], known: _Known) -> list[int]:
    """The id of each tag: its own, that of its earlier path, the retired one's, or a new one."""
    holders: dict[int, str] = {}
    ids = _claimed(tags, known, holders)
    leaving = _leaving(tags, known, holders)
    for position, tag in enumerate(tags):
        if not ids[position]:
            tag_id = known.active.get(tag.path) or known.retired.get(tag.path, 0)
            ids[position] = tag_id or leaving.get(tag.path) or _new_id(known, holders)
            _claim(holders, ids[position], tag)
    return ids


def _leaving(tags: tuple[Tag, ...], known: _Known, holders: dict[int, str]) -> dict[str, int]:
    """Earlier path -> id of a tag whose present path leaves the file now.

    A rename that is taken back (an undo) has no `was`: the earlier path is simply there again.
    """
    paths = {tag.path for tag in tags}
    found: dict[str, int] = {}
    for path, tag_id in known.active.items():
        if path not in paths and tag_id not in holders:
            for former in known.former.get(tag_id, set()) - {path}:
                # Of two that had this path, nobody can say which is meant: neither is taken.
                found[former] = 0 if former in found else tag_id
    return found


def _claimed(tags: tuple[Tag, ...], known: _Known, holders: dict[int, str]) -> list[int]:
    """Ids that tags ask for by ``id`` or ``was``; 0 for those that ask for none.

    They claim before the others, so that a tag that stays at a claimed path is refused and not given
    the history. A `was` that was obeyed before is no claim, unless its tag's own id is claimed now.
    """
    ids = [0] * len(tags)
    open_claims = []
    for position, tag in enumerate(tags):
        if tag.id:
            _claim(holders, tag.id, tag)
            ids[position] = tag.id
        elif tag.was:
            open_claims.append(position)
    went_on = True
    while went_on:
        went_on = False
        for position in tuple(open_claims):
            tag = tags[position]
            if not _is_settled(tag, known, holders):
                open_claims.remove(position)
                went_on = True
                ids[position] = _earlier_id(tag, known)
                if ids[position]:
                    _claim(holders, ids[position], tag)
    return ids


def _is_settled(tag: Tag, known: _Known, holders: dict[int, str]) -> bool:
    here = known.active.get(tag.path, 0)
    return (
        here != 0 and here not in holders and not known.former.get(here, set()).isdisjoint(tag.was)
    )


def _earlier_id(tag: Tag, known: _Known) -> int:
    """The id at the newest of its earlier paths that is known, 0 when none is (a new installation)."""
    for old in reversed(tag.was):
        tag_id = known.active.get(old) or known.retired.get(old)
        # Nobody wrote the `was` of a derived tag: it takes no measured history.
        if tag_id and (tag.connection != DERIVED or known.rows[tag_id]["connection"] == DERIVED):
            return tag_id
    return 0


def _claim(holders: dict[int, str], tag_id: int, tag: Tag) -> None:
    other = holders.setdefault(tag_id, tag.path)
    if other != tag.path:
        raise Misconfigured(
            "SITE-1104",
            f"{other} and {tag.path} both claim the history of one tag",
            f"Remove `was` (or `id`) from one of them, or remove the tag {tag.path}.",
        )


def _new_id(known: _Known, holders: dict[int, str]) -> int:
    while True:
        tag_id = secrets.randbits(63)
        if tag_id and tag_id not in known.rows and tag_id not in holders:
            return tag_id


def _tag_rows(model: SiteModel, ids: list[int]) -> list[dict[str, Any]]:
    by_path = {asset.path: asset for asset in model.assets}
    rows = []
    for tag_id, tag in zip(ids, (*model.tags, *model.derived), strict=True):
        asset = nearest_asset(tag.path, by_path) if by_path else None
        rows.append(
            {
                "tag_id": tag_id,
                "path": tag.path,
                "connection": tag.connection,
                "address": tag.address,
                "unit": tag.unit,
                "title": tag.title,
                "title_zh": tag.title_zh,
                "description": tag.description,
                "scan_interval_ms": tag.scan_interval_ms,
                "scale": tag.scale,
                "offset": tag.offset,
                "deadband": tag.deadband,
                "tag_group": tag.group,
                "writable": tag.writable,
                "write_minimum": tag.write_minimum,
                "write_maximum": tag.write_maximum,
                "sample_interval_us": tag.sample_interval_us,
                "asset": asset.path if asset else "",
                "asset_type": asset.type if asset else "",
                "retired_us": None,
            }
        )
    return rows


def _write_tags(
    connection: Connection, model: SiteModel, ids: list[int], known: _Known, now_us: int
) -> Changes:
    lists: dict[str, list[Any]] = {
        name: [] for name in ("added", "changed", "renamed", "returned", "retired")
    }
    new, altered, versions = [], [], []
    for row in _tag_rows(model, ids):
        before = known.rows.get(row["tag_id"])
        if before is None:
            new.append({**row, "created_us": now_us})
            lists["added"].append(row["path"])
            versions.append(_version(row, known, now_us))
            continue
        if all(before[name] == value for name, value in row.items()):
            continue
        altered.append(row)
        if before["retired_us"] is not None:
            lists["returned"].append(row["path"])
        if before["path"] != row["path"]:
            lists["renamed"].append((before["path"], row["path"]))
        elif before["retired_us"] is None:
            lists["changed"].append(row["path"])
        differs = any(before[name] != row[name] for name in _VERSIONED)
        if differs or before["retired_us"] is not None:
            versions.append(_version(row, known, now_us))
    for tag_id in set(known.active.values()) - set(ids):
        row = {**known.rows[tag_id], "retired_us": now_us}
        altered.append({name: row[name] for name in _TAG_COLUMNS if name != "created_us"})
        lists["retired"].append(row["path"])
        versions.append(_version(row, known, now_us))
    _insert(connection, schema.TAG, new)
    _update(connection, schema.TAG, "tag_id", altered)
    _insert(connection, schema.TAG_VERSION, versions)
    return msgspec.convert({name: sorted(found) for name, found in lists.items()}, Changes)


def _version(row: dict[str, Any], known: _Known, now_us: int) -> dict[str, Any]:
    place, _, name = row["path"].rpartition("/")
    # A clock that was set back must not write over, or before, the version that is there.
    valid_from_us = max(now_us, known.last_version_us.get(row["tag_id"], 0) + 1)
    return {
        "tag_id": row["tag_id"],
        "valid_from_us": valid_from_us,
        "path": row["path"],
        "name": name,
        "place": place,
        "unit": row["unit"],
        "connection": row["connection"],
        "address": row["address"],
        "retired": row["retired_us"] is not None,
    }


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def _update(connection: Connection, table: Table, key: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        statement = update(table).where(table.c[key] == bindparam("this_key"))
        named = [
            {("this_key" if name == key else name): value for name, value in row.items()}
            for row in rows
        ]
        names = [name for name in rows[0] if name != key]
        connection.execute(statement.values({name: bindparam(name) for name in names}), named)


def _replace(
    connection: Connection, table: Table, key: str, rows: Iterable[dict[str, Any]], now_us: int
) -> list[str]:
    """Make a table hold these rows; what is gone gets ``retired_us``. Gives the keys that changed."""
    known = {row[key]: dict(row) for row in connection.execute(select(table)).mappings()}
    wanted = {row[key]: {**row, "retired_us": None} for row in rows}
    gone = [
        {**row, "retired_us": now_us}
        for name, row in known.items()
        if name not in wanted and row["retired_us"] is None
    ]
    new = [row for name, row in wanted.items() if name not in known]
    changed = [row for name, row in wanted.items() if name in known and known[name] != row]
    _insert(connection, table, new)
    _update(connection, table, key, changed + gone)
    return sorted(row[key] for row in (*new, *changed, *gone))


def _write_connections(connection: Connection, model: SiteModel, now_us: int) -> tuple[str, ...]:
    # A secret that stands in clear in the site file is not written down a second time.
    rows = (
        {**msgspec.to_builtins(item), "options": without_secrets(item.options)}
        for item in model.connections
    )
    known = set(connection.execute(select(schema.EDGE.c.name)).scalars())
    edges = sorted({item.edge for item in model.connections} - known)
    _insert(connection, schema.EDGE, [{"name": edge} for edge in edges])
    return tuple(_replace(connection, schema.CONNECTION, "name", rows, now_us))


def _write_equipment(connection: Connection, model: SiteModel, now_us: int) -> bool:
    types = {asset.path: asset.type for asset in model.assets}
    rows = (
        {**msgspec.to_builtins(item), "asset_type": types.get(item.path, "")}
        for item in model.equipment
    )
    return bool(_replace(connection, schema.EQUIPMENT, "path", rows, now_us))


def _write_asset_types(connection: Connection, model: SiteModel, now_us: int) -> bool:
    names = [column.name for column in schema.ASSET_TYPE.columns if column.name != "retired_us"]
    rows = ({name: getattr(item, name) for name in names} for item in model.asset_types)
    return bool(_replace(connection, schema.ASSET_TYPE, "name", rows, now_us))


def newest_versions(connection: Connection) -> dict[tuple[str, str], FormulaVersion]:
    """Of each formula that ever was the newest version."""
    table = schema.FORMULA_VERSION
    rows = connection.execute(select(table).order_by(table.c.version)).mappings()
    return {(row["asset_type"], row["name"]): FormulaVersion(**row) for row in rows}


def _write_knowledge(
    connection: Connection, model: SiteModel, ids: list[int], now_us: int
) -> tuple[tuple[str, ...], bool]:
    """Versions of formulas, and what the apps role runs: formulas that changed, and whether it did."""
    known = newest_versions(connection)
    table = schema.FORMULA_VERSION
    changed = next_versions(known, model, now_us)
    for version in changed:
        key = (version.asset_type, version.name)
        row = version._asdict()
        if key in known and known[key].version == version.version:
            which = (table.c[name] == row[name] for name in ("asset_type", "name", "version"))
            connection.execute(update(table).where(*which).values(row))
        else:
            _insert(connection, table, [row])
        known[key] = version
    paths = (tag.path for tag in (*model.tags, *model.derived))
    before = read_knowledge(connection, APPS_ROW)
    last = msgspec.json.decode(before, type=AppsConfig) if before else None
    config = apps_config(model, dict(zip(paths, ids, strict=True)), known)
    config = with_moves(config, last, now_us)
    names = tuple(sorted(f"{each.asset_type}.{each.name}" for each in changed))
    places = next_places(model, app_places(connection), now_us)
    moved = _keep_knowledge(connection, PLACES_ROW, places)
    return names, _keep_knowledge(connection, APPS_ROW, config) or moved


def app_places(connection: Connection) -> dict[str, AppPlace]:
    """Word of each installed app -> where it is placed, and since when."""
    found = read_knowledge(connection, PLACES_ROW)
    return msgspec.json.decode(found, type=dict[str, AppPlace]) if found else {}


def read_knowledge(connection: Connection, key: str) -> str | None:
    """JSON of a row of the table of knowledge; None when there is none."""
    table = schema.KNOWLEDGE
    found: str | None = connection.execute(
        select(table.c.config).where(table.c.key == key)
    ).scalar()
    return found


def _keep_knowledge(connection: Connection, key: str, what: object) -> bool:
    """Write a row where it differs; gives whether it did."""
    config = msgspec.json.encode(what, order="sorted").decode()
    before = read_knowledge(connection, key)
    if before == config or (before is None and not what):
        return False
    table = schema.KNOWLEDGE
    connection.execute(delete(table).where(table.c.key == key))
    _insert(connection, table, [{"key": key, "config": config}])
    return True


def _write_site(
    connection: Connection,
    model: SiteModel,
    before: dict[str, Any] | None,
    now_us: int,
    changes: Changes,
) -> None:
    content_hash = model.content_hash()
    if before is not None and before["content_hash"] == content_hash and changes.is_empty:
        return
    row = {
        "enterprise": model.enterprise,
        "name": model.name,
        "title": model.title,
        "title_zh": model.title_zh,
        "time_zone": model.time_zone,
        "content_hash": content_hash,
        "applied_us": now_us,
        "revision": (before["revision"] if before else 0) + 1,
    }
    connection.execute(delete(schema.SITE))
    connection.execute(insert(schema.SITE), [row])
    if before is None:
        connection.execute(insert(schema.ENTERPRISE), [{"name": model.enterprise}])
