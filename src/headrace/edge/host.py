"""The host of one connection: session, schedule, retry, back-off, state and counts.

::

    disabled ◄── enabled = false, or end of input
    connecting ──► connected ◄──► degraded    (degraded: some tags are Bad, or polls take too long)
         ▲             │
         │             ▼ Transient
         └───────── waiting  (back-off 0.5 s, doubling to 30 s; at once when the settings change)
         └───────── refused  (Refused, Misconfigured, Terminal: 30 s; a person is needed)

A connector knows none of this; see :mod:`headrace.edge.contract`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import polars as pl

from headrace.edge.books import Account, Books, Cell
from headrace.edge.contract import (
    Connector,
    ConnectorContext,
    ConnectorType,
    EndOfInput,
    Reading,
    ScanGroup,
)
from headrace.edge.events import connection_event
from headrace.edge.load import Load
from headrace.edge.outlet import Outlet
from headrace.edge.pipeline import Counts, Pipeline
from headrace.edge.publisher import Lane
from headrace.model.desired import ConnectionConfig, TagConfig
from headrace.model.errors import (
    Corrupt,
    HeadraceError,
    Misconfigured,
    Refused,
    Terminal,
    Transient,
)
from headrace.model.health import ConnectionState, ConnectionStateName, Event, Severity
from headrace.model.ledger import MARKS, SUBSCRIPTION
from headrace.model.time import US_PER_S, Clock
from headrace.model.why_facts import EdgeFacts
from headrace.security.redaction import REDACTOR

BACK_OFF_FIRST_S: Final = 0.5
BACK_OFF_MAX_S: Final = 30.0
REFUSED_WAIT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 60.0
CLOSE_TIMEOUT_S: Final = 2.0
HANDSHAKE_S: Final = 1.0
TAG_ERRORS_SHOWN: Final = 20
START_UP_US: Final = 15 * US_PER_S
PACE_POLLS: Final = 3

Report = Callable[[Event], None]
OpenConnector = Callable[[ConnectionConfig, ConnectorContext], Connector]


class ConnectionHost:
    """Runs one connection until it is cancelled.

    Args:
        config: what to run.
        kind: its connector.
        context: makes the context of each session, given the time to resume from.
        lane: where samples go. outlet: what of them may go there, and where the rest goes; None: all may.
        clock: time.
        report: takes events; must not block.
        edge: name of this edge, for states and events.
        counts: of this connection before its settings changed, to go on from.
        account: of this connection in the books of its edge; None: it has books of its own.
        load: how busy the edge is; None: nobody looks.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        kind: ConnectorType,
        *,
        context: Callable[[int], Awaitable[ConnectorContext]],
        lane: Lane,
        clock: Clock,
        report: Report,
        edge: str,
        counts: Counts | None = None,
        account: Account | None = None,
        load: Load | None = None,
        outlet: Outlet | None = None,
    ) -> None:
        self.config = config
        self._load = load or Load(clock)
        self.account = account or Books(edge, clock).account(config.name)
        self.pipeline = Pipeline(config.tags, counts)
        self._kind = kind
        self._context = context
        self._lane = lane
        self.outlet = outlet or Outlet(lane)
        self._clock = clock
        self._report = report
        self._edge = edge
        self._errors: dict[int, str] = {}
        self._paths = {tag.tag_id: tag.path for tag in config.tags}
        self._connector: Connector | None = None
        self._one_call = asyncio.Lock()
        self._sessions = 0
        self._try_now = asyncio.Event()
        self._began_us = clock.now_us()
        self._untold = False
        self._pace = Pace()
        self._late_cause = 0
        self._away_since_s: float | None = None
        self._heard_us = 0
        self._away_polls: dict[int, int] = {}
        self._state = ConnectionState(
            connection=config.name,
            protocol=config.protocol,
            endpoint=config.endpoint,
            edge=edge,
            state="connecting" if config.enabled else "disabled",
            since_us=clock.now_us(),
        )

    def state(self) -> ConnectionState:
        """The state now, with counts; a fresh snapshot is cheap."""
        counts = self.pipeline.counts
        state = self._state
        state.expected, state.read, state.bad = counts.expected, counts.read, counts.bad
        state.missed, state.marked = counts.missed, counts.marked
        state.filtered, state.dropped = counts.filtered, counts.dropped
        state.protected = counts.protected
        state.published = counts.published + self._lane.published
        state.buffered = self._lane.buffered
        state.tags, state.tags_bad = len(self.config.tags), self.pipeline.tags_bad
        state.reconnects = max(0, self._sessions - 1)
        state.tag_errors = {
            self._paths[tag_id]: text
            for tag_id, text in list(self._errors.items())[:TAG_ERRORS_SHOWN]
            if tag_id in self._paths
        }
        return state

    def continue_from(self, earlier: ConnectionHost) -> None:
        """Know the last values that a host of the same connection read before its settings changed;
        so a tag that is lost by the change gets its mark."""
        counts = self.pipeline.counts
        self.pipeline = earlier.pipeline
        self.pipeline.counts = counts
        self.pipeline.retag(self.config.tags)

    def retag(self, config: ConnectionConfig) -> None:
        """Take over changes that need no new session: units, scale, dead-band, envelopes, paths."""
        self.config = config
        self._paths = {tag.tag_id: tag.path for tag in config.tags}
        self.pipeline.retag(config.tags)

    def why(self, tag_id: int) -> EdgeFacts:
        """What is known here of one tag's way into the log."""
        now_us, lane, seen = self._clock.now_us(), self._lane.standing(), self.pipeline.seen(tag_id)
        facts = EdgeFacts(
            at_us=now_us,
            has_tag=seen is not None,
            connection=self.state(),
            polled=self._kind.mode == "poll",
            heard_us=self._heard_us,
            keeps_alive=self._state.device_clock_offset_us is not None,
            tag_error=self._errors.get(tag_id, ""),
            buffered=lane.buffered,
            protection=self._rule(tag_id),
        )
        if seen is not None:
            facts.source_us, facts.received_us = seen.source_us, seen.received_us
            facts.passed_us, facts.passed_source_us = seen.passed_us, seen.passed_source_us
            facts.status = seen.status
        if lane.waiting_s is not None:
            facts.waiting_since_us = now_us - int(lane.waiting_s * US_PER_S)
        if lane.acknowledged_s is not None:
            facts.acknowledged_us = now_us - int(lane.acknowledged_s * US_PER_S)
        if lane.trouble is not None:
            facts.trouble_code, facts.trouble = lane.trouble.code, lane.trouble.what
            facts.trouble_remedy = lane.trouble.remedy
        return facts

    def _rule(self, tag_id: int) -> str:
        """By which rule a tag leaves, when one protects it."""
        return next((r.rule for r in self.config.protection if tag_id in r.tag_ids), "")

    def try_now(self) -> None:
        """End the wait before the next try; nothing when there is a session."""
        if self._state.state in ("waiting", "refused"):
            self._try_now.set()

    @property
    def connector(self) -> Connector | None:
        """The open connector, for writes; None while there is no session."""
        return self._connector if self._state.state in ("connected", "degraded") else None

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Hold the connection for a call of another kind; polls wait meanwhile."""
        if self._kind.mode == "poll":
            async with self._one_call:
                yield
        else:
            yield

    async def run(self) -> None:
        """Connect, read, retry; returns only at the end of input."""
        if not self.config.enabled:
            self._mark(self.pipeline.paused(self._clock.now_us()))
            return
        back_off_s = BACK_OFF_FIRST_S
        while True:
            sessions_before = self._sessions
            try:
                await self._session()
            except EndOfInput:
                self._enter("disabled")
                self._tell("info", "EDGE-1012", "the source has ended")
                return
            except HeadraceError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - supervisor: a connector's bug must not stop the edge
                failure = Transient(
                    "EDGE-1099", f"the connector failed: {type(error).__name__}: {error}"
                )
            if self._sessions > sessions_before:
                back_off_s = BACK_OFF_FIRST_S
            wait_s = self._fail(failure, back_off_s)
            back_off_s = min(back_off_s * 2, BACK_OFF_MAX_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._try_now.wait(), wait_s)
            self._try_now.clear()

    async def _session(self) -> None:
        self._state.next_try_us = 0
        if self._state.state not in ("refused", "waiting"):
            self._enter("connecting")
        context = await self._context(self._lane.durable_us)
        connector = self._kind.open(self.config, context)
        try:
            try:
                # Not wait_for: in Python 3.11 it may swallow the cancel that stops this connection.
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
                    await connector.connect()
            except TimeoutError as error:
                raise Transient(
                    "EDGE-1013", f"{self.config.name} did not connect in {CONNECT_TIMEOUT_S:.0f} s"
                ) from error
            self._connector = connector
            self._sessions += 1
            self.count_away()
            self._away_since_s, self._away_polls = None, {}
            self._enter("connected")
            self._tell("info", "EDGE-1010", f"connected to {self.config.endpoint}")
            if self._kind.mode == "poll":
                await self._poll(connector)
            else:
                await self._follow(connector)
        finally:
            self._connector = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await connector.close()

    async def _follow(self, connector: Connector) -> None:
        group = ScanGroup(0, self.config.tags)
        while True:
            await self._lane.room()
            self._take(await connector.read(group), group)

    async def _poll(self, connector: Connector) -> None:
        groups = scan_groups(self.config)
        if not groups:
            # Nothing to read; the session stays for writes and browsing.
            await asyncio.Event().wait()
        start_s = self._clock.monotonic_s()
        due_s = [start_s] * len(groups)
        while True:
            at = min(range(len(groups)), key=due_s.__getitem__)
            group = groups[at]
            await asyncio.sleep(max(0.0, due_s[at] - self._clock.monotonic_s()))
            asked_s = self._clock.monotonic_s()
            await self._lane.room()
            full_s = self._clock.monotonic_s() - asked_s
            async with self._one_call:
                try:
                    reading = await connector.read(group)
                except EndOfInput:
                    raise
                except Exception:
                    self._miss(group, "failed", len(group.tags))
                    raise
            self._take(reading, group)
            if reading.waits and not await self._lane.drain(HANDSHAKE_S):
                # It was acknowledged: the device's next record may be there already.
                due_s[at] = self._clock.monotonic_s()
                continue
            interval_s = group.scan_interval_ms / 1000
            due_s[at] += interval_s
            missed = int(max(0.0, self._clock.monotonic_s() - due_s[at]) / interval_s)
            waited = min(missed, round(full_s / interval_s))
            if missed:
                # Polls that could not be made are expected samples that never came.
                busy = missed - waited if self._load.is_over else 0
                self._miss(group, "overload", (waited + busy) * len(group.tags))
                self._miss(group, "slow", (missed - waited - busy) * len(group.tags))
                due_s[at] += missed * interval_s
            self._note_pace(group, missed, full=2 * waited > missed)

    def _note_pace(self, group: ScanGroup, missed: int, *, full: bool) -> None:
        """Say once when polls miss their interval, and why; once when they keep it again.

        A cause is told again only when it was worse than known: the edge itself, then the log.
        """
        was_slow = self._pace.slow
        self._pace.note(missed)
        if self._pace.slow != was_slow:
            self._enter("degraded" if self._errors or self._pace.slow else "connected")
        interval = f"its scan interval of {group.scan_interval_ms} ms"
        if was_slow and not self._pace.slow:
            self._late_cause = 0
            self._tell("info", "EDGE-1019", f"{self.config.name} keeps {interval} again")
        cause = 3 if full else 2 if self._load.is_over else 1
        if not self._pace.slow or not missed or cause <= self._late_cause:
            return
        self._late_cause = cause
        if full:
            self._warn(
                "EDGE-1602",
                f"the buffer of {self.config.name} is full: the log does not take its samples, and"
                f" polls at {interval} are missed",
                "See whether broker and disk keep up: headrace status",
            )
        elif self._load.is_over:
            self._warn(
                "EDGE-1601",
                f"the edge {self._edge} has more to do than it can: its timers are"
                f" {self._load.late_s * 1000:.0f} ms late, and polls of {self.config.name} at"
                f" {interval} are missed",
                "Lengthen scan_interval_ms, spread the connections over more edges, or see what"
                " else runs on this machine.",
            )
        else:
            self._warn(
                "EDGE-1018",
                f"{self.config.name} answers too slowly for {interval}: one poll takes the time"
                f" of {missed + 1}, and the others are missed",
                "Look at the load of device and network, read fewer tags, or lengthen"
                " scan_interval_ms.",
            )

    def _warn(self, code: str, text: str, remedy: str) -> None:
        """Tell what is wrong while the connection stands, and show it in its state."""
        state = self._state
        state.last_error_code, state.last_error_us = code, self._clock.now_us()
        state.last_error, state.last_error_remedy = text, remedy
        self._tell("warning", code, text, remedy)

    def _take(self, reading: Reading, group: ScanGroup) -> None:
        now_us = self._clock.now_us()
        counts = self.pipeline.counts
        cell, before = self._cell(group), dataclasses.replace(counts)
        try:
            _check_missed(reading.missed)
            batch = self.pipeline.process(reading.batch, reading.expected)
        except Corrupt:
            self._miss(group, "foreign", max(reading.expected, reading.batch.height))
            raise
        cell.take(counts.read - before.read, counts.bad - before.bad)
        cell.miss("failed", counts.missed - before.missed)
        cell.counts.filtered += counts.filtered - before.filtered
        for cause, samples in reading.missed.items():
            self._miss(group, cause, samples)
        counts.protected += self.outlet.offer(
            batch,
            now_us,
            reading.acknowledge,
            waits=reading.waits,
            resume_us=reading.resume_us,
            cell=cell,
            marked=self._give_aggregates,
        )
        if reading.stale:
            self._mark(self.pipeline.stale(reading.stale, now_us))
        for code, text in reading.notices:
            self._tell("warning", code, text)
        self._note_tag_errors(reading.tag_errors)
        if reading.batch.height:
            if self._untold:
                self._forget_error()
            self._state.last_success_us = now_us
        if reading.batch.height or reading.device_time_us is not None:
            self._heard_us = now_us
        if reading.device_time_us is not None:
            self._state.device_clock_offset_us = reading.device_time_us - now_us
        self._enter("degraded" if self._errors or self._pace.slow else "connected")

    def _cell(self, group: ScanGroup) -> Cell:
        name = f"{group.scan_interval_ms}ms" if self._kind.mode == "poll" else SUBSCRIPTION
        return self.account.cell(name)

    def _miss(self, group: ScanGroup, cause: str, samples: int) -> None:
        if samples:
            self.pipeline.counts.miss(samples)
            self._cell(group).miss(cause, samples)

    def _mark(self, batch: pl.DataFrame) -> None:
        """Give samples of our own to the log, those that may leave."""
        if batch.height:
            cell = self.account.cell(MARKS)
            told = self.outlet.mark(batch, cell)
            cell.counts.marked += told.height
            self.pipeline.counts.marked -= batch.height - told.height

    def _give_aggregates(self, batch: pl.DataFrame) -> None:
        cell = self.account.cell(MARKS)
        cell.counts.marked += batch.height
        self.pipeline.counts.marked += batch.height
        self._lane.offer(batch, cell=cell)

    def count_away(self) -> None:
        """Count the polls that were due while there was no session, up to now."""
        if self._away_since_s is None or self._kind.mode != "poll":
            return
        away_s = self._clock.monotonic_s() - self._away_since_s
        for group in scan_groups(self.config):
            polls = int(away_s * 1000 / group.scan_interval_ms)
            counted = self._away_polls.get(group.scan_interval_ms, 0)
            self._away_polls[group.scan_interval_ms] = max(polls, counted)
            self._miss(group, "disconnected", max(polls - counted, 0) * len(group.tags))

    def count_down(self, since_us: int) -> None:
        """Count the polls that were due since this edge was killed."""
        if self._kind.mode == "poll" and self.config.enabled:
            down_ms = max(self._clock.now_us() - since_us, 0) // 1000
            for group in scan_groups(self.config):
                polls = down_ms // group.scan_interval_ms
                self._miss(group, "edge_down", polls * len(group.tags))

    @property
    def is_polled(self) -> bool:
        """Polls are due, whether or not there is a session."""
        return self._kind.mode == "poll" and self._state.state != "disabled"

    def _note_tag_errors(self, errors: dict[int, str]) -> None:
        for tag_id in [known for known in self._errors if not self.pipeline.is_bad(known)]:
            if tag_id not in errors:
                del self._errors[tag_id]
                self._tell("info", "EDGE-1015", f"{self._paths.get(tag_id, tag_id)} is read again")
        for tag_id, text in errors.items():
            if self.outlet.protection.covers(tag_id):
                # A connector's text may hold what it could not read.
                text = f"{text.partition(' ')[0]} it cannot be read; its protection hides the rest"
            if tag_id not in self._errors:
                self._tell("warning", "EDGE-1014", f"{self._paths.get(tag_id, tag_id)}: {text}")
            self._errors[tag_id] = text

    def _fail(self, failure: HeadraceError, back_off_s: float) -> float:
        # A device may send in its error what we sent to it.
        failure.what = REDACTOR.blotted(failure.what)
        now_us = self._clock.now_us()
        if self._away_since_s is None:
            self._away_since_s = self._clock.monotonic_s()
        needs_person = isinstance(failure, (Refused, Misconfigured, Terminal))
        wait_s = REFUSED_WAIT_S if needs_person else back_off_s
        if isinstance(failure, Transient) and failure.retry_after_s is not None:
            wait_s = min(failure.retry_after_s, BACK_OFF_MAX_S)
        self._mark(self.pipeline.lost(now_us))
        state = self._state
        first = state.state not in ("waiting", "refused") or state.last_error_code != failure.code
        state.last_error_code, state.last_error = failure.code, failure.what
        state.last_error_remedy, state.last_error_us = failure.remedy, now_us
        state.next_try_us = now_us + int(wait_s * US_PER_S)
        self._enter("refused" if needs_person else "waiting")
        # Edge and devices often start together: what fails then is shown while it lasts, and becomes
        # an event only when it does not pass.
        starting = state.last_success_us == 0 and now_us - self._began_us < START_UP_US
        self._untold = self._untold or first
        if self._untold and (needs_person or not starting):
            self._untold = False
            severity: Severity = "error" if needs_person else "warning"
            self._tell(severity, failure.code, failure.what, failure.remedy)
        return wait_s

    def _forget_error(self) -> None:
        state, self._untold = self._state, False
        state.last_error_code = state.last_error = state.last_error_remedy = ""
        state.last_error_us = 0

    def _enter(self, name: ConnectionStateName) -> None:
        if self._state.state != name:
            self._state.state = name
            self._state.since_us = self._clock.now_us()

    def _tell(self, severity: Severity, code: str, text: str, remedy: str = "") -> None:
        place = (self._clock, self._edge, self.config.name)
        self._report(connection_event(*place, severity, code, text, remedy))


def _check_missed(missed: dict[str, int]) -> None:
    strange = sorted(missed.keys() - {"device", "gap"})
    if strange or any(samples < 0 for samples in missed.values()):
        raise Corrupt(
            "EDGE-1701",
            f"a reading says that samples were missed by {strange or missed}",
            "It is an error of the connector: the causes are device and gap; report it.",
        )


class Pace:
    """Whether polls keep their interval; three in a row decide, so that one late poll says nothing.

    Example:
        >>> pace = Pace()
        >>> [pace.note(missed) or pace.slow for missed in (1, 1, 1, 0, 0, 0)]
        [False, False, True, True, True, False]
    """

    def __init__(self) -> None:
        self.slow = False
        self._against = 0

    def note(self, missed: int) -> None:
        """Take in one poll, and how many more it should have been by its end."""
        self._against = self._against + 1 if (missed > 0) != self.slow else 0
        if self._against >= PACE_POLLS:
            self.slow, self._against = not self.slow, 0


def scan_groups(config: ConnectionConfig) -> list[ScanGroup]:
    """The connection's tags by scan interval, fastest first.

    Example:
        >>> scan_groups(ConnectionConfig(name="a", protocol="modbus", endpoint="x"))
        []
    """
    by_interval: dict[int, list[TagConfig]] = {}
    for tag in config.tags:
        by_interval.setdefault(tag.scan_interval_ms, []).append(tag)
    return [ScanGroup(interval, tuple(by_interval[interval])) for interval in sorted(by_interval)]
