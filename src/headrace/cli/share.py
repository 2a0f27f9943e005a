"""``headrace share``: sharing contracts with other companies."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table

from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock, to_datetime

if TYPE_CHECKING:
    from headrace.security.identity import Identity
    from headrace.security.sharing import SharingContract

DATA = typer.Option(Path("data"), "--data", help="Data folder.")
CONTRACT = typer.Argument(help="Id of a contract, as list shows it.")


def register(app: typer.Typer) -> None:
    """Add the group ``share``."""
    group = typer.Typer(
        help="Sharing contracts: offer, sign, accept, revoke, report.", no_args_is_help=True
    )
    _register_making(group)
    _register_signing(group)
    _register_keeping(group)
    app.add_typer(group, name="share")


def _register_making(group: typer.Typer) -> None:
    @group.command("offer")
    def offer(
        partner: str = typer.Argument(help="The other company."),
        file: Path = typer.Argument(help="File to write, for the partner to sign."),
        tag: list[str] = typer.Option(..., "--tag", help="Path or glob; several times."),
        purpose: str = typer.Option(..., help="What the partner may use it for."),
        until: str = typer.Option(..., help="When it ends: 2027-01-31T00:00Z."),
        rows: int = typer.Option(..., min=1, help="How many rows in all."),
        partner_key: Path = typer.Option(..., help="What the partner's audit key prints."),
        start: str = typer.Option("now", "--from", help="When it begins."),
        data_from: str = typer.Option("now", help="Source times from here on."),
        data_until: str = typer.Option("", help="... up to here; none: until it ends."),
        every: str = typer.Option("", help="Windows, such as 1h; none: samples."),
        aggregate: str = typer.Option("", help="Of OPC UA, such as Average; needs --every."),
        samples_min: int = typer.Option(0, min=0, help="Leave out windows with fewer samples."),
        data: Path = DATA,
    ) -> None:
        """Write an offer, signed by this installation."""
        from headrace.cli.audit import person
        from headrace.cli.reading import find_tags
        from headrace.cli.run import named_site
        from headrace.historian.aggregates import check_name
        from headrace.historian.times import parse_duration, parse_time
        from headrace.security.audit import name_of_pem
        from headrace.security.sharing import Terms, sign_offer

        folder = DataFolder(data.resolve())
        now_us = SystemClock().now_us()
        tags = {record.path: record.tag_id for each in tag for record in find_tags(folder, each)}
        pem = partner_key.read_bytes()
        until_us = parse_time(until, now_us)
        with _identity(data) as identity:
            keys = identity.audit.keys
            contract = sign_offer(
                Terms(
                    offerer="/".join(named_site(folder)),
                    partner=partner,
                    purpose=purpose,
                    tags=tuple(sorted(tags.items())),
                    from_us=parse_time(start, now_us),
                    until_us=until_us,
                    data_from_us=parse_time(data_from, now_us),
                    data_until_us=parse_time(data_until, now_us) if data_until else until_us,
                    every_us=parse_duration(every) if every else 0,
                    aggregate=check_name(aggregate) if aggregate else "",
                    rows_max=rows,
                    samples_min=samples_min,
                    nonce=secrets.token_hex(8),
                    offerer_key=keys.name,
                    offerer_pem=keys.public_pem().decode(),
                    partner_key=name_of_pem(pem),
                    partner_pem=pem.decode(),
                ),
                keys,
            )
            told = {"partner": partner, "tags": len(tags), "rows": rows}
            identity.audit.record(person(), "share.offer", f"share/{contract.id}", "done", **told)
        _write(file, contract)
        sys.stdout.write(contract.id + "\n")


def _register_signing(group: typer.Typer) -> None:
    @group.command("sign")
    def sign(
        file: Path = typer.Argument(help="The offer; it is signed in its place."),
        data: Path = DATA,
    ) -> None:
        """Sign another company's offer with this installation's key."""
        from headrace.cli.audit import person
        from headrace.security.sharing import sign_partner

        with _identity(data) as identity:
            contract = sign_partner(_read(file), identity.audit.keys)
            offerer = contract.terms.offerer
            name = f"share/{contract.id}"
            identity.audit.record(person(), "share.sign", name, "done", offerer=offerer)
        _write(file, contract)
        sys.stdout.write(contract.id + "\n")

    @group.command("accept")
    def accept(
        file: Path = typer.Argument(help="The offer, signed by the partner."), data: Path = DATA
    ) -> None:
        """Put a contract in force that both signed; prints the partner's token, once."""
        from headrace.cli.audit import person

        with _identity(data) as identity:
            secret = identity.sharing.accept(_read(file), person())
        Console(stderr=True).print("The partner's token for /api/v1/shared, shown once:")
        sys.stdout.write(secret + "\n")


def _register_keeping(group: typer.Typer) -> None:
    @group.command("list")
    def list_contracts(data: Path = DATA) -> None:
        """Show the contracts that were accepted here."""
        with _identity(data) as identity:
            found = identity.sharing.contracts()
        table = Table(
            Column("id", no_wrap=True, min_width=16),
            "partner",
            "state",
            "tags",
            "rows",
            "until (UTC)",
            "purpose",
            box=None,
        )
        for contract, standing, state in found:
            terms = contract.terms
            table.add_row(
                *(contract.id, terms.partner, state, f"{len(terms.tags)}"),
                f"{standing.rows_used:,} of {terms.rows_max:,}",
                *(to_datetime(terms.until_us).strftime("%Y-%m-%d %H:%M"), terms.purpose),
            )
        Console().print(table)

    @group.command("revoke")
    def revoke(
        contract: str = CONTRACT,
        reason: str = typer.Option(..., help="Why; it stands in the audit chain."),
        data: Path = DATA,
    ) -> None:
        """End a contract now; open streams end within two seconds."""
        from headrace.cli.audit import person

        with _identity(data) as identity:
            identity.sharing.revoke(contract, person(), reason)

    @group.command("report")
    def report(contract: str = CONTRACT, data: Path = DATA) -> None:
        """Print what was shared, under which terms, and what was read; from the audit chain."""
        from headrace.security.sharing import liability_report

        with _identity(data) as identity:
            found = identity.sharing.contract(contract)
            entries = identity.audit.entries(resource=f"share/{contract}", limit=100_000)
            verdict, place = identity.audit.verify(), identity.audit.checkpoint()
        sys.stdout.write(liability_report(*found, entries[::-1], verdict, place))


def _read(path: Path) -> SharingContract:
    from headrace.security.sharing import SharingContract

    try:
        return msgspec.json.decode(path.read_bytes(), type=SharingContract)
    except (OSError, *UNREADABLE) as error:
        raise Misconfigured(
            "SEC-1730",
            f"{path} holds no sharing contract: {error}",
            "Give the file of share offer.",
        ) from error


def _write(path: Path, contract: SharingContract) -> None:
    from headrace.security.files import write_whole

    content = msgspec.json.format(msgspec.json.encode(contract), indent=1)
    write_whole(path.resolve(), content + b"\n", mode=0o644)


@contextmanager
def _identity(data: Path) -> Iterator[Identity]:
    from headrace.security.identity import Identity

    identity = Identity(DataFolder(data.resolve()))
    try:
        yield identity
    finally:
        identity.close()
