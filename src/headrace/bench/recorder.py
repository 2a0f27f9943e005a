"""Records a live device through its connector: only reads, at the pace that was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import polars as pl

from headrace.bench.device_recording import (
    EXCHANGES,
    SAMPLES,
    DeviceRecording,
    RecordedDevice,
    RecordedPoint,
    without_secrets,
)
from headrace.edge.catalog import connector_type
from headrace.edge.contract import BrowseItem, Connector, ConnectorContext, Reading, ScanGroup
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import HeadraceError, Misconfigured, Transient
from headrace.model.sample import microseconds
from headrace.model.time import US_PER_S

POINTS_MAX: Final = 5_000
DEPTH_MAX: Final = 8
FOLDERS_MAX: Final = 500
ROWS_MAX: Final = 20_000_000
AGAIN_S: Final = 1.0
_OF_THE_SERVER: Final = ("i=2253", "ns=0;i=2253")
"""The Server object (OPC 10000-5, 8.3.2): thousands of nodes of the server itself, not of the plant."""
Tell = Callable[[float, int, int], None]
"""(seconds, samples, errors) until now."""


async def find_points(
    connection: ConnectionConfig, context: ConnectorContext
) -> list[RecordedPoint]:
    """What the device says that it has, by browsing it from its root.

    Raises:
        Misconfigured: APPS-2432 when its protocol does not tell.
        HeadraceError: what the connector says.
    """
    kind = connector_type(connection.protocol)
    session = kind.open(connection, context)
    browse = getattr(session, "browse", None)
    if "browse" not in kind.abilities or browse is None:
        raise _name_them(connection)
    try:
        await session.connect()
        found: dict[str, RecordedPoint] = {}
        folders = [("", 0)]
        seen = {""}
        while folders and len(found) < POINTS_MAX and len(seen) < FOLDERS_MAX:
            address, depth = folders.pop(0)
            items: list[BrowseItem] = await browse(address)
            for item in items:
                if not item.folder:
                    found.setdefault(item.address, _point(item))
                elif depth < DEPTH_MAX and item.address not in (*seen, *_OF_THE_SERVER):
                    seen.add(item.address)
                    folders.append((item.address, depth + 1))
    finally:
        await session.close()
    if not found:
        raise _name_them(connection)
    return list(found.values())


def _name_them(connection: ConnectionConfig) -> Misconfigured:
    return Misconfigured(
        "APPS-2432",
        f"{connection.endpoint} does not say what it has",
        "Name what to record: --address ADDRESS, several.",
    )


def _point(item: BrowseItem) -> RecordedPoint:
    return RecordedPoint(
        address=item.address,
        name=item.name,
        data_type=item.data_type,
        unit=item.unit,
        writable=item.writable,
    )


async def record_device(
    connection: ConnectionConfig,
    points: Sequence[RecordedPoint],
    context: ConnectorContext,
    for_s: float,
    *,
    interval_ms: int = 1_000,
    tell: Tell = lambda seconds, samples, errors: None,
) -> DeviceRecording:
    """Record a device for some time; a lost connection is recorded, and opened again.

    Args:
        points: what to read. for_s: by the clock of the context. interval_ms: of polls, or sampling.

    Raises:
        Misconfigured: when endpoint, settings or an address cannot be.
    """
    recorder = _Recorder(connection, points, context, interval_ms)
    clock = context.clock
    begin_s = clock.monotonic_s()
    started_us = clock.now_us()
    while (left_s := begin_s + for_s - clock.monotonic_s()) > 0 and recorder.rows < ROWS_MAX:
        try:
            async with asyncio.timeout(left_s):
                await recorder.session(
                    lambda: tell(clock.monotonic_s() - begin_s, recorder.rows, recorder.errors)
                )
        except TimeoutError:
            break
    device = RecordedDevice(
        protocol=connection.protocol,
        endpoint=connection.endpoint,
        points=list(points),
        options=without_secrets(connection.options),
        started_us=started_us,
        seconds=round(clock.monotonic_s() - begin_s, 3),
    )
    return recorder.recording(device)


class _Recorder:
    def __init__(
        self,
        connection: ConnectionConfig,
        points: Sequence[RecordedPoint],
        context: ConnectorContext,
        interval_ms: int,
    ) -> None:
        self._kind = connector_type(connection.protocol)
        tags = tuple(
            TagConfig(
                tag_id=number,
                path=f"bench/point_{number}",
                address=point.address,
                scan_interval_ms=interval_ms,
            )
            for number, point in enumerate(points)
        )
        self._connection = ConnectionConfig(
            name=connection.name,
            protocol=connection.protocol,
            endpoint=connection.endpoint,
            options=connection.options,
            tags=tags,
        )
        self._kind.check_connection(self._connection)
        for tag in tags:
            self._kind.check_tag(tag)
        self._group = ScanGroup(interval_ms, tags)
        self._context = context
        self._interval_s = interval_ms / 1_000
        self._batches: list[tuple[int, pl.DataFrame]] = []
        self._exchanges: list[tuple[int, int, int, str | None]] = []
        self.rows = 0
        self.errors = 0

    async def session(self, tell: Callable[[], None]) -> None:
        """One session with the device, until it fails."""
        clock = self._context.clock
        session = self._kind.open(self._connection, self._context)
        asked_us, begin_s = clock.now_us(), clock.monotonic_s()
        try:
            await session.connect()
            due_s = clock.monotonic_s()
            while self.rows < ROWS_MAX:
                asked_us, begin_s = clock.now_us(), clock.monotonic_s()
                await self._read(session, asked_us, begin_s)
                tell()
                due_s = max(due_s + self._interval_s, clock.monotonic_s())
                if self._kind.mode == "poll":
                    await asyncio.sleep(due_s - clock.monotonic_s())
        except Misconfigured:
            raise
        except (HeadraceError, OSError) as error:
            self.errors += 1
            took_us = round((clock.monotonic_s() - begin_s) * US_PER_S)
            self._exchanges.append((asked_us, took_us, 0, str(error)))
            wait_s = error.retry_after_s if isinstance(error, Transient) else None
            await asyncio.sleep(min(wait_s or AGAIN_S, AGAIN_S))
        finally:
            await session.close()

    async def _read(self, session: Connector, asked_us: int, begin_s: float) -> None:
        reading: Reading = await session.read(self._group)
        took_us = round((self._context.clock.monotonic_s() - begin_s) * US_PER_S)
        failed = "; ".join(sorted(set(reading.tag_errors.values()))) or None
        self.errors += failed is not None
        self._exchanges.append((asked_us, took_us, reading.batch.height, failed))
        self._batches.append((len(self._exchanges) - 1, reading.batch))
        self.rows += reading.batch.height
        if reading.acknowledge is not None:
            await reading.acknowledge()

    def recording(self, device: RecordedDevice) -> DeviceRecording:
        """All that was recorded."""
        frames = [
            pl.DataFrame(
                {
                    "exchange": pl.Series([number]).new_from_index(0, batch.height),
                    "point": batch["tag_id"],
                    "at_us": microseconds(batch["source_timestamp"]),
                    "received_us": microseconds(batch["received_timestamp"]),
                    "value": batch["value"],
                    "text": batch["text"],
                    "status": batch["status"],
                },
                schema=SAMPLES,
            )
            for number, batch in self._batches
        ]
        samples = pl.concat([pl.DataFrame(schema=SAMPLES), *frames])
        exchanges = pl.DataFrame(self._exchanges, schema=EXCHANGES, orient="row")
        return DeviceRecording(device, samples, exchanges)
