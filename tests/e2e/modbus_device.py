"""A Modbus server of a test, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading

from headrace.sim.emulators import Point
from headrace.sim.emulators.modbus import ModbusEmulator


class Device:
    """One server with one number, ``holding:0:float32``."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.emulator = ModbusEmulator([Point("holding:0:float32", "float32", 21.5)])
        self._do(self.emulator.start())

    def stop(self) -> None:
        self._do(self.emulator.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _do(self, work) -> None:  # type: ignore[no-untyped-def] # any coroutine
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
