"""``headrace audit``: the chain of who did what, and whether it is whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from headrace.cli.doors import person as person
from headrace.cli.reading import find_tags
from headrace.historian.times import parse_time
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock, to_datetime
from headrace.security.audit import Checkpoint
from headrace.security.identity import Identity

DATA = typer.Option(Path("data"), "--data", help="Data folder.")
COLUMNS = ("number", "at (UTC)", "who", "what", "on", "outcome", Column("detail", overflow="fold"))
FORMAT = typer.Option("table", "--format", help="table or json (one entry a line).")


def register(app: typer.Typer) -> None:
    """Add the group ``audit``."""
    group = typer.Typer(
        help="The audit chain: who did what, and whether it is whole.", no_args_is_help=True
    )

    @group.command("list")
    def list_entries(
        actor: str = typer.Option("", help="Of this user."),
        action: str = typer.Option("", help="Such as write or sign_in."),
        resource: str = typer.Option("", help="What it begins with, such as tag/."),
        start: str = typer.Option("", "--from", help="-2h, or 2026-03-01T12:00+01:00."),
        end: str = typer.Option("", "--to", help="The same; none: now."),
        limit: int = typer.Option(100, min=1, max=100_000),
        style: str = FORMAT,
        data: Path = DATA,
    ) -> None:
        """Show the newest entries that match, oldest of them first."""
        now_us = SystemClock().now_us()
        with _identity(data) as identity:
            found = identity.audit.entries(
                actor=actor,
                action=action,
                resource=resource,
                start_us=parse_time(start, now_us) if start else 0,
                end_us=parse_time(end, now_us) if end else 1 << 62,
                limit=limit,
            )
        if style == "json":
            for entry in reversed(found):
                sys.stdout.write(msgspec.json.encode(entry).decode() + "\n")
            return
        table = Table(*COLUMNS, box=None, header_style="bold")
        for entry in reversed(found):
            at = to_datetime(entry.at_us).strftime("%Y-%m-%d %H:%M:%S")
            table.add_row(
                *(str(entry.number), at, entry.actor, entry.action, entry.resource),
                *(entry.outcome, entry.detail if entry.detail != "{}" else ""),
            )
        Console().print(table)

    _register_verify(group)
    _register_who_read(group)
    _register_keys(group)
    app.add_typer(group, name="audit")


def _register_verify(group: typer.Typer) -> None:
    @group.command("verify")
    def verify(
        checkpoint: list[Path] = typer.Option(
            [], help="File of checkpoints that was kept elsewhere; several times."
        ),
        data: Path = DATA,
    ) -> None:
        """Look at the whole chain: finds any edit, removal, reordering, foreign entry or cut end.

        Ends with 1 when it is broken.
        """
        places = [
            _checkpoint(line, path)
            for path in checkpoint
            for line in path.read_bytes().splitlines()
            if line.strip()
        ]
        out = Console(highlight=False)
        with (
            _identity(data) as identity,
            Progress(console=Console(stderr=True), transient=True) as bar,
        ):
            looking = bar.add_task("entries", total=None)
            verdict = identity.audit.verify(
                places, lambda done, total: bar.update(looking, completed=done, total=total)
            )
        for flaw in verdict.flaws:
            out.print(f"[red]{flaw.code}[/] entry {flaw.number}: {flaw.what}")
        given = f", {verdict.checkpoints} of {len(places)} checkpoints met" if places else ""
        if verdict.flaws:
            out.print(f"[red]The chain is broken.[/] {verdict.entries} entries{given}")
            raise typer.Exit(1)
        out.print(f"[green]The chain is whole:[/] {verdict.entries} entries{given}")


def _register_who_read(group: typer.Typer) -> None:
    @group.command("who-read")
    def who_read(
        tag: str = typer.Argument(help="Path or glob of tags, such as utilities/*/flow."),
        start: str = typer.Option("-30d", "--from", help="-2h, or 2026-03-01T12:00+01:00."),
        end: str = typer.Option("", "--to", help="The same; none: now."),
        limit: int = typer.Option(1_000, min=1, max=100_000),
        style: str = FORMAT,
        data: Path = DATA,
    ) -> None:
        """Show who read or took the data of tags, when, by which door, under which rule.

        What was read in the last seconds may still be counted by a running console.
        """
        now_us = SystemClock().now_us()
        ids = [record.tag_id for record in find_tags(DataFolder(data.resolve()), tag)]
        with _identity(data) as identity:
            found = identity.receipts.who_read(
                ids,
                parse_time(start, now_us),
                parse_time(end, now_us) if end else now_us + 1,
                limit,
            )
        if style == "json":
            for each in found:
                sys.stdout.write(msgspec.json.encode(each).decode() + "\n")
            return
        heads = ("at (UTC)", "who", "kind", "door", "reads", "samples", "data from", "to", "rule")
        table = Table(*heads, box=None, header_style="bold")
        for each in found:
            table.add_row(
                *(_at(each.at_us), each.actor, each.kind, each.door, f"{each.reads:,}"),
                *(f"{each.samples:,}", _at(each.start_us), _at(each.end_us), each.rule),
            )
        Console().print(table)


def _at(at_us: int) -> str:
    return to_datetime(at_us).strftime("%Y-%m-%d %H:%M:%S") if at_us else ""


def _register_keys(group: typer.Typer) -> None:
    @group.command("checkpoint")
    def checkpoint(data: Path = DATA) -> None:
        """Print the chain's state as one line; keep it where nobody of this machine can change it."""
        with _identity(data) as identity:
            place = identity.audit.checkpoint()
        if place is not None:
            sys.stdout.write(msgspec.json.encode(place).decode() + "\n")

    @group.command("key")
    def key(data: Path = DATA) -> None:
        """Print this machine's public key; the other consoles of a shared database trust it."""
        with _identity(data) as identity:
            sys.stdout.write(identity.audit.keys.public_pem().decode())

    @group.command("trust")
    def trust(
        file: Path = typer.Argument(help="Public key of another machine."), data: Path = DATA
    ) -> None:
        """Let entries count that another machine of this installation signed."""
        with _identity(data) as identity:
            name = identity.audit.keys.trust(file.read_bytes())
            identity.audit.record(person(), "audit.trust", f"key/{name[:16]}", "done")


def _checkpoint(line: bytes, path: Path) -> Checkpoint:
    try:
        return msgspec.json.decode(line, type=Checkpoint)
    except UNREADABLE as error:
        raise Misconfigured(
            "CLI-1601", f"{path} holds a line that is no checkpoint: {error}",
            "Give a file with lines of: headrace audit checkpoint",
        ) from error  # fmt: skip


@contextmanager
def _identity(data: Path) -> Iterator[Identity]:
    identity = Identity(DataFolder(data.resolve()))
    try:
        yield identity
    finally:
        identity.close()
