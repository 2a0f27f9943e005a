"""``headrace cert``: certificates of our listeners and of devices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from headrace.bus import leaf
from headrace.bus.broker import load_address, reload_broker, write_config
from headrace.model.errors import Transient
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock, to_datetime
from headrace.security.listener import DEVICE_DAYS, GATEWAY, SERVER, Issued, Listener

Data = Annotated[Path, typer.Option("--data", help="Data folder of this Headrace.")]
Name = Annotated[str, typer.Argument(help="The device's name, or server.")]
Days = Annotated[int, typer.Option("--days", help="Valid so many days.")]
_DATA = Path("data")


def register(app: typer.Typer) -> None:
    """Add the group to the command line."""
    group = typer.Typer(
        name="cert",
        help="Certificates that this installation shows and gives: list, make, renew, revoke.",
        no_args_is_help=True,
    )
    group.command("list")(list_)
    group.command("add")(add)
    group.command("renew")(renew)
    group.command("revoke")(revoke)
    group.command("renew-authority")(renew_authority)
    group.command("retire-authority")(retire_authority)
    app.add_typer(group)


def list_(data: Data = _DATA) -> None:
    """Show all certificates and how long they count."""
    now_us = SystemClock().now_us()
    table = Table("name", "use", "until", "days left", "state", "serial", box=None)
    for entry in _listener(data).entries():
        table.add_row(
            entry.name,
            entry.use,
            to_datetime(entry.not_after_us).date().isoformat(),
            str(entry.days_left(now_us)),
            _state(entry, now_us),
            entry.serial,
        )
    console = Console()
    if table.row_count:
        console.print(table)
    else:
        console.print("No certificates yet; headrace up --listen makes them.", highlight=False)


def add(name: Name, days: Days = DEVICE_DAYS, data: Data = _DATA) -> None:
    """Make a certificate and key for a device; headrace actor add makes the device known."""
    certificate, key = _listener(data).issue_device(name, SystemClock().now_us(), days)
    _say(
        f"certificate  {certificate}\nkey          {key}\nGive both to the device, then remove the key here."
    )


def renew(name: Name, days: Days = DEVICE_DAYS, data: Data = _DATA) -> None:
    """Make a new one; the old one counts on until its date, or until it is revoked."""
    listener, now_us = _listener(data), SystemClock().now_us()
    if name != SERVER:
        add(name, days, data)
        return
    if not _is_given(listener):
        listener.renew_server(now_us)
    _reload(listener.folder)
    _say("Listeners show the new certificate from now on; who is connected stays so.")


def revoke(
    which: Annotated[str, typer.Argument(help="Name (all of it), or one serial.")],
    data: Data = _DATA,
) -> None:
    """Count a device's certificate no more; its connection ends within two seconds."""
    for entry in _listener(data).revoke(which, SystemClock().now_us()):
        _say(f"revoked {entry.name} {entry.serial}")
    if which == GATEWAY:
        _say("Start headrace up again: the edge's own MQTT side gets a new one then.")


def renew_authority(data: Data = _DATA) -> None:
    """Make a new authority beside the old one; both count until retire-authority."""
    listener = _listener(data)
    path = listener.renew_authority(SystemClock().now_us())
    _reload(listener.folder)
    _say(
        f"Both authorities count now. Give {path} to everybody who connects, renew the certificates of "
        "devices (headrace cert renew NAME), then: headrace cert retire-authority"
    )


def retire_authority(
    force: Annotated[bool, typer.Option("--force", help="Also while devices need it.")] = False,
    data: Data = _DATA,
) -> None:
    """Let only the new authority count; the server shows a certificate of it from now on."""
    listener = _listener(data)
    listener.retire_authority(SystemClock().now_us(), force=force)
    _reload(listener.folder)
    _say("Only the new authority counts. Whoever knows only the old one cannot connect any more.")


def _listener(data: Path) -> Listener:
    return Listener(DataFolder(data.resolve()))


def _is_given(listener: Listener) -> bool:
    return any(entry.use == "given" for entry in listener.entries())


def _state(entry: Issued, now_us: int) -> str:
    if entry.revoked_us:
        return f"revoked on {to_datetime(entry.revoked_us).date().isoformat()}"
    return "counts" if now_us < entry.not_after_us else "has ended"


def _reload(folder: DataFolder) -> None:
    try:
        write_config(folder, load_address(folder), **leaf.broker_options(folder))
        reload_broker(folder)
    except Transient:
        _say("The broker does not run; it shows the new one when it starts.")


def _say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True)
