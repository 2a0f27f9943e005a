"""From samples to samples: a plan on the history of many assets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from headrace.formula.almanac import REACH_US, word_codes
from headrace.formula.plan import Calendar, Context, Plan, word_input
from headrace.formula.steps import Constant, Grid, Keys, Series, Steps, clip
from headrace.model import status as st
from headrace.model.calendar import PlantCalendar

SCHEMA: Final = {
    "asset": pl.Int64(),
    "at_us": pl.Int64(),
    "value": pl.Float64(),
    "text": pl.String(),
    "status": pl.UInt32(),
}


_NOTHING: Final = pl.Series("text", [None], pl.String)


@dataclass(frozen=True, slots=True)
class History:
    """Samples of one quantity for all assets.

    Attributes:
        asset: int64, shape (n,): number of the asset, from 0.
        at_us: int64, shape (n,): source time in UTC microseconds. No two samples share asset and time.
        value: float64, shape (n,); NaN where there is none.
        status: uint32, shape (n,), OPC UA StatusCodes.
        text: n texts for a quantity of texts, else None.
    """

    asset: Keys
    at_us: Keys
    value: np.ndarray
    status: np.ndarray
    text: pl.Series | None = None


def evaluate(
    plan: Plan,
    histories: Mapping[str, History],
    start_us: int,
    end_us: int,
    *,
    assets: int,
    attributes: Mapping[str, Constant] | None = None,
    calendar: Calendar | None = None,
) -> pl.DataFrame:
    """The samples that a formula has in ``[start_us, end_us)``.

    A result depends on nothing but the inputs of the time that the plan looks back: each history needs
    its samples from ``plan.back_us`` before the last one at or before ``start_us - plan.back_us``, and
    the one sample before those. With them the samples are the same however the time is cut.

    Args:
        histories: the plan's quantities by name, in any order of rows.
        start_us, end_us: time for which results are wanted, in UTC microseconds; inputs are known up
            to the end.
        assets: how many assets there are.
        attributes: the plan's attributes of assets by name.
        calendar: of the site; without one, windows of a length lie on UTC.

    Returns:
        A frame of ``asset, at_us, value, text, status``, sorted by asset and time.
    """
    times = [each.at_us for each in histories.values() if len(each.at_us)]
    words_us = start_us - (2 * plan.back_us + REACH_US if plan.calendar_words else 0)
    first_us = min([words_us, *(int(each.min()) for each in times)])
    last_us = max([end_us, *(int(each.max()) for each in times)])
    base_us = first_us - plan.back_us - 1
    span_us = 1 << int(last_us - base_us + plan.back_us + 2).bit_length()
    grid = Grid(assets, base_us, span_us)
    assert assets < (1 << 62) // span_us, "assets and time fit into 63 bits"
    inputs: dict[str, Series] = {
        name: _steps(each, grid, end_us) for name, each in histories.items()
    }
    inputs |= attributes or {}
    calendar = calendar or PlantCalendar()
    for word in plan.calendar_words:
        inputs[word_input(word)] = _of_calendar(calendar, word, (first_us, end_us), grid)
    context = Context(grid, inputs, first_us, end_us, calendar)
    result = context.steps(plan.root)
    return _frame(clip(result, start_us, end_us, grid), grid, plan)


def _of_calendar(calendar: Calendar, word: str, span_us: tuple[int, int], grid: Grid) -> Steps:
    """A word of the calendar on all assets."""
    at_us, value, words = word_codes(calendar, word, *span_us)
    assets = np.repeat(np.arange(grid.assets), len(at_us))
    keys = grid.keys(assets, np.tile(at_us, grid.assets))
    status = np.zeros(len(keys), np.uint32)
    return Steps(keys, np.tile(value, grid.assets), status, words)


def _steps(history: History, grid: Grid, end_us: int) -> Steps:
    in_time = history.at_us < end_us
    known = slice(None) if in_time.all() else in_time
    keys = grid.keys(history.asset[known], history.at_us[known])
    value, status = history.value[known], history.status[known]
    words: tuple[str, ...] | None = None
    if history.text is not None:
        unique = history.text.drop_nulls().unique(maintain_order=True)
        words = tuple(unique.to_list())
        mapped = history.text.replace_strict(
            unique, pl.Series(np.arange(len(words), dtype=np.float64)), default=None
        )
        value = mapped.cast(pl.Float64).fill_null(np.nan).to_numpy()[known]
    if np.any(keys[1:] <= keys[:-1]):
        order = np.argsort(keys, kind="stable")
        keys, value, status = keys[order], value[order], status[order]
    bad, nothing = status >= np.uint32(st.BAD), np.isnan(value)
    if nothing.any() or bad.any():
        status = np.where(nothing & ~bad, np.uint32(st.BAD_NO_DATA), status)
        value = np.where(bad, np.nan, value)
    return Steps(keys, value, status, words)


def _frame(steps: Steps, grid: Grid, plan: Plan) -> pl.DataFrame:
    text: pl.Series = _NOTHING.new_from_index(0, len(steps.keys))
    value = pl.Series("value", steps.value).fill_nan(None)
    if plan.kind == "text":
        table = pl.Series(steps.words or (), dtype=pl.String)
        text = table.gather(value.cast(pl.Int64)).alias("text") if len(table) else text
        value = pl.Series("value", [None] * len(steps.keys), pl.Float64)
    return pl.DataFrame(
        {
            "asset": grid.asset(steps.keys),
            "at_us": grid.at_us(steps.keys),
            "value": value,
            "text": text,
            "status": steps.status.astype(np.uint32),
        },
        schema=SCHEMA,
    )
