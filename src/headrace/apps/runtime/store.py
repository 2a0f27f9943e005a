"""The samples that windows may still need, and the value that each tag held before them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.model.sample import SCHEMA, Int64Array, empty_batch

_ORDER: Final = (
    "tag_id",
    "source_timestamp",
    "received_timestamp",
    "status",
    "value",
    "text",
)


@dataclass(frozen=True)
class Held:
    """Samples by sample-and-hold.

    Attributes:
        at: row of ``rows`` for each tag and grid time, shape (tags, times); -1 where none is known.
        rows: the samples.
    """

    at: Int64Array
    rows: pl.DataFrame


class Store:
    """Samples of some tags, whatever order they come in.

    Of two with the same tag and source time that counts which was received later (and of equal ones, for
    good measure, the greater): what is in here depends on what came, not on how.

    Args:
        tag_ids: sorted, int64, shape (n,). held: what an earlier store gave as ``held``.
    """

    def __init__(self, tag_ids: Int64Array, held: pl.DataFrame | None = None) -> None:
        self._tag_ids = tag_ids
        self._rows = empty_batch()
        self._waiting: list[pl.DataFrame] = []
        if held is not None and held.height:
            self.put(held)

    @property
    def tag_ids(self) -> Int64Array:
        """Which it takes."""
        return self._tag_ids

    def put(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Take the samples of its tags; gives those."""
        known = np.isin(batch["tag_id"].to_numpy(), self._tag_ids)
        taken = batch if known.all() else batch.filter(pl.Series(known))
        if taken.height:
            self._waiting.append(taken)
        return taken

    def hold(self, tag_ids: Int64Array, start_us: int, step_us: int, count: int) -> Held:
        """The newest sample at or before ``start_us + k * step_us``, k = 0 ... count - 1.

        Args:
            tag_ids: shape (n,), any order, also such as it does not have.
        """
        rows = self._sorted()
        end_us = start_us + step_us * count
        width = end_us - start_us + 1
        tags = rows["tag_id"].to_numpy()
        place = np.searchsorted(self._tag_ids, tags)
        times = np.clip(_times(rows), start_us, end_us) - start_us
        keys = place * width + times
        wanted = np.searchsorted(self._tag_ids, tag_ids)
        grid = np.arange(count, dtype=np.int64) * step_us
        at = np.searchsorted(keys, wanted[:, None] * width + grid[None, :], side="right") - 1
        if rows.height:
            is_own = (at >= 0) & (tags[np.maximum(at, 0)] == tag_ids[:, None])
            # What is older than the grid was clipped to its start and is known there; all else is in place.
            at = np.where(is_own, at, -1)
        else:
            at = np.full(at.shape, -1, np.int64)
        return Held(at.astype(np.int64), rows)

    def forget(self, before_us: int) -> None:
        """Keep of what is not after ``before_us`` the newest sample of each tag only."""
        rows = self._sorted()
        old = _times(rows) <= before_us
        if not old.any():
            return
        tags = rows["tag_id"].to_numpy()
        last_of_old = old.copy()
        last_of_old[:-1] &= ~(old[1:] & (tags[1:] == tags[:-1]))
        kept = ~old | last_of_old
        if not kept.all():
            self._rows = rows.filter(pl.Series(kept))

    def held(self, before_us: int) -> pl.DataFrame:
        """The newest sample of each tag that is not after ``before_us``."""
        rows = self._sorted()
        old = rows.filter(pl.Series(_times(rows) <= before_us))
        return old.unique("tag_id", keep="last", maintain_order=True)

    def _sorted(self) -> pl.DataFrame:
        if self._waiting:
            every = pl.concat([self._rows, *self._waiting]).select(*SCHEMA).sort(*_ORDER)
            self._rows = every.unique(
                ("tag_id", "source_timestamp"), keep="last", maintain_order=True
            ).rechunk()
            self._waiting = []
        return self._rows


def _times(rows: pl.DataFrame) -> npt.NDArray[np.int64]:
    return rows["source_timestamp"].to_numpy().view(np.int64)
