"""A Modbus device on loopback: a real pymodbus server over our own memory of registers.

Framing, PDUs and connections are pymodbus's; the memory behind them is ours, so that a change of many
points is one atomic change, each point can fail for itself (exception 4, as a broken sensor would), and
the device can show numbered records that it keeps until the client acknowledges them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from pymodbus.constants import ExcCodes
from pymodbus.framer import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType as PymodbusType
from pymodbus.simulator import SimData, SimDevice

from headrace.bus.broker import free_port
from headrace.edge.connectors.modbus import parse_endpoint
from headrace.edge.connectors.modbus.address import (
    BIT_TABLES,
    Address,
    Addressing,
    Grammar,
    Table,
)
from headrace.edge.connectors.modbus.columns import ColumnDecoder, Place
from headrace.edge.connectors.modbus.datatype import Order, encode, permutation, whole_number
from headrace.model import status as codes
from headrace.model.errors import Misconfigured, Transient
from headrace.sim.emulators import Point, Value, WriteHandler

# pymodbus dumps its frames to stderr when a client goes away, which a device's user does on purpose.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL + 1)

_TICK_US: Final = {"us": 1, "ms": 1_000, "s": 1_000_000}
_TABLE: Final[dict[int, Table]] = {1: "coil", 5: "coil", 15: "coil", 2: "discrete", 4: "input"}


class _Memory:
    """One table of one unit: 65,536 places, of which some exist."""

    def __init__(self) -> None:
        self.values = np.zeros(1 << 16, np.uint16)
        self.exists = np.zeros(1 << 16, np.bool_)
        self.writable = np.zeros(1 << 16, np.bool_)
        self.broken = np.zeros(1 << 16, np.bool_)


@dataclass(frozen=True)
class _Cell:
    """Where a point is."""

    point: Point
    address: Address

    @property
    def slice(self) -> slice:
        return slice(self.address.register, self.address.register + self.address.count)


class ModbusEmulator:
    """One Modbus device (or a gateway with several units); see :class:`headrace.sim.emulators.Emulator`.

    Args:
        points: what it shows; addresses in the connector's own grammar.
        endpoint: ``host:port`` to listen on; "" takes a free port of 127.0.0.1.
        on_write: called with (address, value) after a client wrote a point.
        framing: ``tcp`` or ``rtu_over_tcp``.
        timestamp: where the time of the last update stands, ``holding:0:uint64@us`` (``@ms``, ``@s``).
        record_sequence: where the number of the last update stands; counts up from 1.
        record_acknowledge: where the client writes the number that it has safe.
        addressing, unit_id, byte_order: as of the connection.

    Raises:
        Misconfigured: SIM-3001 for settings, EDGE-3050 for addresses.

    Example::

        device = ModbusEmulator([Point("holding:0:float32", initial=20.5)])
        await device.start()
        await device.update({"holding:0:float32": 21.0}, source_timestamp_us=1)
    """

    def __init__(
        self,
        points: Sequence[Point],
        endpoint: str = "",
        on_write: WriteHandler | None = None,
        *,
        framing: Literal["tcp", "rtu_over_tcp"] = "tcp",
        timestamp: str = "",
        record_sequence: str = "",
        record_acknowledge: str = "",
        addressing: Addressing = "zero_based",
        unit_id: int = 1,
        byte_order: Order = "ABCD",
    ) -> None:
        self.endpoint = endpoint
        self.delay_s = 0.0
        self.clock_offset_us = 0
        self.sequence = 0
        self.acknowledged = 0
        self._on_write = on_write
        self._framing = framing
        self._grammar = Grammar(addressing, unit_id, byte_order)
        self._memories: dict[tuple[int, Table], _Memory] = {}
        self._cells: dict[str, _Cell] = {}
        self._server: Any = None
        self._stopped = asyncio.Event()
        self._progress = asyncio.Event()
        for point in points:
            self._add(point)
        clock, _, tick = timestamp.partition("@")
        if timestamp and tick not in _TICK_US:
            raise Misconfigured(
                "SIM-3001", f"timestamp {timestamp!r} has no tick", "End it in @us, @ms or @s."
            )
        self._tick_us = _TICK_US.get(tick, 1)
        self._clock = self._add(Point(clock, "uint64")) if clock else None
        self._record = self._add(Point(record_sequence)) if record_sequence else None
        self._acknowledge = (
            self._add(Point(record_acknowledge, writable=True)) if record_acknowledge else None
        )

    async def start(self) -> None:
        """Listen; a second start uses the same port and shows the same values.

        Raises:
            Transient: SIM-3002 when the port is taken.
        """
        assert self._server is None, "start and stop alternate"
        host, port = (
            parse_endpoint(self.endpoint, "emulator")
            if self.endpoint
            else ("127.0.0.1", free_port())
        )
        unused = SimDevice(0, SimData(0, datatype=PymodbusType.REGISTERS))
        framer = FramerType.RTU if self._framing == "rtu_over_tcp" else FramerType.SOCKET
        # Any: pymodbus types its store as its own classes, and transports as their bare base.
        server: Any = ModbusTcpServer(unused, framer=framer, address=(host, port))
        server.context = self
        try:
            await server.serve_forever(background=True)
        except RuntimeError as error:
            raise Transient(
                "SIM-3002", f"cannot listen on {host}:{port}", "Choose a free port."
            ) from error
        self._server = server
        self._stopped.clear()
        self.endpoint = f"{host}:{server.transport.sockets[0].getsockname()[1]}"

    async def update(
        self,
        values: Mapping[str, Value | Sequence[float]],
        source_timestamp_us: int,
        status: Mapping[str, int] | None = None,
    ) -> None:
        """Set points as one change, with its time and, with records, its number.

        Raises:
            Misconfigured: SIM-3003 for an unknown point or an array, EDGE-3032 for a value that its
                type cannot hold; nothing changed then.
        """
        prepared = [(self._cell(address), value) for address, value in values.items()]
        bad = {self._cell(address): code for address, code in (status or {}).items()}
        changes = [(cell, self._registers(cell, value)) for cell, value in prepared]
        extra = []
        if self._clock is not None:
            ticks = (source_timestamp_us + self.clock_offset_us) / self._tick_us
            whole = (source_timestamp_us + self.clock_offset_us) // self._tick_us
            floating = self._clock.address.data_type.kind == "float"
            extra.append((self._clock, ticks if floating else whole))
        if self._record is not None:
            size = self._record.address.data_type.size
            limit = (1 << 8 * size - (self._record.address.data_type.kind == "int")) - 1
            self.sequence = self.sequence % limit + 1
            extra.append((self._record, self.sequence))
        changes += [(cell, self._registers(cell, value)) for cell, value in extra]
        for cell, registers in changes:
            self._store(cell, registers)
            self._memory(cell.address).broken[cell.slice] = False
        for cell, code in bad.items():
            self._memory(cell.address).broken[cell.slice] = codes.is_bad(code)

    async def wait_acknowledged(self, sequence: int, timeout_s: float) -> None:
        """Wait until the client has acknowledged the record with this number.

        Raises:
            Transient: SIM-3004 when it did not in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self.acknowledged != sequence:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError as error:
            raise Transient(
                "SIM-3004",
                f"record {sequence} was not acknowledged within {timeout_s:g} s; the last one "
                f"was {self.acknowledged}",
                "Check that the edge reads this device and that its broker is up.",
            ) from error

    async def stop(self) -> None:
        """Cut all connections at once."""
        self._stopped.set()
        server, self._server = self._server, None
        if server is None:
            return
        for connection in list(server.active_connections.values()):
            if connection.transport is not None:
                connection.transport.abort()
        await server.shutdown()
        await asyncio.sleep(0)  # the transports close in the loop's next turn

    # What pymodbus's server asks its store for.

    def device_ids(self) -> list[int]:
        """Units that exist; pymodbus asks for broadcasts."""
        return sorted({unit for unit, _ in self._memories})

    async def async_getValues(  # the name is pymodbus's
        self, device_id: int, func_code: int, address: int, count: int = 1
    ) -> list[int] | list[bool] | ExcCodes:
        """Registers or bits for a client, or a Modbus exception."""
        await self._be_slow()
        table = _TABLE.get(func_code, "holding")
        memory = self._memories.get((device_id, table))
        if memory is None:
            return self._absent(device_id)
        places = slice(address, address + count)
        if address + count > 1 << 16 or not memory.exists[places].all():
            return ExcCodes.ILLEGAL_ADDRESS
        if memory.broken[places].any():
            return ExcCodes.DEVICE_FAILURE
        values = memory.values[places]
        shown: list[int] = (values.astype(bool) if table in BIT_TABLES else values).tolist()
        return shown

    async def async_setValues(  # the name is pymodbus's
        self, device_id: int, func_code: int, address: int, values: Sequence[int] | Sequence[bool]
    ) -> ExcCodes | None:
        """A client writes; None when it may."""
        await self._be_slow()
        memory = self._memories.get((device_id, _TABLE.get(func_code, "holding")))
        if memory is None:
            return self._absent(device_id)
        places = slice(address, address + len(values))
        if not memory.writable[places].all():
            return ExcCodes.ILLEGAL_ADDRESS
        memory.values[places] = values
        self._tell_written(device_id, _TABLE.get(func_code, "holding"), places)
        return None

    def _absent(self, unit: int) -> ExcCodes:
        known = unit in self.device_ids()
        return ExcCodes.ILLEGAL_ADDRESS if known else ExcCodes.GATEWAY_NO_RESPONSE

    async def _be_slow(self) -> None:
        if self.delay_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), self.delay_s)

    def _tell_written(self, unit: int, table: Table, places: slice) -> None:
        for cell in self._cells.values():
            at = cell.address
            apart = at.register >= places.stop or at.register + at.count <= places.start
            if (at.unit, at.table) != (unit, table) or apart or not cell.point.writable:
                continue
            value = self._value(cell)
            if cell is self._acknowledge:
                self.acknowledged = int(value)
                self._progress.set()
            elif self._on_write is not None:
                self._on_write(cell.point.address, value)

    def _add(self, point: Point) -> _Cell:
        cell = _Cell(point, self._grammar.parse(point.address))
        self._cells[point.address] = cell
        memory = self._memory(cell.address)
        memory.exists[cell.slice] = True
        memory.writable[cell.slice] |= point.writable
        textual = cell.address.data_type.kind == "string"
        initial = point.initial
        if textual and not isinstance(initial, str):
            initial = ""
        self._store(cell, self._registers(cell, initial))
        return cell

    def _cell(self, address: str) -> _Cell:
        cell = self._cells.get(address)
        if cell is None:
            raise Misconfigured(
                "SIM-3003",
                f"the Modbus emulator has no point {address!r}",
                "Give it a Point with exactly this address.",
            )
        return cell

    def _memory(self, address: Address) -> _Memory:
        return self._memories.setdefault((address.unit, address.table), _Memory())

    def _registers(self, cell: _Cell, value: Value | Sequence[float]) -> Any:
        """What the point's places hold for a value: uint16, shape (count,)."""
        data_type = cell.address.data_type
        if isinstance(value, Sequence) and not isinstance(value, str):
            raise Misconfigured(
                "SIM-3003",
                f"the point {cell.point.address!r} cannot be an array",
                "A Modbus point is one value.",
            )
        if data_type.kind == "coil":
            return np.array([bool(value)], np.uint16)
        if data_type.kind == "bit":
            old = int(self._memory(cell.address).values[cell.address.register])
            swapped = permutation(data_type, cell.address.order) == (1, 0)
            mask = 1 << (data_type.bit ^ (8 if swapped else 0))
            on = whole_number(data_type, value)
            return np.array([old | mask if on else old & ~mask], np.uint16)
        raw = encode(data_type, cell.address.order, value, "utf-8")
        return np.frombuffer(raw, ">u2")

    def _store(self, cell: _Cell, registers: Any) -> None:
        if cell.address.data_type.kind == "bit":  # other bits of the register may have changed too
            memory = self._memory(cell.address)
            data_type, order = cell.address.data_type, cell.address.order
            mask = 1 << (data_type.bit ^ (8 if permutation(data_type, order) == (1, 0) else 0))
            old = int(memory.values[cell.address.register])
            registers = np.array([old & ~mask | int(registers[0]) & mask], np.uint16)
        self._memory(cell.address).values[cell.slice] = registers

    def _value(self, cell: _Cell) -> Value:
        """What a point shows now, as its type's own Python value."""
        data_type = cell.address.data_type
        registers = self._memory(cell.address).values[cell.slice]
        if data_type.kind == "coil":
            return bool(registers[0])
        raw = registers.astype(">u2").tobytes()
        place = Place(0, data_type, cell.address.order)
        columns = ColumnDecoder([place], "utf-8").decode(raw)
        text = columns.text[0] if columns.text else None
        if text is not None:
            return text if data_type.kind == "string" else int(text)
        number = float(columns.value[0])
        if data_type.kind == "bit":
            return bool(number)
        return number if data_type.kind == "float" else int(number)
