"""``headrace secret``: the vault of device passwords, tokens and other secrets."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from rich.table import Table

from headrace.cli.audit import person
from headrace.cli.run import DATA
from headrace.model.folder import DataFolder
from headrace.model.time import to_datetime
from headrace.security.identity import Identity
from headrace.security.master_key import new_key
from headrace.security.sealing import fingerprint, own_edge_key
from headrace.security.secrets import Vault
from headrace.site import secrets as site_secrets
from headrace.site.file import load_site

NAME: Final = typer.Argument(help="Name of the secret, such as plc_1_password.")
EDGE: Final = typer.Option("local", help="Name of the edge.")


def register(app: typer.Typer) -> None:
    """Add the group ``secret``."""
    group = typer.Typer(
        help="Device passwords, tokens and other secrets, encrypted at rest.", no_args_is_help=True
    )
    for name, command in (
        ("set", set_secret),
        ("list", list_secrets),
        ("show", show),
        ("remove", remove),
        ("rotate", rotate),
        ("adopt", adopt),
        ("new-key", print_new_key),
        ("edges", edges),
        ("edge-key", edge_key),
        ("trust-edge", trust_edge),
    ):
        group.command(name)(command)
    app.add_typer(group, name="secret")


def set_secret(name: str = NAME, data: Path = DATA) -> None:
    """Put a secret in; it is asked for, or read from standard input. Edges follow within seconds."""
    if sys.stdin.isatty():
        value = typer.prompt("Secret", hide_input=True, confirmation_prompt=True)
    else:
        value = sys.stdin.read().rstrip("\n")
    with _vault(data) as (vault, identity):
        vault.set(name, value)
        identity.audit.record(person(), "set_secret", f"secret/{name}", "done")
    _say(f"{name} is in the vault. In the site file: secret:{name}")


def list_secrets(data: Path = DATA) -> None:
    """Show the names of all secrets, and when each was set; no secret is shown."""
    with Vault(_folder(data)) as vault:
        entries, place = vault.names(), vault.key_place
    table = Table("name", "set (UTC)", box=None, header_style="bold")
    for entry in entries:
        table.add_row(entry.name, to_datetime(entry.changed_us).isoformat(timespec="seconds"))
    Console().print(table)
    _say(f"{len(entries)} secrets; their key is in {place}")


def show(
    name: str = NAME,
    reveal: bool = typer.Option(False, "--reveal", help="Print it; stands in the audit chain."),
    data: Path = DATA,
) -> None:
    """Say whether a secret is there and opens; with --reveal print it."""
    with _vault(data) as (vault, identity):
        if reveal:
            identity.audit.record(person(), "reveal_secret", f"secret/{name}", "begun")
        value = vault.get(name)
    if reveal:
        sys.stdout.write(value + "\n")
    else:
        _say(f"{name} is there and opens: {len(value)} characters. To print it: --reveal")


def remove(name: str = NAME, data: Path = DATA) -> None:
    """Take a secret out; connections that name it stop when they next connect."""
    with _vault(data) as (vault, identity):
        vault.remove(name)
        identity.audit.record(person(), "remove_secret", f"secret/{name}", "done")
    _say(f"{name} is not in the vault any more")


def rotate(data: Path = DATA) -> None:
    """Make a new master key and encrypt everything anew; works while the installation runs."""
    with _vault(data) as (vault, identity):
        identity.audit.record(person(), "rotate_key", "secret", "begun")
        count = vault.rotate()
        identity.audit.record(person(), "rotate_key", "secret", "done", secrets=count)
        place = vault.key_place
    _say(f"{count} secrets are encrypted anew; their key is in {place}")


def adopt(data: Path = DATA) -> None:
    """Move the secrets that stand in clear in the site file into the vault; the file then names them."""
    folder = _folder(data)
    model = load_site(folder.site_file)
    with _vault(data) as (_, identity):
        names = site_secrets.adopt(folder, model)
        for name in names:
            identity.audit.record(person(), "set_secret", f"secret/{name}", "done")
    _say("No secret stands in clear in the site file." if not names else "")
    for name in names:
        _say(f"{name} is in the vault, and the site file names it")


def print_new_key() -> None:
    """Print a fresh master key, for HEADRACE_KEY or the file that HEADRACE_KEY_FILE names."""
    sys.stdout.write(new_key() + "\n")


def edges(data: Path = DATA) -> None:
    """Show to which key the secrets of each edge are sealed."""
    folder = _folder(data)
    names = {connection.edge for connection in load_site(folder.site_file).connections}
    table = Table("edge", "fingerprint of its key", box=None, header_style="bold")
    for edge in sorted(names):
        public = site_secrets.edge_public_key(folder, edge)
        table.add_row(edge, fingerprint(public) if public else "not known: no secret reaches it")
    Console().print(table)


def edge_key(edge: str = EDGE, data: Path = DATA) -> None:
    """Print the public key of an edge on this machine, to be trusted where the site file is."""
    sys.stdout.write(own_edge_key(_folder(data).keys, edge).public + "\n")


def trust_edge(
    edge: str = typer.Argument(help="Name of the edge."),
    key: str = typer.Argument(help="What its machine prints: headrace secret edge-key"),
    data: Path = DATA,
) -> None:
    """Seal secrets of an edge to this key from now on."""
    with _vault(data) as (_, identity):
        found = site_secrets.trust_edge_key(_folder(data), edge, key)
        identity.audit.record(person(), "trust_edge_key", f"edge/{edge}", "done", key=found)
    _say(f"Secrets of {edge} are sealed to the key {found}")


@contextmanager
def _vault(data: Path) -> Iterator[tuple[Vault, Identity]]:
    folder = _folder(data)
    identity = Identity(folder)
    try:
        with Vault(folder) as vault:
            yield vault, identity
    finally:
        identity.close()


def _folder(data: Path) -> DataFolder:
    return DataFolder(data.resolve())


def _say(text: str) -> None:
    if text:
        Console().print(text, highlight=False, markup=False, soft_wrap=True)
