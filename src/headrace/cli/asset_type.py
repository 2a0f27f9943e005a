"""``headrace asset-type``: the kinds of assets that apps are written for."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.apps.asset_types.catalog import TYPES, TypePackage, known_types
from headrace.apps.asset_types.nodeset import read_nodeset, type_from_nodes, types_toml
from headrace.cli.run import DATA
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.site.notes import near


def register(app: typer.Typer) -> None:
    """Add the group ``asset-type``."""
    group = typer.Typer(help="Kinds of assets that apps are written for.", no_args_is_help=True)
    group.command("list")(list_types)
    group.command("show")(show_type)
    group.command("from-nodeset")(from_nodeset)
    app.add_typer(group, name="asset-type")


def list_types(data: Path = DATA) -> None:
    """Show the known kinds: those that come with the platform, and installed ones."""
    table = Table("id", "version", "title", "quantities", "OPC UA", box=None, header_style="bold")
    for each in known_types(DataFolder(data.resolve()).packages).values():
        companion = each.companion.type if each.companion is not None else ""
        title = " ".join(filter(None, (each.title.get("en", ""), each.title.get("zh", ""))))
        table.add_row(each.id, each.version, escape(title), str(len(each.quantities)), companion)
    Console().print(table)


def show_type(name: str = typer.Argument(metavar="ID"), data: Path = DATA) -> None:
    """Show the quantities and attributes of a kind, with the other words for them."""
    types = known_types(DataFolder(data.resolve()).packages)
    if name not in types:
        what = f"there is no asset type {name!r}"
        raise Misconfigured("APPS-2102", what, near(name, types) or "See: headrace asset-type list")
    _show(types[name])


def _show(package: TypePackage) -> None:
    console = Console()
    console.print(f"{escape(package.id)} {package.version}", highlight=False)
    if package.companion is not None:
        of = f"{package.companion.uri} {package.companion.version} {package.companion.type}"
        console.print(escape(of), highlight=False)
    table = Table(box=None, header_style="bold")
    for column in ("", "unit", "en", "zh"):
        table.add_column(column, no_wrap=True, min_width=8)
    table.add_column("other words")
    for name, each in {**package.quantities, **package.attributes}.items():
        cells = (name, each.unit, each.title.get("en", ""), each.title.get("zh", ""))
        table.add_row(*(escape(cell) for cell in (*cells, ", ".join(each.names))))
    console.print(table)


def from_nodeset(
    file: Path = typer.Argument(help="NodeSet2 XML of a companion specification, also .gz."),
    object_type: str = typer.Option("", "--type", help="BrowseName of an ObjectType."),
    write: Path | None = typer.Option(None, "--write", help="New folder that gets types.toml."),
) -> None:
    """Propose a kind of asset from an ObjectType; without --type show the file's ObjectTypes."""
    console = Console()
    nodeset, nodes = read_nodeset(file)
    if not object_type:
        for name, description in nodeset.object_types.items():
            console.print(escape(f"{name}  {description}".rstrip()), highlight=False)
        return
    made = type_from_nodes(nodeset, nodes, object_type)
    text = types_toml(made.package)
    if write is None:
        console.print(text, markup=False, highlight=False)
    elif (write / TYPES).exists():
        what = f"there is a file {write / TYPES} already"
        raise Refused("APPS-2103", what, "Choose another folder.")
    else:
        write.mkdir(parents=True, exist_ok=True)
        (write / TYPES).write_text(text, encoding="utf-8")
        console.print(
            f"Written: {escape(str(write / TYPES))}. Next: headrace app pack", highlight=False
        )
    for each in made.left_out:
        console.print(f"left out: {escape(each)}", highlight=False)
