"""Formulas on stored history: what a plan looks back to is read, part by part of the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from headrace.formula.evaluate import History, evaluate
from headrace.formula.plan import Calendar, Plan
from headrace.formula.steps import Constant
from headrace.historian.reader import Reader
from headrace.model.errors import Refused
from headrace.model.sample import empty_batch
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
    calendar: Calendar | None = None,
    progress: Progress | None = None,
    attributes: Mapping[str, Constant] | None = None,
) -> Iterator[pl.DataFrame]:
    """The samples that a formula has on stored history in ``[start_us, end_us)``.

    Args:
        assets: where to evaluate it; each must have the plan's inputs.
        calendar: of the site.
        progress: told after each part.
        attributes: those of the plan's inputs that are no tags: their values on ``assets``.

    Yields:
        Frames as :func:`headrace.formula.evaluate.evaluate` gives them, one after the other in time;
        ``asset`` counts in ``assets``.

    Raises:
        Refused: HIST-2001 when a part needs more than 5 million samples.
    """
    length_us = max(PART_US, PART_LOOKBACKS * plan.back_us)
    edges = [*range(start_us, end_us, length_us), end_us]
    for count, start in enumerate(edges[:-1]):
        end = edges[count + 1]
        names = [name for name in plan.inputs if name not in (attributes or ())]
        histories = _read(reader, plan, names, assets, start, end)
        yield evaluate(
            plan,
            histories,
            start,
            end,
            assets=len(assets),
            attributes=attributes,
            calendar=calendar,
        )
        if progress is not None:
            progress(count + 1, len(edges) - 1)


def _read(
    reader: Reader,
    plan: Plan,
    names: Sequence[str],
    assets: Sequence[AssetTags],
    start_us: int,
    end_us: int,
) -> dict[str, History]:
    ids = sorted({asset.tags[name] for asset in assets for name in names})
    rows = samples_since(reader, ids, start_us - plan.back_us, end_us, plan.back_us)
    return {name: _history(rows, name, assets) for name in names}


def samples_since(
    reader: Reader, ids: list[int], start_us: int, end_us: int, back_us: int
) -> pl.DataFrame:
    """All that an evaluation from ``start + back`` may need; see :func:`evaluate`.

    Args:
        ids: sorted. end_us: nothing from then on.
        back_us: how far before a tag's last sample at or before the start its samples matter.

    Returns:
        Samples, sorted by tag and time.

    Raises:
        Refused: HIST-2001 when these are more than 5 million samples.
    """
    held = reader.before(ids, start_us + 1)
    held_us = dict(
        zip(held["tag_id"], held["source_timestamp"].to_physical().to_list(), strict=True)
    )
    begin_us = {tag_id: held_us.get(tag_id, start_us) - back_us for tag_id in ids}
    # A tag that was silent for long is read by itself, so that the others need not be read from there.
    near = [tag_id for tag_id in ids if begin_us[tag_id] >= start_us - 2 * back_us - PART_US]
    groups = [near] if near else []
    groups += [[tag_id] for tag_id in ids if tag_id not in set(near)]
    parts = [empty_batch()]
    for group in groups:
        begin = min(begin_us[tag_id] for tag_id in group)
        part = reader.read(group, begin, end_us, ROWS_MAX + 1)
        if part.height > ROWS_MAX:
            raise Refused(
                "HIST-2001",
                f"one part of the time needs more than {ROWS_MAX:,} samples",
                "Ask for fewer assets at once, or use a shorter window.",
            )
        parts += [reader.before(group, begin), part]
    return pl.concat(parts).sort("tag_id", "source_timestamp")


def _history(rows: pl.DataFrame, name: str, assets: Sequence[AssetTags]) -> History:
    tag_ids = np.array([asset.tags[name] for asset in assets], np.int64)
    table = pl.DataFrame({"tag_id": tag_ids, "asset": np.arange(len(assets))})
    mine = rows.join(table, on="tag_id", how="inner", maintain_order="left")
    text = mine["text"] if mine["value"].null_count() and mine["text"].count() else None
    return History(
        mine["asset"].to_numpy(),
        mine["source_timestamp"].to_physical().to_numpy(),
        mine["value"].fill_null(float("nan")).to_numpy(),
        mine["status"].to_numpy(),
        text,
    )
