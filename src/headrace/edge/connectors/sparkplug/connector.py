"""The Sparkplug B connector: the host session's bytes and clock, over one MQTT session."""

from __future__ import annotations

import asyncio
from typing import Final

from headrace.edge.connectors.mqtt.connector import Pending, Pump, proposed_path
from headrace.edge.connectors.mqtt.session import MqttSession, Will, session_settings
from headrace.edge.connectors.sparkplug.config import (
    BD_SEQ,
    NAMESPACE,
    REBIRTH,
    MetricAddress,
    SparkplugOptions,
    check_id,
    parse_address,
    state_topic,
)
from headrace.edge.connectors.sparkplug.node import EdgeNode, KnownMetric
from headrace.edge.connectors.sparkplug.payload import Value, type_name
from headrace.edge.connectors.sparkplug.session import HostSession
from headrace.edge.contract import BrowseItem, ConnectorContext, Reading, ScanGroup
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import HeadraceError, Refused, Transient
from headrace.model.time import US_PER_MS

_TICK_S: Final = 0.1
_QUIET_TICKS: Final = 3
_BROWSE_MAX: Final = 1_000
_ECHOES_MAX: Final = 64


class SparkplugConnector:
    """One session as a host application; made by ``SparkplugConnectorType.open``."""

    def __init__(
        self, connection: ConnectionConfig, options: SparkplugOptions, context: ConnectorContext
    ) -> None:
        self._name = connection.name
        self._options = options
        self._clock = context.clock
        host_id = options.host_id or f"{context.identity}-{connection.name}"
        check_id(host_id, f"connection {self._name!r}, option host_id,")
        self._pending = Pending()
        self._host = HostSession(
            host_id,
            self._pending,
            reorder_timeout_s=options.reorder_timeout_ms / 1_000,
            rebirth_interval_s=options.rebirth_interval_ms / 1_000,
        )
        self._host.on_watched = self._echo
        self._tags = connection.tags
        self._echoes: dict[MetricAddress, asyncio.Queue[Value]] = {}
        will = self._host.will(self._clock.now_us() // US_PER_MS)
        settings = session_settings(
            connection,
            options,
            context,
            clean_session=True,
            will=Will(will.topic, will.payload, will.qos, will.retain),
        )
        self._session = MqttSession(settings, context.clock)
        self._pump = Pump(self._pending, self._step)

    async def connect(self) -> None:
        await self._session.connect()
        filters = [state_topic(self._host.host_id)]
        groups = self._options.groups
        filters += [f"{NAMESPACE}/{group}/#" for group in groups] or [f"{NAMESPACE}/#"]
        await self._session.subscribe([(each, 1) for each in filters])
        self._host.subscribed()
        self._declare(self._options.startup_rebirth_ms / 1_000)
        await self._flush()
        self._pump.start()

    async def close(self) -> None:
        await self._pump.stop()
        if self._session.is_connected:
            death = self._host.goodbye(self._clock.now_us() // US_PER_MS)
            try:
                async with asyncio.timeout(1.0):
                    await self._session.publish(
                        death.topic, death.payload, qos=death.qos, retain=death.retain
                    )
            except (HeadraceError, TimeoutError):  # then the will says it
                self._session.abort()
        await self._session.close()

    def _declare(self, grace_s: float) -> None:
        tags = [
            (
                parse_address(tag.address, f"tag {tag.path!r}"),
                tag.tag_id,
                tag.sample_interval_us,
            )
            for tag in self._tags
        ]
        self._host.declare(tags, self._clock.monotonic_s(), grace_s)

    # -- reading ------------------------------------------------------------------------------

    async def read(self, group: ScanGroup) -> Reading:
        if group.tags is not self._tags and group.tags != self._tags:
            self._pending.redeclare(self._tags, group.tags)
            self._tags = group.tags
            self._declare(0.0)
            await self._flush()
        await self._pump.wait()
        return self._pending.take(self._session.acknowledge)

    async def _step(self) -> None:
        host, clock = self._host, self._clock
        messages = await self._session.receive(_TICK_S)
        now_s = clock.monotonic_s()
        for message in messages:
            host.receive(message.topic, message.payload, message.received_us, now_s)
            if message.qos:
                self._pending.mids.append(message.mid)
        host.tick(clock.now_us(), now_s)
        if host.outbox:
            await self._flush()

    async def _flush(self) -> None:
        outbox = self._host.outbox
        while outbox:
            message = outbox.pop(0)
            if message.qos:
                self._session.publish_soon(
                    message.topic, message.payload, qos=message.qos, retain=message.retain
                )
            else:
                await self._session.publish(message.topic, message.payload, retain=message.retain)

    # -- writing ------------------------------------------------------------------------------

    async def write(self, tag: TagConfig, value: float | str) -> float | str:
        self._pump.check()
        address = parse_address(tag.address, f"tag {tag.path!r}")
        await self._until_born(address)
        command = self._host.command(address, value, self._clock.now_us() // US_PER_MS)
        if address in self._echoes:
            raise Refused(
                "EDGE-4213",
                f"another write to {tag.path!r} waits for its echo",
                "Write again when it is done.",
            )
        echoes: asyncio.Queue[Value] = asyncio.Queue(_ECHOES_MAX)
        self._echoes[address] = echoes
        self._host.watch(address, True)
        try:
            await self._session.publish(command.topic, command.payload)
            return await self._read_back(tag, value, echoes)
        finally:
            self._host.watch(address, False)
            del self._echoes[address]

    async def _until_born(self, address: MetricAddress) -> None:
        """Give the births that we asked for at the start their time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.write_timeout_s
        while self._host.metric(address) is None and loop.time() < deadline:
            await asyncio.sleep(_TICK_S)
            self._pump.check()

    async def _read_back(
        self, tag: TagConfig, value: float | str, echoes: asyncio.Queue[Value]
    ) -> float | str:
        last: float | str | None = None
        try:
            async with asyncio.timeout(self._options.write_timeout_s):
                while True:
                    echo = await echoes.get()
                    if echo.text is not None:
                        last = echo.text
                    elif echo.number is not None:
                        last = float(echo.number)
                    if last == value:
                        return value
        except TimeoutError as error:
            if last is not None:
                return last
            raise Transient(
                "EDGE-4214",
                f"{tag.path!r} was commanded to {value!r}, but the edge node did not echo it within "
                f"{self._options.write_timeout_s:g} s; whether it was written is unknown",
                "Look at the device, and read the tag again.",
            ) from error

    def _echo(self, address: MetricAddress, value: Value) -> None:
        echoes = self._echoes.get(address)
        if echoes is not None and not echoes.full():
            echoes.put_nowait(value)

    # -- browsing -----------------------------------------------------------------------------

    async def browse(self, address: str) -> list[BrowseItem]:
        self._pump.check()
        await self._listen()
        parts = address.split("/") if address else []
        if not parts:
            groups = sorted({node.group_id for node in self._host.nodes.values()})
            return [BrowseItem(address=each, name=each, folder=True) for each in groups]
        nodes = [n for n in self._host.nodes.values() if n.group_id == parts[0]]
        if len(parts) == 1:
            return [BrowseItem(address=n.title, name=n.edge_node_id, folder=True) for n in nodes][
                :_BROWSE_MAX
            ]
        items: list[BrowseItem] = []
        for node in nodes:
            if node.edge_node_id == parts[1]:
                items += _below(node, parts[2] if len(parts) > 2 else "")
        return items[:_BROWSE_MAX]

    async def _listen(self) -> None:
        """Wait until the nodes that we heard of are born and no more births come, but not for ever."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.browse_listen_s
        known, quiet = -1, 0
        while loop.time() < deadline and quiet < _QUIET_TICKS:
            await asyncio.sleep(_TICK_S)
            self._pump.check()
            nodes = self._host.nodes.values()
            born = bool(nodes) and all(n.online and not n.rebirth_due for n in nodes)
            now = sum(len(metrics) for node in nodes for metrics in node.metrics.values())
            quiet = quiet + 1 if born and now == known else 0
            known = now


def _below(node: EdgeNode, device_id: str) -> list[BrowseItem]:
    items: list[BrowseItem] = []
    if not device_id:
        items += [
            BrowseItem(address=f"{node.title}/{each}", name=each, folder=True)
            for each in sorted(node.metrics)
            if each
        ]
    where = f"{node.title}/{device_id}" if device_id else node.title
    for name, metric in sorted(node.metrics.get(device_id, {}).items()):
        if name not in (BD_SEQ, REBIRTH):
            items.append(_item(where, device_id or node.edge_node_id, metric))
    return items


def _item(where: str, owner: str, metric: KnownMetric) -> BrowseItem:
    return BrowseItem(
        address=f"{where}#{metric.name}",
        name=metric.name,
        data_type=type_name(metric.datatype),
        value=metric.shown,
        unit=metric.unit,
        proposed_path=proposed_path(f"{owner}/{metric.name}"),
        writable=True,
    )
