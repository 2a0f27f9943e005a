"""``headrace cluster``: the files of a cluster of brokers, and one of its nodes in the foreground."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import typer
from rich.console import Console

from headrace.cli.processes import die_with_parent
from headrace.cli.supervisor import installation_lock
from headrace.model.errors import Misconfigured, Terminal
from headrace.model.folder import DataFolder

NODE = typer.Option(
    ..., "--node", help="NAME=HOST or NAME=HOST:PORT:ROUTE_PORT:MQTT_PORT:MONITOR_PORT"
)


def register(app: typer.Typer) -> None:
    """Add ``cluster``."""
    group = typer.Typer(help="Three or more brokers that keep everything.", no_args_is_help=True)

    @group.command("new")
    def new(
        name: str,
        node: list[str] = NODE,
        out: Path = typer.Option(Path("cluster"), help="Folder for the files."),
    ) -> None:
        """Write a private file for each node, and client.json for the machines that use the cluster."""
        from headrace.bus.cluster import plan_cluster
        from headrace.model.time import SystemClock

        paths = plan_cluster(out, name, [_node(text) for text in node], SystemClock().now_us())
        said = Console(soft_wrap=True, highlight=False)
        for path in paths[:-1]:
            said.print(f"{path}  to that machine, then: headrace cluster run {path.name}")
        said.print(
            f"{paths[-1]}  to each machine of ours, then: headrace up --bus {paths[-1].name}"
        )

    @group.command("run")
    def run(
        plan: Path,
        data: Path = typer.Option(Path("data"), "--data", help="Data folder of this node."),
    ) -> None:
        """Run one node in the foreground."""
        from headrace.bus.cluster import load_node, start_node

        loaded = load_node(plan)
        folder = DataFolder(data.resolve())
        with installation_lock(folder):
            _watch(start_node(folder, loaded), folder)

    app.add_typer(group, name="cluster")


def _node(text: str):  # type: ignore[no-untyped-def] # ClusterNode, which is imported late
    from headrace.bus.cluster import ClusterNode

    name, _, place = text.partition("=")
    host, *ports = place.split(":")
    if not name or not host or len(ports) not in (0, 4) or not all(p.isdigit() for p in ports):
        raise Misconfigured(
            "CLI-1202", f"{text!r} is no node", "Write NAME=HOST, for example a=10.0.0.1."
        )
    keys = ("port", "route_port", "mqtt_port", "monitor_port")
    return ClusterNode(name=name, host=host, **dict(zip(keys, map(int, ports), strict=False)))


def _watch(process: subprocess.Popen[bytes], folder: DataFolder) -> None:
    """Wait for the node; a signal to us ends it cleanly.

    Raises:
        Terminal: CLI-1203 when it ends by itself.
    """
    die_with_parent(signal.SIGTERM)
    stopping: list[int] = []

    def stop(number: int, _frame: object) -> None:
        stopping.append(number)
        process.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    code = process.wait()
    if not stopping:
        raise Terminal(
            "CLI-1203",
            f"the broker ended with {code}",
            f"See {folder.logs / 'broker.log'}; another program may have its ports.",
        )
