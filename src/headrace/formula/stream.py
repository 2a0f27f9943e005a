"""Formulas as samples come: the same results as :func:`headrace.formula.evaluate.evaluate` has on all of
them, whatever their order and however time is cut. Pure: no I/O, no clock.

::

    put ──► waiting ──advance──► tags ──► stages of each bound, in order ──► what is new, other or gone
                                   ▲                                  │
                                   └──────── outputs that are read ───┘

What a plan looks back to is kept, and a while more (``lateness_us``): a late or corrected sample is put in
its place, and what follows it is worked out again; only what differs comes out. A sample that is too late
for that comes back as :class:`Behind`: the caller evaluates it on history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from headrace.formula.almanac import Almanac
from headrace.formula.bound import Bound
from headrace.formula.changed import Changed
from headrace.formula.evaluate import SCHEMA
from headrace.formula.plan import Calendar, word_input
from headrace.formula.stages import Source, Stage, Surroundings
from headrace.formula.staging import stages_of
from headrace.formula.steps import Keys
from headrace.formula.tags import Tags
from headrace.formula.track import ALWAYS, NEVER
from headrace.model.calendar import PlantCalendar
from headrace.model.calendar_words import TEXT_WORDS
from headrace.model.time import US_PER_S

LATENESS_US: Final = 900 * US_PER_S
_FORGET_PARTS: Final = 8


class Need(NamedTuple):
    """What of a tag must be put before a stream can start: its samples from ``back_us`` before its last one
    at or before ``from_us``, and the one before those; see :func:`headrace.formula.evaluate.evaluate`."""

    from_us: int
    back_us: int


class Behind(NamedTuple):
    """Results that a sample touched which came too late for the stream to know what is around it.

    Attributes:
        start_us, end_us: the results of this asset in ``[start, end)`` are to be evaluated on history.
        needs: tag_id -> what must be handed in with :meth:`Stream.fill`, so that the stream's own results
            after ``end_us`` are right; empty when they are.
    """

    bound: Bound
    asset: int
    start_us: int
    end_us: int
    needs: Mapping[int, Need] = MappingProxyType({})


class Advance(NamedTuple):
    """What came out.

    Attributes:
        results: frames of :data:`headrace.formula.evaluate.SCHEMA`, sorted by asset and time; a row whose
            status is RETRACTED took place before and is no more.
        behind: what the caller must evaluate on history.
    """

    results: list[tuple[Bound, pl.DataFrame]]
    behind: list[Behind]


class _Runner:
    """One bound with its stages."""

    def __init__(self, bound: Bound, tags: Tags, almanac: Almanac, *, feeds: bool) -> None:
        self.bound = bound
        self._assets = np.arange(len(bound.assets))
        sources = {}
        for name in bound.plan.inputs:
            if name not in bound.attributes:
                members = tags.members(bound.inputs[name])
                sources[name] = Source(tags.track, members, name in bound.plan.texts)
        self.inputs = sources
        shared = np.zeros(len(bound.assets), np.int64)
        words = {
            word_input(word): Source(almanac.tracks[word], shared, word in TEXT_WORDS)
            for word in bound.plan.calendar_words
        }
        self.stages = stages_of(
            bound.plan.root, len(bound.assets), {**sources, **words}, bound.attributes
        )
        self.feeds = tags.find(bound.outputs) if feeds else np.full(len(bound.assets), -1)
        tags.own(self.feeds[self.feeds >= 0], bound.start_us)

    @property
    def root(self) -> Stage:
        return self.stages[-1]

    def advance(self, to_us: int, around: Surroundings, tags: Tags) -> Changed | None:
        changed = None
        for stage in self.stages:
            stage.track.changed_us.fill(NEVER)
            changed = stage.advance(to_us, around)
        if changed is not None and (self.feeds >= 0).any():
            self._feed(tags)
        return changed

    def _feed(self, tags: Tags) -> None:
        """Hand on what changed to those that read this formula's tag."""
        track = self.root.track
        who = np.flatnonzero((track.changed_us < NEVER) & (self.feeds >= 0))
        from_us = np.maximum(track.changed_us[who], self.bound.start_us)
        place = track.locate(who, from_us)
        rows = track.take(place, track.end[who])
        tags.replace(self.feeds[who], from_us, rows)

    def behind(self, tags: Tags, to_us: int) -> list[Behind]:
        """What was touched before the time from which the results are known here."""
        first = np.full(len(self.bound.assets), NEVER)
        for source in self.inputs.values():
            np.minimum(first, source.changed_us(), out=first)
            np.minimum(first, tags.late_us[source.of(self._assets)], out=first)
        first = np.maximum(first, self.bound.start_us)
        floor = self.root.floor_us
        who = np.flatnonzero(first < floor)
        fed = who[self.feeds[who] >= 0]
        tags.late_us[self.feeds[fed]] = np.minimum(tags.late_us[self.feeds[fed]], first[fed])
        end = np.maximum(floor[who], np.minimum(self._said_anew(who, floor[who]), to_us))
        return [
            Behind(self.bound, at, int(first[at]), end_us, self._lacks(at, tags))
            for at, end_us in zip(who.tolist(), end.tolist(), strict=True)
        ]

    def _said_anew(self, who: Keys, floor_us: Keys) -> Keys:
        """When all that results rest on has a row after a time: what held at that time itself may be
        other than is known here. History evaluates until then; it may evaluate more than it must."""
        tracks = [Source(stage.track) for stage in self.stages]
        found = np.full(len(who), ALWAYS)
        for source in (*self.inputs.values(), *tracks):
            members, track = source.of(who), source.track
            place = track.locate(members, floor_us + 1)
            some = place < track.end[members]
            next_us = np.full(len(who), NEVER)
            next_us[some] = track.at_us[place[some]]
            np.maximum(found, next_us, out=found)
        return found

    def _lacks(self, asset: int, tags: Tags) -> dict[int, Need]:
        members = np.array(
            [each.of(self._assets)[asset] for each in self.inputs.values()], np.int64
        )
        back_us = self.bound.plan.back_us
        return {tag_id: Need(at_us - 1, back_us) for tag_id, at_us in tags.lacks(members)}

    def forget(self, floor_us: int, tags: Tags) -> None:
        """Let go of what no result from a time on needs; what is needed of tags is noted in them."""
        for stage, need_us in self._wanted(floor_us, tags, lambda stage: stage.wanted_us):
            stage.forget(need_us)

    def note_needs(self, from_us: int, tags: Tags, calendar: Calendar) -> None:
        """Note in the tags what results from a time on need."""
        seen: dict[int, Keys] = {}
        for stage, need_us in self._wanted(
            from_us, tags, lambda stage: stage.looks_back(seen[id(stage)], calendar)
        ):
            seen[id(stage)] = need_us

    def _wanted(
        self, from_us: int, tags: Tags, wanted: Callable[[Stage], Keys]
    ) -> Iterator[tuple[Stage, Keys]]:
        """Each stage with the time that those behind it need it from; after it its sources are asked."""
        needed = {id(stage.track): np.full(len(self._assets), NEVER) for stage in self.stages}
        root_us = np.full(len(self._assets), from_us)
        fed = self.feeds >= 0
        root_us[fed] = np.minimum(from_us, tags.wanted_us[self.feeds[fed]])
        needed[id(self.root.track)] = root_us
        for stage in reversed(self.stages):
            yield stage, needed[id(stage.track)]
            begin_us = wanted(stage)
            for source in stage.sources.values():
                if source.members is None:
                    np.minimum(needed[id(source.track)], begin_us, out=needed[id(source.track)])
                elif source.track is tags.track:
                    np.minimum.at(tags.wanted_us, source.members, begin_us)


class Stream:
    """Formulas on assets, evaluated as their samples come.

    Args:
        bounds: in order of evaluation: what reads another's output comes after it.
        calendar: of the site; without one, windows of a length lie on UTC.
        lateness_us: how old a sample may be, at ``advance``, and still be repaired here.
        start_us: where another stream stopped. First put what :meth:`needs` asks for at this time and
            ``advance(start_us)``, which gives nothing; then go on. None: a beginning without a past.

    Example:
        >>> Stream(()).advance(0)
        Advance(results=[], behind=[])
    """

    def __init__(
        self,
        bounds: Sequence[Bound],
        calendar: Calendar | None = None,
        *,
        lateness_us: int = LATENESS_US,
        start_us: int | None = None,
    ) -> None:
        self._lateness_us = lateness_us
        self._tags = Tags(bounds, lateness_us)
        self._around = Surroundings(self._tags.words, calendar or PlantCalendar())
        self._almanac = Almanac(bounds, self._around.calendar, self._tags.words, lateness_us)
        feeders = _feeders(bounds)
        self._runners = [
            _Runner(bound, self._tags, self._almanac, feeds=at in feeders)
            for at, bound in enumerate(bounds)
        ]
        self._start_us = start_us
        self._to_us: int | None = None
        self._forgot_us: int | None = None

    def put(self, batch: pl.DataFrame) -> None:
        """Samples of any tags in any order; of the same tag and source time the later received wins, then
        the later put. They count from the next advance on.

        Args:
            batch: of :data:`headrace.model.sample.SCHEMA`.
        """
        self._tags.put(batch)

    def advance(self, to_us: int) -> Advance:
        """Results of the time up to ``to_us``, and of what late samples touched.

        Args:
            to_us: inputs are known up to here, exclusive; not before that of the last advance.
        """
        assert self._to_us is None or to_us >= self._to_us, "time goes on"
        if self._start_us is not None and (self._to_us is None or self._to_us < self._start_us):
            self._run(min(to_us, self._start_us))
            if to_us <= self._start_us:
                return Advance([], [])
        return self._run(to_us)

    def fill(self, batch: pl.DataFrame) -> None:
        """Hand in what a :class:`Behind` needs: all that there is of these tags by its :class:`Need`.

        They count from the next advance on, which gives what they change.
        """
        self._tags.fill(batch)

    def _run(self, to_us: int) -> Advance:
        first = self._to_us is None
        self._tags.take(to_us)
        self._almanac.advance(to_us)
        results, behind = [], []
        for runner in self._runners:
            if not first:
                behind += runner.behind(self._tags, to_us)
            changed = runner.advance(to_us, self._around, self._tags)
            if changed is not None and len(frame := self._frame(runner, changed)):
                results.append((runner.bound, frame))
        self._to_us = to_us
        self._forget(to_us - self._lateness_us)
        return Advance(results, behind)

    def _frame(self, runner: _Runner, changed: Changed) -> pl.DataFrame:
        keep = changed.at_us >= runner.bound.start_us
        asset, at_us = changed.asset[keep], changed.at_us[keep]
        value, status = changed.value[keep], changed.status[keep]
        text = pl.Series("text", [None], pl.String).new_from_index(0, len(asset))
        number = pl.Series("value", value, nan_to_null=True)
        if runner.bound.plan.kind == "text":
            text = self._around.words.texts(value)
            number = pl.Series("value", [None], pl.Float64).new_from_index(0, len(asset))
        columns = {"asset": asset, "at_us": at_us, "value": number, "text": text, "status": status}
        return pl.DataFrame(columns, schema=SCHEMA)

    def _forget(self, floor_us: int) -> None:
        """Now and then, so that it costs little."""
        step_us = max(self._lateness_us // _FORGET_PARTS, 1)
        if self._forgot_us is not None and floor_us < self._forgot_us + step_us:
            return
        self._forgot_us = floor_us
        self._tags.wanted_us.fill(NEVER)
        for runner in reversed(self._runners):
            runner.forget(floor_us, self._tags)
        self._tags.forget()
        self._almanac.forget(floor_us + self._lateness_us)
        tracks = [stage.track for runner in self._runners for stage in runner.stages]
        texts = [track for track in tracks if track.is_text]
        if self._tags.forget_words([*texts, *self._almanac.text_tracks]):
            self._almanac.recode()

    @property
    def nbytes(self) -> int:
        """Memory of what is kept of samples and results."""
        stages = [stage for runner in self._runners for stage in runner.stages]
        return self._tags.track.nbytes + sum(stage.nbytes for stage in stages)

    def needs(self, at_us: int) -> dict[int, Need]:
        """What must be put so that a stream that starts at a time goes on as one that was there.

        Returns:
            tag_id -> what is needed of it; of formulas' own tags what is from before their version.
        """
        tags, floor_us = self._tags, at_us - self._lateness_us
        tags.wanted_us.fill(NEVER)
        for runner in reversed(self._runners):
            runner.note_needs(floor_us, tags, self._around.calendar)
        return {
            int(tags.ids[place]): Need(from_us, floor_us - from_us)
            for place, from_us in enumerate(tags.wanted_us.tolist())
            if from_us < tags.owned_us[place]
        }


def _feeders(bounds: Sequence[Bound]) -> set[int]:
    """Places of the bounds that write their tags for others to read: live ones before shadows."""
    chosen: dict[bytes, int] = {}
    for at, bound in enumerate(bounds):
        tags = bound.outputs.tobytes()
        if bound.role == "formula" and (tags not in chosen or bound.state == "live"):
            chosen[tags] = at
    return set(chosen.values())
