"""``headrace user``: users and tokens of one installation, without the console."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import typer
from rich.console import Console
from rich.table import Table

from headrace.cli.audit import person
from headrace.model.folder import DataFolder
from headrace.model.time import to_datetime
from headrace.security.identity import Identity
from headrace.security.policy import Role

DATA = typer.Option(Path("data"), "--data", help="Data folder.")
NAME = typer.Argument(help="Name of the user.")


def register(app: typer.Typer) -> None:
    """Add the group ``user``."""
    group = typer.Typer(help="Users, passwords and tokens.", no_args_is_help=True)

    @group.command("list")
    def list_users(data: Path = DATA) -> None:
        """Show all users."""
        with opened(data) as identity:
            table = Table("name", "role", "state", "since (UTC)", box=None, header_style="bold")
            for user in identity.users():
                state = "must choose a password" if user.must_change else "open"
                state = "closed" if user.disabled else state
                table.add_row(user.name, user.role, state, _day(user.created_us))
            Console().print(table)

    @group.command("add")
    def add(name: str = NAME, role: str = "viewer", data: Path = DATA) -> None:
        """Add a user and print the one-time password."""
        with opened(data) as identity:
            show_secret(
                f"One-time password of {name}",
                identity.add_user(name, cast(Role, role), by=person()),
            )

    @group.command("reset")
    def reset(name: str = NAME, data: Path = DATA) -> None:
        """Give a user a new one-time password; all sessions of the user end."""
        with opened(data) as identity:
            show_secret(f"One-time password of {name}", identity.reset_password(name, by=person()))

    @group.command("role")
    def role(name: str = NAME, role: str = typer.Argument(), data: Path = DATA) -> None:
        """Give a user another role: viewer, operator, engineer or admin."""
        with opened(data) as identity:
            identity.set_role(name, cast(Role, role), by=person())

    @group.command("close")
    def close(name: str = NAME, data: Path = DATA) -> None:
        """Close an account; its sessions and tokens stop at once."""
        with opened(data) as identity:
            identity.set_disabled(name, True, by=person())

    @group.command("reopen")
    def reopen(name: str = NAME, data: Path = DATA) -> None:
        """Open a closed account again."""
        with opened(data) as identity:
            identity.set_disabled(name, False, by=person())

    _register_sessions(group)
    _register_tokens(group)
    app.add_typer(group, name="user")


def _register_sessions(group: typer.Typer) -> None:
    @group.command("reset-factor")
    def reset_factor(name: str = NAME, data: Path = DATA) -> None:
        """Forget a user's second factor, for a lost phone; all sessions of the user end."""
        with opened(data) as identity:
            identity.remove_second_factor(name, by=person())

    @group.command("sessions")
    def sessions(
        name: str = typer.Argument("", help="Only this user's."), data: Path = DATA
    ) -> None:
        """Show open sessions: whose, from where, since when, last seen."""
        with opened(data) as identity:
            columns = ("id", "user", "address", "since", "last seen (UTC)", "by")
            table = Table(*columns, box=None, header_style="bold")
            for entry in identity.sessions.list(name or None):
                by = ", ".join(sorted(entry.factors))
                times = (_minute(entry.created_us), _minute(entry.seen_us))
                table.add_row(entry.id, entry.user, entry.address, *times, by)
            Console().print(table)

    @group.command("end-sessions")
    def end_sessions(name: str = NAME, data: Path = DATA) -> None:
        """End all sessions of a user, also on pages that are open."""
        with opened(data) as identity:
            identity.end_sessions(name, by=person())


def _register_tokens(group: typer.Typer) -> None:
    @group.command("token")
    def token(
        name: str = NAME,
        title: str = typer.Option("token", help="What it is for."),
        role: str = typer.Option("viewer", help="At most this role."),
        days: int = typer.Option(365, min=1, max=3_650, help="Valid so long."),
        data: Path = DATA,
    ) -> None:
        """Make a bearer token for the REST API and print it once."""
        with opened(data) as identity:
            secret = identity.add_token(name, title, days=days, role=cast(Role, role), by=person())
            show_secret(f"Token {title!r} of {name}", secret)

    @group.command("tokens")
    def tokens(data: Path = DATA) -> None:
        """Show all tokens that are valid now."""
        with opened(data) as identity:
            table = Table("id", "user", "for", "role", "until", box=None, header_style="bold")
            for entry in identity.tokens():
                until = _day(entry.expires_us)
                table.add_row(str(entry.id), entry.user, entry.title, entry.role, until)
            Console().print(table)

    @group.command("revoke")
    def revoke(token_id: int = typer.Argument(), data: Path = DATA) -> None:
        """Make a token worthless at once."""
        with opened(data) as identity:
            identity.revoke_token(token_id, by=person())


@contextmanager
def opened(data: Path) -> Iterator[Identity]:
    """The identity of a data folder, closed at the end."""
    identity = Identity(DataFolder(data.resolve()))
    try:
        yield identity
    finally:
        identity.close()


def show_secret(title: str, secret: str) -> None:
    """Print a secret, which is never shown again."""
    console = Console(highlight=False)
    console.print(f"{title}, shown only now:")
    console.print(f"  [bold]{secret}[/]", soft_wrap=True)


def _day(at_us: int) -> str:
    return to_datetime(at_us).strftime("%Y-%m-%d")


def _minute(at_us: int) -> str:
    return to_datetime(at_us).strftime("%Y-%m-%d %H:%M")
