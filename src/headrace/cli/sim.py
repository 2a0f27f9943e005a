"""``headrace sim``: the simulated site's faults and state."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.cli.run import site_subjects
from headrace.cli.sim_world import world
from headrace.model.errors import Misconfigured, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import to_datetime

DATA = typer.Option(Path("data"), "--data", help="Data folder of the installation.")
TARGETS_SHOWN: Final = 6
BROKER_WAIT_S: Final = 3.0


def register(app: typer.Typer) -> None:
    """Add ``sim`` and its commands."""
    group = typer.Typer(
        help="The simulated site: what it does, and faults to switch on.", no_args_is_help=True
    )
    fault = typer.Typer(help="Faults of machines, sensors and devices.", no_args_is_help=True)

    @group.command("status")
    def status(data: Path = DATA) -> None:
        """Show the simulated devices and the faults that act now."""
        _show_status(_ask(data, "status"))

    @fault.command("list")
    def fault_list(
        data: Path = DATA,
        everything: bool = typer.Option(False, "--all", help="Show every target."),
    ) -> None:
        """Show every fault: what it does, where it can act, where it acts now."""
        _show_faults(_ask(data, "fault_list"), everything)

    @fault.command("start")
    def fault_start(
        name: str,
        target: str,
        settings: list[str] = typer.Option(
            [], "--set", metavar="KEY=NUMBER", help="A parameter; may be given several times."
        ),
        data: Path = DATA,
    ) -> None:
        """Let the fault NAME act on TARGET."""
        call = {"name": name, "target": target, "parameters": parse_settings(settings)}
        started = _ask(data, "fault_start", call)
        shown = ", ".join(f"{key} = {value:g}" for key, value in started["parameters"].items())
        Console().print(
            f"[bold]{name}[/] acts on [bold]{target}[/]" + (f" ({shown})" if shown else "")
        )

    @fault.command("stop")
    def fault_stop(name: str, target: str, data: Path = DATA) -> None:
        """End the fault NAME on TARGET, with the repair that belongs to it."""
        _ask(data, "fault_stop", {"name": name, "target": target})
        Console().print(f"[bold]{name}[/] on [bold]{target}[/] has ended")

    group.add_typer(fault, name="fault")
    group.command("world")(world)
    app.add_typer(group, name="sim")


def parse_settings(settings: list[str]) -> dict[str, float]:
    """``key=number`` texts as parameters of a fault.

    Raises:
        Misconfigured: SIM-1016 for a text of another form.

    Example:
        >>> parse_settings(["off_s=3"])
        {'off_s': 3.0}
    """
    parameters = {}
    for text in settings:
        key, equals, number = text.partition("=")
        try:
            if not equals or not key:
                raise ValueError(text)
            parameters[key.strip()] = float(number)
        except ValueError as error:
            raise Misconfigured(
                "SIM-1016", f"--set {text!r} is not KEY=NUMBER", "Write for example --set off_s=3"
            ) from error
    return parameters


def _ask(data: Path, verb: str, call: dict[str, Any] | None = None) -> Any:
    folder = DataFolder(data.resolve())
    body = msgspec.json.encode(call) if call else b""

    async def ask() -> bytes:
        address = load_address(folder)
        subject = site_subjects(folder).sim_call(verb)
        try:
            # The timeout stands around it all: connecting to a broker that is gone waits for long.
            async with (
                asyncio.timeout(2 * BROKER_WAIT_S),
                open_bus(address.as_role("cli"), "sim-cli", wait_s=BROKER_WAIT_S) as bus,
            ):
                return await bus.request(subject, body, timeout_s=BROKER_WAIT_S)
        except (Transient, TimeoutError) as error:
            raise Transient(
                "SIM-1017",
                f"no simulated site answers in {folder.root}",
                "Start one with: headrace up --demo (and give its folder with --data)",
            ) from error

    return msgspec.json.decode(asyncio.run(ask()))


def _show_status(status: dict[str, Any]) -> None:
    console = Console()
    at = to_datetime(status["at_us"]).strftime("%Y-%m-%d %H:%M:%S") if status["at_us"] else "-"
    console.print(f"Seed {status['seed']}, {status['steps']} steps, at {at} UTC")
    table = Table("device", "protocol", "tags", "state", "last error", title_justify="left")
    for device in status["devices"]:
        state = "[green]serves[/]" if device["serving"] else "[yellow]off[/]"
        table.add_row(
            device["name"], device["protocol"], str(device["tags"]), state, device["error"]
        )
    console.print(table)
    if not status["faults"]:
        console.print("No fault acts.")
    for fault in status["faults"]:
        console.print(f"[bold]{fault['name']}[/] on {fault['target']} for {fault['elapsed_s']:g} s")


def _show_faults(faults: list[dict[str, Any]], everything: bool) -> None:
    table = Table("fault", "what it does", "targets", "--set (default)", "acts on", show_lines=True)
    for fault in faults:
        targets = fault["targets"]
        shown = targets if everything else targets[:TARGETS_SHOWN]
        more = "" if len(shown) == len(targets) else f"\n... {len(targets)} in all (--all)"
        parameters = "\n".join(
            f"{name} ({parameter['default']:g} {parameter['unit']})"
            for name, parameter in fault["parameters"].items()
        )
        active = "\n".join(f"[bold red]{target}[/]" for target in fault["active"])
        table.add_row(
            f"[bold]{fault['name']}[/]",
            fault["explanation"]["en"],
            "\n".join(shown) + more,
            parameters,
            active,
        )
    Console().print(table)
