"""Simulated devices and their connectors; every sample that a device ever shows is on record.

Four kinds, one for each promise that a source can make:

* ``poll``: a register map. A value exists when it is read, by the edge's clock; what nobody read is missed.
* ``queue``: keeps each message until it is acknowledged, and gives it again to a new session (MQTT, QoS 1).
* ``handshake``: shows one record until it is acknowledged, then the next (a PLC's hand-shake).
* ``history``: reports changes and remembers them; a new session asks for what came since (OPC UA).

Of the last three nothing may be lost at all, whatever is killed.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final, NamedTuple

import msgspec
import numpy as np

from headrace.edge.contract import Ability, ConnectorContext, Mode, Reading, ScanGroup
from headrace.model import status as st
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Transient
from headrace.model.sample import make_batch
from headrace.sim.world.clock import MachineClock
from headrace.sim.world.loop import VirtualLoop
from headrace.sim.world.trace import Trace

KINDS: Final = ("poll", "queue", "handshake", "history")
OVERLAP_US: Final = 2_000_000
MESSAGES_A_READ_MAX: Final = 8
ANSWER_S: Final = (0.0005, 0.003)
TIMEOUT_S: Final = 1.0
STRANGE_TAG: Final = 999_999
_STATUSES: Final = (
    st.GOOD_CLAMPED,
    st.UNCERTAIN,
    st.UNCERTAIN_SENSOR_NOT_ACCURATE,
    st.BAD_DEVICE_FAILURE,
    st.BAD_SENSOR_FAILURE,
)
_VALUES: Final = (0.0, -0.0, float("inf"), float("-inf"), float("nan"), 5e-324, -1.7e308)


class Content(NamedTuple):
    """What a sample says: the value's bits (None without a value), its text and its status."""

    bits: int | None
    text: str | None
    status: int


Identity = tuple[int, int]
"""(tag_id, source timestamp in us)."""


def bits_of(value: float | None) -> int | None:
    """A number as its 64 bits, so that -0.0 and every NaN are told apart.

    Example:
        >>> bits_of(0.0) == bits_of(-0.0)
        False
    """
    if value is None:
        return None
    found: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return found


class Message(NamedTuple):
    """Samples that a device gives together: raw columns."""

    number: int
    tag_id: list[int]
    source_us: list[int]
    value: list[float | None]
    status: list[int]


class Options(msgspec.Struct, frozen=True):
    """A simulated device has no settings."""


@dataclass
class SimDevice:
    """One device and what is wrong with it now.

    Attributes:
        made: every sample that it showed, as it must be stored; identity -> what it said.
        owed: identities that must be in the table in the end, whatever happens.
        away: does not answer at all; refuses: closes each connection; mute: accepts and then hangs.
        delay_s: how much longer an answer takes. bad_tags: so many of its tags fail.
        garbles: the next so many readings have a tag that nobody asked for.
    """

    name: str
    kind: str
    tags: tuple[TagConfig, ...]
    interval_s: float
    loop: VirtualLoop
    clock: MachineClock
    trace: Trace
    noise: Random
    made: dict[Identity, Content] = field(default_factory=dict)
    owed: set[Identity] = field(default_factory=set)
    away: bool = False
    refuses: bool = False
    mute: bool = False
    delay_s: float = 0.0
    bad_tags: int = 0
    garbles: int = 0
    deaths: int = 0
    silent: bool = False
    backlog: list[Message] = field(default_factory=list)
    acknowledged: Callable[[SimDevice, list[Message]], None] = lambda _device, _messages: None
    _count: int = 0
    _waiters: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def keeps(self) -> bool:
        """Whether it keeps what it made until the log has it."""
        return self.kind != "poll"

    def measure(self, clock: MachineClock, tags: tuple[TagConfig, ...]) -> Message:
        """Make one new sample of each tag, at the time of ``clock``."""
        number, self._count = self._count, self._count + 1
        at_us = clock.now_us() // 1_000 * 1_000 + number % 1_000  # no two alike, whatever is set
        values: list[float | None] = []
        statuses: list[int] = []
        for place, tag in enumerate(tags):
            value, status = self._sample(number, place)
            values.append(value)
            statuses.append(status)
            scaled = value
            if value is not None and (tag.scale != 1.0 or tag.offset != 0.0):
                scaled = value * tag.scale + tag.offset
            said = Content(bits_of(scaled), None, status)
            self.made[tag.tag_id, at_us] = said
            if self.keeps:
                self.owed.add((tag.tag_id, at_us))
        return Message(number, [tag.tag_id for tag in tags], [at_us] * len(tags), values, statuses)

    def _sample(self, number: int, place: int) -> tuple[float | None, int]:
        if place < self.bad_tags:
            return None, st.BAD_NO_DATA
        draw = self.noise.random()
        if draw < 0.85:
            return number * 10.0 + place + self.noise.random(), st.GOOD
        if draw < 0.9:
            return self.noise.choice(_VALUES), st.GOOD
        status = self.noise.choice(_STATUSES)
        return (None if st.is_bad(status) else number + 0.5), status

    # -- a device that speaks by itself -------------------------------------------------------

    async def run(self) -> None:
        """Make a message each interval until it is silent."""
        while not self.silent:
            self.backlog.append(self.measure(self.clock, self.tags))
            self.tell()
            await asyncio.sleep(self.interval_s * self.noise.uniform(0.7, 1.3))

    def tell(self) -> None:
        """Wake whoever waits for something to change."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def recover(self, trouble: str) -> None:
        """One thing is not wrong any more: ``away``, ``refuses`` or ``mute``."""
        setattr(self, trouble, False)
        self.tell()

    async def change(self) -> None:
        """Wait until something changes."""
        waiter = self.loop.create_future()
        self._waiters.append(waiter)
        await waiter

    async def answer(self) -> None:
        """The time that an answer takes.

        Raises:
            Transient: SIM-5001 when it does not come.
        """
        if self.mute or self.delay_s > TIMEOUT_S:
            await asyncio.sleep(TIMEOUT_S)
            raise Transient("SIM-5001", f"{self.name} did not answer in {TIMEOUT_S:g} s")
        await asyncio.sleep(self.noise.uniform(*ANSWER_S) + self.delay_s)
        if self.away or self.refuses:
            raise Transient("SIM-5001", f"{self.name} is away")


class SimConnectorType:
    """The connector of one simulated device; see :class:`headrace.edge.contract.ConnectorType`."""

    title = ("Simulated", "模拟")
    abilities: frozenset[Ability] = frozenset({"read"})
    options: type[msgspec.Struct] = Options
    endpoint_example = "x"
    address_example = "x"

    def __init__(self, device: SimDevice) -> None:
        self.device = device
        self.protocol = device.name
        self.mode: Mode = "poll" if device.kind in ("poll", "handshake") else "subscribe"

    def check_connection(self, connection: ConnectionConfig) -> None:
        """Anything goes."""

    def check_tag(self, tag: TagConfig) -> None:
        """Anything goes."""

    def open(self, connection: ConnectionConfig, context: ConnectorContext) -> SimConnector:
        """A session."""
        del connection
        return SimConnector(self.device, context)


class SimConnector:
    """One session with a simulated device."""

    def __init__(self, device: SimDevice, context: ConnectorContext) -> None:
        self._device = device
        self._context = context
        self._given = -1

    async def connect(self) -> None:
        """Open it."""
        device, context = self._device, self._context
        await device.answer()
        if device.kind == "history" and device.backlog:
            if context.resume_us:
                since_us = context.resume_us - OVERLAP_US
                earlier = [m.number for m in device.backlog if m.source_us[0] < since_us]
            elif context.first_us:
                earlier = []
            else:
                earlier = [m.number for m in device.backlog]
                device.owed.difference_update(device.made)  # from before the first session
            self._given = max(earlier, default=-1)
        device.trace.note(device.name, f"session, resume {context.resume_us} {context.first_us}")

    async def read(self, group: ScanGroup) -> Reading:
        """What the kind of device gives."""
        device = self._device
        if device.kind in ("poll", "handshake"):
            if device.silent and not device.backlog:
                await asyncio.Event().wait()
            await device.answer()
            if device.kind == "poll":
                if device.silent:
                    await asyncio.Event().wait()
                clock = self._context.clock
                assert isinstance(clock, MachineClock)
                return self._reading([device.measure(clock, group.tags)])
            return self._reading(device.backlog[:1], waits=True)
        while True:
            if device.away or device.refuses:
                raise Transient("SIM-5001", f"{device.name} closed the connection")
            fresh = [m for m in device.backlog if m.number > self._given]
            if (fresh or device.deaths) and not device.mute:
                self._given = max(
                    (m.number for m in fresh[:MESSAGES_A_READ_MAX]), default=self._given
                )
                return self._reading(fresh[:MESSAGES_A_READ_MAX])
            await device.change()

    def _reading(self, messages: list[Message], *, waits: bool = False) -> Reading:
        device = self._device
        tag_id = [each for m in messages for each in m.tag_id]
        source_us = [each for m in messages for each in m.source_us]
        value = [each for m in messages for each in m.value]
        status = [each for m in messages for each in m.status]
        if device.garbles > 0 and tag_id:
            device.garbles -= 1
            tag_id[0] = STRANGE_TAG
        batch = make_batch(
            np.array(tag_id, np.int64),
            np.array(source_us, np.int64),
            np.array([0.0 if each is None else each for each in value]),
            status=np.array(status, np.uint32),
            received_timestamp_us=self._context.clock.now_us(),
            value_is_null=np.array([each is None for each in value], np.bool_),
        )
        stale: tuple[int, ...] = ()
        if device.deaths > 0:
            device.deaths -= 1
            stale = tuple(tag.tag_id for tag in device.tags)

        async def acknowledge() -> None:
            device.acknowledged(device, messages)
            numbers = {m.number for m in messages}
            device.backlog[:] = [m for m in device.backlog if m.number not in numbers]

        wants = device.kind in ("queue", "handshake") and bool(messages)
        return Reading(
            batch,
            batch.height,
            acknowledge=acknowledge if wants else None,
            waits=waits and wants,
            stale=stale,
        )

    async def close(self) -> None:
        """Nothing to release."""
