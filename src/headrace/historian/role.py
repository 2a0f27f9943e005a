"""The historian process: one writer, the care for its table, its health each second, its events."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import nats.errors
import nats.js.errors

from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus, ensure_streams, open_bus
from headrace.bus.desired import read_desired
from headrace.bus.subjects import Subjects
from headrace.historian.care import Care
from headrace.historian.commit import Committer
from headrace.historian.ledger_keeper import LedgerKeeper
from headrace.historian.ledger_store import LedgerStore, open_ledger
from headrace.historian.partition import WHOLE, Partition
from headrace.historian.storage import open_storage
from headrace.historian.table import Table, open_table
from headrace.historian.writer import Severity, Writer, WriterSettings
from headrace.model.decoding import UNREADABLE
from headrace.model.desired import HistorianConfig
from headrace.model.errors import Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.health import Event
from headrace.model.time import Clock, SystemClock
from headrace.security.files import hold_lock

EVENTS_WAITING_MAX: Final = 1_000
HEALTH_S: Final = 1.0
BROKER_WAIT_S: Final = 30.0
_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_log = logging.getLogger(__name__)


async def run(
    folder: DataFolder,
    address: BrokerAddress,
    subjects: Subjects,
    stop: asyncio.Event,
    *,
    settings: WriterSettings | None = None,
    clock: Clock | None = None,
    partition: Partition = WHOLE,
) -> None:
    """Be a historian of ``folder`` until ``stop`` is set; the last commit is made on the way out.

    Args:
        partition: the part of the log that this one stores, when there are several.

    Raises:
        Refused: HIST-1050 when another historian has this part of this folder.
        Corrupt: HIST-1002 when the table cannot be opened.
        Transient: BUS-1025 when the broker does not come within 30 s.
    """
    used_clock = clock or SystemClock()
    with _one_at_a_time(folder.table, partition):
        storage = await asyncio.to_thread(open_storage, folder)
        table = await asyncio.to_thread(open_table, storage, used_clock, partition)
        ledger = await asyncio.to_thread(open_ledger, folder.ledger_file, used_clock)
        committer = await asyncio.to_thread(
            Committer, table, folder.root / "quarantine", used_clock, ledger
        )
        try:
            async with open_bus(address, "historian", wait_s=BROKER_WAIT_S) as bus:
                role = _Role(bus, subjects, table, committer, ledger, used_clock, settings)
                await role.run(stop)
        finally:
            ledger.close()


class _Role:
    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        table: Table,
        committer: Committer,
        ledger: LedgerStore,
        clock: Clock,
        settings: WriterSettings | None,
    ) -> None:
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=EVENTS_WAITING_MAX)
        self._config = HistorianConfig()
        self._cares = table.partition.cares
        self._care = Care(table, clock, lambda: self._config, committer.newest)
        self._ledger = LedgerKeeper(bus, subjects, ledger, clock, report=self._report)
        self._writer = Writer(
            bus,
            table,
            committer,
            clock,
            report=self._report,
            config=lambda: self._config,
            settings=settings,
        )

    async def run(self, stop: asyncio.Event) -> None:
        await _until_there(self._bus, stop)
        await self._read_config()
        done = asyncio.Event()
        tasks = [asyncio.create_task(self._tell(done))]
        kept = asyncio.Event()
        books = []
        if self._cares:
            tasks.append(asyncio.create_task(self._care.run(done)))
            books.append(asyncio.create_task(self._ledger.run(kept)))
        try:
            await self._writer.run(stop)
        finally:
            kept.set()
            await asyncio.gather(*books)
            done.set()
            await asyncio.gather(*tasks)

    async def _tell(self, done: asyncio.Event) -> None:
        """Health, events and desired state, once a second and once more at the end."""
        while True:
            try:
                await self._read_config()
                self._writer.refresh_state()
                await self._bus.publish(self._subjects.historian_health(), self._writer.state)
                await self._send_events()
            except Transient as error:
                _log.info("%s", error)
            if done.is_set():
                return
            try:
                await asyncio.wait_for(done.wait(), HEALTH_S)
            except TimeoutError:
                continue

    async def _send_events(self) -> None:
        while self._events:
            await self._bus.publish_event(self._subjects.event("historian"), self._events[0])
            self._events.popleft()

    async def _read_config(self) -> None:
        """Take over a changed desired state; a broken one is reported and the old one stays."""
        try:
            raw = await read_desired(self._bus, "historian")
            config = msgspec.json.decode(raw, type=HistorianConfig) if raw else HistorianConfig()
        except Transient:
            return
        except UNREADABLE as error:
            _log.error("HIST-1051 the desired state of the historian cannot be read: %s", error)
            return
        if config != self._config:
            self._config = config
            _log.info("new desired state: %d tag groups", len(config.groups))

    def _report(self, severity: Severity, code: str, text: str, remedy: str) -> None:
        _log.log(_LEVELS[severity], "%s %s", code, text)
        self._events.append(
            Event(
                at_us=self._clock.now_us(),
                severity=severity,
                code=code,
                source="historian",
                text=text,
                remedy=remedy,
            )
        )


async def _until_there(bus: Bus, stop: asyncio.Event) -> None:
    """Make the streams when nobody has; wait for the broker's store as long as it takes."""
    while not stop.is_set():
        try:
            await ensure_streams(bus)
        except (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError) as error:
            _log.info("waiting for the streams: %s", error)
            await asyncio.sleep(HEALTH_S)
        else:
            return


@contextmanager
def _one_at_a_time(table: Path, partition: Partition) -> Iterator[None]:
    """Hold the table's lock file; the system lets it go when the process ends in any way.

    Writers of parts share it, and each holds one of its own.
    """
    table.parent.mkdir(parents=True, exist_ok=True)
    refused = Refused(
        "HIST-1050", f"another historian runs on {table}", "Stop it first: headrace down"
    )
    if partition.is_whole:
        with hold_lock(table.parent / "table.lock", refused):
            yield
        return
    own = table.parent / f"table.{partition.index}of{partition.count}.lock"
    with (
        hold_lock(table.parent / "table.lock", refused, shared=True),
        hold_lock(own, refused),
    ):
        yield
