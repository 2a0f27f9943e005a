"""``headrace app bind``: what an app's types are on this site, proposed, asked and written."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.apps.asset_types.catalog import known_types
from headrace.apps.asset_types.proposal import Proposal, TypeProposal, propose
from headrace.apps.package.versions import newest
from headrace.cli.run import DATA
from headrace.model.app_manifest import AppManifest
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.site.app_package import package_name, read_installed
from headrace.site.edit import SiteEdit
from headrace.site.model import SiteModel

_COLUMNS: Final = ("the app's", "unit", "this site's", "sure", "because")


def add_to(group: typer.Typer) -> None:
    """Add the command ``bind`` to the group ``app``."""

    @group.command("bind")
    def bind(
        app: str = typer.Argument(metavar="ID", help="Id of an installed app."),
        version: str = typer.Option(
            "", help="Which; else the one of the site file, else the newest."
        ),
        given: list[str] = typer.Option(
            [], "--set", metavar="NAME=SITE", help="pump=kreiselpumpe, or pump.flow=durchfluss."
        ),
        yes: bool = typer.Option(False, "--yes", help="Write what is clear without asking."),
        data: Path = DATA,
    ) -> None:
        """Propose which assets an app serves and what its names are here; write it to the site file."""
        folder = DataFolder(data.resolve())
        said = _said(given)
        edit = SiteEdit(folder)
        version = version or str(edit.apps().get(app, {}).get("version", ""))
        manifest = installed_manifest(folder, app, version)
        model = edit.check()
        proposal = propose(model, manifest, known_types(folder.packages), said)
        show_proposal(proposal)
        questions = proposal.questions
        if not yes:
            answers = dict(said)
            for kind, ask in _asked(proposal):
                answers[kind] = typer.prompt(ask)
            if answers != said:
                proposal = propose(model, manifest, known_types(folder.packages), answers)
                show_proposal(proposal)
            questions = proposal.questions
        if questions:
            raise Refused(
                "APPS-2111",
                f"{app} cannot be bound before this is said: {'; '.join(questions)}",
                f"Say it: headrace app bind {app} --set NAME=SITE",
            )
        written = write_binding(edit, proposal)
        console = Console()
        console.print(edit.diff(), markup=False, highlight=False)
        _show_unserved(console, written, app)
        if not yes and not typer.confirm("Write this?"):
            raise typer.Exit(1)
        edit.save()
        console.print(f"{escape(app)} {manifest.version} is bound. Back: headrace site undo")


def _said(given: list[str]) -> dict[str, str]:
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not (name and equals and value):
            raise Misconfigured(
                "APPS-2112", f"--set {each!r} says nothing", "Write --set pump.flow=durchfluss"
            )
        found[name.strip()] = value.strip()
    return found


def installed_manifest(folder: DataFolder, app: str, version: str = "") -> AppManifest:
    """The manifest of an installed app.

    Args:
        version: empty: the newest that is installed.

    Raises:
        Misconfigured: APPS-2113 when none is installed; SITE-2101 to SITE-2103.
    """
    names = sorted(path.stem for path in folder.packages.glob(f"{app}-*.hrapp"))
    there = [name.removeprefix(f"{app}-") for name in names]
    chosen = version or newest(there)
    if chosen is None:
        what, remedy = f"{app} is not installed", "Install it: headrace app install FILE"
        raise Misconfigured("APPS-2113", what, remedy)
    return read_installed(folder.root / package_name(app, chosen)).manifest


def write_binding(edit: SiteEdit, proposal: Proposal) -> SiteModel:
    """Put a proposal into an edit of the site file; settings and what else stands there stay. Gives the site
    as it would be.

    Raises:
        SiteProblems: when it would not be accepted.
    """
    section = proposal.section()
    edit.set_app(proposal.manifest.id, version=section["version"], bind=section["bind"])
    return edit.check()


def show_proposal(proposal: Proposal) -> None:
    """Print a proposal as tables, one for each type."""
    console = Console()
    for kind in proposal.types:
        console.print(
            f"[bold]{escape(kind.needed)}[/bold] = {escape(kind.type)}, {kind.assets} assets: "
            f"{escape(kind.reason)}"
        )
        console.print(_table(kind))
    for needed in proposal.absent:
        console.print(f"{escape(needed)}: the site has none that fits; --set {escape(needed)}=TYPE")
    for question in proposal.questions:
        console.print(f"? {escape(question)}")


def _table(kind: TypeProposal) -> Table:
    table = Table(*_COLUMNS, box=None, header_style="bold")
    for each in kind.names:
        if each.chosen is not None:
            sure = f"{round(100 * each.chosen.confidence)} %"
            row = (each.chosen.name, sure, each.chosen.reason)
        elif each.is_open:
            row = ("?", "", "or ".join(one.name + " " for one in each.candidates))
        else:
            row = ("", "", "not needed")
        table.add_row(*(escape(cell) for cell in (each.name, each.unit, *row)))
    return table


def _asked(proposal: Proposal) -> list[tuple[str, str]]:
    """(what to say, question) of each open one."""
    found = [(needed, f"Which asset type is {needed}") for needed in proposal.unclear]
    for kind in proposal.types:
        for each in kind.names:
            if each.is_open:
                name = f"{kind.needed}.{each.name}"
                found.append((name, f"What is {name} of {kind.type}"))
    return found


def _show_unserved(console: Console, model: SiteModel, app: str) -> None:
    for each in model.apps:
        if each.manifest.id == app:
            console.print(f"{len(each.assets)} assets are served.")
            for lost in each.unserved:
                console.print(f"not {escape(lost.path)}: {escape(lost.why)}")
