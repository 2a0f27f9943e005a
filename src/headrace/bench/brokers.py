"""A broker of the bench's own, on loopback, for devices that are clients of one."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any, Final

from headrace.bus.broker import prepare_address, start_broker
from headrace.model.errors import Terminal
from headrace.model.folder import DataFolder

PATIENCE_S: Final = 60.0
_AGAIN_S: Final = 0.05


class BenchBroker:
    """The platform's broker as a child process, always on the same ports; a
    :class:`headrace.testing.connector_case.Server` too.

    Args:
        folder: that it may fill.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = DataFolder(folder)
        self.address = prepare_address(self._folder)
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            Terminal: APPS-2460 when it does not.
        """
        self._process = start_broker(self._folder, self.address, sync_interval="10s")
        host, port = self.address.host, self.address.mqtt_port
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await _listens(host, port):  # noqa: ASYNC110 # no event tells it
                    await asyncio.sleep(_AGAIN_S)
        except TimeoutError as error:
            await self.stop()
            raise Terminal(
                "APPS-2460", f"the bench's broker does not listen on {host}:{port}", "Try again."
            ) from error

    async def stop(self) -> None:
        """Be gone at once, as after a power cut."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await asyncio.to_thread(process.wait)

    @property
    def lent(self) -> dict[str, Any]:
        """Fields of a connector's context with which ``broker`` means this one."""
        return {
            "mqtt_endpoint": self.address.mqtt_endpoint,
            "mqtt_user": self.address.device_user,
            "mqtt_password": self.address.device_password,
            "identity": "headrace-bench",
        }


async def _listens(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True
