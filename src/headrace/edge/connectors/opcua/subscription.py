"""A subscription and its monitored items (OPC 10000-4, 5.13 and 5.14).

Our own publish loop instead of the driver's, for two reasons: notifications stay raw bytes until they
are columns, and a new Publish goes out only when somebody reads, so that a slow reader slows the
server's queue down instead of filling ours.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from asyncua import ua

from headrace.edge.connectors.opcua.address import Address, parse_address
from headrace.edge.connectors.opcua.decode import Publish, Undecodable, decode_publish
from headrace.edge.connectors.opcua.samples import TagTable, Target
from headrace.edge.connectors.opcua.session import DRIVER_ERRORS, Session, status_name
from headrace.model.desired import TagConfig
from headrace.model.errors import Transient
from headrace.model.tasks import end_tasks
from headrace.model.time import Clock

ITEMS_PER_CALL_MAX: Final = 1000
ASK_LIMIT_ABOVE: Final = 100
PUBLISHES: Final = 3
"""Publish requests that wait at the server, so that it can answer while one is on its way."""
NOTIFICATIONS_PER_PUBLISH_MAX: Final = 20_000
KEEP_ALIVE_MS: Final = 1000
QUIET_S_MAX: Final = 5.0
LIFETIME_MS: Final = 60_000
RETRY_S: Final = 30.0
"""Items that the server refused are tried again: a PLC may load its program later."""

_FILTER_REFUSED: Final = frozenset(
    {
        ua.StatusCodes.BadMonitoredItemFilterUnsupported,
        ua.StatusCodes.BadMonitoredItemFilterInvalid,
        ua.StatusCodes.BadFilterNotAllowed,
    }
)

ItemKey = tuple[object, ...]


@dataclass
class Failure:
    """A tag that the server does not give."""

    tag: TagConfig
    status: int
    why: str


@dataclass
class _Item:
    node_id: ua.NodeId | None
    targets: tuple[Target, ...]
    sampling_ms: int
    signature: tuple[object, ...]
    handle: int = -1
    monitored_id: int | None = None
    status: int = 0


@dataclass
class Resolved:
    """Tags with their node ids in this session."""

    targets: list[tuple[Target, ua.NodeId]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


async def resolve(session: Session, tags: tuple[TagConfig, ...]) -> Resolved:
    """Node ids of tags; asks the server only where the text leaves a question open.

    Namespace URIs need the namespace array; a suffix that may belong to a string identifier needs a
    look whether the whole text is a node; a field of a structure needs the structure's definition.
    """
    resolved = Resolved()
    addresses = [parse_address(tag.address) for tag in tags]
    wholes = await _whole_nodes(session, addresses)
    with_fields: list[ua.NodeId] = []
    for tag, address in zip(tags, addresses, strict=True):
        exact = wholes.get(address, address)
        node_id = await session.node_id(exact)
        if node_id is None:
            why = f"EDGE-2021 {tag.path}: the server has no namespace {exact.namespace_uri}"
            resolved.failures.append(Failure(tag, ua.StatusCodes.BadNodeIdUnknown, why))
            continue
        if exact.fields:
            with_fields.append(node_id)
        resolved.targets.append((Target(tag, exact), node_id))
    if with_fields:
        await _learn_structures(session, with_fields)
    return resolved


async def _whole_nodes(session: Session, addresses: list[Address]) -> dict[Address, Address]:
    candidates = [(a, await session.node_id(a.whole())) for a in addresses if a.is_ambiguous]
    asked = [(address, node_id) for address, node_id in candidates if node_id is not None]
    results = await session.read_attributes([(n, ua.AttributeIds.NodeClass) for _, n in asked])
    return {
        address: address.whole()
        for (address, _), result in zip(asked, results, strict=True)
        if result.StatusCode is None or result.StatusCode.is_good()
    }


async def _learn_structures(session: Session, nodes: list[ua.NodeId]) -> None:
    results = await session.read_attributes([(node, ua.AttributeIds.DataType) for node in nodes])
    for result in results:
        data_type = result.Value.Value if result.Value is not None else None
        # The driver knows those of the standard itself (namespace 0).
        if isinstance(data_type, ua.NodeId) and data_type.NamespaceIndex:
            await session.learn_structure(data_type)


class Subscription:
    """One subscription with all tags of a connection."""

    def __init__(self, session: Session, table: TagTable, clock: Clock) -> None:
        self._session = session
        self._table = table
        self._clock = clock
        self._items: dict[ItemKey, _Item] = {}
        self._id = 0
        self._publishing_interval_s = 0.0
        self._keep_alive_s = 0.0
        self._items_per_call = 0
        self._publishes: deque[asyncio.Task[bytes]] = deque(maxlen=PUBLISHES)
        self._publishes_max = PUBLISHES
        self._acknowledgements: list[ua.SubscriptionAcknowledgement] = []
        self._sequence_number: int | None = None
        self._quiet_s = 0.0
        self._retry_s = math.inf
        self.notices: list[tuple[str, str]] = []
        self._missing = 0

    def take_notices(self) -> list[tuple[str, str]]:
        """Notices since the last call."""
        notices, self.notices = self.notices, []
        return notices

    def take_missing(self) -> int:
        """Notification messages that never came, by their numbers; each is given once."""
        missing, self._missing = self._missing, 0
        return missing

    async def create(self) -> None:
        """Create the subscription at the server; it has no items yet."""
        options = self._session.options
        keep_alive = max(1, round(KEEP_ALIVE_MS / options.publishing_interval_ms))
        request = ua.CreateSubscriptionRequest()
        request.Parameters = ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=float(options.publishing_interval_ms),
            RequestedLifetimeCount=max(
                3 * keep_alive, round(LIFETIME_MS / options.publishing_interval_ms)
            ),
            RequestedMaxKeepAliveCount=keep_alive,
            MaxNotificationsPerPublish=NOTIFICATIONS_PER_PUBLISH_MAX,
            PublishingEnabled=True,
            Priority=0,
        )
        result = (await self._session.call(request, ua.CreateSubscriptionResponse)).Parameters
        self._id = result.SubscriptionId
        interval_s = result.RevisedPublishingInterval / 1000
        self._publishing_interval_s = interval_s
        self._keep_alive_s = max(interval_s * result.RevisedMaxKeepAliveCount, interval_s)

    def retry_is_due(self) -> bool:
        """True when refused items should be tried again (by :meth:`follow`)."""
        return self._clock.monotonic_s() >= self._retry_s

    async def follow(self, tags: tuple[TagConfig, ...]) -> list[Failure]:
        """Make the monitored items be exactly these tags; touches only what changed.

        Returns:
            Tags that the server newly refuses, with its exact StatusCode.
        """
        resolved = await resolve(self._session, tags)
        wanted = _group(resolved.targets)
        gone = [
            key
            for key, item in self._items.items()
            if key not in wanted or wanted[key].signature != item.signature
        ]
        await self._delete([self._items.pop(key) for key in gone])
        new = {
            key: item
            for key, item in wanted.items()
            if key not in self._items or self._items[key].monitored_id is None
        }
        known = {key: self._items[key].status for key in new if key in self._items}
        self._items.update(new)
        await self._create_items(list(new.values()))
        failures = resolved.failures
        for key, item in new.items():
            if item.monitored_id is None and known.get(key) != item.status:
                failures += _failures(item)
        refused = resolved.failures or any(i.monitored_id is None for i in self._items.values())
        self._retry_s = self._clock.monotonic_s() + RETRY_S if refused else math.inf
        return failures

    async def next(self, *, wait: bool = True) -> list[Publish]:
        """Wait for the next notifications; may be empty after a keep-alive.

        Args:
            wait: false takes only what has come already.

        Raises:
            Transient: EDGE-2002 the subscription ended, EDGE-2013 a notification was unreadable.
            DRIVER_ERRORS: the session is dead.
        """
        self._send_publishes()
        quiet_s = min(self._keep_alive_s + 0.5, QUIET_S_MAX)
        await asyncio.wait(
            self._publishes,
            timeout=quiet_s if wait else 0.0,
            return_when=asyncio.FIRST_COMPLETED,
        )
        done = [task for task in self._publishes if task.done()]
        if not done:
            if wait:
                await self._probe(quiet_s)
            return []
        self._quiet_s = 0.0
        published: list[Publish] = []
        for task in done:
            self._publishes.remove(task)
            publish = self._result(task)
            if publish is not None:
                published.append(publish)
        self._send_publishes()
        return published

    async def close(self) -> None:
        """Stop waiting for notifications; the session's end deletes the subscription."""
        await end_tasks(*self._publishes)

    def _send_publishes(self) -> None:
        while len(self._publishes) < self._publishes_max:
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements = self._acknowledgements
            self._acknowledgements = []
            self._publishes.append(asyncio.create_task(self._session.raw(request, 0)))

    def _result(self, task: asyncio.Task[bytes]) -> Publish | None:
        """The notification of an answered Publish; None when the server only gave one back."""
        try:
            return self._accept(task.result())
        except ua.UaStatusCodeError as error:
            if error.code == ua.StatusCodes.BadTooManyPublishRequests and self._publishes_max > 1:
                self._publishes_max -= 1
                return None
            if error.code == ua.StatusCodes.BadTimeout:
                return None
            raise

    def _accept(self, body: bytes) -> Publish:
        try:
            publish = decode_publish(body)
        except Undecodable as error:
            raise Transient(
                "EDGE-2013",
                f"{self._session.connection.name} sent a notification that cannot be read: {error}",
                "The session starts anew; if it stays, record the traffic and report it.",
            ) from error
        if publish.status_change is not None and publish.status_change >> 30:
            raise Transient(
                "EDGE-2002",
                f"{self._session.connection.name} ended the subscription "
                f"({status_name(publish.status_change)})",
                "The session starts anew.",
            )
        if publish.has_data:
            self._acknowledgements.append(
                ua.SubscriptionAcknowledgement(
                    SubscriptionId=publish.subscription_id, SequenceNumber=publish.sequence_number
                )
            )
            self._check_sequence(publish.sequence_number)
        return publish

    def _check_sequence(self, number: int) -> None:
        """Sequence numbers go up by one and from 2**32-1 to 1 (OPC 10000-4, 7.11)."""
        last, self._sequence_number = self._sequence_number, number
        if last is None:
            return
        expected = 1 if last == 2**32 - 1 else last + 1
        if number != expected:
            missing = (number - expected) % (2**32 - 1)
            # A number that went back is not four billion messages: one at least is not as it should be.
            self._missing += missing if missing < 2**31 else 1
            self.notices.append(
                ("EDGE-2019", f"{missing} notification messages are missing before {number}")
            )

    async def _probe(self, quiet_s: float) -> None:
        """Nothing came for a while: ask the server whether it is there at all.

        Silence is what we waited for, not what a clock says: our own process may have been stopped.
        """
        state = ua.NodeId(ua.ObjectIds.Server_ServerStatus_State)
        await self._session.read_attributes([(state, ua.AttributeIds.Value)])
        self._quiet_s += quiet_s
        if self._quiet_s > 3 * self._keep_alive_s + self._session.options.timeout_s:
            raise Transient(
                "EDGE-2002",
                f"{self._session.connection.name} answers but sent no notification and no "
                f"keep-alive for {self._quiet_s:.0f} s",
                "The session starts anew.",
            )

    async def _call_size(self, items: int) -> int:
        """Items a call: the server's own limit, asked for only when there are many."""
        if not self._items_per_call and items > ASK_LIMIT_ABOVE:
            limit = ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall
            result = await self._session.read_attributes(
                [(ua.NodeId(limit), ua.AttributeIds.Value)]
            )
            value = result[0].Value.Value if result[0].Value is not None else None
            asked = value if isinstance(value, int) and value > 0 else ITEMS_PER_CALL_MAX
            self._items_per_call = min(asked, ITEMS_PER_CALL_MAX)
        return self._items_per_call or ITEMS_PER_CALL_MAX

    async def _create_items(self, items: list[_Item]) -> None:
        size = await self._call_size(len(items))
        await self._create_with(items, size, with_filter=True)
        again = [i for i in items if i.monitored_id is None and i.status in _FILTER_REFUSED]
        if again:
            await self._create_with(again, size, with_filter=False)
            text = f"{len(again)} nodes report only changes of value, not of time"
            self.notices.append(("EDGE-2022", text))

    async def _create_with(self, items: list[_Item], size: int, *, with_filter: bool) -> None:
        for item in items:
            item.handle = self._table.add(item.targets)

        async def create(part: list[_Item]) -> list[ua.MonitoredItemCreateResult]:
            request = self._create_request(part, with_filter=with_filter)
            response = await self._session.call(request, ua.CreateMonitoredItemsResponse)
            return response.Results or []

        results = await self._session.in_batches("CreateMonitoredItems", items, create, size)
        for item, result in zip(items, results, strict=True):
            item.status = result.StatusCode.value
            item.monitored_id = result.MonitoredItemId if result.StatusCode.is_good() else None
            if item.monitored_id is None:
                self._table.remove(item.handle)
        self._check_revised(items, results)

    def _create_request(
        self, items: list[_Item], *, with_filter: bool
    ) -> ua.CreateMonitoredItemsRequest:
        trigger = ua.DataChangeFilter(Trigger=ua.DataChangeTrigger.StatusValueTimestamp)
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = self._id
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.ItemsToCreate = [
            ua.MonitoredItemCreateRequest(
                ItemToMonitor=ua.ReadValueId(
                    NodeId=item.node_id, AttributeId=ua.AttributeIds.Value
                ),
                MonitoringMode=ua.MonitoringMode.Reporting,
                RequestedParameters=ua.MonitoringParameters(
                    ClientHandle=item.handle,
                    SamplingInterval=float(item.sampling_ms),
                    Filter=trigger if with_filter else None,
                    QueueSize=self._session.options.queue_size,
                    DiscardOldest=True,
                ),
            )
            for item in items
        ]
        return request

    def _check_revised(
        self, items: list[_Item], results: list[ua.MonitoredItemCreateResult]
    ) -> None:
        """Tell what the server makes worse; a queue of one drops values without Overflow bit."""
        publishing_ms = self._publishing_interval_s * 1000
        short = slow = 0
        for item, result in zip(items, results, strict=True):
            if not result.StatusCode.is_good():
                continue
            sampling_ms = max(result.RevisedSamplingInterval, item.sampling_ms)
            short += result.RevisedQueueSize * sampling_ms < publishing_ms
            slow += result.RevisedSamplingInterval > 1.01 * max(item.sampling_ms, publishing_ms)
        if short:
            text = f"the server's queue of {short} nodes is too short for {publishing_ms:g} ms"
            self.notices.append(("EDGE-2023", f"{text} between publishes: values are dropped"))
        if slow:
            self.notices.append(("EDGE-2024", f"the server samples {slow} nodes slower than asked"))

    async def _delete(self, items: list[_Item]) -> None:
        for item in items:
            self._table.remove(item.handle)

        async def delete(part: list[int]) -> list[ua.StatusCode]:
            request = ua.DeleteMonitoredItemsRequest()
            request.Parameters.SubscriptionId = self._id
            request.Parameters.MonitoredItemIds = part
            response = await self._session.call(request, ua.DeleteMonitoredItemsResponse)
            return response.Results or []

        ids = [item.monitored_id for item in items if item.monitored_id is not None]
        await self._session.in_batches("DeleteMonitoredItems", ids, delete)


def _group(targets: list[tuple[Target, ua.NodeId]]) -> dict[ItemKey, _Item]:
    """Items of tags: one a plain tag, one a node and interval for all tags that take a part of it."""
    parts: dict[ItemKey, tuple[ua.NodeId, list[Target]]] = {}
    for target, node_id in targets:
        tag = target.tag
        key: ItemKey = (tag.tag_id,)
        if not target.is_plain:
            key = (node_id.NamespaceIndex, node_id.Identifier, tag.scan_interval_ms)
        parts.setdefault(key, (node_id, []))[1].append(target)
    return {
        key: _Item(
            node_id=node_id,
            targets=tuple(group),
            sampling_ms=group[0].tag.scan_interval_ms,
            signature=tuple(
                (t.tag.tag_id, t.address, t.tag.scan_interval_ms, t.tag.sample_interval_us)
                for t in group
            ),
        )
        for key, (node_id, group) in parts.items()
    }


def _failures(item: _Item) -> list[Failure]:
    return [
        Failure(
            target.tag,
            item.status,
            f"EDGE-2010 {target.tag.path} ({target.tag.address}): the server answered "
            f"{status_name(item.status)}",
        )
        for target in item.targets
    ]


__all__ = ["DRIVER_ERRORS", "Failure", "Resolved", "Subscription", "resolve"]
