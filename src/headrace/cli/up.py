"""``headrace up``: the whole installation with one command."""

from __future__ import annotations

import errno
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from headrace.bus.broker import (
    BrokerOptions,
    OffLoopback,
    free_port,
    is_loopback,
    prepare_address,
    server_binary,
    write_private,
)
from headrace.bus.leaf import Joined, broker_options, joined
from headrace.cli.python_apps import PythonApps
from headrace.cli.sharing import share
from headrace.cli.startup import startup
from headrace.cli.supervisor import Supervisor, installation_lock
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.security.files import make_folder, write_whole
from headrace.security.listener import Listener
from headrace.security.settings import load_settings

FIRST_VALUES_S: Final = 60.0
TEND_S: Final = 0.2
POLL_S: Final = 0.1

_EMPTY_SITE = """\
# The desired state of this site. Changes apply without a restart; check with: headrace site check
# The two names stay for good in this data folder: for others, stop, remove the folder, write them first.
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
        host: str = typer.Option(
            "127.0.0.1", help="Address of the console; with TLS unless it is loopback."
        ),
        listen: str = typer.Option(
            "",
            help="Address at which other machines reach console, broker and MQTT, all with TLS: "
            "0.0.0.0 for every network. Nothing listens off loopback unless you say so.",
        ),
        name: list[str] = typer.Option(
            [], help="Host name or address by which they reach this machine; several times."
        ),
        port: int = typer.Option(
            0,
            min=0,
            max=65_535,
            help="Port of the console; 0 keeps the last one, or picks a free one.",
        ),
        seed: int = typer.Option(1, help="Seed of the simulated site."),
        historians: int = typer.Option(
            0, min=0, max=16, help="Writers of the table; 0: as headrace.toml says, else one."
        ),
        bus: Path | None = typer.Option(
            None, "--bus", help="client.json of a cluster; none: a broker of its own."
        ),
        metadata: str = typer.Option(
            "", "--metadata", help="URL of a shared metadata database, postgresql+psycopg://..."
        ),
        hub_listen: str = typer.Option(
            "",
            help="ADDRESS:PORT at which edges on other machines may join; their data come in at "
            "PORT + 1. Nothing listens there unless you say so.",
        ),
        hub_name: list[str] = typer.Option(
            [], help="Name or address by which those edges reach this machine; several times."
        ),
    ) -> None:
        """Start broker, edge, historian, apps and console here, and keep them running until Ctrl-C.

        On a folder whose edge joined a hub only broker, edge and its own formulas are started.
        """
        root = data if data is not None else Path("data/demo" if demo else "data")
        folder = DataFolder(root.resolve())
        share(bus, metadata)
        stopping = _stop_on_signal()
        with _said_plainly(folder), installation_lock(folder):
            own = joined(folder)
            if own is not None:
                _up_edge(folder, stopping, own)
            else:
                hub = _hub_arguments(hub_listen, hub_name)
                roles = _historians(historians or load_settings(folder).historian.writers)
                _up(
                    folder,
                    stopping,
                    demo=demo,
                    host=listen or host,
                    listen=listen,
                    names=name,
                    port=port,
                    seed=seed,
                    hub=hub,
                    stores=roles,
                )


def _up(
    folder: DataFolder,
    stopping: list[int],
    *,
    demo: bool,
    host: str,
    listen: str,
    names: list[str],
    port: int,
    seed: int,
    hub: list[str],
    stores: dict[str, list[str]],
) -> None:
    out = Console()

    def notify(text: str) -> None:
        out.print(f"[yellow]![/] {escape(text)}", highlight=False)

    start_s = time.monotonic()
    server_binary()
    reach = _off_loopback(folder, host, listen, names)
    # First the broker's ports: a new one of the console is then none of them.
    address = prepare_address(folder, reach)
    port = _console_port(folder, host, port, notify)
    if not demo and not folder.site_file.exists():
        write_whole(folder.site_file, _EMPTY_SITE.encode(), mode=0o644)
        out.print(f"Wrote an empty site file: {folder.site_file}")
    prepared = _prepare(
        folder, stopping, [*(["--demo"] if demo else []), *(["--hub", *hub] if hub else [])]
    )
    if prepared is None:
        raise typer.Exit(130)
    if "problem" in prepared:
        notify(f"the last good site file stays in force: {prepared['problem']}")
    roles: dict[str, list[str]] = {"security": []}
    roles |= {"sim": ["--seed", str(seed)]} if demo else {}
    roles |= stores | {"edge": [], "apps": [], "console": ["--host", host, "--port", str(port)]}
    roles |= {"hub": []} if hub else {}
    supervisor = Supervisor(folder, address, roles, notify=notify, broker_options=_options(folder))
    out.print(f"Headrace on [bold]{folder.root}[/]")
    try:
        supervisor.start()
        scheme = "http" if is_loopback(host) else "https"
        url = f"{scheme}://{_shown(host, names)}:{port}"
        local = f"{scheme}://{_reached(host)}:{port}"
        _wait_ready(out, supervisor, local, prepared["connections"], start_s, stopping)
        out.print(_banner(url, prepared["password"], folder))
        python = PythonApps(folder)
        while not stopping:
            supervisor.tend()
            if python.are_there():
                supervisor.add("runtime", [])
            time.sleep(TEND_S)
    finally:
        _stop(out, supervisor)


def _up_edge(folder: DataFolder, stopping: list[int], own: Joined) -> None:
    """Broker, edge, and formulas that are placed on it: the rest is on the hub."""
    out = Console()

    def notify(text: str) -> None:
        out.print(f"[yellow]![/] {escape(text)}", highlight=False)

    start_s = time.monotonic()
    server_binary()
    address = prepare_address(folder)
    roles = {"edge": ["--edge", own.edge], "apps": ["--edge", own.edge]}
    supervisor = Supervisor(folder, address, roles, notify=notify, broker_options=_options(folder))
    out.print(f"Headrace edge [bold]{own.edge}[/] on [bold]{folder.root}[/]")
    try:
        supervisor.start()
        _wait_ready(out, supervisor, "", 0, start_s, stopping, edge=own.edge)
        lines = [
            f"Edge      [bold]{own.edge}[/] of {own.enterprise}/{own.site}",
            f"Hub       {own.hub}:{own.leaf_port}; what it does not have yet waits here",
            f"Log       at most {own.log_bytes_max / 2**30:.3g} GiB, then {own.on_full}",
            f"Data      {folder.root}",
            "Stop      Ctrl-C",
        ]
        out.print(
            Panel("\n".join(lines), title="Headrace runs", expand=False, border_style="green")
        )
        while not stopping:
            supervisor.tend()
            if folder.placed_apps.exists():
                supervisor.add("runtime", ["--edge", own.edge])
            time.sleep(TEND_S)
    finally:
        _stop(out, supervisor)


def _off_loopback(
    folder: DataFolder, host: str, listen: str, names: list[str]
) -> OffLoopback | None:
    """Certificates for what listens off loopback; None when the broker does not.

    Raises:
        Misconfigured: CLI-1006 when an address is none of this machine's; SEC-1611 when certificates
            that the settings name cannot be used.
    """
    if is_loopback(host):
        return None
    _check_port(host, 0)
    now_us = SystemClock().now_us()
    listener = Listener(folder)
    anywhere = host in ("0.0.0.0", "::")
    listener.ensure((*names, socket.gethostname() if anywhere else host), now_us)
    if not listen:
        return None
    return OffLoopback(listen, listener.trusted_pem(), listener.client_files(now_us))


def _reached(host: str) -> str:
    """How this machine itself reaches a listener."""
    found = "localhost" if host in ("0.0.0.0", "::") else host
    return f"[{found}]" if ":" in found else found


def _shown(host: str, names: list[str]) -> str:
    """How people name the console."""
    anywhere = host in ("0.0.0.0", "::")
    found = names[0] if names else socket.gethostname() if anywhere else host
    return f"[{found}]" if ":" in found else found


def _stop(out: Console, supervisor: Supervisor) -> None:
    out.print("Stopping...")
    stop_s = time.monotonic()
    supervisor.stop()
    taken_s = time.monotonic() - stop_s
    out.print(
        f"All processes stopped in {taken_s:.1f} s; the data stay in {supervisor.folder.root}"
    )


def _options(folder: DataFolder) -> Callable[[], BrokerOptions]:
    return lambda: broker_options(folder)


def _hub_arguments(listen: str, names: list[str]) -> list[str]:
    """Address, port and names of the hub; empty when it shall not listen.

    Raises:
        Misconfigured: CLI-1901 when ``listen`` is no address and port; CLI-1006 as the console's.
        Refused: CLI-1005 when one of its two ports is taken.
    """
    if not listen:
        return []
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit() or not 0 < int(port) < 65_535:
        raise Misconfigured(
            "CLI-1901",
            f"--hub-listen {listen!r} is no address and port",
            "Give for example 0.0.0.0:7421, or 192.168.7.2:7421 for one network only.",
        )
    for number in (int(port), int(port) + 1):
        _check_port(host, number)
    anywhere = host in ("0.0.0.0", "::")
    return [host, port, *(names or [socket.gethostname() if anywhere else host])]


def _historians(count: int) -> dict[str, list[str]]:
    if count == 1:
        return {"historian": []}
    return {f"historian-{index}": ["--partition", f"{index}/{count}"] for index in range(count)}


@contextmanager
def _said_plainly(folder: DataFolder) -> Iterator[None]:
    """What the file system refuses becomes an error of ours."""
    try:
        make_folder(folder.root)
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "Free space on that disk, or" if full else "Let this user write there, or"
        raise Refused(
            "CLI-1003",
            f"cannot write in {folder.root}: {error.strerror or error} ({error.filename})",
            f"{remedy} give another folder with --data.",
        ) from error


def _prepare(
    folder: DataFolder, stopping: list[int], arguments: list[str]
) -> dict[str, Any] | None:
    """What the start needs to know; None when the person stops it."""
    with startup(folder, "prepare", *arguments) as preparing:
        while not stopping:
            for said in preparing.said(POLL_S) or []:
                return said
    return None


def _stop_on_signal() -> list[int]:
    """A list that gets the signal's number when one comes."""
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _frame: received.append(n))
    return received


def _console_port(folder: DataFolder, host: str, port: int, notify: Any) -> int:
    """The port asked for, or the last one, or a free one; kept for the next start."""
    kept = folder.run / "console.port"
    if port:
        _check_port(host, port)
    else:
        text = kept.read_text().strip() if kept.exists() else ""
        port = int(text) if text.isdigit() else free_port()
        try:
            _check_port(host, port)
        except Refused:
            port, taken = free_port(), port
            notify(f"port {taken} of the last time is taken; the console is on {port} now")
    write_private(kept, str(port))
    return port


def _check_port(host: str, port: int) -> None:
    """Whether the console can listen there.

    Raises:
        Refused: CLI-1005 when the port is taken or not for this user.
        Misconfigured: CLI-1006 when the host is no address of this machine.
    """
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except socket.gaierror as error:
        raise _no_address(host) from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise _no_address(host) from error
        what = "taken" if error.errno == errno.EADDRINUSE else "not for this user"
        raise Refused(
            "CLI-1005",
            f"port {port} of {host} is {what}",
            f"Give another one with --port, or see what has it: ss -ltnp 'sport = :{port}'",
        ) from error


def _no_address(host: str) -> Misconfigured:
    remedy = "Give one with --host: 127.0.0.1 for this machine only, 0.0.0.0 for all its networks."
    return Misconfigured("CLI-1006", f"{host} is no address of this machine", remedy)


def _wait_ready(
    out: Console,
    supervisor: Supervisor,
    url: str,
    wanted: int,
    start_s: float,
    stopping: list[int],
    *,
    edge: str = "local",
) -> None:
    """Say what comes up, until the console (when there is one: ``url``) answers and live values flow
    (when there are connections)."""
    waiting = {"console", "values"} if url else {"values"}
    with (
        out.status("Starting...") as status,
        startup(supervisor.folder, "watch", url, edge) as watching,
    ):
        while waiting and not stopping and time.monotonic() - start_s < FIRST_VALUES_S:
            supervisor.tend()
            for said in watching.said(POLL_S) or []:
                after = f"after {time.monotonic() - start_s:.1f} s"
                if "console" in said:
                    waiting.discard("console")
                    out.print(f"[green]✓[/] console answers {after}")
                elif "values" in waiting and (not wanted or said["values"]):
                    waiting.discard("values")
                    count = f"{said['connections']} connections, " if wanted else ""
                    what = "first values" if wanted else "the edge runs"
                    out.print(f"[green]✓[/] {count}{what} {after}")
                elif "values" in waiting:
                    status.update(f"Connecting to {said['connections']} devices...")
    if waiting and not stopping:
        out.print("[yellow]![/] not everything is up yet; see the connections page and logs/")


def _banner(url: str, password: str | None, folder: DataFolder) -> Panel:
    lines = [f"Console   [bold link={url}]{url}[/]"]
    if password is not None:
        lines.append(f"Sign in   user [bold]admin[/], one-time password [bold]{password}[/]")
    else:
        lines.append(
            f"Sign in   as before (forgotten? headrace user reset admin --data {folder.root})"
        )
    if url.startswith("https:"):
        lines.append(f"Authority {Listener(folder).path / 'ca.pem'}")
    lines.append(f"Data      {folder.root}")
    lines.append("Stop      Ctrl-C")
    return Panel("\n".join(lines), title="Headrace runs", expand=False, border_style="green")
