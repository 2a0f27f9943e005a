"""Cells that no spreadsheet runs, and that come back as they were."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from headrace.model.csv_text import defuse, defused, plain

TEXT = st.text(alphabet="'=+-@\t\r ab,\n", max_size=8) | st.text(max_size=8)


@given(TEXT)
def test_nothing_begins_like_a_formula_and_everything_comes_back(text: str) -> None:
    assert not defuse(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert plain(defuse(text)) == text


@given(st.lists(TEXT, min_size=1, max_size=5))
def test_a_frame_is_defused_as_its_texts_are(texts: list[str]) -> None:
    frame = pl.DataFrame({"t": texts, "n": list(range(-1, len(texts) - 1))})
    made = defused(frame)
    assert made["t"].to_list() == [defuse(text) for text in texts]
    assert made["n"].equals(frame["n"])
