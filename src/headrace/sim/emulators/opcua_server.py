"""The asyncua server that :mod:`headrace.sim.emulators.opcua` stands on, with a fast update path.

asyncua's own write costs about 80 us a value, most of it a deep copy per subscriber and a search for
what changed. An emulator knows that each of its updates is a change, never alters a DataValue that it
has handed over, and so puts it straight into the subscribers' queues. As the standard asks, a queue
that drops its oldest value says so with the Overflow bit (OPC 10000-4, 7.39.1), which asyncua omits.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from asyncua import Server, ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.address_space import AttributeValue, NodeData
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.history import HistoryStorageInterface
from asyncua.server.internal_server import InternalServer
from asyncua.server.internal_subscription import InternalSubscription
from asyncua.server.user_managers import UserManager

from headrace.sim.emulators.opcua_standard import load_packed_nodes

# The driver warns of what an emulator does on purpose: no encryption, sockets that are cut.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)

OVERFLOW: Final = 0x0480
HISTORY_PER_NODE_MAX: Final = 100_000
HISTORY_PAGE_MAX: Final = 10_000

_standard_nodes: Mapping[ua.NodeId, NodeData] = {}
"""The standard address space, once for all servers of this process."""


class Users(UserManager):  # type: ignore[misc] # asyncua is untyped
    """User names and passwords; without any, everybody may come in as anonymous."""

    def __init__(self, users: dict[str, str]) -> None:
        self._users = users

    def get_user(
        self,
        iserver: InternalServer,
        username: str | None = None,
        password: str | None = None,
        certificate: Any = None,
    ) -> User | None:
        """The user when name and password fit; None refuses the session."""
        if not self._users:
            return User(role=UserRole.User)
        if username is None or self._users.get(username) != password:
            return None
        return User(role=UserRole.User, name=username)


class _InternalServer(InternalServer):  # type: ignore[misc] # asyncua is untyped
    async def load_standard_address_space(self, shelf_file: Path | None = None) -> None:
        del shelf_file
        if not _standard_nodes:
            await build_standard_nodes()
        self.aspace._nodes = _Nodes()


class _Nodes(MutableMapping[ua.NodeId, NodeData]):
    """One server's nodes: its own, and the standard ones, each copied when it is first touched."""

    def __init__(self) -> None:
        self._own: dict[ua.NodeId, NodeData] = {}
        self._deleted: set[ua.NodeId] = set()

    def __getitem__(self, key: ua.NodeId) -> NodeData:
        node = self._own.get(key)
        if node is None:
            if key in self._deleted:
                raise KeyError(key)
            node = self._own[key] = _copy(_standard_nodes[key])
        return node

    def __setitem__(self, key: ua.NodeId, node: NodeData) -> None:
        self._own[key] = node

    def __delitem__(self, key: ua.NodeId) -> None:
        if key not in self:
            raise KeyError(key)
        self._own.pop(key, None)
        self._deleted.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self._own or (key in _standard_nodes and key not in self._deleted)

    def __iter__(self) -> Iterator[ua.NodeId]:
        yield from [key for key in _standard_nodes if key not in self._deleted]
        yield from [key for key in self._own if key not in _standard_nodes]

    def __len__(self) -> int:
        return sum(1 for _ in self)


async def build_standard_nodes() -> None:
    """Build the standard address space now, in a process of its own, which takes a few seconds.

    Raises:
        Terminal: SIM-1023 when that process fails.
    """
    global _standard_nodes
    if not _standard_nodes:
        _standard_nodes = await load_packed_nodes()


def _copy(node: NodeData) -> NodeData:
    """A node that can be written and linked without touching the other one; values are shared."""
    copied = NodeData(node.nodeid)
    copied.references = list(node.references)
    copied.call = node.call
    for attribute, held in node.attributes.items():
        fresh = AttributeValue(held.value)
        fresh.value_callback = held.value_callback
        copied.attributes[attribute] = fresh
    return copied


class _Protocol(OPCUAProtocol):  # type: ignore[misc] # asyncua is untyped
    """A connection whose answers may be slow."""

    delay: Callable[[], float] = staticmethod(lambda: 0.0)

    async def _process_one_msg(self, header: Any, buf: Any) -> bool:
        delay_s = self.delay()
        if delay_s > 0:
            await asyncio.sleep(delay_s)
        goes_on: bool = await super()._process_one_msg(header, buf)
        return goes_on


class _BinaryServer(BinaryServer):  # type: ignore[misc] # asyncua is untyped
    delay: Callable[[], float] = staticmethod(lambda: 0.0)

    def _make_protocol(self) -> OPCUAProtocol:
        protocol = _Protocol(
            iserver=self.iserver,
            policies=self._policies,
            clients=self.clients,
            closing_tasks=self.closing_tasks,
            limits=self.limits,
        )
        protocol.delay = self.delay
        return protocol


class EmulatorServer(Server):  # type: ignore[misc] # asyncua is untyped
    """asyncua's server with delay, quick start and hard stop."""

    def __init__(
        self, users: dict[str, str], delay: Callable[[], float], now: Callable[[], datetime]
    ) -> None:
        super().__init__(iserver=_InternalServer(user_manager=Users(users)))
        self._delay = delay
        self._now = now
        service = self.iserver.subscription_service
        service.create_subscription = self._telling_time(service.create_subscription)
        # Its clock task needs a second to stop; CurrentTime is answered by a callback instead.
        self.disable_clock()
        if users:
            self.set_identity_tokens([ua.UserNameIdentityToken])

    async def start(self) -> None:
        """Listen on the endpoint's host and port; port 0 takes a free one."""
        await self._setup_server_nodes()
        await self.iserver.start()
        host, port = self._get_bind_socket_info()
        self.bserver = _BinaryServer(self.iserver, host or "127.0.0.1", port or 0, self.limits)
        self.bserver.delay = self._delay
        self.bserver.set_policies(self._policies)
        await self.bserver.start()

    def _telling_time(self, create: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """Notifications tell the emulator's clock, which may be wrong, and not the machine's."""

        async def telling(
            params: Any, callback: Callable[..., Awaitable[None]], *rest: Any, **more: Any
        ) -> Any:
            async def publish(result: ua.PublishResult, *request: Any) -> None:
                result.NotificationMessage.PublishTime = self._now()
                await callback(result, *request)

            return await create(params, publish, *rest, **more)

        return telling

    async def abort(self) -> None:
        """Stop as a power cut does: sockets are reset, nobody is told."""
        for transport in list(self.iserver.asyncio_transports):
            transport.abort()
        await self.stop()


def publish_value(attribute: AttributeValue, value: ua.DataValue) -> None:
    """Set a Value attribute and queue it for every monitored item on it, in one step.

    Nothing is awaited, so several values change as one.
    """
    attribute.value = value
    attribute.value_callback = None
    for handle, callback in attribute.datachange_callbacks.items():
        service = getattr(callback, "__self__", None)
        if service is None or service.isub.data.RevisedPublishingInterval <= 0:
            continue
        item = service._monitored_items[service._monitored_datachange[handle]]
        old = item.mvalue.current_dvalue
        item.mvalue.old_dvalue, item.mvalue.current_dvalue = old, value
        if item.mode == ua.MonitoringMode.Disabled or not _is_change(old, value, item.filter):
            continue
        event = ua.MonitoredItemNotification(ClientHandle=item.client_handle, Value=value)
        _queue(service.isub, item.monitored_item_id, event, item.queue_size)


def _is_change(old: ua.DataValue | None, new: ua.DataValue, trigger: Any) -> bool:
    """The rule of the item's DataChangeTrigger (OPC 10000-4, 7.22.2)."""
    kind = getattr(trigger, "Trigger", ua.DataChangeTrigger.StatusValue)
    if old is None or old.StatusCode != new.StatusCode:
        return True
    if kind == ua.DataChangeTrigger.Status:
        return False
    timed = kind == ua.DataChangeTrigger.StatusValueTimestamp
    return bool((timed and old.SourceTimestamp != new.SourceTimestamp) or old.Value != new.Value)


def _queue(
    subscription: InternalSubscription,
    item_id: int | None,
    event: ua.MonitoredItemNotification,
    size: int,
) -> None:
    queues: dict[Any, list[ua.MonitoredItemNotification]] = subscription._triggered_datachanges
    queue = queues.setdefault(item_id, [])
    if size and len(queue) >= size:
        queue.pop(0)
        if queue and size > 1:
            oldest = queue[0].Value
            code = oldest.StatusCode.value if oldest.StatusCode is not None else 0
            marked = replace(oldest, StatusCode=ua.StatusCode(code | OVERFLOW))
            queue[0] = ua.MonitoredItemNotification(
                ClientHandle=queue[0].ClientHandle, Value=marked
            )
    queue.append(event)


def _live_subscriptions(server: Server) -> list[Any]:
    """Subscriptions whose client is connected; those of a client that died live on for a while."""
    processors = [client.processor for client in server.bserver.clients if client.processor]
    live = {each.session.session_id for each in processors if each.session is not None}
    subscriptions = server.iserver.subscription_service.subscriptions.values()
    return [each for each in subscriptions if each.session_id in live]


def pending_values(server: Server) -> int:
    """Values that wait in the queues of connected subscribers for their next publish."""
    queues = [sub._triggered_datachanges.values() for sub in _live_subscriptions(server)]
    return sum(len(queue) for each in queues for queue in each)


def unacknowledged(server: Server) -> int:
    """Notifications that connected subscribers were sent and have not acknowledged."""
    return sum(len(sub._not_acknowledged_results) for sub in _live_subscriptions(server))


def monitored_items(server: Server) -> int:
    """Monitored items in the subscriptions of connected clients."""
    return sum(len(sub.monitored_item_srv._monitored_items) for sub in _live_subscriptions(server))


class MemoryHistory(HistoryStorageInterface):  # type: ignore[misc] # asyncua is untyped
    """Raw history in memory, bounded a node; what HistoryRead answers from."""

    def __init__(self) -> None:
        super().__init__(HISTORY_PAGE_MAX)
        self._values: dict[ua.NodeId, deque[ua.DataValue]] = {}
        self.reads = 0

    def keep(self, node_id: ua.NodeId, value: ua.DataValue) -> None:
        """Remember a value; the oldest goes when the node has its 100,000."""
        self._values.setdefault(node_id, deque(maxlen=HISTORY_PER_NODE_MAX)).append(value)

    async def read_node_history(
        self,
        node_id: ua.NodeId,
        start: datetime | None,
        end: datetime | None,
        nb_values: int,
    ) -> tuple[list[ua.DataValue], datetime | None]:
        """Values from start to end, both included; and where to go on."""
        self.reads += 1
        values = [v for v in self._values.get(node_id, ()) if v.SourceTimestamp is not None]
        times = [v.SourceTimestamp for v in values]
        first = bisect_left(times, start) if start is not None else 0
        limit = nb_values or HISTORY_PAGE_MAX
        # A page never ends inside a group of equal times: the continuation point is a time.
        found: list[ua.DataValue] = []
        for i in range(first, len(values)):
            at = times[i]
            if end is not None and at > end:
                break
            if len(found) >= limit and at != times[i - 1]:
                return found, at
            found.append(values[i])
        return found, None

    async def init(self) -> None:
        """Nothing to prepare."""

    async def new_historized_node(
        self, node_id: ua.NodeId, period: timedelta | None, count: int = 0
    ) -> None:
        """Every node of the emulator is historized from its first update."""

    async def save_node_value(self, node_id: ua.NodeId, datavalue: ua.DataValue) -> None:
        """Called by asyncua's own recording, which the emulator does not use."""
        self.keep(node_id, datavalue)

    async def stop(self) -> None:
        """History outlives a restart of the server, as that of a real one does."""


def utc(at_us: int) -> datetime:
    """An aware datetime of UTC microseconds, by integer arithmetic."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
