"""A connector whose device is a script in the test: what to give, and when to fail."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import msgspec
import numpy as np

from headrace.edge.contract import Reading
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import HeadraceError
from headrace.model.sample import make_batch


class Options(msgspec.Struct, frozen=True):
    pass


@dataclass
class Device:
    """The scripted device: readings and errors come out in order; then it is silent."""

    script: asyncio.Queue = field(default_factory=lambda: asyncio.Queue(1000))
    connect_error: HeadraceError | None = None
    connects: int = 0
    closes: int = 0
    written: list[tuple[str, float | str]] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)

    def give(self, tag_ids: list[int], at_us: int, value: float, status: int = 0, **extra) -> None:
        n = len(tag_ids)
        batch = make_batch(
            np.array(tag_ids),
            np.full(n, at_us),
            np.full(n, value),
            status=status,
            received_timestamp_us=at_us,
        )

        async def acknowledge() -> None:
            self.acknowledged.append(at_us)

        self.script.put_nowait(Reading(batch, n, acknowledge=acknowledge, **extra))

    def fail(self, error: Exception) -> None:
        self.script.put_nowait(error)


class ScriptedType:
    """The connector type of one device."""

    title = ("Scripted", "脚本")
    abilities = frozenset({"read", "write", "browse"})
    options = Options
    endpoint_example = address_example = "x"

    def __init__(self, device: Device, mode: str = "subscribe") -> None:
        self.device = device
        self.mode = mode
        self.protocol = "scripted"

    def check_connection(self, connection: ConnectionConfig) -> None: ...

    def check_tag(self, tag: TagConfig) -> None: ...

    def open(self, connection: ConnectionConfig, context):
        self.device.resumed.append(context.resume_us)
        return ScriptedConnector(self.device)


class ScriptedConnector:
    def __init__(self, device: Device) -> None:
        self.device = device

    async def connect(self) -> None:
        self.device.connects += 1
        if self.device.connect_error is not None:
            raise self.device.connect_error

    async def read(self, group) -> Reading:
        item = await self.device.script.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def write(self, tag, value):
        self.device.written.append((tag.address, value))
        return value

    async def close(self) -> None:
        self.device.closes += 1
