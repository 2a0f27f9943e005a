"""Whether what a model is asked about still looks as when it was trained, by asset and quantity.

Two distances between the newest stretch and the training window: the population stability index (PSI) over the
deciles of the training, and the two-sample statistic of Kolmogorov and Smirnov (KS).

Samples of a plant depend on those before them, so the textbook thresholds of both (PSI 0.2, the KS table) give
alarms all the time. Here the training window says itself how far a stretch of that length lies from the rest
of it: it is cut into blocks as long as the newest stretch, and the distance of each block from all others is
known. A stretch is as strange as the higher of its ranks by PSI and by KS among all of them (the lower one
decides between equals), and the p-value of the newest is the share of stretches at least as strange::

    p = (1 + blocks that are at least as strange as the newest stretch) / (1 + blocks)

When nothing has changed, the newest stretch is one more block like the others, and p <= alpha comes about in
a share of at most alpha of all looks at a quantity (a permutation test; Vovk et al., Algorithmic Learning in a
Random World, 2.2). It needs at least ``1 / alpha - 1`` blocks: 19 for 5 %, 99 for 1 %; with fewer nothing is
ever told, and ``can_tell`` says so. Blocks are like each other when they are longer than what repeats in the
plant: a day or a shift, not an hour.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from headrace.model.errors import Misconfigured
from headrace.model.sample import Float64Array

ALPHA: Final = 0.05
BINS: Final = 10
FEWEST: Final = 20
"""Values that a stretch must have to be judged."""
FLOOR: Final = 1e-4
Kind = Literal["input", "output"]


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One quantity of one asset.

    Attributes:
        kind: an input of the app, or an output of it. blocks: of the training that are compared.
        psi, ks: distances of the newest stretch. psi_before, ks_before: median of those of the blocks.
        p: see the module. drifted: it is <= alpha.
        missing: share of rows of the newest stretch without a value; missing_before: of the training.
        can_tell: there are blocks enough for this alpha.
    """

    asset: str
    quantity: str
    kind: Kind
    blocks: int = 0
    psi: float = 0.0
    ks: float = 0.0
    psi_before: float = 0.0
    ks_before: float = 0.0
    p: float = 1.0
    missing: float = 0.0
    missing_before: float = 0.0
    can_tell: bool = False
    drifted: bool = False


def psi(expected: Float64Array, found: Float64Array) -> float:
    """Population stability index of shares of bins: ``sum((found - expected) ln(found / expected))``.

    Shares below 0.0001 count as that.

    Example:
        >>> round(psi(np.array([0.5, 0.5]), np.array([0.25, 0.75])), 4)
        0.2747
    """
    low, high = np.maximum(expected, FLOOR), np.maximum(found, FLOOR)
    return float(((high - low) * np.log(high / low)).sum())


def distances(stretches: list[Float64Array]) -> npt.NDArray[np.float64]:
    """PSI and KS of each stretch against all others together, shape (stretches, 2).

    Bins are the deciles of all of them, so no stretch is treated unlike another.

    Example:
        >>> found = distances([np.arange(20.0), np.arange(20.0), np.arange(20.0) + 100])
        >>> found[:, 1].round(2).tolist()
        [0.5, 0.5, 1.0]
    """
    values = np.concatenate(stretches)
    owner = np.repeat(np.arange(len(stretches)), [len(each) for each in stretches])
    order = np.argsort(values, kind="stable")
    values, owner = values[order], owner[order]
    edges = np.unique(np.quantile(values, np.arange(1, BINS) / BINS))
    binned = np.searchsorted(edges, values, "left")
    shares_all = np.bincount(binned, minlength=len(edges) + 1)
    is_last = np.append(values[1:] != values[:-1], True)  # equal values are one step of both
    all_below = np.arange(1, len(values) + 1)[is_last]
    found = np.empty((len(stretches), 2))
    for place, each in enumerate(stretches):
        mine = owner == place
        rest = len(values) - len(each)
        own = np.bincount(binned[mine], minlength=len(edges) + 1)
        below = np.cumsum(mine)[is_last]
        apart = np.abs((all_below - below) / rest - below / len(each)).max()
        found[place] = psi((shares_all - own) / rest, own / len(each)), apart
    return found


def strangeness(found: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """One number a stretch: its higher rank by PSI and KS first, then the lower one."""
    ranks = np.stack([rank(column) for column in found.T])
    strange: npt.NDArray[np.int64] = ranks.max(axis=0) * (len(found) + 1) + ranks.min(axis=0)
    return strange


def rank(values: Float64Array) -> npt.NDArray[np.int64]:
    """How many values are not above each.

    Example:
        >>> rank(np.array([3.0, 1.0, 3.0])).tolist()
        [3, 1, 3]
    """
    ranks: npt.NDArray[np.int64] = np.searchsorted(np.sort(values), values, "right")
    return ranks


def judge_series(
    reference: Float64Array, recent: Float64Array, alpha: float = ALPHA
) -> tuple[dict[str, Any], npt.NDArray[np.bool_]]:
    """Fields of :class:`Drift` that values alone decide, and which blocks would be told by the same rule.

    Args:
        reference: values of the training window in order of time, evenly spaced, nan where there is none.
        recent: the newest stretch, the same; its length is that of a block.
        alpha: share of looks at a quantity that may be false alarms.

    Raises:
        Misconfigured: APPS-2535 when alpha is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise Misconfigured("APPS-2535", f"{alpha} is no rate of false alarms", "Give 0.05 or so.")
    length = len(recent)
    count = len(reference) // length if length else 0
    cut = reference[len(reference) - count * length :].reshape(count, length)
    is_usable = (~np.isnan(cut)).sum(axis=1) >= FEWEST
    blocks = [block[~np.isnan(block)] for block in cut[is_usable]]
    now = recent[~np.isnan(recent)]
    if len(blocks) < 2 or len(now) < FEWEST:
        return {"blocks": len(blocks)}, np.zeros(count, np.bool_)
    found = distances([*blocks, now])
    strange = strangeness(found)
    shares = (len(strange) - np.searchsorted(np.sort(strange), strange, "left")) / len(strange)
    p = float(shares[-1])
    told = np.zeros(count, np.bool_)
    told[is_usable] = shares[:-1] <= alpha
    before = np.median(found[:-1], axis=0)
    fields = {
        "blocks": len(blocks),
        "psi": float(found[-1, 0]),
        "ks": float(found[-1, 1]),
        "psi_before": float(before[0]),
        "ks_before": float(before[1]),
        "p": p,
        "can_tell": alpha * (1 + len(blocks)) >= 1,
        "drifted": p <= alpha,
    }
    return fields, told


def judge_frames(
    reference: pl.DataFrame, recent: pl.DataFrame, kind: Kind, alpha: float = ALPHA
) -> tuple[list[Drift], npt.NDArray[np.int64]]:
    """Each quantity of each asset, and how many of them would be told in each block of the training.

    Args:
        reference: the training window, recent: the newest stretch; both with ``asset``, ``time`` and one
            Float64 column a quantity, evenly spaced by the same distance.
    """
    names = [
        name
        for name, its in recent.schema.items()
        if its == pl.Float64 and reference.schema.get(name) == pl.Float64
    ]
    before = {key[0]: part for key, part in reference.partition_by("asset", as_dict=True).items()}
    found, counts = [], np.zeros(0, np.int64)
    for (asset, *_), part in sorted(recent.partition_by("asset", as_dict=True).items()):
        if asset not in before:
            continue
        for name in names:
            old, new = _numbers(before[asset][name]), _numbers(part[name])
            if np.isnan(old).all() and np.isnan(new).all():
                continue
            judged, told = _judged(str(asset), name, kind, old, new, alpha)
            found.append(judged)
            counts = added(counts, told.astype(np.int64))
    return found, counts


def added(one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The sum of two rows of blocks that end at the same time.

    Example:
        >>> added(np.array([1, 2, 3]), np.array([10])).tolist()
        [1, 2, 13]
    """
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    total = longer.copy()
    total[len(longer) - len(shorter) :] += shorter
    return total


def _judged(
    asset: str, name: str, kind: Kind, old: Float64Array, new: Float64Array, alpha: float
) -> tuple[Drift, npt.NDArray[np.bool_]]:
    fields, told = judge_series(old, new, alpha)
    judged = Drift(
        asset=asset,
        quantity=name,
        kind=kind,
        missing=float(np.isnan(new).mean()) if len(new) else 1.0,
        missing_before=float(np.isnan(old).mean()) if len(old) else 1.0,
        **fields,
    )
    return judged, told


def _numbers(column: pl.Series) -> Float64Array:
    return column.fill_null(float("nan")).to_numpy()
