"""The security role: who may connect to the broker, whose connection ends, which certificate ends soon.

::

    broker asks (bus/callout.py) ──► actors, certificates, declared topics ──► who, and what it may
    twice a second                   who is connected and not open any more is cut
    each minute                      our own certificate is renewed in time; others are warned of

It may be killed at any time: roles of ours go on, and others that connect meanwhile try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final

import msgspec

from headrace.bus import leaf
from headrace.bus.broker import BrokerAddress, reload_broker, write_config
from headrace.bus.callout import Callout
from headrace.bus.client import Bus, open_bus
from headrace.bus.configuration import tenant_account
from headrace.bus.desired import read_desired
from headrace.bus.knock import Admitted, Knock
from headrace.bus.outbox import Outbox
from headrace.bus.rights import ROLES, SITE_ACCOUNT, actor_rights
from headrace.bus.subjects import SITE_STATE_KEY, Subjects
from headrace.bus.system import Connection, System, open_system
from headrace.bus.tenants import set_tenants, tenants
from headrace.model.desired import EdgeConfig
from headrace.model.errors import HeadraceError, Misconfigured, Transient
from headrace.model.folder import DataFolder
from headrace.model.tasks import end_tasks
from headrace.model.time import Clock, SystemClock
from headrace.security.expiry import ExpiryWatch, certificates_of
from headrace.security.identity import Identity
from headrace.security.listener import Listener
from headrace.security.rights import Actor
from headrace.site.device_topics import DeviceTopics, device_topics

STEP_S: Final = 0.5
CARE_S: Final = 60.0
TOPICS_S: Final = 1.0
STOP_S: Final = 2.0
STATIC_USERS: Final = frozenset({"platform", "device", *ROLES})
_log = logging.getLogger(__name__)


async def run(
    folder: DataFolder, address: BrokerAddress, subjects: Subjects, stop: asyncio.Event
) -> None:
    """Do all of it until ``stop`` is set.

    Args:
        folder: the data folder. address: of its broker, with the installation's secret.
        subjects: of its site.

    Raises:
        Transient: BUS-1025 when the broker does not come.
    """
    clock = SystemClock()
    identity = await asyncio.to_thread(Identity, folder, clock)
    try:
        async with open_bus(address.as_role("security"), "security", wait_s=3_600) as bus:
            door = Door(folder, address, bus, identity, clock)
            told = Outbox(bus, subjects.event("security"), "security", clock)
            sending = asyncio.create_task(told.run())
            work = [
                asyncio.create_task(Callout(address, door, clock, door.note).run(stop)),
                asyncio.create_task(door.keep_topics(stop)),
                asyncio.create_task(door.keep_connections(stop)),
                asyncio.create_task(_care(folder, address, ExpiryWatch(told.report), clock, stop)),
            ]
            try:
                done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
                await asyncio.wait(work, timeout=STOP_S)
            finally:
                await end_tasks(sending, *work)
    finally:
        identity.close()


class _Edges(msgspec.Struct):
    """What is needed here of the keeper's SiteState, without all that the keeper needs."""

    edges: dict[str, Any] = {}


class Door:
    """Who may connect now; see :class:`headrace.bus.callout.Judge`.

    Args:
        folder: the data folder. address: of its broker, with the installation's secret.
        bus: open, as the security role. identity: who is known.
    """

    def __init__(
        self,
        folder: DataFolder,
        address: BrokerAddress,
        bus: Bus,
        identity: Identity,
        clock: Clock,
    ) -> None:
        self._folder = folder
        self._address = address
        self._bus = bus
        self._identity = identity
        self._clock = clock
        self._listener = Listener(folder)
        self._edges_of = leaf.EdgeJudge(folder)
        self._topics: dict[str, DeviceTopics] = {}

    async def admit(self, knock: Knock) -> Admitted | None:
        """Who that is, by secret or certificate, and what the site file gives it."""
        if knock.is_leaf:
            return await self._edges_of.admit(knock)
        actor = await asyncio.to_thread(self._recognize, knock)
        if actor is None:
            return None
        topics = self._topics.get(actor.name, DeviceTopics(()))
        try:
            rights = actor_rights(actor, topics.own, topics.heard)
        except Misconfigured as error:
            _log.warning("%s: %s", actor.name, error)
            return None
        if rights is None:
            return None
        if actor.tenant:
            await asyncio.to_thread(self._make_room, actor.tenant)
        return Admitted(actor, rights)

    def _recognize(self, knock: Knock) -> Actor | None:
        name = None
        if knock.certificate:
            name = self._listener.counts(knock.certificate, self._clock.now_us())
            if name is None or knock.name not in ("", name):
                return None
        if knock.secret:
            return self._identity.actors.of_credentials(knock.name, knock.secret)
        if name is None:
            return None
        for entry in self._identity.actors.list("device"):
            if entry.name == name and entry.state == "open":
                return Actor(
                    name,
                    "viewer",
                    kind="device",
                    tenant=entry.tenant,
                    grants=entry.grants,
                    factors=frozenset({"certificate"}),
                )
        return None

    def _make_room(self, tenant: str) -> None:
        """A tenant's account must be there before its first client."""
        known = frozenset(tenants(self._folder))
        if self._address.is_cluster or tenant in known:
            return
        set_tenants(self._folder, known | {tenant})
        reload(self._folder, self._address)

    def note(self, knock: Knock) -> None:
        """Somebody was refused."""
        _log.warning("refused at the broker: user %r from %s", knock.name, knock.address)

    async def keep_topics(self, stop: asyncio.Event) -> None:
        """Follow what the site file declares, until ``stop``."""
        while not stop.is_set():
            with contextlib.suppress(Transient):
                self._topics = device_topics(await self._edges())
            await _pause(stop, TOPICS_S)

    async def _edges(self) -> list[EdgeConfig]:
        raw = await read_desired(self._bus, SITE_STATE_KEY)
        state = msgspec.json.decode(raw, type=_Edges) if raw else _Edges()
        found = []
        for edge in state.edges:
            raw = await read_desired(self._bus, f"edge.{edge}")
            if raw is not None:
                found.append(msgspec.json.decode(raw, type=EdgeConfig))
        return found

    async def keep_connections(self, stop: asyncio.Event) -> None:
        """End connections of those who may not go on, until ``stop``."""
        while not stop.is_set():
            try:
                async with open_system(self._address) as system:
                    while not stop.is_set():
                        await self._cut(system)
                        await _pause(stop, STEP_S)
            except Transient as error:
                _log.info("%s", error)  # the broker restarts; with it all connections ended
                await _pause(stop, STEP_S)

    async def _cut(self, system: System) -> None:
        for connection in await system.connections():
            if self._is_asked_for(connection) and not await self._may_go_on(connection):
                _log.warning("the connection of %s ends: it may not go on", connection.user)
                await system.kick(connection.server_id, connection.client_id)

    def _is_asked_for(self, connection: Connection) -> bool:
        """Whether the callout admitted it: it is no user of the configuration."""
        if connection.account == SITE_ACCOUNT:
            return connection.user not in STATIC_USERS
        return connection.account.startswith(tenant_account(""))

    async def _may_go_on(self, connection: Connection) -> bool:
        def look() -> bool:
            shown = connection.certificate_sha256
            if connection.is_leaf:
                edges = leaf.joined_edges(self._folder)
                return (connection.user, shown) in {(each.name, each.certificate) for each in edges}
            if shown and self._listener.counts_sha256(shown, self._clock.now_us()) is None:
                return False
            return self._identity.actors.is_open(connection.user)

        return await asyncio.to_thread(look)


def reload(folder: DataFolder, address: BrokerAddress) -> None:
    """Let the broker of this folder take over what changed: certificates, tenants, edges.

    Raises:
        Transient: BUS-1014 when none runs here.
    """
    write_config(folder, address, **leaf.broker_options(folder))
    reload_broker(folder)


async def _care(
    folder: DataFolder,
    address: BrokerAddress,
    watch: ExpiryWatch,
    clock: Clock,
    stop: asyncio.Event,
) -> None:
    listener = Listener(folder)
    while not stop.is_set():
        try:
            if await asyncio.to_thread(listener.server_is_due, clock.now_us()):
                await asyncio.to_thread(listener.renew_server, clock.now_us())
                await asyncio.to_thread(reload, folder, address)
            watch.look(await asyncio.to_thread(certificates_of, folder), clock.now_us())
        except HeadraceError as error:
            _log.warning("%s", error)
        await _pause(stop, CARE_S)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
