"""The newest health messages of one site, for commands that look at what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import msgspec

from headrace.bus.client import Bus
from headrace.bus.subjects import Subjects
from headrace.model.apps import AppsState
from headrace.model.health import EdgeState, HistorianState
from headrace.model.historians import together
from headrace.model.time import US_PER_S, Clock

SILENT_US: Final = 5 * US_PER_S


class HealthWatch:
    """Hears edges and historian.

    Args:
        on_edge: told each state of an edge as it comes.

    Attributes:
        edges: newest state of each edge by name, and when it came (UTC microseconds).
        historian: its newest state and when it came; None before the first.
        apps: the same of the apps role.
    """

    def __init__(self, clock: Clock, on_edge: Callable[[EdgeState], None] = lambda _: None) -> None:
        self._clock = clock
        self._on_edge = on_edge
        self._came = asyncio.Event()
        self.edges: dict[str, tuple[EdgeState, int]] = {}
        self._historians: dict[str, HistorianState] = {}
        self.historian: tuple[HistorianState, int] | None = None
        self.apps: tuple[AppsState, int] | None = None

    async def start(self, bus: Bus, subjects: Subjects) -> None:
        """Listen as long as the bus is open."""
        await bus.subscribe(subjects.every_edge_health(), self._take_edge)
        await bus.subscribe(subjects.historian_health(), self._take_historian)
        await bus.subscribe(subjects.apps_health(), self._take_apps)

    async def until(self, edge: str, timeout_s: float) -> None:
        """Wait until this edge ("" is none) and the historian were heard, at most so long."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._has_all_historians() or (edge and edge not in self.edges):
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            return

    def _has_all_historians(self) -> bool:
        """Each of several tells its own part; before all are heard one seems to be missing."""
        counts = [int(name.partition("/")[2] or 1) for name in self._historians]
        return bool(counts) and len(counts) >= max(counts)

    async def _take_edge(self, message: Any) -> None:
        state = msgspec.json.decode(message.data, type=EdgeState)
        self.edges[state.edge] = (state, self._clock.now_us())
        self._came.set()
        self._on_edge(state)

    async def _take_apps(self, message: Any) -> None:
        self.apps = (msgspec.json.decode(message.data, type=AppsState), self._clock.now_us())

    async def _take_historian(self, message: Any) -> None:
        state = msgspec.json.decode(message.data, type=HistorianState)
        now_us = self._clock.now_us()
        self._historians[state.partition] = state
        heard = [each for each in self._historians.values() if now_us - each.at_us < SILENT_US]
        whole = together(heard or [state])
        self.historian = (whole or state, now_us)
        self._came.set()
