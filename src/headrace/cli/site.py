"""``headrace site``: check, show, export, import, rename, undo."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import NoReturn

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table
from rich.tree import Tree

from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.bus.subjects import DESIRED_BUCKET
from headrace.cli.sharing import reach
from headrace.formula.problems import LANGUAGES
from headrace.model.errors import HeadraceError, Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.time import to_datetime
from headrace.security.database import has_metadata
from headrace.site.edit import SiteEdit, undo
from headrace.site.file import load_site
from headrace.site.importing import export_tags, plan_import
from headrace.site.keeper import STATE_KEY, SiteState
from headrace.site.model import Problem, SiteModel, SiteProblems
from headrace.site.registry import EquipmentNode, Registry
from headrace.site.writing import versions

_DATA = typer.Option(Path("data"), "--data", help="Data folder.")
_YES = typer.Option(False, "--yes", "-y", help="Write without asking.")


def register(app: typer.Typer) -> None:
    """Add the group ``site``."""
    group = typer.Typer(no_args_is_help=True, help="The site file: what this site is and runs.")
    group.command("check")(check)
    group.command("show")(show)
    group.command("export")(export)
    group.command("import")(import_tags)
    group.command("rename")(rename)
    group.command("undo")(undo_command)
    app.add_typer(group, name="site")


def check(
    file: Path | None = typer.Argument(None, help="Site file [<data>/site.toml]."),
    data: Path = _DATA,
    as_json: bool = typer.Option(False, "--json", help="Problems as JSON."),
    language: str = typer.Option("en", "--language", help="Of messages about formulas: en or zh."),
) -> None:
    """Check a site file and its tag files; exit code 2 when something is wrong."""
    path = file or DataFolder(data).site_file
    if language not in LANGUAGES:
        raise Misconfigured("CLI-1303", f"there is no language {language!r}", "Write en or zh.")
    try:
        model = load_site(path)
    except SiteProblems as error:
        if as_json:
            _out().print_json(msgspec.json.encode(error.problems).decode())
            raise typer.Exit(2) from error
        _fail(error.problems, language)
    if as_json:
        _out().print_json("[]")
        return
    _out().print(
        f"{path} is right: {_count(model.tags, 'tag')}, {_count(model.connections, 'connection')}, "
        f"{_count(model.assets, 'asset')}, {_count(model.equipment, 'place')}.",
        highlight=False,
        soft_wrap=True,
    )


def show(data: Path = _DATA, tags: bool = typer.Option(False, help="Also each tag.")) -> None:
    """The equipment tree and the connections; desired beside running state when a broker runs."""
    folder = DataFolder(data)
    model = _load(folder)
    out = _out()
    registry = Registry.of(folder) if has_metadata(folder) else None
    state = asyncio.run(_state(folder))
    if registry is not None and registry.site() is not None:
        out.print(_tree(registry.equipment()))
    else:
        out.print("Not applied yet: no keeper has run on this folder.", highlight=False)
    out.print(_connections(model))
    if state is None:
        out.print("No broker runs here; running state is not known.", highlight=False)
    else:
        out.print(_edges(state))
        if state.problems:
            out.print(
                f"The file on disk has {_count(range(state.problems), 'problem')}; "
                "the last good one is in force. Run: headrace site check",
                style="red",
                highlight=False,
            )
    if tags:
        out.print(_tags(model, registry))


def export(
    file: Path = typer.Argument(help="Ends in .csv, .xlsx or .json."),
    data: Path = _DATA,
    ids: bool = typer.Option(False, "--ids", help="With permanent ids, for another installation."),
) -> None:
    """Write all tags as CSV or XLSX, or the whole site as JSON; ``import`` reads them back."""
    folder = DataFolder(data)
    model = _load(folder)
    tags = model.tags
    if ids:
        known = Registry.of(folder).ids()
        tags = tuple(msgspec.structs.replace(tag, id=known.get(tag.path, tag.id)) for tag in tags)
    if file.suffix.lower() == ".json":
        whole = msgspec.structs.replace(model, tags=tags)
        content = msgspec.json.format(msgspec.json.encode(whole), indent=1)
    else:
        content = export_tags(tags, file.suffix)
    try:
        file.write_bytes(content)
    except OSError as error:
        raise Misconfigured(
            "CLI-1201", f"{file} cannot be written: {error.strerror}", "Choose another place."
        ) from error
    _out().print(f"Wrote {_count(tags, 'tag')} to {file}.", highlight=False, soft_wrap=True)


def import_tags(
    file: Path = typer.Argument(help="Tag list, .csv or .xlsx."),
    data: Path = _DATA,
    remove: bool = typer.Option(False, "--remove", help="Take out tags that the list lacks."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show what would change, write nothing."),
    yes: bool = _YES,
) -> None:
    """Add the tags of a list to the site and change those that differ."""
    try:
        plan = plan_import(DataFolder(data), file, remove=remove)
    except SiteProblems as error:
        _fail(error.problems)
    counts = f"{len(plan.added)} new, {len(plan.changed)} changed, {len(plan.removed)} removed"
    _out().print(f"{counts}, {plan.unchanged} the same.", highlight=False)
    _confirm_and_save(plan.edit, dry_run=dry_run, yes=yes)


def rename(
    old: str = typer.Argument(help="Path of a tag, or of equipment with all its tags."),
    new: str = typer.Argument(help="Its new path."),
    data: Path = _DATA,
    dry_run: bool = typer.Option(False, "--dry-run", help="Show what would change, write nothing."),
    yes: bool = _YES,
) -> None:
    """Give a tag or a piece of equipment another path; its history goes with it."""
    try:
        edit = SiteEdit(DataFolder(data))
        moves = edit.rename(old, new)
        edit.check()
    except SiteProblems as error:
        _fail(error.problems)
    _out().print(f"{_count(moves, 'tag')} renamed.", highlight=False)
    _confirm_and_save(edit, dry_run=dry_run, yes=yes)


def undo_command(
    data: Path = _DATA,
    to: int = typer.Option(0, "--to", help="Number of a version; see --list."),
    show_list: bool = typer.Option(False, "--list", help="List the accepted versions."),
) -> None:
    """Put back the version of the site file that was accepted before; again undoes the undo."""
    folder = DataFolder(data)
    if show_list:
        table = Table("version", "accepted (UTC)")
        for version in versions(folder):
            at = to_datetime(version.accepted_us).isoformat(" ", "seconds")
            table.add_row(str(version.number), at.removesuffix("+00:00"))
        _out().print(table)
        return
    try:
        version, diff = undo(folder, to)
    except SiteProblems as error:
        _fail(error.problems)
    _print_diff(diff)
    _out().print(f"Version {version.number} is back.", highlight=False)


def _out() -> Console:
    return Console()


def _count(things: object, word: str) -> str:
    number = len(things)  # type: ignore[arg-type] # anything that has a length
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _load(folder: DataFolder) -> SiteModel:
    try:
        return load_site(folder.site_file)
    except SiteProblems as error:
        _fail(error.problems)


def _fail(problems: list[Problem], language: str = "en") -> NoReturn:
    """All problems, as a table on a terminal and as plain lines elsewhere; exit code 2."""
    if language == "zh":
        problems = [problem.in_chinese() for problem in problems]
    out = Console(stderr=True)
    if out.is_terminal:
        table = Table("where", show_lines=True)
        for column in ("field", "what", "remedy"):
            table.add_column(column, overflow="fold")
        for problem in problems:
            where = f"{problem.file}:{problem.line}"
            what = escape(f"{problem.code} {problem.what}")
            table.add_row(where, problem.field, what, escape(problem.remedy))
        out.print(table)
        for problem in (each for each in problems if each.caret):
            place = f"{problem.file}:{problem.line}:{problem.column}"
            out.print(f"{place}\n{escape(problem.caret)}", highlight=False, soft_wrap=True)
    else:
        for problem in problems:
            caret = f"{problem.caret}\n" if problem.caret else ""
            sys.stderr.write(f"{problem}\n{caret}")
    out.print(f"{_count(problems, 'problem')}; nothing was changed.", style="bold red")
    raise typer.Exit(2)


def _confirm_and_save(edit: SiteEdit, *, dry_run: bool, yes: bool) -> None:
    diff = edit.diff()
    _print_diff(diff)
    if not diff:
        _out().print("Nothing to write.", highlight=False)
    elif dry_run:
        _out().print("Nothing was written.", highlight=False)
    elif yes or (sys.stdin.isatty() and typer.confirm("Write this?")):
        edit.save()
        _out().print("Written.", highlight=False)
    else:
        _out().print("Nothing was written; add --yes to write it.", highlight=False)
        raise typer.Exit(1)


def _print_diff(diff: str) -> None:
    out = _out()
    if out.is_terminal and diff:
        out.print(Syntax(diff, "diff", background_color="default", word_wrap=True))
    else:
        out.out(diff, end="", highlight=False)


async def _state(folder: DataFolder) -> SiteState | None:
    """What the keeper last said; None when no broker runs."""
    try:
        address = load_address(folder)
        # A client of the bus waits for its broker; whether there is one is asked at the port.
        await asyncio.to_thread(reach, address.urls)
        async with open_bus(address.as_role("cli"), "site show", wait_s=2.0) as bus:
            value = await bus.get(DESIRED_BUCKET, STATE_KEY)
    except (HeadraceError, OSError):
        return None
    return msgspec.json.decode(value, type=SiteState) if value else None


def _label(node: EquipmentNode) -> str:
    titles = " ".join(title for title in (node.title, node.title_zh) if title)
    kind = f" [cyan]{node.asset_type}[/]" if node.asset_type else ""
    return f"[bold]{node.name}[/] {titles}{kind} [dim]{_count(range(node.tags_below), 'tag')}[/]"


def _tree(root: EquipmentNode) -> Tree:
    tree = Tree(_label(root), highlight=False)
    todo = [(tree, child) for child in reversed(root.children)]
    while todo:
        branch, node = todo.pop()
        twig = branch.add(_label(node), highlight=False)
        todo += [(twig, child) for child in reversed(node.children)]
    return tree


def _connections(model: SiteModel) -> Table:
    counts: dict[str, int] = {}
    for tag in model.tags:
        counts[tag.connection] = counts.get(tag.connection, 0) + 1
    table = Table("connection", "protocol", "edge", "tags", "enabled")
    table.add_column("endpoint", overflow="fold")
    for each in model.connections:
        enabled = "yes" if each.enabled else "no"
        number = str(counts.get(each.name, 0))
        table.add_row(each.name, each.protocol, each.edge, number, enabled, each.endpoint)
    return table


def _edges(state: SiteState) -> Table:
    table = Table("edge", "desired", "running", "")
    for edge, follow in sorted(state.edges.items()):
        says = "[green]follows[/]" if follow.follows else "[red]does not follow[/]"
        running = follow.running_hash[:12] or "never heard"
        table.add_row(edge, follow.desired_hash[:12], running, says)
    return table


def _tags(model: SiteModel, registry: Registry | None) -> Table:
    ids = registry.ids() if registry is not None else {}
    table = Table("tag", "unit", "connection", "address", "every (ms)", "id")
    for tag in sorted((*model.tags, *model.derived), key=lambda tag: tag.path):
        number, tag_id = str(tag.scan_interval_ms or ""), str(ids.get(tag.path, ""))
        table.add_row(tag.path, tag.unit, tag.connection, tag.address, number, tag_id)
    return table
