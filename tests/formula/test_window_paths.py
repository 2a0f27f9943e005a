"""Ways to the same windows that differ in speed alone: to the bit, whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.formula import windows
from headrace.formula.steps import Grid

NUMBERS = st.one_of(st.floats(-1e9, 1e9), st.sampled_from([0.0, -0.0, np.inf, -np.inf, 1e-300]))
SERIES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 40), NUMBERS), min_size=1, max_size=90
)


def keys_and_values(
    series: list[tuple[int, int, float]], grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    asset = np.sort(np.array([row[0] for row in series]))
    at_us = np.cumsum([row[1] for row in series])
    return grid.keys(asset, at_us), np.array([row[2] for row in series])


@settings(max_examples=150, deadline=None)
@given(SERIES, st.integers(1, 200), st.booleans())
def test_sums_and_extremes_do_not_depend_on_how_panes_are_walked(
    series: list[tuple[int, int, float]], length_us: int, marked: bool
) -> None:
    grid = Grid(4, -1, 1 << 14)
    keys, values = keys_and_values(series, grid)
    mask = (values > 0) if marked else np.ones(len(values), np.bool_)
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for way, limit in (("slices", 0), ("groups", 10**9)):
            patch.setattr(windows, "LONG_PANES", limit)
            found = windows.sliding(keys, length_us, grid)
            with np.errstate(invalid="ignore"):
                made[way] = [found.sum(values), found.min(values), found.max(values)]
    for one, other in zip(made["slices"], made["groups"], strict=True):
        assert one.tobytes() == other.tobytes() or np.isnan(one).any()
    low = np.searchsorted(keys, np.maximum(keys - length_us + 1, grid.first_of_asset(keys)))
    assert found.low.tolist() == low.tolist()
    expected = [float(mask[a:b].sum()) for a, b in zip(low, found.high, strict=True)]
    assert found.count_of(mask).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=64, max_size=400), st.integers(1, 100))
def test_guessed_places_are_those_that_a_search_finds(steps: list[int], back: int) -> None:
    """Steps of almost even length, so that some guesses are right and some are not."""
    keys = np.cumsum(steps)
    wanted = np.maximum(keys - back, 0)
    assert windows._places(keys, wanted).tolist() == np.searchsorted(keys, wanted).tolist()
