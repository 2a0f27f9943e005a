"""Three broker nodes as real processes on loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.bus.broker import BrokerAddress, free_port, load_address, stop_broker
from headrace.bus.cluster import ClusterNode, load_node, plan_cluster, start_node
from headrace.model.folder import DataFolder

NAMES = ("a", "b", "c")


class Cluster:
    """The nodes; each may be killed and started again."""

    def __init__(self, root: Path) -> None:
        nodes = [
            ClusterNode(
                name=name,
                host="127.0.0.1",
                port=free_port(),
                route_port=free_port(),
                mqtt_port=free_port(),
                monitor_port=free_port(),
            )
            for name in NAMES
        ]
        self.root = root
        *_, self.client_file = plan_cluster(root / "plan", "plant", nodes, 1_700_000_000_000_000)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        for name in names or NAMES:
            plan = load_node(self.root / "plan" / f"{name}.json")
            self.processes[name] = start_node(DataFolder(self.root / name), plan)

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self) -> None:
        for process in self.processes.values():
            stop_broker(process)

    def join(self, folder: DataFolder) -> BrokerAddress:
        """Let an installation use this cluster; gives the address."""
        folder.root.mkdir(parents=True, exist_ok=True)
        (folder.root / "headrace.toml").write_text(f'[bus]\naddress = "{self.client_file}"\n')
        return load_address(folder)

    def logs(self) -> str:
        return "\n".join(
            f"== {name}\n{log.read_text(errors='replace')[-3000:]}"
            for name in NAMES
            if (log := self.root / name / "logs" / "broker.log").exists()
        )


@contextmanager
def running_cluster(root: Path) -> Iterator[Cluster]:
    cluster = Cluster(root)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        print(cluster.logs())  # shown when a test fails
