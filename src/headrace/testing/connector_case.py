"""What the contract suite must know of a connector, and the rig that holds it and its device."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from headrace.edge.contract import (
    Connector,
    ConnectorContext,
    ConnectorType,
    Reading,
    ScanGroup,
)
from headrace.model import status as status_codes
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import Misconfigured
from headrace.model.sample import EXACT_INTEGER_MAX, check_batch
from headrace.model.time import Clock, SystemClock
from headrace.sim.emulators import Emulator, Value

Expected = Value | Sequence[float]
REPUBLISH_S = 0.5
"""Mode subscribe: the device shows its values again when nothing came for so long."""


class Server(Protocol):
    """The other side of the connection when it is not the emulator itself (an MQTT broker)."""

    async def start(self) -> None:
        """Listen, always on the same port."""
        ...

    async def stop(self) -> None:
        """Close hard."""
        ...


@dataclass(frozen=True)
class ConnectorCase:
    """One connector and a device for it, as the contract suite needs them.

    Attributes:
        connector: the object that the entry point names.
        make_emulator: a new device that has every address of ``expected``; called once a check, it
            chooses a free port.
        expected: tag address -> value. The suite shows it with ``Emulator.update`` and wants it from
            ``read``: numbers exactly as float64, integers above 2**53 also in text, text in text.
        endpoint: what the connection's endpoint is; None takes the emulator's own.
        server: when the emulator is a client of something (MQTT): that something, which the suite
            starts first, kills and starts again. None: the emulator is the server.
        options: the connection's settings.
        tag_settings: address -> further ``TagConfig`` fields (``sample_interval_us``...).
        show: values for ``update`` where they are not ``expected`` itself (arrays, foreign addresses).
        missing_address: well-formed, and unknown to the device; "" skips the check of one bad tag
            (a protocol where unknown and silent are the same).
        nonsense_addresses: what ``check_tag`` must refuse; ``""`` is tried anyway.
        nonsense_connections: (endpoint, options) that ``check_connection`` must refuse; an unknown
            option is tried anyway.
        writes: address -> value that the device takes (ability write).
        writes_refused: address -> value that the device refuses.
        writes_impossible: address -> value that the tag's type cannot hold.
        browse_finds: addresses that a walk from the root must meet (ability browse).
        browse_depth_max: levels of folders that the walk enters.
        drivers: top-level modules that the connector's module may not import.
        device_time: samples carry the emulator's source timestamp exactly.
        slow_device: a device slower than ``timeout_s`` must raise Transient from ``read``.
        timeout_s: the connection's own timeout, as set in ``options``; the suite grants 3 s more.
        context: fields of the :class:`ConnectorContext` to replace (``mqtt_endpoint``...).
    """

    connector: ConnectorType
    make_emulator: Callable[[], Emulator]
    expected: Mapping[str, Expected]
    endpoint: str | None = None
    server: Server | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tag_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    show: Mapping[str, Expected] | None = None
    missing_address: str = ""
    nonsense_addresses: Sequence[str] = ()
    nonsense_connections: Sequence[tuple[str, Mapping[str, Any]]] = ()
    writes: Mapping[str, float | str] = field(default_factory=dict)
    writes_refused: Mapping[str, float | str] = field(default_factory=dict)
    writes_impossible: Mapping[str, float | str] = field(default_factory=dict)
    browse_finds: Sequence[str] = ()
    browse_depth_max: int = 6
    drivers: Sequence[str] = ()
    device_time: bool = False
    slow_device: bool = True
    timeout_s: float = 1.0
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def limit_s(self) -> float:
        """How long one call may take before the suite says that it hangs."""
        return self.timeout_s + 3.0

    def tags(self, addresses: Sequence[str]) -> tuple[TagConfig, ...]:
        """Tags with ids 1, 2, 3... for the addresses."""
        return tuple(self.tag(address, number) for number, address in enumerate(addresses, 1))

    def tag(self, address: str, tag_id: int = 1) -> TagConfig:
        """One tag for an address, with its ``tag_settings``."""
        settings: dict[str, Any] = {"scan_interval_ms": 100, "writable": True}
        settings |= self.tag_settings.get(address, {})
        return TagConfig(tag_id=tag_id, path=f"suite/tag_{tag_id}", address=address, **settings)

    def group(self, *more: str) -> ScanGroup:
        """All expected addresses, then ``more``, as one scan group."""
        return ScanGroup(100, self.tags([*self.expected, *more]))


class Rig:
    """A running device, a connection to it, and every connector that was opened on the way."""

    def __init__(self, case: ConnectorCase, emulator: Emulator, certificates: Path) -> None:
        self.case = case
        self.emulator = emulator
        self.clock: Clock = SystemClock()
        self.shown_us: list[int] = []
        self.server_up = case.server is not None
        self.emulator_up = True
        self._certificates = certificates

    @property
    def connection(self) -> ConnectionConfig:
        """The connection's settings, with every expected tag."""
        return ConnectionConfig(
            name="suite",
            protocol=self.case.connector.protocol,
            endpoint=self.case.endpoint or self.emulator.endpoint,
            options=dict(self.case.options),
            tags=self.case.tags(list(self.case.expected)),
        )

    def open(self) -> Connector:
        """A new connector object, not connected."""
        fields: dict[str, Any] = {
            "clock": self.clock,
            "certificates": self._certificates,
            "secret": _no_secret,
        }
        return self.case.connector.open(
            self.connection, ConnectorContext(**(fields | dict(self.case.context)))
        )

    async def kill(self) -> None:
        """Cut the power of what the connector talks to."""
        if self.case.server is not None:
            self.server_up = False
            await self.case.server.stop()
        else:
            self.emulator_up = False
            await self.emulator.stop()

    async def revive(self) -> None:
        """Switch on again what was killed; the device shows its values anew."""
        if self.case.server is not None:
            await self.emulator.stop()
            self.emulator_up = False
            await self.case.server.start()
            self.server_up = True
        await self.emulator.start()
        self.emulator_up = True
        await self.show()

    async def shut_down(self) -> None:
        """Stop what still runs."""
        if self.emulator_up:
            await self.emulator.stop()
        if self.server_up and self.case.server is not None:
            await self.case.server.stop()

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[Connector]:
        """A connected connector, closed afterwards."""
        connector = self.open()
        try:
            await self.in_time(connector.connect(), "connect")
            yield connector
        finally:
            await self.in_time(connector.close(), "close")

    async def in_time(self, awaitable: Any, what: str) -> Any:
        """The result, or an AssertionError when it hangs."""
        try:
            async with asyncio.timeout(self.case.limit_s) as limit:
                return await awaitable
        except TimeoutError:
            if limit.expired():
                raise AssertionError(f"{what} hangs for {self.case.limit_s} s") from None
            raise

    async def show(self) -> None:
        """Let the device show the expected values, with a new device time."""
        values = self.case.expected if self.case.show is None else self.case.show
        at_us = max(self.clock.now_us(), (self.shown_us or [0])[-1] + 1)
        self.shown_us.append(at_us)
        await self.emulator.update(values, at_us)

    async def next_reading(self, connector: Connector, group: ScanGroup) -> Reading:
        """One reading; in mode subscribe the device shows its values until something comes."""
        if self.case.connector.mode == "poll":
            reading = await self.in_time(connector.read(group), "read")
        else:
            reading = await self.in_time(self._pushed(connector, group), "read")
        assert isinstance(reading, Reading), f"read gave {type(reading).__name__}, not a Reading"
        check_batch(reading.batch)
        asked = {tag.tag_id for tag in group.tags}
        given = set(reading.batch["tag_id"].to_list())
        assert given <= asked, f"samples of tags that were not asked for: {sorted(given - asked)}"
        assert reading.expected >= reading.batch.height or self.case.tag_settings, (
            f"{reading.batch.height} samples, but only {reading.expected} were expected"
        )
        if reading.acknowledge is not None:
            await self.in_time(reading.acknowledge(), "acknowledge")
        return reading

    async def _pushed(self, connector: Connector, group: ScanGroup) -> Reading:
        task = asyncio.ensure_future(connector.read(group))
        try:
            while not (await asyncio.wait({task}, timeout=REPUBLISH_S))[0]:
                await self.show()
            return await task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def collect(self, connector: Connector, group: ScanGroup) -> tuple[pl.DataFrame, Reading]:
        """The last sample of every tag of the group, and the reading that completed it."""
        wanted = {tag.tag_id for tag in group.tags}
        batches: list[pl.DataFrame] = []
        deadline_s = self.clock.monotonic_s() + 2 * self.case.limit_s
        errors: dict[int, str] = {}
        while wanted:
            assert self.clock.monotonic_s() < deadline_s, f"no samples of the tags {sorted(wanted)}"
            reading = await self.next_reading(connector, group)
            batches.append(reading.batch)
            errors |= reading.tag_errors
            wanted -= set(reading.batch["tag_id"].to_list())
        reading.tag_errors = errors
        return pl.concat(batches), reading


def _no_secret(name: str) -> str:
    raise Misconfigured("EDGE-3090", f"the suite has no secret {name!r}")


@contextlib.asynccontextmanager
async def running(case: ConnectorCase) -> AsyncIterator[Rig]:
    """The case's device (and server), started, and stopped afterwards."""
    with tempfile.TemporaryDirectory(prefix="check_connector_") as folder:
        if case.server is not None:
            await case.server.start()
        emulator = case.make_emulator()
        await emulator.start()
        rig = Rig(case, emulator, Path(folder))
        try:
            await rig.show()
            yield rig
        finally:
            await rig.shut_down()


def assert_shows(rig: Rig, batch: pl.DataFrame, group: ScanGroup) -> None:
    """The last sample of each tag is Good and is exactly what the device shows."""
    for tag in group.tags:
        if tag.address not in rig.case.expected:
            continue
        rows = batch.filter(pl.col("tag_id") == tag.tag_id)
        want = rig.case.expected[tag.address]
        if isinstance(want, Sequence) and not isinstance(want, str):
            assert rows["value"].tail(len(want)).to_list() == list(want), (
                f"{tag.address}: the array is {rows['value'].tail(len(want)).to_list()}, not {want}"
            )
            continue
        row = rows.row(-1, named=True)
        code = row["status"]
        assert status_codes.is_good(code), f"{tag.address} is {status_codes.name(code)}, not Good"
        assert_value(tag.address, want, row["value"], row["text"])


def assert_value(address: str, want: Value, value: float | None, text: str | None) -> None:
    """One sample's number and text are what the model wants for ``want``."""
    if isinstance(want, str):
        assert text == want, f"{address}: text is {text!r}, not {want!r}"
        assert value is None, f"{address}: a text has the number {value!r}"
        return
    assert value is not None, f"{address}: no number where {want!r} was shown"
    same = value == float(want) or (math.isnan(value) and math.isnan(want))
    assert same, f"{address}: the value is {value!r}, not {want!r}"
    if isinstance(want, int) and abs(want) > EXACT_INTEGER_MAX:
        assert text == str(want), f"{address}: text is {text!r}, not the exact digits {want}"


def socket_count() -> int:
    """Open sockets of this process (Linux)."""
    count = 0
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a Path object a descriptor is waste
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")  # noqa: PTH115
    return count
