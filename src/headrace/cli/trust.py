"""``headrace trust``: which devices' certificates we accept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from headrace.model.time import to_datetime
from headrace.security import certificates
from headrace.security.certificates import CertificateEntry

Data = Annotated[Path, typer.Option("--data", help="Data folder of this Headrace.")]
Thumbprint = Annotated[str, typer.Argument(help="Thumbprint, or its first digits.")]
_DATA = Path("data")


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    group = typer.Typer(
        name="trust", help="Certificates of devices: look, trust, remove.", no_args_is_help=True
    )
    group.command("list")(list_)
    group.command("show")(show)
    group.command("add")(add)
    group.command("remove")(remove)
    app.add_typer(group)


def list_(data: Data = _DATA) -> None:
    """Show all certificates: trusted, rejected and our own."""
    table = Table("list", "thumbprint", "application", "subject", "valid until", box=None)
    for entry in certificates.list_certificates(_folder(data)):
        table.add_row(
            entry.kept_in,
            entry.thumbprint,
            entry.application_uri,
            entry.subject,
            to_datetime(entry.not_after_us).date().isoformat(),
        )
    console = Console()
    if not table.row_count:
        console.print(f"No certificates in {_folder(data)} yet.", highlight=False)
        return
    console.print(table)


def show(thumbprint: Thumbprint, data: Data = _DATA) -> None:
    """Show one certificate, to compare it with what the device's owner says."""
    _print(certificates.find_certificate(_folder(data), thumbprint))


def add(
    thumbprint: Annotated[
        str, typer.Argument(help="Thumbprint of a rejected certificate, or a .der or .pem file.")
    ],
    data: Data = _DATA,
) -> None:
    """Trust a device's certificate; the edge connects at its next try."""
    source = Path(thumbprint)
    if source.suffix.lower() in (".der", ".pem", ".crt", ".cer"):
        entry = certificates.trust_file(_folder(data), source)
    else:
        entry = certificates.trust(_folder(data), thumbprint)
    _print(entry)


def remove(thumbprint: Thumbprint, data: Data = _DATA) -> None:
    """Stop trusting a device's certificate; it goes to the rejected ones."""
    _print(certificates.distrust(_folder(data), thumbprint))


def _folder(data: Path) -> Path:
    return data / "certificates"


def _print(entry: CertificateEntry) -> None:
    console = Console()
    rows = {
        "list": entry.kept_in,
        "thumbprint": entry.thumbprint,
        "application": entry.application_uri,
        "subject": entry.subject,
        "valid from": to_datetime(entry.not_before_us).isoformat(),
        "valid until": to_datetime(entry.not_after_us).isoformat(),
        "file": str(entry.path),
    }
    for name, text in rows.items():
        console.print(f"{name:12} {text}", highlight=False, soft_wrap=True)
