"""The security role with a real broker: who connects, who is cut, how certificates change under traffic."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import nats
import nats.errors
import pytest
from nats.aio.client import Client

from headrace.bus import leaf
from headrace.bus.broker import (
    BrokerAddress,
    OffLoopback,
    prepare_address,
    start_broker,
    stop_broker,
)
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.recent import recent_events
from headrace.bus.subjects import DESIRED_BUCKET, Subjects
from headrace.edge.connectors.mqtt.config import parse_endpoint
from headrace.edge.connectors.mqtt.session import MqttSession, MqttSettings
from headrace.model.desired import ConnectionConfig, EdgeConfig, TagConfig
from headrace.model.errors import HeadraceError, Refused
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.security.identity import Identity
from headrace.security.listener import Listener
from headrace.security.policy import Grant
from headrace.site import security_role
from headrace.site.keeper import STATE_KEY, EdgeFollow, SiteState
from waiting import until

TOPIC = "hall/press_3/state"
CUT_S = 2.0


@dataclass
class Plant:
    """A broker, its security role, and what a test needs of them."""

    folder: DataFolder
    address: BrokerAddress
    bus: Bus
    identity: Identity
    listener: Listener

    def secret(self, kind: str, name: str, tenant: str = "") -> str:
        grants = [Grant("viewer")] if kind == "service" else []
        return self.identity.actors.add(kind, name, grants, tenant=tenant)

    async def connect(self, name: str, secret: str) -> Client:
        async def quiet(error: Exception) -> None:
            del error

        tls = None
        if self.address.authority_pem:
            tls = ssl.create_default_context(cadata=self.address.authority_pem)
        return await nats.connect(
            self.address.url,
            user=name,
            password=secret,
            tls=tls,
            allow_reconnect=False,
            error_cb=quiet,
            inbox_prefix=f"_INBOX.{name}",
        )

    def device(self, name: str, secret: str, files: tuple[Path, ...] = ()) -> MqttSession:
        shown = dict(zip(("tls_certificate_file", "tls_key_file"), map(str, files), strict=False))
        authority = self.address.client_files[0] if self.address.client_files else ""
        settings = MqttSettings(
            name=name,
            endpoint=parse_endpoint(self.address.mqtt_endpoint, name),
            client_id=name,
            username=name,
            password=secret,
            tls_ca_file=authority,
            **shown,
        )
        return MqttSession(settings, SystemClock())

    async def desire(self) -> None:
        tag = TagConfig(tag_id=1, path="hall/press_3/state", address=f"{TOPIC}#")
        device = ConnectionConfig(name="press_3", protocol="mqtt", endpoint="broker", tags=(tag,))
        edge = EdgeConfig(enterprise="acme", site="mill", edge="local", connections=(device,))
        state = SiteState(edges={"local": EdgeFollow(desired_hash="x")})
        await self.bus.put(DESIRED_BUCKET, "edge.local", msgspec.json.encode(edge))
        await self.bus.put(DESIRED_BUCKET, STATE_KEY, msgspec.json.encode(state))


@asynccontextmanager
async def plant_on(folder: DataFolder, *, tls: bool = False) -> AsyncIterator[Plant]:
    clock, listener, reach = SystemClock(), Listener(folder), None
    folder.root.mkdir(parents=True, exist_ok=True)
    if tls:
        (folder.root / "headrace.toml").write_text("[tls]\ndevices = true\n")
        listener.ensure((), clock.now_us())
        files = listener.client_files(clock.now_us())
        reach = OffLoopback("0.0.0.0", listener.trusted_pem(), files)
    address = prepare_address(folder, reach)
    process = start_broker(folder, address, **leaf.broker_options(folder))
    identity, stop = Identity(folder, clock), asyncio.Event()
    role = asyncio.create_task(security_role.run(folder, address, Subjects("acme", "mill"), stop))
    try:
        async with open_bus(address, "test") as bus:
            await ensure_streams(bus)
            plant = Plant(folder, address, bus, identity, listener)
            await plant.desire()
            yield plant
    finally:
        stop.set()
        await role
        identity.close()
        stop_broker(process)


async def connected(plant: Plant, name: str, secret: str) -> Client:
    """The role starts beside us, and learns topics within a second: devices try again too."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await plant.connect(name, secret)
            except (nats.errors.Error, OSError):
                await asyncio.sleep(0.1)


async def online(plant: Plant, name: str, secret: str, files: tuple[Path, ...] = ()) -> MqttSession:
    async with asyncio.timeout(30):
        while True:
            session = plant.device(name, secret, files)
            try:
                await session.connect()
                return session
            except HeadraceError:
                session.abort()
                await asyncio.sleep(0.1)


async def test_a_service_is_admitted_and_cut_when_it_is_disabled(folder: DataFolder) -> None:
    async with plant_on(folder) as plant:
        secret = plant.secret("service", "reporting")
        client = await connected(plant, "reporting", secret)
        heard: list[str] = []

        async def take(message) -> None:  # type: ignore[no-untyped-def]
            heard.append(message.subject)

        await client.subscribe("v1.*.*.batch.>", cb=take)
        await client.flush()
        await plant.bus.client.publish("v1.acme.mill.batch.local.plc", b"x")
        await until(lambda: bool(heard), what="it hears samples")
        with pytest.raises(nats.errors.Error):
            await plant.connect("reporting", "wrong")
        plant.identity.actors.disable("reporting")
        begun_s = SystemClock().monotonic_s()
        await until(lambda: not client.is_connected, what="it is cut")
        assert SystemClock().monotonic_s() - begun_s < 10 * CUT_S  # 2 s on a machine at rest
        with pytest.raises(nats.errors.Error):
            await plant.connect("reporting", secret)


async def test_a_device_has_the_topics_that_the_site_file_gives_it(folder: DataFolder) -> None:
    async with plant_on(folder) as plant:
        heard: list[str] = []

        async def take(message) -> None:  # type: ignore[no-untyped-def]
            heard.append(message.subject)

        await plant.bus.client.subscribe(">", cb=take)
        device = await online(plant, "press_3", plant.secret("device", "press_3"))
        for topic in ("hall/press_4/state", "v1/acme/mill/batch/local/plc", TOPIC):
            await device.publish(topic, b"1", qos=0)
        own = TOPIC.replace("/", ".")
        await until(lambda: own in heard, what="its own topic is heard")
        assert not {"hall.press_4.state", "v1.acme.mill.batch.local.plc"} & set(heard)
        await device.close()
        undeclared = plant.secret("device", "press_4")
        session = plant.device("press_4", undeclared)
        with pytest.raises(Refused):
            await session.connect()
        session.abort()


async def test_tenants_hear_nothing_of_the_site_or_of_each_other(folder: DataFolder) -> None:
    async with plant_on(folder) as plant:
        secrets = {name: plant.secret("partner", name, tenant=name) for name in ("acme", "zeta")}
        for (
            name
        ) in secrets:  # a new account is a reload, at which those that are asked for come anew
            await (await connected(plant, name, secrets[name])).close()
        clients = {name: await connected(plant, name, secrets[name]) for name in secrets}
        heard: dict[str, list[str]] = {name: [] for name in (*clients, "site")}
        for name, client in {**clients, "site": plant.bus.client}.items():

            async def take(message, name=name) -> None:  # type: ignore[no-untyped-def]
                heard[name].append(message.data.decode())

            for subject in (">", "tenant.acme.>", "tenant.zeta.>", "v1.>"):
                await client.subscribe(subject, cb=take)
            await client.flush()
        for name, client in {**clients, "site": plant.bus.client}.items():
            for subject in ("tenant.acme.x", "tenant.zeta.x", "v1.acme.mill.health.hub"):
                await client.publish(subject, name.encode())
            await client.flush()
        await until(lambda: bool(heard["acme"]) and bool(heard["zeta"]), what="each hears itself")
        assert set(heard["acme"]) == {"acme"}
        assert set(heard["zeta"]) == {"zeta"}
        assert set(heard["site"]) == {"site"}
        for client in clients.values():
            await client.close()


async def test_a_devices_certificate_admits_it_until_it_is_revoked(folder: DataFolder) -> None:
    async with plant_on(folder, tls=True) as plant:
        clock = SystemClock()
        plant.secret("device", "press_3")
        files = plant.listener.issue_device("press_3", clock.now_us())
        device = await online(plant, "press_3", "", files)
        await device.publish(TOPIC, b"1", qos=1)
        bare = plant.device("press_3", "")
        with pytest.raises(HeadraceError):
            await bare.connect()
        bare.abort()
        plant.listener.revoke("press_3", clock.now_us())
        await until(lambda: not device.is_connected, what="it is cut")
        device.abort()
        again = plant.device("press_3", "", files)
        with pytest.raises(HeadraceError):
            await again.connect()
        again.abort()


async def test_the_servers_certificate_changes_under_traffic(folder: DataFolder) -> None:
    """Whoever is connected stays so, whoever comes sees the new one, and nothing is lost."""
    async with plant_on(folder, tls=True) as plant:
        heard: list[bytes] = []

        async def take(message) -> None:  # type: ignore[no-untyped-def]
            heard.append(message.data)

        await plant.bus.client.subscribe("v1.acme.mill.batch.>", cb=take)
        port = plant.address.port
        before = await shown(port, plant.address.authority_pem)
        for number in range(300):
            await plant.bus.publish_frame("v1.acme.mill.batch.local.plc", b"%d" % number, {})
            if number == 100:
                plant.listener.renew_server(SystemClock().now_us())
                security_role.reload(plant.folder, plant.address)
        async with asyncio.timeout(30):
            after = before
            while after == before:
                after = await shown(port, plant.address.authority_pem)
        await until(lambda: len(heard) == 300, what="all is heard")
        assert heard == [b"%d" % number for number in range(300)]
        assert plant.bus.reconnects == 0
        async with open_bus(plant.address, "later") as later:
            await later.publish_frame("v1.acme.mill.batch.local.plc", b"last", {})


async def shown(port: int, authority_pem: str) -> bytes:
    """The certificate that the broker shows; nats speaks its INFO line before TLS."""
    context = ssl.create_default_context(cadata=authority_pem)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await reader.readline()
        await writer.start_tls(context, server_hostname="127.0.0.1")
        return writer.get_extra_info("ssl_object").getpeercert(True)
    finally:
        writer.close()


async def test_the_end_of_a_certificate_is_told_as_an_event(folder: DataFolder) -> None:
    Listener(folder).issue_device("press_3", SystemClock().now_us(), 5)
    async with plant_on(folder) as plant:
        found: list[str] = []
        async with asyncio.timeout(60):
            while not found:
                events = await recent_events(plant.bus)
                found = [event.text for event in events if event.code == "SEC-1620"]
                await asyncio.sleep(0.1)
        assert found[0].startswith("the certificate of press_3 (device) ends on ")


def test_nothing_listens_off_loopback_without_tls(folder: DataFolder) -> None:
    address = prepare_address(folder)
    for host in ("0.0.0.0", "192.0.2.1", "plant.example"):
        open_door = BrokerAddress(**{**vars(address), "listen": host})
        with pytest.raises(Refused, match="BUS-1401"):
            start_broker(folder, open_door)
    assert not (folder.broker / "nats.conf").exists()
