"""Rows of many members behave as a list for each of them would."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.formula.track import Rows, Track
from headrace.formula.words import Words

MEMBERS = 5


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_cut_append_and_forget_are_those_of_lists(seed: int) -> None:
    generator = np.random.default_rng(seed)
    track, model = Track(MEMBERS), [list[tuple[int, float]]() for _ in range(MEMBERS)]
    for _ in range(30):
        who = np.flatnonzero(generator.random(MEMBERS) < 0.6)
        from_us, counts = generator.integers(0, 50, len(who)), generator.integers(0, 9, len(who))
        place = track.locate(who, from_us)
        at_us = [at + n for at, count in zip(from_us, counts, strict=True) for n in range(count)]
        value = generator.random(len(at_us))
        track.cut(who, place)
        track.append(
            who, Rows(counts, np.array(at_us, np.int64), value, np.zeros(len(at_us), np.uint32))
        )
        rows = iter(zip(at_us, value.tolist(), strict=True))
        for member, begin, count in zip(who, from_us, counts, strict=True):
            kept = [row for row in model[member] if row[0] < begin]
            model[member] = kept + [next(rows) for _ in range(count)]
        before = int(generator.integers(0, 50))
        some = np.flatnonzero(generator.random(MEMBERS) < 0.3)
        track.forget(some, np.full(len(some), before))
        for member in some:
            held = [row for row in model[member] if row[0] <= before]
            model[member] = held[-1:] + [row for row in model[member] if row[0] > before]
        for member in range(MEMBERS):
            low, high = track.begin[member], track.end[member]
            found = zip(track.at_us[low:high].tolist(), track.value[low:high].tolist(), strict=True)
            assert list(found) == model[member]


def test_the_last_usable_row_outlives_bad_ones() -> None:
    track, one = Track(1), np.array([0])
    status = np.array([0, 0, 2, 2, 2], np.uint32) << 30
    track.append(one, Rows(np.array([5]), np.arange(5), np.arange(5.0), status))
    track.forget(one, np.array([3]))
    assert track.at_us[track.begin[0] : track.end[0]].tolist() == [1, 3, 4]
    assert track.since_us.tolist() == [1]


def test_words_that_nobody_has_are_forgotten() -> None:
    words = Words()
    codes = words.codes(pl.Series(["a", "b", None, "c", "b"]))
    (kept,) = words.keep_only([codes[1:3]])
    assert len(words) == 1
    assert words.texts(kept).to_list() == ["b", None]
    assert words.texts(words.codes(pl.Series(["c", "b"]))).to_list() == ["c", "b"]
