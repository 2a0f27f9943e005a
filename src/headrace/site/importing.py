"""Brings a tag list into the site: what is new is added, what differs is changed, nothing else is.

A column that the list does not have leaves that field of a known tag as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.site.edit import SiteEdit
from headrace.site.model import SiteProblems, Tag
from headrace.site.notes import Notes
from headrace.site.tag_list import tags_to_csv, tags_to_xlsx
from headrace.site.tag_table import TagTable, read_tag_table
from headrace.site.tags import from_table


class ImportPlan(msgspec.Struct, frozen=True):
    """What an import would do; nothing is written until ``edit.save()``.

    Attributes:
        added, changed, removed: paths.
        unchanged: number of tags that are the same already.
    """

    edit: SiteEdit
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int


def plan_import(folder: DataFolder, source: Path, *, remove: bool = False) -> ImportPlan:
    """Compare a CSV or XLSX tag list with the site.

    Args:
        source: the list.
        remove: also take out the site's tags that the list does not have.

    Raises:
        SiteProblems: when the list is wrong, with file, line and column of each problem; or when the
            site would not be accepted with it.
        Misconfigured: SITE-1017 when the list cannot be read.
    """
    try:
        content = source.read_bytes()
    except OSError as error:
        raise Misconfigured(
            "SITE-1001", f"{source} cannot be read: {error.strerror}", "Correct its name."
        ) from error
    table = read_tag_table(source.name, content)
    notes = Notes(source.name)
    tags = from_table(notes, table).tags
    if notes.problems:
        raise SiteProblems(notes.problems)
    edit = SiteEdit(folder)
    known = {tag.path: tag for tag in edit.check().tags}
    wanted = {tag.path: _merged(tag, known.get(tag.path), table) for tag in tags}
    if len(wanted) < len(tags):
        _refuse_twice(notes, table)
    added = [tag for path, tag in wanted.items() if path not in known]
    changed = [tag for path, tag in wanted.items() if path in known and known[path] != tag]
    removed = [path for path in known if path not in wanted] if remove else []
    edit.replace_tags(changed)
    edit.remove_tags(removed)
    if added:
        _add(edit, added)
    edit.check()
    return ImportPlan(
        edit,
        tuple(tag.path for tag in added),
        tuple(tag.path for tag in changed),
        tuple(removed),
        len(wanted) - len(added) - len(changed),
    )


def _refuse_twice(notes: Notes, table: TagTable) -> None:
    first: dict[str, int] = {}
    for line, path in zip(table.lines, table.columns["path"], strict=True):
        if first.setdefault(path, line) != line:
            what = f"the tag {path} is already at line {first[path]}"
            notes.add(table.file, line, "path", "SITE-1007", what, "Remove one of the two.")
    raise SiteProblems(notes.problems)


def _merged(tag: Tag, known: Tag | None, table: TagTable) -> Tag:
    if known is None:
        return tag
    given: dict[str, Any] = {name: getattr(tag, name) for name in table.columns}
    if not given.get("id"):
        given.pop("id", None)
    return msgspec.structs.replace(known, **given)


def _add(edit: SiteEdit, tags: list[Tag]) -> None:
    if edit.csv_file() is None:
        name = "tags.csv"
        number = 1
        while (edit.folder.root / name).exists():
            number += 1
            name = f"tags_{number}.csv"
        edit.replace_tag_file(name, tags_to_csv(tags))
    else:
        edit.add_tags(tags)


def export_tags(tags: Iterable[Tag], suffix: str) -> bytes:
    """A tag list in the form that a file name's suffix says.

    Raises:
        Misconfigured: SITE-1403 for another suffix; SITE-1401 when the XLSX writer is missing.
    """
    match suffix.lower():
        case ".csv":
            return tags_to_csv(tags)
        case ".xlsx":
            return tags_to_xlsx(tags)
        case other:
            raise Misconfigured(
                "SITE-1403", f"tags cannot be exported as {other!r}", "Use .csv, .xlsx or .json."
            )
