"""The client library's side of the simulated bus: what :class:`headrace.bus.client.Bus` and
:class:`headrace.bus.log.LogReader` call, with the errors that nats-py raises.

Each process has one connection. It keeps the order of each direction, as TCP does; what was on its way when
it breaks is lost, and what is published meanwhile goes out when it is back.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from types import SimpleNamespace
from typing import Any, Final, cast

import nats.errors
import nats.js.errors

from headrace.bus.client import Bus
from headrace.model.time import to_datetime
from headrace.sim.world.broker import LogFull, SimBroker, Stored
from headrace.sim.world.loop import VirtualLoop
from headrace.sim.world.trace import Trace

PENDING_MAX: Final = 1_000
LATENCY_S: Final = (0.0002, 0.004)
RECONNECT_S: Final = (0.2, 0.6)
_PULL: Final = "$JS.API.CONSUMER.MSG.NEXT."


@dataclass(slots=True)
class SimMessage:
    """A delivered message, as nats-py shows it."""

    subject: str
    data: bytes
    headers: dict[str, str]
    sequence: int = 0
    at_us: int = 0

    @property
    def metadata(self) -> Any:
        """Where it lies in its stream."""
        timestamp: datetime = to_datetime(self.at_us)
        return SimpleNamespace(sequence=SimpleNamespace(stream=self.sequence), timestamp=timestamp)


class SimSubscription:
    """Messages of one inbox, in order; above ``limit`` the newest are dropped, as nats-py does."""

    def __init__(self, client: SimClient, subject: str, limit: int) -> None:
        self._client = client
        self._subject = subject
        self._limit = limit
        self._messages: deque[SimMessage] = deque()  # bounded by limit
        self._waiter: asyncio.Future[None] | None = None

    @property
    def pending_msgs(self) -> int:
        """How many are here."""
        return len(self._messages)

    def put(self, message: SimMessage) -> None:
        """One arrived."""
        if len(self._messages) < self._limit:
            self._messages.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next_msg(self, timeout: float) -> SimMessage:
        """The next one.

        Raises:
            nats.errors.TimeoutError: none came in time.
        """
        if not self._messages:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._waiter
            except TimeoutError as error:
                raise nats.errors.TimeoutError from error
            finally:
                self._waiter = None
        return self._messages.popleft()

    async def unsubscribe(self) -> None:
        """No more of them."""
        self._client.subscriptions.pop(self._subject, None)


class SimClient:
    """One process's connection.

    Attributes:
        lose_acks, double, lose_deliveries: how many of the next ones meet that fate.
        ack_delay_s: how much later acknowledgements come.
    """

    max_payload = 8 << 20

    def __init__(
        self, loop: VirtualLoop, broker: SimBroker, trace: Trace, name: str, noise: Random
    ) -> None:
        self.name = name
        self.stats = {"reconnects": 0}
        self.is_connected = broker.is_up
        self.subscriptions: dict[str, SimSubscription] = {}
        self.lose_acks = 0
        self.double = 0
        self.lose_deliveries = 0
        self.ack_delay_s = 0.0
        self._loop = loop
        self._broker = broker
        self._trace = trace
        self._noise = noise
        self._era = 0
        self._out_s = self._in_s = 0.0
        self._pending: deque[Callable[[], None]] = deque(maxlen=PENDING_MAX)
        self._inboxes = 0
        self.closed = False
        broker.on_down.append(self._disconnect)
        broker.on_up.append(self._plan_reconnect)
        if not broker.is_up:
            self._era += 1

    # -- the wire -----------------------------------------------------------------------------

    def stall(self, for_s: float) -> None:
        """Nothing gets through for a while; TCP brings it later, in order."""
        until_s = self._loop.time() + for_s
        self._out_s, self._in_s = max(self._out_s, until_s), max(self._in_s, until_s)

    def reset(self) -> None:
        """The connection breaks; what is on its way is lost."""
        if self.is_connected:
            self._trace.note(self.name, "connection reset")
            self._disconnect()
            self._plan_reconnect()

    def _disconnect(self) -> None:
        self._era += 1
        self.is_connected = False
        self._out_s = self._in_s = 0.0

    def _plan_reconnect(self) -> None:
        self._loop.run_outside(self._reconnect, self._noise.uniform(*RECONNECT_S))

    def _reconnect(self) -> None:
        if self.is_connected or not self._broker.is_up or self.closed:
            return
        self.is_connected = True
        self.stats["reconnects"] += 1
        self._trace.note(self.name, f"connected again, {len(self._pending)} to send")
        while self._pending:
            self.send(self._pending.popleft())

    def send(self, action: Callable[[], None]) -> None:
        """Let the broker do something when the message arrives there.

        Raises:
            nats.errors.OutboundBufferLimitError: away for too long.
        """
        if not self.is_connected:
            if len(self._pending) >= PENDING_MAX:
                raise nats.errors.OutboundBufferLimitError
            self._pending.append(action)
            return
        now_s = self._loop.time()
        self._out_s = max(now_s + self._noise.uniform(*LATENCY_S), self._out_s)
        self._after(action, self._out_s - now_s)

    def receive(self, action: Callable[[], None], delay_s: float = 0.0) -> None:
        """Let something arrive from the broker here."""
        now_s = self._loop.time()
        self._in_s = max(now_s + delay_s + self._noise.uniform(*LATENCY_S), self._in_s)
        self._after(action, self._in_s - now_s)

    def _after(self, action: Callable[[], None], delay_s: float) -> None:
        era = self._era

        def arrive() -> None:
            if era == self._era:
                action()

        self._loop.run_outside(arrive, delay_s)

    async def ask(
        self, action: Callable[[], Any], timeout_s: float, *, publishes: bool = False
    ) -> Any:
        """A request and its answer.

        Args:
            publishes: the answer is an acknowledgement, which may be lost or late.

        Raises:
            nats.errors.TimeoutError: no answer in time.
            nats.js.errors.Error: what ``action`` raised at the broker.
        """
        answer: asyncio.Future[Any] = self._loop.create_future()

        def settle(result: Any) -> None:
            if not answer.done():
                if isinstance(result, nats.errors.Error):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)

        def at_broker() -> None:
            result = _attempt(action)
            if publishes and self.lose_acks > 0:
                self.lose_acks -= 1
                self._trace.note(self.name, "an acknowledgement is lost")
                return
            self.receive(lambda: settle(result), self.ack_delay_s if publishes else 0.0)

        self.send(at_broker)
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError as error:
            raise nats.errors.TimeoutError from error

    # -- what is called by the bus --------------------------------------------------------------

    def new_inbox(self) -> str:
        """A name that nobody else has."""
        self._inboxes += 1
        return f"_INBOX.{self.name}-{self._inboxes}"

    async def subscribe(
        self, subject: str, pending_msgs_limit: int = 10_000, **other: Any
    ) -> SimSubscription:
        """An inbox."""
        del other
        self.subscriptions[subject] = SimSubscription(self, subject, pending_msgs_limit)
        return self.subscriptions[subject]

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """A pull of a consumer; other messages have no listener in this world."""
        if subject.startswith(_PULL):
            consumer = subject.rsplit(".", 1)[-1]
            request = json.loads(payload)

            def pull() -> None:
                self._broker.pull(
                    consumer,
                    request["batch"],
                    request["expires"] / 1e9,
                    lambda item: self._deliver(reply, item),
                )

            self.send(pull)

    def _deliver(self, inbox: str, item: Stored | str) -> None:
        if isinstance(item, str):
            code, _, description = item.partition(" ")
            status = {"Status": code, "Description": description}
            self.receive(lambda: self._arrive(inbox, SimMessage("", b"", status)))
            return
        if self.lose_deliveries > 0:
            self.lose_deliveries -= 1
            self._trace.note(self.name, f"delivery of {item.sequence} is lost")
            return
        message = SimMessage(item.subject, item.body, item.headers, item.sequence, item.at_us)
        self.receive(lambda: self._arrive(inbox, message))

    def _arrive(self, inbox: str, message: SimMessage) -> None:
        subscription = self.subscriptions.get(inbox)
        if subscription is not None:
            subscription.put(message)

    async def drain(self) -> None:
        """Close."""
        await self.close()

    async def close(self) -> None:
        """Close."""
        self.closed = True
        self._disconnect()


def _attempt(action: Callable[[], Any]) -> Any:
    """What the broker answers: a result, or an error of the client library."""
    try:
        return action()
    except LogFull:
        return nats.js.errors.APIError(code=503, description="maximum bytes exceeded")
    except nats.js.errors.Error as error:
        return error


class SimJetStream:
    """JetStream as the client library offers it."""

    def __init__(self, client: SimClient, broker: SimBroker, timeout_s: float = 5.0) -> None:
        self._client = client
        self._broker = broker
        self._timeout_s = timeout_s

    async def publish(
        self, subject: str, payload: bytes, timeout: float, headers: dict[str, str] | None = None
    ) -> Any:
        """Store a message; the answer has its sequence."""
        client, broker = self._client, self._broker

        def store() -> Any:
            if ".ledger.edge." in subject:
                broker.pages.append(payload)
                return SimpleNamespace(seq=len(broker.pages))
            if ".batch." not in subject:
                broker.events += 1
                return SimpleNamespace(seq=broker.events)
            sequence = broker.publish(subject, headers or {}, payload)
            if client.double > 0:
                client.double -= 1
                broker.publish(subject, headers or {}, payload)
            return SimpleNamespace(seq=sequence)

        return await client.ask(store, timeout, publishes=".batch." in subject)

    async def stream_info(self, name: str) -> Any:
        """State and bounds of SAMPLES."""
        del name

        def info() -> Any:
            stream = self._broker.samples
            return SimpleNamespace(
                created=to_datetime(stream.created_us),
                state=SimpleNamespace(
                    first_seq=stream.first_sequence,
                    last_seq=stream.last_sequence,
                    messages=len(stream.messages),
                    bytes=stream.bytes,
                ),
                config=SimpleNamespace(max_bytes=stream.bytes_max),
            )

        return await self._client.ask(info, self._timeout_s)

    async def get_msg(self, name: str, seq: int) -> Any:
        """One message's time."""
        del name

        def look() -> Any:
            message = self._broker.samples.messages.get(seq)
            if message is None:
                raise nats.js.errors.NotFoundError
            return SimpleNamespace(time=to_datetime(message.at_us), data=message.body)

        return await self._client.ask(look, self._timeout_s)

    async def get_last_msg(self, name: str, subject: str) -> Any:
        """The newest message of a subject."""
        del name

        def look() -> Any:
            message = self._broker.last_of(subject)
            if message is None:
                raise nats.js.errors.NotFoundError
            return SimpleNamespace(headers=message.headers, data=message.body)

        return await self._client.ask(look, self._timeout_s)

    async def purge_stream(self, name: str, seq: int) -> None:
        """Forget what is before ``seq``."""
        del name
        await self._client.ask(lambda: self._broker.purge(seq), self._timeout_s)

    async def add_consumer(self, name: str, config: Any) -> Any:
        """A pull consumer."""
        del name

        def add() -> Any:
            self._broker.add_consumer(config.name, config.opt_start_seq)
            return SimpleNamespace(name=config.name)

        return await self._client.ask(add, self._timeout_s)

    async def delete_consumer(self, name: str, consumer: str) -> None:
        """Forget a consumer."""
        del name
        await self._client.ask(lambda: self._broker.delete_consumer(consumer), self._timeout_s)

    async def key_value(self, bucket: str) -> Any:
        """A bucket that is there."""

        def look() -> None:
            if bucket not in self._broker.buckets:
                raise nats.js.errors.NotFoundError

        await self._client.ask(look, self._timeout_s)
        return SimBucket(self._client, self._broker, bucket, self._timeout_s)

    async def create_key_value(self, bucket: str, **settings: Any) -> Any:
        """A new bucket."""
        del settings
        await self._client.ask(
            lambda: self._broker.buckets.setdefault(bucket, {}) and None, self._timeout_s
        )
        return SimBucket(self._client, self._broker, bucket, self._timeout_s)


class SimBucket:
    """A key-value bucket."""

    def __init__(self, client: SimClient, broker: SimBroker, name: str, timeout_s: float) -> None:
        self._client = client
        self._broker = broker
        self._name = name
        self._timeout_s = timeout_s

    async def get(self, key: str) -> Any:
        """A key's value."""

        def look() -> Any:
            value = self._broker.buckets[self._name].get(key)
            if value is None:
                raise nats.js.errors.NotFoundError
            return SimpleNamespace(value=value)

        return await self._client.ask(look, self._timeout_s)

    async def put(self, key: str, value: bytes) -> None:
        """Set a key."""

        def store() -> None:
            self._broker.buckets[self._name][key] = value

        await self._client.ask(store, self._timeout_s)


def open_sim_bus(
    loop: VirtualLoop, broker: SimBroker, trace: Trace, name: str, noise: Random
) -> tuple[Bus, SimClient]:
    """The real bus client on a simulated connection."""
    client = SimClient(loop, broker, trace, name, noise)
    return Bus(cast(Any, client), cast(Any, SimJetStream(client, broker))), client
