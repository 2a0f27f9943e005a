"""``headrace up``: the whole installation with one command."""

from __future__ import annotations

import asyncio
import signal
import time
import tomllib
from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from rich.panel import Panel

from headrace.bus.broker import BrokerAddress, free_port, load_address, prepare_address
from headrace.bus.client import open_bus
from headrace.cli.run import DATA, site_subjects
from headrace.cli.supervisor import Supervisor, installation_lock
from headrace.model.folder import DataFolder

FIRST_VALUES_S: Final = 60.0
TEND_S: Final = 0.2

_EMPTY_SITE = """\
# The desired state of this site. Changes apply without a restart; check with: headrace site check
[site]
enterprise = "my_enterprise"
name = "my_site"
"""


def register(app: typer.Typer) -> None:
    """Add ``up``."""

    @app.command("up")
    def up(
        demo: bool = typer.Option(
            False, "--demo", help="With a simulated site, on a folder of its own."
        ),
        data: Path | None = typer.Option(
            None, "--data", help="Data folder [data, or data/demo with --demo]."
        ),
        host: str = typer.Option("127.0.0.1", help="Address of the console."),
        port: int = typer.Option(
            0, help="Port of the console; 0 keeps the last one, or picks a free one."
        ),
        seed: int = typer.Option(1, help="Seed of the simulated site."),
    ) -> None:
        """Start broker, edge, historian and console here, and keep them running until Ctrl-C."""
        root = data if data is not None else Path("data/demo" if demo else "data")
        folder = DataFolder(root.resolve())
        folder.root.mkdir(parents=True, exist_ok=True)
        with installation_lock(folder):
            _up(folder, demo=demo, host=host, port=port, seed=seed)


def _up(folder: DataFolder, *, demo: bool, host: str, port: int, seed: int) -> None:
    out = Console()
    start_s = time.monotonic()
    address = prepare_address(folder)
    if demo:
        from headrace.sim.demo import write_demo_site

        write_demo_site(folder, address)
    elif not folder.site_file.exists():
        folder.site_file.write_text(_EMPTY_SITE, encoding="utf-8")
        out.print(f"Wrote an empty site file: {folder.site_file}")
    site_subjects(folder)
    from headrace.security.identity import ensure_first_admin

    password = ensure_first_admin(folder)
    port = _console_port(folder, port)
    roles = {"sim": ["--seed", str(seed)]} if demo else {}
    roles |= {"historian": [], "edge": [], "console": ["--host", host, "--port", str(port)]}
    supervisor = Supervisor(
        folder, address, roles, notify=lambda text: out.print(f"[yellow]![/] {text}")
    )
    stopping = _stop_on_signal()
    out.print(f"Headrace on [bold]{folder.root}[/]")
    supervisor.start()
    try:
        url = f"http://{host}:{port}"
        _wait_ready(out, supervisor, folder, url, start_s, stopping)
        out.print(_banner(url, password, folder))
        while not stopping:
            supervisor.tend()
            time.sleep(TEND_S)
    finally:
        out.print("Stopping...")
        stop_s = time.monotonic()
        supervisor.stop()
        out.print(
            f"All processes stopped in {time.monotonic() - stop_s:.1f} s; the data stay in {folder.root}"
        )


def _stop_on_signal() -> list[int]:
    """A list that gets the signal's number when one comes."""
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _frame: received.append(n))
    return received


def _console_port(folder: DataFolder, port: int) -> int:
    kept = folder.run / "console.port"
    if port == 0:
        port = int(kept.read_text()) if kept.exists() else free_port()
    kept.write_text(str(port))
    return port


def _wait_ready(
    out: Console,
    supervisor: Supervisor,
    folder: DataFolder,
    url: str,
    start_s: float,
    stopping: list[int],
) -> None:
    """Say what comes up, until the console answers and live values flow (when there are connections)."""
    wanted = _site_connections(folder)
    with out.status("Starting broker, historian, edge and console...") as status:
        values_s = console_s = 0.0
        while not stopping and time.monotonic() - start_s < FIRST_VALUES_S:
            supervisor.tend()
            elapsed_s = time.monotonic() - start_s
            if not console_s and _answers(url):
                console_s = elapsed_s
                out.print(f"[green]✓[/] console answers after {console_s:.1f} s")
            if not values_s:
                seen = asyncio.run(_connections(load_address(folder), folder))
                if seen is not None and (not wanted or seen[1] > 0):
                    values_s = elapsed_s
                    out.print(
                        f"[green]✓[/] {seen[0]} connections, first values after {values_s:.1f} s"
                    )
                elif seen is not None:
                    status.update(f"Connecting to {seen[0]} devices...")
            if values_s and console_s:
                return
            time.sleep(0.1)
    if not stopping:
        out.print("[yellow]![/] not everything is up yet; see the connections page and logs/")


def _answers(url: str) -> bool:
    import httpx

    try:
        return httpx.get(f"{url}/api/v1/health", timeout=1.0).status_code < 500
    except httpx.HTTPError:
        return False


async def _connections(address: BrokerAddress, folder: DataFolder) -> tuple[int, int] | None:
    """(connections, samples published) of the local edge, or None when it says nothing yet."""
    import msgspec

    from headrace.model.health import EdgeState

    answer: asyncio.Future[EdgeState] = asyncio.get_running_loop().create_future()
    async with open_bus(address, "up") as bus:

        async def take(message) -> None:  # type: ignore[no-untyped-def] # nats message
            state = msgspec.json.decode(message.data, type=EdgeState)
            if not answer.done():
                answer.set_result(state)

        await bus.subscribe(site_subjects(folder).edge_health("local"), take)
        try:
            state = await asyncio.wait_for(answer, 1.5)
        except TimeoutError:
            return None
    return len(state.connections), sum(connection.published for connection in state.connections)


def _site_connections(folder: DataFolder) -> int:
    """How many connections the site file declares; the keeper tells what is wrong with them."""
    try:
        site = tomllib.loads(folder.site_file.read_text(encoding="utf-8"))
    except ValueError:
        return 0
    return len(site.get("connection", {}))


def _banner(url: str, password: str | None, folder: DataFolder) -> Panel:
    lines = [f"Console   [bold link={url}]{url}[/]"]
    if password is not None:
        lines.append(f"Sign in   user [bold]admin[/], one-time password [bold]{password}[/]")
    else:
        lines.append("Sign in   as before (forgotten? headrace user reset admin)")
    lines.append(f"Data      {folder.root}")
    lines.append("Stop      Ctrl-C")
    return Panel("\n".join(lines), title="Headrace runs", expand=False, border_style="green")


__all__ = ["DATA", "register"]
