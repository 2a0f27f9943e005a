"""The sealed platform: what the apps role and an app's process do, on the bench's own clock, in memory.

::

    samples ──► Stream ──► results ──┬──► AlarmEngine ──► transitions ──┐
    ▲   └────────────────────────────┴──► Program (the app's Python) ◄──┘ ──► records, writes, outputs ─┐
    └───────────────────────────────────────────────────────────────────────────────────────────────────┘

Formulas, alarms and hooks are the very code that runs in a plant. What is not here: broker, lanes and
table. Where a scenario names a protocol, its samples have come through real servers and connectors before
(:mod:`headrace.bench.carrying`). A crash drops all that lives in memory and goes on from what a plant's
platform would have kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import polars as pl

from headrace.alarms.definition import definitions_of
from headrace.alarms.engine import AlarmEngine
from headrace.apps.feed import SETTLE_US
from headrace.formula.binding import bind
from headrace.formula.bound import Bound
from headrace.formula.stream import LATENESS_US, Stream
from headrace.model.alarm import Transition
from headrace.model.knowledge import AppsConfig
from headrace.model.sample import TIMESTAMP, concat_batches, microseconds
from headrace.model.time import US_PER_S, Clock, SystemClock

SPARE_US: Final = 60 * US_PER_S


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that failed, by its code, with the time in the scenario at which it did."""

    code: str
    what: str
    remedy: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """A work request or a value entry of the app."""

    id: str
    kind: str
    asset: str
    at_us: int
    text: str


@dataclass(slots=True)
class Given:
    """What the app's Python gave in a turn: samples by tag, proposals, and what failed."""

    samples: list[pl.DataFrame] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    calls: int = 0
    writes: int = 0


class Program(Protocol):
    """The app's Python, on the bench: :mod:`headrace.bench.program`.

    Attributes:
        cpu_s: computing that it took until now.
    """

    cpu_s: float

    def turn(
        self, batch: pl.DataFrame, transitions: Sequence[Transition], to_us: int, now_us: int
    ) -> Given:
        """Take samples and changes of alarms, and do what is due."""
        ...

    def restart(self, now_us: int) -> Given:
        """Be killed and started again, with the state that was kept; what it gives anew."""
        ...


@dataclass(slots=True)
class Seen:
    """All that came out of a run.

    Attributes:
        results: each bound with a frame of results, in the order in which they came.
        outputs: batches of the app's outputs. told: transitions with the time at which they were told.
        rows: (now_us, rows given) of each turn.
        late_us: of results that came in their time: how long after their source time, at most.
        turn_ms, cpu_ms: measured; another run has others, so no report is made of them.
    """

    results: list[tuple[Bound, pl.DataFrame]] = field(default_factory=list)
    outputs: list[pl.DataFrame] = field(default_factory=list)
    told: list[tuple[int, Transition]] = field(default_factory=list)
    proposals: list[Proposal] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    rows: list[tuple[int, int]] = field(default_factory=list)
    samples: int = 0
    calls: int = 0
    writes: int = 0
    restarts: int = 0
    late_us: int = 0
    turn_ms: list[float] = field(default_factory=list)
    cpu_ms: float = 0.0


class Platform:
    """One configuration with its alarms and, where there is one, its app's Python.

    Args:
        config: what runs. program: the app's Python.
        lateness_us: how late samples of this scenario come at most. A plant works out from its history
            what is later than its stream keeps; here the stream keeps enough to give the same at once.
        clock: of the machine, to measure by.

    Raises:
        FormulaProblem: when a formula is wrong.
    """

    def __init__(
        self,
        config: AppsConfig,
        program: Program | None = None,
        *,
        lateness_us: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.config = config
        self.bounds = bind(config).bound
        self.seen = Seen()
        self._program = program
        self._clock = clock or SystemClock()
        self._lateness_us = max(LATENESS_US, lateness_us + SPARE_US)
        self._definitions = definitions_of(config.formulas)
        self._past: list[pl.DataFrame] = []
        self._done_us: int | None = None
        self._stream = self._new_stream(None)
        self._engine = AlarmEngine()
        self._is_bound = False

    def turn(self, batch: pl.DataFrame, now_us: int) -> None:
        """Take samples that arrived, and go on to a moment.

        Args:
            batch: of :data:`headrace.model.sample.SCHEMA`. now_us: by the scenario's clock.
        """
        begin_s, cpu_s = self._clock.monotonic_s(), _cpu_s()
        if not self._is_bound:
            self._bind(now_us)
        to_us = max(now_us - SETTLE_US, self._done_us or 0)
        self._past.append(batch)
        self._stream.put(batch)
        results = self._stream.advance(to_us).results
        transitions = self._engine.take(results, to_us, now_us)
        derived = [_samples(bound, rows, now_us) for bound, rows in results]
        self._note(results, transitions, now_us)
        if self._program is not None:
            fed = concat_batches([batch, *(each for each in derived if each.height)])
            self._take(self._program.turn(fed, transitions, to_us, now_us), now_us)
        self.seen.samples += batch.height
        self._done_us = to_us
        self.seen.turn_ms.append((self._clock.monotonic_s() - begin_s) * 1000.0)
        self.seen.cpu_ms += (_cpu_s() - cpu_s) * 1000.0

    def crash(self, now_us: int) -> None:
        """Lose all that is in memory, and begin again as a platform that was killed does: the stream with
        what its windows look back to, the alarms with their stored states, the app with its kept state."""
        self.seen.restarts += 1
        self._stream = self._new_stream(self._done_us)
        if self._done_us is not None:
            self._stream.put(concat_batches(self._past))
            self._stream.advance(self._done_us)
        states, position_us = list(self._engine.book.states.values()), self._engine.known_us
        self._engine = AlarmEngine(states, position_us if self._is_bound else None)
        if self._is_bound:
            self._bind(self._done_us or 0)
            needs_us = self._engine.needs_us
            if needs_us is not None:
                again = [
                    (bound, rows.filter(pl.col("at_us") >= needs_us))
                    for bound, rows in self.seen.results
                    if bound.role != "formula"
                ]
                self._engine.take(again, position_us, self._done_us or 0)
        if self._program is not None:
            self.seen.rows.append((now_us, 0))
            self._take(self._program.restart(now_us), now_us)

    def _new_stream(self, start_us: int | None) -> Stream:
        return Stream(
            self.bounds, self.config.calendar, lateness_us=self._lateness_us, start_us=start_us
        )

    def _bind(self, now_us: int) -> None:
        self._engine.bind(self.bounds, self._definitions, now_us, now_us)
        self._is_bound = True

    def _note(
        self,
        results: Sequence[tuple[Bound, pl.DataFrame]],
        transitions: Sequence[Transition],
        now_us: int,
    ) -> None:
        seen = self.seen
        seen.results += results
        seen.told += ((now_us, each) for each in transitions)
        rows = sum(rows.height for bound, rows in results if bound.role == "formula")
        seen.rows.append((now_us, rows))
        done_us = self._done_us
        for _, rows_of in results if done_us is not None else ():
            fresh = rows_of.filter(pl.col("at_us") >= done_us)["at_us"].min()
            if isinstance(fresh, int):
                seen.late_us = max(seen.late_us, now_us - fresh)

    def _take(self, given: Given, now_us: int) -> None:
        seen = self.seen
        seen.outputs += given.samples
        for each in given.samples:
            # Formulas and alarms of the app read them as they read quantities: in the next turn.
            self._stream.put(each)
            self._past.append(each)
        seen.proposals += given.proposals
        seen.troubles += given.troubles
        seen.calls += given.calls
        seen.writes += given.writes
        seen.rows[-1] = (now_us, seen.rows[-1][1] + sum(each.height for each in given.samples))


def lateness_of(samples: pl.DataFrame) -> int:
    """How long after its source time a sample of a run arrives at most, in microseconds."""
    if not samples.height:
        return 0
    late_us = microseconds(samples["received_timestamp"]) - microseconds(
        samples["source_timestamp"]
    )
    return int(max(late_us.max(), 0))


def _samples(bound: Bound, rows: pl.DataFrame, now_us: int) -> pl.DataFrame:
    """Results as samples of their tags; of alarms none."""
    if bound.role != "formula":
        rows = rows.clear()
    ids = bound.outputs[rows["asset"].to_numpy()]
    return rows.select(
        pl.Series("tag_id", ids, pl.Int64),
        pl.col("at_us").cast(TIMESTAMP).alias("source_timestamp"),
        "value",
        "text",
        "status",
        pl.Series("received_timestamp", np.full(rows.height, now_us)).cast(TIMESTAMP),
    )


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system
