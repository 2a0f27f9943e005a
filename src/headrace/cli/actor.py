"""``headrace actor``: everybody and everything that may do something here, in one list."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import typer
from rich.console import Console
from rich.table import Table

from headrace.cli.audit import person
from headrace.cli.user import opened, show_secret
from headrace.model.errors import Misconfigured
from headrace.model.time import to_datetime
from headrace.security.actors import MACHINES, ActorEntry, MachineKind
from headrace.security.policy import Grant, Role

DATA = typer.Option(Path("data"), "--data", help="Data folder.")
NAME = typer.Argument(help="Name of the actor.")
DAYS = typer.Option(365, min=0, max=3_650, help="Valid so long; 0 without an end.")


def register(app: typer.Typer) -> None:
    """Add the group ``actor``."""
    group = typer.Typer(
        help="People, services, devices, edges and apps: who may do something here.",
        no_args_is_help=True,
    )

    @group.command("list")
    def list_actors(
        kind: str = typer.Option("", help="Only this kind."), data: Path = DATA
    ) -> None:
        """Show all actors: name, kind, rights, when made and last seen, until when, state."""
        with opened(data) as identity:
            columns = ("name", "kind", "rights", "since", "last seen (UTC)", "until", "state")
            table = Table(*columns, box=None, header_style="bold")
            for entry in identity.actors.list():
                if not kind or entry.kind == kind:
                    table.add_row(*_cells(entry))
            Console().print(table)

    @group.command("add")
    def add(
        kind: str = typer.Argument(help=", ".join(MACHINES)),
        name: str = NAME,
        grant: list[str] = typer.Option([], help="role, or role:equipment/path; repeat it."),
        days: int = DAYS,
        tenant: str = typer.Option("", help="Whose it is, when not ours."),
        data: Path = DATA,
    ) -> None:
        """Add an actor that is no person and print its secret once."""
        grants = [parse_grant(text) for text in grant]
        with opened(data) as identity:
            secret = identity.actors.add(
                cast(MachineKind, kind), name, grants, days=days, tenant=tenant, by=person()
            )
            show_secret(f"Secret of {name}", secret)

    @group.command("renew")
    def renew(name: str = NAME, days: int = DAYS, data: Path = DATA) -> None:
        """Give an actor a new secret; the old one is worthless at once."""
        with opened(data) as identity:
            show_secret(f"Secret of {name}", identity.actors.renew(name, days=days, by=person()))

    @group.command("disable")
    def disable(name: str = NAME, data: Path = DATA) -> None:
        """Let an actor do nothing from now on; a person's sessions end."""
        with opened(data) as identity:
            identity.set_actor_disabled(name, True, by=person())

    @group.command("enable")
    def enable(name: str = NAME, data: Path = DATA) -> None:
        """Let a disabled actor go on."""
        with opened(data) as identity:
            identity.set_actor_disabled(name, False, by=person())

    app.add_typer(group, name="actor")


def parse_grant(text: str) -> Grant:
    """``role`` or ``role:equipment/path`` as a grant.

    Raises:
        Misconfigured: SEC-1022 when nothing stands before the colon.

    Example:
        >>> parse_grant("operator:utilities/pumping")
        Grant(role='operator', scope='utilities/pumping')
    """
    role, _, scope = text.partition(":")
    if not role:
        raise Misconfigured(
            "SEC-1022", f"{text!r} names no role", "Write role, or role:equipment/path."
        )
    return Grant(cast(Role, role), scope.strip("/"))


def _cells(entry: ActorEntry) -> tuple[str, ...]:
    rights = ", ".join(f"{g.role}:{g.scope}" if g.scope else g.role for g in entry.grants)
    seen = to_datetime(entry.seen_us).strftime("%Y-%m-%d %H:%M") if entry.seen_us else "never"
    until = _day(entry.expires_us) if entry.expires_us else "no end"
    since = _day(entry.created_us)
    return (entry.name, entry.kind, rights or "-", since, seen, until, entry.state)


def _day(at_us: int) -> str:
    return to_datetime(at_us).strftime("%Y-%m-%d")
