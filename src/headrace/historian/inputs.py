"""What an evaluation reads of stored history: each quantity of each asset, as far back as it matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl

from headrace.formula.evaluate import History
from headrace.historian.reader import Reader
from headrace.model.errors import Refused
from headrace.model.sample import Int64Array, empty_batch
from headrace.model.time import US_PER_S

ROWS_MAX: Final = 20_000_000
SILENT_US: Final = 86_400 * US_PER_S
SPARE_US: Final = 600 * US_PER_S
SPARE_SHARE: Final = 8


def read_inputs(
    reader: Reader,
    tags: Mapping[str, Int64Array],
    start_us: int,
    end_us: int,
    back_us: int,
    *,
    rows_max: int = ROWS_MAX,
) -> dict[str, History]:
    """What :func:`headrace.formula.evaluate.evaluate` needs for results in ``[start_us, end_us)``.

    Args:
        back_us: how far a plan looks back; of several the furthest, since older samples change nothing.
        tags: quantity of the plan -> its tag_id on each asset, shape (assets,); two assets may share one.
        rows_max: samples at most.

    Raises:
        Refused: HIST-2001 when there are more.
    """
    ids = np.unique(np.concatenate([np.empty(0, np.int64), *tags.values()]))
    rows = samples_since(reader, ids, start_us - back_us, end_us, back_us, rows_max)
    return {name: _history(rows, each) for name, each in tags.items()}


def samples_since(
    reader: Reader,
    ids: Int64Array,
    start_us: int,
    end_us: int,
    back_us: int,
    rows_max: int = ROWS_MAX,
) -> pl.DataFrame:
    """All of the tags from ``back`` before what held at the start, and one sample before that.

    Args:
        ids: sorted.
        rows_max: samples at most.

    Returns:
        Samples, sorted by tag and time.

    Raises:
        Refused: HIST-2001 when there are more.
    """
    # Most tags had a sample shortly before: one read has all of them. The others are looked for.
    begin_us = start_us - back_us - max(SPARE_US, back_us // SPARE_SHARE)
    rows = reader.read(ids.tolist(), begin_us, end_us, rows_max + 1)
    _bounded(rows.height, rows_max)
    whole = _is_whole(rows, ids, start_us, back_us)
    if not whole.all():
        earlier = reader.before(ids[~whole].tolist(), begin_us)["tag_id"].to_numpy()
        whole |= ~np.isin(ids, earlier)  # there is no more of these
    if whole.all():
        return rows
    rest, whole = ids[~whole].tolist(), ids[whole]
    looked_for = _looked_for(reader, rest, start_us, end_us, back_us, rows_max)
    mine = rows.filter(pl.col("tag_id").is_in(pl.Series(whole).implode()))
    _bounded(mine.height + looked_for.height, rows_max)
    return pl.concat([mine, looked_for]).sort("tag_id", "source_timestamp")


def _is_whole(rows: pl.DataFrame, ids: Int64Array, start_us: int, back_us: int) -> np.ndarray:
    """Which tags have all that is needed: one sample more than what lies ``back`` before what held."""
    at_us = rows["source_timestamp"].to_physical().to_numpy()
    tag_id = rows["tag_id"].to_numpy()
    low, high = np.searchsorted(tag_id, ids), np.searchsorted(tag_id, ids, "right")
    found = np.zeros(len(ids), np.bool_)
    for place, (a, b) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        held = int(np.searchsorted(at_us[a:b], start_us, "right")) - 1
        found[place] = held > 0 and at_us[a] < at_us[a + held] - back_us
    return found


def _looked_for(
    reader: Reader, ids: list[int], start_us: int, end_us: int, back_us: int, rows_max: int
) -> pl.DataFrame:
    held = reader.before(ids, start_us + 1)
    held_us = dict(
        zip(held["tag_id"], held["source_timestamp"].to_physical().to_list(), strict=True)
    )
    begin_us = {tag_id: held_us.get(tag_id, start_us) - back_us for tag_id in ids}
    # A tag that was silent for long is read by itself, so that the others need not be read from there.
    near = [tag_id for tag_id in ids if begin_us[tag_id] >= start_us - 2 * back_us - SILENT_US]
    groups = [near] if near else []
    groups += [[tag_id] for tag_id in ids if tag_id not in set(near)]
    parts = [empty_batch()]
    for group in groups:
        begin = min(begin_us[tag_id] for tag_id in group)
        part = reader.read(group, begin, end_us, rows_max + 1)
        _bounded(part.height, rows_max)
        parts += [reader.before(group, begin), part]
    return pl.concat(parts)


def _bounded(rows: int, rows_max: int) -> None:
    if rows > rows_max:
        raise Refused(
            "HIST-2001",
            f"one part of the time needs more than {rows_max:,} samples",
            "Ask for fewer assets at once, or use a shorter window.",
        )


def _history(rows: pl.DataFrame, tags: Int64Array) -> History:
    """The samples of one quantity; rows are sorted by tag and time."""
    tag_id = rows["tag_id"].to_numpy()
    low, high = np.searchsorted(tag_id, tags), np.searchsorted(tag_id, tags, "right")
    asset = np.repeat(np.arange(len(tags)), high - low)
    if len(tags) and bool(np.all(low[1:] == high[:-1])):  # they lie one after the other
        mine = rows.slice(int(low[0]), int(high[-1] - low[0]))
    else:
        begins = np.cumsum(high - low) - (high - low)
        mine = rows[np.arange(len(asset)) + np.repeat(low - begins, high - low)]
    text = mine["text"] if mine["value"].null_count() and mine["text"].count() else None
    return History(
        asset,
        mine["source_timestamp"].to_physical().to_numpy(),
        mine["value"].fill_null(float("nan")).to_numpy(),
        mine["status"].to_numpy(),
        text,
    )
