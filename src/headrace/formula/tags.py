"""The samples that a stream knows, tag by tag, and those that wait for their time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from headrace.formula.bound import Bound
from headrace.formula.changed import put_rows
from headrace.formula.steps import BAD_FROM, Bools, Floats, Keys, Statuses
from headrace.formula.track import ALWAYS, NEVER, Rows, Track, spread
from headrace.formula.words import Words
from headrace.model import status as st
from headrace.model.sample import microseconds

WORDS_MIN: Final = 10_000


class _Samples(NamedTuple):
    """Columns of samples; ``tag`` is a place in the tags."""

    tag: Keys
    at_us: Keys
    received_us: Keys
    value: Floats
    status: Statuses

    def at(self, rows: Keys | Bools) -> _Samples:
        return _Samples(
            self.tag[rows],
            self.at_us[rows],
            self.received_us[rows],
            self.value[rows],
            self.status[rows],
        )

    def and_then(self, *others: _Samples) -> _Samples:
        parts = (self, *others)
        return _Samples(
            np.concatenate([part.tag for part in parts]),
            np.concatenate([part.at_us for part in parts]),
            np.concatenate([part.received_us for part in parts]),
            np.concatenate([part.value for part in parts]),
            np.concatenate([part.status for part in parts]),
        )

    def newest(self) -> _Samples:
        """Sorted; of each identity the one received last, then the one put last."""
        order = np.lexsort((self.received_us, self.at_us, self.tag))
        tag, at_us = self.tag[order], self.at_us[order]
        last = np.ones(len(order), np.bool_)
        last[:-1] = (tag[1:] != tag[:-1]) | (at_us[1:] != at_us[:-1])
        return self.at(order[last])


_NONE = _Samples(
    np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64),
    np.empty(0, np.float64), np.empty(0, np.uint32),
)  # fmt: skip


class Tags:
    """See the module.

    Attributes:
        track: of all samples; its members are the tags that are read.
        late_us: of each tag the first time of a sample that came too late to be put in its place.
        wanted_us: of each tag how far back somebody needs it.
        owned_us: of each tag from when on its samples are the stream's own results.
    """

    def __init__(self, bounds: Sequence[Bound], ahead_us: int) -> None:
        read = [b.inputs[name] for b in bounds for name in b.plan.inputs if name in b.inputs]
        self.ids = np.unique(np.concatenate([*read, np.empty(0, np.int64)]))
        n = len(self.ids)
        self.words = Words()
        self.track = Track(n, received=True)
        self.late_us = np.full(n, NEVER)
        self.wanted_us = np.full(n, NEVER)
        self._ahead_us = ahead_us
        self._ahead = np.full((2, n), NEVER)
        self._is_text = np.zeros(n, np.bool_)
        self.owned_us = np.full(n, NEVER)
        self._waiting: list[_Samples] = []
        self._words_kept = 0
        self._gone = self._aside = _NONE
        self._filled_us = np.full(n, ALWAYS)
        for bound in bounds:
            for name in bound.plan.texts & bound.inputs.keys():
                self._is_text[self.members(bound.inputs[name])] = True

    def members(self, tag_ids: Keys) -> Keys:
        """Places of tags that are read."""
        return np.searchsorted(self.ids, tag_ids)

    def find(self, tag_ids: Keys) -> Keys:
        """Places of tags; -1 for those that nobody reads."""
        if not len(self.ids):
            return np.full(len(tag_ids), -1)
        place = np.minimum(np.searchsorted(self.ids, tag_ids), len(self.ids) - 1)
        return np.where(self.ids[place] == tag_ids, place, -1)

    def own(self, members: Keys, from_us: int) -> None:
        """From a time on these tags come from the stream itself."""
        self.owned_us[members] = from_us

    def put(self, batch: pl.DataFrame) -> None:
        """Samples that count from the next :meth:`take` on."""
        place = self.find(batch["tag_id"].to_numpy())
        read = np.flatnonzero(place >= 0)
        if not len(read):
            return
        if len(read) < len(place):
            batch, place = batch[read], place[read]
        at_us = microseconds(batch["source_timestamp"])
        value = batch["value"].to_numpy()  # NaN for null
        is_text = self._is_text[place]
        if is_text.any():
            value = np.where(is_text, self.words.codes(batch["text"]), value)
        status = batch["status"].to_numpy()
        missing = np.isnan(value) & (status < np.uint32(st.BAD))
        status = np.where(missing, np.uint32(st.BAD_NO_DATA), status)
        value = np.where(status >= np.uint32(st.BAD), np.nan, value)
        received_us = microseconds(batch["received_timestamp"])
        samples = _Samples(place, at_us, received_us, value, status)
        others = at_us < self.owned_us[place]
        self._waiting.append(samples if others.all() else samples.at(others))

    def take(self, to_us: int) -> None:
        """Put the samples before a time into their places."""
        self.track.changed_us.fill(NEVER)
        self.late_us.fill(NEVER)
        if self._waiting:
            samples = _NONE.and_then(*self._waiting)
            ready = samples.at_us < to_us
            self._waiting = []
            if not ready.all():
                self._keep_ahead(samples.at(~ready), to_us)
                samples = samples.at(ready)
            if len(samples.tag):
                self._insert(samples.newest())
                # What was filled in changes nothing before what was known: others evaluate that.
                np.maximum(self.track.changed_us, self._filled_us, out=self.track.changed_us)
            self._filled_us.fill(ALWAYS)
        self._come_true(to_us)

    def _keep_ahead(self, samples: _Samples, to_us: int) -> None:
        """Samples of a time to come wait; of those far ahead only their time is kept."""
        far = samples.at_us >= to_us + self._ahead_us
        np.minimum.at(self._ahead[0], samples.tag[far], samples.at_us[far])
        if far.any():
            last = np.where(self._ahead[1] == NEVER, ALWAYS, self._ahead[1])
            np.maximum.at(last, samples.tag[far], samples.at_us[far])
            self._ahead[1] = np.where(last == ALWAYS, NEVER, last)
        if not far.all():
            self._waiting = [samples.at(~far).newest()]

    def _come_true(self, to_us: int) -> None:
        first, last = self._ahead
        now = np.flatnonzero(np.minimum(first, NEVER - self._ahead_us) + self._ahead_us < to_us)
        if not len(now):
            return
        self.late_us[now] = np.minimum(self.late_us[now], first[now])
        still = last[now] >= to_us
        first[now] = np.where(still, to_us, NEVER)
        last[now[~still]] = NEVER

    def _insert(self, samples: _Samples) -> None:
        early = samples.at_us < self.track.since_us[samples.tag]
        if early.any():
            np.minimum.at(self.late_us, samples.tag[early], samples.at_us[early])
            samples = samples.at(~early)
        samples = self._put_aside(samples)
        if not len(samples.tag):
            return
        first = np.flatnonzero(np.append(True, samples.tag[1:] != samples.tag[:-1]))
        tags, from_us = samples.tag[first], samples.at_us[first]
        odd = self.track.last_us(tags) >= from_us
        strange = (samples.status == st.RETRACTED) | np.isin(samples.tag, self._gone.tag)
        if strange.any():
            odd |= np.isin(tags, samples.tag[strange])
        if odd.any():
            late = np.isin(samples.tag, tags[odd])
            self._replace(tags[odd], from_us[odd], samples.at(late))
            tags, from_us, samples = tags[~odd], from_us[~odd], samples.at(~late)
        if len(tags):
            self._write(tags, from_us, samples)

    def _put_aside(self, samples: _Samples) -> _Samples:
        """All but those that take away the first sample that is known, or its value: nobody here knows
        what was before it."""
        assert self.track.received_us is not None, "of tags"
        first = np.flatnonzero(samples.at_us == self.track.since_us[samples.tag])
        if not len(first):
            return samples
        place = self.track.begin[samples.tag[first]]
        wins = samples.received_us[first] >= self.track.received_us[place]
        status = samples.status[first]
        tears = wins & (status >= BAD_FROM) & (self.track.status[place] < BAD_FROM)
        tears |= wins & (status == st.RETRACTED)
        torn = samples.at(first[tears])
        self._aside = self._aside.and_then(torn).newest()
        self.late_us[torn.tag] = np.minimum(self.late_us[torn.tag], torn.at_us)
        return samples.at(np.delete(np.arange(len(samples.tag)), first[tears]))

    def lacks(self, members: Keys) -> list[tuple[int, int]]:
        """(tag_id, time): what was before a time must be known again to go on."""
        some = np.isin(self._aside.tag, members)
        ids, at_us = self.ids[self._aside.tag[some]], self._aside.at_us[some]
        return list(zip(ids.tolist(), at_us.tolist(), strict=True))

    def fill(self, batch: pl.DataFrame) -> None:
        """Samples of before what is known; what was put aside for the want of them waits no longer."""
        place = self.find(batch["tag_id"].to_numpy())
        tags = np.unique(place[place >= 0])
        waiting, self._waiting = self._waiting, []
        self.put(batch)
        samples = _NONE.and_then(*self._waiting)
        older = samples.at(samples.at_us < self.track.since_us[samples.tag])
        mine = np.isin(self._aside.tag, tags)
        self._waiting = [*waiting, older, self._aside.at(mine)]
        self._aside = self._aside.at(~mine)
        self._filled_us[tags] = self.track.since_us[tags]
        self.track.since_us[tags] = ALWAYS

    def _replace(self, tags: Keys, from_us: Keys, samples: _Samples) -> None:
        """Samples among others, or in place of them."""
        track = self.track
        low, high = track.locate(tags, from_us), track.end[tags]
        old = track.take(low, high)
        assert track.received_us is not None, "of tags"
        received_us = track.received_us[track.places(low, high)]
        known = _Samples(tags[old.slot], old.at_us, received_us, old.value, old.status)
        gone = np.isin(self._gone.tag, tags)
        merged = known.and_then(self._gone.at(gone), samples).newest()
        taken_back = merged.status == st.RETRACTED
        self._gone = self._gone.at(~gone).and_then(merged.at(taken_back))
        self._write(tags, from_us, merged.at(~taken_back))

    def _write(self, tags: Keys, from_us: Keys, samples: _Samples) -> None:
        counts = np.bincount(np.searchsorted(tags, samples.tag), minlength=len(tags))
        rows = Rows(counts, samples.at_us, samples.value, samples.status)
        put_rows(self.track, tags, from_us, rows, samples.received_us)

    def replace(self, members: Keys, from_us: Keys, rows: Rows) -> None:
        """What the stream itself found for tags from a time on."""
        changed_us = self.track.changed_us[members]
        put_rows(self.track, members, from_us, rows)
        self.track.changed_us[members] = np.minimum(changed_us, self.track.changed_us[members])

    def forget(self) -> None:
        """Let go of what nobody needs, by ``wanted_us``."""
        members = np.flatnonzero(self.wanted_us < NEVER)
        self.track.forget(members, self.wanted_us[members])
        kept = self._gone.at_us >= self.track.since_us[self._gone.tag]
        self._gone = self._gone.at(kept)

    def forget_words(self, tracks: Sequence[Track]) -> bool:
        """Let go of texts that nobody has any more, when there are many; whether that was done.

        Args:
            tracks: of texts, beside this one.
        """
        if len(self.words) < 2 * self._words_kept + WORDS_MIN:
            return False
        mine = np.flatnonzero(self._is_text)
        places = [spread(self.track.begin[mine], self.track.end[mine])]
        places += [spread(track.begin, track.end) for track in tracks]
        columns = [track.value for track in (self.track, *tracks)]
        waiting = _NONE.and_then(*self._waiting)
        self._waiting = [waiting]
        for samples in (waiting, self._aside):
            places.append(np.flatnonzero(self._is_text[samples.tag]))
            columns.append(samples.value)
        codes = self.words.keep_only(
            [column[at] for column, at in zip(columns, places, strict=True)]
        )
        for column, at, code in zip(columns, places, codes, strict=True):
            column[at] = code
        self._words_kept = len(self.words)
        return True
