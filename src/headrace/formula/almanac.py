"""Words of the plant calendar as inputs: in one piece for history, and as time goes on for a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from headrace.formula.bound import Bound
from headrace.formula.changed import put_rows
from headrace.formula.plan import Calendar
from headrace.formula.steps import Floats, Keys
from headrace.formula.track import NEVER, Rows, Track
from headrace.formula.words import Words
from headrace.model.calendar_words import GAP_MAX_US, TEXT_WORDS

REACH_US: Final = 3 * GAP_MAX_US
"""Before what is looked back to twice: the sample that holds there, and the one before it."""
_AHEAD_US: Final = 4 * GAP_MAX_US
_ONE: Final = np.zeros(1, np.int64)


def word_codes(
    calendar: Calendar, word: str, start_us: int, end_us: int
) -> tuple[Keys, Floats, tuple[str, ...] | None]:
    """Times and values of a word in ``[start_us, end_us)``; of texts their numbers, and the texts."""
    found = calendar.steps(word, start_us, end_us)
    at_us = np.array([each[0] for each in found], np.int64)
    if word not in TEXT_WORDS:
        return at_us, np.array([each[1] for each in found], np.float64), None
    texts = tuple(dict.fromkeys(str(each[1]) for each in found))
    code = {text: float(place) for place, text in enumerate(texts)}
    return at_us, np.array([code[str(each[1])] for each in found], np.float64), texts


class Almanac:
    """The words that a stream's formulas read, each a track of one member that all assets share.

    Args:
        bounds: of the stream.
        words: of the stream.
        lateness_us: how old a change may be that the stream repairs.
    """

    def __init__(
        self, bounds: Sequence[Bound], calendar: Calendar, words: Words, lateness_us: int
    ) -> None:
        names = sorted({word for bound in bounds for word in bound.plan.calendar_words})
        self.tracks = {name: Track(1) for name in names}
        self._calendar, self._words = calendar, words
        self._reach_us = lateness_us + REACH_US + (2 * _chain_us(bounds) if names else 0)
        self._next: dict[str, tuple[Keys, Floats]] = {}
        self._fetched_us: int | None = None
        self._known_us: int | None = None
        for name in TEXT_WORDS:
            if name in self.tracks:
                self.tracks[name].is_text = True

    def advance(self, to_us: int) -> None:
        """Let the samples before a time be known; what is new is marked in the tracks."""
        if not self.tracks:
            return
        if self._fetched_us is None:
            self._fetched_us = self._known_us = to_us - self._reach_us
        if self._fetched_us < to_us or not self._next:
            self._fetch(to_us + _AHEAD_US)
        self._known_us = to_us
        for name, track in self.tracks.items():
            track.changed_us.fill(NEVER)
            at_us, value = self._next[name]
            ready = int(np.searchsorted(at_us, to_us, "left"))
            if ready:
                rows = Rows(
                    np.array([ready]), at_us[:ready], value[:ready], np.zeros(ready, np.uint32)
                )
                put_rows(track, _ONE, at_us[:1], rows)
                self._next[name] = at_us[ready:], value[ready:]

    def forget(self, to_us: int) -> None:
        """Let go of what nothing looks back to any more."""
        for track in self.tracks.values():
            track.forget(_ONE, np.array([to_us - self._reach_us]))

    @property
    def text_tracks(self) -> list[Track]:
        """Those whose values are codes of words."""
        return [track for track in self.tracks.values() if track.is_text]

    def recode(self) -> None:
        """Ask the calendar again for what is to come, after words were given other codes."""
        self._fetched_us, self._next = self._known_us, {}

    def _fetch(self, until_us: int) -> None:
        assert self._fetched_us is not None, "advance says from when"
        for name in self.tracks:
            at_us, value, texts = word_codes(self._calendar, name, self._fetched_us, until_us)
            if texts is not None:
                value = self._words.codes(pl.Series(texts, dtype=pl.String))[value.astype(np.int64)]
            before = self._next.get(name)
            if before is not None:
                at_us, value = np.r_[before[0], at_us], np.r_[before[1], value]
            self._next[name] = at_us, value
        self._fetched_us = until_us


def _chain_us(bounds: Sequence[Bound]) -> int:
    """How far back the longest chain of formulas looks that read each other."""
    tags = np.concatenate([np.empty(0, np.int64), *(bound.outputs for bound in bounds)])
    owner = np.repeat(np.arange(len(bounds)), [len(bound.outputs) for bound in bounds])
    order = np.argsort(tags, kind="stable")
    tags, owner = tags[order], owner[order]
    reach = np.array([bound.plan.back_us for bound in bounds], np.int64)
    for at in range(len(bounds) - 1, -1, -1):  # what is read comes before what reads it
        for ids in bounds[at].inputs.values():
            low, high = np.searchsorted(tags, ids), np.searchsorted(tags, ids, "right")
            for place in np.unique(np.r_[low[low < high], high[low < high] - 1]).tolist():
                read = int(owner[place])
                if read < at:
                    reach[read] = max(reach[read], reach[at] + bounds[read].plan.back_us)
    return int(reach.max(initial=0))
