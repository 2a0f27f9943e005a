"""The rationalisation sheet of all alarms: out of the site file, and back into it."""

from __future__ import annotations

from typing import Literal

from headrace.alarms.definition import AlarmDefinition, definition_of
from headrace.alarms.sheet import Changed, read, to_csv, to_xlsx
from headrace.model.folder import DataFolder
from headrace.model.knowledge import FormulaConfig
from headrace.site.edit import SiteEdit
from headrace.site.file import load_site

SheetFormat = Literal["csv", "xlsx"]


def export_sheet(folder: DataFolder, format_: SheetFormat) -> bytes:
    """The sheet of the alarms that the site file has now.

    Raises:
        SiteProblems: when the site file is not accepted.
        Misconfigured: ALARM-1201 when the writer of spreadsheets is not installed.
    """
    definitions: list[AlarmDefinition] = [definition_of(each) for each in _alarms(folder)]
    return to_xlsx(definitions) if format_ == "xlsx" else to_csv(definitions)


def plan_import(folder: DataFolder, file: str, content: bytes) -> tuple[SiteEdit, list[Changed]]:
    """What a sheet changes; ``save`` of the edit writes it, whole or not at all.

    Args:
        file: the sheet's name. content: its bytes.

    Raises:
        SheetProblems: with each cell that is wrong; nothing was changed.
        Misconfigured: ALARM-1202 when it has no header.
        SiteProblems: when the site file would not be accepted.
    """
    changed = read(file, content, _alarms(folder))
    edit = SiteEdit(folder)
    for each in changed:
        edit.set_formula(each.asset_type, each.name, each.text)
    edit.check()
    return edit, changed


def _alarms(folder: DataFolder) -> list[FormulaConfig]:
    return [
        FormulaConfig(
            asset_type=kind.name,
            name=each.name,
            kind=each.kind,
            text=each.text,
            line=each.line,
            state=each.state,
        )
        for kind in load_site(folder.site_file).asset_types
        for each in kind.formulas
        if each.kind == "alarm"
    ]
