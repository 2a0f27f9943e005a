"""What an app gave, kept with its state in one write, and made to happen once.

::

    given ──► note: state + effects ──► samples, records ──► per write: "begun" ──► edge ──► event, crossed out

A crash before the note: nothing had happened. After it: samples and records go out once more under the same
ids. A write that was begun is never made again: nobody knows whether it reached the device. An event says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import msgspec
import polars as pl

from headrace.apps.runtime import wire
from headrace.apps.runtime.effects import Record, Write
from headrace.bus import envelope
from headrace.bus.client import Bus
from headrace.bus.log import LogReader, log_info
from headrace.bus.subjects import (
    EVENTS_STREAM,
    ORDERS_STREAM,
    RUNTIME_BUCKET,
    Subjects,
    runtime_edge,
)
from headrace.model.app_state import AppEvent
from headrace.model.errors import Transient
from headrace.model.sample import empty_batch
from headrace.model.time import Clock

RETRY_S: Final = 0.5
GIVE_UP_S: Final = 60.0
"""How long the broker is asked again before a gift fails: the process ends then, and what was noted goes out
when the next one begins. Less than the process waits."""
SEEN_S: Final = 0.3
UNKNOWN: Final = "APPS-2280"
"""Code of the event of a write of which nobody knows whether it reached the device."""


class Maker(Protocol):
    """Who writes to devices for an app."""

    async def make(self, write: Write) -> AppEvent:
        """Write; says what became of it and raises nothing of that."""
        ...

    def noted(self, event: AppEvent) -> bool:
        """What became of a write; whether people are to be told now."""
        ...


class Keeping:
    """The note of one app; one object for it in a runtime, however often the app is started or changed.

    Args:
        bus: open. clock: of events. app_id: of the app.
        events_from: newest line of the journal of alarms, asked when the app first runs.
        edge: on whose machine that is; empty: on the platform.
    """

    def __init__(
        self,
        bus: Bus,
        subjects: Subjects,
        clock: Clock,
        app_id: str,
        events_from: Callable[[], Awaitable[int]],
        edge: str = "",
    ) -> None:
        self._edge = runtime_edge(edge)
        self._bus = bus
        self._subjects = subjects
        self._clock = clock
        self._app_id = app_id
        self._word = app_id.replace("-", "_")
        self._events_from = events_from
        self._kept: wire.Kept | None = None
        # What an older process gave is done with before the next one begins: else both would write.
        self.lock = asyncio.Lock()

    async def load(self, *, afresh: bool = False) -> wire.Kept:
        """The note; a new one where there is none.

        Args:
            afresh: another runtime may have written it since.

        Raises:
            Transient: BUS-1026 when the broker is away.
        """
        if self._kept is None or afresh:
            raw = await self._bus.get(RUNTIME_BUCKET, self._word)
            if raw:
                self._kept = msgspec.msgpack.decode(raw, type=wire.Kept)
            else:
                last = await self._events_from()
                self._kept = wire.Kept(
                    number=0,
                    epoch_us=self._clock.now_us(),
                    events_from=last,
                    orders_from=(await log_info(self._bus, ORDERS_STREAM)).last_sequence,
                )
        return self._kept

    async def take(
        self, given: wire.Given, rows: pl.DataFrame, maker: Maker, moved_us: int = 0
    ) -> None:
        """Note what was given and let it happen; call it with the lock.

        Args:
            rows: of ``given``, decoded. maker: of its writes. moved_us: when the app moved to this place,
                source time; 0: it did not.

        Raises:
            Transient: BUS-1020, BUS-1027 when the broker is away for a minute: it is not known then
                whether it has the note; :meth:`settle` goes on where that ended.
        """
        kept = await self.load()
        received_us = max(self._clock.now_us(), kept.received_us + 1)
        rows = _last_of_each(rows, received_us)
        next_ = wire.Kept(
            number=kept.number + 1,
            epoch_us=kept.epoch_us,
            frames=kept.frames + len(_frames(kept)),
            events_from=kept.events_from,
            orders_from=kept.orders_from,
            received_us=received_us,
            state=given.state,
            samples=envelope.encode(rows) if rows.height else b"",
            records=given.records,
            writes=given.writes,
            events_after=await self._events_end() if given.records or given.writes else 0,
            to_us=given.to_us,
            moved_us=moved_us or kept.moved_us,
        )
        await self._keep(next_)
        await self._publish(next_, seen=frozenset())
        await self._writes(next_, maker, seen=frozenset())

    async def settle(self, maker: Maker) -> wire.Kept:
        """Let happen what a crash left undone, and tell what nobody knows; call it with the lock.

        Raises:
            Transient: as :meth:`take`.
        """
        kept = await self.load(afresh=True)
        seen = await self._seen(kept) if kept.records or kept.writes else frozenset()
        await self._publish(kept, seen)
        return await self._writes(kept, maker, seen)

    # -- what happens ---------------------------------------------------------------------------

    async def _publish(self, kept: wire.Kept, seen: frozenset[str]) -> None:
        subject = self._subjects.batch(self._edge, self._word)
        for place, frame in enumerate(_frames(kept)):
            headers = envelope.headers(
                self._edge, self._word, kept.epoch_us, kept.frames + place + 1, frame.height
            )
            await self._send(subject, envelope.encode(frame), headers)
        for record in kept.records:
            await self._say(_event_of(record), record.id, seen)

    async def _writes(self, kept: wire.Kept, maker: Maker, seen: frozenset[str]) -> wire.Kept:
        while kept.writes:
            write = kept.writes[0]
            if kept.written:
                event = self._unknown(write)
            else:
                # Said before it happens: a device is rather left alone than written to twice.
                kept = await self._keep(msgspec.structs.replace(kept, written=True))
                event = await maker.make(write)
            if maker.noted(event):
                await self._say(event, f"{write.id}/told", seen)
            rest = msgspec.structs.replace(kept, writes=kept.writes[1:], written=False)
            kept = await self._keep(rest)
        return kept

    def _unknown(self, write: Write) -> AppEvent:
        return AppEvent(
            at_us=self._clock.now_us(),
            severity="warning",
            code="APPS-2280",
            source=f"app/{self._app_id}",
            text=(
                f"the runtime ended while it wrote {write.value} to {write.tag} ({write.quantity} of "
                f"{write.asset}): unknown whether it reached the device, and it is not written again"
            ),
            remedy="Look at the device; write it by hand when it has to be.",
        )

    async def _say(self, event: AppEvent, id: str, seen: frozenset[str]) -> None:
        if id not in seen:
            headers = {envelope.HEADER_ID: id}
            subject = self._subjects.event("app", self._word)
            await self._send(subject, msgspec.json.encode(event), headers)

    async def _events_end(self) -> int:
        found = 0

        async def ask() -> None:
            nonlocal found
            found = (await log_info(self._bus, EVENTS_STREAM)).last_sequence

        await _again(ask)
        return found

    async def _seen(self, kept: wire.Kept) -> frozenset[str]:
        """Ids of events that went out since the note was made: the broker forgets them after two minutes."""
        subject = self._subjects.event("app", self._word)
        reader = LogReader(
            self._bus, kept.events_after, EVENTS_STREAM, [subject], headers_only=True
        )
        found: set[str] = set()
        try:
            while True:
                messages = await reader.next(SEEN_S)
                found |= {message.headers.get(envelope.HEADER_ID, "") for message in messages}
                if not messages and await reader.has_all():
                    return frozenset(found)
        finally:
            await reader.close()

    async def _keep(self, kept: wire.Kept) -> wire.Kept:
        raw = msgspec.msgpack.encode(kept)
        self._kept = None  # until it is known that the broker has it
        await _again(lambda: self._bus.put(RUNTIME_BUCKET, self._word, raw))
        self._kept = kept
        return kept

    async def _send(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        await _again(lambda: self._bus.publish_frame(subject, body, headers))


async def _again(what: Callable[[], Awaitable[Any]]) -> None:
    """Until the broker has it, at most for a minute."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + GIVE_UP_S
    while True:
        try:
            await what()
            return
        except Transient:
            if loop.time() > until_s:
                raise
            await asyncio.sleep(RETRY_S)


def _frames(kept: wire.Kept) -> list[pl.DataFrame]:
    rows = envelope.decode(kept.samples) if kept.samples else empty_batch()
    return list(rows.iter_slices(envelope.FRAME_ROWS_MAX)) if rows.height else []


def _event_of(record: Record) -> AppEvent:
    text = str(record.body.get("title") or record.body.get("kind") or record.kind)
    return AppEvent(
        at_us=record.at_us,
        severity="info",
        code="APPS-2250" if record.kind == "work_request" else "APPS-2251",
        source=f"app/{record.app}",
        text=f"{record.body.get('asset')}: {text}",
        remedy=str(record.body.get("reason", "")),
        record=msgspec.to_builtins(record),
    )


def _last_of_each(rows: pl.DataFrame, received_us: int) -> pl.DataFrame:
    """One row an identity, the later of two; received now."""
    if not rows.height:
        return rows
    kept = rows.unique(("tag_id", "source_timestamp"), keep="last", maintain_order=True)
    received = pl.lit(received_us).cast(rows.schema["received_timestamp"])
    return kept.with_columns(received_timestamp=received)
