"""A plan cut into stages, each of which keeps what it gave and goes on from there.

A stage is one node that remembers (a window, ``for``, ``lag`` ...) or an expression on the values of one
time. Its sources are tags and other stages. To go on from a time it reads what its node looks back to
before that time, evaluates the node itself on these rows (the very code of :mod:`.evaluate`), and puts
what comes out behind what it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

import numpy as np

from headrace.formula.changed import Changed, both, put_rows
from headrace.formula.memory import Derivative, Ewma, Held, Hold, Increments, Lag, NoData
from headrace.formula.panes import Live, Panes, Recorder
from headrace.formula.plan import (
    Calendar,
    Context,
    Input,
    Node,
    Pointwise,
    Recode,
    SharedWords,
)
from headrace.formula.spans import CYCLE_MAX_US, PerCalendar, PerCycle, Sliding
from headrace.formula.steps import BAD_FROM, Bools, Constant, Grid, Keys, Series, Steps
from headrace.formula.track import ALWAYS, NEVER, Rows, Track
from headrace.formula.windows import Ranges
from headrace.formula.words import Words

_FOLDED: Final = (Sliding, PerCalendar, PerCycle)
# What these give at a time does not hang on the time of their last row.
_TELLS_WHAT_HOLDS: Final = (
    Held,
    Hold,
    Input,
    Lag,
    NoData,
    PerCycle,
    Pointwise,
    Recode,
    SharedWords,
)
_WANTS_USABLE: Final = frozenset({"delta", "transitions"})


class Source(NamedTuple):
    """Where a stage reads: a track, and which of its members the assets are (None: the same ones)."""

    track: Track
    members: Keys | None = None
    is_text: bool = False

    def of(self, who: Keys) -> Keys:
        return who if self.members is None else self.members[who]

    def changed_us(self) -> Keys:
        changed = self.track.changed_us
        return changed if self.members is None else changed[self.members]


class Surroundings(NamedTuple):
    """What all stages of a stream share."""

    words: Words
    calendar: Calendar


@dataclass(slots=True, eq=False)
class Stage:
    """See the module.

    Attributes:
        node: its operands are :class:`Input` by the names of ``sources`` and ``attributes``.
        floor_us: of each asset the time from which its rows can be made again.
        needed_us: the same, as what is asked of the sources rests on it.
        due_us: of each asset when something happens by itself.
        starts_us, ends_us: of windows of the calendar, those that may matter.
        panes, runs: what saves looking back, where the node is of a kind that has it.
    """

    node: Node
    sources: dict[str, Source]
    attributes: Mapping[str, Constant]
    track: Track
    floor_us: Keys
    needed_us: Keys
    due_us: Keys
    starts_us: Keys = field(default_factory=lambda: np.empty(0, np.int64))
    ends_us: Keys = field(default_factory=lambda: np.empty(0, np.int64))
    panes: Panes | None = None
    runs: Runs | None = None

    @property
    def nbytes(self) -> int:
        """Of what is kept."""
        return self.track.nbytes + (self.panes.nbytes if self.panes is not None else 0)

    @property
    def back_us(self) -> int:
        """How far before a time its sources matter to what it gives then."""
        node = self.node
        if isinstance(node, PerCalendar):
            return node.longest_us
        if isinstance(node, PerCycle):
            return CYCLE_MAX_US
        return 0 if isinstance(node, Ewma) else node.back_us

    @property
    def wanted_us(self) -> Keys:
        """Of each asset the time at which its sources must still be known: a sample more than is looked
        back to, since it decides what begins with the first one."""
        always = self.floor_us == ALWAYS
        wanted = np.where(always, self.needed_us, self.needed_us - self.back_us - 1)
        if not isinstance(self.node, PerCalendar) or not len(self.ends_us):
            return wanted
        # Not before the first window that ends at the floor or later.
        at = np.searchsorted(self.ends_us, self.needed_us, "left")
        known = (at > 0) & (at < len(self.ends_us)) & ~always
        wanted[known] = np.maximum(wanted, self.starts_us[np.where(known, at, 0)])[known]
        return np.where(always, wanted, wanted - 1)

    def looks_back(self, from_us: Keys, calendar: Calendar) -> Keys:
        """What its sources must be known from, so that what it gives from a time on is right."""
        node = self.node
        if not isinstance(node, PerCalendar):
            back_us = node.back_us if isinstance(node, Ewma) else self.back_us
            return from_us - back_us
        times, place = np.unique(from_us, return_inverse=True)
        begin_us = times - 2 * node.longest_us
        for at, (time_us, first_us) in enumerate(
            zip(times.tolist(), begin_us.tolist(), strict=True)
        ):
            held = calendar.windows(node.name, first_us, time_us + 1)[-1:]
            begin_us[at] = max(first_us, held[0][0]) if held else first_us
        return np.asarray(begin_us[place], np.int64)

    @property
    def wants_usable(self) -> bool:
        """Whether the last usable value matters, however old it is."""
        node = self.node
        if isinstance(node, _FOLDED):
            return node.fold.function in _WANTS_USABLE
        return isinstance(node, Derivative | Increments)

    def forget(self, needed_us: Keys) -> None:
        """Let go of all rows before the one that holds at a time."""
        assets, track = np.arange(len(needed_us)), self.track
        held = track.locate(assets, needed_us + 1) - 1
        some = held >= track.begin
        at_us = self._floor_without(needed_us)
        at_us[some] = track.at_us[held[some]]
        self.floor_us = np.maximum(self.floor_us, at_us)
        self.needed_us = np.where(self.floor_us == ALWAYS, ALWAYS, self.floor_us)
        # A fading memory goes on from its row before.
        track.forget(
            assets, np.maximum(self.needed_us, ALWAYS + 1) - int(isinstance(self.node, Ewma))
        )

    def _floor_without(self, needed_us: Keys) -> Keys:
        """From when on rows can be made again where none is there yet that holds at a time.

        From always: what its sources have is kept until there is one, so that the first row, however
        late what makes it, is taken as it comes, and holds for those that read it. A cycle may not end
        for long; there what is kept has a bound.
        """
        always = np.full(len(needed_us), ALWAYS)
        if not isinstance(self.node, PerCycle):
            return always
        far = np.maximum(needed_us, ALWAYS + CYCLE_MAX_US) - CYCLE_MAX_US
        return np.where(self._nothing_before(needed_us), always, far)

    def _nothing_before(self, at_us: Keys) -> Bools:
        """Where no source has anything by then: its first row, however late, is taken as it comes."""
        nothing = np.ones(len(at_us), np.bool_)
        for source in self.sources.values():
            track, members = source.track, source.of(np.arange(len(at_us)))
            nothing &= track.locate(members, at_us + 1) == track.begin[members]
        return nothing

    def advance(self, to_us: int, around: Surroundings) -> Changed | None:
        """Take in what changed in the sources, up to a time."""
        changed = np.full(len(self.due_us), NEVER)
        for source in self.sources.values():
            np.minimum(changed, source.changed_us(), out=changed)
        touched = np.flatnonzero((changed < NEVER) | (self.due_us < to_us))
        if not len(touched):
            return None
        due = np.where(self.due_us[touched] < to_us, self.due_us[touched], NEVER)
        begin = np.minimum(_first_touched(self, touched, changed[touched], to_us, around), due)
        floor = self.floor_us[touched]
        late = begin < floor
        if late.any():
            self._forget_shortcuts(touched[late])
            begin = np.maximum(begin, floor)
        active = begin < to_us
        who = touched[active]
        result = self._go_on(who, begin[active], to_us, around) if len(who) else None
        if late.any() and isinstance(self.node, _TELLS_WHAT_HOLDS):
            self._hold(touched[late], to_us, around)
        if not isinstance(self.node, Held):
            self.due_us[touched] = _next_due(self, touched, to_us)
        return result

    def _hold(self, who: Keys, to_us: int, around: Surroundings) -> None:
        """Have a row for what holds at the floor, where what came too late moved the one that was there
        to before it. It stands a microsecond before the floor, for those that read it: no result."""
        track, floor = self.track, self.floor_us[who]
        lacks = track.locate(who, floor + 1) == track.begin[who]
        who, floor = who[lacks], floor[lacks]
        if not len(who):
            return
        found = {name: self._rows(each, who, floor) for name, each in self.sources.items()}
        grid, inputs = self._inputs(who, floor, to_us, found, around.words)
        context = Context(grid, inputs, int(floor.min()), to_us, around.calendar)
        steps = context.steps(self.node)
        if not len(steps.keys):
            return
        place = np.searchsorted(steps.keys, grid.keys(np.arange(len(who)), floor), "left") - 1
        some = (place >= 0) & (grid.asset(steps.keys[place]) == np.arange(len(who)))
        who, floor, place = who[some], floor[some], place[some]
        value = steps.value[place]
        if steps.words is not None:
            value = around.words.kept(value, steps.words)
        rows = track.take(track.begin[who], track.end[who])
        before = np.cumsum(rows.counts) - rows.counts
        track.cut(who, track.begin[who])
        track.append(
            who,
            Rows(
                rows.counts + 1,
                np.insert(rows.at_us, before, floor - 1),
                np.insert(rows.value, before, value),
                np.insert(rows.status, before, steps.status[place]),
            ),
        )
        track.changed_us[who] = np.minimum(track.changed_us[who], floor - 1)

    def _forget_shortcuts(self, who: Keys) -> None:
        """Something changed where it is not worked out again, but what was kept may rest on it."""
        if self.panes is not None:
            self.panes.forget(who)
        if self.runs is not None:
            self.runs.forget(who)

    def _go_on(self, who: Keys, from_us: Keys, to_us: int, around: Surroundings) -> Changed | None:
        if self.panes is None:
            return self._look_back(who, from_us, to_us, around)
        source = next(iter(self.sources.values()))
        quick = self.panes.goes_on(source.track, who, source.of(who), from_us)
        made = self._add(who[quick], from_us[quick], to_us, around) if quick.any() else None
        if quick.all():
            return made
        rest = who[~quick]
        other = self._look_back(rest, from_us[~quick], to_us, around)
        self._rebuild(rest, to_us, around)
        return both(made, other)

    def _look_back(
        self, who: Keys, from_us: Keys, to_us: int, around: Surroundings
    ) -> Changed | None:
        """Evaluate the node on all that it looks back to."""
        found = {name: self._rows(each, who, from_us) for name, each in self.sources.items()}
        grid, inputs = self._inputs(who, from_us, to_us, found, around.words)
        context = Context(grid, inputs, int(from_us.min()), to_us, around.calendar)
        steps = context.steps(self.node)
        if isinstance(self.node, Held):
            assert self.runs is not None, "of every for"
            source = next(iter(self.sources.values()))
            self.due_us[who] = self.runs.note(self.node, source, who, context)
        return self._put(who, from_us, to_us, steps, grid, around.words)

    def _put(
        self, who: Keys, from_us: Keys, to_us: int, steps: Steps, grid: Grid, words: Words
    ) -> Changed | None:
        slot, at_us = grid.asset(steps.keys), grid.at_us(steps.keys)
        value, status = steps.value, steps.status.astype(np.uint32, copy=False)
        if steps.words is not None:
            self.track.is_text, value = True, words.kept(value, steps.words)
        self.track.hold_us = steps.hold_us
        keep = (at_us >= from_us[slot]) & (at_us < to_us)
        if not keep.all():
            slot, at_us, value, status = slot[keep], at_us[keep], value[keep], status[keep]
        rows = Rows(np.bincount(slot, minlength=len(who)), at_us, value, status)
        return put_rows(self.track, who, from_us, rows)

    def _add(self, who: Keys, from_us: Keys, to_us: int, around: Surroundings) -> Changed | None:
        """New samples of panes that stay open."""
        assert self.panes is not None and isinstance(self.node, Sliding), "of long windows"
        ((name, source),) = self.sources.items()
        members = source.of(who)
        low = source.track.reach_back(members, from_us, usable=self.wants_usable)
        rows = source.track.take(low, source.track.end[members])
        grid, inputs = self._inputs(who, from_us, to_us, {name: rows}, around.words)
        slot = rows.slot
        new = np.flatnonzero(rows.at_us >= from_us[slot])
        x = inputs[name]
        assert isinstance(x, Steps), "a quantity"
        live = Live(self.panes, new, who[slot[new]], rows.at_us[new])
        keys = x.keys[new]
        steps = self.node.fold.over((x, None), cast("Ranges", live), (keys, keys), grid)
        self.panes.last_us[who] = source.track.last_us(members)
        return self._put(who, from_us, to_us, steps, grid, around.words)

    def _rebuild(self, who: Keys, to_us: int, around: Surroundings) -> None:
        """Keep anew what saves looking back."""
        assert self.panes is not None and isinstance(self.node, Sliding), "of long windows"
        ((name, source),) = self.sources.items()
        self.panes.forget(who)
        last_us = source.track.last_us(source.of(who))
        who, last_us = who[last_us > ALWAYS], last_us[last_us > ALWAYS]
        if not len(who):
            return
        length_us = self.panes.length_us
        from_us = last_us // length_us * length_us - length_us
        members = source.of(who)
        low = source.track.reach_back(members, from_us, usable=self.wants_usable)
        rows = source.track.take(low, source.track.end[members])
        grid, inputs = self._inputs(who, from_us, to_us, {name: rows}, around.words)
        x = inputs[name]
        assert isinstance(x, Steps), "a quantity"
        recorder = Recorder(self.panes, who, rows.slot, rows.at_us, last_us)
        keys = np.zeros(len(who), np.int64)
        self.node.fold.over((x, None), cast("Ranges", recorder), (keys, keys), grid)
        recorder.finish()

    def _inputs(
        self, who: Keys, from_us: Keys, to_us: int, found: Mapping[str, Rows], words: Words
    ) -> tuple[Grid, dict[str, Series]]:
        times = [each.at_us for each in found.values() if len(each.at_us)]
        first_us = min([int(from_us.min()), *(int(each.min()) for each in times)])
        base_us = first_us - self.back_us - 1
        grid = Grid(len(who), base_us, 1 << int(to_us - base_us + self.back_us + 2).bit_length())
        assert len(who) < (1 << 62) // grid.span_us, "assets and time fit into 63 bits"
        inputs: dict[str, Series] = {
            name: each if len(each.value) == 1 else each._replace(value=each.value[who])
            for name, each in self.attributes.items()
        }
        for name, rows in found.items():
            inputs[name] = _steps(self.sources[name], rows, grid, words)
        return grid, inputs

    def _rows(self, source: Source, who: Keys, from_us: Keys) -> Rows:
        members = source.of(who)
        end = source.track.end[members]
        if isinstance(self.node, Ewma):
            return self._with_own(source, who, from_us)
        if self.runs is not None:
            return self.runs.rows(source, who, from_us, self.back_us)
        low = source.track.reach_back(members, from_us - self.back_us, usable=self.wants_usable)
        return source.track.take(low, end)

    def _with_own(self, source: Source, who: Keys, from_us: Keys) -> Rows:
        """What a fading memory was, and the samples since."""
        members = source.of(who)
        low = source.track.locate(members, from_us)
        rows = source.track.take(low, source.track.end[members])
        at = self.track.reach_back(who, from_us, usable=True)
        known = at < self.track.locate(who, from_us)
        mine = self.track.take(at[known], at[known] + 1)
        slots = np.r_[np.flatnonzero(known), rows.slot]
        order = np.argsort(slots, kind="stable")
        return Rows(
            rows.counts + known,
            np.r_[mine.at_us, rows.at_us][order],
            np.r_[mine.value, rows.value][order],
            np.r_[mine.status, rows.status][order],
        )


def _steps(source: Source, rows: Rows, grid: Grid, words: Words) -> Steps:
    is_text = source.is_text or source.track.is_text
    value, table = words.local(rows.value) if is_text else (rows.value, None)
    keys = grid.keys(rows.slot, rows.at_us)
    return Steps(keys, value, rows.status, table, source.track.hold_us)


def _first_touched(
    stage: Stage, who: Keys, changed: Keys, to_us: int, around: Surroundings
) -> Keys:
    """The first time at which a change in the sources may matter."""
    node = stage.node
    if isinstance(node, Lag):
        late = np.minimum(changed, NEVER - node.duration_us) + node.duration_us
        return np.where(changed == NEVER, NEVER, late)
    if isinstance(node, PerCalendar):
        _know_windows(stage, node, to_us, changed, around)
        at = np.searchsorted(stage.ends_us, changed, "right")
        return np.append(stage.ends_us, NEVER)[at]
    if isinstance(node, PerCycle):
        return _first_cycle(stage, node, who, changed)
    return changed


def _first_cycle(stage: Stage, node: PerCycle, who: Keys, changed: Keys) -> Keys:
    """A cycle's result changes with what begins and ends it, or with samples before its end."""
    of = stage.sources[_name(node.of)].changed_us()[who]
    place = np.minimum(stage.track.locate(who, changed), np.maximum(stage.track.end[who] - 1, 0))
    some = stage.track.last_us(who) >= changed
    at_us = np.append(stage.track.at_us, NEVER)[place]
    return np.minimum(of, np.where(some, at_us, NEVER))


def _name(node: Node) -> str:
    assert isinstance(node, Input), "operands are named"
    return node.name


def _know_windows(
    stage: Stage, node: PerCalendar, to_us: int, changed: Keys, around: Surroundings
) -> None:
    """Ends of windows from the earliest change to the first one to come."""
    ends = stage.ends_us
    first_us = min(int(changed.min()), to_us)
    if len(ends) and ends[0] <= first_us and ends[-1] >= to_us:
        return
    begin_us = first_us - node.longest_us
    known = around.calendar.windows(node.name, begin_us, to_us + 2 * node.longest_us)
    # Without a window for so long: look again by then.
    found = [(begin_us, begin_us), *known]
    if found[-1][1] < to_us:
        found.append((to_us, to_us + node.longest_us))
    stage.starts_us, stage.ends_us = np.array(found, np.int64).T.copy()


def _next_due(stage: Stage, who: Keys, to_us: int) -> Keys:
    """When each asset's result changes by itself, at ``to_us`` or later."""
    node = stage.node
    never = np.full(len(who), NEVER)
    if isinstance(node, PerCalendar):
        (at,) = np.searchsorted(stage.ends_us, [to_us], "left")
        some = np.zeros(len(who), np.bool_)
        for source in stage.sources.values():
            some |= source.track.last_us(source.of(who)) > ALWAYS
        return np.where(some, np.append(stage.ends_us, NEVER)[at], never)
    if not isinstance(node, Lag | Hold | NoData):
        return never
    source = stage.sources[_name(node.operand)]
    members, track = source.of(who), source.track
    if isinstance(node, Lag):
        place = track.locate(members, np.full(len(who), to_us - node.duration_us))
    elif isinstance(node, Hold):
        place = np.maximum(track.end[members] - 1, track.begin[members])
    else:
        place = track.locate(members, np.full(len(who), to_us - node.duration_us))
        place = np.maximum(place, track.last_usable(members))
    some = place < track.end[members]
    if isinstance(node, Hold):
        some[some] = track.status[place[some]] < BAD_FROM
    never[some] = track.at_us[place[some]] + node.duration_us
    return np.where(never >= to_us, never, NEVER)


class Runs:
    """For ``condition for d``: since when the condition has been true, so that nobody looks back."""

    def __init__(self, assets: int) -> None:
        self._seen_us = np.full(assets, ALWAYS)
        self._began_us = np.full(assets, ALWAYS)

    def forget(self, who: Keys) -> None:
        """What is kept of these assets no longer holds."""
        self._seen_us[who] = ALWAYS

    def rows(self, source: Source, who: Keys, from_us: Keys, back_us: int) -> Rows:
        """The rows from a time on, behind one that stands for those before it."""
        track, members = source.track, source.of(who)
        place = track.locate(members, from_us)
        known = place > track.begin[members]
        known[known] = track.at_us[place[known] - 1] == self._seen_us[who[known]]
        low = np.where(known, place - 1, track.reach_back(members, from_us - back_us))
        rows = track.take(low, track.end[members])
        first = (np.cumsum(rows.counts) - rows.counts)[known]
        began_us = np.maximum(self._began_us[who], from_us - back_us - 1)
        rows.at_us[first] = np.minimum(began_us[known], rows.at_us[first])
        return rows

    def note(self, node: Held, source: Source, who: Keys, context: Context) -> Keys:
        """Keep where the last runs began; gives when they will have lasted for long enough."""
        x, grid = context.steps(node.condition), context.grid
        due = np.full(len(who), NEVER)
        if not len(x.keys):
            return due
        slot, began_us = grid.asset(x.keys), grid.at_us(node.began(x, grid))
        last = np.flatnonzero(np.append(slot[1:] != slot[:-1], True))
        here = slot[last]
        self._seen_us[who[here]] = source.track.last_us(source.of(who[here]))
        self._began_us[who[here]] = began_us[last]
        ripe = began_us[last] + node.duration_us
        waits = (x.value[last] == 1.0) & (ripe >= context.end_us)
        due[here[waits]] = ripe[waits]
        return due
