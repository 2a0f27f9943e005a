"""``headrace policy``: who may do what, why, and whether own policies say what they should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Column, Table

from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.security.database import has_metadata
from headrace.security.engine import Engine
from headrace.security.identity import Identity
from headrace.security.policy import Actor
from headrace.security.policy_cases import run_cases
from headrace.security.policy_files import PolicyFiles
from headrace.security.policy_text import PolicySet

DATA = typer.Option(Path("data"), "--data", help="Data folder.")


def register(app: typer.Typer) -> None:
    """Add the group ``policy``."""
    group = typer.Typer(
        help="Who may do what, and why; own policies (docs/policy.md).", no_args_is_help=True
    )
    group.command("list")(list_policies)
    group.command("check")(check)
    group.command("explain")(explain)
    group.command("test")(test)
    app.add_typer(group, name="policy")


def list_policies(
    text: bool = typer.Option(False, "--text", help="Show each policy whole."), data: Path = DATA
) -> None:
    """Show the policies of this folder: the built-in ones and its own."""
    loaded = PolicyFiles(DataFolder(data.resolve())).load()
    out = Console(highlight=False)
    if text:
        for policy in loaded.policies.policies:
            out.print(f"// {policy.file}:{policy.line}\n{policy.text}\n", markup=False)
    else:
        table = Table(
            "id", "effect", "needs", Column("says", overflow="fold"), "where", box=None,
            header_style="bold",
        )  # fmt: skip
        for one in loaded.policies.policies:
            table.add_row(one.id, one.effect, one.needs, one.says, f"{one.file}:{one.line}")
        out.print(table)
    if loaded.problem is not None:
        raise loaded.problem


def check(
    files: list[Path] = typer.Argument(None, help="Files; none: those of the data folder."),
    data: Path = DATA,
) -> None:
    """Check policy files; what is wrong is told with file and line. Changes nothing."""
    if files:
        texts = {path.name: path.read_text("utf-8") for path in files if _is_there(path)}
    else:
        texts = PolicyFiles(DataFolder(data.resolve())).read()
    own = PolicySet(texts).own
    Console(highlight=False).print(f"[green]Good:[/] {own} own policies in {len(texts)} files")


def explain(
    actor: str = typer.Argument(help="Name of a user."),
    action: str = typer.Argument(help="Such as read, write, operate, edit, administer."),
    resource: str = typer.Argument(
        help="A tag's path, equipment (pump_1), connection/plc_1, site."
    ),
    equipment: str = typer.Option("", help="Where it lies, when that is not known."),
    data: Path = DATA,
) -> None:
    """Say whether a user may do something, and which policies decide it. Ends with 1 when not."""
    from headrace.console.policy_questions import explain as answer

    folder = DataFolder(data.resolve())
    from headrace.security.policy_files import use_files

    use_files(folder)
    found = answer(_site(folder), _actor(folder, actor), action, resource, equipment)
    out = Console(highlight=False)
    verdict = "[green]allowed[/]" if found["allowed"] else "[red]denied[/]"
    if found["needs"]:
        verdict = f"[yellow]needs a {found['needs'].replace('_', ' ')}[/]"
    where = f" in {found['equipment']}" if found["equipment"] else ""
    out.print(f"{verdict}: {actor} {action} {found['resource']}{where}")
    out.print(f"  {found['reason']}", markup=False)
    for one in found["policies"]:
        out.print(f"  {one['effect']} {one['id']} ({one['file']}:{one['line']})", markup=False)
    if not found["policies"]:
        out.print("  no policy permits it")
    if not found["allowed"]:
        raise typer.Exit(1)


def test(
    file: Path = typer.Argument(help="TOML with [[actor]] and [[case]]."), data: Path = DATA
) -> None:
    """Try a file of cases on this folder's policies. Ends with 1 when one fails."""
    _is_there(file)
    loaded = PolicyFiles(DataFolder(data.resolve())).load()
    if loaded.problem is not None:
        raise loaded.problem
    count, failed = run_cases(Engine(loaded.policies), file.read_text("utf-8"), file.name)
    out = Console(highlight=False)
    for line in failed:
        out.print(line, markup=False, style="red")
    out.print(f"{count - len(failed)} of {count} cases hold")
    if failed:
        raise typer.Exit(1)


def _is_there(path: Path) -> bool:
    if not path.is_file():
        raise Misconfigured("SEC-1404", f"there is no file {path}", "Name a policy file.")
    return True


def _actor(folder: DataFolder, name: str) -> Actor:
    if has_metadata(folder):
        identity = Identity(folder)
        try:
            for user in identity.users():
                if user.name == name and not user.disabled:
                    grants = identity.grants.of(name)
                    return Actor(user.name, user.role, user.must_change, grants=grants)
        finally:
            identity.close()
    raise Misconfigured(
        "SEC-1006", f"there is no open account {name!r}", "List them: headrace user list"
    )


def _site(folder: DataFolder) -> Any:
    """The tags of the site, so that a question may name them."""
    from headrace.console.live import LiveValues
    from headrace.console.registry_source import RegistrySource
    from headrace.console.site_view import build_view
    from headrace.site.registry import Registry

    registry = Registry.of(folder)
    try:
        source = RegistrySource(registry)
        about, titles = source.about()
        return build_view(source.tags(), titles, LiveValues(), "", **about)
    finally:
        registry.close()
