"""Shows a recording row after row through an emulator, no faster than its receiver takes it.

What keeps a row from being lost, by protocol:

========== ===================================================================================
modbus     record handshake: the next row is shown once this one was acknowledged
opcua      starts once a client has subscribed; waits while much is unpublished; the server
           keeps a history, from which a client that was away reads what it missed
mqtt       QoS 1: the next row goes out once the broker has this one; the receiver's
           persistent session holds it there
sparkplug  primary host: nothing is published while the host is offline, and the last seconds
           before its death are published again as historical
========== ===================================================================================

The position is kept on disk after each confirmed row, at most every quarter of a second; after a kill
the few rows since then are shown again with the same times, and a historian drops the copies.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import polars as pl

from headrace.bus.broker import write_private
from headrace.model import status as codes
from headrace.model.errors import Misconfigured, Transient
from headrace.model.time import Clock
from headrace.sim.emulators import Emulator, Value
from headrace.sim.emulators.modbus import ModbusEmulator
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from headrace.sim.emulators.opcua import OpcUaEmulator
from headrace.sim.emulators.sparkplug import SparkplugEmulator
from headrace.sim.replay.layout import Layout
from headrace.sim.replay.loader import TIME, Recording

SLICE_ROWS: Final = 1_000
SAVE_EVERY_S: Final = 0.25
ACKNOWLEDGE_S: Final = 1.0
UNPUBLISHED_ROWS_MAX: Final = 500
SETTLED_S: Final = 1.0
CONNECT_S: Final = 20.0
CONNECT_AGAIN_S: Final = 0.5
FINISH_QUIET_S: Final = 2.0
POLL_S: Final = 0.01
MARKS_MAX: Final = 1_000


class Flow(Protocol):
    """What one protocol does so that no row is lost.

    Attributes:
        certain_after_s: a row that was shown this long ago needs not be shown again after a kill.
    """

    certain_after_s: float

    async def begin(self, first_row: int) -> None:
        """Start the emulator; returns when the first row may be shown."""
        ...

    async def show(self, values: dict[str, Value], empty: list[str], at_us: int) -> None:
        """Show one row; returns when it may be counted as done."""
        ...

    async def finish(self) -> None:
        """Returns when the last row is where it cannot be lost any more, as far as can be known."""
        ...


@dataclass(frozen=True)
class Position:
    """How far a replay came.

    Attributes:
        sha256: of the recording. protocol: of the replay.
        endpoint: where it is served; the next run listens there again.
        rows: that are done.
    """

    sha256: str
    protocol: str
    endpoint: str
    rows: int

    def save(self, path: Path) -> None:
        """Keep it, whole or not at all."""
        write_private(path, json.dumps(self.__dict__))


def load_position(path: Path, recording: Recording, protocol: str) -> Position | None:
    """How far an earlier run of this replay came; None when there was none.

    Raises:
        Misconfigured: SIM-1120 when the file belongs to another recording or protocol, or is damaged.
    """
    try:
        position = Position(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise Misconfigured(
            "SIM-1120", f"{path} is no replay position", "Remove it to begin at the first row."
        ) from error
    if (position.sha256, position.protocol) != (recording.sha256, protocol):
        raise Misconfigured(
            "SIM-1120",
            f"{path} belongs to another recording or protocol ({position.protocol})",
            "Give each replay its own file, or remove it to begin at the first row.",
        )
    return position


class Player:
    """One replay.

    Args:
        recording: what is shown. layout: where. flow: how, so that nothing is lost.
        clock: for the pace; it never reads the wall clock.
        speed: times real time; 0 is as fast as the receiver takes it.
        position: where to begin. position_file: where to keep how far it came; None keeps nothing.
    """

    def __init__(
        self,
        recording: Recording,
        layout: Layout,
        flow: Flow,
        clock: Clock,
        *,
        speed: float = 1.0,
        position: Position,
        position_file: Path | None = None,
    ) -> None:
        self.recording = recording
        self.layout = layout
        self.flow = flow
        self.speed = speed
        self.rows = position.rows
        self._position = position
        self._clock = clock
        self._position_file = position_file
        self._saved_s = clock.monotonic_s()
        self._marks: deque[tuple[float, int]] = deque(
            [(self._saved_s, position.rows)], maxlen=MARKS_MAX
        )
        self._addresses = {key: layout.addresses(key) for key in {tag.key for tag in layout.tags}}

    async def run(self, stop: asyncio.Event, progress: Callable[[int], None]) -> None:
        """Show all rows that are left, or those until ``stop`` is set.

        Args:
            progress: called with the number of rows done, after each row.
        """
        await self._unless_stopped(stop, self.flow.begin(self.rows))
        frame, keys = self.recording.frame, self.recording.keys
        if self.rows >= frame.height or stop.is_set():
            return
        start_s, start_us = self._clock.monotonic_s(), _us(frame, self.rows)
        while self.rows < frame.height and not stop.is_set():
            part = frame.slice(self.rows, SLICE_ROWS)
            at_us = part[TIME].to_physical().to_list()
            part_keys = [""] * part.height
            if keys is not None:
                part_keys = keys.slice(self.rows, SLICE_ROWS).to_list()
            for row, at, key in zip(part.iter_rows(named=True), at_us, part_keys, strict=True):
                if self.speed > 0:
                    await self._wait_until(start_s + (at - start_us) / 1e6 / self.speed, stop)
                if stop.is_set():
                    break
                values, empty = _split(self._addresses[key], row)
                if not await self._unless_stopped(stop, self.flow.show(values, empty, at)):
                    break
                self.rows += 1
                self._keep(finished=False)
                progress(self.rows)
        certain = self.flow.certain_after_s == 0.0
        if not stop.is_set():
            certain |= await self._unless_stopped(stop, self.flow.finish())
        self._keep(finished=certain)

    def _keep(self, *, finished: bool) -> None:
        now_s = self._clock.monotonic_s()
        if self._position_file and (finished or now_s - self._saved_s >= SAVE_EVERY_S):
            self._saved_s = now_s
            self._marks.append((now_s, self.rows))
            limit_s = now_s - (0.0 if finished else self.flow.certain_after_s)
            while len(self._marks) > 1 and self._marks[1][0] <= limit_s:
                self._marks.popleft()
            replace(self._position, rows=self._marks[0][1]).save(self._position_file)

    async def _wait_until(self, at_s: float, stop: asyncio.Event) -> None:
        left_s = at_s - self._clock.monotonic_s()
        if left_s > 0:
            try:
                await asyncio.wait_for(stop.wait(), left_s)
            except TimeoutError:
                return

    async def _unless_stopped(self, stop: asyncio.Event, work: Any) -> bool:
        """True when the work was done; it is cancelled when ``stop`` is set before."""
        task = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait([task, stopping], return_when="FIRST_COMPLETED")
            if task.done():
                task.result()
                return True
            return False
        finally:
            stopping.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


def _us(frame: pl.DataFrame, row: int) -> int:
    return int(frame[TIME].slice(row, 1).to_physical()[0])


def _split(
    addresses: list[tuple[str, str]], row: dict[str, Any]
) -> tuple[dict[str, Value], list[str]]:
    """Values of a row by address, and the addresses where it has none."""
    values = {address: row[name] for name, address in addresses if row[name] is not None}
    return values, [address for name, address in addresses if row[name] is None]


async def _wait_while(busy: Callable[[], bool], poll_s: float = POLL_S) -> None:
    while busy():  # noqa: ASYNC110 # the driver has no event for it
        await asyncio.sleep(poll_s)


async def _connect(emulator: Emulator) -> None:
    """Start a publisher; as a device does, it tries again while its broker is away, for a while.

    Raises:
        Transient: the broker did not come within ``CONNECT_S``.
    """
    tries = int(CONNECT_S / CONNECT_AGAIN_S)
    for left in reversed(range(tries)):
        try:
            await emulator.start()
            return
        except Transient:
            if not left:
                raise
            await emulator.stop()
            await asyncio.sleep(CONNECT_AGAIN_S)


class ModbusFlow:
    """Record handshake; an empty field answers as a failed sensor would.

    Args:
        emulator: with record registers.
    """

    certain_after_s = 0.0

    def __init__(self, emulator: ModbusEmulator) -> None:
        self._emulator = emulator
        self._serving = False

    async def begin(self, first_row: int) -> None:
        """Nothing is shown before the first record: a client must not take zeros for data."""
        self._emulator.sequence = first_row

    async def show(self, values: dict[str, Value], empty: list[str], at_us: int) -> None:
        """Show one record and wait, for ever, until it was acknowledged."""
        status = dict.fromkeys(empty, codes.BAD_NO_DATA)
        await self._emulator.update(values, at_us, status)
        if not self._serving:
            await self._emulator.start()
            self._serving = True
        while True:
            try:
                sequence = self._emulator.sequence
                return await self._emulator.wait_acknowledged(sequence, ACKNOWLEDGE_S)
            except Transient:
                continue  # the receiver is away; the record stays until it is back

    async def finish(self) -> None:
        """The last record is acknowledged already."""


class OpcUaFlow:
    """Waits for a subscriber, keeps little unpublished, and keeps a history for clients that were
    away. After a resume the rows before go into the history first.

    Args:
        emulator: with history. recording, layout: of the replay.
    """

    certain_after_s = 0.0

    def __init__(self, emulator: OpcUaEmulator, recording: Recording, layout: Layout) -> None:
        self._emulator = emulator
        self._recording = recording
        self._layout = layout

    async def begin(self, first_row: int) -> None:
        """Listen, fill the history, wait until a client has subscribed."""
        await self._emulator.start()
        await self._remember(first_row)
        monitored, since_s = 0, 0.0
        loop = asyncio.get_running_loop()
        while monitored < len(self._layout.tags):
            await asyncio.sleep(POLL_S)
            now = self._emulator.monitored()
            if now != monitored or now == 0:
                monitored, since_s = now, loop.time()
            elif loop.time() - since_s >= SETTLED_S:
                break  # a client that takes a part of the tags has settled

    async def show(self, values: dict[str, Value], empty: list[str], at_us: int) -> None:
        """Show one row; an empty field leaves its tag as it is."""
        del empty
        await self._emulator.update(values, at_us)
        limit = UNPUBLISHED_ROWS_MAX * max(1, len(values))
        await _wait_while(lambda: self._emulator.pending() > limit)

    async def finish(self) -> None:
        """A connected client has taken everything, and asked for no history for a while."""
        quiet_s, reads_before = 0.0, -1
        while quiet_s < FINISH_QUIET_S:
            await asyncio.sleep(POLL_S)
            quiet_s += POLL_S
            waiting, unacknowledged, reads = self._emulator.activity()
            away = self._emulator.monitored() == 0
            # One notification stays unacknowledged until the client's next publish request.
            if waiting or unacknowledged > 1 or reads != reads_before or away:
                quiet_s, reads_before = 0.0, reads

    async def _remember(self, rows: int) -> None:
        frame = self._recording.frame.head(rows)
        keys = self._recording.keys
        for index, row in enumerate(frame.iter_rows(named=True)):
            key = "" if keys is None else keys[index]
            values, _ = _split(self._layout.addresses(key), row)
            await self._emulator.update(values, _us(frame, index))


class JsonFlow:
    """MQTT QoS 1: a row is done once the broker has it.

    Args:
        emulator: publishes what changed, not whole objects.
    """

    certain_after_s = 0.0

    def __init__(self, emulator: MqttJsonEmulator) -> None:
        self._emulator = emulator

    async def begin(self, first_row: int) -> None:
        """Connect to the broker, which may be starting itself."""
        del first_row
        await _connect(self._emulator)

    async def show(self, values: dict[str, Value], empty: list[str], at_us: int) -> None:
        """Publish one row; an empty field is left out."""
        del empty
        await self._emulator.update(values, at_us)
        await _wait_while(lambda: self._emulator.unacknowledged() > 0, POLL_S / 10)

    async def finish(self) -> None:
        """The broker has every row already."""


class SparkplugFlow:
    """Sparkplug B: the emulator follows the primary host and keeps a history of ``history_s``; this
    side stays that long after the last row, and begins that much earlier after a kill.

    Args:
        emulator: with primary host and history. history_s: of it.
    """

    def __init__(self, emulator: SparkplugEmulator, history_s: float) -> None:
        self._emulator = emulator
        self.certain_after_s = history_s

    async def begin(self, first_row: int) -> None:
        """Connect to the broker, which may be starting itself."""
        del first_row
        await _connect(self._emulator)

    async def show(self, values: dict[str, Value], empty: list[str], at_us: int) -> None:
        """Publish one row; an empty field is left out."""
        del empty
        await self._emulator.update(values, at_us)

    async def finish(self) -> None:
        """Stay while a host that died could still ask for what it missed."""
        await asyncio.sleep(self.certain_after_s)
