"""What the apps role holds of alarms: engine and store together, and who is told.

Each call is one transaction of the store, and only then are its transitions handed on; those that were
written and not handed on before a kill are handed on at the next start. A transition may so be handed on
twice, with the same id; it is in the journal once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import polars as pl

from headrace.alarms.commands import carry_out, check_command
from headrace.alarms.definition import definitions_of
from headrace.alarms.engine import HORIZON_US, ROWS_MAX, AlarmEngine
from headrace.alarms.standing import Standing, stand
from headrace.alarms.store import ROWS_MAX as LINES_MAX
from headrace.alarms.store import AlarmStore
from headrace.formula.bound import Bound
from headrace.model.alarm import AlarmState, Command, CommandAnswer, Transition
from headrace.model.knowledge import FormulaConfig
from headrace.model.time import Clock

Publish = Callable[[Sequence[Transition]], None]
POSITION_EVERY_US: Final = 10_000_000
"""How old the written position may grow while nothing happens: what a restart takes again, at most."""


class AlarmRuntime:
    """All alarms of an installation, live.

    Args:
        store: journal and states; nobody else writes it.
        clock: wall clock, of commands and the journal.
        publish: gets transitions that are written, in order; those of alarms in shadow too.
        horizon_us, rows_max: see :class:`headrace.alarms.engine.AlarmEngine`.

    Attributes:
        needs_us: source time from which the results of alarms are wanted after a start, at least; None: an
            installation without alarms until now.
    """

    def __init__(
        self,
        store: AlarmStore,
        clock: Clock,
        publish: Publish = lambda transitions: None,
        *,
        horizon_us: int = HORIZON_US,
        rows_max: int = ROWS_MAX,
    ) -> None:
        self._store, self._clock, self._publish = store, clock, publish
        position = store.position("known")
        self._engine = AlarmEngine(
            store.states(), position, horizon_us=horizon_us, rows_max=rows_max
        )
        self.needs_us = self._engine.needs_us
        self._written_us = position or 0
        self._waiting: list[Transition] = []
        self._told = store.position("told") or 0
        self._hand_on()

    @property
    def known_us(self) -> int:
        """Source time up to which results were taken."""
        return self._engine.known_us

    @property
    def too_late(self) -> int:
        """Results that came too late to correct an alarm, since the start."""
        return self._engine.too_late

    def states(self) -> list[AlarmState]:
        """All alarms as they are."""
        return list(self._engine.book.states.values())

    def bind(self, bounds: Iterable[Bound], formulas: Iterable[FormulaConfig]) -> None:
        """Let there be the alarms of a configuration and no others.

        Args:
            bounds: of ``formula.binding.bind``; those of formulas are left out.
            formulas: of the same configuration.

        Raises:
            FormulaProblem: when an alarm's text cannot be read.
            Transient: ALARM-1103 when the store is busy; the next call writes it.
        """
        now_us = self._clock.now_us()
        told = self._engine.bind(list(bounds), definitions_of(formulas), now_us, now_us)
        self._write(told, now_us)

    def take(self, results: Sequence[tuple[Bound, pl.DataFrame]], up_to_us: int) -> None:
        """Take what a stream's advance gave.

        Args:
            results: of all conditions up to ``up_to_us``; see :meth:`AlarmEngine.take`.
            up_to_us: source time up to which results are known, exclusive.

        Raises:
            Transient: ALARM-1103 when the store is busy; the transitions are kept, and the next call
                writes them.
        """
        now_us = self._clock.now_us()
        told = self._engine.take(results, up_to_us, now_us)
        told += self._engine.end_shelves(now_us)
        self._write(told, now_us)

    def tick(self) -> None:
        """Let shelves end whose time has come; each second is enough.

        Raises:
            Transient: ALARM-1103 when the store is busy; the next call writes it.
        """
        now_us = self._clock.now_us()
        self._write(self._engine.end_shelves(now_us), now_us)

    def stand(self, wrong: Sequence[Standing]) -> None:
        """Let exactly these be wrong of the installation itself; see :mod:`.standing`.

        Raises:
            Transient: ALARM-1103 when the store is busy; the next call writes it.
        """
        now_us = self._clock.now_us()
        self._write(stand(self._engine.book, wrong, now_us), now_us)

    def command(self, command: Command) -> CommandAnswer:
        """Carry out a command, once: the same id again gives the same answer.

        Raises:
            Misconfigured: ALARM-1010 to ALARM-1015 when it cannot be meant; nothing was done.
            Transient: ALARM-1103 when the store is busy; send it again.
        """
        now_us = self._clock.now_us()
        check_command(command, now_us)
        answer = self._store.answer(command.id)
        if answer is not None:
            return answer
        self._write([], now_us)  # what waits comes first: it is not the command's to undo
        before = self._engine.book.save()
        answer, self._waiting = carry_out(self._engine.book, command, now_us)
        try:
            self._commit(now_us, answer)
        except BaseException:
            self._engine.book.restore(before)
            self._waiting = []
            raise
        self._hand_on()
        return answer

    def close(self) -> None:
        """Write up to where results were taken."""
        self._write([], self._clock.now_us(), always=True)

    def _write(self, told: list[Transition], now_us: int, *, always: bool = False) -> None:
        self._waiting += told
        due = self._engine.known_us - self._written_us >= POSITION_EVERY_US
        if self._waiting or self._engine.book.has_changed or due or always:
            self._commit(now_us)
            self._hand_on()

    def _commit(self, now_us: int, answer: CommandAnswer | None = None) -> None:
        book, known_us = self._engine.book, max(self._engine.known_us, 0)
        states, retired = book.changed()
        self._store.write(
            self._waiting,
            states,
            retired=retired,
            answer=answer,
            positions={"known": known_us, "told": self._told} if known_us else {"told": self._told},
            now_us=now_us,
        )
        book.forget_changed()
        self._written_us, self._waiting = known_us, []

    def _hand_on(self) -> None:
        """Tell what is written and was not told. How far that is, the next transaction writes."""
        while lines := self._store.after(self._told, LINES_MAX):
            self._publish([line.transition for line in lines])
            self._told = lines[-1].number
