"""A scenario's samples through real protocol servers and the edge's own connectors, step by step.

::

    Ground ──► emulator (a real server) ──► connector ──► pipeline of the edge ──► Ground
        └──── SteppedClock: each moment waits until all that it shows has come ────┘

The wall clock stands at the scenario's moment, so a day goes through as fast as the protocol takes it, and
two runs give the same samples. What this proves is what a protocol does to values: types, orders of bytes
and words, scales, qualities, source times, dead-bands. Of delays it proves nothing: each sample arrives when
the scenario says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import polars as pl

from headrace.bench.brokers import PATIENCE_S, BenchBroker
from headrace.bench.ground import Carried, Ground
from headrace.bench.hostile import ail
from headrace.bench.scenario import Scenario
from headrace.bench.wiring import ServedDevice, wire_up
from headrace.bus.broker import BrokerAddress
from headrace.edge.catalog import connector_type
from headrace.edge.contract import Connector, ConnectorContext, Reading, ScanGroup
from headrace.edge.pipeline import Pipeline
from headrace.model import status as st
from headrace.model.desired import ConnectionConfig
from headrace.model.errors import Misconfigured, Terminal, Transient
from headrace.model.sample import TIMESTAMP, Int64Array, concat_batches, microseconds
from headrace.model.tasks import end_tasks
from headrace.model.time import US_PER_MS, US_PER_S, Clock, SystemClock
from headrace.sim.emulators import Emulator, Value
from headrace.sim.emulators.modbus import ModbusEmulator
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from headrace.sim.emulators.opcua import OpcUaEmulator
from headrace.sim.emulators.sparkplug import SparkplugEmulator

TRIES: Final = 3
WINDOW_SAMPLES: Final = 500
_OVER_BROKER: Final = ("mqtt", "sparkplug")
_EDGES_OWN: Final = (st.BAD_NO_COMMUNICATION, st.UNCERTAIN_LAST_USABLE_VALUE)
_MODBUS: Final = (
    "framing", "timestamp", "record_sequence", "record_acknowledge", "addressing", "unit_id", "byte_order",
)  # fmt: skip
_ORDER: Final = ["received_timestamp", "source_timestamp", "tag_id"]


class SteppedClock:
    """A wall clock that stands at a moment of the scenario; the monotonic one is the machine's."""

    def __init__(self, now_us: int, machine: Clock) -> None:
        self._now_us = now_us
        self._machine = machine

    def set(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us

    def monotonic_s(self) -> float:
        return self._machine.monotonic_s()


class _Moment(NamedTuple):
    """What one device shows at once; ``lost``: it loses its power."""

    received_us: int
    source_us: int
    lost: bool
    rows: pl.DataFrame


def carry(ground: Ground, scenario: Scenario, clock: Clock | None = None) -> Carried:
    """Let a ground's samples go through the scenario's protocol.

    Args:
        clock: of the machine, for patience.

    Raises:
        Misconfigured: APPS-2461, APPS-2462 as of :func:`headrace.bench.wiring.wire_up`; APPS-2463 when
            the protocol cannot tell the scenario's times; what a connector says of an address.
        Terminal: APPS-2460 when a server of the bench cannot be reached.
    """
    return asyncio.run(carry_along(ground, scenario, clock or SystemClock()))


async def carry_along(ground: Ground, scenario: Scenario, machine: Clock) -> Carried:
    """As :func:`carry`, in a running loop."""
    samples = ail(ground, scenario)
    devices = wire_up(ground, scenario)
    _check_times(samples, devices, scenario)
    before_us = ground.start_us - US_PER_S
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        needs = any(each.connection.protocol in _OVER_BROKER for each in devices)
        broker = BenchBroker(folder / "broker") if needs else None
        if broker is not None:
            stack.push_async_callback(broker.stop)
            await broker.start()
        lines = [_Line(d, SteppedClock(before_us, machine), folder, broker) for d in devices]
        for line in lines:
            stack.push_async_callback(line.close)
        running = [asyncio.create_task(line.run(samples)) for line in lines]
        try:
            await asyncio.gather(*running)
        finally:
            await end_tasks(*running)
    carried = concat_batches([batch for line in lines for batch in line.batches])
    return _whole(carried, lines, samples.height, scenario)


def _check_times(
    samples: pl.DataFrame, devices: Sequence[ServedDevice], scenario: Scenario
) -> None:
    ids = [
        t.tag_id for d in devices if d.connection.protocol == "sparkplug" for t in d.connection.tags
    ]
    mine = samples.filter(pl.col("tag_id").is_in(ids))
    if (microseconds(mine["source_timestamp"]) % US_PER_MS).any():
        raise Misconfigured(
            "APPS-2463",
            f"scenario {scenario.name} has times finer than the milliseconds that Sparkplug B tells",
            "Take opcua, modbus or mqtt.",
        )


def _moments(samples: pl.DataFrame) -> Iterator[_Moment]:
    times = ["received_timestamp", "source_timestamp"]
    marked = samples.with_columns(
        pl.col("status").is_in(_EDGES_OWN).alias("lost"),
        pl.col("tag_id").cum_count().over("tag_id", *times).alias("nth"),
    ).sort(*times, maintain_order=True)
    for _, rows in marked.group_by(*times, "lost", "nth", maintain_order=True):
        received_us, source_us = (int(microseconds(rows[name])[0]) for name in times)
        yield _Moment(received_us, source_us, bool(rows["lost"][0]), rows)


def _windows(moments: Iterable[_Moment], samples_max: int) -> Iterator[list[_Moment]]:
    """Moments that are shown one after another before anybody waits for what came.

    One that is lost stands alone, and in one window no tag has a time twice.
    """
    window: list[_Moment] = []
    seen: set[int] = set()
    size = 0
    for moment in moments:
        full = size + moment.rows.height > samples_max
        if window and (full or moment.lost or window[0].lost or moment.source_us in seen):
            yield window
            window, seen, size = [], set(), 0
        window.append(moment)
        seen.add(moment.source_us)
        size += moment.rows.height
    if window:
        yield window


def _whole(
    carried: pl.DataFrame, lines: Sequence[_Line], shown: int, scenario: Scenario
) -> Carried:
    """The samples in the order of a ground, without copies that a device told again."""
    what = ["tag_id", "source_timestamp", "value", "text", "status"]
    again = carried.group_by(what, maintain_order=True).agg(pl.col("received_timestamp").min())
    first = carried.join(again, on=[*what, "received_timestamp"], how="semi", nulls_equal=True)
    samples = first.sort(*_ORDER, maintain_order=True)
    filtered = sum(line.pipeline.counts.filtered for line in lines)
    notes = [
        f"Samples came through {scenario.source.protocol}, by {len(lines)} devices: {shown} shown,"
        f" {samples.height} came, {filtered} within their dead-bands."
    ]
    notes += [f"Nothing came of {path}." for line in lines for path in line.silent_paths()]
    notes += [text for line in lines for text in line.told]
    return Carried(samples=_ipc(samples), notes=notes)


def _ipc(samples: pl.DataFrame) -> bytes:
    return samples.write_ipc(None, compression="lz4").getvalue()


class _Line:
    """One device with its connector and pipeline."""

    def __init__(
        self, device: ServedDevice, clock: SteppedClock, folder: Path, broker: BenchBroker | None
    ) -> None:
        self._device = device
        self._protocol = device.connection.protocol
        self._clock = clock
        self._kind = connector_type(self._protocol)
        self._emulator = _emulator(device, clock, broker.address if broker else None)
        self._context = ConnectorContext(
            clock=clock,
            certificates=folder,
            secret=str,
            **(broker.lent if broker else {}),
        )
        options = device.connection.options
        self._is_timeless = self._protocol in ("modbus", "mqtt") and not options.get("timestamp")
        self._session: Connector | None = None
        self._is_on = False
        self._shown = {each.tag.tag_id: each for each in device.shown}
        self._groups: dict[frozenset[int], ScanGroup] = {}
        self._silent: set[int] = set()
        self._came: set[int] = set()
        self.pipeline = Pipeline(device.connection.tags)
        self.batches: list[pl.DataFrame] = []
        self.told: list[str] = []
        self._check()

    def _check(self) -> None:
        self._kind.check_connection(self._connection())
        for tag in self._device.connection.tags:
            self._kind.check_tag(tag)

    def _connection(self) -> ConnectionConfig:
        endpoint = self._emulator.endpoint or self._kind.endpoint_example
        return msgspec.structs.replace(self._device.connection, endpoint=endpoint)

    def silent_paths(self) -> list[str]:
        """Tags of which nothing came."""
        return sorted(self._shown[each].tag.path for each in self._silent - self._came)

    async def run(self, samples: pl.DataFrame) -> None:
        """Show what of some samples is this device's, and take what comes of it."""
        mine = samples.filter(pl.col("tag_id").is_in(list(self._shown)))
        lone = self._kind.mode == "poll" or self._is_timeless
        for window in _windows(_moments(mine), 1 if lone else WINDOW_SAMPLES):
            if window[0].lost:
                await self._lose(window[0])
            else:
                await self._show(window)

    async def close(self) -> None:
        """End session and device."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        if self._is_on:
            self._is_on = False
            await self._emulator.stop()

    async def _show(self, window: Sequence[_Moment]) -> None:
        for left in reversed(range(TRIES)):
            try:
                self._clock.set(window[0].received_us)
                await self._open()
                for moment in window:
                    self._clock.set(moment.received_us)
                    values, status = self._values(moment.rows)
                    await self._emulator.update(values, moment.source_us, status)
                await self._collect(window)
                return
            except Transient as error:
                await self._end_session()
                if not left:
                    raise Terminal(
                        "APPS-2460",
                        f"the connector {self._protocol} lost the bench's own device: {error.what}",
                        "Try again; if it stays so, the connector is at fault.",
                    ) from error

    async def _open(self) -> None:
        if not self._is_on:
            try:
                await self._emulator.start()
            except OSError as error:
                name = self._device.connection.name
                raise Terminal(
                    "APPS-2460", f"the bench's device {name} cannot listen: {error}", "Try again."
                ) from error
            self._is_on = True
        if self._session is None:
            self._session = self._kind.open(self._connection(), self._context)
            await self._session.connect()
            if self._protocol == "opcua":
                # A server tells at once what it showed before: that is no part of this moment.
                await self._gather(set(self._shown), set())

    async def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _values(self, rows: pl.DataFrame) -> tuple[dict[str, Any], dict[str, int]]:
        values: dict[str, Value | None] = {}
        status: dict[str, int] = {}
        for tag_id, value, text, code in rows.select("tag_id", "value", "text", "status").rows():
            shown = self._shown[tag_id]
            if value is None and text is None and not st.is_bad(code):
                code = st.BAD_NO_DATA
            if code != st.GOOD:
                status[shown.address] = code
            if st.is_bad(code):
                if self._protocol in _OVER_BROKER:  # these send a message of it: no field, a null
                    values[shown.address] = None
            elif shown.data_type == "string":
                values[shown.address] = text if text is not None else str(value)
            else:
                values[shown.address] = shown.raw(value)
        return values, status

    async def _collect(self, window: Sequence[_Moment]) -> None:
        """Read until all that is due has come; what does not come is not waited for again."""
        shown = pl.concat([each.rows for each in window])
        due = {pair for pair in _pairs(shown) if pair[0] not in self._silent}
        tags = set(shown["tag_id"].to_list())
        readings = await self._gather(tags, due)
        raw = _pinned(concat_batches([each.batch for each in readings]), window, shown)
        # A device that is born again tells first what it knew before; at one time the last one holds.
        raw = raw.unique(["tag_id", "source_timestamp"], keep="last", maintain_order=True)
        raw = raw.sort("received_timestamp", maintain_order=True)
        self._came |= set(raw["tag_id"].to_list())
        self.batches.append(self.pipeline.process(raw))

    async def _gather(self, tags: set[int], due: set[tuple[int, int]]) -> list[Reading]:
        """Read until all of these have come; without times: something of each tag.

        Args:
            tags: to read. due: tag and source time.
        """
        assert self._session is not None, "opened before"
        by_time = bool(due) and not self._is_timeless
        readings, tags_left, left = list[Reading](), tags - self._silent, set(due)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while left if by_time else tags_left:
                    reading = await self._session.read(self._group(tags))
                    readings.append(reading)
                    if reading.acknowledge is not None:
                        await reading.acknowledge()
                    left -= _pairs(reading.batch)
                    tags_left -= set(reading.batch["tag_id"].to_list())
                    if self._kind.mode == "poll":
                        break
        except TimeoutError:
            self._silent |= {tag_id for tag_id, _ in left} if by_time else tags_left
        return readings

    def _group(self, due: set[int]) -> ScanGroup:
        """Of a poll only what is due: the others were not sampled at this moment."""
        wanted = frozenset(due if self._kind.mode == "poll" else self._shown)
        group = self._groups.get(wanted)
        if group is None:
            tags = tuple(each for each in self._device.connection.tags if each.tag_id in wanted)
            group = self._groups[wanted] = ScanGroup(1_000, tags)
        return group

    async def _lose(self, moment: _Moment) -> None:
        """The device loses its power; what the edge says of it is the edge's own."""
        if self._is_on:
            self._is_on = False
            await self._emulator.stop()
        now_us = moment.received_us
        self._clock.set(now_us)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while self._session is not None:
                    reading = await self._session.read(self._group(set(self._shown)))
                    if reading.stale:
                        self.batches.append(self.pipeline.stale(reading.stale, now_us))
                        return
        except Transient:
            await self._end_session()
        except TimeoutError:
            self.told.append(
                f"Nobody told that the device {self._device.connection.name} was lost."
            )
        self.batches.append(self.pipeline.lost(now_us))


def _pairs(samples: pl.DataFrame) -> set[tuple[int, int]]:
    """(tag, source time) of samples."""
    at_us = microseconds(samples["source_timestamp"]).tolist()
    return set(zip(samples["tag_id"].to_list(), at_us, strict=True))


def _pinned(raw: pl.DataFrame, window: Sequence[_Moment], shown: pl.DataFrame) -> pl.DataFrame:
    """Samples with the scenario's times of arrival; a device that tells no time has that of the moment."""
    source_us: Int64Array = microseconds(raw["source_timestamp"])
    if len(window) == 1:
        untold = source_us == microseconds(raw["received_timestamp"])
        source_us = np.where(untold, window[0].source_us, source_us)
    key = ["tag_id", "source_timestamp"]
    told = raw.with_columns(pl.Series("source_timestamp", source_us).cast(TIMESTAMP))
    last = pl.lit(window[-1].received_us, pl.Int64).cast(TIMESTAMP)
    matched = told.drop("received_timestamp").join(
        shown.select(*key, "received_timestamp"), on=key, how="left", maintain_order="left"
    )
    return matched.with_columns(pl.col("received_timestamp").fill_null(last)).select(raw.columns)


def _emulator(device: ServedDevice, clock: Clock, broker: BrokerAddress | None) -> Emulator:
    points, options = [each.point() for each in device.shown], device.connection.options
    protocol = device.connection.protocol
    if protocol == "modbus":
        return ModbusEmulator(points, **{n: options[n] for n in _MODBUS if n in options})
    if protocol == "opcua":
        return OpcUaEmulator(points, clock=clock)
    assert broker is not None, "devices over MQTT have a broker"
    if protocol == "mqtt":
        return MqttJsonEmulator(
            points,
            endpoint=broker.mqtt_endpoint,
            username=broker.device_user,
            password=broker.device_password,
            timestamp=options.get("timestamp", ""),
            whole_object=options.get("missing_field", "bad") == "bad",
            client_id=f"device-{device.connection.name}",
            connection_endpoint="broker",
            clock=clock,
        )
    return SparkplugEmulator(
        points,
        endpoint=broker.mqtt_endpoint,
        username=broker.device_user,
        password=broker.device_password,
        birth="first_update",
        connection_endpoint="broker",
        clock=clock,
    )
