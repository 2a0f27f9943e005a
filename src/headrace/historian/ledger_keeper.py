"""Keeps the loss ledger: takes the edges' pages from the bus, and tells what nobody can explain.

Runs beside the writer, which counts its own side in :mod:`headrace.historian.commit`. A difference
without a name is told once a cell, after its grace, and once more when it is explained after all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

from headrace.bus.client import Bus
from headrace.bus.log import LogReader, log_info
from headrace.bus.subjects import LEDGER_BUCKET, LEDGER_STREAM, Subjects
from headrace.historian.ledger_store import LedgerStore
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Transient
from headrace.model.ledger import CellKey, LedgerPage, WriterPage
from headrace.model.time import Clock, to_datetime

Report = Callable[[Literal["info", "warning", "error"], str, str, str], None]

WAIT_S: Final = 0.5
LAST_WAIT_S: Final = 0.1
RETRY_S: Final = 1.0
OPEN_PAGES_S: Final = 2.0
CHECK_S: Final = 5.0
ROLL_UP_S: Final = 3600.0
SILENCE_S: Final = 30.0
"""An edge tells each second; one that does not for so long is killed or cut off."""
EVENTS_A_CHECK: Final = 20
PAGE_CELLS_MAX: Final = 2_000


class LedgerKeeper:
    """The keeper of one ledger.

    Args:
        bus: open.
        subjects: of the site.
        store: writable.
        clock: time.
        report: takes what happens, for people: (severity, code, text, remedy).
        grace_us: see :data:`headrace.model.ledger.GRACE_US`; None: that.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        store: LedgerStore,
        clock: Clock,
        *,
        report: Report,
        grace_us: int | None = None,
    ) -> None:
        self._bus = bus
        self._subject = subjects.historian_ledger()
        self._store = store
        self._clock = clock
        self._report = report
        self._grace_us = grace_us
        self._due_s: dict[str, float] = {}
        self._refused = False
        self._heard: dict[str, tuple[int, int, float]] = {}
        self._living: set[str] = set()

    async def run(self, done: asyncio.Event) -> None:
        """Keep the ledger until ``done``, then take what is there and return."""
        if self._store.put_aside is not None:
            self._report(
                "error",
                "HIST-1708",
                f"the loss ledger was damaged and is kept as {self._store.put_aside}; a new one begins",
                "Look at the disk. Samples are not touched; accounts of the past are in that file.",
            )
        while not done.is_set():
            try:
                await self._follow(done)
            except Transient:
                await _wait(done, RETRY_S)
            except OSError as error:
                self._tell_refused(error)
                await _wait(done, RETRY_S)

    async def _follow(self, done: asyncio.Event) -> None:
        info = await log_info(self._bus, LEDGER_STREAM)
        followed = await asyncio.to_thread(self._store.followed, info.created_us)
        reader = LogReader(self._bus, max(followed, info.first_sequence - 1), LEDGER_STREAM)
        try:
            while not done.is_set():
                await self._take(reader, info.created_us)
                await self._turn()
            while await self._take(reader, info.created_us, LAST_WAIT_S):
                pass
            await self._take_open_pages()
            await asyncio.to_thread(self.check)
            await self._tell_writer()
        finally:
            await reader.close()

    async def _take(self, reader: LogReader, stream_us: int, wait_s: float = WAIT_S) -> int:
        messages = await reader.next(wait_s)
        pages = []
        for message in messages:
            if ".ledger.edge." not in message.subject:
                continue
            try:
                pages.append(msgspec.json.decode(message.body, type=LedgerPage))
            except UNREADABLE as error:
                self._report(
                    "error",
                    "HIST-1705",
                    f"a page of the loss ledger on {message.subject} cannot be read: {error}",
                    "See what publishes there; its minutes will be unexplained.",
                )
        if messages:
            position = (stream_us, messages[-1].sequence)
            await asyncio.to_thread(self._store.take_pages, pages, position)
            for page in pages:
                await self._hear(page)
            self._refused = False
        return len(messages)

    async def _turn(self) -> None:
        """What is due now beside following."""
        if self._is_due("open", OPEN_PAGES_S):
            await self._take_open_pages()
        if self._is_due("check", CHECK_S):
            await asyncio.to_thread(self.check)
            await self._tell_writer()
        if self._is_due("roll up", ROLL_UP_S):
            await asyncio.to_thread(self._store.roll_up)

    def _is_due(self, what: str, every_s: float) -> bool:
        now_s = self._clock.monotonic_s()
        if now_s < self._due_s.get(what, 0.0):
            return False
        self._due_s[what] = now_s + every_s
        return True

    async def _take_open_pages(self) -> None:
        """The minutes that the edges have not closed, as they are now; and who is silent."""
        now_s = self._clock.monotonic_s()
        for edge in filter(None, await asyncio.to_thread(self._store.edges)):
            raw = await self._bus.get(LEDGER_BUCKET, edge)
            if raw is not None:
                page = msgspec.json.decode(raw, type=LedgerPage)
                await asyncio.to_thread(self._store.take_pages, [page])
                await self._hear(page)
            *_, heard_s = self._heard.setdefault(edge, (0, 0, now_s))
            if now_s - heard_s > SILENCE_S:
                self._living.discard(edge)
                await asyncio.to_thread(self._store.mark_silent, edge)

    async def _hear(self, page: LedgerPage) -> None:
        epoch, sequence, _ = self._heard.get(page.edge, (0, 0, 0.0))
        if (page.epoch, page.sequence) <= (epoch, sequence):
            return
        self._heard[page.edge] = (page.epoch, page.sequence, self._clock.monotonic_s())
        is_new = epoch != 0  # the first page that is met may be an old one
        if is_new and page.edge not in self._living and not page.end:
            self._living.add(page.edge)
            await asyncio.to_thread(self._store.mark_heard, page.edge)

    async def _tell_writer(self) -> None:
        """The historian's own side on the bus, as far as it changed."""
        cells, told_us = await asyncio.to_thread(self._store.untold)
        for start in range(0, len(cells), PAGE_CELLS_MAX):
            part = cells[start : start + PAGE_CELLS_MAX]
            await self._bus.publish_page(
                self._subject, WriterPage(at_us=self._clock.now_us(), cells=part)
            )
        if cells:
            await asyncio.to_thread(self._store.mark_told, told_us)

    def check(self) -> None:
        """Look at what changed; tell what is lost or unexplained, and what no longer is.

        Raises:
            OSError: the disk refused.
        """
        now_us = self._clock.now_us()
        rows = self._store.unsettled(grace_us=self._grace_us)
        known = self._store.alarms()
        told: dict[CellKey, int] = {}
        ended: list[CellKey] = []
        settled: list[CellKey] = []
        fresh: list[dict[str, Any]] = []
        for row in rows.iter_rows(named=True):
            key = CellKey(*(row[name] for name in CellKey._fields))
            gone = row["unexplained"] + row["lost"]
            if row["open"] or row["in_log"] or row["buffered"]:
                continue
            settled.append(key)
            if gone:
                told[key] = gone
                if key not in known:
                    fresh.append(row)
            elif key in known:
                ended.append(key)
        self._tell(fresh, ended)
        self._store.keep_alarms(told, ended)
        self._store.mark_settled(settled, now_us)

    def _tell(self, fresh: list[dict[str, Any]], ended: list[CellKey]) -> None:
        for row in fresh[:EVENTS_A_CHECK]:
            if row["unexplained"]:
                self._report("error", "HIST-1701", _difference(row), _REMEDY)
            else:
                text = f"{_name(row)}: {row['lost']} samples were lost in the log"
                self._report("error", "HIST-1707", text, _LOST_REMEDY)
        if len(fresh) > EVENTS_A_CHECK:
            more = sum(row["unexplained"] + row["lost"] for row in fresh[EVENTS_A_CHECK:])
            text = f"{more} samples more in {len(fresh) - EVENTS_A_CHECK} other minutes"
            self._report("error", "HIST-1701", text, _REMEDY)
        for key in ended[:EVENTS_A_CHECK]:
            text = f"{_name(key._asdict())}: the difference is explained after all"
            self._report("info", "HIST-1702", text, "")

    def _tell_refused(self, error: OSError) -> None:
        if not self._refused:
            self._report(
                "error",
                "HIST-1706",
                f"the loss ledger cannot be kept: {error}",
                "Free space on that disk; it goes on by itself, and the bus keeps the edges' pages.",
            )
        self._refused = True


_REMEDY: Final = "See where: headrace ledger. Keep logs/ and the data folder, and report it."
_LOST_REMEDY: Final = (
    "See who purged the stream SAMPLES; give the log more room if it was its bound."
)


def _name(row: dict[str, Any]) -> str:
    minute = to_datetime(row["minute_us"]).strftime("%Y-%m-%d %H:%M UTC")
    return f"{row['connection']} (edge {row['edge']}), group {row['group']}, {minute}"


def _difference(row: dict[str, Any]) -> str:
    return (
        f"{_name(row)}: {row['unexplained']} samples are unexplained. The edge expected"
        f" {row['expected']}, read {row['read']}, published {row['published']}; the historian stored"
        f" {row['stored']}, dropped {row['duplicate']} copies, rejected {row['rejected']}, and"
        f" {row['lost']} were lost in the log"
    )


async def _wait(done: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(done.wait(), timeout_s)
    except TimeoutError:
        return
