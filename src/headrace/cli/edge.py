"""``headrace edge``: edges on machines of their own, from both sides."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from headrace.bus import leaf
from headrace.bus.broker import load_address, write_private
from headrace.bus.client import open_bus
from headrace.bus.leaf import Joined, OnFull
from headrace.cli.run import DATA, keep_site, site_subjects
from headrace.cli.status import require_broker
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.health import EdgeState, HubState
from headrace.model.time import SystemClock, to_datetime
from headrace.security.files import make_folder

LISTEN_S: Final = 2.5
_UNITS: Final = {"m": 60, "h": 3_600, "d": 86_400}
_LOG_GIB: Final = typer.Option(
    None, "--log-gib", min=0.001, help="Bound of the log on this machine, GiB [8]."
)
_ON_FULL: Final = typer.Option(
    None, "--on-full", help="At that bound: stop (reading) or drop_oldest [stop]."
)


def register(app: typer.Typer) -> None:
    """Add the group ``edge``."""
    group = typer.Typer(help="Edges on machines of their own.", no_args_is_help=True)
    _register_hub_side(group)
    _register_edge_side(group)
    app.add_typer(group, name="edge")


def _register_hub_side(group: typer.Typer) -> None:
    @group.command("invite")
    def invite(
        name: str = typer.Argument(help="Name of the new edge."),
        expires: str = typer.Option("1h", help="Valid so long: 30m, 1h, 2d."),
        data: Path = DATA,
    ) -> None:
        """On the hub: make a token with which one edge may join, once."""
        from headrace.site.edges import invite, read_token

        folder = DataFolder(data.resolve())
        now_us = SystemClock().now_us()
        token = invite(folder, name, now_us, now_us + _duration_us(expires))
        told = read_token(token)
        out = Console(highlight=False)
        out.print(f"On the machine of edge {name}, within {expires} (the token works once):")
        out.print(
            f"  headrace edge join {told.hub}:{told.port} --token {token}",
            soft_wrap=True,
            markup=False,
        )

    @group.command("list")
    def list_edges(
        data: Path = DATA,
        as_json: bool = typer.Option(False, "--json", help="As JSON, for programs."),
    ) -> None:
        """On the hub: show the edges that joined, as they are now."""
        from headrace.site.edges import edge_row

        folder = DataFolder(data.resolve())
        require_broker(folder)
        hub, states = asyncio.run(_listen(folder))
        if hub is None:
            raise Transient(
                "CLI-1902",
                f"the hub on {folder.root} says nothing",
                "Start it with: headrace up --hub-listen ADDRESS:PORT; then see logs/hub.log",
            )
        rows = [edge_row(link, states.get(link.edge)) for link in hub.edges]
        if as_json:
            Console(soft_wrap=True, highlight=False).print_json(data=rows)
            return
        _print_edges(rows)

    @group.command("remove")
    def remove(name: str = typer.Argument(help="Name of the edge."), data: Path = DATA) -> None:
        """On the hub: forget an edge; its connection is cut and its credentials are worthless."""
        from headrace.site.edges import remove

        remove(DataFolder(data.resolve()), name, SystemClock().now_us())
        Console(highlight=False).print(f"Edge {name} is removed. What it still has is not taken.")


def _register_edge_side(group: typer.Typer) -> None:
    @group.command("join")
    def join(
        hub: str = typer.Argument(help="ADDRESS:PORT of the hub, as the invitation said."),
        token: str = typer.Option(..., help="The token of the invitation."),
        data: Path = DATA,
        log_gib: float | None = _LOG_GIB,
        on_full: str | None = _ON_FULL,
    ) -> None:
        """On the edge's machine: join a hub; then start it with: headrace up."""
        from headrace.site.edges import read_token
        from headrace.site.joining import join

        folder = DataFolder(data.resolve())
        _changes(log_gib, on_full)  # before the token is used
        if folder.site_file.exists() or folder.table.exists():
            raise Refused(
                "CLI-1903",
                f"{folder.root} is an installation of its own",
                "Give an empty folder with --data.",
            )
        told = read_token(token)
        host, port = _address(hub)
        make_folder(folder.run, 0o700)
        own = join(folder, host, port, told)
        keep_site(folder, own.enterprise, own.site)
        own = _set(folder, own, log_gib, on_full)
        out = Console(highlight=False)
        out.print(f"This machine is edge {own.edge} of {own.enterprise}/{own.site} now.")
        out.print(f"Start it with: headrace up --data {folder.root}", soft_wrap=True)

    @group.command("set")
    def set_(
        data: Path = DATA, log_gib: float | None = _LOG_GIB, on_full: str | None = _ON_FULL
    ) -> None:
        """On the edge's machine: change the bound of its log; holds from the next start."""
        folder = DataFolder(data.resolve())
        own = leaf.joined(folder)
        if own is None:
            raise Misconfigured(
                "CLI-1904",
                f"no edge on {folder.root} has joined a hub",
                "Join one first: headrace edge join",
            )
        own = _set(folder, own, log_gib, on_full)
        Console(highlight=False).print(
            f"Edge {own.edge}: log of at most {own.log_bytes_max / 2**30:.3g} GiB, then {own.on_full}."
        )


def _set(folder: DataFolder, own: Joined, log_gib: float | None, on_full: str | None) -> Joined:
    changed = msgspec.structs.replace(own, **_changes(log_gib, on_full))
    write_private(folder.edge / "joined.json", msgspec.json.encode(changed).decode())
    return changed


def _changes(log_gib: float | None, on_full: str | None) -> dict[str, Any]:
    """What the options say.

    Raises:
        Misconfigured: CLI-1905 for another policy than the two.
    """
    if on_full not in (None, "stop", "drop_oldest"):
        raise Misconfigured(
            "CLI-1905", f"--on-full is {on_full!r}", "Give stop or drop_oldest; see docs/edge.md."
        )
    changes: dict[str, Any] = {}
    if log_gib is not None:
        changes["log_bytes_max"] = int(log_gib * 2**30)
    if on_full is not None:
        changes["on_full"] = cast(OnFull, on_full)
    return changes


def _duration_us(text: str) -> int:
    found = re.fullmatch(r"([1-9]\d{0,5})([mhd])", text)
    if found is None:
        raise Misconfigured(
            "CLI-1906", f"--expires is {text!r}", "Give minutes, hours or days: 30m, 1h, 2d."
        )
    return int(found[1]) * _UNITS[found[2]] * 1_000_000


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.removeprefix("https://").rstrip("/").rpartition(":")
    if not host or not port.isdigit():
        raise Misconfigured(
            "CLI-1907", f"{text!r} is no ADDRESS:PORT", "Copy it from what `edge invite` printed."
        )
    return host.strip("[]"), int(port)


async def _listen(folder: DataFolder) -> tuple[HubState | None, dict[str, EdgeState]]:
    hubs: list[HubState] = []
    edges: dict[str, EdgeState] = {}
    subjects = site_subjects(folder)
    async with open_bus(load_address(folder).as_role("cli"), "edge-list", wait_s=LISTEN_S) as bus:

        async def take_hub(message) -> None:  # type: ignore[no-untyped-def] # nats message
            hubs.append(msgspec.json.decode(message.data, type=HubState))

        async def take_edge(message) -> None:  # type: ignore[no-untyped-def] # nats message
            state = msgspec.json.decode(message.data, type=EdgeState)
            edges[state.edge] = state

        await bus.subscribe(subjects.hub_health(), take_hub)
        await bus.subscribe(subjects.every_edge_health(), take_edge)
        await asyncio.sleep(LISTEN_S)
    return (hubs[-1] if hubs else None), edges


def _print_edges(rows: list[dict[str, Any]]) -> None:
    out = Console()
    if not rows:
        out.print("No edge has joined yet. Invite one: headrace edge invite NAME")
        return
    table = Table(
        "edge", "connected since", "from", "not here yet", "oldest of it", "configuration",
        "version", "log on its disk", "dropped", box=None, header_style="bold",
    )  # fmt: skip
    for row in rows:
        same = "[green]same[/]" if row["runs_desired"] else "[red]differs[/]"
        lag = f"{row['lag_frames']} frames"
        if row["lag_bytes"] >= 0:
            lag += f", {row['lag_bytes'] / 2**20:.1f} MiB"
        table.add_row(
            row["edge"],
            _time(row["connected_us"]) if row["connected_us"] else "[red]not connected[/]",
            row["address"],
            lag if row["lag_frames"] >= 0 else "unknown",
            _time(row["oldest_unsent_us"]) if row["oldest_unsent_us"] else "-",
            f"{same} {row['running_hash'][:8]}" if row["running_hash"] else "never heard",
            row["version"] or "-",
            f"{row['log_bytes'] / 2**20:.1f} of {row['log_bytes_max'] / 2**20:.0f} MiB",
            f"{row['dropped_samples']} samples" if row["dropped_samples"] else "-",
        )
    out.print(table)


def _time(at_us: int) -> str:
    return to_datetime(at_us).strftime("%Y-%m-%d %H:%M:%S")
