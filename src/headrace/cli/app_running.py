"""``headrace app status|logs|restart|call|services``: apps with Python as they run, and their services."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.bus.broker import load_address
from headrace.bus.client import Bus, open_bus
from headrace.bus.desired import read_desired
from headrace.bus.services import ServiceFigures
from headrace.bus.services import services as found_services
from headrace.bus.subjects import Subjects
from headrace.cli.run import DATA, site_subjects
from headrace.model.app_state import AppState
from headrace.model.decoding import UNREADABLE
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder

BROKER_WAIT_S: Final = 2.0
HEALTH_WAIT_S: Final = 2.2
EDGE = typer.Option(
    "", "--edge", help="The one on this edge's machine, of an app in several places."
)
T = TypeVar("T")
_COLOURS: Final = {"running": "green", "stopped": "red", "waiting": "red"}


def add_running(group: typer.Typer) -> None:
    """Add the five commands."""

    @group.command("status")
    def status(data: Path = DATA) -> None:
        """Say how each app with Python does: state, memory, CPU, rows, newest error."""
        _show(with_bus(data, app_states))

    @group.command("logs")
    def logs(
        app_id: str = typer.Argument(help="The app."), edge: str = EDGE, data: Path = DATA
    ) -> None:
        """Print the newest lines of an app's log."""
        lines = with_bus(
            data, lambda bus, subjects: _ask_runtime(bus, subjects, app_id, "logs", edge)
        )
        sys.stdout.write("".join(f"{line}\n" for line in msgspec.json.decode(lines)))

    @group.command("restart")
    def restart(
        app_id: str = typer.Argument(help="The app."), edge: str = EDGE, data: Path = DATA
    ) -> None:
        """Try an app again at once that was stopped, or waits."""
        with_bus(data, lambda bus, subjects: _ask_runtime(bus, subjects, app_id, "restart", edge))

    @group.command("call")
    def call(
        app_id: str = typer.Argument(help="The app."),
        service: str = typer.Argument(help="One of its services."),
        json: str = typer.Option("{}", "--json", help="The request."),
        timeout: float = typer.Option(60.0, "--timeout", help="Seconds to wait."),
        edge: str = EDGE,
        data: Path = DATA,
    ) -> None:
        """Ask a service of an app, and print its answer as JSON."""
        try:
            msgspec.json.decode(json)
        except UNREADABLE as error:
            raise Misconfigured(
                "APPS-2235", f"--json is no JSON: {error}", """Write for example '{"flow": 40}'."""
            ) from error
        answer = with_bus(
            data,
            lambda bus, subjects: _ask(
                bus, subjects, app_id, service, edge, json.encode(), timeout
            ),
        )
        pretty = msgspec.json.format(answer, indent=2).decode()
        sys.stdout.write(f"{pretty}\n")

    @group.command("services")
    def services(
        app_id: str = typer.Argument("", help="Only of this app."), data: Path = DATA
    ) -> None:
        """List services of apps on this machine's broker: how often asked, refused, and how long it took."""
        found = with_bus(data, lambda bus, subjects: found_services(bus))
        _show_services([each for each in found if app_id in ("", each.name)])


def _show_services(found: list[ServiceFigures]) -> None:
    out = Console()
    if not found:
        out.print("No app with a service runs here.")
        return
    table = Table("app", "service", "asked", "refused", "mean ms", box=None)
    for service in found:
        for each in service.endpoints:
            table.add_row(
                f"{service.name} {service.version}",
                each.name,
                str(each.num_requests),
                str(each.num_errors),
                f"{each.average_processing_time / 1e6:.1f}",
            )
    out.print(table)


async def app_states(bus: Bus, subjects: Subjects) -> list[AppState]:
    """Each app that says something of itself within two seconds, by id."""
    found: dict[tuple[str, str], AppState] = {}

    async def take(message: Any) -> None:
        state = msgspec.json.decode(message.data, type=AppState)
        found[state.app, state.edge] = state

    stop = await bus.subscribe(f"{subjects.prefix}.health.app.>", take)
    await asyncio.sleep(HEALTH_WAIT_S)
    await stop()
    return [found[name] for name in sorted(found)]


async def _ask_runtime(bus: Bus, subjects: Subjects, app_id: str, verb: str, edge: str) -> bytes:
    word = app_id.replace("-", "_")
    return await bus.request(subjects.runtime_call(word, verb, await _place(bus, word, edge)))


async def _place(bus: Bus, word: str, edge: str) -> str:
    """Where a question to an app goes; see :meth:`AppDeployment.place`."""
    raw = await read_desired(bus, f"app.{word}")
    return msgspec.json.decode(raw, type=AppDeployment).place(edge) if raw else edge


async def _ask(
    bus: Bus,
    subjects: Subjects,
    app_id: str,
    service: str,
    edge: str,
    body: bytes = b"",
    timeout_s: float = 10.0,
) -> bytes:
    word = app_id.replace("-", "_")
    subject = subjects.app_call(word, service, await _place(bus, word, edge))
    return await bus.request(subject, body, timeout_s=timeout_s)


def with_bus(data: Path, work: Callable[[Bus, Subjects], Awaitable[T]]) -> T:
    """What work on the bus of a running installation gives.

    Raises:
        Transient: BUS-1025 when its broker does not answer within two seconds.
    """
    folder = DataFolder(data.resolve())

    async def run() -> T:
        address = load_address(folder).as_role("cli")
        async with open_bus(address, "app", wait_s=BROKER_WAIT_S) as bus:
            return await work(bus, site_subjects(folder))

    return asyncio.run(run())


def _show(states: list[AppState]) -> None:
    table = Table(box=None, header_style="dim")
    for name in (
        "app",
        "version",
        "on",
        "state",
        "assets",
        "MB",
        "CPU %",
        "rows/s",
        "restarts",
        "error",
    ):
        table.add_column(
            name, justify="left" if name in ("app", "on", "state", "error") else "right"
        )
    for state in states:
        colour = _COLOURS.get(state.state, "yellow")
        error = f"{state.last_error_code} {state.last_error}" if state.last_error_code else ""
        numbers = (f"{state.memory_mb:.0f}", f"{state.cpu_percent:.1f}", f"{state.rows_per_s:.1f}")
        table.add_row(
            state.app,
            state.version,
            state.edge or "platform",
            f"[{colour}]{state.state}[/]",
            str(state.assets),
            *numbers,
            str(state.restarts),
            escape(error),
        )
    out = Console()
    if states:
        out.print(table)
    else:
        out.print("No app with Python runs here.")
