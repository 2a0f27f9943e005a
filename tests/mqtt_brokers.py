"""Real MQTT brokers for tests: the platform's own, and mosquitto as a foreign one."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from headrace.bus.broker import free_port, prepare_address, start_broker
from headrace.edge.connectors.mqtt.config import parse_endpoint
from headrace.edge.connectors.mqtt.session import Message, MqttSession, MqttSettings
from headrace.edge.contract import Connector, ConnectorContext, ConnectorType, ScanGroup
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock

USER, PASSWORD = "device", "no-default-password"
WAIT_S = 60.0


class MqttBroker:
    """A broker in a child process, always on the same port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.user, self.password = USER, PASSWORD
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def launch(self) -> subprocess.Popen[bytes]:
        raise NotImplementedError

    def up(self) -> None:
        """Start it and wait until it accepts connections."""
        self.process = self.launch()
        deadline = time.monotonic() + WAIT_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            assert self.process.poll() is None, "the broker ended at once"
            assert time.monotonic() < deadline, "the broker does not listen"
        assert self.process.poll() is None, "another program listens on the broker's port"

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    async def start(self) -> None:
        await asyncio.to_thread(self.up)

    async def stop(self) -> None:
        await asyncio.to_thread(self.kill)


class PlatformBroker(MqttBroker):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.data = DataFolder(folder)
        self.address = prepare_address(self.data)
        self.port = self.address.mqtt_port
        self.user, self.password = self.address.device_user, self.address.device_password

    def launch(self) -> subprocess.Popen[bytes]:
        return start_broker(self.data, self.address)


class Mosquitto(MqttBroker):
    def __init__(self, folder: Path, *tls: str) -> None:
        super().__init__(folder)
        binary = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
        if binary is None or shutil.which("mosquitto_passwd") is None:
            pytest.skip("mosquitto is not installed: apt-get install mosquitto mosquitto-clients")
        self.binary = binary
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        passwords = folder / "passwords"
        passwords.touch()
        subprocess.run(["mosquitto_passwd", "-b", passwords, USER, PASSWORD], check=True)
        passwords.chmod(0o644)
        folder.chmod(0o777)
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous false",
            f"password_file {passwords}",
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_on_changes true",
            "autosave_interval 1",
            "max_inflight_messages 0",
            "max_queued_messages 0",
            "user root",
            *tls,
        ]
        (folder / "mosquitto.conf").write_text("\n".join(lines))

    def launch(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.binary, "-c", str(self.folder / "mosquitto.conf")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def tool(self, name: str, *arguments: str) -> list[str]:
        """The command line of one of its own client tools."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-u", USER, "-P", PASSWORD]
        return [f"mosquitto_{name}", *where, *arguments]


BROKERS = {"platform": PlatformBroker, "mosquitto": Mosquitto}


def context(broker: MqttBroker, **fields: Any) -> ConnectorContext:
    """What a host would lend to a connector."""
    plain = ConnectorContext(
        clock=SystemClock(),
        certificates=broker.folder,
        secret=lambda name: {"env:MQTT": broker.password}.get(name, name),
        mqtt_endpoint=broker.url,
        mqtt_user=broker.user,
        mqtt_password=broker.password,
        identity="acme-mill-local",
    )
    return replace(plain, **fields)


def tags(*addresses: str, **fields: Any) -> tuple[TagConfig, ...]:
    """Tags 1, 2, ... of these addresses."""
    return tuple(
        TagConfig(tag_id=number, path=f"hall/unit/tag_{number}", address=address, **fields)
        for number, address in enumerate(addresses, 1)
    )


def make(
    kind: ConnectorType, broker: MqttBroker, declared: tuple[TagConfig, ...], **options: Any
) -> Any:
    """A connector for the broker, not connected."""
    connection = ConnectionConfig(
        name="plc",
        protocol=kind.protocol,
        endpoint="broker",
        options=options,
        tags=declared,
    )
    return kind.open(connection, context(broker))


@asynccontextmanager
async def connected(connector: Connector) -> AsyncIterator[Any]:
    try:
        await connector.connect()
        yield connector
    finally:
        await connector.close()


class Reader:
    """Reads a connector and keeps everything that came."""

    def __init__(self, connector: Any, declared: tuple[TagConfig, ...]) -> None:
        self.connector = connector
        self.group = ScanGroup(1_000, declared)
        self.batches: list[pl.DataFrame] = []
        self.stale: set[int] = set()
        self.notices: list[str] = []
        self.errors: dict[int, str] = {}

    @property
    def rows(self) -> pl.DataFrame:
        return pl.concat(self.batches) if self.batches else pl.DataFrame({"value": []})

    async def once(self, *, acknowledge: bool = True) -> None:
        async with asyncio.timeout(WAIT_S):
            reading = await self.connector.read(self.group)
        if reading.batch.height:
            self.batches.append(reading.batch)
        self.stale |= set(reading.stale)
        self.notices += [code for code, _ in reading.notices]
        self.errors |= reading.tag_errors
        if acknowledge and reading.acknowledge is not None:
            await reading.acknowledge()

    async def until(
        self,
        done: Callable[[Reader], bool],
        *,
        acknowledge: bool = True,
        limit_s: float = WAIT_S,
    ) -> None:
        """Read on until it holds."""
        async with asyncio.timeout(limit_s):
            while not done(self):
                await self.once(acknowledge=acknowledge)

    def values(self, tag_id: int) -> list[Any]:
        if not self.batches:
            return []
        rows = self.rows.filter(pl.col("tag_id") == tag_id)
        return [t if v is None else v for v, t in zip(rows["value"], rows["text"], strict=True)]


def open_session(broker: MqttBroker, client_id: str, **settings: Any) -> MqttSession:
    """A bare MQTT session, not connected."""
    fields = {
        "name": client_id,
        "endpoint": parse_endpoint(broker.url, client_id),
        "client_id": client_id,
        "username": broker.user,
        "password": broker.password,
    }
    return MqttSession(MqttSettings(**(fields | settings)), SystemClock())


class Observer:
    """An onlooker that sees every message below a topic filter."""

    def __init__(self, broker: MqttBroker, topic_filter: str = "spBv1.0/#") -> None:
        self.session = open_session(broker, "observer")
        self.filter = topic_filter
        self.seen: list[Message] = []

    async def __aenter__(self) -> Observer:
        await self.session.connect()
        await self.session.subscribe([(self.filter, 1)])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def until(self, done: Callable[[list[Message]], bool]) -> list[Message]:
        async with asyncio.timeout(WAIT_S):
            while not done(self.seen):
                messages = await self.session.receive(0.5)
                self.session.acknowledge([each.mid for each in messages if each.qos])
                self.seen += messages
        return self.seen

    def of(self, kind: str) -> list[Message]:
        """Messages of one Sparkplug type."""
        return [each for each in self.seen if f"/{kind}/" in each.topic]


async def turn(seconds: float = 0.01) -> None:
    """Let the loop run on; for polling a condition, never as a wait by itself."""
    passed = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, passed.set_result, None)
    await passed


async def eventually(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await turn()
    assert condition(), what


class Recorder:
    """A listener that answers as a broker would and records every packet (MQTT 3.1.1, chapter 3)."""

    def __init__(self) -> None:
        self.packets: list[tuple[str, dict[str, Any]]] = []
        self.port = 0

    async def __aenter__(self) -> Recorder:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(1):
            length, shift = 0, 0
            while True:
                (byte,) = await reader.readexactly(1)
                length |= (byte & 127) << shift
                shift += 7
                if not byte & 128:
                    break
            self._take(head[0], await reader.readexactly(length), writer)
        writer.close()

    def _take(self, head: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        kind = head >> 4
        if kind == 1:
            self.packets.append(("CONNECT", _connect_fields(body)))
            writer.write(b"\x20\x02\x00\x00")
        elif kind == 8:
            filters, rest = [], body[2:]
            while rest:
                name, rest = _text(rest)
                filters.append((name.decode(), rest[0]))
                rest = rest[1:]
            self.packets.append(("SUBSCRIBE", {"filters": filters}))
            grants = bytes(qos for _, qos in filters)
            writer.write(bytes([0x90, 2 + len(grants)]) + body[:2] + grants)
        elif kind == 3:
            topic, rest = _text(body)
            qos = head >> 1 & 3
            if qos:
                writer.write(b"\x40\x02" + rest[:2])
            fields = {"topic": topic.decode(), "qos": qos, "retain": bool(head & 1)}
            self.packets.append(("PUBLISH", fields | {"payload": rest[2:] if qos else rest}))
        elif kind == 14:
            self.packets.append(("DISCONNECT", {}))

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.packets]


def _text(body: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(body[:2], "big")
    return body[2 : 2 + length], body[2 + length :]


def _connect_fields(body: bytes) -> dict[str, Any]:
    name, rest = _text(body)
    level, flags = rest[0], rest[1]
    client_id, rest = _text(rest[4:])
    fields: dict[str, Any] = {
        "protocol": (name, level),
        "client_id": client_id.decode(),
        "clean_session": bool(flags & 2),
        "will_qos": flags >> 3 & 3,
        "will_retain": bool(flags & 32),
    }
    if flags & 4:
        will_topic, rest = _text(rest)
        fields["will_topic"] = will_topic.decode()
        fields["will_payload"], rest = _text(rest)
    return fields
