"""Remaining useful life from lives that ended: the same path for every kind of asset, nothing tuned for one.

Conditions are taken out, trends are measured over several windows, and three unlike learners (boosted
trees, support vectors, a small network) are averaged. The interval is conformal: errors on units that a
fold had not seen, by the height of the estimate, so that it holds for a new unit of the same kind.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from lightgbm import LGBMRegressor
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from asset_health.conditions import Conditions
from asset_health.features import Matrix, trend_features
from asset_health.lifeline import LENGTHS, SEEN_MIN

CAP = 125.0
"""Rows of life beyond which nobody can tell one from another: more is called this much."""
_BEYOND = 25.0
_FOLDS = 5
BINS = 5
_KERNEL_ROWS = 5000


@dataclass(frozen=True)
class Unit:
    """The record of one asset, rows in the order of time.

    Attributes:
        operating: (rows, conditions). quantities: (rows, quantities).
    """

    operating: Matrix
    quantities: Matrix


class Learners:
    """Boosted trees, support vectors and a small network, averaged; the last two on evenly taken rows only,
    as their cost grows faster than the rows.

    Args:
        features: columns of the rows.

    Attributes:
        trees, scale, vectors, network: fitted parts; vectors and network are asked about scaled rows.
    """

    def __init__(self, features: int) -> None:
        self.trees = LGBMRegressor(
            n_estimators=300, learning_rate=0.03, num_leaves=15, min_child_samples=50, subsample=0.7,
            subsample_freq=1, colsample_bytree=0.3, reg_lambda=5.0, n_jobs=1, verbose=-1, random_state=1,
        )  # fmt: skip
        self.scale = StandardScaler()
        self.vectors = SVR(C=50.0, gamma=0.3 / features, epsilon=5.0)
        self.network = MLPRegressor(
            hidden_layer_sizes=(48, 24), alpha=10.0, batch_size=256, max_iter=30, random_state=0
        )

    def fit(self, rows: Matrix, target: Matrix) -> Learners:
        """Learn (rows, features) -> (rows,)."""
        self.trees.fit(rows, target)
        scaled = self.scale.fit_transform(rows)
        thin = max(1, -(-len(rows) // _KERNEL_ROWS))
        self.vectors.fit(scaled[::thin], target[::thin])
        thin = max(1, -(-len(rows) // (3 * _KERNEL_ROWS)))
        with warnings.catch_warnings():
            # It stops after its thirty rounds by design, and small plants have less rows than a batch.
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", message="Got `batch_size`")
            self.network.fit(scaled[::thin], target[::thin])
        return self

    def predict(self, rows: Matrix) -> Matrix:
        """(rows,): the mean of the three."""
        scaled = self.scale.transform(rows)
        told = (
            self.trees.predict(rows),
            self.vectors.predict(scaled),
            self.network.predict(scaled),
        )
        mean: Matrix = np.mean(told, axis=0)
        return mean


class Life:
    """Remaining rows of life of an asset.

    Args:
        units: each to the end of its life. coverage: of the interval.

    Attributes:
        conditions: taken out first. kept: (quantities,), those that say something.
        model: the learners. lower, upper: (BINS,), what is added to an estimate by its height.
        held_out_rmse: of units that a fold had not seen, truth capped, in rows.
    """

    def __init__(self, units: list[Unit], *, coverage: float = 0.9) -> None:
        operating = np.vstack([unit.operating for unit in units])
        quantities = np.vstack([unit.quantities for unit in units])
        self.conditions = Conditions(operating, quantities)
        self.kept = self.conditions.residual(operating, quantities).std(axis=0) > 1e-3
        rows, target, group = self._questions(units)
        self.held_out = np.empty(len(target))
        for seen, unseen in GroupKFold(min(_FOLDS, len(units))).split(rows, target, group):
            fitted = Learners(rows.shape[1]).fit(rows[seen], target[seen])
            self.held_out[unseen] = np.clip(fitted.predict(rows[unseen]), 0.0, CAP)
        self.model = Learners(rows.shape[1]).fit(rows, target)
        self.held_out_rmse = float(np.sqrt(np.mean(np.square(self.held_out - target))))
        self._calibrate(target - self.held_out, coverage)

    def features(self, unit: Unit) -> Matrix:
        """(rows, features) that the model takes."""
        rest = self.conditions.residual(unit.operating, unit.quantities)[:, self.kept]
        return trend_features(rest, LENGTHS)

    def _questions(self, units: list[Unit]) -> tuple[Matrix, Matrix, NDArray[np.int64]]:
        """Rows that look like a question: something is known, and the end is not too far to tell."""
        rows, targets, groups = [], [], []
        for number, unit in enumerate(units):
            left = np.arange(len(unit.quantities), 0, -1) - 1.0
            asked = (left <= CAP + _BEYOND) & (np.arange(len(left)) + 1 >= SEEN_MIN)
            rows.append(self.features(unit)[asked])
            targets.append(np.minimum(left[asked], CAP))
            groups.append(np.full(int(asked.sum()), number))
        return np.vstack(rows), np.concatenate(targets), np.concatenate(groups)

    def _calibrate(self, errors: Matrix, coverage: float) -> None:
        tail = (1.0 - coverage) / 2.0
        bins = self._bin(self.held_out)
        self.lower, self.upper = np.empty(BINS), np.empty(BINS)
        for number in range(BINS):
            own = errors[bins == number] if np.any(bins == number) else errors
            low, high = np.quantile(own, [tail, 1.0 - tail])
            # Where all errors of a height lie on one side, the estimate is still inside of its interval.
            self.lower[number], self.upper[number] = min(low, 0.0), max(high, 0.0)

    @staticmethod
    def _bin(estimate: Matrix) -> NDArray[np.int64]:
        return np.minimum((estimate / CAP * BINS).astype(np.int64), BINS - 1)

    def interval(self, estimate: Matrix) -> Matrix:
        """(rows, 3): estimate, lower and upper; an upper end at the cap means that or more."""
        estimate = np.clip(estimate, 0.0, CAP)
        bins = self._bin(estimate)
        ends = np.column_stack([estimate, estimate + self.lower[bins], estimate + self.upper[bins]])
        return np.clip(ends, 0.0, CAP)

    def predict(self, unit: Unit) -> Matrix:
        """(3,): remaining rows after the last one, lower and upper end of the interval."""
        answer: Matrix = self.interval(self.model.predict(self.features(unit)[-1:]))[0]
        return answer
