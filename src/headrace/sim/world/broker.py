"""A model of the broker: JetStream streams, key-value buckets and pull consumers, as far as we use them.

It stores before it acknowledges (``sync_interval: always``), drops a second copy of a message id within the
stream's window, refuses what is above the stream's bound, and can be killed, started and restored from an
older snapshot of itself. No network here; see :mod:`headrace.sim.world.link`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from headrace.bus.subjects import SAMPLES_STREAM
from headrace.model.time import US_PER_S
from headrace.sim.world.clock import MachineClock
from headrace.sim.world.loop import VirtualLoop
from headrace.sim.world.trace import Trace

DUPLICATE_WINDOW_US: Final = 600 * US_PER_S
IDLE_CONSUMER_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Stored:
    """One message of a stream."""

    sequence: int
    subject: str
    headers: dict[str, str]
    body: bytes
    at_us: int


@dataclass
class Stream:
    """What one stream holds. ``ids`` is the window in which a second copy is known."""

    name: str
    created_us: int
    first_sequence: int = 1
    last_sequence: int = 0
    bytes: int = 0
    bytes_max: int = 64 << 20
    messages: dict[int, Stored] = field(default_factory=dict)
    ids: dict[str, Stored] = field(default_factory=dict)

    def snapshot(self) -> Stream:
        """A copy that later changes do not touch."""
        copied = copy.copy(self)
        copied.messages, copied.ids = dict(self.messages), dict(self.ids)
        return copied


Deliver = Callable[[Stored | str], None]
"""Takes a message, or the text of a status that ends a pull."""


@dataclass
class Consumer:
    """A pull consumer without acknowledgements. ``wanted`` messages may still be delivered."""

    next_sequence: int
    deliver: Deliver | None = None
    wanted: int = 0
    pull: int = 0
    used_s: float = 0.0


class LogFull(Exception):
    """The stream takes no more."""


class SimBroker:
    """The broker's state; every call happens in one instant.

    Args:
        clock: of the broker's machine.
        accepted: told of every message of SAMPLES that is stored for the first time.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        clock: MachineClock,
        trace: Trace,
        accepted: Callable[[Stored], None],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._trace = trace
        self._accepted = accepted
        self.is_up = True
        self.refuses = False
        self.samples = Stream(SAMPLES_STREAM, clock.now_us())
        self.buckets: dict[str, dict[str, bytes]] = {}
        self.events = 0
        self.pages: list[bytes] = []
        self._consumers: dict[str, Consumer] = {}
        self._snapshot: Stream | None = None
        self.on_down: list[Callable[[], None]] = []
        self.on_up: list[Callable[[], None]] = []

    # -- life ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """Killed, or its machine lost power: connections and consumers in memory are gone."""
        if self.is_up:
            self.is_up = False
            self._consumers.clear()
            self._trace.note("broker", "down")
            for tell in self.on_down:
                tell()

    def start(self) -> None:
        """Up again, with all that it stored."""
        if not self.is_up:
            self.is_up = True
            self._trace.note("broker", f"up, log ends at {self.samples.last_sequence}")
            for tell in self.on_up:
                tell()

    def take_snapshot(self) -> None:
        """A backup of the store, for :meth:`restore`."""
        self._snapshot = self.samples.snapshot()
        self._trace.note("broker", f"snapshot at {self.samples.last_sequence}")

    def restore(self) -> list[Stored]:
        """Put the snapshot in the place of the store; gives the messages that are lost by it."""
        if self._snapshot is None:
            return []
        old = self.samples
        self.samples = self._snapshot.snapshot()
        gone = [
            message
            for sequence, message in old.messages.items()
            if self.samples.messages.get(sequence) != message
        ]
        self._trace.note("broker", f"restored to {self.samples.last_sequence}, {len(gone)} gone")
        return gone

    # -- streams ------------------------------------------------------------------------------

    def publish(self, subject: str, headers: dict[str, str], body: bytes) -> int:
        """Store a message of SAMPLES; gives its sequence, that of the first copy for a second one.

        Raises:
            LogFull: nothing was stored.
        """
        stream, now_us = self.samples, self._clock.now_us()
        message_id = headers.get("Nats-Msg-Id", "")
        known = stream.ids.get(message_id)
        if known is not None and abs(now_us - known.at_us) < DUPLICATE_WINDOW_US:
            self._trace.note("broker", f"copy of {known.sequence} {message_id}")
            return known.sequence
        if self.refuses or stream.bytes + len(body) > stream.bytes_max:
            self._trace.note("broker", f"full: {message_id}")
            raise LogFull
        stream.last_sequence += 1
        stored = Stored(stream.last_sequence, subject, headers, body, now_us)
        stream.messages[stored.sequence] = stored
        stream.bytes += len(body)
        if message_id:
            stream.ids[message_id] = stored
        self._trace.note("broker", f"stored {stored.sequence} {message_id} {len(body)}")
        self._accepted(stored)
        for name in list(self._consumers):
            self._feed(self._consumers[name])
        return stored.sequence

    def purge(self, below: int) -> None:
        """Remove the messages of SAMPLES before ``below``."""
        stream = self.samples
        for sequence in [each for each in stream.messages if each < below]:
            stream.bytes -= len(stream.messages.pop(sequence).body)
        stream.first_sequence = max(stream.first_sequence, min(below, stream.last_sequence + 1))
        self._trace.note("broker", f"purged below {below}")

    def last_of(self, subject: str) -> Stored | None:
        """The newest message on a subject that the log still has."""
        of_subject = [m for m in self.samples.messages.values() if m.subject == subject]
        return max(of_subject, key=lambda message: message.sequence, default=None)

    # -- consumers ----------------------------------------------------------------------------

    def add_consumer(self, name: str, start: int) -> None:
        """A pull consumer from a sequence on."""
        self._consumers[name] = Consumer(start, used_s=self._loop.time())

    def delete_consumer(self, name: str) -> None:
        """Forget it; a pull that waits ends with a status."""
        consumer = self._consumers.pop(name, None)
        if consumer is not None and consumer.wanted and consumer.deliver is not None:
            consumer.deliver("409 Consumer Deleted")

    def pull(self, name: str, batch: int, expires_s: float, deliver: Deliver) -> None:
        """Deliver up to ``batch`` messages, now and as they come, until ``expires_s`` are over."""
        consumer = self._consumers.get(name)
        if consumer is not None and self._loop.time() - consumer.used_s > IDLE_CONSUMER_S:
            del self._consumers[name]
            consumer = None
        if consumer is None:
            deliver("503 ")
            return
        consumer.used_s = self._loop.time()
        consumer.deliver, consumer.wanted = deliver, batch
        consumer.pull += 1
        number = consumer.pull
        self._loop.run_outside(lambda: self._expire(name, consumer, number), expires_s)
        self._feed(consumer)

    def _expire(self, name: str, consumer: Consumer, number: int) -> None:
        if self._consumers.get(name) is consumer and consumer.pull == number and consumer.wanted:
            consumer.wanted = 0
            consumer.used_s = self._loop.time()
            if consumer.deliver is not None:
                consumer.deliver("408 Request Timeout")

    def _feed(self, consumer: Consumer) -> None:
        stream = self.samples
        consumer.next_sequence = max(consumer.next_sequence, stream.first_sequence)
        while consumer.wanted and consumer.next_sequence <= stream.last_sequence:
            message = stream.messages[consumer.next_sequence]
            consumer.next_sequence += 1
            consumer.wanted -= 1
            if consumer.deliver is not None:
                consumer.deliver(message)
