"""The log of samples as a reader meets it: messages in stream order, from a sequence on, no gaps.

A pull consumer without acknowledgements keeps memory bounded by what was asked for; the place in the
stream is the reader's own business (the historian keeps it in its table). When the broker restarts or a
message is lost on the way, the consumer is made again at the first sequence that is missing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from headrace.bus import subjects
from headrace.bus.client import Bus
from headrace.model.errors import Transient
from headrace.model.time import to_us

PULL_MESSAGES_MAX: Final = 128
PULL_BYTES_MAX: Final = 24 << 20
PULL_EXPIRES_S: Final = 20.0
SILENCE_S: Final = 2.0
TIME_TOLERANCE_US: Final = 1_000

_PULL_ENDED: Final = ("404", "408")
"""Nothing there, or expired. Any other status (409, 503) says that the consumer is gone."""

_BUS_ERRORS: Final = (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError)


@dataclass(frozen=True)
class LogInfo:
    """What the stream holds now.

    Attributes:
        created_us: when the stream was made; with its name, its identity.
        first_sequence, last_sequence: what it holds; ``last_sequence`` also when it is empty.
        messages, bytes, bytes_max: how full it is.
    """

    created_us: int
    first_sequence: int
    last_sequence: int
    messages: int
    bytes: int
    bytes_max: int


@dataclass(frozen=True)
class LogMessage:
    """One message of the stream. ``at_us`` is the broker's time of storing it."""

    sequence: int
    subject: str
    headers: dict[str, str]
    body: bytes
    at_us: int


async def log_info(bus: Bus, stream: str = subjects.SAMPLES_STREAM) -> LogInfo:
    """What the stream holds now.

    Raises:
        Transient: BUS-1030 when the broker does not answer or has no such stream yet.
    """
    try:
        info = await bus.stream.stream_info(stream)
    except _BUS_ERRORS as error:
        raise Transient("BUS-1030", f"the broker does not tell about the log {stream}") from error
    state = info.state
    return LogInfo(
        created_us=to_us(info.created) if info.created else 0,
        first_sequence=state.first_seq,
        last_sequence=state.last_seq,
        messages=state.messages,
        bytes=state.bytes,
        bytes_max=info.config.max_bytes or -1,
    )


async def stored_at_us(
    bus: Bus, sequence: int, stream: str = subjects.SAMPLES_STREAM
) -> int | None:
    """The broker's time of storing a message; None when the log does not hold it.

    Raises:
        Transient: BUS-1030 when the broker does not answer.
    """
    try:
        message = await bus.stream.get_msg(stream, sequence)
    except nats.js.errors.NotFoundError:
        return None
    except _BUS_ERRORS as error:
        raise Transient("BUS-1030", f"the broker does not tell about the log {stream}") from error
    return to_us(message.time) if message.time else None


async def sequence_before(bus: Bus, at_us: int) -> int:
    """A message of the samples' log such that all that were stored at a time or later come after it.

    Args:
        at_us: the broker's time of storing.

    Raises:
        Transient: BUS-1030 when the broker does not answer.
    """
    info = await log_info(bus)
    before, after = max(info.first_sequence - 1, 0), info.last_sequence + 1
    while after - before > 1:
        middle = (before + after) // 2
        stored_us = await stored_at_us(bus, middle)
        if stored_us is None or stored_us < at_us:  # not there any more: it left since
            before = middle
        else:
            after = middle
    return before


async def is_restored(bus: Bus, info: LogInfo, sequence: int, at_us: int) -> bool:
    """Whether the log is not the one that somebody knew: shorter, or with another message in the place of
    the last one known. New messages may have reached the numbers of those that a restore took away.

    Args:
        sequence, at_us: of the last message known, and the broker's time of storing it; 0 when that
            is not known.

    Raises:
        Transient: BUS-1030 when the broker does not answer.
    """
    if sequence > info.last_sequence:
        return True
    found_us = await stored_at_us(bus, sequence) if at_us else None
    return found_us is not None and abs(found_us - at_us) > TIME_TOLERANCE_US


async def newest_stored_us(bus: Bus, subject: str, stream: str = subjects.SAMPLES_STREAM) -> int:
    """The broker's time of storing the newest message of a subject; 0 when the log has none.

    Raises:
        Transient: BUS-1030 when the broker does not answer.
    """
    try:
        message = await bus.stream.get_last_msg(stream, subject)
    except nats.js.errors.NotFoundError:
        return 0
    except _BUS_ERRORS as error:
        raise Transient("BUS-1030", f"the broker does not tell about the log {stream}") from error
    return to_us(message.time) if message.time else 0


async def purge_log(bus: Bus, up_to_sequence: int, stream: str = subjects.SAMPLES_STREAM) -> None:
    """Remove messages up to and including ``up_to_sequence``.

    Raises:
        Transient: BUS-1031 when the broker does not answer.
    """
    try:
        await bus.stream.purge_stream(stream, seq=up_to_sequence + 1)
    except _BUS_ERRORS as error:
        raise Transient("BUS-1031", f"cannot purge the log {stream}") from error


async def log_subjects(bus: Bus, stream: str = subjects.SAMPLES_STREAM) -> list[str]:
    """Subjects of which the stream holds messages, sorted.

    Raises:
        Transient: BUS-1030 when the broker does not answer.
    """
    found: dict[str, int] = {}
    total = 1
    while len(found) < total:
        request = {"subjects_filter": ">", "offset": len(found)}
        try:
            answer = await bus.client.request(
                f"$JS.API.STREAM.INFO.{stream}", json.dumps(request).encode(), timeout=5
            )
        except _BUS_ERRORS as error:
            raise Transient("BUS-1030", f"the broker does not tell about {stream}") from error
        told = json.loads(answer.data)
        page = (told.get("state") or {}).get("subjects") or {}
        if "error" in told:
            raise Transient("BUS-1030", f"the broker does not tell about {stream}: {told['error']}")
        if not page:
            break
        found |= page
        total = told.get("total", len(found))
    return sorted(found)


class LogReader:
    """Messages of a stream in order, from ``after_sequence + 1`` on.

    Args:
        bus: an open bus.
        after_sequence: the last sequence the caller already has.
        only: these subjects alone; the messages between are no gap then. None takes all.
        headers_only: leave the bodies where they are.

    Attributes:
        next_sequence: the sequence that comes next.
        lost: ranges (first, last) that the stream no longer had when they were asked for; the
            caller takes them from the list and reports them.
    """

    def __init__(
        self,
        bus: Bus,
        after_sequence: int,
        stream: str = subjects.SAMPLES_STREAM,
        only: Sequence[str] | None = None,
        *,
        headers_only: bool = False,
    ) -> None:
        assert only is None or only, "no subjects would mean all of them"
        self._only = only
        self._delivered = 0
        self._bus = bus
        self._headers_only = headers_only
        self._stream = stream
        self.next_sequence = after_sequence + 1
        self.lost: list[tuple[int, int]] = []
        self._subscription: Any = None
        self._consumer = ""
        self._inbox = ""
        self._fresh = False
        self._gap_to = 0
        self._asked = 0
        self._silent_s = 0.0

    async def next(
        self, timeout_s: float, messages_max: int = PULL_MESSAGES_MAX
    ) -> list[LogMessage]:
        """The next messages, as many as are here; none after ``timeout_s`` without any.

        Raises:
            Transient: BUS-1032 when the broker is away; call again.
        """
        try:
            if self._subscription is None:
                await self._open()
            return await self._take(timeout_s, messages_max)
        except _BUS_ERRORS as error:
            await self.close()
            raise Transient("BUS-1032", f"the log {self._stream} cannot be read now") from error

    async def has_all(self) -> bool:
        """Whether nothing more is to come of what the stream holds now.

        Raises:
            Transient: BUS-1032 when the broker is away.
        """
        if self._subscription is None:
            return False
        try:
            info = await self._bus.stream.consumer_info(self._stream, self._consumer)
        except nats.js.errors.NotFoundError:
            await self.close()
            return False
        except _BUS_ERRORS as error:
            raise Transient("BUS-1032", f"the log {self._stream} cannot be read now") from error
        sent = info.delivered.consumer_seq if info.delivered else 0
        return info.num_pending == 0 and sent == self._delivered

    async def close(self) -> None:
        """Give the consumer back; safe to call twice."""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            await subscription.unsubscribe()
            await self._bus.stream.delete_consumer(self._stream, self._consumer)
        except _BUS_ERRORS:
            return  # the server drops an idle consumer by itself

    async def _open(self) -> None:
        client = self._bus.client
        self._inbox = client.new_inbox()
        config = ConsumerConfig(
            name=client.new_inbox().rsplit(".", 1)[-1],
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self.next_sequence,
            ack_policy=AckPolicy.NONE,
            inactive_threshold=60,
            mem_storage=True,
            num_replicas=1,
            filter_subjects=None if self._only is None else list(self._only),
            headers_only=self._headers_only,
        )
        info = await self._bus.stream.add_consumer(self._stream, config=config)
        self._consumer = info.name
        self._subscription = await client.subscribe(
            self._inbox,
            pending_msgs_limit=4 * PULL_MESSAGES_MAX,
            pending_bytes_limit=4 * PULL_BYTES_MAX,
        )
        self._fresh, self._asked, self._silent_s = True, 0, 0.0
        self._delivered = 0
        if self._only is not None:
            first = (await log_info(self._bus, self._stream)).first_sequence
            if first > self.next_sequence:
                self.lost.append((self.next_sequence, first - 1))
                self.next_sequence = first

    async def _ask(self) -> None:
        request = {
            "batch": PULL_MESSAGES_MAX,
            "max_bytes": PULL_BYTES_MAX,
            "expires": int(PULL_EXPIRES_S * 1e9),
        }
        await self._bus.client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}",
            json.dumps(request).encode(),
            self._inbox,
        )
        self._asked = PULL_MESSAGES_MAX

    async def _take(self, timeout_s: float, messages_max: int) -> list[LogMessage]:
        if self._asked <= 0:
            await self._ask()
        try:
            first = await self._subscription.next_msg(timeout=timeout_s)
        except TimeoutError:
            await self._when_silent(timeout_s)
            return []
        self._silent_s = 0.0
        found: list[LogMessage] = []
        message: Msg | None = first
        while message is not None:
            if not self._accept(message, found):
                if self._gap_to:
                    await self._explain_gap()
                await self.close()
                break
            message = await self._waiting() if len(found) < messages_max else None
        return found

    async def _waiting(self) -> Msg | None:
        """The next message that is already here."""
        if self._subscription is None or self._subscription.pending_msgs == 0:
            return None
        message: Msg = await self._subscription.next_msg(timeout=1)
        return message

    def _accept(self, message: Msg, found: list[LogMessage]) -> bool:
        """Take one message; False when the consumer must be made again."""
        if message.headers and "Status" in message.headers:
            self._asked = 0  # every status ends a pull
            full = "maxbytes" in message.headers.get("Description", "").lower().replace(" ", "")
            return full or message.headers["Status"] in _PULL_ENDED
        self._asked -= 1
        metadata = message.metadata
        sequence = int(metadata.sequence.stream)
        self._delivered += 1
        if self._only is not None and metadata.sequence.consumer != self._delivered:
            return False  # one was lost on the way
        if sequence < self.next_sequence:
            return True
        if sequence > self.next_sequence and self._only is None:
            self._gap_to = sequence if self._fresh else 0
            return False
        self._fresh = False
        self.next_sequence = sequence + 1
        found.append(
            LogMessage(
                sequence=sequence,
                subject=message.subject,
                headers=dict(message.headers or {}),
                body=message.data,
                at_us=to_us(metadata.timestamp),
            )
        )
        return True

    async def _explain_gap(self) -> None:
        """A new consumer began above what we asked for: the stream does not have it any more, or the
        first messages were lost on their way to us. Only the stream knows."""
        sequence, self._gap_to = self._gap_to, 0
        first = (await log_info(self._bus, self._stream)).first_sequence
        if first > self.next_sequence:
            beyond = min(first, sequence)
        elif await stored_at_us(self._bus, self.next_sequence, self._stream) is None:
            beyond = self.next_sequence + 1  # one message was deleted
        else:
            return
        self.lost.append((self.next_sequence, beyond - 1))
        self.next_sequence = beyond

    async def _when_silent(self, waited_s: float) -> None:
        """A silent consumer may be dead (the broker restarted): look, and make it again."""
        self._silent_s += waited_s
        if self._silent_s < SILENCE_S:
            return
        self._silent_s = 0.0
        info = await log_info(self._bus, self._stream)
        if info.last_sequence < self.next_sequence:
            return
        if self._only is None or not await self.has_all():
            await self.close()
