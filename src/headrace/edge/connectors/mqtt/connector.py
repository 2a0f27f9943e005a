"""The plain JSON connector: one session, its messages as samples, writes by command topics."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

import msgspec
import polars as pl

from headrace.edge.connectors.mqtt.columns import Gathered
from headrace.edge.connectors.mqtt.config import MqttOptions, parse_address
from headrace.edge.connectors.mqtt.payload import JsonDecoder, leaves, nest
from headrace.edge.connectors.mqtt.session import Message, MqttSession, session_settings
from headrace.edge.contract import BrowseItem, ConnectorContext, Reading, ScanGroup
from headrace.model.decoding import UNREADABLE
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Misconfigured, Transient
from headrace.model.sample import EXACT_INTEGER_MAX, concat_batches
from headrace.model.tasks import end_tasks

_TICK_S: Final = 0.25
_ROWS_MAX: Final = 50_000
_BROWSE_MAX: Final = 1_000
_BROWSE_TOPICS_MAX: Final = 5_000


class Pending(Gathered):
    """What waits for the next ``read``, with the messages to acknowledge for it."""

    def __init__(self) -> None:
        super().__init__()
        self.mids: list[int] = []
        self._waiting: list[pl.DataFrame] = []
        self.filled = asyncio.Event()
        self.emptied = asyncio.Event()

    @property
    def something(self) -> bool:
        return bool(
            len(self.columns)
            or self._waiting
            or self.mids
            or self.stale
            or self.notices
            or self.tag_errors
        )

    def redeclare(self, before: tuple[TagConfig, ...], after: tuple[TagConfig, ...]) -> None:
        """Keep what waits for unchanged tags only: raw values of a tag's old address would get its
        new scale."""
        unchanged = {tag.tag_id: tag for tag in before}
        same = {tag.tag_id for tag in after if unchanged.get(tag.tag_id) == tag}
        batch = self.columns.take()
        kept = batch.filter(pl.col("tag_id").is_in(list(same)))
        self.expected -= batch.height - kept.height
        if kept.height:
            self._waiting.append(kept)
        self.tag_errors = {each: e for each, e in self.tag_errors.items() if each in same}
        self.stale = {each: None for each in self.stale if each in same}

    def take(self, acknowledge: Callable[[list[int]], None]) -> Reading:
        """All of it as one reading."""
        mids = self.mids
        batch = concat_batches([*self._waiting, self.columns.take()])

        async def release() -> None:
            acknowledge(mids)

        reading = Reading(
            batch=batch,
            expected=self.expected,
            tag_errors=self.tag_errors,
            acknowledge=release if mids else None,
            stale=tuple(self.stale),
            notices=tuple(self.notices),
            missed={"gap": self.gaps} if self.gaps else {},
        )
        self.expected, self.tag_errors, self.gaps = 0, {}, 0
        self.notices, self.stale, self.mids, self._waiting = [], {}, [], []
        self.emptied.set()
        return reading


class Pump:
    """A task that feeds :class:`Pending` whoever reads or writes; its error comes out of ``wait``."""

    def __init__(self, pending: Pending, step: Callable[[], Awaitable[None]]) -> None:
        self._pending = pending
        self._step = step
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: self._pending.filled.set())

    async def _run(self) -> None:
        while True:
            while len(self._pending.columns) > _ROWS_MAX:
                self._pending.emptied.clear()
                await self._pending.emptied.wait()
            await self._step()
            if self._pending.something:
                self._pending.filled.set()

    async def wait(self) -> None:
        """Until something waits.

        Raises:
            HeadraceError: what ended the pump, once nothing waits any more.
        """
        while not self._pending.something:
            self.check()
            self._pending.filled.clear()
            await self._pending.filled.wait()

    def check(self) -> None:
        """Raise what ended the pump, if it ended."""
        if self._task is None:
            raise Transient("EDGE-4013", "the MQTT connection is not open")
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        if self._task is not None:
            await end_tasks(self._task)


class MqttConnector:
    """One session; made by :meth:`headrace.edge.connectors.mqtt.MqttConnectorType.open`."""

    def __init__(
        self, connection: ConnectionConfig, options: MqttOptions, context: ConnectorContext
    ) -> None:
        self._name = connection.name
        self._options = options
        self._clock = context.clock
        settings = session_settings(
            connection, options, context, clean_session=options.clean_session
        )
        self._settings = settings
        self._session = MqttSession(settings, context.clock)
        self._tags = connection.tags
        self._decoder = JsonDecoder(self._name, self._tags, options)
        self._pending = Pending()
        self._pump = Pump(self._pending, self._step)
        self._last_seen: dict[str, float] = {}
        self._last: dict[str, Message] = {}
        self._silent: set[str] = set()
        self._echoes: dict[tuple[str, tuple[str, ...]], asyncio.Queue[Any]] = {}

    async def connect(self) -> None:
        await self._session.connect()
        topics = list(self._decoder.topics)
        if self._options.availability_topic:
            topics.append(self._options.availability_topic)
        await self._session.subscribe([(topic, self._options.qos) for topic in topics])
        now_s = self._clock.monotonic_s()
        self._last_seen = dict.fromkeys(self._decoder.topics, now_s)
        self._pump.start()

    async def close(self) -> None:
        await self._pump.stop()
        await self._session.close()

    # -- reading ------------------------------------------------------------------------------

    async def read(self, group: ScanGroup) -> Reading:
        await self._follow(group.tags)
        await self._pump.wait()
        return self._pending.take(self._session.acknowledge)

    async def _follow(self, tags: tuple[TagConfig, ...]) -> None:
        """Subscribe to what new tags need, and leave what no tag needs any more."""
        if tags is self._tags or tags == self._tags:
            return
        decoder = JsonDecoder(self._name, tags, self._options)
        before, after = set(self._decoder.topics), set(decoder.topics)
        self._pending.redeclare(self._tags, tags)
        self._decode_again([tag for tag in tags if tag not in self._tags])
        self._decoder, self._tags = decoder, tags
        now_s = self._clock.monotonic_s()
        for topic in after - before:
            self._last_seen[topic] = now_s
        await self._session.subscribe([(topic, self._options.qos) for topic in after - before])
        await self._session.unsubscribe(sorted(before - after))
        for topic in before - after:
            self._last.pop(topic, None)

    def _decode_again(self, new: list[TagConfig]) -> None:
        """New tags on topics that we know get the value of the last message at once."""
        decoder = JsonDecoder(self._name, new, self._options)
        for topic in decoder.topics.keys() & self._last.keys():
            self._decode(decoder, self._last[topic])

    async def _step(self) -> None:
        for message in await self._session.receive(_TICK_S):
            await self._take_message(message)
        self._find_stale()

    async def _take_message(self, message: Message) -> None:
        pending = self._pending
        if message.topic in self._decoder.topics:
            self._last_seen[message.topic] = self._clock.monotonic_s()
            self._silent.discard(message.topic)
            for plan in self._decoder.topics[message.topic]:
                pending.revive(plan.tag_id)
            self._last[message.topic] = message
            self._decode(self._decoder, message)
            self._offer_echo(message)
        elif message.topic == self._options.availability_topic:
            if message.payload.strip().lower() == b"offline":
                self._all_stale()
        elif message.qos:
            # A topic of an earlier configuration, which the broker still has for our session.
            self._session.acknowledge([message.mid])
            await self._session.unsubscribe([message.topic])
            return
        if message.qos:
            pending.mids.append(message.mid)

    def _decode(self, decoder: JsonDecoder, message: Message) -> None:
        pending = self._pending
        before = len(pending.columns)
        decoded = decoder.decode(
            message.topic,
            message.payload,
            message.retain,
            message.received_us,
            pending.columns,
        )
        pending.expected += len(pending.columns) - before
        pending.tag_errors.update(decoded.tag_errors)
        pending.notices += decoded.notices

    def _all_stale(self) -> None:
        self._pending.die(tag.tag_id for tag in self._tags)
        text = f"the device of {self._name!r} went offline by its last will"
        self._pending.notices.append(("EDGE-4105", text))

    def _find_stale(self) -> None:
        limit_s = self._options.stale_after_s
        if limit_s <= 0:
            return
        now_s = self._clock.monotonic_s()
        for topic, plans in self._decoder.topics.items():
            if topic not in self._silent and now_s - self._last_seen[topic] > limit_s:
                self._silent.add(topic)
                self._pending.die(plan.tag_id for plan in plans)
                self._pending.notices.append(
                    ("EDGE-4105", f"no message on {topic!r} of {self._name!r} for {limit_s:g} s")
                )

    # -- writing ------------------------------------------------------------------------------

    async def write(self, tag: TagConfig, value: float | str) -> float | str:
        suffix = self._options.write_topic_suffix
        if not suffix:
            raise Misconfigured(
                "EDGE-4106",
                f"tag {tag.path!r} of {self._name!r} cannot be written: there is no command topic",
                "Set the connection's option write_topic_suffix, for example /set.",
            )
        topic, pointer = parse_address(tag.address, f"tag {tag.path!r}")
        if topic not in self._decoder.topics:
            await self._session.subscribe([(topic, self._options.qos)])
        self._pump.check()
        raw: Any = value
        if isinstance(value, float) and value.is_integer() and abs(value) <= EXACT_INTEGER_MAX:
            raw = int(value)
        echoes: asyncio.Queue[Any] = asyncio.Queue(16)
        self._echoes[topic, pointer] = echoes
        try:
            body = msgspec.json.encode(nest(pointer, raw))
            await self._session.publish(topic + suffix, body, qos=1)
            return await self._read_back(tag, value, echoes)
        finally:
            del self._echoes[topic, pointer]

    async def _read_back(
        self, tag: TagConfig, value: float | str, echoes: asyncio.Queue[Any]
    ) -> float | str:
        """The first echo that equals the value, else the last one that came in time."""
        last: Any = None
        try:
            async with asyncio.timeout(self._options.write_timeout_s):
                while True:
                    last = await echoes.get()
                    if last == value:
                        return value
        except TimeoutError as error:
            if isinstance(last, (int, float)):
                return float(last)
            if isinstance(last, str):
                return last
            raise Transient(
                "EDGE-4107",
                f"{self._name!r} did not echo the write of {value!r} to {tag.path!r} within "
                f"{self._options.write_timeout_s:g} s; whether it was written is unknown",
                "Look at the device; it must publish the value on the tag's topic.",
            ) from error

    def _offer_echo(self, message: Message) -> None:
        for (topic, pointer), echoes in self._echoes.items():
            if topic == message.topic:
                try:
                    document = msgspec.json.decode(message.payload)
                except UNREADABLE:
                    document = message.payload.decode(errors="replace")
                found = leaves_at(document, pointer)
                if found is not None and not echoes.full():
                    echoes.put_nowait(found)

    # -- browsing -----------------------------------------------------------------------------

    async def browse(self, address: str) -> list[BrowseItem]:
        """Listen for a moment below a topic prefix ("" is all) and list what was heard."""
        prefix = address.rstrip("/#")
        topic_filter = f"{prefix}/#" if prefix else "#"
        settings = replace(
            self._settings,
            client_id=f"{self._settings.client_id}-browse",
            clean_session=True,
        )
        session = MqttSession(settings, self._clock)
        heard: dict[str, bytes] = {}
        try:
            await session.connect()
            await session.subscribe([(topic_filter, 0)])
            await _listen(session, heard, self._options.browse_listen_s)
        finally:
            await session.close()
        items: list[BrowseItem] = []
        for topic in sorted(heard):
            if not topic.startswith("$"):
                items += _items(topic, heard[topic], _BROWSE_MAX - len(items))
        return items[:_BROWSE_MAX]


async def _listen(session: MqttSession, heard: dict[str, bytes], seconds: float) -> None:
    """Collect the last payload of each topic; a session of its own keeps the readings clean."""
    try:
        async with asyncio.timeout(seconds):
            while len(heard) < _BROWSE_TOPICS_MAX:
                for message in await session.receive(_TICK_S):
                    heard[message.topic] = message.payload
    except TimeoutError:
        pass


def leaves_at(document: Any, pointer: tuple[str, ...]) -> float | str | None:
    """The single value at the pointer as a write's read-back, or None."""
    for token in pointer:
        if not isinstance(document, dict) or token not in document:
            return None
        document = document[token]
    if isinstance(document, (bool, int, float)):
        return float(document)
    return document if isinstance(document, str) else None


def _items(topic: str, payload: bytes, limit: int) -> list[BrowseItem]:
    try:
        found = leaves(msgspec.json.decode(payload), limit)
    except UNREADABLE:
        found = [("", payload[:200].decode(errors="replace"))]
    return [
        BrowseItem(
            address=f"{topic}#{pointer}",
            name=f"{topic}{pointer}",
            data_type=_type_name(value),
            value=str(value)[:80],
            proposed_path=proposed_path(f"{topic}{pointer}"),
        )
        for pointer, value in found
    ]


def _type_name(value: Any) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array"}
    return names.get(type(value), "null")


def proposed_path(text: str, depth: int = 2) -> str:
    """The last tokens of a name as a tag path.

    Example:
        >>> proposed_path("hall/meter 1/power/total")
        'power/total'
    """
    tokens = [re.sub(r"[^A-Za-z0-9_-]+", "_", token).strip("_")[:64] for token in text.split("/")]
    return "/".join([token for token in tokens if token][-depth:])
