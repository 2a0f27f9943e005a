"""The alarms' place in the role: results and commands in, written transitions out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, get_args

import msgspec
import polars as pl

from headrace.alarms.runtime import AlarmRuntime
from headrace.alarms.store import AlarmStore
from headrace.apps.care import ending
from headrace.apps.knowledge import Knowledge
from headrace.bus.client import Bus
from headrace.bus.subjects import Subjects
from headrace.formula.bound import Bound
from headrace.model.alarm import Command, Transition, Verb
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, HeadraceError, Misconfigured, Transient
from headrace.model.folder import DataFolder
from headrace.model.health import Severity
from headrace.model.time import Clock
from headrace.security.expiry import certificates_of

CARE_S: Final = 60.0
VERBS: Final[tuple[Verb, ...]] = get_args(Verb)
Report = Callable[[Severity, str, str, str], None]
_SEVERITIES: Final[dict[str, Severity]] = {"low": "info", "medium": "warning"}


class Desk:
    """Runs the alarms; one call at a time, each in a thread.

    Args:
        folder: where the store of alarms is. clock: wall-clock.
        report: told of each alarm that comes up, for the events.
    """

    def __init__(self, folder: DataFolder, clock: Clock, report: Report) -> None:
        self._folder = folder
        self._clock = clock
        self._report = report
        self._lock = asyncio.Lock()
        self._store: AlarmStore | None = None
        self._runtime: AlarmRuntime | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cared_s = float("-inf")
        self.error: HeadraceError | None = None

    @property
    def needs_us(self) -> int | None:
        """Source time from which the results of alarms are wanted after a start; None: from now on."""
        return self._runtime.needs_us if self._runtime is not None else None

    async def bind(self, knowledge: Knowledge) -> None:
        """Let there be the alarms of a configuration and no others.

        Raises:
            Transient: ALARM-1103 when the store is busy; call again.
        """
        self._loop = asyncio.get_running_loop()
        formulas = [
            each
            for each in knowledge.config.formulas
            if each.kind == "alarm" and f"{each.asset_type}.{each.name}" not in knowledge.stopped
        ]
        alarms = alarms_of(knowledge)
        async with self._lock:
            runtime = await asyncio.to_thread(self._open)
            await asyncio.to_thread(runtime.bind, alarms, formulas)

    async def take(self, results: Sequence[tuple[Bound, pl.DataFrame]], up_to_us: int) -> None:
        """Results of alarms' conditions, all up to a source time; a store that is busy gets what they
        bring with the next ones."""
        assert self._runtime is not None, "bind comes first"
        async with self._lock:
            try:
                await asyncio.to_thread(self._runtime.take, results, up_to_us)
            except Transient as error:
                self.error = error

    async def tick(self) -> None:
        """Let shelves end, and look at the installation itself each minute; each second.

        Raises:
            Transient: ALARM-1103 when the store is busy; the next call does it.
        """
        if self._runtime is not None:
            async with self._lock:
                await asyncio.to_thread(self._runtime.tick)
                now_s = self._clock.monotonic_s()
                if now_s - self._cared_s >= CARE_S:
                    await asyncio.to_thread(self._care, self._runtime)
                    self._cared_s = now_s

    def _care(self, runtime: AlarmRuntime) -> None:
        try:
            runtime.stand(ending(certificates_of(self._folder), self._clock.now_us()))
        except (Misconfigured, Corrupt) as error:
            self.error = error  # what stands in the list stays until they can be read again

    async def serve(self, bus: Bus, subjects: Subjects, may: Callable[[], bool]) -> None:
        """Carry out commands that come over the bus, as long as this process may."""
        for verb in VERBS:
            await bus.answer(subjects.apps_call(verb), self._command, when=may)

    async def close(self) -> None:
        """Write how far results were taken, and close the store."""
        async with self._lock:
            runtime, self._runtime = self._runtime, None
            store, self._store = self._store, None
            if runtime is not None and store is not None:
                try:
                    await asyncio.to_thread(runtime.close)
                except Transient as error:
                    self.error = error
                await asyncio.to_thread(store.close)

    def _open(self) -> AlarmRuntime:
        if self._runtime is None:
            self._store = AlarmStore(self._folder)
            self._runtime = AlarmRuntime(self._store, self._clock, self._hand_on)
        return self._runtime

    async def _command(self, body: bytes) -> bytes:
        try:
            command = msgspec.json.decode(body, type=Command)
        except UNREADABLE as error:
            raise Misconfigured(
                "APPS-1008", f"a command does not fit: {error}", "See docs/alarms.md."
            ) from error
        async with self._lock:
            if self._runtime is None:
                raise Transient("APPS-1009", "the alarms are not loaded yet", "Try again.")
            answer = await asyncio.to_thread(self._runtime.command, command)
        return msgspec.json.encode(answer)

    def _hand_on(self, transitions: Sequence[Transition]) -> None:
        """In a thread: transitions that are written; those that came up become events."""
        assert self._loop is not None, "bind comes first"
        for each in transitions:
            if each.event == "alarm" and not each.shadow and each.after == "UNACK":
                text = f"{each.alarm}: {each.message.say('en') or 'alarm'}"
                severity = _SEVERITIES.get(each.priority, "error")
                self._loop.call_soon_threadsafe(
                    self._report, severity, "APPS-1103", text, "See it: headrace alarm list"
                )


def alarms_of(knowledge: Knowledge) -> tuple[Bound, ...]:
    """The bounds of alarms: of their conditions, ends and suppressions."""
    return tuple(bound for bound in knowledge.bounds if bound.role != "formula")
