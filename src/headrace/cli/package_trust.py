"""``headrace app trust``: publishers whose packages count here."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table

from headrace.apps.catalog import Publishers
from headrace.cli.audit import person
from headrace.model.folder import DataFolder
from headrace.security.identity import opened_chain

DATA = typer.Option(Path("data"), "--data", help="Data folder.")


def add_to(group: typer.Typer) -> None:
    """Add the group ``trust``."""
    trust = typer.Typer(help="Publishers whose packages count here.", no_args_is_help=True)
    trust.command("add")(add)
    trust.command("list")(list_)
    trust.command("remove")(remove)
    group.add_typer(trust, name="trust")


def add(
    publisher: str = typer.Argument(help="Its name, as in app.toml."),
    key: str = typer.Argument(help="Its public key, or a file that holds it."),
    data: Path = DATA,
) -> None:
    """Trust a publisher's key. Have it told to you by a way that nobody else could speak on."""
    folder = DataFolder(data.resolve())
    with opened_chain(folder) as audit:
        Publishers(folder, audit).add(publisher, _key(key), person())
    Console().print(f"{publisher} is trusted.", highlight=False)


def list_(data: Path = DATA) -> None:
    """Show whose packages count."""
    publishers = Publishers(DataFolder(data.resolve()))
    table = Table("publisher", "key", box=None, header_style="bold")
    for name, keys in sorted(publishers.all().items()):
        for key in keys:
            table.add_row(name, key)
    if publishers.trust().is_unsigned_allowed:
        table.add_row("(nobody)", "unsigned packages count too: [apps] of headrace.toml")
    Console().print(table if table.row_count else "Nobody is trusted yet.")


def remove(
    publisher: str = typer.Argument(help="Its name."),
    key: str = typer.Argument("", help="Only this key of it."),
    data: Path = DATA,
) -> None:
    """Trust a publisher, or one of its keys, no more. What is installed goes on."""
    folder = DataFolder(data.resolve())
    with opened_chain(folder) as audit:
        Publishers(folder, audit).remove(publisher, person(), _key(key))
    Console().print(f"{publisher} is not trusted any more.", highlight=False)


def _key(text: str) -> str:
    path = Path(text)
    is_file = len(text) < 200 and text != "" and path.is_file() and path.stat().st_size < 1_000
    return path.read_text(encoding="utf-8", errors="replace").strip() if is_file else text
