"""What apps say beside samples: work requests and lines of the value ledger, kept in the metadata database.

They come as events on ``event.app.<word>``. The stream is bounded, so the console keeps them; the same id
is the same record, however often it comes. Of a work request people say what becomes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    insert,
    select,
    update,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError

from headrace.apps.runtime.effects import Record
from headrace.bus.client import Bus
from headrace.bus.recent import next_event
from headrace.bus.subjects import Subjects
from headrace.model.errors import Misconfigured, Refused, Transient
from headrace.model.folder import DataFolder
from headrace.model.time import Clock
from headrace.security.database import metadata_url, open_engine, writing

PATIENCE_S: Final = 10.0
LOOK_S: Final = 1.0
AT_ONCE_MAX: Final = 500
BODY_BYTES_MAX: Final = 64 * 1024
SHOWN_MAX: Final = 10_000
REASON_MAX: Final = 500
Kind = Literal["work_request", "value"]
Verdict = Literal["accepted", "rejected"]
METADATA: Final = MetaData()
RECORD: Final = Table(
    "app_record", METADATA,
    Column("id", String(300), primary_key=True),
    Column("kind", String(20), nullable=False, index=True),
    Column("app", String(64), nullable=False),
    Column("version", String(40), nullable=False),
    Column("hook", String(80), nullable=False),
    Column("asset", String(500), nullable=False),
    Column("at_us", BigInteger, nullable=False, index=True),
    Column("body", Text, nullable=False),
    Column("state", String(20), nullable=False, server_default="proposed"),
    Column("decided_by", String(120), nullable=False, server_default=""),
    Column("decided_us", BigInteger, nullable=False, server_default="0"),
    Column("reason", String(REASON_MAX), nullable=False, server_default=""),
)  # fmt: skip
POSITION: Final = Table(
    "app_record_position", METADATA,
    Column("only", Integer, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)  # fmt: skip


class KeptRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record, and what people said of it.

    Attributes:
        body: the fields of :class:`headrace.app.records.WorkRequest` or ``ValueEntry``.
        state: of a work request: ``proposed``, ``accepted`` or ``rejected``.
    """

    id: str
    kind: str
    app: str
    version: str
    hook: str
    asset: str
    at_us: int
    body: dict[str, Any]
    state: str = "proposed"
    decided_by: str = ""
    decided_us: int = 0
    reason: str = ""

    def number(self, name: str) -> float:
        """A number of the body; 0 for what is none."""
        value = self.body.get(name, 0.0)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if is_number and value == value else 0.0

    def text(self, name: str) -> str:
        """A text of the body."""
        return str(self.body.get(name, ""))


class _Said(msgspec.Struct, frozen=True):
    """An event of an app, as far as it is a record."""

    record: Record | None = None


class RecordStore:
    """The records of one installation; every call may block.

    Raises:
        Transient: CONS-2310 when the database does not answer; every call may raise it.
    """

    def __init__(self, folder: DataFolder) -> None:
        with _answering():
            self._engine: Engine = open_engine(metadata_url(folder), METADATA, PATIENCE_S)

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    def position(self) -> int:
        """The place in the stream up to which records were taken."""
        with _answering(), self._engine.connect() as connection:
            return int(connection.execute(select(POSITION.c.sequence)).scalar() or 0)

    def take(self, records: Sequence[Record], position: int) -> int:
        """Keep records that are not there yet, with the place in the stream; gives how many were new."""
        with _answering(), writing(self._engine) as connection:
            new = sum(_add(connection, record) for record in records)
            if not connection.execute(update(POSITION).values(sequence=position)).rowcount:
                connection.execute(insert(POSITION).values(only=1, sequence=position))
            return new

    def find(
        self, kind: Kind, *, app: str = "", state: str = "", limit: int = SHOWN_MAX
    ) -> list[KeptRecord]:
        """Records of a kind, newest first."""
        wanted = select(RECORD).where(RECORD.c.kind == kind)
        if app:
            wanted = wanted.where(RECORD.c.app == app)
        if state:
            wanted = wanted.where(RECORD.c.state == state)
        wanted = wanted.order_by(RECORD.c.at_us.desc(), RECORD.c.id).limit(min(limit, SHOWN_MAX))
        with _answering(), self._engine.connect() as connection:
            return [_kept(row) for row in connection.execute(wanted).mappings()]

    def one(self, record_id: str) -> KeptRecord:
        """One record.

        Raises:
            Misconfigured: CONS-2311 when there is none.
        """
        wanted = select(RECORD).where(RECORD.c.id == record_id)
        with _answering(), self._engine.connect() as connection:
            row = connection.execute(wanted).mappings().first()
        if row is None:
            what = f"there is no record {record_id[:80]!r}"
            raise Misconfigured("CONS-2311", what, "See: /api/v1/app-records/work-requests")
        return _kept(row)

    def decide(
        self, record_id: str, verdict: Verdict, *, by: str, reason: str, at_us: int
    ) -> KeptRecord:
        """Say what becomes of a proposed work request.

        Raises:
            Misconfigured: CONS-2311 when there is none, CONS-2312 when it is rejected without a reason.
            Refused: CONS-2313 when it was decided before.
        """
        reason = reason.strip()[:REASON_MAX]
        if verdict == "rejected" and not reason:
            what = "a work request is rejected without a reason"
            raise Misconfigured("CONS-2312", what, "Say why: whoever wrote the app learns from it.")
        before = self.one(record_id)
        is_open = (RECORD.c.id == record_id) & (RECORD.c.kind == "work_request")
        is_open &= RECORD.c.state == "proposed"
        said = {"state": verdict, "decided_by": by, "decided_us": at_us, "reason": reason}
        with _answering(), writing(self._engine) as connection:
            if not connection.execute(update(RECORD).where(is_open).values(**said)).rowcount:
                raise Refused(
                    "CONS-2313",
                    f"{before.text('title') or record_id!r} was {before.state} by {before.decided_by}"
                    if before.kind == "work_request"
                    else f"{record_id[:80]!r} is no work request",
                    "Reload the page.",
                )
        return self.one(record_id)


def _add(connection: Connection, record: Record) -> int:
    known = select(RECORD.c.id).where(RECORD.c.id == record.id)
    if connection.execute(known).first() is not None:
        return 0
    body = msgspec.json.encode(record.body)
    if len(body) > BODY_BYTES_MAX or len(record.id) > 300:
        return 0
    row = {name: getattr(record, name)[:64] for name in ("app", "version", "hook")}
    row |= {"version": record.version[:40], "asset": str(record.body.get("asset", ""))[:500]}
    try:
        connection.execute(
            insert(RECORD).values(
                id=record.id, kind=record.kind, at_us=record.at_us, body=body.decode(), **row
            )
        )
    except IntegrityError:  # another console took it a moment ago
        return 0
    return 1


def _kept(row: Any) -> KeptRecord:
    return KeptRecord(**{**row, "body": msgspec.json.decode(row["body"])})


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise Transient(
            "CONS-2310",
            f"the metadata database does not answer: {error.orig}",
            "Try again; see whether it is up and its disk has room.",
        ) from error


class RecordBoard:
    """The records as pages see them, and the task that takes them from the bus.

    Attributes:
        version: counts up with each new or decided record.
    """

    def __init__(self, folder: DataFolder, bus: Bus, subjects: Subjects, clock: Clock) -> None:
        self._folder = folder
        self._bus = bus
        self._subject = f"{subjects.prefix}.event.app.*"
        self._clock = clock
        self._store: RecordStore | None = None
        self._opening = asyncio.Lock()
        self.version = 0

    async def opened(self) -> RecordStore:
        """The store, made at the first need.

        Raises:
            Transient: CONS-2310 when the database does not answer.
        """
        async with self._opening:
            if self._store is None:
                self._store = await asyncio.to_thread(RecordStore, self._folder)
        return self._store

    async def follow(self, stop: asyncio.Event) -> None:
        """Take what apps say until ``stop`` is set; when bus or database is away, later."""
        while not stop.is_set():
            with contextlib.suppress(Transient):
                while await self._take() and not stop.is_set():
                    continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_S)

    async def _take(self) -> bool:
        """Some records; true when there may be more."""
        if not self._bus.client.is_connected:
            return False
        store = await self.opened()
        before = position = await asyncio.to_thread(store.position)
        found: list[Record] = []
        for _ in range(AT_ONCE_MAX):
            message = await next_event(self._bus, position, self._subject)
            if message is None:
                break
            position, _, body = message
            with contextlib.suppress(
                msgspec.DecodeError
            ):  # what is no event of an app says nothing
                said = msgspec.json.decode(body, type=_Said)
                found += [said.record] if said.record is not None else []
        if position == before:
            return False
        if await asyncio.to_thread(store.take, found, position):
            self.version += 1
        return True

    async def find(self, kind: Kind, *, app: str = "", state: str = "") -> list[KeptRecord]:
        """See :meth:`RecordStore.find`."""
        store = await self.opened()
        return await asyncio.to_thread(store.find, kind, app=app, state=state)

    async def one(self, record_id: str) -> KeptRecord:
        """See :meth:`RecordStore.one`."""
        store = await self.opened()
        return await asyncio.to_thread(store.one, record_id)

    async def decide(self, record_id: str, verdict: Verdict, by: str, reason: str) -> KeptRecord:
        """See :meth:`RecordStore.decide`."""
        store = await self.opened()
        now_us = self._clock.now_us()
        decided = await asyncio.to_thread(
            store.decide, record_id, verdict, by=by, reason=reason, at_us=now_us
        )
        self.version += 1
        return decided

    def close(self) -> None:
        """Close the store, when it was needed."""
        if self._store is not None:
            self._store.close()
