"""The runtime's role as a process of its own, that a test may kill: folder and broker on standard input."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
from site_runtime import SUBJECTS, Known

from headrace.apps.runtime import role
from headrace.bus.broker import BrokerAddress
from headrace.model.folder import DataFolder


async def main() -> None:
    root, raw = msgspec.json.decode(sys.stdin.buffer.readline(), type=tuple[str, dict])
    address = msgspec.convert(raw, BrokerAddress)
    folder = DataFolder(Path(root))
    await role.run(folder, address, SUBJECTS, asyncio.Event(), app_secrets=Known())


if __name__ == "__main__":
    asyncio.run(main())
