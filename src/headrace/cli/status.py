"""``headrace status``: what runs, how it does, and what to do about what does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headrace.bus.broker import load_address
from headrace.bus.client import open_bus
from headrace.bus.leaf import joined
from headrace.cli.health import HealthWatch
from headrace.cli.run import DATA, site_subjects
from headrace.cli.sharing import reach
from headrace.model.apps import AppsState
from headrace.model.errors import Transient
from headrace.model.folder import DataFolder
from headrace.model.health import EdgeState, HistorianState
from headrace.model.time import SystemClock

_COLOURS = {"connected": "green", "degraded": "yellow", "waiting": "red", "refused": "red"}


def register(app: typer.Typer) -> None:
    """Add ``status``."""

    @app.command("status")
    def status(
        data: Path = DATA, wait_s: float = typer.Option(2.5, help="How long to listen.")
    ) -> None:
        """Show edges, connections and the historian as they say they are now."""
        folder = DataFolder(data.resolve())
        require_broker(folder)
        edges, historian, apps = asyncio.run(listen(folder, wait_s))
        out = Console()
        table = Table(title="Connections")
        for column in (
            "edge",
            "connection",
            "state",
            "tags",
            "bad",
            "published",
            "buffered",
            "last error",
        ):
            table.add_column(column)
        for edge in edges.values():
            for c in edge.connections:
                error = (
                    escape(f"{c.last_error_code} {c.last_error} → {c.last_error_remedy}")
                    if c.last_error
                    else ""
                )
                state = f"[{_COLOURS.get(c.state, 'dim')}]{c.state}[/]"
                counts = (str(c.tags), str(c.tags_bad), str(c.published), str(c.buffered))
                table.add_row(edge.edge, c.connection, state, *counts, error)
        out.print(table)
        if not edges:
            out.print("[red]no edge says anything[/] → headrace up")
        apart = joined(folder)
        if apart is not None:
            out.print(f"this is edge {apart.edge}; its hub is {apart.hub}")
        elif historian is None:
            out.print("[red]the historian says nothing[/] → logs/historian.log")
        if historian is not None:
            behind = historian.last_sequence - historian.committed_sequence
            out.print(
                f"historian {historian.state}: {historian.samples_total} samples in {historian.files} files, "
                f"{behind} frames not yet in the table"
            )
        if apart is None:
            _print_apps(out, apps)
        if not edges or (historian is None and apart is None):
            raise typer.Exit(1)


def _print_apps(out: Console, apps: AppsState | None) -> None:
    if apps is None:
        out.print("[red]the apps role says nothing[/] → logs/apps.log")
        return
    stopped = [each for each in apps.formulas if each.error]
    line = (
        f"apps {apps.state}: {len(apps.formulas) - len(stopped)} formulas on {apps.assets} assets"
    )
    if apps.state == "running":
        late_ms, p99_ms = apps.lag_us / 1000, apps.latency_p99_us / 1000
        line += f", {apps.results_rate:.0f} results/s, {late_ms:.0f} ms behind, p99 {p99_ms:.0f} ms"
    if apps.repairs:
        line += f", {apps.repairs} spans to work out again"
    out.print(line)
    for each in stopped:
        told = escape(f"{each.error_code} {each.error} → {each.error_remedy}")
        out.print(f"[red]{escape(each.key)} is not evaluated[/]: {told}")


def require_broker(folder: DataFolder) -> None:
    """Answer at once when nothing runs, instead of waiting for a broker that does not come.

    Raises:
        Transient: CLI-1007 when the broker's port is closed.
    """
    address = load_address(folder)
    try:
        reach(address.urls)
    except OSError as error:
        demo = " --demo" if folder.root.name == "demo" else ""
        raise Transient(
            "CLI-1007",
            f"headrace does not run on {folder.root}",
            f"Start it with: headrace up{demo} --data {folder.root}",
        ) from error


async def listen(
    folder: DataFolder, wait_s: float
) -> tuple[dict[str, EdgeState], HistorianState | None, AppsState | None]:
    """What the roles say of themselves within a time."""
    watch = HealthWatch(SystemClock())
    async with open_bus(load_address(folder).as_role("cli"), "status", wait_s=wait_s) as bus:
        await watch.start(bus, site_subjects(folder))
        await asyncio.sleep(wait_s)
    edges = {name: state for name, (state, _) in sorted(watch.edges.items())}
    historian = watch.historian[0] if watch.historian is not None else None
    return edges, historian, watch.apps[0] if watch.apps is not None else None
