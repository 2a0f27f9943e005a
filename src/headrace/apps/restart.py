"""From a position to now: what must be worked out because the role, or a formula, did not run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import polars as pl

from headrace.apps.feed import Feed
from headrace.apps.knowledge import Knowledge, windows_of
from headrace.apps.past import Past
from headrace.apps.position import Position, Span
from headrace.bus.client import Bus
from headrace.bus.log import LogReader
from headrace.formula.bound import Bound
from headrace.formula.placing import BEFORE
from headrace.formula.plan import word_input
from headrace.model.apps import Cause
from headrace.model.calendar import PlantCalendar
from headrace.model.calendar_words import GAP_MAX_US
from headrace.model.sample import Int64Array, microseconds

SILENT_S: Final = 1.0
_Find = Callable[[str, PlantCalendar, PlantCalendar, int, int], Iterator[tuple[int, int]]]


class Touched:
    """Which times of which tags got samples after their results were out: first and last of each tag."""

    def __init__(self) -> None:
        self._tags: Int64Array = np.empty(0, np.int64)
        self._first: Int64Array = np.empty(0, np.int64)
        self._last: Int64Array = np.empty(0, np.int64)

    def note(self, tag_ids: Int64Array, at_us: Int64Array) -> None:
        """Samples; arrays of shape (n,)."""
        tags = np.concatenate([self._tags, tag_ids])
        first, last = np.r_[self._first, at_us], np.r_[self._last, at_us]
        self._tags, at = np.unique(tags, return_inverse=True)
        self._first = np.full(len(self._tags), np.iinfo(np.int64).max)
        self._last = np.full(len(self._tags), np.iinfo(np.int64).min)
        np.minimum.at(self._first, at, first)
        np.maximum.at(self._last, at, last)

    def __bool__(self) -> bool:
        return bool(len(self._tags))

    def spans(self, bound: Bound, past: Past, end_us: int, cause: Cause) -> list[Span]:
        """The time of a formula's results that these samples may change, before ``end_us``.

        A sample counts until its tag's next one, and in each window that holds some of that.
        """
        hit = np.zeros(len(bound.assets), np.bool_)
        used = np.zeros(len(self._tags), np.bool_)
        for ids in bound.inputs.values():
            hit |= np.isin(ids, self._tags)
            used |= np.isin(self._tags, ids)
        if not used.any():
            return []
        start_us = int(self._first[used].min())
        next_us = past.next_us(self._tags[used].tolist(), int(self._last[used].max()))
        last_us = end_us if next_us is None else min(end_us, next_us + bound.plan.back_us + 1)
        last_us = min(last_us, bound.end_us) if bound.end_us else last_us
        if start_us >= last_us:
            return []
        paths = () if hit.all() else tuple(np.array(bound.assets, object)[hit].tolist())
        return [Span(key=bound.key, assets=paths, start_us=start_us, end_us=last_us, cause=cause)]


def touched_by(bound: Bound, rows: pl.DataFrame) -> Touched:
    """The tags and times of a formula's changed results.

    Args:
        rows: columns of :data:`headrace.formula.evaluate.SCHEMA`.
    """
    found = Touched()
    found.note(bound.outputs[rows["asset"].to_numpy()], rows["at_us"].to_numpy())
    return found


async def late_in_log(bus: Bus, feed: Feed, after: int, last: int, done_us: int) -> Touched:
    """Samples of the messages ``after + 1`` to ``last`` that are older than ``done_us``.

    Raises:
        Transient: BUS-1032 when the broker is away.
    """
    found, log = Touched(), LogReader(bus, after)
    try:
        while log.next_sequence <= last:
            for message in await log.next(SILENT_S):
                batch = feed.wanted(message)
                at_us = microseconds(batch["source_timestamp"])
                late = at_us < done_us
                if message.sequence <= last and late.any():
                    found.note(batch["tag_id"].to_numpy()[late], at_us[late])
    finally:
        await log.close()
    return found


def edited_spans(
    bounds: Iterable[Bound], old: PlantCalendar, new: PlantCalendar, start_us: int, end_us: int
) -> Iterator[Span]:
    """The times of which a new calendar says something else, for each formula that asks it: other windows,
    another shift or team, a holiday or a planned stop more or less.

    Until what was other is no longer looked back to: a window's result holds until the next one has ended.

    Args:
        start_us, end_us: of history.
    """
    if old == new:
        return
    differing: dict[str, list[tuple[int, int]]] = {}
    for bound in bounds:
        asked: list[tuple[str, _Find, str]]
        asked = [(name, _differing, name) for name in sorted(windows_of(bound))]
        asked += [(word_input(w), _said_otherwise, w) for w in bound.plan.calendar_words]
        for key, find, name in asked:
            if key not in differing:
                differing[key] = list(find(name, old, new, start_us, end_us))
            for first_us, last_us in differing[key]:
                yield Span(
                    key=bound.key,
                    start_us=first_us,
                    end_us=min(last_us + bound.plan.back_us + 1, end_us),
                    cause="calendar",
                )


def _said_otherwise(
    word: str, old: PlantCalendar, new: PlantCalendar, start_us: int, end_us: int
) -> Iterator[tuple[int, int]]:
    """Stretches of time in which a word is another one, or changes at another time: from the first
    sample that differs to the next one that does not."""
    known_us = start_us - GAP_MAX_US  # what holds at the start began before it
    before = dict(old.steps(word, known_us, end_us))
    after = dict(new.steps(word, known_us, end_us))
    begun_us: int | None = None
    for at_us in sorted(before.keys() | after.keys()):
        same = before.get(at_us) == after.get(at_us)
        if not same and begun_us is None:
            begun_us = at_us
        elif same and begun_us is not None:
            yield begun_us, at_us
            begun_us = None
    if begun_us is not None:
        yield begun_us, end_us


def _differing(
    name: str, old: PlantCalendar, new: PlantCalendar, start_us: int, end_us: int
) -> Iterator[tuple[int, int]]:
    """Stretches of time that are cut into other windows: (first start, last end) of each."""
    before = {tuple(each[:2]) for each in old.windows(name, start_us, end_us)}
    after = {tuple(each[:2]) for each in new.windows(name, start_us, end_us)}
    stretch: tuple[int, int] | None = None
    for first_us, last_us in sorted(before ^ after):
        if stretch is not None and first_us <= stretch[1]:
            stretch = (stretch[0], max(stretch[1], last_us))
            continue
        if stretch is not None:
            yield stretch
        stretch = (first_us, last_us)
    if stretch is not None:
        yield stretch


def handed_spans(knowledge: Knowledge, position: Position) -> Iterator[Span]:
    """What a formula that was moved away still has to give here: from where its results ended to the time
    of the move."""
    for bound in knowledge.ended:
        ran = bound.key.removesuffix(BEFORE) in position.definitions
        if ran and position.done_us < bound.end_us:
            start_us = max(position.done_us, bound.start_us)
            yield Span(key=bound.key, start_us=start_us, end_us=bound.end_us, cause="version")


def version_spans(knowledge: Knowledge, position: Position, end_us: int) -> Iterator[Span]:
    """The past that a new version of a formula is to give results of, by its own beginning."""
    for bound in knowledge.bounds:
        changed = position.definitions.get(bound.key) != knowledge.definitions[bound.key]
        start_us = bound.start_us if knowledge.edge else max(bound.start_us, bound.moved_us)
        if changed and 0 < start_us < end_us:
            yield Span(
                key=bound.key,
                start_us=start_us,
                end_us=end_us,
                cause="version",
            )
