"""Secrets from the site file and the vault to the edge that needs them: never readable on the way."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import msgspec
import pytest

from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.bus.subjects import DESIRED_BUCKET, EVENTS_STREAM, Subjects
from headrace.edge.agent import Agent, follow_desired
from headrace.edge.calls import Calls
from headrace.edge.contract import ConnectorContext
from headrace.model.desired import ConnectionConfig, EdgeConfig
from headrace.model.errors import Misconfigured, Refused
from headrace.model.folder import DataFolder
from headrace.model.health import Event
from headrace.model.tasks import end_tasks
from headrace.model.time import ManualClock, SystemClock
from headrace.security.sealing import own_edge_key
from headrace.security.secrets import Vault
from headrace.site.file import SiteFiles, check_site, load_site
from headrace.site.keeper import Keeper
from headrace.site.registry import Registry
from headrace.site.secrets import Sealer, adopt, edge_public_key, trust_edge_key
from headrace.site.writing import read_version, versions
from waiting import until

SITE = """\
[site]
enterprise = "acme"
name = "mill"

[connection.broker_1]
protocol = "mqtt"
endpoint = "mqtt://127.0.0.1:1"
# who we are there
options = { username = "headrace", password = "PASSWORD" }

[[tag]]
path = "hall/line/machine/load"
connection = "broker_1"
address = "machine/load#"
"""
TULIP = "tulip-7731"


@pytest.fixture(autouse=True)
def bench_protocol() -> None:
    """The real connectors, in place of the bench's."""


def write_site(folder: DataFolder, password: str) -> None:
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.site_file.write_text(SITE.replace("PASSWORD", password))


def keeper_of(folder: DataFolder) -> Keeper:
    return Keeper(folder, Registry.of(folder), ManualClock(1_000_000))


def is_in(secret: str, body: bytes) -> bool:
    raw = secret.encode()
    forms = (raw, base64.b64encode(raw)[:-4], raw.hex().encode(), quote(secret).encode())
    return any(form in body for form in forms)


def password_of(config: EdgeConfig) -> str:
    return str(config.connections[0].options["password"])


def pending_config(keeper: Keeper, edge: str = "local") -> EdgeConfig:
    return msgspec.json.decode(keeper.pending[f"edge.{edge}"], type=EdgeConfig)


def codes(keeper: Keeper) -> list[str]:
    return [event.code for event in keeper.events]


@pytest.mark.parametrize("plain", [True, False])
def test_nothing_goes_out_in_clear_and_the_edge_opens_it(folder: DataFolder, plain: bool) -> None:
    write_site(folder, TULIP if plain else "secret:north_password")
    if not plain:
        with Vault(folder) as vault:
            vault.set("north_password", TULIP)
    keeper = keeper_of(folder)
    keeper.look()
    assert keeper.problems == []
    assert not any(is_in(TULIP, body) for body in keeper.pending.values())
    config = pending_config(keeper)
    name = password_of(config).removeprefix("secret:")
    key = own_edge_key(folder.keys, "local")
    assert key.open("local", name, config.secrets[name]) == TULIP
    assert ("SEC-1514" in codes(keeper)) == plain
    assert not is_in(TULIP, folder.metadata_file.read_bytes())
    again = keeper_of(folder)
    again.look()
    assert pending_config(again).content_hash() == config.content_hash()


def test_a_secret_that_is_missing_or_changed_is_told_and_followed(folder: DataFolder) -> None:
    write_site(folder, "secret:north_password")
    keeper = keeper_of(folder)
    keeper.look()
    assert pending_config(keeper).secrets == {}
    assert codes(keeper).count("SEC-1515") == 1
    with Vault(folder) as vault:
        vault.set("north_password", TULIP)
        assert keeper.look()
        first = pending_config(keeper)
        assert set(first.secrets) == {"north_password"}
        assert not keeper.look()
        vault.set("north_password", "another-one")
        assert keeper.look()
    assert pending_config(keeper).secrets != first.secrets


def test_with_a_lost_key_the_state_before_stays_in_force(folder: DataFolder) -> None:
    write_site(folder, "secret:north_password")
    with Vault(folder) as vault:
        vault.set("north_password", TULIP)
    keeper = keeper_of(folder)
    keeper.look()
    keeper.pending.clear()
    (folder.keys / "master.key").unlink()
    folder.site_file.write_text(folder.site_file.read_text().replace("machine/load#", "machine/x#"))
    keeper.look()
    assert [problem.code for problem in keeper.problems] == ["SEC-1503"]
    assert "edge.local" not in keeper.pending


def test_an_edge_without_a_known_key_gets_no_secret(folder: DataFolder) -> None:
    write_site(folder, TULIP)
    text = folder.site_file.read_text()
    folder.site_file.write_text(text.replace("protocol =", 'edge = "north"\nprotocol ='))
    keeper = keeper_of(folder)
    keeper.look()
    config = pending_config(keeper, "north")
    assert config.secrets == {} and password_of(config).startswith("secret:")
    assert "SEC-1516" in codes(keeper)
    with pytest.raises(Misconfigured, match="SEC-1521"):
        trust_edge_key(folder, "north", "no key")
    north = own_edge_key(folder.root / "elsewhere", "north")
    trust_edge_key(folder, "north", north.public)
    assert edge_public_key(folder, "north") == north.public
    assert keeper.look()
    ((name, box),) = pending_config(keeper, "north").secrets.items()
    assert north.open("north", name, box) == TULIP


def test_adopt_moves_plain_secrets_into_the_vault_and_out_of_every_version(
    folder: DataFolder,
) -> None:
    write_site(folder, TULIP)
    keeper_of(folder).look()
    assert any(TULIP.encode() in read_version(v)["site.toml"] for v in versions(folder))
    assert adopt(folder, load_site(folder.site_file)) == ["broker_1.password"]
    text = folder.site_file.read_text()
    assert TULIP not in text
    assert 'password = "secret:broker_1.password"' in text and "# who we are there" in text
    assert not any(TULIP.encode() in read_version(v)["site.toml"] for v in versions(folder))
    with Vault(folder) as vault:
        assert vault.get("broker_1.password") == TULIP
    assert adopt(folder, load_site(folder.site_file)) == []
    keeper = keeper_of(folder)
    keeper.look()
    assert "SEC-1514" not in codes(keeper)
    write_site(folder, "another-one")
    with pytest.raises(Misconfigured, match="SEC-1517"):
        adopt(folder, load_site(folder.site_file))


def test_an_option_that_is_no_secret_cannot_name_one(folder: DataFolder) -> None:
    write_site(folder, TULIP)
    text = folder.site_file.read_text().replace('"headrace", pass', '"secret:user", pass')
    folder.site_file.write_text(text)
    _, problems = check_site(SiteFiles(folder.site_file))
    assert [(problem.code, problem.line) for problem in problems] == [("SEC-1518", 9)]


def test_a_wrong_kind_of_secret_is_not_shown(folder: DataFolder) -> None:
    write_site(folder, TULIP)
    more = (
        '\n[notify.channel.mail]\nkind = "webhook"\nurl = "https://a.b/c"\nsecret = ["tulip-8"]\n'
    )
    folder.site_file.write_text(folder.site_file.read_text() + more)
    _, problems = check_site(SiteFiles(folder.site_file))
    assert problems and "tulip-8" not in str(problems)


class _Type:
    """A connector that says what it was given, and fails as a careless device would."""

    protocol, mode, title = "scripted", "poll", ("Scripted", "脚本")
    abilities = frozenset({"read"})
    options = msgspec.Struct
    given: ClassVar[list[str]] = []

    def check_connection(self, connection: ConnectionConfig) -> None: ...

    def check_tag(self, tag: object) -> None: ...

    def open(self, connection: ConnectionConfig, context: ConnectorContext) -> _Type:
        self.secret = context.secret(str(connection.options["password"]))
        self.given.append(self.secret)
        return self

    async def connect(self) -> None:
        raise Refused("EDGE-9001", f"the device does not know {self.secret}", "Look.")

    async def close(self) -> None: ...


@pytest.fixture
async def agent(
    folder: DataFolder, broker: BrokerAddress, bus: Bus, tmp_path: Path
) -> AsyncIterator[Agent]:
    _Type.given = []
    made = Agent(
        bus,
        broker,
        Subjects("acme", "mill"),
        edge="local",
        certificates=tmp_path,
        clock=SystemClock(),
        types=lambda _: _Type(),
        key=own_edge_key(folder.keys, "local"),
    )
    tasks = [
        asyncio.create_task(follow_desired(made, bus, "local")),
        asyncio.create_task(made.publish_events()),
    ]
    yield made
    await made.stop()
    await end_tasks(*tasks)


async def test_the_edge_uses_it_and_begins_anew_when_it_changes(
    folder: DataFolder, bus: Bus, agent: Agent
) -> None:
    write_site(folder, "secret:north_password")
    keeper = keeper_of(folder)
    keeper.look()
    await keeper.send(bus)
    await until(lambda: agent.state().connections)
    await until(lambda: agent.state().connections[0].last_error_code == "EDGE-1501")
    with Vault(folder) as vault:
        vault.set("north_password", TULIP)
        keeper.look()
        await keeper.send(bus)
        await until(lambda: TULIP in _Type.given)
        vault.set("north_password", "rose-4402")
        keeper.look()
        await keeper.send(bus)
        await until(lambda: "rose-4402" in _Type.given)
    await until(lambda: agent.state().connections[0].last_error_code == "EDGE-9001")
    state = agent.state().connections[0]
    assert state.last_error == "the device does not know ***"

    async def told() -> list[Event]:
        info = await bus.stream.stream_info(EVENTS_STREAM)
        found = [
            await bus.stream.get_msg(EVENTS_STREAM, n) for n in range(1, info.state.last_seq + 1)
        ]
        return [msgspec.json.decode(message.data or b"", type=Event) for message in found]

    async with asyncio.timeout(30):
        while "EDGE-9001" not in [event.code for event in await told()]:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert not is_in(TULIP, msgspec.json.encode(await told()))
    assert not is_in("rose-4402", msgspec.json.encode(await told()))
    body = await bus.get(DESIRED_BUCKET, "edge.local")
    assert body and not is_in("rose-4402", body)


async def test_a_draft_is_tried_with_sealed_secrets(
    folder: DataFolder, bus: Bus, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.edge.calls.connector_type", lambda _: _Type())
    subjects = Subjects("acme", "mill")
    await Calls(agent, SystemClock(), "local").serve(bus, subjects)
    with Vault(folder) as vault:
        vault.set("new_password", TULIP)
    draft = ConnectionConfig(
        name="new", protocol="mqtt", endpoint="x", options={"password": "secret:new_password"}
    )
    for password in ("secret:new_password", TULIP):
        draft = msgspec.structs.replace(draft, options={"password": password})
        connection, secrets = Sealer(folder).seal_draft("local", draft)
        body = msgspec.json.encode({"connection": connection, "secrets": secrets})
        assert not is_in(TULIP, body)
        with pytest.raises(Refused, match="EDGE-9001") as caught:
            await bus.request(subjects.edge_call("local", "check"), body)
        assert TULIP not in str(caught.value)
    assert _Type.given == [TULIP, TULIP]
