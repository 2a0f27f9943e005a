"""A device of the demo site: its emulator, kept in the state that the faults want it in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from headrace.bus.broker import BrokerAddress
from headrace.model.errors import HeadraceError, Refused
from headrace.sim.demo_devices import DemoDevice
from headrace.sim.emulators import Emulator, Point, Value, WriteHandler
from headrace.sim.emulators.modbus import ModbusEmulator
from headrace.sim.emulators.mqtt import MqttJsonEmulator
from headrace.sim.emulators.opcua import OpcUaEmulator
from headrace.sim.emulators.sparkplug import SparkplugEmulator

RETRY_S: Final = 1.0

Shown = Mapping[str, Value | Sequence[float]]
MakeEmulator = Callable[[DemoDevice, Sequence[Point], WriteHandler], Emulator]


def emulator_maker(ports: Mapping[str, int], address: BrokerAddress) -> MakeEmulator:
    """How to make the real emulator of a device.

    Args:
        ports: device name -> port, of those that listen.
        address: the broker of those that are its clients.
    """

    def make(device: DemoDevice, points: Sequence[Point], on_write: WriteHandler) -> Emulator:
        if device.protocol == "opcua":
            endpoint = device.endpoint(ports[device.name])
            return OpcUaEmulator(points, endpoint=endpoint, on_write=on_write)
        if device.protocol == "modbus":
            endpoint = device.endpoint(ports[device.name])
            return ModbusEmulator(points, endpoint=endpoint, on_write=on_write)
        if device.protocol == "mqtt":
            return MqttJsonEmulator(
                points,
                endpoint=address.mqtt_endpoint,
                username=address.device_user,
                password=address.device_password,
                tls_files=address.client_files,
                on_write=on_write,
                timestamp=device.options["timestamp"],
                client_id=device.name,
                connection_endpoint="broker",
            )
        return SparkplugEmulator(
            points,
            endpoint=address.mqtt_endpoint,
            username=address.device_user,
            password=address.device_password,
            tls_files=address.client_files,
            on_write=on_write,
            birth="first_update",
            connection_endpoint="broker",
        )

    return make


class SimDevice:
    """One device: a worker starts and stops its emulator and hands it the newest values.

    Only the newest change waits while the emulator is busy; a real device overwrites its registers
    too. Implements :class:`headrace.sim.faults.Device`.

    Args:
        device: what it is.
        make: how to make its emulator.
        on_write: called with tag path and value, in the plant's own unit, for each write.
    """

    def __init__(
        self, device: DemoDevice, make: MakeEmulator, on_write: Callable[[str, Value], None]
    ) -> None:
        self.device = device
        self.error = ""
        self.serving = False
        self._on_write = on_write
        self._off = False
        self._pending: dict[str, Value | Sequence[float]] = {}
        self._pending_at_us = 0
        self._changed = asyncio.Event()
        points = [tag.point() for tag in device.tags]
        self._emulator = make(device, points, self._written)

    def set_off(self, off: bool) -> None:
        """Take the device's power away, or give it back."""
        self._off = off
        self._changed.set()

    def set_delay(self, delay_s: float) -> None:
        """Every answer waits that long."""
        self._emulator.delay_s = delay_s

    def set_clock_offset(self, offset_us: int) -> None:
        """Its clock goes wrong by that much."""
        self._emulator.clock_offset_us = offset_us

    def show(self, values: Shown, at_us: int) -> None:
        """Give it new values (address -> raw value) of one moment; never waits."""
        if not self._off:
            self._pending.update(values)
            self._pending_at_us = at_us
            self._changed.set()

    async def run(self) -> None:
        """Keep the emulator served until cancelled."""
        try:
            while True:
                await self._keep()
        finally:
            if self.serving:
                self.serving = False
                await self._emulator.stop()

    async def _keep(self) -> None:
        try:
            if self._off and self.serving:
                self.serving = False
                self._pending.clear()
                await self._emulator.stop()
            elif not self._off and not self.serving:
                await self._start()
            elif self.serving and self._pending:
                values, self._pending = self._pending, {}
                await self._emulator.update(values, self._pending_at_us)
            else:
                self._changed.clear()
                await self._changed.wait()
            self.error = ""
        except (HeadraceError, OSError) as error:
            # The broker is away, or the port is still taken: the device tries again for ever.
            self.error = str(error)
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), RETRY_S)

    async def _start(self) -> None:
        if self.device.protocol == "modbus":
            # Registers have no quality: nobody may read the zeros from before the first values.
            while not self._pending:
                self._changed.clear()
                await self._changed.wait()
            values, self._pending = self._pending, {}
            await self._emulator.update(values, self._pending_at_us)
        await self._emulator.start()
        self.serving = True

    def _written(self, address: str, raw: Value) -> None:
        tag = self.device.by_address[address]
        try:
            self._on_write(tag.path, tag.value(raw))
        except Refused as error:
            # As a controller does with a nonsensical setpoint: it goes on with the old one.
            self.error = str(error)
