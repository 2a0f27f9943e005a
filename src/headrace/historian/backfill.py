"""Back-fill: years of results of a formula, made on all cores and put into history through the log.

::

    table + tail ──► parts ──► workers: read, evaluate, compare ──► frames ──► log ──► historian ──► table
                       └── done.jsonl: parts whose frames the log has ◄──┘

Only what changes is written: samples that are new or other, and retractions of those that are no more.
Parts whose frames the log acknowledged are noted, so that a back-fill that was killed goes on where it was;
a part that was half published is published again, which changes nothing. Results carry the time when reading
began as received_timestamp: what a repair in live operation wrote later stays.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import shutil
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from headrace.bus import envelope
from headrace.bus.client import Bus
from headrace.bus.log import log_info
from headrace.bus.subjects import SAMPLES_STREAM, Subjects
from headrace.formula.bound import Bound
from headrace.historian.backfill_parts import Done, Part, Source, formula_of, make_parts, run_part
from headrace.historian.index import TableIndex
from headrace.historian.layout import app_id
from headrace.historian.pools import Pool
from headrace.historian.reader import Reader
from headrace.historian.storage import Storage, sync_path
from headrace.historian.tail import freeze
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.knowledge import AppsConfig, connection_of
from headrace.model.time import Clock

EDGE: Final = "apps"
IN_FLIGHT: Final = 8
LAG_ROWS_MAX: Final = 4_000_000
PATIENCE_S: Final = 300.0
LOOK_S: Final = 0.2
MADE_FILE: Final = "made.jsonl"
_JOB_FILE: Final = "job.json"
_DONE_FILE: Final = "done.jsonl"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one back-fill does; kept on disk until it is done.

    Attributes:
        key: of the formula.
        version: of its text.
        digest: of the formula, its tags and assets: another one makes another job.
        start_us, end_us: time of the results.
        parts: see :class:`headrace.historian.backfill_parts.Part`.
    """

    key: str
    version: int
    digest: str
    start_us: int
    end_us: int
    parts: tuple[Part, ...]


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A back-fill that ended: which version made the results of which time.

    Attributes:
        at_us: when it ended.
        samples: of inputs that were read; results: that the formula has there.
        changed, retracted: samples that were written.
    """

    key: str
    version: int
    start_us: int
    end_us: int
    at_us: int
    samples: int
    results: int
    changed: int
    retracted: int


class Noted(msgspec.Struct, frozen=True, array_like=True):
    """One line of what is done: number of the part, and its counts."""

    part: int
    samples: int
    results: int
    changed: int
    retracted: int


@dataclass(frozen=True)
class Progress:
    """How far a back-fill is.

    Attributes:
        parts, parts_done: of the whole back-fill, also of what an earlier run did.
        samples: of inputs read by this run.
        samples_per_s: since this run began.
        left_s: about how long it still takes; None before the first part.
    """

    parts: int
    parts_done: int
    samples: int
    samples_per_s: float
    left_s: float | None


Tell = Callable[[Progress], None]


class Backfill:
    """Back-fills formulas of one installation.

    Args:
        folder: where jobs are kept, and the settings of the table.
        bus: open; results go to the log by it.
        config: what the apps role runs.
    """

    def __init__(self, folder: DataFolder, bus: Bus, config: AppsConfig, clock: Clock) -> None:
        self._folder = folder
        self._bus = bus
        self._config = config
        self._clock = clock
        self._subjects = Subjects(config.enterprise, config.site)

    async def run(
        self,
        reader: Reader,
        key: str,
        pool: Pool,
        *,
        span: tuple[int, int] | None = None,
        tell: Tell | None = None,
    ) -> Made:
        """Make all results of a formula; goes on with a job of the same formula that was cut short.

        Args:
            reader: with the tail, caught up.
            key: ``pump.load_15``.
            span: ``[start, end)`` in UTC microseconds; None: what an unfinished job had, else all
                samples up to now.
            tell: told after each part.

        Raises:
            Misconfigured: HIST-2101 when there is no such formula, HIST-2102 for an empty time.
            Refused: HIST-2001 when one part has more samples than fit, HIST-2104 when workers die,
                HIST-2106 when the formula is back-filled already.
            Transient: HIST-2105 when the historian does not store what was published.
        """
        bound = await asyncio.to_thread(formula_of, self._config, key)
        if bound is None:
            raise Misconfigured(
                "HIST-2101",
                f"there is no formula {key!r} with an asset that has what it reads",
                "See the formulas with: headrace formula list",
            )
        place = self._folder.root / "backfill" / key
        with _alone(place):
            job, noted = await asyncio.to_thread(self._job, reader, bound, place, span)
            source = await asyncio.to_thread(self._source, reader, bound, place)
            work = _Run(job, noted, place, pool, source, self._clock, tell)
            outlet = _Outlet(self._bus, reader.table, self._subjects, bound, self._clock)
            await work.all_parts(outlet)
            made = _made(job, work.noted, self._clock.now_us())
            await asyncio.to_thread(_keep, self._folder, made, place)
        return made

    def _job(
        self, reader: Reader, bound: Bound, place: Path, span: tuple[int, int] | None
    ) -> tuple[Job, list[Noted]]:
        """The unfinished job of this formula, or a new one."""
        digest = _digest(bound, self._config)
        found = _load(place)
        wanted = (None, (found.start_us, found.end_us)) if found is not None else ()
        if found is not None and found.digest == digest and span in wanted:
            return found, _load_noted(place)
        bounds = reader.bounds() or (0, 0)
        start_us, end_us = span or (bounds[0], min(bounds[1] + 1, self._clock.now_us()))
        if end_us <= start_us:
            raise Misconfigured(
                "HIST-2102",
                f"there is no time to back-fill from {start_us} to {end_us} us",
                "Give an end after the start, where the formula's inputs have samples.",
            )
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        parts = make_parts(reader, bound, start_us, end_us)
        job = Job(
            key=bound.key,
            version=bound.version,
            digest=digest,
            start_us=start_us,
            end_us=end_us,
            parts=tuple(parts),
        )
        _write(place / _JOB_FILE, msgspec.json.encode(job))
        return job, []

    def _source(self, reader: Reader, bound: Bound, place: Path) -> Source:
        received_us = self._clock.now_us()
        view = reader.view()
        for old in place.glob("tail-*.parquet"):
            old.unlink()
        return Source(
            root=self._folder.root,
            tail=tuple(freeze(view.segments, place)),
            config=msgspec.json.encode(self._config),
            key=bound.key,
            received_us=received_us,
        )


def backfills(folder: DataFolder, key: str = "") -> list[Made]:
    """Back-fills that ended, oldest first; :func:`version_of` tells by them which version gave a result.

    Args:
        key: of one formula; empty means all.
    """
    try:
        lines = (folder.root / "backfill" / MADE_FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    made = [msgspec.json.decode(line, type=Made) for line in lines if line.endswith(b"}")]
    return [each for each in made if not key or each.key == key]


def version_of(
    made: Iterable[Made], at_us: int, live: Iterable[tuple[int, int, int]]
) -> int | None:
    """Which version of a formula gave its result of a time: of those that gave one the last to do so.

    Args:
        made: back-fills of the formula.
        live: of each version its number, the source time from which its results count, and the wall-clock
            time at which it came into operation.

    Returns:
        None when there is no result of that time yet.

    Example:
        >>> old = Made(key="pump.a", version=1, start_us=0, end_us=50, at_us=90, samples=1, results=1,
        ...            changed=1, retracted=0)
        >>> live = [(1, 20, 20), (2, 40, 60)]
        >>> [version_of([old], at_us, live) for at_us in (10, 45, 70)], version_of([], 10, live)
        ([1, 1, 2], None)
    """
    begun = [each for each in live if each[1] <= at_us]
    gave: list[tuple[int, int]] = []
    if begun:
        version, _, accepted_us = max(begun, key=lambda each: (each[1], each[0]))
        gave.append((max(accepted_us, at_us), version))
    gave += ((each.at_us, each.version) for each in made if each.start_us <= at_us < each.end_us)
    return max(gave)[1] if gave else None


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Only one back-fill of a formula at a time."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f"{place.name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(
                "HIST-2106", f"{place.name} is being back-filled already", "Wait until that ends."
            ) from error
        yield


@dataclass
class _Run:
    """One run of a job."""

    job: Job
    noted: list[Noted]
    place: Path
    pool: Pool
    source: Source
    clock: Clock
    tell: Tell | None
    samples: int = 0
    begun_s: float = field(init=False)
    begun_parts: int = field(init=False)

    def __post_init__(self) -> None:
        self.begun_s = self.clock.monotonic_s()
        self.begun_parts = len(self.noted)

    async def all_parts(self, outlet: _Outlet) -> None:
        """Keep the pool busy, and no more results waiting than it has workers."""
        known = {each.part for each in self.noted}
        waiting = [n for n in reversed(range(len(self.job.parts))) if n not in known]
        running: dict[asyncio.Future[Done], int] = {}
        try:
            while waiting or running:
                while waiting and len(running) <= self.pool.size:
                    number = waiting.pop()
                    call = self.pool.submit(run_part, self.source, self.job.parts[number])
                    running[asyncio.wrap_future(call)] = number
                ended, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for each in ended:
                    await self._take(running.pop(each), each.result(), outlet)
        except BrokenExecutor as error:
            raise Refused(
                "HIST-2104",
                "a process of the back-fill was killed",
                "See whether memory is full; run it again with fewer --cores, it goes on where it was.",
            ) from error
        finally:
            for each in running:
                each.cancel()

    async def _take(self, number: int, done: Done, outlet: _Outlet) -> None:
        for rows, body in done.frames:
            await outlet.put(rows, body)
        await outlet.flush()
        noted = Noted(number, done.samples, done.results, done.changed, done.retracted)
        with (self.place / _DONE_FILE).open("ab") as handle:
            handle.write(msgspec.json.encode(noted) + b"\n")
        self.noted.append(noted)
        self.samples += done.samples
        if self.tell is not None:
            self.tell(self._progress())

    def _progress(self) -> Progress:
        parts, done = len(self.job.parts), len(self.noted)
        spent_s = max(self.clock.monotonic_s() - self.begun_s, 1e-9)
        now_done = done - self.begun_parts
        left_s = spent_s / now_done * (parts - done) if now_done else None
        return Progress(parts, done, self.samples, self.samples / spent_s, left_s)


class _Outlet:
    """Puts frames into the log, no faster than the historian stores them."""

    def __init__(
        self, bus: Bus, table: Storage, subjects: Subjects, bound: Bound, clock: Clock
    ) -> None:
        self._bus = bus
        self._index = TableIndex(table)
        self._connection = connection_of(bound.key.rpartition(".")[0])
        self._subject = subjects.batch(EDGE, self._connection)
        self._clock = clock
        self._epoch = clock.now_us()
        self._sequence = 0
        self._waiting: list[asyncio.Task[tuple[int, int]]] = []  # bounded by IN_FLIGHT
        self._behind: deque[tuple[int, int]] = deque()  # bounded by LAG_ROWS_MAX
        self._behind_rows = 0

    async def put(self, rows: int, body: bytes) -> None:
        """Publish one frame; waits while too much is on its way."""
        if len(self._waiting) >= IN_FLIGHT:
            await self.flush()
        if self._behind_rows > LAG_ROWS_MAX:
            await self._until_stored(LAG_ROWS_MAX)
        self._sequence += 1
        headers = envelope.headers(EDGE, self._connection, self._epoch, self._sequence, rows)
        self._waiting.append(asyncio.create_task(self._publish(rows, body, headers)))

    async def flush(self) -> None:
        """Wait until the log has all frames."""
        waiting, self._waiting = self._waiting, []
        for sequence, rows in await asyncio.gather(*waiting):
            self._behind.append((sequence, rows))
            self._behind_rows += rows

    async def _publish(self, rows: int, body: bytes, headers: dict[str, str]) -> tuple[int, int]:
        stored: list[int] = []

        async def publish() -> bool:
            try:
                stored.append(await self._bus.publish_frame(self._subject, body, headers))
            except (Transient, Refused):
                return False
            return True

        await self._wait_for(publish, "the log does not take results")
        return stored[0], rows

    async def _until_stored(self, rows_max: int) -> None:
        info = await log_info(self._bus)
        app = app_id(SAMPLES_STREAM, info.created_us)

        async def stored() -> bool:
            snapshot = await asyncio.to_thread(self._index.refresh)
            committed = snapshot.committed(app) or 0
            while self._behind and self._behind[0][0] <= committed:
                self._behind_rows -= self._behind.popleft()[1]
            return self._behind_rows <= rows_max

        await self._wait_for(stored, "the historian does not store results")

    async def _wait_for(self, reached: Callable[[], Awaitable[bool]], what: str) -> None:
        until_s = self._clock.monotonic_s() + PATIENCE_S
        while not await reached():
            if self._clock.monotonic_s() > until_s:
                raise Transient(
                    "HIST-2105",
                    f"{what} for {PATIENCE_S:g} s",
                    "See headrace status; then run the back-fill again, it goes on where it was.",
                )
            await asyncio.sleep(LOOK_S)


def _digest(bound: Bound, config: AppsConfig) -> str:
    kind, _, name = bound.key.rpartition(".")
    texts = [each.text for each in config.formulas if (each.asset_type, each.name) == (kind, name)]
    inputs = {name: tags.tolist() for name, tags in bound.inputs.items()}
    attributes = {name: each.value.tolist() for name, each in bound.attributes.items()}
    what = (bound.key, bound.version, texts, bound.assets, inputs, attributes)
    told = msgspec.json.encode((*what, bound.outputs.tolist(), config.calendar), order="sorted")
    return hashlib.sha256(told).hexdigest()


def _made(job: Job, noted: list[Noted], at_us: int) -> Made:
    return Made(
        key=job.key,
        version=job.version,
        start_us=job.start_us,
        end_us=job.end_us,
        at_us=at_us,
        samples=sum(each.samples for each in noted),
        results=sum(each.results for each in noted),
        changed=sum(each.changed for each in noted),
        retracted=sum(each.retracted for each in noted),
    )


def _keep(folder: DataFolder, made: Made, place: Path) -> None:
    """Note what was made, durably, and forget the job."""
    path = folder.root / "backfill" / MADE_FILE
    with path.open("ab") as handle:
        handle.write(msgspec.json.encode(made) + b"\n")
    sync_path(path)
    sync_path(path.parent)
    shutil.rmtree(place)


def _load(place: Path) -> Job | None:
    try:
        return msgspec.json.decode((place / _JOB_FILE).read_bytes(), type=Job)
    except (FileNotFoundError, msgspec.DecodeError):
        return None  # none, or torn before its first part


def _load_noted(place: Path) -> list[Noted]:
    try:
        lines = (place / _DONE_FILE).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [msgspec.json.decode(line, type=Noted) for line in lines if line.endswith(b"]\n")]


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    sync_path(path)
    sync_path(path.parent)
