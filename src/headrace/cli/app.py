"""Puts the command groups together; an error of ours prints as two lines, never as a traceback."""

from __future__ import annotations

import importlib
import sys
from typing import Final

import typer
from rich.console import Console
from rich.markup import escape

from headrace.cli.doors import guard
from headrace.model.errors import HeadraceError

# Order is that of `headrace --help`. Each module has `register(app: typer.Typer) -> None`.
GROUPS: Final[tuple[str, ...]] = (
    "up",
    "status",
    "why",
    "ledger",
    "site",
    "query",
    "formula",
    "model",
    "alarm",
    "notify",
    "order",
    "sim",
    "replay",
    "bench",
    "edge",
    "trust",
    "cert",
    "user",
    "actor",
    "secret",
    "protection",
    "zone",
    "audit",
    "policy",
    "backup",
    "bundle",
    "release",
    "share",
    "app",
    "run",
    "cluster",
    "asset_type",
    "aas",
)
MODULES: Final = {"app": "package"}
"""Groups whose module is called otherwise: ``app`` is this one."""


def build(groups: tuple[str, ...] = GROUPS) -> typer.Typer:
    """The whole command line, or only some of its groups."""
    app = typer.Typer(
        name="headrace",
        help="Headrace: machines in, a historian that loses nothing, apps that act back.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(lambda: None)  # one command alone would else lose its name
    for group in groups:
        module = MODULES.get(group, group)
        importlib.import_module(f"headrace.cli.{module}").register(app)
    guard(app)
    return app


def main() -> None:
    """Entry point. Exit code 2 for our own errors, 130 after Ctrl-C."""
    try:
        # The libraries of all groups take a second and 100 MB; a command needs those of its own.
        build(tuple(group for group in GROUPS if [group] == sys.argv[1:2]) or GROUPS)()
    except HeadraceError as error:
        console = Console(stderr=True)
        console.print(f"[bold red]{error.code}[/] {escape(error.what)}.", highlight=False)
        if error.remedy:
            console.print(f"[dim]→[/] {escape(error.remedy)}", highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
