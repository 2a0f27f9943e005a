"""Formulas on stored history: what a plan looks back to is read, part by part of the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from headrace.formula.evaluate import evaluate
from headrace.formula.plan import Calendar, Plan
from headrace.formula.steps import Constant
from headrace.historian.inputs import read_inputs
from headrace.historian.reader import Reader
from headrace.model.time import US_PER_S

PART_US: Final = 86_400 * US_PER_S
PART_LOOKBACKS: Final = 4
ROWS_MAX: Final = 5_000_000

Progress = Callable[[int, int], None]
"""(parts done, parts in all)."""


class AssetTags(NamedTuple):
    """Equipment with the tags that a formula's names mean there: name -> tag_id."""

    path: str
    tags: dict[str, int]


def kinds_of(reader: Reader, tag_ids: Sequence[int]) -> dict[int, str]:
    """``text`` or ``number`` for each tag, by its newest sample; a tag without one is a number."""
    last = reader.last(tag_ids)
    texts = last.filter(pl.col("text").is_not_null() & pl.col("value").is_null())["tag_id"]
    found = dict.fromkeys(tag_ids, "number")
    return found | dict.fromkeys(texts.to_list(), "text")


def evaluate_history(
    reader: Reader,
    plan: Plan,
    assets: Sequence[AssetTags],
    start_us: int,
    end_us: int,
    *,
    attributes: Mapping[str, Constant] | None = None,
    calendar: Calendar | None = None,
    progress: Progress | None = None,
) -> Iterator[pl.DataFrame]:
    """The samples that a formula has on stored history in ``[start_us, end_us)``.

    Args:
        assets: where to evaluate it; each must have the plan's inputs.
        attributes: the plan's attributes of assets by name.
        calendar: of the site.
        progress: told after each part.

    Yields:
        Frames as :func:`headrace.formula.evaluate.evaluate` gives them, one after the other in time;
        ``asset`` counts in ``assets``.

    Raises:
        Refused: HIST-2001 when a part needs more than 5 million samples.
    """
    fixed = attributes or {}
    tags = {
        name: np.array([asset.tags[name] for asset in assets], np.int64)
        for name in plan.inputs
        if name not in fixed
    }
    length_us = max(PART_US, PART_LOOKBACKS * plan.back_us)
    edges = [*range(start_us, end_us, length_us), end_us]
    for count, start in enumerate(edges[:-1]):
        end = edges[count + 1]
        histories = read_inputs(reader, tags, start, end, plan.back_us, rows_max=ROWS_MAX)
        yield evaluate(
            plan, histories, start, end, assets=len(assets), attributes=fixed, calendar=calendar
        )
        if progress is not None:
            progress(count + 1, len(edges) - 1)
