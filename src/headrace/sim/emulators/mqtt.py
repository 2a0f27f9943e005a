"""A device that publishes JSON objects over MQTT: one message a topic and change, QoS 1 by default.

It keeps what the broker did not acknowledge and sends it again after a reconnect, as a good device
does. A point that is Bad is absent from its object (JSON has no quality of its own).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from headrace.edge.connectors.mqtt.config import (
    Endpoint,
    parse_address,
    parse_endpoint,
    parse_time_field,
)
from headrace.edge.connectors.mqtt.payload import ABSENT, resolve
from headrace.edge.connectors.mqtt.session import (
    Message,
    MqttSession,
    MqttSettings,
    safe_client_id,
)
from headrace.model import status as codes
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Misconfigured, Transient
from headrace.model.time import Clock, SystemClock, to_datetime
from headrace.sim.emulators import Point, Value, WriteHandler
from headrace.sim.emulators.mqtt_link import BrokerLink, tls_settings

OUTBOX_MAX: Final = 10_000
_DEFAULT_TIMESTAMP: Final = "/ts@us"


class MqttJsonEmulator:
    """One device; see :class:`headrace.sim.emulators.Emulator`.

    Args:
        points: addresses ``<topic>#<pointer>``.
        endpoint: the broker's URL, ``mqtt://host:port``.
        on_write: called with (address, value) for each accepted command.
        username, password: at the broker.
        qos: of what it publishes.
        timestamp: where it puts its time, as in the connector's option; "" leaves it out.
        write_topic_suffix: listens for commands on its topics with this suffix; "" has none.
        whole_object: publish all fields of a topic at each change; else only what changed.
        retain: the broker keeps each topic's last message for whoever subscribes later.
        client_id: unique at the broker; "" makes one from its first topic.
        connection_endpoint: what :attr:`endpoint` says, when it is not the URL (``broker``).
        tls_files: PEM files for ``mqtts://``: authority, and certificate and key where it asks for them.
    """

    def __init__(
        self,
        points: Sequence[Point],
        *,
        endpoint: str,
        on_write: WriteHandler | None = None,
        username: str = "",
        password: str = "",
        qos: Literal[0, 1] = 1,
        timestamp: str = _DEFAULT_TIMESTAMP,
        write_topic_suffix: str = "",
        whole_object: bool = True,
        retain: bool = False,
        client_id: str = "",
        connection_endpoint: str = "",
        tls_files: tuple[str, ...] = (),
        clock: Clock | None = None,
    ) -> None:
        self.endpoint = connection_endpoint or endpoint
        self.delay_s = 0.0
        self.clock_offset_us = 0
        self._broker: Endpoint = parse_endpoint(endpoint, "emulator")
        self._clock = clock or SystemClock()
        self._on_write = on_write
        self._username, self._password = username, password
        self._tls = tls_settings(tls_files)
        self._qos = qos
        self._retain = retain
        self._time = parse_time_field(timestamp, "emulator")
        self._suffix = write_topic_suffix
        self._whole = whole_object
        self._points = {point.address: point for point in points}
        self._values: dict[str, Any] = {point.address: point.initial for point in points}
        self._topics: dict[str, dict[str, tuple[str, ...]]] = {}
        for point in points:
            topic, pointer = parse_address(point.address, "emulator")
            self._topics.setdefault(topic, {})[point.address] = pointer
        self._client_id = client_id or safe_client_id(f"json-{min(self._topics)}")
        self._outbox: deque[tuple[str, bytes]] = deque()  # bounded by OUTBOX_MAX
        self._room = asyncio.Event()
        self._link = BrokerLink(
            self._settings,
            self._clock,
            on_connected=self._connected,
            on_message=self._command,
            on_lost=lambda: None,
        )

    def _settings(self) -> MqttSettings:
        return MqttSettings(
            name="emulator",
            endpoint=self._broker,
            client_id=self._client_id,
            username=self._username,
            password=self._password,
            **self._tls,
        )

    async def start(self) -> None:
        """Connect to the broker.

        Raises:
            Transient, Refused: the broker does not answer, or refuses the device.
        """
        await self._link.start()

    async def stop(self) -> None:
        """Vanish from the network."""
        await self._link.stop()

    def unacknowledged(self) -> int:
        """Messages that the broker has not acknowledged yet; a replay waits for them."""
        return len(self._outbox)

    async def update(
        self,
        values: Mapping[str, Value | Sequence[float]],
        source_timestamp_us: int,
        status: Mapping[str, int] | None = None,
    ) -> None:
        """Set points and publish their topics; waits while too much is unacknowledged.

        Raises:
            Misconfigured: SIM-4001 for an address that the device does not have.
        """
        unknown = values.keys() - self._points.keys()
        if unknown:
            raise Misconfigured(
                "SIM-4001", f"the emulator has no point {min(unknown)!r}", "Check the address."
            )
        if self.delay_s > 0:
            await asyncio.sleep(self.delay_s)
        self._values.update(values)
        bad = {each for each, code in (status or {}).items() if codes.is_bad(code)}
        topics = {parse_address(address, "emulator")[0] for address in values}
        for topic in sorted(topics):
            await self._publish(topic, source_timestamp_us, bad, values.keys())

    async def _publish(self, topic: str, at_us: int, bad: set[str], changed: Any) -> None:
        document: Any = {}
        for address, pointer in self._topics[topic].items():
            if address in bad or not (self._whole or address in changed):
                continue
            value = self._json_value(address)
            if not pointer:
                document = value
                break
            _insert(document, pointer, value)
        if self._time is not None and isinstance(document, dict):
            _insert(document, self._time.pointer, self._time_value(at_us + self.clock_offset_us))
        text = isinstance(document, str)
        await self._send(topic, document.encode() if text else msgspec.json.encode(document))

    def _json_value(self, address: str) -> Any:
        value, point = self._values[address], self._points[address]
        if isinstance(value, (list, tuple)) or hasattr(value, "tolist"):
            return list(value)
        if point.data_type == "bool":
            return bool(value)
        if point.data_type in ("float32", "float64"):
            return float(value)
        return value if point.data_type == "string" else int(value)

    def _time_value(self, at_us: int) -> Any:
        assert self._time is not None
        if self._time.unit_us == 0.0:
            return to_datetime(at_us).isoformat()
        if self._time.unit_us == 1e6:
            return at_us / 1e6
        return at_us // int(self._time.unit_us)

    async def _send(self, topic: str, payload: bytes) -> None:
        session = self._link.session
        if self._qos == 0:
            if session is not None and session.is_connected:
                try:
                    await session.publish(topic, payload, retain=self._retain)
                except Transient:  # QoS 0: what the broker did not get is gone
                    return
            return
        while len(self._outbox) >= OUTBOX_MAX:
            self._room.clear()
            await self._room.wait()
        entry = (topic, payload)
        self._outbox.append(entry)
        if session is not None and session.is_connected:
            self._hand_over(session, entry)

    def _hand_over(self, session: MqttSession, entry: tuple[str, bytes]) -> None:
        try:
            answer = session.publish_soon(entry[0], entry[1], qos=1, retain=self._retain)
        except Transient:  # it stays in the outbox for the next session
            return
        assert answer is not None
        answer.add_done_callback(lambda done: self._acknowledged(done, entry))

    def _acknowledged(self, answer: asyncio.Future[Any], entry: tuple[str, bytes]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            return
        if self._outbox and self._outbox[0] is entry:
            self._outbox.popleft()
        elif entry in self._outbox:
            self._outbox.remove(entry)
        self._room.set()

    async def _connected(self, session: MqttSession) -> None:
        if self._suffix:
            await session.subscribe([(topic + self._suffix, 1) for topic in self._topics])
        for entry in list(self._outbox):
            self._hand_over(session, entry)

    async def _command(self, _session: MqttSession, message: Message) -> None:
        topic = message.topic.removesuffix(self._suffix)
        try:
            document = msgspec.json.decode(message.payload)
        except UNREADABLE:
            document = message.payload.decode(errors="replace")
        accepted: dict[str, Value | Sequence[float]] = {}
        for address, pointer in self._topics.get(topic, {}).items():
            value = resolve(document, pointer)
            fits = isinstance(value, (bool, int, float, str)) and value is not ABSENT
            if fits and self._points[address].writable:
                accepted[address] = value
        for address, value in accepted.items():
            if self._on_write is not None and isinstance(value, (bool, int, float, str)):
                self._on_write(address, value)
        if accepted:
            await self.update(accepted, self._clock.now_us())


def _insert(document: dict[str, Any], pointer: tuple[str, ...], value: Any) -> None:
    for token in pointer[:-1]:
        document = document.setdefault(token, {})
    document[pointer[-1]] = value
