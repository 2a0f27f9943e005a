"""The console's alarms: the list kept fresh, the journal, and commands on their way to the apps role.

The console only reads the store. What people do travels as a request to the apps role, which alone
writes; every door (page, REST, command line) comes through :meth:`AlarmBoard.act`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import msgspec
import polars as pl

from headrace.alarms.commands import check_command
from headrace.alarms.metrics import (
    FLOOD_FROM,
    FLOOD_UNTIL,
    PERIOD_US,
    AlarmMetrics,
    by_area,
    metrics,
)
from headrace.alarms.store import AlarmFilter, AlarmStore, JournalFilter, JournalLine
from headrace.console.alarm_about import AlarmAbout, AlarmTexts
from headrace.console.alarm_lines import badge
from headrace.model.alarm import (
    AlarmState,
    Command,
    CommandAnswer,
    Verb,
)
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, HeadraceError, Transient
from headrace.model.knowledge import AppsConfig
from headrace.model.time import US_PER_S, Clock
from headrace.security.audit import AuditChain
from headrace.security.policy import Action, Actor, require

RIGHTS: Final[dict[Verb, Action]] = {
    "acknowledge": "operate",
    "reset": "operate",
    "shelve": "operate",
    "unshelve": "operate",
    "comment": "operate",
    "assign": "operate",
    "remove_from_service": "edit",
    "return_to_service": "edit",
}
"""What the policy is asked for, for each verb: operators work alarms, engineers take them out of service."""
REFRESH_S: Final = 1.0
TOLD_MAX: Final = 50
NAMED_MAX: Final = 1_000
JUDGE_EVERY_US: Final = 10 * US_PER_S


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What a person wants done; see :class:`headrace.model.alarm.Command`. Without an ``id`` it gets one."""

    verb: Verb
    alarms: tuple[str, ...]
    comment: str = ""
    until_us: int = 0
    assignee: str = ""
    id: str = ""


Ask = Callable[[str, Any], Awaitable[Any]]


class AlarmBoard:
    """What pages and routes see of the alarms.

    Args:
        store: states and journal, which it only reads.
        ask: asks the apps role a verb with a message; gives its decoded answer.
        config: gives the desired state of the apps role, as JSON; None when there is none.
        clock: for what was recent.

    Attributes:
        states: all alarms. version: counts up when they changed.
        badge: how many wait to be acknowledged, and the highest priority of them.
        problem: why the store cannot be read, else "".
        recent: how many came up in the last 10 minutes; flood_since_us: 0 when there is no flood
            (ISA-18.2: more than 10 in 10 minutes, until fewer than 5).
    """

    def __init__(
        self,
        store: AlarmStore,
        ask: Ask,
        config: Callable[[], Awaitable[bytes | None]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._ask = ask
        self._config = config
        self._config_body: bytes | None = None
        self._woken = asyncio.Event()
        self._clock = clock
        self._revision = (-1, -1)
        self._judged_us = 0
        self._texts = AlarmTexts()
        self._refreshing = asyncio.Lock()
        self._watchers: set[asyncio.Event] = set()
        self.states: tuple[AlarmState, ...] = ()
        self.badge: tuple[int, str] = (0, "")
        self.version = 0
        self.problem = ""
        self.recent = 0
        self.flood_since_us = 0

    @property
    def defined(self) -> bool:
        """Whether the site has alarms, also when none of them ever spoke."""
        return bool(self.states) or self._texts.defined

    def about(self, alarm: AlarmState) -> AlarmAbout:
        """Guidance, condition, limit and tags of an alarm."""
        return self._texts.about(alarm.key, alarm.asset)

    def find(self, path: str) -> AlarmState | None:
        """An alarm by its path."""
        return next((one for one in self.states if one.alarm == path), None)

    async def _read_config(self) -> None:
        try:
            body = await self._config()
        except Transient:
            return  # the texts known last stay while the broker is away; states do not come from it
        if body == self._config_body:
            return
        self._config_body = body
        try:
            config = msgspec.json.decode(body, type=AppsConfig) if body else None
        except UNREADABLE as error:
            raise Corrupt("CONS-1304", f"the desired state of the apps role: {error}") from error
        self._texts = AlarmTexts(config)
        self._changed()

    def _changed(self) -> None:
        self.version += 1
        for watcher in self._watchers:
            watcher.set()

    @contextlib.contextmanager
    def watch(self) -> Iterator[asyncio.Event]:
        """An event that is set after each change, as long as the context lasts."""
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            yield event
        finally:
            self._watchers.discard(event)

    async def refresh(self) -> None:
        """Read what changed; when the store cannot be read, the last states stay and ``problem`` says why."""
        async with self._refreshing:
            before = self.problem, self.recent, self.flood_since_us
            try:
                await self._read()
                await self._read_config()
                self.problem = ""
            except HeadraceError as error:
                self.problem = f"{error.code} {error.what}"
            if before != (self.problem, self.recent, self.flood_since_us):
                self._changed()

    async def _read(self) -> None:
        revision = await asyncio.to_thread(self._mark)
        changed = revision != self._revision
        if changed:
            states = tuple(await asyncio.to_thread(self._store.states))
            self._revision = revision
            if states != self.states:
                self.states, self.badge = states, badge(states)
                self._changed()
        now_us = self._clock.now_us()
        if changed or now_us - self._judged_us >= JUDGE_EVERY_US:
            self._judged_us = now_us
            self._judge_flood(await asyncio.to_thread(self._told_lately, now_us))

    def _told_lately(self, now_us: int) -> list[int]:
        """When alarms were told in the last 10 minutes, as the metrics count them; in columns, since in a
        flood they are many."""
        journal = self._store.journal_frame(now_us - PERIOD_US, now_us + PERIOD_US)
        told = journal.filter((pl.col("after") == "UNACK") & (pl.col("before") != "UNACK"))
        found: list[int] = told["at_us"].to_list()
        return found

    def _mark(self) -> tuple[int, int]:
        """Another one whenever a state changed: each change is a line of the journal, a new alarm a row."""
        return self._store.last_number(), self._store.count(AlarmFilter(shadow=None))

    def _judge_flood(self, onsets_us: list[int]) -> None:
        """ISA-18.2 and EEMUA 191: a flood begins with more than 10 alarms in 10 minutes for one
        operator, and ends when fewer than 5 come in 10 minutes."""
        self.recent = len(onsets_us)
        if self.recent > FLOOD_FROM and not self.flood_since_us:
            self.flood_since_us = sorted(onsets_us)[0]
        elif self.recent < FLOOD_UNTIL:
            self.flood_since_us = 0

    async def follow(self, stop: asyncio.Event) -> None:
        """Keep the list fresh until ``stop`` is set."""
        while not stop.is_set():
            await self.refresh()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), REFRESH_S)
            self._woken.clear()

    def wake(self) -> None:
        """Something happened: look now, not at the next second."""
        self._woken.set()

    async def journal(self, wanted: JournalFilter) -> list[JournalLine]:
        """Lines of the journal, the newest first.

        Raises:
            HeadraceError: the store cannot be read.
        """
        return await asyncio.to_thread(self._store.journal, wanted)

    async def metrics(
        self, start_us: int, end_us: int, *, below: str = "", depth: int = 0
    ) -> dict[str, AlarmMetrics]:
        """The figures of ISA-18.2 and EEMUA 191 over a source time.

        Args:
            below: equipment path, "" is the site.
            depth: 0 gives the whole under ``below``; 1 an entry for each area, 2 each work center...

        Raises:
            Transient: ALARM-1103 when the journal cannot be read.
        """

        def count() -> dict[str, AlarmMetrics]:
            journal = self._store.journal_frame(start_us, end_us, area=below)
            found = [state for state in states if is_below(state, below)]
            if depth:
                return by_area(journal, found, start_us, end_us, depth=depth)
            return {below: metrics(journal, found, start_us, end_us)}

        states = self.states
        return await asyncio.to_thread(count)

    async def after(self, number: int, limit: int) -> list[JournalLine]:
        """Lines after one of that number, in their order."""
        return await asyncio.to_thread(self._store.after, number, limit)

    async def last_number(self) -> int:
        """Of the journal's last line."""
        return await asyncio.to_thread(self._store.last_number)

    @property
    def watchers(self) -> int:
        """How many wait for changes now."""
        return len(self._watchers)

    def things(self, act: Act) -> list[tuple[str, dict[str, str]]]:
        """What the policy is asked for an act: each alarm with its equipment, one of each equipment."""
        found: dict[str, tuple[str, dict[str, str]]] = {}
        named = ",".join(act.alarms)  # of which a signature is for all, not for the first alone
        if len(named) > NAMED_MAX:
            named = hashlib.sha256(named.encode()).hexdigest()
        for alarm in act.alarms:
            asset = alarm.rpartition("/")[0]
            facts = {"equipment": asset, "verb": act.verb, "alarms": named}
            found.setdefault(asset, (f"alarm/{alarm}", facts))
        return list(found.values()) or [("alarm/", {"equipment": "", "verb": act.verb})]

    async def act(self, actor: Actor, act: Act, audit: AuditChain) -> CommandAnswer:
        """Do what a person wants, once: the request has an id of its own.

        Args:
            audit: where it is told, before and after.

        Raises:
            Refused: SEC-1004 when the role is not enough.
            Misconfigured: ALARM-1010 to ALARM-1015 for what cannot be meant.
            Transient: the apps role does not answer; nothing was done, or it was: look at the list.
        """
        for resource, facts in self.things(act):
            require(actor, RIGHTS[act.verb], resource, {**facts, "signed": True, "approved": True})
        command = Command(
            id=act.id or secrets.token_hex(12),
            verb=act.verb,
            alarms=tuple(dict.fromkeys(act.alarms)),
            actor=actor.name,
            comment=act.comment.strip(),
            until_us=act.until_us,
            assignee=act.assignee,
        )
        check_command(command, self._clock.now_us())
        named = command.alarms[:TOLD_MAX]
        about = (actor.name, f"alarm.{act.verb}", f"alarm/{named[0]}")
        async with audit.doing(*about, alarms=named, count=len(command.alarms)) as told:
            answer = msgspec.convert(await self._ask(act.verb, command), CommandAnswer)
            told["refused"] = len(answer.refused)
        await self.refresh()
        return answer


def is_below(state: AlarmState, path: str) -> bool:
    """Whether the asset lies at or below an equipment path; "" is everywhere."""
    return f"{state.asset}/".startswith(f"{path}/") if path else True
