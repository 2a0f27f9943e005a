"""Drift with each scored window: how unlike its training the newest stretch of an asset's inputs is.

The newest stretch and the training's blocks (:mod:`.baseline`) are ``B + 1`` tables of counts, and each is
treated alike: its distances to all others together, by quantity, as the greatest step between the shares up
to each bin (KS) and as the population stability index (PSI); each distance as a multiple of the mean one of
that quantity, so that quantities compare; the greatest of them is how strange a stretch of this asset is.

The score is that of the newest stretch divided by that of the strangest block: above 1 no block of the
training was as strange. When nothing has changed, the newest stretch is one more block like the others, and
each of the ``B + 1`` is as likely the strangest one: at most 1 in ``B + 1`` looks is above 1 by chance. With
fewer than 19 blocks nothing is told at all.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.apps.models.baseline import BINS, FEWEST, Baseline, Sight, bins_of, is_seen
from headrace.model.sample import microseconds

FLOOR: Final = 1e-4
Counts = npt.NDArray[np.float64]


class LiveDrift:
    """The newest stretch of one model's inputs.

    Args:
        baseline: of the training. sight: of the hook that scores. of: which model; a state of another one
            is not gone on with. state: what :meth:`save` gave.
    """

    def __init__(self, baseline: Baseline, sight: Sight, of: str, state: dict[str, Any]) -> None:
        self._its, self._sight, self._of = baseline, sight, of
        self._edges = baseline.edges_array()
        shape = (*baseline.shape, baseline.slots + 1, BINS)
        if state.get("of") == of:
            raw = np.frombuffer(zlib.decompress(state["ring"]), np.uint32)
            self._ring = raw.reshape(shape).copy()
            self._from_us, self._to_us = int(state["from_us"]), int(state["to_us"])
        else:
            self._ring = np.zeros(shape, np.uint32)
            self._from_us = self._to_us = 0

    def save(self) -> dict[str, Any]:
        """All that the next window needs."""
        ring = zlib.compress(self._ring.tobytes(), 1)
        return {"of": self._of, "ring": ring, "from_us": self._from_us, "to_us": self._to_us}

    def take(self, frame: pl.DataFrame, start_us: int, end_us: int) -> tuple[int, dict[str, float]]:
        """Count a window; when a slot came to its end, look at the stretch that ends with it.

        Args:
            frame: of the window ``[start, end)``, as the hook gets it.

        Returns:
            End of the stretch and the score of each asset; nothing between two looks, before the first
            stretch is whole, and of assets without values or without blocks.
        """
        its = self._its
        if not self._to_us:
            self._from_us = self._to_us = start_us
        if (
            self._to_us < start_us - self._sight.every_us
        ):  # windows are missing: a stretch has a hole
            self._ring[:] = 0
            self._from_us = self._to_us = start_us
        before, now = self._to_us // its.slot_us, end_us // its.slot_us
        for slot in range(max(before + 1, now - its.slots), now + 1):
            self._ring[:, :, slot % (its.slots + 1)] = 0
        self._add(frame, now)
        self._to_us = end_us
        stretch_us = its.slots * its.slot_us
        at_us = now * its.slot_us
        if now == before or at_us - stretch_us < self._from_us:
            return 0, {}
        done = [slot % (its.slots + 1) for slot in range(now - its.slots, now)]
        return at_us, self._scores(self._ring[:, :, done].sum(axis=2))

    def _add(self, frame: pl.DataFrame, now: int) -> None:
        """The rows of the window that are new, into the slots that they are of."""
        its = self._its
        at_us = microseconds(frame["time"])
        slot = at_us // its.slot_us
        new = (
            (at_us >= self._to_us)
            & (slot >= now - its.slots)
            & is_seen(at_us, its.grid_us, self._sight)
        )
        place = {asset: row for row, asset in enumerate(its.assets)}
        asset = frame["asset"].replace_strict(place, default=-1, return_dtype=pl.Int64).to_numpy()
        new &= asset >= 0
        asset, slot = asset[new], slot[new] % (its.slots + 1)
        rows = frame.filter(pl.Series(new))
        for row, name in enumerate(its.quantities):
            if name not in rows.columns:
                continue
            values = rows[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
            found = bins_of(values[:, None], self._edges[asset, row])[:, 0]
            known = found >= 0
            np.add.at(self._ring[:, row], (asset[known], slot[known], found[known]), 1)

    def _scores(self, newest: npt.NDArray[np.uint32]) -> dict[str, float]:
        blocks = self._its.counts_array()
        counts = np.concatenate([blocks, newest[:, :, None]], axis=2).astype(np.float64)
        strange = strangeness(counts)
        found = {}
        for asset, each in zip(self._its.assets, strange, strict=True):
            known = each[:-1][~np.isnan(each[:-1])]
            if np.isnan(each[-1]) or len(known) < FEWEST - 1:
                continue
            limit = known.max()
            found[asset] = float(each[-1] / limit) if limit > 0 else 0.0
        return found


def strangeness(counts: Counts) -> npt.NDArray[np.float64]:
    """How strange each stretch of each asset is among all stretches of it.

    Args:
        counts: shape (assets, quantities, stretches, bins).

    Returns:
        Shape (assets, stretches); nan of stretches without values.

    Example:
        >>> steady, moved = [50.0, 50.0], [0.0, 100.0]
        >>> strangeness(np.array([[[steady, steady, steady, moved]]])).round(2).tolist()
        [[0.67, 0.67, 0.67, 3.72]]
    """
    total = counts.sum(axis=-1, keepdims=True)
    usable = total[..., 0] >= FEWEST
    counts = np.where(usable[..., None], counts, 0.0)
    rest = counts.sum(axis=-2, keepdims=True) - counts
    own = counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1.0)
    others = rest / np.maximum(rest.sum(axis=-1, keepdims=True), 1.0)
    steps = np.abs(np.cumsum(own - others, axis=-1)).max(axis=-1)
    low, high = np.maximum(others, FLOOR), np.maximum(own, FLOOR)
    index = ((high - low) * np.log(high / low)).sum(axis=-1)
    both = np.stack([_as_multiples(steps, usable), _as_multiples(index, usable)])
    most = np.where(usable, both.max(axis=0), -np.inf).max(axis=1)
    return np.where(usable.any(axis=1), most, np.nan)


def _as_multiples(distance: Counts, usable: npt.NDArray[np.bool_]) -> Counts:
    kept = np.where(usable, distance, 0.0)
    mean = kept.sum(axis=-1, keepdims=True) / np.maximum(usable.sum(axis=-1, keepdims=True), 1)
    return np.where(mean > 0, kept / np.where(mean > 0, mean, 1.0), 0.0)
