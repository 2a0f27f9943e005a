"""Operating conditions taken out: what a quantity would be for the way the asset is driven, and the rest.

Load, speed, altitude and product move the quantities more than wear does. Where the conditions are few
(regimes), each regime has its own mean and spread; else a quadratic ridge gives the mean.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asset_health.features import Matrix

_REGIMES_MAX = 12
_EXPLAINED = 0.995
_RIDGE = 1e-3


def _scale(values: Matrix) -> tuple[Matrix, Matrix]:
    """Mean and spread of each column; a constant column has the spread 1."""
    spread = values.std(axis=0)
    still = spread <= 1e-9 * np.maximum(1.0, np.abs(values).max(axis=0))
    return values.mean(axis=0), np.where(still, 1.0, spread)


def _centres(values: Matrix, count: int) -> Matrix:
    """``count`` centres: farthest points first, then twenty steps of Lloyd; no chance in it."""
    centres = [values[np.argmin(np.sum(np.square(values), axis=1))]]
    distance = np.full(len(values), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.sum(np.square(values - centres[-1]), axis=1))
        centres.append(values[int(np.argmax(distance))])
    found = np.array(centres)
    for _ in range(20):
        nearest = _nearest(values, found)
        found = np.array(
            [
                values[nearest == k].mean(axis=0) if np.any(nearest == k) else found[k]
                for k in range(count)
            ]
        )
    return found


def _nearest(values: Matrix, centres: Matrix) -> NDArray[np.intp]:
    distances = np.sum(np.square(values[:, None, :] - centres[None]), axis=2)
    nearest: NDArray[np.intp] = np.argmin(distances, axis=1)
    return nearest


def _quadratic(values: Matrix) -> Matrix:
    columns = values.shape[1]
    pairs = [values[:, [i]] * values[:, [j]] for i in range(columns) for j in range(i, columns)]
    return np.hstack([np.ones((len(values), 1)), values, *pairs])


class Conditions:
    """Takes the operating conditions out of quantities; fitted on the training rows.

    Args:
        operating: (rows, conditions); no columns where there are none. quantities: (rows, quantities).

    Example:
        >>> load = np.array([[0.0], [0.0], [1.0], [1.0]] * 9)
        >>> float(Conditions(load, 10.0 * load).residual(load, 10.0 * load).max())
        0.0
    """

    def __init__(self, operating: Matrix, quantities: Matrix) -> None:
        self._middle, self._spread = _scale(operating)
        scaled = (operating - self._middle) / self._spread
        self._centres = self._regimes(scaled)
        if self._centres is not None:
            regime = _nearest(scaled, self._centres)
            scales = [_scale(quantities[regime == k]) for k in range(len(self._centres))]
            self._means = np.array([mean for mean, _ in scales])
            self._spreads = np.array([spread for _, spread in scales])
            return
        middle = quantities.mean(axis=0)
        terms = _quadratic(scaled)
        square = terms.T @ terms + _RIDGE * len(terms) * np.eye(terms.shape[1])
        self._weights = np.linalg.solve(square, terms.T @ (quantities - middle))
        self._weights[0] += middle
        _, whole = _scale(quantities)
        spread = (quantities - terms @ self._weights).std(axis=0)
        self._spreads = np.where(spread > 1e-6 * whole, spread, whole)

    @staticmethod
    def _regimes(scaled: Matrix) -> Matrix | None:
        """The fewest centres that explain nearly all of the conditions; None where none do."""
        if not scaled.shape[1]:
            return np.zeros((1, 0))
        total = float(np.sum(np.square(scaled)))
        for count in range(1, _REGIMES_MAX + 1):
            centres = _centres(scaled, count)
            left = float(np.sum(np.square(scaled - centres[_nearest(scaled, centres)])))
            if left <= (1.0 - _EXPLAINED) * total:
                return centres
        return None

    @property
    def regimes(self) -> int:
        """How many regimes there are; 0: the conditions are continuous."""
        return 0 if self._centres is None else len(self._centres)

    @property
    def law(self) -> dict[str, Matrix]:
        """What was fitted: ``middle`` and ``spread`` of the conditions, and ``spreads`` of the quantities;
        with regimes ``centres`` and ``means`` (regimes, ...), else ``weights`` of the quadratic terms."""
        found = {"middle": self._middle, "spread": self._spread, "spreads": self._spreads}
        if self._centres is None:
            return found | {"weights": self._weights}
        return found | {"centres": self._centres, "means": self._means}

    @property
    def spreads(self) -> Matrix:
        """(quantities,): one spread of each in its own unit, mean over regimes."""
        return self._spreads.mean(axis=0) if self._centres is not None else self._spreads

    def residual(self, operating: Matrix, quantities: Matrix) -> Matrix:
        """What the conditions do not explain, in spreads of the training rows; (rows, quantities)."""
        scaled = (operating - self._middle) / self._spread
        if self._centres is not None:
            regime = _nearest(scaled, self._centres)
            means, spreads = self._means[regime], self._spreads[regime]
        else:
            means, spreads = _quadratic(scaled) @ self._weights, self._spreads
        rest: Matrix = (quantities - means) / spreads
        return rest
