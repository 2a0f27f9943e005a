"""``headrace release``: sign the files of a release, and verify one of them."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from headrace.security.release import sign_folder, verify_file


def register(app: typer.Typer) -> None:
    """Add the group ``release``."""
    group = typer.Typer(help="Signed release files.", no_args_is_help=True)

    @group.command("sign")
    def sign(
        folder: Path = typer.Argument(help="Folder of the release's files."),
        key_file: Path = typer.Option(..., help="Private Ed25519 key, PEM."),
    ) -> None:
        """Write SHA256SUMS and its signature."""
        names = sign_folder(folder, key_file.read_bytes())
        Console(stderr=True).print(f"Signed {', '.join(names)}")

    @group.command("verify")
    def verify(
        file: Path = typer.Argument(help="File of a release, with SHA256SUMS beside it."),
        key_file: Path = typer.Option(..., help="Public Ed25519 key of the publisher, PEM."),
    ) -> None:
        """Pass when a file is the one that was released."""
        digest = verify_file(file, key_file.read_bytes())
        Console(stderr=True).print(f"[green]{file.name} is as released[/] ({digest})")

    app.add_typer(group, name="release")
