"""Looks at a running installation: what its edge says, its events, and what its historian has."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import polars as pl

from headrace.bus import subjects
from headrace.bus.broker import load_address
from headrace.bus.client import Bus, open_bus
from headrace.bus.recent import recent_events
from headrace.historian.reader import Reader, open_reader
from headrace.model.folder import DataFolder
from headrace.model.health import ConnectionState, EdgeState, Event
from headrace.model.time import SystemClock
from headrace.site.registry import Registry

CLOCK = SystemClock()


class Observer:
    """A connection to the broker and a reader of the history, in a thread of their own.

    Args:
        folder: of an installation that runs.
    """

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self.edge: EdgeState | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        self._bus, self._reader = self._do(self._open())

    async def _open(self) -> tuple[Bus, Reader]:
        bus = await self._stack.enter_async_context(open_bus(load_address(self.folder), "test"))
        await bus.subscribe(subjects.ALL_HEALTH, self._take)
        return bus, await self._stack.enter_async_context(open_reader(self.folder, bus))

    async def _take(self, message: Any) -> None:
        if ".health.edge." in message.subject:
            self.edge = msgspec.json.decode(message.data, type=EdgeState)

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def close(self) -> None:
        self._do(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def tag_ids(self) -> dict[str, int]:
        """Path -> id of every tag in use."""
        registry = Registry(f"sqlite:///{self.folder.metadata_file}")
        return {record.path: record.tag_id for record in registry.find("**")}

    def tags_of(self, connection: str) -> list[str]:
        registry = Registry(f"sqlite:///{self.folder.metadata_file}")
        return [r.path for r in registry.find("**") if r.connection == connection]

    def connection(self, name: str) -> ConnectionState | None:
        """The newest state of one connection."""
        states = self.edge.connections if self.edge is not None else []
        return next((state for state in states if state.connection == name), None)

    def is_in(self, name: str, *states: str) -> bool:
        found = self.connection(name)
        return found is not None and found.state in states

    def events(self, since_us: int, code: str) -> list[Event]:
        """Events of one code since a moment."""
        found = self._do(recent_events(self._bus, 500))
        return [event for event in found if event.at_us >= since_us and event.code == code]

    def samples(self, path: str, since_us: int, until_us: int = 2**62) -> pl.DataFrame:
        """The stored samples of one tag, by source timestamp."""
        return self._reader.read([self.tag_ids()[path]], since_us, until_us)

    def received(self, path: str, since_us: int) -> pl.DataFrame:
        """The samples of one tag that arrived since a moment, whatever time they tell."""
        at = pl.col("received_timestamp").to_physical()
        return self.samples(path, -(2**62)).filter(at >= since_us).sort("received_timestamp")

    def values(self, path: str, since_us: int) -> list[float]:
        return [v for v in self.samples(path, since_us)["value"].to_list() if v is not None]

    def statuses(self) -> dict[str, int]:
        """Status of the newest sample of every tag that a device gives."""
        registry = Registry(f"sqlite:///{self.folder.metadata_file}")
        ids = {r.path: r.tag_id for r in registry.find("**") if not r.derived}
        last = dict(self._reader.last(list(ids.values())).select("tag_id", "status").rows())
        return {path: last.get(tag_id, 0x8000_0000) for path, tag_id in ids.items()}

    def not_good(self) -> set[str]:
        return {path for path, status in self.statuses().items() if status >> 30}
