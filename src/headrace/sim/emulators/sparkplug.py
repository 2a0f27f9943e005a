"""A Sparkplug B 3.0 edge node: births, data, deaths, commands, and a rolling history.

Sparkplug sends data at QoS 0, so what is on its way when a host or a broker dies is gone. With
``history_s`` this edge node keeps what it sent and, once its host is back, sends again everything from
``history_s`` before the death on, in order and flagged ``is_historical``. With a primary host
(``primary_host_id``) it publishes only while that host says that it is online (5.4), and holds its
data meanwhile. What it holds is bounded; :attr:`SparkplugEmulator.dropped` counts what was too much.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from headrace.edge.connectors.mqtt.config import parse_endpoint
from headrace.edge.connectors.mqtt.session import (
    Message,
    MqttSession,
    MqttSettings,
    Will,
    safe_client_id,
)
from headrace.edge.connectors.sparkplug.config import (
    BD_SEQ,
    REBIRTH,
    parse_address,
    state_topic,
    topic,
)
from headrace.edge.connectors.sparkplug.payload import (
    decode_value,
    set_array,
    set_quality,
    set_unit,
    set_value,
)
from headrace.edge.connectors.sparkplug.schema import DataType, Payload
from headrace.model import status as codes
from headrace.model.errors import Misconfigured, Transient
from headrace.model.time import Clock, SystemClock
from headrace.sim.emulators import Point, Value, WriteHandler
from headrace.sim.emulators.mqtt_link import BrokerLink, tls_settings

HELD_SAMPLES_MAX: Final = 1_000_000
_DOUBT_GRACE_S: Final = 120.0
_HISTORY_METRICS_A_MESSAGE: Final = 500
_SEQ_COUNT: Final = 256
_TYPES: Final = {
    "bool": DataType.BOOLEAN,
    "int16": DataType.INT16,
    "uint16": DataType.UINT16,
    "int32": DataType.INT32,
    "uint32": DataType.UINT32,
    "int64": DataType.INT64,
    "uint64": DataType.UINT64,
    "float32": DataType.FLOAT,
    "float64": DataType.DOUBLE,
    "string": DataType.STRING,
}
_ARRAYS: Final = {
    "int16": DataType.INT16ARRAY,
    "uint16": DataType.UINT16ARRAY,
    "int32": DataType.INT32ARRAY,
    "uint32": DataType.UINT32ARRAY,
    "int64": DataType.INT64ARRAY,
    "uint64": DataType.UINT64ARRAY,
    "float32": DataType.FLOATARRAY,
    "float64": DataType.DOUBLEARRAY,
}


@dataclass(slots=True)
class _Metric:
    """One metric of the edge node; ``value`` None is not known yet."""

    address: str
    device_id: str
    name: str
    datatype: int
    alias: int
    unit: str
    writable: bool
    value: Any
    at_us: int
    status: int = 0


@dataclass(slots=True)
class _Change:
    """What one update changed in one device; ``sent_s`` is None while it is held."""

    device_id: str
    at_us: int
    values: tuple[tuple[_Metric, Any, int], ...]
    sent_s: float | None = None


class SparkplugEmulator:
    """One edge node; see :class:`headrace.sim.emulators.Emulator`.

    Args:
        points: addresses ``<group_id>/<edge_node_id>[/<device_id>]#<metric>``, all of one edge node.
        endpoint: the broker's URL, ``mqtt://host:port``.
        on_write: called with (address, value) for each accepted command.
        username, password: at the broker.
        primary_host_id: Sparkplug Host ID to follow; "" follows none.
        history_s: how far back before a loss it sends again.
        birth: ``start`` is born with the points' initial values when it starts; ``first_update`` is
            born with its first update, and each device with its own first one, so that nothing is
            ever published that no update set.
        connection_endpoint: what :attr:`endpoint` says, when it is not the URL (``broker``).
        tls_files: PEM files for ``mqtts://``: authority, and certificate and key where it asks for them.

    Raises:
        Misconfigured: SIM-4002 when the points are not of one edge node.
    """

    def __init__(
        self,
        points: Sequence[Point],
        *,
        endpoint: str,
        on_write: WriteHandler | None = None,
        username: str = "",
        password: str = "",
        primary_host_id: str = "",
        history_s: float = 0.0,
        birth: Literal["start", "first_update"] = "start",
        connection_endpoint: str = "",
        tls_files: tuple[str, ...] = (),
        clock: Clock | None = None,
    ) -> None:
        self.endpoint = connection_endpoint or endpoint
        self.delay_s = 0.0
        self.clock_offset_us = 0
        self.dropped = 0
        self._broker = parse_endpoint(endpoint, "emulator")
        self._clock = clock or SystemClock()
        self._on_write = on_write
        self._username, self._password = username, password
        self._tls = tls_settings(tls_files)
        self._primary_host_id = primary_host_id
        self._history_s = history_s
        self._lazy = birth == "first_update"
        self._metrics = {m.address: m for m in _metrics(points, self._lazy, self._clock.now_us())}
        self._devices: dict[str, list[_Metric]] = {"": []}
        for metric in self._metrics.values():
            self._devices.setdefault(metric.device_id, []).append(metric)
        first = parse_address(next(iter(self._metrics)), "emulator")
        self.group_id, self.edge_node_id = first.group_id, first.edge_node_id
        self._by_alias = {metric.alias: metric for metric in self._metrics.values()}
        self._offline_devices: set[str] = set()
        self._reset()
        self._link = BrokerLink(
            self._settings,
            self._clock,
            on_connected=self._connected,
            on_message=self._message,
            on_lost=self._lost,
        )

    def _reset(self) -> None:
        self._bd_seq = -1
        self._seq = 0
        self._born: set[str] = set()
        self._log: deque[_Change] = deque()  # bounded by HELD_SAMPLES_MAX
        self._held_samples = 0
        self._doubt_s: float | None = None
        self._doubt_until_s = 0.0
        self._state_timestamp = -1
        self._host_online = not self._primary_host_id
        self._confirmed_timestamp = -1
        self._turn = asyncio.Lock()

    # -- life ---------------------------------------------------------------------------------

    def _settings(self) -> MqttSettings:
        """A new bdSeq for each CONNECT, in the will that goes with it (6.4.19)."""
        self._bd_seq = (self._bd_seq + 1) % _SEQ_COUNT
        return MqttSettings(
            name="emulator",
            endpoint=self._broker,
            client_id=safe_client_id(f"{self.group_id}-{self.edge_node_id}"),
            username=self._username,
            password=self._password,
            **self._tls,
            will=Will(self._topic("NDEATH"), self._ndeath(), qos=1, retain=False),
        )

    async def start(self) -> None:
        """Connect to the broker; born at once, or when host or first update are there.

        Raises:
            Transient, Refused: the broker does not answer, or refuses the device.
        """
        await self._link.start()

    async def stop(self) -> None:
        """Vanish from the network; the broker publishes the NDEATH."""
        await self._link.stop()
        self._lost()

    def _lost(self) -> None:
        self._born = set()
        self._host_online = not self._primary_host_id
        self._note_doubt()

    def _note_doubt(self) -> None:
        if self._doubt_s is None:
            self._doubt_s = self._clock.monotonic_s()

    async def _connected(self, session: MqttSession) -> None:
        commands = [(self._topic("NCMD"), 1)]
        if len(self._devices) > 1:
            commands.append((self._topic("DCMD", "+"), 1))
        if self._primary_host_id:
            commands.append((state_topic(self._primary_host_id), 1))
        await session.subscribe(commands)
        if not self._primary_host_id:
            async with self._turn:
                await self._begin(session)
                self._doubt_s = None

    async def _begin(self, session: MqttSession) -> None:
        """Births, then what is held and what may be lost, in order."""
        if self._lazy and not any(self._known(each) for each in self._devices):
            return
        await self._send_births(session)
        await self._send_history(session)

    def _known(self, device_id: str) -> bool:
        return any(metric.value is not None for metric in self._devices[device_id])

    async def set_device_online(self, device_id: str, online: bool) -> None:
        """Lose or find a device below the edge node: DDEATH or DBIRTH."""
        async with self._turn:
            session = self._link.session
            (self._offline_devices.discard if online else self._offline_devices.add)(device_id)
            if session is None or "" not in self._born:
                return
            if online and device_id not in self._born:
                await self._send_dbirth(session, device_id)
            elif not online and device_id in self._born:
                self._born.discard(device_id)
                await self._send(session, "DDEATH", device_id, self._payload())

    # -- what it says -------------------------------------------------------------------------

    def _topic(self, kind: str, device_id: str = "") -> str:
        return topic(kind, self.group_id, self.edge_node_id, device_id)

    def _now_ms(self) -> int:
        return (self._clock.now_us() + self.clock_offset_us) // 1_000

    def _payload(self) -> Any:
        return Payload(timestamp=self._now_ms())

    def _ndeath(self) -> bytes:
        payload = self._payload()
        payload.metrics.add(name=BD_SEQ, datatype=int(DataType.INT64), long_value=self._bd_seq)
        body: bytes = payload.SerializeToString()
        return body

    async def _send(self, session: MqttSession, kind: str, device_id: str, payload: Any) -> None:
        payload.seq = self._seq
        self._seq = (self._seq + 1) % _SEQ_COUNT
        await session.publish(self._topic(kind, device_id), payload.SerializeToString())

    async def _send_births(self, session: MqttSession) -> None:
        self._seq = 0
        payload = self._payload()
        at_ms = payload.timestamp
        payload.metrics.add(
            name=BD_SEQ, timestamp=at_ms, datatype=int(DataType.INT64), long_value=self._bd_seq
        )
        payload.metrics.add(
            name=REBIRTH, timestamp=at_ms, datatype=int(DataType.BOOLEAN), boolean_value=False
        )
        self._born = {""}
        self._fill_birth(payload, "")
        await self._send(session, "NBIRTH", "", payload)
        for device_id in self._devices:
            ready = device_id not in self._offline_devices
            if device_id and ready and (not self._lazy or self._known(device_id)):
                await self._send_dbirth(session, device_id)

    async def _send_dbirth(self, session: MqttSession, device_id: str) -> None:
        payload = self._payload()
        self._fill_birth(payload, device_id)
        self._born.add(device_id)
        await self._send(session, "DBIRTH", device_id, payload)

    def _fill_birth(self, payload: Any, device_id: str) -> None:
        metrics = sorted(self._devices[device_id], key=lambda metric: metric.at_us)
        for metric in metrics:  # in chronological order (5.16)
            entry = payload.metrics.add(
                name=metric.name, alias=metric.alias, datatype=metric.datatype
            )
            self._fill(entry, metric, metric.value, metric.at_us, metric.status)
            if metric.unit:
                set_unit(entry, metric.unit)

    def _fill(self, entry: Any, metric: _Metric, value: Any, at_us: int, status: int) -> None:
        entry.timestamp = (at_us + self.clock_offset_us) // 1_000
        if value is None:
            entry.is_null = True
        elif metric.datatype in _ARRAYS.values():
            set_array(entry, metric.datatype, value)
        else:
            set_value(entry, metric.datatype, value, f"point {metric.address!r}")
        if not codes.is_good(status):
            set_quality(entry, status)

    # -- data ---------------------------------------------------------------------------------

    async def update(
        self,
        values: Mapping[str, Value | Sequence[float]],
        source_timestamp_us: int,
        status: Mapping[str, int] | None = None,
    ) -> None:
        """Set points and publish them; Sparkplug's time has milliseconds, finer digits are cut.

        Raises:
            Misconfigured: SIM-4001 for an address that the edge node does not have, EDGE-4208 for a
                value that its type cannot hold.
        """
        unknown = values.keys() - self._metrics.keys()
        if unknown:
            raise Misconfigured(
                "SIM-4001", f"the emulator has no point {min(unknown)!r}", "Check the address."
            )
        if self.delay_s > 0:
            await asyncio.sleep(self.delay_s)
        async with self._turn:
            changes = self._changes(values, source_timestamp_us, status or {})
            for change in changes:
                self._check_change(change)
            for change in changes:
                for metric, value, code in change.values:
                    metric.value, metric.at_us, metric.status = value, change.at_us, code
                await self._publish(change)

    def _changes(
        self, values: Mapping[str, Any], at_us: int, status: Mapping[str, int]
    ) -> list[_Change]:
        by_device: dict[str, list[tuple[_Metric, Any, int]]] = {}
        for address, value in values.items():
            metric = self._metrics[address]
            entry = (metric, value, status.get(address, codes.GOOD))
            by_device.setdefault(metric.device_id, []).append(entry)
        return [_Change(each, at_us, tuple(entries)) for each, entries in by_device.items()]

    def _check_change(self, change: _Change) -> None:
        """Fail before anything is changed, not in the middle."""
        trial = Payload()
        for metric, value, code in change.values:
            self._fill(trial.metrics.add(), metric, value, change.at_us, code)

    async def _publish(self, change: _Change) -> None:
        session = self._link.session
        self._remember(change)
        if session is None or not self._host_online or not session.is_connected:
            return
        try:
            if "" not in self._born:
                change.sent_s = self._clock.monotonic_s()  # the births carry it
                await self._begin(session)
            elif change.device_id in self._born:
                await self._send_changes(session, [change], historical=False)
            elif change.device_id not in self._offline_devices:
                await self._send_dbirth(session, change.device_id)
                change.sent_s = self._clock.monotonic_s()
        except Transient:  # the link tells us that the session is lost; the change is held
            return

    async def _send_changes(
        self, session: MqttSession, changes: Sequence[_Change], *, historical: bool
    ) -> None:
        """One message with the changes of one device, in order."""
        payload = self._payload()
        for change in changes:
            for metric, value, code in change.values:
                entry = payload.metrics.add(alias=metric.alias)
                self._fill(entry, metric, value, change.at_us, code)
                if historical:
                    entry.is_historical = True
        device_id = changes[0].device_id
        await self._send(session, "DDATA" if device_id else "NDATA", device_id, payload)
        now_s = self._clock.monotonic_s()
        for change in changes:
            change.sent_s = now_s

    def _remember(self, change: _Change) -> None:
        now_s = self._clock.monotonic_s()
        if self._doubt_s is not None and self._host_online and now_s > self._doubt_until_s > 0:
            self._doubt_s, self._doubt_until_s = None, 0.0
        keep_s = (now_s if self._doubt_s is None else self._doubt_s) - self._history_s
        log = self._log
        while log and log[0].sent_s is not None and log[0].sent_s < keep_s:
            self._held_samples -= len(log.popleft().values)
        log.append(change)
        self._held_samples += len(change.values)
        while self._held_samples > HELD_SAMPLES_MAX:
            oldest = log.popleft()
            self._held_samples -= len(oldest.values)
            self.dropped += len(oldest.values) * (oldest.sent_s is None)

    async def _send_history(self, session: MqttSession) -> None:
        now_s = self._clock.monotonic_s()
        since_s = (now_s if self._doubt_s is None else self._doubt_s) - self._history_s
        again = [each for each in self._log if each.sent_s is None or each.sent_s >= since_s]
        for part in _runs(again):
            if part[0].device_id in self._born:
                await self._send_changes(session, part, historical=True)

    # -- what it hears ------------------------------------------------------------------------

    async def _message(self, session: MqttSession, message: Message) -> None:
        parts = message.topic.split("/")
        if parts[1] == "STATE":
            await self._host_state(session, message.payload)
            return
        if self.delay_s > 0:
            await asyncio.sleep(self.delay_s)
        payload = Payload.FromString(message.payload)
        device_id = parts[4] if len(parts) == 5 else ""
        accepted: dict[str, Value | Sequence[float]] = {}
        for entry in payload.metrics:
            if entry.name == REBIRTH and not device_id:
                if entry.boolean_value and "" in self._born:
                    async with self._turn:
                        await self._send_births(session)
                continue
            metric = self._commanded(entry, device_id)
            if metric is None or not metric.writable:
                continue
            value = decode_value(entry, metric.datatype)
            accepted_value = value.text if value.text is not None else value.number
            if accepted_value is not None:
                accepted[metric.address] = accepted_value
        for address, each in accepted.items():
            if self._on_write is not None and isinstance(each, (bool, int, float, str)):
                self._on_write(address, each)
        if accepted:
            await self.update(accepted, self._clock.now_us())

    def _commanded(self, entry: Any, device_id: str) -> _Metric | None:
        if entry.name:
            return next((m for m in self._devices.get(device_id, []) if m.name == entry.name), None)
        metric = self._by_alias.get(entry.alias)
        return metric if metric is not None and metric.device_id == device_id else None

    async def _host_state(self, session: MqttSession, payload: bytes) -> None:
        try:
            said = json.loads(payload)
            online, at = bool(said["online"]), int(said["timestamp"])
        except (ValueError, TypeError, KeyError):
            return
        if at < self._state_timestamp:
            return  # older than what we know (5.4)
        self._state_timestamp = at
        async with self._turn:
            if online:
                await self._host_is_online(session, at)
            elif self._host_online:
                await self._host_is_offline(session)

    async def _host_is_online(self, session: MqttSession, at: int) -> None:
        new_host_session = at != self._confirmed_timestamp
        if self._host_online and not new_host_session:
            return
        self._host_online = True
        await self._begin(session)
        if new_host_session:
            self._confirmed_timestamp = at
            self._doubt_s, self._doubt_until_s = None, 0.0
        elif self._doubt_s is not None:
            # Only our own link broke, or the broker restarted with an old retained STATE: the host
            # may still come back with a new one, and then needs the same history.
            self._doubt_until_s = self._clock.monotonic_s() + _DOUBT_GRACE_S

    async def _host_is_offline(self, session: MqttSession) -> None:
        """End this session properly and wait for the host in a new one (5.4)."""
        self._host_online = False
        self._note_doubt()
        if "" in self._born:
            self._born = set()
            await session.publish(self._topic("NDEATH"), self._ndeath(), qos=1)
        await session.close()


def _metrics(points: Sequence[Point], lazy: bool, now_us: int) -> list[_Metric]:
    metrics = []
    nodes = set()
    for alias, point in enumerate(points, start=1):
        where = parse_address(point.address, "emulator")
        nodes.add(where[:2])
        is_array = not isinstance(point.initial, (bool, int, float, str))
        initial: Any = point.initial
        if point.data_type == "string" and not isinstance(initial, str):
            initial = ""
        metrics.append(
            _Metric(
                address=point.address,
                device_id=where.device_id,
                name=where.metric,
                datatype=int((_ARRAYS if is_array else _TYPES)[point.data_type]),
                alias=alias,
                unit=point.unit,
                writable=point.writable,
                value=None if lazy else initial,
                at_us=now_us,
            )
        )
    if len(nodes) != 1:
        raise Misconfigured(
            "SIM-4002",
            f"a Sparkplug emulator is one edge node, and the points are of {len(nodes)}",
            "Make one emulator for each <group_id>/<edge_node_id>.",
        )
    return metrics


def _runs(changes: Iterable[_Change]) -> list[list[_Change]]:
    """Consecutive changes of one device, in messages of bounded size."""
    runs: list[list[_Change]] = []
    size = 0
    for change in changes:
        if (
            not runs
            or runs[-1][0].device_id != change.device_id
            or size >= _HISTORY_METRICS_A_MESSAGE
        ):
            runs.append([])
            size = 0
        runs[-1].append(change)
        size += len(change.values)
    return runs
