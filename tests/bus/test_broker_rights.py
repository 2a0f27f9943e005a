"""Every kind of actor on every kind of subject, by really publishing and subscribing at the real server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from headrace.bus.broker import BrokerAddress, prepare_address, start_broker, stop_broker
from headrace.bus.callout import Callout
from headrace.bus.knock import Admitted, Knock
from headrace.bus.rights import (
    GATEWAY_RIGHTS,
    ROLES,
    actor_rights,
    leaf_rights,
    role_rights,
)
from headrace.model.errors import Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.time import SystemClock
from headrace.security.policy import Actor, Grant

SCRIPT = Path(__file__).parents[2] / "scripts" / "broker_rights.py"
sys.path.append(str(SCRIPT.parent))

from broker_rights import OWN_TOPIC, SUBJECTS, actors, page  # noqa: E402

PAIRS = [(kind, subject) for kind in actors() for subject in SUBJECTS]
TENANT = "acme_partner"


class EverybodyKnown:
    """A judge for whom the name says which kind it is."""

    async def admit(self, knock: Knock) -> Admitted | None:
        found = actors().get(knock.name)
        if found is None or found.actor is None or knock.secret != "right":
            return None
        return Admitted(found.actor, found.rights)


@dataclass
class Matrix:
    """One connection for each kind, and the owner's."""

    owner: Client
    clients: dict[str, Client]
    refusals: dict[str, list[str]]


@pytest.fixture
async def matrix(folder: DataFolder) -> AsyncIterator[Matrix]:
    address = prepare_address(folder)
    process = start_broker(folder, address, edge="local", tenants=(TENANT,))
    stop, ready = asyncio.Event(), asyncio.Event()
    callout = Callout(address, EverybodyKnown(), SystemClock())
    answering = asyncio.create_task(callout.run(stop, ready))
    await ready.wait()
    made = Matrix(Client(), {}, {})
    made.owner = await nats.connect(
        address.url, user="platform", password=address.platform_password
    )
    for kind in actors():
        made.refusals[kind] = []
        made.clients[kind] = await connect(address, kind, made.refusals[kind])
    yield made
    for client in [made.owner, *made.clients.values()]:
        await client.close()
    stop.set()
    await answering
    stop_broker(process)


async def connect(address: BrokerAddress, kind: str, refusals: list[str]) -> Client:
    async def note(error: Exception) -> None:
        refusals.append(str(error).lower())

    password = "right"
    if kind in ROLES:
        password = address.as_role(kind).platform_password
    elif kind == "device_gateway":
        kind, password = address.device_user, address.device_password
    return await nats.connect(
        address.url, user=kind, password=password, error_cb=note, allow_reconnect=False
    )


async def test_every_kind_of_actor_on_every_kind_of_subject(matrix: Matrix) -> None:
    """Said: does it reach the owner? Heard: does what the owner says reach it? Else, is it refused?"""
    reached: dict[str, set[str]] = {}

    async def take(message) -> None:  # type: ignore[no-untyped-def]
        reached.setdefault(message.data.decode(), set()).add(message.subject)

    await matrix.owner.subscribe(">", cb=take)
    heard: dict[str, set[str]] = {kind: set() for kind in matrix.clients}
    for kind, client in matrix.clients.items():

        async def note(message, kind=kind) -> None:  # type: ignore[no-untyped-def]
            heard[kind].add(message.subject) if message.data == b"owner" else None

        for subject in SUBJECTS:
            await client.subscribe(subject, cb=note)
        await client.flush()
    await matrix.owner.flush()
    for kind, client in matrix.clients.items():
        for subject in SUBJECTS:
            await client.publish(subject, kind.encode())
        await client.flush()
    for subject in SUBJECTS:
        await matrix.owner.publish(subject, b"owner")
    await matrix.owner.flush()
    for client in matrix.clients.values():
        await client.flush()
    wrong = []
    for kind, subject in PAIRS:
        known = actors()[kind]
        inside = known.actor is None or not known.actor.tenant
        may_say = known.rights.may_say(subject)
        may_hear = known.rights.may_hear(subject)
        if (subject in reached.get(kind, set())) != (may_say and inside):
            wrong.append(f"{kind} says {subject}: expected {may_say and inside}")
        if (subject in heard[kind]) != (may_hear and inside):
            wrong.append(f"{kind} hears {subject}: expected {may_hear and inside}")
        refused = [text for text in matrix.refusals[kind] if f'"{subject}"'.lower() in text]
        if len(refused) != (not may_say) + (not may_hear):
            wrong.append(f"{kind} at {subject}: {refused}")
    assert wrong == []


def test_the_table_grants_what_work_needs_and_no_more() -> None:
    """The table itself, so that a right that is given by mistake is seen here too."""
    said = {
        kind: {s for s in SUBJECTS if found.rights.may_say(s)} for kind, found in actors().items()
    }
    batches = {kind for kind in said if "v1.acme.mill.batch.local.plc_1" in said[kind]}
    assert batches == {"edge"}
    assert {kind for kind in said if "v1.acme.mill.batch.apps.pump" in said[kind]} == {
        "apps",
        "cli",
    }
    writers = {kind for kind in said if "v1.acme.mill.call.edge.local.write" in said[kind]}
    assert writers == {"console", "cli", "hub", "runtime"}
    assert {kind for kind in said if "$KV.desired.edge.local" in said[kind]} == {"console", "edge"}
    assert {kind for kind in said if "$JS.API.STREAM.DELETE.SAMPLES" in said[kind]} == set()
    assert {kind for kind in said if "$SYS.REQ.USER.AUTH" in said[kind]} == set()
    assert said["reporting"] == set() and said["press_3"] == {OWN_TOPIC}
    hears = {k for k, found in actors().items() if found.rights.may_hear("$SYS.REQ.USER.AUTH")}
    assert hears == set()


def test_persons_and_the_system_have_no_business_at_the_broker() -> None:
    for kind in ("person", "system"):
        assert actor_rights(Actor("mallory", "admin", kind=kind)) is None
    assert actor_rights(Actor("press_3", "viewer", kind="device"), []) is None
    part = (Grant("viewer", "utilities/pumping"),)
    assert actor_rights(Actor("reporting", "viewer", kind="service", grants=part)) is None


@pytest.mark.parametrize(
    "topic",
    ["#", "+/x", "v1/acme/mill/batch/local/plc", "$SYS/x", "$JS/API/#", "a//b", "_INBOX/#", ""],
)
def test_no_device_gets_the_platforms_own_subjects(topic: str) -> None:
    with pytest.raises(Misconfigured, match="BUS-1402"):
        actor_rights(Actor("press_3", "viewer", kind="device"), [topic])


async def test_a_wrong_secret_and_a_stranger_are_refused(folder: DataFolder) -> None:
    address = prepare_address(folder)
    process = start_broker(folder, address)
    stop, ready = asyncio.Event(), asyncio.Event()
    refused: list[Knock] = []
    callout = Callout(address, EverybodyKnown(), SystemClock(), refused.append)
    answering = asyncio.create_task(callout.run(stop, ready))
    await ready.wait()

    async def quiet(error: Exception) -> None:
        del error

    for user, password in (("reporting", "wrong"), ("stranger", "right"), ("platform", "wrong")):
        with pytest.raises(nats.errors.Error):
            await nats.connect(
                address.url, user=user, password=password, allow_reconnect=False, error_cb=quiet
            )
    assert [knock.name for knock in refused] == ["reporting", "stranger"]
    stop.set()
    await answering
    stop_broker(process)


async def test_roles_connect_while_nobody_answers_for_others(broker: BrokerAddress) -> None:
    for role in ROLES:
        own = broker.as_role(role)
        assert own.platform_password != broker.platform_password
        client = await nats.connect(own.url, user=own.platform_user, password=own.platform_password)
        assert client.is_connected
        await client.close()


def test_the_page_is_the_table() -> None:
    kept = SCRIPT.parents[1] / "docs" / "broker-rights.md"
    assert kept.read_text() == page(), "run: python scripts/broker_rights.py"


def test_an_edge_of_a_hub_says_only_what_is_its_own() -> None:
    own = leaf_rights("north", "north-1")
    assert own.may_say("v1.acme.mill.health.edge.north")
    assert not own.may_say("v1.acme.mill.health.edge.south")
    assert not own.may_hear("v1.acme.mill.call.edge.south.write")
    assert not own.may_say("$JS.API.STREAM.CREATE.X")
    assert not GATEWAY_RIGHTS.may_say("v1.acme.mill.batch.north.plc")
    assert not role_rights("edge", "north").may_say("v1.acme.mill.batch.south.plc")
