"""One MQTT 3.1.1 session on asyncio: bounded, acknowledged by hand, and never reconnecting itself.

The driver (paho-mqtt) lives in this file alone; its socket is served by the event loop, without a
thread. What waits is bounded: when :attr:`MqttSettings.queue_messages_max` messages wait, the socket
is no longer read, so that TCP holds the broker back. A message of QoS 1 is acknowledged to the broker
only by :meth:`MqttSession.acknowledge` (MQTT 3.1.1, 4.3.2): what was not comes again in the next
session with the same client id.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from headrace.edge.connectors.mqtt.config import (
    PLATFORM_BROKER,
    Endpoint,
    MqttSessionOptions,
    parse_endpoint,
)
from headrace.edge.contract import ConnectorContext
from headrace.model.desired import ConnectionConfig
from headrace.model.errors import HeadraceError, Misconfigured, Refused, Transient
from headrace.model.time import Clock

_PACKETS_A_TURN: Final = 200
_MISC_INTERVAL_S: Final = 0.5
_INFLIGHT_MAX: Final = 200
_ANSWER_TIMEOUT_S: Final = 10.0


class Message(NamedTuple):
    """One message as it arrived; ``mid`` is 0 for QoS 0."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    mid: int
    received_us: int


@dataclass(frozen=True)
class Will:
    """What the broker publishes for us when we vanish."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


@dataclass(frozen=True, kw_only=True)
class MqttSettings:
    """What a session needs; ``name`` is what errors call it."""

    name: str
    endpoint: Endpoint
    client_id: str
    username: str = ""
    password: str = ""
    clean_session: bool = True
    keep_alive_s: int = 15
    connect_timeout_s: float = 5.0
    queue_messages_max: int = 2_000
    tls_ca_file: str = ""
    tls_certificate_file: str = ""
    tls_key_file: str = ""
    will: Will | None = None


def session_settings(
    connection: ConnectionConfig,
    options: MqttSessionOptions,
    context: ConnectorContext,
    *,
    clean_session: bool,
    will: Will | None = None,
) -> MqttSettings:
    """Settings from a connection's configuration; resolves the endpoint ``broker`` and secrets.

    Raises:
        Misconfigured: EDGE-4001 when the endpoint is wrong, or ``broker`` and there is none.
    """
    endpoint, username, password = connection.endpoint, options.username, ""
    if endpoint == PLATFORM_BROKER:
        endpoint = context.mqtt_endpoint
        if not endpoint:
            raise Misconfigured(
                "EDGE-4001",
                f"connection {connection.name!r} uses the platform's broker, which has no listener",
                "Give the broker's address: mqtt://host:1883.",
            )
        if not username:
            username, password = context.mqtt_user, context.mqtt_password
        options = _with_files(options, context.mqtt_tls_files)
    if options.password:
        password = context.secret(options.password)
    return MqttSettings(
        name=connection.name,
        endpoint=parse_endpoint(endpoint, connection.name),
        client_id=options.client_id or safe_client_id(f"{context.identity}-{connection.name}"),
        username=username,
        password=password,
        clean_session=clean_session,
        keep_alive_s=options.keep_alive_s,
        connect_timeout_s=options.connect_timeout_s,
        queue_messages_max=options.queue_messages_max,
        tls_ca_file=options.tls_ca_file,
        tls_certificate_file=options.tls_certificate_file,
        tls_key_file=options.tls_key_file,
        will=will,
    )


def _with_files(options: MqttSessionOptions, files: tuple[str, ...]) -> MqttSessionOptions:
    """The platform's own files where the connection names none."""
    authority, certificate, key = (*files, "", "", "")[:3]
    return msgspec.structs.replace(
        options,
        tls_ca_file=options.tls_ca_file or authority,
        tls_certificate_file=options.tls_certificate_file or certificate,
        tls_key_file=options.tls_key_file or key,
    )


def safe_client_id(text: str) -> str:
    """A client id that every broker takes: NATS refuses dots, blanks, ``*`` and ``>``.

    Example:
        >>> safe_client_id("hall 1/node")
        'hall_1_node'
    """
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


class MqttSession:
    """One session; after it is lost, make a new one.

    Args:
        settings: see :class:`MqttSettings`.
        clock: stamps the arrival of messages.
    """

    def __init__(self, settings: MqttSettings, clock: Clock) -> None:
        self.settings = settings
        self._clock = clock
        self._queue: deque[Message] = deque()  # bounded by queue_messages_max
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._lost: HeadraceError | None = None
        self._answers: dict[tuple[str, int], asyncio.Future[Any]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: Any = None
        self._reading = False
        self._misc_timer: asyncio.TimerHandle | None = None
        self._client = self._make_client()

    @property
    def is_connected(self) -> bool:
        return self._socket is not None and self._lost is None

    @property
    def session_present(self) -> bool:
        """The broker still knew us when we connected."""
        return self._session_present

    def _make_client(self) -> paho.Client:
        settings = self.settings
        self._session_present = False
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=settings.clean_session,
            protocol=paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = settings.connect_timeout_s
        client.max_inflight_messages_set(_INFLIGHT_MAX)
        if settings.username:
            client.username_pw_set(settings.username, settings.password)
        if settings.will is not None:
            will = settings.will
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        if settings.endpoint.tls:
            client.tls_set_context(self._tls_context())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_publish = self._on_publish
        client.on_socket_close = self._on_socket_close
        return client

    def _tls_context(self) -> ssl.SSLContext:
        settings = self.settings
        try:
            context = ssl.create_default_context(cafile=settings.tls_ca_file or None)
            if settings.tls_certificate_file:
                context.load_cert_chain(
                    settings.tls_certificate_file, settings.tls_key_file or None
                )
        except OSError as error:  # ssl.SSLError is one
            raise Misconfigured(
                "EDGE-4004",
                f"connection {settings.name!r} cannot load its TLS files: {error}",
                "Check tls_ca_file, tls_certificate_file and tls_key_file: PEM files we may read.",
            ) from error
        return context

    # -- opening and closing ------------------------------------------------------------------

    async def connect(self) -> None:
        """Open TCP, TLS and the MQTT session.

        Raises:
            Transient: EDGE-4010 when the broker does not answer.
            Refused: EDGE-4011 when it refuses the user, EDGE-4012 when TLS fails, EDGE-4016 when it
                refuses for another reason.
        """
        settings, loop = self.settings, asyncio.get_running_loop()
        where = f"{settings.endpoint.host}:{settings.endpoint.port}"
        answered = self._answer("connect", 0)
        opening = loop.run_in_executor(None, self._open_socket)
        try:
            await asyncio.shield(opening)
            self._attach()
            async with asyncio.timeout(settings.connect_timeout_s):
                await answered
        except asyncio.CancelledError:
            opening.add_done_callback(lambda _: self.abort())
            raise
        except ssl.SSLError as error:
            self.abort()
            raise Refused(
                "EDGE-4012",
                f"TLS with {where} for connection {settings.name!r} failed: {error}",
                "Check tls_ca_file, the broker's certificate and that the port speaks TLS.",
            ) from error
        except (OSError, TimeoutError) as error:
            self.abort()
            raise Transient(
                "EDGE-4010",
                f"the MQTT broker {where} of connection {settings.name!r} does not answer: "
                f"{error or 'timeout'}",
                "Check address, port, network and whether the broker runs.",
            ) from error
        finally:
            answered.cancel()

    def _open_socket(self) -> None:
        endpoint = self.settings.endpoint
        self._client.connect(endpoint.host, endpoint.port, self.settings.keep_alive_s)

    def _attach(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = self._client.socket()
        if self._socket is None:
            raise OSError("closed at once")
        self._resume()
        self._watch_write()
        self._misc()

    def _resume(self) -> None:
        if not self._reading and self._socket is not None and self._lost is None:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._on_readable)
            self._reading = True

    def _pause(self) -> None:
        if self._reading:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._reading = False

    def _misc(self) -> None:
        if self._socket is not None:
            self._client.loop_misc()
            self._watch_write()
            loop = asyncio.get_running_loop()
            self._misc_timer = loop.call_later(_MISC_INTERVAL_S, self._misc)

    def _on_readable(self) -> None:
        """Serve up to some packets, so that other tasks get their turn under a flood."""
        for _ in range(_PACKETS_A_TURN):
            waiting = len(self._queue)
            self._client.loop_read()
            if self._socket is None:
                return
            if len(self._queue) >= self.settings.queue_messages_max:
                self._pause()
                break
            pending = getattr(self._socket, "pending", None)
            if len(self._queue) == waiting and not (pending is not None and pending()):
                break
        self._watch_write()

    def _watch_write(self) -> None:
        """After the driver wrote: serve what the kernel did not take at once."""
        if self._socket is None:
            self._writable.set()
        elif self._client.want_write():
            self._writable.clear()
            asyncio.get_running_loop().add_writer(self._socket.fileno(), self._on_writable)
        else:
            self._writable.set()

    def _on_writable(self) -> None:
        self._client.loop_write()
        if self._socket is not None and not self._client.want_write():
            asyncio.get_running_loop().remove_writer(self._socket.fileno())
            self._writable.set()

    def _on_socket_close(self, _client: Any, _userdata: Any, closing: Any) -> None:
        if self._socket is not None:
            self._detach(closing)

    def _detach(self, closing: Any) -> None:
        if self._loop is not None and not self._loop.is_closed() and closing.fileno() >= 0:
            self._loop.remove_reader(closing.fileno())
            self._loop.remove_writer(closing.fileno())
        self._reading = False
        self._socket = None
        self._writable.set()
        if self._misc_timer is not None:
            self._misc_timer.cancel()

    async def close(self) -> None:
        """Say goodbye (the broker forgets the will) and close; raises nothing."""
        if self.is_connected:
            self._client.disconnect()
            if self._client.want_write():
                self._watch_write()
                try:
                    async with asyncio.timeout(1.0):
                        await self._writable.wait()
                except TimeoutError:
                    pass
        self.abort()

    def abort(self) -> None:
        """Close the socket without a goodbye, as a power cut would; the broker publishes the will."""
        if self._lost is None:
            self._lose("closed by us")
        closing: Any = self._socket or self._client.socket()
        if self._socket is not None:
            self._detach(closing)
        if closing is not None and closing.fileno() >= 0:
            try:
                closing.shutdown(socket.SHUT_RDWR)
            except OSError:  # the other side was faster
                pass
            closing.close()

    # -- the driver's callbacks ---------------------------------------------------------------

    def _on_connect(self, _client: Any, _userdata: Any, flags: Any, reason: Any, _p: Any) -> None:
        waiting = self._answers.get(("connect", 0))
        if waiting is None or waiting.done():
            return
        if not reason.is_failure:
            self._session_present = bool(flags.session_present)
            waiting.set_result(None)
            return
        name, user = self.settings.name, self.settings.username
        if reason.value in (134, 135):  # bad user name or password; not authorized
            waiting.set_exception(
                Refused(
                    "EDGE-4011",
                    f"the broker of connection {name!r} refuses the user {user!r}: {reason}",
                    "Check username, password and the user's rights at the broker.",
                )
            )
        elif reason.value == 136:  # server unavailable
            waiting.set_exception(
                Transient("EDGE-4010", f"the broker of connection {name!r} is unavailable")
            )
        else:
            waiting.set_exception(
                Refused(
                    "EDGE-4016",
                    f"the broker of connection {name!r} refuses the session: {reason}",
                    "Check client_id and that the broker speaks MQTT 3.1.1.",
                )
            )

    def _on_disconnect(self, *arguments: Any) -> None:
        self._lose(str(arguments[3]))

    def _lose(self, reason: str) -> None:
        if self._lost is not None:
            return
        self._lost = Transient(
            "EDGE-4013", f"the broker of connection {self.settings.name!r} hung up: {reason}"
        )
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(self._lost)
                answer.exception()  # the one who waits sees it too; no one need be there
        self._arrived.set()
        self._writable.set()

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:  # MQTT 3.1.1, 1.5.3: such a packet is malformed
            if message.qos:
                self._client.ack(message.mid, message.qos)
            return
        self._queue.append(
            Message(
                topic,
                message.payload,
                message.qos,
                message.retain,
                message.mid,
                self._clock.now_us(),
            )
        )
        self._arrived.set()

    def _on_subscribe(self, _c: Any, _u: Any, mid: int, reasons: Any, _p: Any) -> None:
        self._resolve("subscribe", mid, reasons)

    def _on_unsubscribe(self, _c: Any, _u: Any, mid: int, reasons: Any, _p: Any) -> None:
        self._resolve("unsubscribe", mid, reasons)

    def _on_publish(self, _c: Any, _u: Any, mid: int, reason: Any, _p: Any) -> None:
        self._resolve("publish", mid, reason)

    # -- requests -----------------------------------------------------------------------------

    def _answer(self, kind: str, mid: int) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[kind, mid] = future
        future.add_done_callback(lambda _: self._answers.pop((kind, mid), None))
        return future

    def _resolve(self, kind: str, mid: int, result: Any) -> None:
        future = self._answers.get((kind, mid))
        if future is not None and not future.done():
            future.set_result(result)

    async def _wait(self, future: asyncio.Future[Any], what: str) -> Any:
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                return await future
        except TimeoutError as error:
            raise Transient(
                "EDGE-4015",
                f"the broker of connection {self.settings.name!r} does not confirm {what}",
            ) from error

    def _check(self, result: int) -> None:
        if self._lost is not None:
            raise self._lost
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise Transient(
                "EDGE-4015",
                f"connection {self.settings.name!r} cannot send: {paho.error_string(result)}",
            )

    async def subscribe(self, filters: Sequence[tuple[str, int]]) -> None:
        """Subscribe to (topic filter, QoS) pairs and wait for the broker's grant.

        Raises:
            Refused: EDGE-4014 when it does not grant one of them.
            Transient: EDGE-4013, EDGE-4015.
        """
        for start in range(0, len(filters), 100):
            part = list(filters[start : start + 100])
            if self._lost is not None:
                raise self._lost
            result, mid = self._client.subscribe(part)
            self._check(result)
            reasons = await self._wait(self._answer("subscribe", mid or 0), "a subscription")
            for (topic, _), reason in zip(part, reasons, strict=True):
                if reason.is_failure:
                    raise Refused(
                        "EDGE-4014",
                        f"the broker of connection {self.settings.name!r} does not grant {topic!r}",
                        f"Let the user {self.settings.username!r} subscribe to it at the broker.",
                    )

    async def unsubscribe(self, topics: Sequence[str]) -> None:
        """Unsubscribe; the broker's confirmation is awaited."""
        if topics:
            result, mid = self._client.unsubscribe(list(topics))
            self._check(result)
            await self._wait(self._answer("unsubscribe", mid or 0), "the end of a subscription")

    def publish_soon(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False
    ) -> asyncio.Future[Any] | None:
        """Hand a message to the driver; for QoS 1 gives what is done when the broker has it."""
        if self._lost is not None:
            raise self._lost
        message = self._client.publish(topic, payload, qos, retain)
        self._check(message.rc)
        self._watch_write()
        return self._answer("publish", message.mid) if qos else None

    async def publish(
        self, topic: str, payload: bytes, *, qos: int = 0, retain: bool = False
    ) -> None:
        """Publish; QoS 0 returns when the kernel has it, QoS 1 when the broker acknowledged.

        Raises:
            Transient: EDGE-4013, EDGE-4015; whether it was published is unknown.
        """
        answer = self.publish_soon(topic, payload, qos=qos, retain=retain)
        if answer is not None:
            await self._wait(answer, f"a message on {topic!r}")
        else:
            await self.drain()

    async def drain(self) -> None:
        """Wait until the kernel took all we wrote."""
        if not self._writable.is_set():
            await self._writable.wait()
        if self._lost is not None:
            raise self._lost

    async def receive(self, timeout_s: float) -> list[Message]:
        """All messages that wait; waits for the first one, and gives none after the timeout.

        Raises:
            Transient: EDGE-4013 when the session is lost and nothing waits any more.
        """
        if not self._queue:
            if self._lost is not None:
                raise self._lost
            self._arrived.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._arrived.wait()
            except TimeoutError:
                return []
            if not self._queue and self._lost is not None:
                raise self._lost
        messages = list(self._queue)
        self._queue.clear()
        self._resume()
        return messages

    def acknowledge(self, mids: Sequence[int]) -> None:
        """Tell the broker that it may forget these messages of QoS 1; after a loss, do nothing."""
        for mid in mids:
            if not self.is_connected:
                return
            self._client.ack(mid, 1)
        self._watch_write()
