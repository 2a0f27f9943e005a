"""The drawing of champion and challenger: gaps stay gaps, and the difference is that of both."""

from __future__ import annotations

import re
from xml.etree.ElementTree import fromstring

import numpy as np
import polars as pl

from headrace.console.texts import Texts
from headrace.console.widgets.shadow_chart import POINTS, UPPER, legend, shadow_chart
from headrace.model.sample import TIMESTAMP

TEXTS = Texts("en")


def both(champion: list[float | None], shadow: list[float | None]) -> pl.DataFrame:
    at = pl.Series("time", 1_700_000_000_000_000 + 1_000_000 * np.arange(len(champion)))
    sides = {"champion": champion, "shadow": shadow}
    columns = [pl.Series(name, values, dtype=pl.Float64) for name, values in sides.items()]
    return pl.DataFrame([at.cast(TIMESTAMP), *columns])


def paths(frame: pl.DataFrame) -> list[list[tuple[str, float, float]]]:
    drawn = re.findall(r' d="([^"]*)"', shadow_chart(frame, "kW", TEXTS))
    moves = [re.findall(r"([ML])([-\d.]+) ([-\d.]+)", path) for path in drawn]
    return [[(kind, float(x), float(y)) for kind, x, y in path] for path in moves]


def test_a_window_without_a_result_is_a_gap_in_its_line():
    champion, shadow, apart = paths(both([1.0, 2.0, None, 4.0], [3.0, 3.0, 3.0, 3.0]))
    assert [kind for kind, *_ in champion] == ["M", "L", "M"]
    assert [kind for kind, *_ in shadow] == ["M", "L", "L", "L"]
    assert [kind for kind, *_ in apart] == ["M", "L", "M"]
    heights = [y for *_, y in champion]
    assert heights == sorted(heights, reverse=True) and max(heights) <= UPPER
    assert apart[0][2] < apart[1][2] < apart[2][2]  # 2, 1, -1


def test_many_windows_are_thinned_and_none_at_all_are_drawn_too():
    many = both(list(np.arange(10_000.0)), list(np.arange(10_000.0)))
    assert all(len(path) <= POINTS for path in paths(many))
    assert "10,000" in shadow_chart(many, "kW", TEXTS)
    assert paths(both([], [])) == [[("M", 0.0, 0.0)]] * 3
    assert paths(both([5.0], [5.0]))[0][0][0] == "M"
    assert "challenger" in legend(TEXTS)


def test_every_shape_ends_before_the_next_begins():
    drawn = (
        "<div>"
        + legend(TEXTS)
        + shadow_chart(both([1.0, 2.0], [2.0, None]), "kW", TEXTS)
        + "</div>"
    )
    root = fromstring(drawn)  # a tree only when each element ends
    assert len(root.findall("./svg/path")) == 3 and len(root.findall("./svg/g/rect")) == 2
