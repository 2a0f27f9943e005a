"""What the inputs of a model looked like in its training, so that each scored window can be held against it.

The training window is cut in two. Its oldest fifth gives the edges of ten bins a quantity, and nothing else.
The rest is cut into blocks of equal length; of each block only the counts by bin are kept. So the file is
small, and no block has had a part in the edges by which it is judged: see :mod:`.live_drift`.

Only rows that the scored windows would have shown are counted, on the grid that training and windows share.
"""

from __future__ import annotations

from math import lcm
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.model.sample import Int64Array, microseconds

BINS: Final = 10
SLOTS: Final = 24
"""A stretch is at most so many slots long; after each it is looked at."""
BLOCKS: Final = 20
FEWEST: Final = 20
"""Values that a stretch must have to be judged, and blocks less one that there must be."""
STRETCH_US: Final = 86_400_000_000
EDGES_SHARE: Final = 0.2
_WHOLE: Final = (0, 0, 0)


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """The windows in which a score hook sees its inputs; as of :class:`headrace.app.hooks.Hook`."""

    type: str
    length_us: int
    every_us: int
    step_us: int


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of the training's blocks.

    Attributes:
        grid_us: distance of the rows that count. slot_us: of the looks. slots: of a stretch.
        blocks: of a stretch's length each. assets, quantities: what was counted.
        edges: float64, shape (assets, quantities, BINS - 1); nan where nothing was known.
        counts: uint32, shape (assets, quantities, blocks, BINS).
    """

    grid_us: int
    slot_us: int
    slots: int
    blocks: int
    assets: tuple[str, ...]
    quantities: tuple[str, ...]
    edges: bytes
    counts: bytes

    @property
    def shape(self) -> tuple[int, int]:
        """(assets, quantities)."""
        return len(self.assets), len(self.quantities)

    def edges_array(self) -> npt.NDArray[np.float64]:
        """Edges; see the class."""
        return np.frombuffer(self.edges, np.float64).reshape(*self.shape, BINS - 1)

    def counts_array(self) -> npt.NDArray[np.uint32]:
        """Counts; see the class."""
        return np.frombuffer(self.counts, np.uint32).reshape(*self.shape, self.blocks, BINS)


def lengths(span_us: int, grid_us: int, stretch_us: int = STRETCH_US) -> tuple[int, int, int]:
    """(slot, slots of a stretch, blocks) for a training of this length; zeros when it is too short.

    A stretch is a day, or shorter where that would give fewer than :data:`BLOCKS` blocks.

    Example:
        >>> day = 86_400_000_000
        >>> lengths(30 * day, 60_000_000)
        (3600000000, 24, 24)
        >>> lengths(day, 60_000_000)  # blocks of 57 minutes
        (180000000, 19, 20)
    """
    usable_us = int(span_us * (1 - EDGES_SHARE))
    stretch_us = min(stretch_us, usable_us // BLOCKS)
    slot_us = -(-stretch_us // SLOTS // grid_us) * grid_us if stretch_us >= grid_us else 0
    if not slot_us:
        return _WHOLE
    slots = stretch_us // slot_us
    blocks = usable_us // (slots * slot_us) if slots else 0
    if slots * slot_us // grid_us < FEWEST or blocks < BLOCKS - 1:
        return _WHOLE
    return slot_us, slots, blocks


def build_baseline(
    history: pl.DataFrame, span_us: tuple[int, int], step_us: int, sight: Sight
) -> Baseline | None:
    """Count the frame of a training; None when it is too short to tell anything by it.

    Args:
        history: as an app trains on it. span_us: ``[start, end)`` of it. step_us: distance of its rows.
    """
    grid_us = lcm(step_us, sight.step_us)
    slot_us, slots, blocks = lengths(span_us[1] - span_us[0], grid_us)
    names = [name for name, kind in history.schema.items() if kind == pl.Float64]
    assets = tuple(sorted(history["asset"].unique()))
    if not slots or not names or not assets:
        return None
    first_us = span_us[1] - blocks * slots * slot_us
    edges = np.full((len(assets), len(names), BINS - 1), np.nan)
    counts = np.zeros((len(assets), len(names), blocks, BINS), np.uint32)
    parts = history.partition_by("asset", as_dict=True)
    for place, asset in enumerate(assets):
        part = parts[(asset,)]
        at_us = microseconds(part["time"])
        seen = is_seen(at_us, grid_us, sight, span_us[0] % grid_us)
        part, at_us = part.filter(pl.Series(seen)), at_us[seen]
        early = at_us < first_us
        block = (at_us[~early] - first_us) // (slots * slot_us)
        for row, name in enumerate(names):
            values = part[name].fill_null(np.nan).to_numpy()
            edges[place, row] = _edges(values[early])
            _count(counts[place, row], block, values[~early], edges[place, row])
    return Baseline(
        grid_us=grid_us,
        slot_us=slot_us,
        slots=slots,
        blocks=blocks,
        assets=assets,
        quantities=tuple(names),
        edges=edges.tobytes(),
        counts=counts.tobytes(),
    )


def is_seen(
    at_us: Int64Array, grid_us: int, sight: Sight, phase_us: int = 0
) -> npt.NDArray[np.bool_]:
    """Which times are on the grid and in one of the windows ``[n every - length, n every)``.

    Args:
        phase_us: by how much the grid is shifted.

    Example:
        >>> sight = Sight(type="pump", length_us=2, every_us=5, step_us=1)
        >>> np.flatnonzero(is_seen(np.arange(10), 1, sight)).tolist()
        [3, 4, 8, 9]
    """
    until_next = sight.every_us - at_us % sight.every_us
    seen: npt.NDArray[np.bool_] = ((at_us - phase_us) % grid_us == 0) & (
        until_next <= sight.length_us
    )
    return seen


def bins_of(
    values: npt.NDArray[np.float64], edges: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    """The bin of each value; -1 of those that are not known, or have no edges.

    Args:
        values: shape (..., n). edges: shape (..., BINS - 1).
    """
    found: npt.NDArray[np.int64] = (values[..., None] > edges[..., None, :]).sum(-1)
    found[np.isnan(values) | np.isnan(edges[..., :1])] = -1
    return found


def _edges(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    known = values[~np.isnan(values)]
    if len(known) < FEWEST:
        return np.full(BINS - 1, np.nan)
    return np.quantile(known, np.arange(1, BINS) / BINS)


def _count(
    counts: npt.NDArray[np.uint32],
    block: Int64Array,
    values: npt.NDArray[np.float64],
    edges: npt.NDArray[np.float64],
) -> None:
    found = bins_of(values, edges)
    known = found >= 0
    np.add.at(counts, (block[known], found[known]), 1)
