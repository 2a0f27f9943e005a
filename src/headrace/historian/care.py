"""The care for a table beside its writer: last values, compaction, retention, vacuum, one unit at a time."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import polars as pl

from headrace.historian.compaction import Compactor
from headrace.historian.last import LastKeeper
from headrace.historian.retention import Retention, cutoffs, expired
from headrace.historian.table import Table
from headrace.model.desired import HistorianConfig
from headrace.model.errors import HeadraceError
from headrace.model.time import Clock

PAUSE_S: Final = 5.0
VACUUM_S: Final = 900.0
READERS_GRACE_H: Final = 1.0
NICENESS: Final = 10
_log = logging.getLogger(__name__)


class Care:
    """Looks after one table in a thread of low priority until it is told to stop."""

    def __init__(
        self,
        table: Table,
        clock: Clock,
        config: Callable[[], HistorianConfig],
        newest: Mapping[str, pl.DataFrame] | None = None,
    ) -> None:
        self._table = table
        self._clock = clock
        self._config = config
        self._compactor = Compactor(table, clock)
        self._retention = Retention(table, clock)
        self._last = LastKeeper(table, clock, newest)
        self._vacuumed_s = clock.monotonic_s()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop``; a unit that fails is tried again later."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "care", initializer=_step_back) as pool:
            while not stop.is_set():
                try:
                    busy = await loop.run_in_executor(pool, self.step)
                except (OSError, HeadraceError) as error:
                    _log.warning("HIST-1100 the table's care failed and is tried again: %s", error)
                    busy = False
                if not busy:
                    await _wait(stop, PAUSE_S)

    def step(self) -> bool:
        """One unit of work; False when there was none."""
        config = self._config()
        if self._last.step():
            return True
        if self._retention.step(config) is not None:
            self._last.drop(expired(config, cutoffs(config, self._clock.now_us())))
            return True
        if self._compactor.step(spare_bytes=2 * config.stop_free_bytes_min) is not None:
            return True
        if self._clock.monotonic_s() - self._vacuumed_s >= VACUUM_S:
            self._vacuumed_s = self._clock.monotonic_s()
            gone = self._table.vacuum(READERS_GRACE_H)
            _log.info("vacuum: %d files are gone", gone)
        return False


def _step_back() -> None:
    """Let the writer go first; Linux has a priority for each thread."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


async def _wait(stop: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), timeout_s)
    except TimeoutError:
        return
