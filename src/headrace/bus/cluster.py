"""A cluster of brokers: three or more nodes that keep every stream and key three times.

::

    plan_cluster ──► <node>.json     private, one for each machine: its certificate, how to find the others
                 └─► client.json     private, for every machine of ours: the servers and the credentials

A node runs with :func:`start_node` (``headrace cluster run``). Roles find the cluster by ``client.json``
(``headrace up --bus client.json``) and go on with any node that is left. A stream takes messages while more
than half of its nodes are together; without that, publishing fails with BUS-1202 and nothing is lost: edges
keep what they have.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import msgspec

from headrace.bus.broker import BrokerAddress, start_broker, write_private
from headrace.bus.configuration import TlsFiles
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.ids import check_name
from headrace.security.cluster_certificates import cluster_certificates
from headrace.security.files import make_folder

REPLICAS: Final = 3
NODES_MAX: Final = 9


class ClusterNode(msgspec.Struct, frozen=True, kw_only=True):
    """One node. ``host`` is a name or address that the other machines reach it by; ports are TCP."""

    name: str
    host: str
    port: int = 4222
    route_port: int = 6222
    mqtt_port: int = 1883
    monitor_port: int = 8222


class NodePlan(msgspec.Struct, frozen=True, kw_only=True):
    """All that one node needs; private."""

    cluster: str
    node: ClusterNode
    nodes: list[ClusterNode]
    platform_password: str
    device_password: str
    route_password: str
    authority_pem: str
    certificate_pem: str
    key_pem: str


def plan_cluster(
    folder: Path, cluster: str, nodes: Sequence[ClusterNode], now_us: int
) -> list[Path]:
    """Write the files of a new cluster; gives their paths, ``client.json`` last.

    Raises:
        Misconfigured: BUS-1203 when the nodes make no cluster, or the folder has one already.
    """
    check_name(cluster, "cluster")
    _check(nodes)
    if (folder / "client.json").exists():
        raise Misconfigured(
            "BUS-1203",
            f"{folder} has the files of a cluster already",
            "Give another folder; new credentials would lock the running nodes out.",
        )
    make_folder(folder, 0o700)
    authority, certificates = cluster_certificates(
        cluster, {node.name: node.host for node in nodes}, now_us
    )
    platform, device, route = (secrets.token_urlsafe(24) for _ in range(3))
    paths = []
    for node in nodes:
        plan = NodePlan(
            cluster=cluster,
            node=node,
            nodes=list(nodes),
            platform_password=platform,
            device_password=device,
            route_password=route,
            authority_pem=authority,
            certificate_pem=certificates[node.name].certificate_pem,
            key_pem=certificates[node.name].key_pem,
        )
        paths.append(folder / f"{node.name}.json")
        write_private(paths[-1], msgspec.json.format(msgspec.json.encode(plan)).decode())
    first = nodes[0]
    client = BrokerAddress(
        port=first.port,
        mqtt_port=first.mqtt_port,
        monitor_port=first.monitor_port,
        platform_password=platform,
        device_password=device,
        host=first.host,
        servers=tuple(f"tls://{node.host}:{node.port}" for node in nodes),
        replicas=REPLICAS,
        authority_pem=authority,
    )
    paths.append(folder / "client.json")
    write_private(paths[-1], json.dumps(asdict(client), indent=1))
    return paths


def _check(nodes: Sequence[ClusterNode]) -> None:
    names = {check_name(node.name, "node") for node in nodes}
    places = {(node.host, port) for node in nodes for port in (node.port, node.route_port)}
    wrong = ""
    if not REPLICAS <= len(nodes) <= NODES_MAX or len(nodes) % 2 == 0:
        wrong = f"{len(nodes)} nodes keep no majority well"
    elif len(names) < len(nodes) or len(places) < 2 * len(nodes):
        wrong = "two nodes have one name, or one host and port"
    elif any(not node.host or any(c in node.host for c in "\"'{}\n ") for node in nodes):
        wrong = "a host is no name and no address"
    if wrong:
        raise Misconfigured(
            "BUS-1203",
            wrong,
            f"Give 3, 5, 7 or {NODES_MAX} nodes, each with its own name, as NAME=HOST.",
        )


def load_node(path: Path) -> NodePlan:
    """The plan of one node.

    Raises:
        Misconfigured: BUS-1204 when the file is not there or is no such plan.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=NodePlan)
    except (OSError, *UNREADABLE) as error:
        raise Misconfigured(
            "BUS-1204",
            f"{path} is no plan of a node: {error}",
            "Make the files with: headrace cluster new",
        ) from error


def start_node(folder: DataFolder, plan: NodePlan) -> subprocess.Popen[bytes]:
    """Start one node on a data folder and give its process; it is not waited for.

    Raises:
        Refused: BUS-1406 when its streams are of an earlier, other kind of cluster.
    """
    node = plan.node
    make_folder(folder.broker)
    files = {}
    for name, content in (
        ("authority", plan.authority_pem),
        ("certificate", plan.certificate_pem),
        ("key", plan.key_pem),
    ):
        files[name] = folder.broker / f"{name}.pem"
        write_private(files[name], content)
    address = BrokerAddress(
        port=node.port,
        mqtt_port=node.mqtt_port,
        monitor_port=node.monitor_port,
        platform_password=plan.platform_password,
        device_password=plan.device_password,
        host=node.host,
        authority_pem=plan.authority_pem,
    )
    identity = f'cert_file: "{files["certificate"]}", key_file: "{files["key"]}"'
    others = "\n".join(
        f'    "nats://route:{plan.route_password}@{other.host}:{other.route_port}"'
        for other in plan.nodes
        if other.name != node.name
    )
    sections = [
        f"""cluster {{
  name: "{plan.cluster}"
  listen: "{node.host}:{node.route_port}"
  authorization {{ user: "route", password: "{plan.route_password}" }}
  tls {{ {identity}, ca_file: "{files["authority"]}", verify: true }}
  routes: [
{others}
  ]
}}""",
    ]
    if (folder.broker / "jetstream" / "jetstream" / "$G").is_dir():
        raise Refused(
            "BUS-1406",
            f"node {node.name} keeps streams of a cluster from before accounts had names",
            "Go on with the earlier version, or plan a new cluster; the table has what was stored.",
        )
    tls = TlsFiles(files["certificate"], files["key"], files["authority"])
    return start_broker(folder, address, server_name=node.name, sections=sections, tls=tls)
