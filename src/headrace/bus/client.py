"""A connection to the bus for every role: streams, key-value desired state, requests, events.

nats-py lives in this room alone. All buffers are bounded; a publish that cannot be acknowledged
raises, and the caller decides what waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.kv import KeyValue

from headrace.bus import envelope, subjects
from headrace.bus.broker import BrokerAddress
from headrace.bus.rights import inbox
from headrace.model.errors import HeadraceError, Refused, Transient, error_from_dict
from headrace.model.health import Event

SAMPLES_BYTES_MAX: Final = 8 << 30
SAMPLES_AGE_MAX_S: Final = 7 * 86_400
SEALED_BYTES_MAX: Final = 1 << 30
EVENTS_MAX: Final = 100_000
LEDGER_BYTES_MAX: Final = 1 << 30
LEDGER_AGE_MAX_S: Final = 90 * 86_400
ORDERS_BYTES_MAX: Final = 256 << 20
ORDERS_AGE_MAX_S: Final = 400 * 86_400
WATCH_INTERVAL_S: Final = 0.5
PENDING_BYTES_MAX: Final = 8 << 20
REQUEST_BYTES_MAX: Final = 4 << 20
PACK_BYTES_MIN: Final = 256 << 10
PACKED_MARK: Final = b"\0zlib\0"
KEY_VALUE_OVERHEAD_BYTES: Final = 4_096
_NO_MAJORITY: Final = 10_008
"""JSClusterNotAvailErr; a full stream is a 503 as well, with another code."""


class Bus:
    """One role's connection to the broker.

    Use :func:`open_bus`. ``stream`` is JetStream, for rooms that need more than is here (the
    historian's writer).
    """

    def __init__(self, client: Client, stream: JetStreamContext, replicas: int = 1) -> None:
        self.client = client
        self.stream = stream
        self.replicas = replicas

    @property
    def reconnects(self) -> int:
        """How often the connection came back; what the broker holds may be another state then."""
        return int(self.client.stats["reconnects"])

    async def publish_frame(self, subject: str, body: bytes, headers: dict[str, str]) -> int:
        """Publish one batch and wait until the log has it on disk; gives its stream sequence.

        Raises:
            Transient: BUS-1020 when the broker is away or did not answer in 5 s; publish the same
                message again, with the same id, and it is stored once.
            Refused: BUS-1021 when the log is full; nothing was stored.
        """
        try:
            answer = await self.stream.publish(subject, body, timeout=5, headers=headers)
        except nats.js.errors.APIError as error:
            if error.err_code == _NO_MAJORITY:
                raise no_majority(subject) from error
            raise Refused(
                "BUS-1021",
                f"the log refused a batch on {subject}: {error.description}",
                "Free disk space; the log takes batches again by itself.",
            ) from error
        except (nats.errors.Error, TimeoutError, OSError) as error:
            if self.replicas > 1 and self.client.is_connected:
                raise no_majority(subject) from error
            raise Transient("BUS-1020", f"no acknowledgement for a batch on {subject}") from error
        return int(answer.seq)

    async def publish(self, subject: str, message: Any) -> None:
        """Publish a struct as JSON to whoever listens now; it is not stored, and dropped when the
        broker is away (health repeats each second)."""
        if self.client.is_connected:
            try:
                await self.client.publish(subject, msgspec.json.encode(message))
            except (nats.errors.Error, OSError) as error:
                raise Transient("BUS-1022", f"cannot publish on {subject}") from error

    async def publish_event(self, subject: str, event: Event) -> None:
        """Store an event.

        Raises:
            Transient: BUS-1023 when the broker is away.
        """
        try:
            await self.stream.publish(subject, msgspec.json.encode(event), timeout=5)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
            raise Transient("BUS-1023", f"no acknowledgement for an event on {subject}") from error

    async def publish_page(self, subject: str, page: Any) -> None:
        """Store a page of the loss ledger.

        Raises:
            Transient: BUS-1701 when the broker is away; tell it again.
        """
        try:
            await self.stream.publish(subject, msgspec.json.encode(page), timeout=5)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
            raise Transient("BUS-1701", f"no acknowledgement for a page on {subject}") from error

    async def subscribe(
        self, subject: str, handler: Callable[[Msg], Awaitable[None]], *, pending_max: int = 10_000
    ) -> Callable[[], Awaitable[None]]:
        """Call ``handler`` for each message that arrives from now on; gives the way to stop."""
        subscription = await self.client.subscribe(
            subject,
            cb=handler,
            pending_msgs_limit=pending_max,
            pending_bytes_limit=64 << 20,
        )
        return subscription.unsubscribe

    async def answer(
        self,
        subject: str,
        handler: Callable[[bytes], Awaitable[bytes]],
        *,
        when: Callable[[], bool] = lambda: True,
    ) -> Callable[[], Awaitable[None]]:
        """Answer requests on ``subject``; a HeadraceError goes to the caller as itself. Gives the way to stop.

        Args:
            when: while it is false another process answers.
        """

        async def reply(message: Msg) -> None:
            if not when():
                return
            try:
                body = await handler(message.data)
                await message.respond(b"+" + body)
            except HeadraceError as error:
                await message.respond(b"-" + msgspec.json.encode(error.as_dict()))

        subscription = await self.client.subscribe(subject, cb=reply, pending_msgs_limit=1_000)
        return subscription.unsubscribe

    async def request(self, subject: str, body: bytes = b"", *, timeout_s: float = 10.0) -> bytes:
        """Ask whoever answers on ``subject``.

        Raises:
            Transient: BUS-1024 when nobody answers in time.
            HeadraceError: what the other side raised, same code, text and remedy.
        """
        try:
            message = await self.client.request(subject, body, timeout=timeout_s)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise Transient(
                "BUS-1024",
                f"nobody answered on {subject}",
                "See whether that role runs: headrace status",
            ) from error
        if message.data[:1] == b"-":
            raise error_from_dict(msgspec.json.decode(message.data[1:]))
        return message.data[1:]

    async def key_value(self, bucket: str, *, history: int = 16) -> KeyValue:
        """The key-value bucket, made when it is not there."""
        try:
            return await self.stream.key_value(bucket)
        except nats.js.errors.NotFoundError:
            return await self.stream.create_key_value(
                bucket=bucket, history=history, replicas=self.replicas
            )

    async def get(self, bucket: str, key: str) -> bytes | None:
        """The value of a key, or None.

        Raises:
            Transient: BUS-1026 when the broker is away.
        """
        try:
            store = await self.key_value(bucket)
            entry = await store.get(key)
        except nats.js.errors.NotFoundError:
            return None
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
            raise Transient("BUS-1026", f"no answer for the key {key} of {bucket}") from error
        return _unpack(entry.value)

    async def put(self, bucket: str, key: str, value: bytes) -> None:
        """Set a key, durably. A long value travels compressed; ``get`` gives it back as it was.

        Raises:
            Transient: BUS-1027 when the broker is away.
            Refused: BUS-1028 when even compressed it is longer than the broker takes.
        """
        packed = self._packed(bucket, key, value)
        try:
            await (await self.key_value(bucket)).put(key, packed)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
            raise Transient("BUS-1027", f"the key {key} of {bucket} was not set") from error

    def _packed(self, bucket: str, key: str, value: bytes) -> bytes:
        packed = _pack(value)
        if len(packed) > self.client.max_payload - KEY_VALUE_OVERHEAD_BYTES:
            raise Refused(
                "BUS-1028",
                f"the value of {key} of {bucket} has {len(packed):,} bytes compressed, "
                f"the broker takes {self.client.max_payload:,}",
                "Spread the connections over more edges.",
            )
        return packed

    async def remove(self, bucket: str, key: str) -> None:
        """Take a key away, durably; one that is not there is no error.

        Raises:
            Transient: BUS-1027 when the broker is away.
        """
        try:
            await (await self.key_value(bucket)).delete(key)
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
            raise Transient("BUS-1027", f"the key {key} of {bucket} was not removed") from error

    async def entry(self, bucket: str, key: str) -> tuple[bytes, int] | None:
        """A key's value and revision, for :meth:`put_after`; None when it was never set.

        Raises:
            Transient: BUS-1027 when the broker is away.
        """
        try:
            found = await (await self.key_value(bucket)).get(key)
        except nats.js.errors.KeyNotFoundError:
            return None
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
            raise Transient("BUS-1027", f"the key {key} of {bucket} cannot be read now") from error
        return _unpack(found.value) or b"", int(found.revision or 0)

    async def put_after(self, bucket: str, key: str, value: bytes, revision: int) -> bool:
        """Set a key when nobody has since ``revision`` (0: it was never set); False when somebody has.

        Raises:
            Transient: BUS-1027 when the broker is away.
            Refused: BUS-1028 when it is longer than the broker takes.
        """
        packed = self._packed(bucket, key, value)
        try:
            await (await self.key_value(bucket)).update(key, packed, last=revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            return False
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
            raise Transient("BUS-1027", f"the key {key} of {bucket} was not set") from error
        return True

    async def watch(self, bucket: str, key: str) -> AsyncIterator[bytes]:
        """The value of a key now (when there is one) and after each change, for ever.

        Changes that come faster than they are taken may be skipped; the newest is never.
        """
        # Polled, not pushed: a push consumer does not survive every kind of broker restart, and two
        # requests a second are nothing.
        seen: bytes | None = None
        while True:
            try:
                value = await self.get(bucket, key)
            except (Transient, nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError):
                value = None  # away, or too busy to answer: the next turn asks again
            if value is not None and value != seen:
                seen = value
                yield value
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def last_resume_us(self, subject: str) -> int:
        """The source time to resume from, out of the newest batch of a subject that the log still
        has; 0 when it has none, or none that tells.

        Raises:
            Transient: BUS-1029 when the broker is away.
        """
        try:
            message = await self.stream.get_last_msg(subjects.SAMPLES_STREAM, subject)
        except nats.js.errors.NotFoundError:
            return 0
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
            raise Transient("BUS-1029", f"cannot read the last batch of {subject}") from error
        return envelope.number_of((message.headers or {}).get(envelope.HEADER_RESUME, "0"))

    async def close(self) -> None:
        """Send what is pending and close."""
        if self.client.is_connected:
            try:
                await asyncio.wait_for(self.client.drain(), 2)
                return
            except (nats.errors.Error, TimeoutError):
                pass
        with contextlib.suppress(OSError):  # a broker that went meanwhile needs no farewell
            await self.client.close()


def no_majority(name: str) -> Transient:
    """A broker answers, and the nodes that keep this stream do not."""
    return Transient(
        "BUS-1202",
        f"the cluster does not take {name}: too few of its nodes are together",
        "Start the nodes that are down; it goes on by itself when more than half are up.",
    )


def _pack(value: bytes) -> bytes:
    """A value as it is stored. The mark cannot begin a JSON text, which all values are."""
    return PACKED_MARK + zlib.compress(value, 1) if len(value) > PACK_BYTES_MIN else value


def _unpack(value: bytes | None) -> bytes | None:
    if value is None or not value.startswith(PACKED_MARK):
        return value
    return zlib.decompress(value[len(PACKED_MARK) :])


async def ensure_streams(bus: Bus, *, bytes_max: int = SAMPLES_BYTES_MAX) -> None:
    """Make the streams when they are not there; bring their bounds up to date when they are.

    SAMPLES refuses new batches when it is full instead of dropping old ones: what the edge was told is
    stored stays stored, and the edge says that it must wait.
    """
    configs = [
        StreamConfig(
            name=subjects.SAMPLES_STREAM,
            subjects=[subjects.ALL_BATCHES],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=bytes_max,
            duplicate_window=600,
            allow_direct=True,
            num_replicas=bus.replicas,
        ),
        StreamConfig(
            name=subjects.SEALED_STREAM,
            subjects=[subjects.ALL_SEALED],
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            max_bytes=SEALED_BYTES_MAX,
            duplicate_window=600,
            allow_direct=True,
            num_replicas=bus.replicas,
        ),
        StreamConfig(
            name=subjects.EVENTS_STREAM,
            subjects=[subjects.ALL_EVENTS],
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            max_msgs=EVENTS_MAX,
            max_bytes=256 << 20,
            allow_direct=True,
            num_replicas=bus.replicas,
        ),
        StreamConfig(
            name=subjects.LEDGER_STREAM,
            subjects=[subjects.ALL_LEDGER],
            storage=StorageType.FILE,
            discard=DiscardPolicy.OLD,
            max_bytes=LEDGER_BYTES_MAX,
            max_age=LEDGER_AGE_MAX_S,
            allow_direct=True,
            num_replicas=bus.replicas,
        ),
        StreamConfig(
            name=subjects.ORDERS_STREAM,
            subjects=[subjects.ALL_ORDERS],
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            discard_new_per_subject=True,
            max_msgs_per_subject=1,  # an id is sent once
            max_bytes=ORDERS_BYTES_MAX,
            max_age=ORDERS_AGE_MAX_S,
            allow_direct=True,
            num_replicas=bus.replicas,
        ),
    ]
    for config in configs:
        try:
            await bus.stream.add_stream(config)
        except nats.js.errors.BadRequestError:
            # What a hub takes from its edges, and shows of it, is set by bus/sourcing.py.
            known = (await bus.stream.stream_info(str(config.name))).config
            config.sources, config.republish = known.sources, known.republish
            await bus.stream.update_stream(config)


@asynccontextmanager
async def open_bus(
    address: BrokerAddress, name: str, *, wait_s: float = 30.0
) -> AsyncIterator[Bus]:
    """Connect a role to the broker; reconnects for ever, within a second, as long as it is open.

    Args:
        name: shown in the broker's own monitoring.
        wait_s: how long to wait for the broker at first.

    Raises:
        Transient: BUS-1025 when the broker does not answer within ``wait_s``.
    """
    client = Client()
    try:
        await asyncio.wait_for(_connect(client, address, name), wait_s)
    except TimeoutError as error:
        await client.close()
        raise Transient(
            "BUS-1025",
            f"the broker at {' and '.join(address.urls)} does not answer",
            "See whether headrace runs here, and logs/broker.log.",
        ) from error
    stream = client.jetstream(timeout=5, publish_async_max_pending=256)
    bus = Bus(client, stream, address.replicas)
    try:
        yield bus
    finally:
        await bus.close()


async def _connect(client: Client, address: BrokerAddress, name: str) -> None:
    tls = tls_context(address)
    while True:
        try:
            # Without a bound on attempts the client itself retries until it is cancelled.
            await client.connect(
                address.urls,
                tls=tls,
                user=address.platform_user,
                password=address.platform_password,
                name=name,
                inbox_prefix=_inbox_prefix(address),
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.25,  # type: ignore[arg-type] # it sleeps this many seconds
                ping_interval=5,
                max_outstanding_pings=2,
                pending_size=PENDING_BYTES_MAX,
                error_cb=_ignore_client_noise,
            )
            return
        except (nats.errors.Error, OSError):
            await asyncio.sleep(0.05)


def tls_context(address: BrokerAddress) -> ssl.SSLContext | None:
    """How to believe the broker; None where it has no TLS, on loopback."""
    if not address.authority_pem:
        return None
    return ssl.create_default_context(cadata=address.authority_pem)


def _inbox_prefix(address: BrokerAddress) -> str:
    """The owner hears every inbox; a role only its own."""
    user = address.platform_user
    return "_INBOX" if user == "platform" else inbox(user)


async def _ignore_client_noise(error: Exception) -> None:
    """Reconnects are the client's own business; every call of ours reports its own failure."""
    del error
