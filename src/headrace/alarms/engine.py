"""From results of conditions to transitions, in source time. Pure and deterministic.

::

    results ──► rows of all alarms ──┬─ in order ─► Activity (NumPy) ─► changes ─┐
                                     └─ late ─────► replay of what is retained ──┴► by time ─► Book

Thousands of alarms cost a few array operations; only what changes costs Python. Events take place in the
order of their source time within one call, and calls follow each other: what was told is not untold, a
correction is told after it (:mod:`.correction`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from headrace.alarms.book import Book, Deed
from headrace.alarms.correction import Edge, corrections
from headrace.alarms.definition import AlarmDefinition
from headrace.alarms.retained import ALWAYS, Retained
from headrace.formula.activity import OFF, ON, Activity, Rows, rows_of
from headrace.formula.alarm_check import OFF as OFF_SUFFIX
from headrace.formula.alarm_check import SUPPRESSED as SUPPRESSED_SUFFIX
from headrace.formula.bound import Bound
from headrace.formula.steps import Bools, Keys
from headrace.model.alarm import AlarmState, EventName, Transition
from headrace.model.knowledge import given_name
from headrace.model.status import RETRACTED

HORIZON_US: Final = 15 * 60 * 1_000_000
ROWS_MAX: Final = 2_000_000
_ORDER: Final[Mapping[EventName, int]] = {
    # At one time: first what keeps an alarm quiet, last what lets it be heard.
    "suppress": 0,
    "revoke": 1,
    "missed": 1,
    "uncertain": 2,
    "certain": 2,
    "alarm": 3,
    "return_to_normal": 3,
    "unsuppress": 4,
}


class Happening(NamedTuple):
    """An event that results of conditions bring."""

    at_us: int
    order: int
    alarm: str
    event: EventName
    correction: bool = False


class _Place(NamedTuple):
    """Where a condition's results go: number of its first alarm, and ON, OFF or -1 for suppression."""

    base: int
    which: int


class AlarmEngine:
    """All alarms of an installation.

    Args:
        states: as the store has them.
        position_us: source time up to which results were taken before; None when none were. Results
            before it teach the engine again what it knew, and tell nothing that was told.
        horizon_us: late results up to so long ago can correct an alarm.
        rows_max: results kept for that, at most.

    Attributes:
        book: the states.
        known_us: source time up to which results were taken.
        too_late: results that came too late to correct anything, since the start.
    """

    def __init__(
        self,
        states: Iterable[AlarmState] = (),
        position_us: int | None = None,
        *,
        horizon_us: int = HORIZON_US,
        rows_max: int = ROWS_MAX,
    ) -> None:
        self.book = Book(states)
        self.known_us = ALWAYS if position_us is None else position_us
        self.too_late = 0
        self.horizon_us = horizon_us
        self._taught_us = self.known_us
        self._retained = Retained(horizon_us, rows_max)
        self._paths: list[str] = []
        self._versions: dict[str, int] = {}
        self._places: dict[tuple[str, int], _Place] = {}
        self._activity = Activity(np.zeros(0, np.bool_))
        self._quiet = Activity(np.zeros(0, np.bool_))
        self._told: dict[int, list[Edge]] = {}

    @property
    def needs_us(self) -> int | None:
        """From which source time results are wanted after a start; None: from now."""
        return None if self._taught_us == ALWAYS else self._taught_us - self.horizon_us

    def bind(
        self,
        bounds: Iterable[Bound],
        definitions: Mapping[str, AlarmDefinition],
        at_us: int,
        now_us: int,
    ) -> list[Transition]:
        """Let there be the alarms of these bounds and no others; states of the same ones go on."""
        bounds = _newest(bounds)
        before = {path: number for number, path in enumerate(self._paths)}
        versions = self._versions
        paths, has_off = list[str](), list[Bools]()
        self._places, self._versions, told = {}, {}, list[Transition | None]()
        for bound in bounds:
            definition = definitions.get(bound.key.partition("/")[0])
            if definition is None or definition.state == "off":
                continue
            if bound.role == "alarm":
                self._places[bound.key, bound.version] = _Place(len(paths), int(ON))
                has_off.append(np.full(len(bound.assets), bool(definition.off)))
                for asset in bound.assets:
                    paths.append(f"{asset}/{definition.name}")
                    self._versions[paths[-1]] = bound.version
                    told.append(self.book.define(asset, definition, at_us, now_us))
        can_be_quiet = self._place_ends(bounds)
        for path in paths:
            if self.book.states[path].suppressed and path not in can_be_quiet:
                deed = Deed(event="unsuppress", at_us=at_us, seed=f"bind {now_us}")
                told.append(self.book.apply(path, deed, now_us))
        self._paths = paths
        gone = self.book.states.keys() - self._versions.keys()
        told += [self.book.retire(alarm, at_us, now_us) for alarm in sorted(gone)]
        same = np.array(
            [before[path] if versions.get(path) == self._versions[path] else -1 for path in paths],
            np.int64,
        )
        self._carry_over(same, np.concatenate(has_off) if has_off else np.zeros(0, np.bool_))
        return [each for each in told if each is not None]

    def _place_ends(self, bounds: Iterable[Bound]) -> set[str]:
        """Where results of ends and suppressions go; the alarms that have a suppression."""
        found: set[str] = set()
        for bound in bounds:
            key, slash, role = bound.key.partition("/")
            which = {OFF_SUFFIX: int(OFF), SUPPRESSED_SUFFIX: -1}.get(slash + role)
            condition = self._places.get((key, bound.version))
            if which is None or condition is None:
                continue
            self._places[bound.key, bound.version] = _Place(condition.base, which)
            if which < 0:
                name = given_name(*key.rpartition(".")[::2])
                found.update(f"{asset}/{name}" for asset in bound.assets)
        return found

    def _carry_over(self, same: Keys, has_off: Bools) -> None:
        """Go on with what is known of alarms that were there, whose old numbers are given."""
        old, old_quiet = self._activity, self._quiet
        self._activity, self._quiet = Activity(has_off), Activity(np.zeros(len(same), np.bool_))
        at = np.flatnonzero(same >= 0)
        pairs = ((self._activity, old), (self._quiet, old_quiet))
        for made, known in pairs:
            for which in (ON, OFF):
                made.codes[which][at] = known.codes[which][same[at]]
                made.doubts[which][at] = known.doubts[which][same[at]]
            made.known_us[at] = known.known_us[same[at]]
        for number, path in enumerate(self._paths):
            state = self.book.states[path]
            self._activity.active[number] = state.active
            self._quiet.active[number] = state.suppressed
            if same[number] < 0:
                self._activity.doubts[ON][number] = state.uncertain
        numbers = np.full(len(old.active), -1, np.int64)
        numbers[same[at]] = at
        self._told = {
            int(numbers[number]): edges
            for number, edges in self._told.items()
            if numbers[number] >= 0
        }
        self._retained.renumber(lambda alarm: numbers[alarm])

    def take(
        self, results: Sequence[tuple[Bound, pl.DataFrame]], up_to_us: int, now_us: int
    ) -> list[Transition]:
        """The transitions that results bring.

        Args:
            results: frames of ``formula.evaluate.SCHEMA``, those of all conditions up to
                ``up_to_us``; rows of other roles are left out. New ones, and late ones that replace
                earlier; rows whose status is RETRACTED are no more.
            up_to_us: source time up to which results are known, exclusive.
            now_us: wall clock, for the journal.
        """
        conditions, quiets = self._frames(results)
        happenings: list[Happening] = []
        rows, status = rows_of(conditions)
        gone = status == np.uint32(RETRACTED)
        quiet_rows = rows_of(quiets)[0]
        if self._taught_us != ALWAYS:
            old, old_quiet = rows.at_us < self._taught_us, quiet_rows.at_us < self._taught_us
            self._teach(rows.take(old & ~gone), quiet_rows.take(old_quiet))
            rows, gone, quiet_rows = rows.take(~old), gone[~old], quiet_rows.take(~old_quiet)
            if up_to_us > self._taught_us:
                happenings += self._settle()
        happenings += self._in_order_and_late(rows, gone)
        happenings += self._quieted(quiet_rows)
        self.known_us = max(self.known_us, up_to_us)
        self._retained.forget(self.known_us)
        return self._tell(happenings, now_us)

    def _frames(
        self, results: Sequence[tuple[Bound, pl.DataFrame]]
    ) -> tuple[list[tuple[int, np.int8, pl.DataFrame]], list[tuple[int, np.int8, pl.DataFrame]]]:
        conditions, quiets = [], []
        for bound, frame in results:
            place = self._places.get((bound.key, bound.version))
            if place is None:
                continue
            if place.which < 0:
                quiets.append((place.base, ON, frame))
            else:
                conditions.append((place.base, np.int8(place.which), frame))
        return conditions, quiets

    def _teach(self, rows: Rows, quiets: Rows) -> None:
        """Learn again what was known at the start; a state that was written holds."""
        self._quiet.take(quiets.take(quiets.at_us > self._quiet.known_us[quiets.alarm]))
        new = rows.at_us > self._activity.known_us[rows.alarm]
        rows = rows.take(new)
        changes = self._activity.take(rows)
        at = np.flatnonzero(changes.active_changed)
        columns = (changes.alarm[at], changes.at_us[at], changes.active[at])
        for number, at_us, active in zip(*(column.tolist() for column in columns), strict=True):
            self._note(number, [Edge(at_us, active)])
        self._retained.append(rows)

    def _settle(self) -> list[Happening]:
        """At the end of what was known: a correction that was not written before the end comes now."""
        at_us, found = self._taught_us, []
        self._taught_us = ALWAYS
        self._retained.from_us = max(self._retained.from_us, at_us - self.horizon_us)
        for number, path in enumerate(self._paths):
            state = self.book.states[path]
            active, quiet = bool(self._activity.active[number]), bool(self._quiet.active[number])
            if active != state.active:
                event = _activity_event(active)
                found.append(Happening(at_us, _ORDER[event], path, event, True))
            if quiet != state.suppressed:
                event = _quiet_event(quiet)
                found.append(Happening(at_us, _ORDER[event], path, event, True))
        return found

    def _in_order_and_late(self, rows: Rows, gone: Bools) -> list[Happening]:
        late = gone | (rows.at_us <= self._activity.known_us[rows.alarm])
        found: list[Happening] = []
        if late.any():
            count = len(self._paths)
            touched = np.zeros(count, np.bool_)
            touched[rows.alarm[late]] = True
            mine = touched[rows.alarm]
            found += self._corrected(rows.take(mine), gone[mine], np.flatnonzero(touched))
            rows = rows.take(~mine)
        changes = self._activity.take(rows)
        self._retained.append(rows)
        columns = (changes.alarm, changes.at_us, changes.active, changes.doubtful)
        parts = (*(column.tolist() for column in columns), changes.active_changed.tolist())
        for number, at_us, active, doubtful, changed in zip(*parts, strict=True):
            found += self._changed(number, at_us, active, doubtful, changed)
        return found

    def _changed(
        self, number: int, at_us: int, active: bool, doubtful: bool, changed: bool
    ) -> list[Happening]:
        path = self._paths[number]
        doubt: EventName = "uncertain" if doubtful else "certain"
        found = [Happening(at_us, _ORDER[doubt], path, doubt)]
        if changed:
            self._note(number, [Edge(at_us, active)])
            event = _activity_event(active)
            found.append(Happening(at_us, _ORDER[event], path, event))
        return found

    def _note(self, number: int, edges: list[Edge]) -> None:
        """Keep what was told as far back as it can be corrected."""
        kept = [*self._told.get(number, ()), *edges]
        oldest = self.known_us - self.horizon_us
        first = next((n for n, edge in enumerate(kept) if edge.at_us >= oldest), len(kept))
        self._told[number] = kept[max(0, first - 1) :]

    def _corrected(self, rows: Rows, gone: Bools, numbers: Keys) -> list[Happening]:
        """Late rows put between those that are retained, and what that makes of each alarm."""
        count = len(self._paths)
        retained = self._retained.take_out(numbers, count)
        keep = rows.at_us >= self._retained.from_us
        keep |= rows.at_us > self._activity.known_us[rows.alarm]
        self.too_late += int((~keep).sum())
        rows, gone = rows.take(keep), gone[keep]
        found: list[Happening] = []
        for number in numbers.tolist():
            mine, old = rows.take(rows.alarm == number), retained.take(retained.alarm == number)
            merged = _merged(old, mine, gone[rows.alarm == number])
            self._retained.append(merged)
            if len(mine.alarm):
                found += self._replay(number, merged, int(mine.at_us.min()))
        return found

    def _replay(self, number: int, rows: Rows, start_us: int) -> list[Happening]:
        """An alarm's history from a time on, made again and compared with what was told."""
        whole = self._activity
        told = self._told.get(number, [])
        earlier = [edge for edge in told if edge.at_us < start_us]
        active = bool(whole.active[number])
        if told:
            active = earlier[-1].active if earlier else not told[0].active
        one = Activity(whole.has_off[number : number + 1])
        one.active[0] = active
        zeros = np.zeros(len(rows.alarm), np.int64)
        rows = rows._replace(alarm=zeros)
        before = rows.at_us < start_us
        one.take(rows.take(before))
        one.active[0] = active  # as told; rows before may be missing
        doubtful = one.doubts[0][0] | one.doubts[1][0]
        changes = one.take(rows.take(~before))
        edges = [
            Edge(at_us, is_active)
            for at_us, is_active, changed in zip(
                changes.at_us.tolist(),
                changes.active.tolist(),
                changes.active_changed.tolist(),
                strict=True,
            )
            if changed
        ]
        later = [edge for edge in told if edge.at_us >= start_us]
        path = self._paths[number]
        found = [
            Happening(at_us, _ORDER[event], path, event, True)
            for at_us, event in corrections(start_us, active, later, edges)
        ]
        for which in (ON, OFF):
            whole.codes[which][number] = one.codes[which][0]
            whole.doubts[which][number] = one.doubts[which][0]
        whole.active[number] = one.active[0]
        whole.known_us[number] = max(int(one.known_us[0]), int(whole.known_us[number]))
        self._told[number] = earlier
        self._note(number, edges)
        if len(changes.doubtful):
            doubtful = changes.doubtful[-1]
        doubt: EventName = "uncertain" if doubtful else "certain"
        last_us = int(rows.at_us.max()) if len(rows.at_us) else start_us
        return [*found, Happening(last_us, _ORDER[doubt], path, doubt)]

    def _quieted(self, rows: Rows) -> list[Happening]:
        """What conditions of suppression bring; those that come late change nothing any more."""
        late = rows.at_us <= self._quiet.known_us[rows.alarm]
        self.too_late += int(late.sum())
        changes = self._quiet.take(rows.take(~late))
        found = []
        at = np.flatnonzero(changes.active_changed)
        for number, at_us, active in zip(
            changes.alarm[at].tolist(),
            changes.at_us[at].tolist(),
            changes.active[at].tolist(),
            strict=True,
        ):
            event = _quiet_event(active)
            found.append(Happening(at_us, _ORDER[event], self._paths[number], event))
        return found

    def _tell(self, happenings: list[Happening], now_us: int) -> list[Transition]:
        told = []
        for each in sorted(happenings, key=lambda h: (h.at_us, h.order, h.alarm)):
            done: Transition | None
            if each.event in ("uncertain", "certain"):
                done = self.book.doubt(each.alarm, each.at_us, each.event == "uncertain", now_us)
            else:
                seed = ""
                if each.correction:
                    seed = f"correction {self.book.states[each.alarm].corrections}"
                deed = Deed(
                    event=each.event, at_us=each.at_us, correction=each.correction, seed=seed
                )
                done = self.book.apply(each.alarm, deed, now_us)
            if done is not None:
                told.append(done)
        return told

    def end_shelves(self, now_us: int) -> list[Transition]:
        """Let shelves end whose time has come; they end at their own time."""
        told = []
        for until_us, alarm in self.book.shelves_ended(now_us):
            seed = str(self.book.states[alarm].transitions)
            done = self.book.apply(alarm, Deed(event="unshelve", at_us=until_us, seed=seed), now_us)
            if done is not None:
                told.append(done)
        return told


def _activity_event(active: bool) -> EventName:
    return "alarm" if active else "return_to_normal"


def _quiet_event(quiet: bool) -> EventName:
    return "suppress" if quiet else "unsuppress"


def _newest(bounds: Iterable[Bound]) -> list[Bound]:
    """Of each key the highest version."""
    found: dict[str, Bound] = {}
    for bound in bounds:
        if bound.role != "formula" and (
            bound.key not in found or found[bound.key].version < bound.version
        ):
            found[bound.key] = bound
    return list(found.values())


def _merged(old: Rows, new: Rows, gone: Bools) -> Rows:
    """Old rows with new ones in their place; those that are gone are in neither."""
    alarm = np.concatenate([old.alarm, new.alarm])
    at_us = np.concatenate([old.at_us, new.at_us])
    which = np.concatenate([old.which, new.which])
    code = np.concatenate([old.code, new.code])
    doubtful = np.concatenate([old.doubtful, new.doubtful])
    gone = np.concatenate([np.zeros(len(old.alarm), np.bool_), gone])
    order = np.lexsort((np.arange(len(alarm)), which, at_us))
    last = np.ones(len(alarm), np.bool_)
    last[:-1] = (at_us[order][1:] != at_us[order][:-1]) | (which[order][1:] != which[order][:-1])
    chosen = order[last & ~gone[order]]
    return Rows(alarm, at_us, which, code, doubtful).take(chosen)
