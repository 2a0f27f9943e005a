"""An edge on its own machine is a leaf node: how hub and edges are told so, and who is connected.

::

    edge's machine                                     hub's machine
    broker <name>-<suffix>  ──TLS, both sides known──► broker "hub", leaf listener
      JetStream domain = its name                        JetStream domain "hub"
      SAMPLES, EVENTS, LEDGER  ═══ sourced by the hub ═══►  SAMPLES, EVENTS, LEDGER  (bus/sourcing.py)

The edge dials, the hub never does. A hub's broker lets an edge say and hear only what is its own: its
health, answers, its deliveries; requests to it. Records here are plain files of the data folder, so
that the supervisor can start a broker without any other part of Headrace.
"""

from __future__ import annotations

import hmac
import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

import msgspec

from headrace.bus.broker import BrokerAddress, BrokerOptions, write_private
from headrace.bus.configuration import TlsFiles
from headrace.bus.knock import Admitted, Knock
from headrace.bus.rights import SITE_ACCOUNT, leaf_rights
from headrace.bus.tenants import tenants
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, Transient
from headrace.model.folder import DataFolder
from headrace.security.files import make_folder
from headrace.security.listener import Listener
from headrace.security.rights import Actor
from headrace.security.settings import load_settings

HUB_DOMAIN: Final = "hub"
LOCAL_EDGE: Final = "local"
PING_INTERVAL_S: Final = 2
PINGS_LOST_MAX: Final = 2
"""Silence of 4 to 6 s ends a connection on which packets vanish."""
MONITOR_TIMEOUT_S: Final = 2.0
LOG_BYTES_MAX: Final = 8 << 30
STORE_BYTES_SPARE: Final = 6 << 30
"""Beside the samples' log: encrypted frames, events, ledger, desired state, MQTT sessions. Each stream has
its own bound; the broker counts the bound of a stream twice while it is changed."""

OnFull = Literal["stop", "drop_oldest"]
T = TypeVar("T", bound=msgspec.Struct)


class HubSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a hub takes edges in; ``hub/settings.json``, there only while it listens.

    Attributes:
        host: address to listen on.
        join_port, leaf_port: for edges that join, and for the brokers of those that have.
        names: host names and addresses by which edges reach it; its certificate says them.
    """

    host: str
    join_port: int
    leaf_port: int
    names: tuple[str, ...]


class JoinedEdge(msgspec.Struct, frozen=True, kw_only=True):
    """An edge that joined, as the hub keeps it.

    Attributes:
        domain: of its JetStream, and name of its broker; another one each time it joins.
        password: of its broker at the hub's; its certificate is asked for besides.
        certificate: SHA-256 of its certificate, hex.
        joined_us: when, UTC microseconds.
        sealing_key: to which its secrets are sealed, base64; "" when it gave none.
    """

    name: str
    domain: str
    password: str
    certificate: str
    joined_us: int
    sealing_key: str = ""


class EdgeBook(msgspec.Struct, kw_only=True):
    """The edges that joined, by name: what is needed here of ``hub/edges.json`` (site/edges.py)."""

    edges: dict[str, JoinedEdge] = {}


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """What an edge on its own machine knows of its hub; ``edge/joined.json``.

    Attributes:
        edge: its name. enterprise, site: of the hub's site. domain, password: see :class:`JoinedEdge`.
        hub, leaf_port: where the hub's broker listens.
        log_bytes_max: bound of the log of samples on this machine.
        on_full: what happens at the bound; see docs/edge.md.
    """

    edge: str
    enterprise: str
    site: str
    domain: str
    password: str
    hub: str
    leaf_port: int
    log_bytes_max: int = LOG_BYTES_MAX
    on_full: OnFull = "stop"


@dataclass(frozen=True)
class Leaf:
    """An edge's broker that is connected to the hub's now.

    Attributes:
        domain: of the edge. connection: identity of this very connection, and of the hub's broker.
        client_id: of the connection. server_id: of the hub's broker.
        address: of the edge. rtt: round trip, as the broker writes it.
    """

    domain: str
    client_id: int
    server_id: str
    address: str
    rtt: str

    @property
    def connection(self) -> str:
        return f"{self.server_id}/{self.client_id}"


def load(path: Path, kind: type[T]) -> T | None:
    """A record of the data folder; None when it is not there.

    Raises:
        Corrupt: BUS-1101 when it is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except UNREADABLE as error:
        raise Corrupt(
            "BUS-1101", f"{path} cannot be read: {error}", "Restore it from a backup."
        ) from error


def save(path: Path, record: msgspec.Struct) -> None:
    """Write a record that only this user may read, whole or not at all."""
    make_folder(path.parent, 0o700)
    write_private(path, msgspec.json.encode(record).decode())


def hub_settings(folder: DataFolder) -> HubSettings | None:
    """Where this hub listens for edges; None when it does not."""
    return load(folder.hub / "settings.json", HubSettings)


def joined(folder: DataFolder) -> Joined | None:
    """What this folder's edge knows of its hub; None when it never joined one."""
    return load(folder.edge / "joined.json", Joined)


def joined_edges(folder: DataFolder) -> tuple[JoinedEdge, ...]:
    """The edges that joined this hub, by name.

    Raises:
        Corrupt: BUS-1101 when the book is damaged.
    """
    book = load(folder.hub / "edges.json", EdgeBook) or EdgeBook()
    return tuple(book.edges[name] for name in sorted(book.edges))


def broker_options(folder: DataFolder) -> BrokerOptions:
    """How this folder's broker differs from a plain one: options of ``start_broker``.

    Raises:
        Corrupt: BUS-1101 when a record is damaged; SEC-1612 when the register of certificates is.
        Misconfigured: SEC-1611 when certificates that the settings name cannot be used.
    """
    own = joined(folder)
    plain: BrokerOptions = {
        "edge": own.edge if own is not None else LOCAL_EDGE,
        "tls": listener_tls(folder),
        "tenants": tenants(folder),
    }
    if own is not None:
        return {
            **plain,
            "server_name": own.domain,
            "domain": own.domain,
            "store_bytes_max": 2 * own.log_bytes_max + STORE_BYTES_SPARE,
            "sections": (_pings(), _remote(folder.edge, own)),
        }
    settings = hub_settings(folder)
    if settings is None:
        return plain
    return {
        **plain,
        "server_name": HUB_DOMAIN,
        "domain": HUB_DOMAIN,
        "sections": (_pings(), _listener(folder.hub, settings)),
    }


def listener_tls(folder: DataFolder) -> TlsFiles | None:
    """What this folder's broker shows off loopback; None when it has no certificate.

    Raises:
        Misconfigured: SEC-1611 when certificates that the settings name cannot be used.
    """
    files = Listener(folder).files()
    if files is None:
        return None
    return TlsFiles(
        files.certificate, files.key, files.authority, load_settings(folder).tls.devices
    )


def deliver_prefix(domain: str) -> str:
    """Where an edge's broker delivers what the hub sources from it."""
    return f"source.{domain}"


def _pings() -> str:
    return f'ping_interval: "{PING_INTERVAL_S}s"\nping_max: {PINGS_LOST_MAX}'


def _listener(hub: Path, settings: HubSettings) -> str:
    # Edges know the names that were given; what the hub's machine thinks its addresses are does not
    # hold behind a router, so they are not told.
    return f"""\
leafnodes {{
  listen: {json.dumps(f"{settings.host}:{settings.leaf_port}")}
  no_advertise: true
  tls {{
    ca_file: {json.dumps(str(hub / "ca.pem"))}
    cert_file: {json.dumps(str(hub / "server.pem"))}
    key_file: {json.dumps(str(hub / "server.key"))}
    verify: true
    timeout: 5
  }}
}}"""


def _remote(edge: Path, own: Joined) -> str:
    url = f"tls://{own.domain}:{own.password}@{own.hub}:{own.leaf_port}"
    return f"""\
leafnodes {{
  reconnect: "500ms"
  remotes: [ {{
    url: {json.dumps(url)}
    account: "{SITE_ACCOUNT}"
    tls {{
      ca_file: {json.dumps(str(edge / "ca.pem"))}
      cert_file: {json.dumps(str(edge / "edge.pem"))}
      key_file: {json.dumps(str(edge / "edge.key"))}
      timeout: 5
    }}
  }} ]
}}"""


class EdgeJudge:
    """Admits the brokers of edges that joined this hub; the broker has seen their certificate already.

    Args:
        folder: of the hub.
    """

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder

    async def admit(self, knock: Knock) -> Admitted | None:
        """The edge, when its password is right."""
        for edge in joined_edges(self._folder):
            if edge.domain == knock.name and hmac.compare_digest(
                edge.password.encode(), knock.secret.encode()
            ):
                actor = Actor(edge.name, "viewer", kind="edge", factors=frozenset({"certificate"}))
                return Admitted(actor, leaf_rights(edge.name, edge.domain))
        return None


def connected_leafs(address: BrokerAddress) -> list[Leaf]:
    """The edges that are connected to this hub's broker now. Blocks for two seconds at most.

    Raises:
        Transient: BUS-1102 when the broker does not tell.
    """
    url = f"http://127.0.0.1:{address.monitor_port}/leafz"
    try:
        with urllib.request.urlopen(url, timeout=MONITOR_TIMEOUT_S) as answer:
            told = json.load(answer)
    except (OSError, ValueError) as error:
        raise Transient("BUS-1102", "the broker does not tell which edges are there") from error
    return [
        Leaf(
            domain=each["name"],
            client_id=each["id"],
            server_id=told["server_id"],
            address=each["ip"],
            rtt=each.get("rtt", ""),
        )
        for each in told.get("leafs") or []
    ]
