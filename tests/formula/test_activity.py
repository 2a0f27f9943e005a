"""When an alarm is active: the arrays against the rule written down plainly."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.formula.activity import FALSE, OFF, ON, TRUE, UNKNOWN, Activity, Rows

row = st.tuples(
    st.integers(0, 2), st.integers(0, 12), st.sampled_from([0, 1]), st.integers(0, 2), st.booleans()
)


def rows_of(rows: list[tuple[int, int, int, int, bool]]) -> Rows:
    columns = np.array(rows, np.int64).reshape(-1, 5).T
    alarm, at_us, which, code, doubtful = columns
    return Rows(
        alarm, at_us, which.astype(np.int8), code.astype(np.int8), doubtful.astype(np.bool_)
    )


def plainly(
    rows: list[tuple[int, int, int, int, bool]], has_off: list[bool]
) -> list[tuple[int, int, bool, bool]]:
    """(alarm, time, active, doubtful) at each change, sample by sample."""
    found = []
    for alarm, ends_by_itself in enumerate(has_off):
        codes, doubts = {ON: UNKNOWN, OFF: UNKNOWN}, {ON: False, OFF: False}
        active = doubtful = False
        for at in sorted({r[1] for r in rows if r[0] == alarm}):
            for _, _, which, code, doubt in [r for r in rows if r[:2] == (alarm, at)]:
                codes[np.int8(which)], doubts[np.int8(which)] = np.int8(code), doubt
            now = active
            if codes[ON] == TRUE:
                now = True
            elif codes[ON] == FALSE and (not ends_by_itself or codes[OFF] == TRUE):
                now = False
            said = doubts[ON] or doubts[OFF]
            if (now, said) != (active, doubtful):
                found.append((alarm, at, now, said))
            active, doubtful = now, said
    return found


@settings(max_examples=300, deadline=None)
@given(
    st.lists(row, unique_by=lambda r: r[:3], max_size=30),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.lists(st.integers(0, 13), max_size=4),
)
def test_the_arrays_follow_the_rule_however_results_are_cut(
    rows: list[tuple[int, int, int, int, bool]], has_off: list[bool], cuts: list[int]
) -> None:
    rows = [r for r in rows if r[2] == ON or has_off[r[0]]]
    activity = Activity(np.array(has_off))
    found = []
    edges = [-1, *sorted(cuts), 99]
    for start, end in pairwise(edges):
        part = activity.take(rows_of([r for r in rows if start <= r[1] < end]))
        columns = (part.alarm, part.at_us, part.active, part.doubtful)
        found += list(zip(*(column.tolist() for column in columns), strict=True))
    assert sorted(found) == plainly(rows, has_off)
