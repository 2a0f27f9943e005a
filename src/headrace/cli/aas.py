"""``headrace aas``: assets and asset types as Asset Administration Shells, in JSON or as an AASX file."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from headrace.cli.run import DATA
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.security.files import write_whole
from headrace.site.edit import SiteEdit
from headrace.site.file import load_site


def register(app: typer.Typer) -> None:
    """Add the group ``aas``."""
    group = typer.Typer(help="Asset Administration Shells (IDTA 01001).", no_args_is_help=True)
    group.command("export")(export)
    group.command("import")(import_)
    app.add_typer(group, name="aas")


def _aas() -> tuple[ModuleType, ModuleType]:
    try:
        from headrace.apps.asset_types import aas, aasx
    except ImportError as error:
        raise Misconfigured(
            "APPS-2130", f"{error.name} is not installed", 'Install it: pip install "headrace[aas]"'
        ) from error
    return aas, aasx


def export(
    file: Path = typer.Argument(help="File to write: NAME.json, or NAME.aasx."), data: Path = DATA
) -> None:
    """Write all assets and asset types of the site as an AAS environment."""
    model = load_site(DataFolder(data.resolve()).site_file)
    aas, aasx = _aas()
    is_package = file.suffix.lower() == aasx.SUFFIX
    write_whole(file, aasx.aasx_bytes(model) if is_package else aas.aas_json(model), mode=0o644)
    text = f"{len(model.assets)} assets and {len(model.asset_types)} asset types are in {file}"
    Console().print(escape(text), highlight=False)


def import_(
    file: Path = typer.Argument(help="AAS environment: JSON, or AASX."),
    yes: bool = typer.Option(False, "--yes", help="Write without asking."),
    data: Path = DATA,
) -> None:
    """Add the assets and asset types of an AAS environment to the site file; what is there stays as it is."""
    aas, aasx = _aas()
    try:
        raw = file.read_bytes()
    except OSError as error:
        what = f"{file} cannot be read: {error.strerror}"
        raise Misconfigured("APPS-2133", what, "Correct its name.") from error
    content = aasx.read_aasx(raw) if aasx.is_aasx(raw) else aas.read_aas(raw)
    console = Console()
    for each in content.refused:
        console.print(f"not taken: {escape(each)}", highlight=False)
    edit = SiteEdit(DataFolder(data.resolve()))
    types, assets = aas.site_tables(content)
    for section, tables in (("asset_type", types), ("asset", assets)):
        edit.add_tables(section, _new(edit.tables(section), tables, section))
    edit.check()
    diff = edit.diff()
    if not diff:
        console.print("Nothing of it is new.")
        return
    console.print(diff, markup=False, highlight=False)
    if not yes and not typer.confirm("Write this?"):
        raise typer.Exit(1)
    edit.save()


def _new(there: dict[str, Any], tables: dict[str, Any], section: str) -> dict[str, Any]:
    """Tables that are not there; of those that are, nothing may differ that the file says."""
    for name, table in tables.items():
        for field, value in table.items():
            if name in there and field != "title" and there[name].get(field, value) != value:
                raise Refused(
                    "APPS-2134",
                    f"[{section}.{name}] has another {field} than the file",
                    "Make them equal, or rename one.",
                )
    return {name: table for name, table in tables.items() if name not in there}
