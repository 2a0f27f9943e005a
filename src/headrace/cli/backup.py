"""``headrace backup``: make, look at, put back and thin out backups."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table

from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import US_PER_S, SystemClock, to_datetime

if TYPE_CHECKING:
    from headrace.site.backup import BackupHead, Repository

DATA = typer.Option(Path("data"), "--data", help="Data folder.")
TO = typer.Argument(help="Folder of the backups, on another disk or machine.")
NAME = typer.Option("", "--backup", help="Id of a backup, as list shows it; none: the newest.")
KEY_FILE = typer.Option(None, "--key-file", help="File with AGE-SECRET-KEY-1...")
PASS_FILE = typer.Option(
    None,
    "--passphrase-file",
    help="File with the passphrase; else HEADRACE_BACKUP_PASSPHRASE, else it is asked for.",
)
SIGNED_BY = typer.Option(
    "",
    "--signed-by",
    help="Key that must have signed it, as list shows it; its beginning is enough.",
)
VARIABLE: Final = "HEADRACE_BACKUP_PASSPHRASE"
BROKER_WAIT_S: Final = 2.0


def register(app: typer.Typer) -> None:
    """Add the group ``backup``."""
    group = typer.Typer(
        help="Backups while everything runs: encrypted, signed, incremental.", no_args_is_help=True
    )
    _register_create(group)
    _register_looking(group)
    _register_restore(group)
    app.add_typer(group, name="backup")


def _register_create(group: typer.Typer) -> None:
    @group.command("create")
    def create(
        to: Path = TO,
        recipient: str = typer.Option(
            "", help="At the first backup there: age1..., whose secret half lies elsewhere."
        ),
        passphrase_file: Path | None = PASS_FILE,
        keep: int = typer.Option(0, min=0, help="Afterwards remove all but so many; 0: none."),
        keep_days: float = typer.Option(0, min=0, help="... but none that is newer than that."),
        key_file: Path | None = KEY_FILE,
        data: Path = DATA,
    ) -> None:
        """Make a backup; what an earlier one there has is not copied again.

        The first one makes the place: with --recipient, or with a passphrase. Later ones need neither;
        --keep needs the key or the passphrase, to see what is still in use.
        """
        from headrace.cli.audit import person
        from headrace.security.identity import Identity
        from headrace.site.backup import Repository

        folder = DataFolder(data.resolve())
        out = Console(stderr=True, highlight=False)
        if (to / "repository.json").exists():
            repository = Repository(to.resolve())
        else:
            secret = "" if recipient else _passphrase(passphrase_file, twice=True)
            repository = Repository.create(to.resolve(), recipient=recipient, passphrase=secret)
        identity = Identity(folder)
        try:
            about = (person(), "backup.create", f"repository/{repository.id}")
            identity.audit.record(*about, "begun")
            head = asyncio.run(_create(folder, repository, out))
            identity.audit.record(*about, "done", backup=head.id, bytes=head.bytes)
        finally:
            identity.close()
        out.print(f"[green]Backup {head.id}[/]: {_size(head.bytes)}, {_size(head.new_bytes)} new")
        if keep or keep_days:
            secret = repository.identity(**_secret(repository, key_file, passphrase_file))
            newer_us = (
                head.at_us - round(keep_days * 86_400 * US_PER_S) if keep_days else head.at_us
            )
            with repository.alone():
                gone, free = repository.prune(secret, keep=keep or 1, newer_us=newer_us)
            out.print(f"Removed {len(gone)} backups, {_size(free)}")
        sys.stdout.write(head.id + "\n")


async def _create(folder: DataFolder, repository: Repository, out: Console) -> BackupHead:
    from headrace.bus.broker import load_address
    from headrace.bus.client import open_bus
    from headrace.cli.run import named_site
    from headrace.cli.supervisor import installation_lock
    from headrace.site.backup import create_backup

    site = named_site(folder)
    clock = SystemClock()
    with _bar(out, 0) as progress:
        try:
            async with open_bus(load_address(folder), "backup", wait_s=BROKER_WAIT_S) as bus:
                return await create_backup(
                    folder, repository, clock, site, bus=bus, progress=progress
                )
        except Transient as error:
            if error.code not in ("BUS-1010", "BUS-1025"):
                raise
        with installation_lock(folder):  # it is stopped, and stays so
            return await create_backup(folder, repository, clock, site, bus=None, progress=progress)


def _table(heads: Sequence[BackupHead]) -> Table:
    table = Table(
        Column("id", no_wrap=True, min_width=20),
        "at (UTC)",
        "site",
        "files",
        "size",
        "new",
        "signed by",
        box=None,
    )
    for head in heads:
        at = to_datetime(head.at_us).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(
            *(head.id, at, f"{head.enterprise}/{head.site}", f"{head.files:,}"),
            *(_size(head.bytes), _size(head.new_bytes), head.key[:16]),
        )
    return table


def _register_looking(group: typer.Typer) -> None:
    @group.command("list")
    def list_backups(
        to: Path = TO,
        style: str = typer.Option("table", "--format", help="table or json (one a line)."),
    ) -> None:
        """Show the backups of a folder; needs no key."""
        from headrace.site.backup import Repository

        heads = Repository(to.resolve()).heads()
        if style == "json":
            for head in heads:
                sys.stdout.write(msgspec.json.encode(head).decode() + "\n")
            return
        Console().print(_table(heads))

    @group.command("verify")
    def verify(
        to: Path = TO,
        name: str = NAME,
        key_file: Path | None = KEY_FILE,
        passphrase_file: Path | None = PASS_FILE,
        signed_by: str = SIGNED_BY,
    ) -> None:
        """Open everything of a backup and compare it with what was saved; finds any changed byte."""
        from headrace.site.backup import Repository, verify_backup

        repository = Repository(to.resolve())
        head = repository.head(name)
        identity = repository.identity(**_secret(repository, key_file, passphrase_file))
        out = Console(stderr=True, highlight=False)
        with _bar(out, head.bytes) as progress:
            manifest = verify_backup(
                repository, head, identity, trusted=signed_by, progress=progress
            )
        out.print(
            f"[green]Backup {head.id} is whole[/]: {len(manifest.files)} files, "
            f"{len(manifest.streams)} streams, {_size(head.bytes)}; signed by {head.key[:16]}"
        )

    @group.command("prune")
    def prune(
        to: Path = TO,
        keep: int = typer.Option(1, min=1, help="The newest so many stay."),
        keep_days: float = typer.Option(0, min=0, help="And those that are not older."),
        key_file: Path | None = KEY_FILE,
        passphrase_file: Path | None = PASS_FILE,
    ) -> None:
        """Remove old backups and what only they had."""
        from headrace.site.backup import Repository

        repository = Repository(to.resolve())
        identity = repository.identity(**_secret(repository, key_file, passphrase_file))
        now_us = SystemClock().now_us()
        newer_us = now_us - round(keep_days * 86_400 * US_PER_S) if keep_days else now_us
        with repository.alone():
            gone, free = repository.prune(identity, keep=keep, newer_us=newer_us)
        Console(stderr=True).print(f"Removed {len(gone)} backups, {_size(free)}")


def _register_restore(group: typer.Typer) -> None:
    @group.command("restore")
    def restore(
        to: Path = TO,
        data: Path = typer.Option(..., "--data", help="Data folder to make: not there, or empty."),
        name: str = NAME,
        key_file: Path | None = KEY_FILE,
        passphrase_file: Path | None = PASS_FILE,
        signed_by: str = SIGNED_BY,
        force: bool = typer.Option(False, help="Put what is there aside, under another name."),
    ) -> None:
        """Put a backup back; then start it with headrace up --data FOLDER."""
        from headrace.cli.audit import person
        from headrace.cli.supervisor import installation_lock
        from headrace.security.identity import Identity
        from headrace.site.backup import Repository, restore_backup

        repository = Repository(to.resolve())
        head = repository.head(name)
        identity = repository.identity(**_secret(repository, key_file, passphrase_file))
        target = data.resolve()
        out = Console(stderr=True, highlight=False)
        if (target / "run").is_dir():
            with installation_lock(DataFolder(target)):
                pass  # nothing runs on what is to be put aside
        with _bar(out, head.bytes) as progress:
            aside = asyncio.run(
                restore_backup(
                    repository, head, identity, target,
                    trusted=signed_by, force=force, progress=progress,
                )
            )  # fmt: skip
        restored = Identity(DataFolder(target))
        try:
            told = {"backup": head.id, "signed_by": head.key[:16]}
            about = (person(), "backup.restore", f"repository/{repository.id}")
            restored.audit.record(*about, "done", **told)
        finally:
            restored.close()
        out.print(
            f"[green]Backup {head.id} is in {target}[/]; start it: headrace up --data {target}"
        )
        if aside is not None:
            out.print(f"What was there lies in {aside}")


def _secret(
    repository: Repository, key_file: Path | None, passphrase_file: Path | None
) -> dict[str, str]:
    """How the person opens the repository."""
    if key_file is not None:
        lines = _read(key_file).splitlines()
        return {"key": next((line for line in lines if line.startswith("AGE-SECRET")), "")}
    if (repository.path / "identity.age").exists():
        return {"passphrase": _passphrase(passphrase_file, twice=False)}
    return {}


def _passphrase(file: Path | None, *, twice: bool) -> str:
    if file is not None:
        return _read(file).rstrip("\r\n")
    found = os.environ.get(VARIABLE, "")
    if not found and sys.stdin.isatty():
        found = typer.prompt("Passphrase", hide_input=True, confirmation_prompt=twice)
    if twice and found and len(found) < 12:
        raise Misconfigured(
            "SEC-1714", "the passphrase has less than 12 characters", "Take several words."
        )
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused("SEC-1716", f"cannot read {path}: {error}", "Give another file.") from error


@contextmanager
def _bar(out: Console, total: int) -> Iterator[Callable[[str, int], None]]:
    """A line of progress by bytes; without a known total it counts only."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=out, transient=True) as shown:
        task = shown.add_task("...", total=total or None)

        def tell(what: str, size: int) -> None:
            shown.update(task, description=what[-40:].ljust(40), advance=size)

        yield tell


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1_000 or unit == "GB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1_000
    raise AssertionError("unreachable")
