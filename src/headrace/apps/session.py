"""One configuration at work: from a position to now by history, then sample by sample.

::

    begin   position ──► results of the time since, from history ──► what the log lacks of them
                    └──► late samples meanwhile, edited calendar, new versions ──► spans
    turn    log ──► stream ──► results ──► log
                       └──► what is older than the stream keeps ──► spans
            a piece of a span, from history ──► changed rows ──► log ──► spans of what reads them
            everything given so far is in the log ──► position

Both ways give the same samples, so it does not matter where a kill cuts.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from headrace.apps.changes import Changes
from headrace.apps.desk import Desk, alarms_of
from headrace.apps.feed import SETTLE_US, Feed, Taken
from headrace.apps.knowledge import Knowledge
from headrace.apps.outlet import Outlet
from headrace.apps.past import TOO_MUCH, Past
from headrace.apps.position import Position, Span, merged, save_position
from headrace.apps.restart import (
    Touched,
    edited_spans,
    handed_spans,
    late_in_log,
    touched_by,
    version_spans,
)
from headrace.apps.tally import Tally
from headrace.bus.client import Bus
from headrace.bus.log import LogInfo, log_info
from headrace.bus.subjects import apps_edge
from headrace.formula.bound import Bound
from headrace.formula.placing import BEFORE
from headrace.formula.stream import Advance, Behind, Need, Stream
from headrace.historian.inputs import samples_since
from headrace.historian.reader import Reader
from headrace.model.apps import Cause
from headrace.model.errors import Corrupt, HeadraceError, Refused, Terminal, Transient
from headrace.model.health import Severity
from headrace.model.sample import Int64Array, microseconds
from headrace.model.status import UNCERTAIN, UNCERTAIN_SUB_NORMAL
from headrace.model.time import US_PER_S, Clock, to_datetime

TURN_S: Final = 0.1
CATCH_UP_S: Final = 10.0
SAVE_S: Final = 1.0
FLUSH_S: Final = 2.0
CHUNK_US: Final = 6 * 3_600 * US_PER_S
PIECE_FIRST_US: Final = 600 * US_PER_S
PIECE_MAX_US: Final = 86_400 * US_PER_S
PIECE_S: Final = 0.3
NEEDS_TAGS: Final = 500
END_US: Final = 2**62
ROWS_MAX: Final = 5_000_000
ARRIVED_MAX: Final = 10_000
FORMULA_ERRORS: Final = (
    HeadraceError, ArithmeticError, AssertionError, LookupError, TypeError, ValueError,
    pl.exceptions.PolarsError,
)  # fmt: skip
"""What the evaluation of a formula may raise; that stops the formula, and nothing else."""

Report = Callable[[Severity, str, str, str], None]
"""(severity, code, text, remedy) of something that happened."""


class Failed(Exception):
    """A formula failed; the others go on without it."""

    def __init__(self, key: str, error: Exception) -> None:
        super().__init__(key)
        self.key = key
        self.error = error


@dataclass(frozen=True)
class Tools:
    """What a session works with.

    Attributes:
        reader: of the history, with its tail.
        desk: of the alarms.
        kept_us: source time from which the history is whole; 0: it always was.
    """

    bus: Bus
    clock: Clock
    reader: Reader
    outlet: Outlet
    changes: Changes
    tally: Tally
    report: Report
    desk: Desk
    kept_us: Callable[[], int] = int


class Session:
    """One configuration at work.

    Args:
        knowledge: what to run; has at least one formula.
        position: where the last session came to; None when there was none.
        tools: what to work with.
    """

    def __init__(self, knowledge: Knowledge, position: Position | None, tools: Tools) -> None:
        self.knowledge = knowledge
        self.position = position
        self._tools = tools
        self._past = Past(tools.reader, knowledge.config.calendar)
        self._has_alarms = bool(alarms_of(knowledge))
        self._spans: list[Span] = []
        self._births: dict[str, int] = {}
        self._feed: Feed | None = None
        self._stream: Stream | None = None
        self._seen = 0
        self._log_us = 0
        self._done_us = 0
        self._pending: tuple[Mapping[str, int], Position] | None = None
        self._saved_s = float("-inf")
        self._turned_s = float("-inf")
        self._piece_us = PIECE_FIRST_US
        self._arrived: deque[tuple[int, int]] = deque(maxlen=ARRIVED_MAX)
        self._ended_us = 0
        self._part_us: dict[str, int] = {}
        self._told_short: set[str] = set()

    @property
    def done_us(self) -> int:
        """Source time up to which results are out."""
        return self._done_us

    @property
    def sequence(self) -> int:
        """Every message of the log up to it was taken in."""
        return self._feed.sequence if self._feed is not None else 0

    @property
    def samples(self) -> int:
        """How many were taken in."""
        return self._feed.samples if self._feed is not None else 0

    def follows(self, info: LogInfo) -> bool:
        """Whether the log is still the one that this session follows, and was not cut behind it."""
        return info.created_us == self._log_us and info.last_sequence >= self.sequence

    @property
    def repairs(self) -> int:
        """Spans that wait to be worked out again."""
        return len(self._spans)

    async def begin(self) -> None:
        """Work out what is missing since the position, and get ready to follow.

        Raises:
            Transient: broker or history is away; begin again.
            Failed: a formula cannot be evaluated; begin again without it.
        """
        tools = self._tools
        info = await log_info(tools.bus)
        await tools.reader.catch_up(CATCH_UP_S)
        now_us = tools.clock.now_us() - SETTLE_US
        known = self.position or self._first(info, now_us)
        same = known.log_us == info.created_us
        after = known.sequence if same else max(info.first_sequence - 1, 0)
        self._log_us = info.created_us
        self._done_us = done_us = known.done_us
        end_us = max(done_us, now_us)
        self._births = self._born(known, end_us)
        self.knowledge = self.knowledge.born(self._births)
        self._ended_us = max((bound.end_us for bound in self.knowledge.ended), default=0)
        own = apps_edge(self.knowledge.edge)
        self._feed = Feed(tools.bus, info.last_sequence, self.knowledge.inputs, tools.clock, own)
        self._tell_lost(after, info.first_sequence)
        late = await late_in_log(tools.bus, self._feed, after, info.last_sequence, done_us)
        self._spans = [*known.spans, *version_spans(self.knowledge, known, end_us)]
        self._spans += handed_spans(self.knowledge, known)
        await self._add_touched(late, done_us, "late")
        await asyncio.to_thread(self._add_edited, known)
        await self._bring_up(known, done_us, end_us)
        await self._bring_up_alarms(done_us, end_us)
        await self._open_stream(end_us)
        self._done_us = end_us
        # From here on a formula that is new has results; the next life must know that.
        await self._tools.outlet.flush()
        self._note_position()
        await self._save_when_there(now=True)

    async def turn(self) -> None:
        """Take what the log has, give what follows from it; lasts at least a tenth of a second.

        Raises:
            Transient: broker or history is away; call again.
            Failed: a formula failed, or all of them for no reason of one: begin a new session.
        """
        loop = asyncio.get_running_loop()
        assert self._feed is not None and self._stream is not None, "begin comes first"
        await asyncio.sleep(max(0.0, self._turned_s + TURN_S - loop.time()))
        self._turned_s = loop.time()
        taken = await self._feed.turn(TURN_S / 2, self._done_us)
        await self._tend_lost()
        advance = await asyncio.to_thread(self._advance, taken)
        await self._emit(advance)
        await self._emit_alarms(advance, max(self._done_us, taken.known_us))
        if 0 < taken.late_sequence <= self._seen:
            await self._add_touched(_touched(taken.late), self._done_us, "late")
        await self._add_before_moves(taken.batch)
        self._done_us = max(self._done_us, taken.known_us)
        self._time(taken)
        if self._spans:
            await self._mend()
        await self._keep()

    async def close(self) -> None:
        """Give the log back, and keep the position when everything of it is in the log.

        Raises:
            Transient: the broker is away; the next life begins at the position before.
        """
        if self._feed is not None and self._stream is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await self._tools.outlet.flush()
            self._note_position()
            await self._save_when_there(now=True)
            await self._feed.close()

    def _first(self, info: LogInfo, now_us: int) -> Position:
        """Where the first life begins."""
        return Position(
            log_us=info.created_us,
            sequence=info.last_sequence,
            done_us=now_us,
            received_us=0,
            calendar=self.knowledge.config.calendar,
        )

    def _born(self, known: Position, now_us: int) -> dict[str, int]:
        """When each formula began that is not told when: one that is new begins now, another text where
        the one before it ended, one that was moved here when it was, or was here first."""
        births = {}
        for bound in self.knowledge.bounds:
            key = bound.key
            same = known.definitions.get(key) == self.knowledge.definitions[key]
            if key in known.births and (same or bound.moved_us):
                births[key] = known.births[key]
            else:
                fresh_us = bound.moved_us or now_us
                births[key] = known.done_us if key in known.definitions else fresh_us
        for bound in self.knowledge.ended:
            key = bound.key.removesuffix(BEFORE)
            if key in known.births:
                births.setdefault(key, known.births[key])
        return births

    # -- what was missed ----------------------------------------------------------------------

    async def _bring_up(self, known: Position, start_us: int, end_us: int) -> None:
        """Results of a time in which nobody evaluated, a few hours at a time; a formula that is new
        begins now."""
        bounds = [
            bound
            for bound in self.knowledge.bounds
            if bound.role == "formula" and bound.key in known.definitions
        ]
        for chunk_us in range(start_us, end_us, CHUNK_US):
            until_us = min(chunk_us + CHUNK_US, end_us)
            fresh = True
            for bound in bounds:
                if not fresh and self._reads_results(bound):
                    await self._see_results()
                    fresh = True
                rows = await self._changes(bound, _all(bound), chunk_us, until_us)
                await self._give(bound, rows, recomputed=False)
                fresh = fresh and not rows.height
            self._done_us = until_us
            self._tools.tally.progress(until_us, end_us)

    async def _bring_up_alarms(self, done_us: int, end_us: int) -> None:
        """What alarms' conditions were while nobody evaluated, and as far back as the desk asks."""
        alarms = alarms_of(self.knowledge)
        needs_us = self._tools.desk.needs_us
        start_us = done_us if needs_us is None else min(done_us, needs_us)
        if not alarms or start_us >= end_us:
            return
        await self._see_results()
        for chunk_us in range(start_us, end_us, CHUNK_US):
            until_us = min(chunk_us + CHUNK_US, end_us)
            found = [
                (bound, await self._changes(bound, _all(bound), chunk_us, until_us))
                for bound in alarms
            ]
            await self._tools.desk.take(found, until_us)

    async def _changes(
        self, bound: Bound, assets: Int64Array, start_us: int, end_us: int
    ) -> pl.DataFrame:
        start_us = self._whole_from(bound, start_us, end_us)
        end_us = min(end_us, bound.end_us) if bound.end_us else end_us
        work = self._past.changes if bound.role == "formula" else self._past.results
        try:
            return await asyncio.to_thread(work, bound, assets, start_us, end_us)
        except (Transient, Corrupt, Terminal):
            raise
        except FORMULA_ERRORS as error:
            raise Failed(bound.key, error) from error

    def _whole_from(self, bound: Bound, start_us: int, end_us: int) -> int:
        """From when results can be worked out of what is kept; says so where that is too late."""
        kept_us = self._tools.kept_us()
        whole_us = kept_us + bound.plan.back_us if kept_us else 0
        if max(start_us, bound.start_us) >= whole_us or start_us >= end_us:
            return start_us
        if bound.key not in self._told_short:
            self._told_short.add(bound.key)
            self._tools.report(
                "warning",
                "APPS-1408",
                f"results of {bound.key} before {to_datetime(whole_us).isoformat()} are not worked out "
                f"again here: this edge has every sample since {to_datetime(kept_us).isoformat()} only",
                "Work them out on the hub, which has all: headrace formula backfill",
            )
        return whole_us

    def _reads_results(self, bound: Bound) -> bool:
        outputs = self.knowledge.outputs
        return any(np.isin(ids, outputs).any() for ids in bound.inputs.values())

    async def _see_results(self) -> None:
        """Wait until history has every result that was given."""
        await self._tools.outlet.flush()
        await self._tools.reader.catch_up(CATCH_UP_S)

    def _add_edited(self, known: Position) -> None:
        calendar = self.knowledge.config.calendar
        bounds = self._tools.reader.bounds()
        if known.calendar != calendar and bounds is not None:
            self._spans += edited_spans(
                self.knowledge.bounds, known.calendar, calendar, bounds[0], known.done_us
            )

    async def _add_touched(self, touched: Touched, end_us: int, cause: Cause) -> None:
        if not touched:
            return
        # What reads a touched result follows even where that result turns out to be right already: the
        # stream may have given it, and not what it thought to have been given.
        begins: dict[str, int] = {}
        for bound in self.knowledge.every:
            spans = await asyncio.to_thread(touched.spans, bound, self._past, end_us, cause)
            if bound.key in begins:
                start_us = begins[bound.key]
                spans.append(
                    Span(key=bound.key, start_us=start_us, end_us=end_us, cause="upstream")
                )
            for reader in self.knowledge.readers(bound) if spans else ():
                first_us = min(span.start_us for span in spans)
                begins[reader.key] = min(first_us, begins.get(reader.key, first_us))
            self._spans += [span for span in spans if span.start_us < span.end_us]

    async def _add_before_moves(self, batch: pl.DataFrame) -> None:
        """Samples of the time in which a formula was here that is evaluated elsewhere now."""
        if not self._ended_us or not batch.height:
            return
        old = batch.filter(microseconds(batch["source_timestamp"]) < self._ended_us)
        touched = _touched(old)
        for bound in self.knowledge.ended if old.height else ():
            self._spans += await asyncio.to_thread(
                touched.spans, bound, self._past, bound.end_us, "late"
            )

    async def _open_stream(self, start_us: int) -> None:
        """A stream that goes on from a time, with what its windows look back to."""
        tools = self._tools
        await self._see_results()
        self._note_parts(start_us)
        self._stream = Stream(
            self.knowledge.bounds, self.knowledge.config.calendar, start_us=start_us
        )
        await asyncio.to_thread(self._fill, self._stream, start_us)
        # The tail may have been ahead of the feed: what the stream knows already and the feed brings
        # again is no news to it, so the late ones among them are worked out from history.
        self._seen = (await log_info(tools.bus)).last_sequence

    def _note_parts(self, start_us: int) -> None:
        """Formulas whose windows look back further than what is kept: their results are Uncertain until
        the windows are full."""
        kept_us = self._tools.kept_us()
        self._part_us = {
            bound.key: kept_us + bound.plan.back_us
            for bound in self.knowledge.bounds
            if kept_us and kept_us + bound.plan.back_us > start_us
        }
        for key, whole_us in self._part_us.items():
            self._tools.report(
                "warning",
                "APPS-1410",
                f"{key} looks back further than this edge has samples; its results are Uncertain until "
                f"{to_datetime(whole_us).isoformat()}",
                "Give the edge's log more room, or place the formula on the platform.",
            )

    def _in_part(self, bound: Bound, rows: pl.DataFrame) -> pl.DataFrame:
        """Results of windows that are not full: none of them is Good."""
        whole_us = self._part_us.get(bound.key, 0)
        if not whole_us or not rows.height:
            return rows
        doubtful = (pl.col("at_us") < whole_us) & (pl.col("status") < UNCERTAIN)
        uncertain = pl.lit(UNCERTAIN_SUB_NORMAL, pl.UInt32)
        return rows.with_columns(
            status=pl.when(doubtful).then(uncertain).otherwise(pl.col("status"))
        )

    def _fill(self, stream: Stream, start_us: int) -> None:
        alike: dict[Need, list[int]] = {}
        for tag_id, need in stream.needs(start_us).items():
            alike.setdefault(need, []).append(tag_id)
        for need, tags in alike.items():
            for first in range(0, len(tags), NEEDS_TAGS):
                self._put_past(stream, sorted(tags[first : first + NEEDS_TAGS]), need)
        stream.advance(start_us)  # what comes from now on is new to it, also what is of before

    def _fill_in(self, stream: Stream, behind: Sequence[Behind]) -> None:
        """What the stream lacks, since somebody took back the first sample that it knew."""
        lacking = {tag_id: need for each in behind for tag_id, need in each.needs.items()}
        for tag_id, need in lacking.items():
            tag = np.array([tag_id], np.int64)
            end_us = need.from_us + 1
            stream.fill(samples_since(self._tools.reader, tag, need.from_us, end_us, need.back_us))

    def _put_past(self, stream: Stream, tags: list[int], need: Need) -> None:
        """Samples of tags that the stream must know; in halves where they are many."""
        try:
            past = samples_since(
                self._tools.reader, np.array(tags, np.int64), need.from_us, END_US, need.back_us
            )
        except Refused as error:
            if error.code != TOO_MUCH or len(tags) == 1:
                raise
            half = len(tags) // 2
            self._put_past(stream, tags[:half], need)
            self._put_past(stream, tags[half:], need)
            return
        stream.put(past)

    # -- following ----------------------------------------------------------------------------

    def _advance(self, taken: Taken) -> Advance:
        assert self._stream is not None, "begin comes first"
        try:
            if taken.batch.height:
                self._stream.put(taken.batch)
            advance = self._stream.advance(max(taken.known_us, self._done_us))
            self._fill_in(self._stream, advance.behind)
            return advance
        except FORMULA_ERRORS as error:
            raise Failed("", error) from error

    async def _emit(self, advance: Advance) -> None:
        """Give results to the log; those of a time that was done are changes."""
        up_to_us = self._done_us
        new, late = [], []
        for bound, given in advance.results:
            if bound.role != "formula":
                continue
            rows = self._in_part(bound, given)
            old = rows["at_us"].to_numpy() < up_to_us
            if not old.any():
                new.append((bound, rows))
                continue
            new.append((bound, rows.filter(~old)))
            late.append((bound, rows.filter(old)))
            self._tools.changes.note(*late[-1], "late")
        await self._give_rows(new, recomputed=False)
        await self._give_rows(late, recomputed=True)
        self._spans += [
            Span(
                key=each.bound.key,
                assets=(each.bound.assets[each.asset],),
                start_us=each.start_us,
                end_us=each.end_us,
                cause="late",
            )
            for each in advance.behind
        ]

    async def _emit_alarms(self, advance: Advance, known_us: int) -> None:
        if self._has_alarms:
            results = [each for each in advance.results if each[0].role != "formula"]
            for bound, rows in results:
                self._tools.tally.count(bound, rows, recomputed=False)
            await self._tools.desk.take(results, known_us)

    async def _give(self, bound: Bound, rows: pl.DataFrame, *, recomputed: bool) -> None:
        if bound.role == "formula":
            await self._give_rows([(bound, rows)], recomputed=recomputed)
        else:
            await self._tools.desk.take([(bound, rows)], self._done_us)

    async def _give_rows(
        self, results: Sequence[tuple[Bound, pl.DataFrame]], *, recomputed: bool
    ) -> None:
        await self._tools.outlet.give(results, recomputed=recomputed)
        for bound, rows in results:
            self._tools.tally.count(bound, rows, recomputed=recomputed)

    def _time(self, taken: Taken) -> None:
        """Measure the way of samples whose results were given just now."""
        self._arrived.extend(taken.arrived)
        due = [received_us for at_us, received_us in self._arrived if at_us < self._done_us]
        if due:
            later = [each for each in self._arrived if each[0] >= self._done_us]
            self._arrived = deque(later, maxlen=ARRIVED_MAX)
            self._tools.outlet.time(due)
        self._tools.outlet.take_times()

    # -- mending ------------------------------------------------------------------------------

    async def _mend(self) -> None:
        """Work out one piece of a span again; what reads a formula comes after it."""
        self._spans = list(merged(self._spans))
        every = self.knowledge.every
        order = {bound.key: place for place, bound in enumerate(every)}
        self._spans = [span for span in self._spans if span.key in order]
        self._spans.sort(key=lambda span: (order[span.key], span.start_us))
        # A formula that was moved a moment ago has results here up to then; that time must be over.
        due = (n for n, span in enumerate(self._spans) if self._is_over(every[order[span.key]]))
        place = next(due, -1)
        if place < 0:
            return
        span = self._spans[place]
        bound = every[order[span.key]]
        began_s = self._tools.clock.monotonic_s()
        end_us = min(span.end_us, span.start_us + max(self._piece_us, bound.plan.back_us))
        await self._see_results()
        assets = _all(bound)
        if span.assets:
            assets = assets[np.isin(np.array(bound.assets), np.array(span.assets))]
        rows = await self._changes(bound, assets, span.start_us, min(end_us, self._done_us))
        await self._give(bound, rows, recomputed=True)
        if rows.height and bound.role == "formula":
            self._tools.changes.note(bound, rows, span.cause)
            await self._pass_on(bound, rows)
        self._spans.remove(span)
        if end_us < span.end_us:
            rest = Span(
                key=span.key, assets=span.assets, start_us=end_us, end_us=span.end_us,
                cause=span.cause,
            )  # fmt: skip
            self._spans.insert(0, rest)
        slow = self._tools.clock.monotonic_s() - began_s > PIECE_S
        piece_us = self._piece_us // 2 if slow else self._piece_us * 2
        self._piece_us = min(max(piece_us, US_PER_S), PIECE_MAX_US)

    def _is_over(self, bound: Bound) -> bool:
        return bound.end_us <= self._done_us

    async def _pass_on(self, bound: Bound, rows: pl.DataFrame) -> None:
        """Changed results change what reads them."""
        touched = touched_by(bound, rows)
        for reader in self.knowledge.readers(bound):
            self._spans += await asyncio.to_thread(
                touched.spans, reader, self._past, self._done_us, "upstream"
            )

    async def _tend_lost(self) -> None:
        """Messages that the log had no more: the table may have them; begin again from there."""
        assert self._feed is not None
        if self._feed.lost:
            first, last = self._feed.lost[0][0], self._feed.lost[-1][1]
            self._tell_lost(first - 1, last + 1)
            self._feed.lost.clear()
            raise Transient(
                "APPS-1005",
                f"the log no longer has the messages {first} to {last}",
                "The results of that time are worked out from the table.",
            )

    def _tell_lost(self, after: int, first: int) -> None:
        if first > after + 1:
            self._tools.report(
                "warning",
                "APPS-1005",
                f"the log no longer has the messages {after + 1} to {first - 1}; results since then "
                "are worked out from the table, those before that late samples among these changed "
                "are not",
                "Work them out again: headrace formula backfill",
            )

    # -- position -----------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Note the position now and then, once everything that belongs to it is in the log."""
        if self._pending is None:
            self._note_position()
        await self._save_when_there()

    def _note_position(self) -> None:
        assert self._feed is not None, "begin comes first"
        self._pending = (
            self._tools.outlet.mark(),
            Position(
                log_us=self._log_us,
                sequence=self._feed.sequence,
                done_us=self._done_us,
                received_us=self._tools.outlet.received_us,
                definitions=dict(self.knowledge.definitions),
                births=self._births,
                calendar=self.knowledge.config.calendar,
                spans=merged(self._spans),
            ),
        )

    async def _save_when_there(self, *, now: bool = False) -> None:
        if self._pending is None or not self._tools.outlet.has(self._pending[0]):
            return
        now_s = self._tools.clock.monotonic_s()
        if now or now_s - self._saved_s >= SAVE_S:
            await save_position(self._tools.bus, self._pending[1], self.knowledge.edge)
            self.position, self._pending, self._saved_s = self._pending[1], None, now_s


def _all(bound: Bound) -> Int64Array:
    return np.arange(len(bound.assets), dtype=np.int64)


def _touched(identities: pl.DataFrame) -> Touched:
    found = Touched()
    found.note(identities["tag_id"].to_numpy(), microseconds(identities["source_timestamp"]))
    return found
