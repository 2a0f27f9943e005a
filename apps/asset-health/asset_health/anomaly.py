"""Is the asset as it was when it was healthy? Two watches, fitted on healthy rows alone, and the cause.

``LevelWatch`` asks whether the mean of the last rows has left the band that such means kept while healthy;
quantities that wander while healthy have no say. ``StateWatch`` asks whether the quantities still move
together as before (canonical variate analysis: Larimore 1983; Russell, Chiang, Braatz 2000). Both give 1
at their limit, so that their greatest is one score. Nothing is tuned for an asset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asset_health.features import Matrix, lagged, rolling_mean

_CLIP = 6.0
_FALL = 0.5
"""An alarm ends below this score ..."""
_FALL_OF_PEAK = 0.4
"""... or below this part of the greatest score since it began: a great shift need not come back whole."""


@dataclass(frozen=True)
class Cause:
    """One quantity's part in a score.

    Attributes:
        quantity: name. share: of the score, 0 to 1. moved: mean of the last rows less the healthy mean,
            in the quantity's unit. spreads: the same in healthy standard deviations.
    """

    quantity: str
    share: float
    moved: float
    spreads: float


@dataclass(frozen=True)
class Follow:
    """Where a level watch stands between two windows: plain data.

    Attributes:
        centre: healthy mean of each quantity now, in spreads. active: the alarm stands.
        peak: greatest score since it began.
    """

    centre: list[float]
    active: bool = False
    peak: float = 0.0


def percent(score: Matrix) -> Matrix:
    """The score, which is 1 at its limit, as 0 to 100 %: 50 % is the limit.

    Example:
        >>> percent(np.array([0.0, 1.0, 3.0])).tolist()
        [0.0, 50.0, 75.0]
    """
    scaled: Matrix = 100.0 * score / (1.0 + score)
    return scaled


def conformal_limit(scores: Matrix, false_alarms: float) -> float:
    """The value that a new healthy score passes with at most that chance (split conformal, exchangeable)."""
    level = np.ceil((len(scores) + 1) * (1.0 - false_alarms)) / len(scores)
    return float(np.quantile(scores, min(1.0, level), method="higher"))


class LevelWatch:
    """Means of the last rows against the band that they kept while healthy.

    Args:
        healthy: (rows, quantities). length: rows of a mean.
        limit: how many spreads of the healthy means are too far.
        wander_max: spread of the means, in spreads of the rows, from which a quantity counts as wandering
            (independent rows have ``length ** -0.5``).
    """

    def __init__(
        self, healthy: Matrix, *, length: int = 15, limit: float = 3.5, wander_max: float = 0.5
    ) -> None:
        self.length, self._limit = length, limit
        self._middle = np.median(healthy, axis=0)
        spread = healthy.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)
        means = self._means(healthy)[length:]
        self._memory = len(healthy)
        self._centre = means.mean(axis=0)
        self._band = np.maximum(means.std(axis=0), length**-0.5)
        self.steady = (means.std(axis=0) < wander_max) & (spread > 0)

    def _means(self, rows: Matrix) -> Matrix:
        scaled = np.clip((rows - self._middle) / self._spread, -_CLIP, _CLIP)
        return rolling_mean(scaled, self.length)

    def deviations(self, rows: Matrix) -> Matrix:
        """(rows, quantities): the mean of the last rows, 1 at the limit; 0 for wandering quantities."""
        far = np.abs(self._means(rows) - self._centre) / self._band / self._limit
        return np.where(self.steady, far, 0.0)

    def follow(
        self, rows: Matrix, held: Follow | None = None, *, skip: int = 0
    ) -> tuple[Matrix, Follow]:
        """The score of rows as they come, with a healthy band that moves on slowly while nothing is wrong.

        Args:
            rows: (rows, quantities) after those of ``held``. skip: first rows that were told already and
                are given again for the means of the others.

        Returns:
            (rows less those skipped, 2): the score (1 is the limit) and whether the alarm stands; then
            what to go on from.
        """
        held = held or Follow(centre=self._centre.tolist())
        centre, active, peak = np.array(held.centre), held.active, held.peak
        out = np.zeros((len(rows) - skip, 2))
        for row, mean in enumerate(self._means(rows)[skip:]):
            far = np.abs(mean - centre)[self.steady] / self._band[self.steady] / self._limit
            score = float(far.max(initial=0.0))
            if active:
                peak = max(peak, score)
                active = score > max(_FALL, _FALL_OF_PEAK * peak)
            else:
                active, peak = score > 1.0, score
                centre += (mean - centre) / self._memory
            out[row] = score, active
        return out, Follow(centre=centre.tolist(), active=active, peak=peak)

    def score(self, rows: Matrix) -> Matrix:
        """(rows,): the greatest deviation from the band as it was; 1 is the limit."""
        greatest: Matrix = self.deviations(rows).max(axis=1)
        return greatest


def _whitener(covariance: Matrix, ridge: float) -> Matrix:
    values, vectors = np.linalg.eigh(covariance)
    scaled: Matrix = (vectors * (np.maximum(values, 0.0) + ridge) ** -0.5) @ vectors.T
    return scaled


def _smooth(values: Matrix, weight: float) -> Matrix:
    """Exponential mean down the rows, from the mean of the first rows on."""
    mean, smooth = values[:20].mean(axis=0), np.empty_like(values)
    for row, value in enumerate(values):
        mean = weight * value + (1.0 - weight) * mean
        smooth[row] = mean
    return smooth


class StateWatch:
    """Canonical variate analysis: does the past still tell the future as it did while healthy?

    The past ``lags`` rows are turned into the states that tell most about the next ones. T2 is how far the
    states are from the healthy ones, Q how much of the past they leave over; each is watched as it is and
    as an exponential mean, which sees small lasting shifts.

    Args:
        healthy: (rows, quantities). lags: rows of past and of future.
        false_alarms: share of healthy rows over each statistic's limit.
        ridge: added to the variances, in spreads squared; keeps quantities without freedom of their own in
            check.
    """

    _FOLDS = 4
    _WEIGHT = 0.3

    def __init__(
        self, healthy: Matrix, *, lags: int = 3, false_alarms: float = 0.01, ridge: float = 0.01
    ) -> None:
        self._lags, self._ridge = lags, ridge
        folds = np.array_split(np.arange(len(healthy)), self._FOLDS)
        held = []
        for fold in folds:
            self._fit(np.delete(healthy, fold, axis=0))
            held.append(self._statistics(healthy[fold])[lags:])
        self._fit(healthy)
        statistics = np.vstack(held)
        self._limits = np.array(
            [
                conformal_limit(statistics[:, column], false_alarms)
                for column in range(statistics.shape[1])
            ]
        )

    def _fit(self, healthy: Matrix) -> None:
        lags = self._lags
        spread = healthy.std(axis=0)
        self._middle, self._spread = healthy.mean(axis=0), np.where(spread > 0, spread, 1.0)
        rows = self._scaled(healthy)
        past, future = lagged(rows[:-lags], lags - 1), lagged(rows[lags:], lags - 1)
        past, future = past - past.mean(axis=0), future - future.mean(axis=0)
        white = _whitener(past.T @ past / len(past), self._ridge)
        other = _whitener(future.T @ future / len(future), self._ridge)
        left, _, _ = np.linalg.svd(white @ (past.T @ future / len(past)) @ other)
        states = left[:, : max(1, rows.shape[1] // 2)]
        self._state = white @ states
        self._rest = white @ (np.eye(len(white)) - states @ states.T)

    def _scaled(self, rows: Matrix) -> Matrix:
        scaled: Matrix = (rows - self._middle) / self._spread
        return scaled

    def _past(self, rows: Matrix) -> Matrix:
        """As many rows as given: the first stands for those before it."""
        before = np.repeat(rows[:1], self._lags - 1, axis=0)
        return lagged(self._scaled(np.vstack([before, rows])), self._lags - 1)

    def _statistics(self, rows: Matrix) -> Matrix:
        """(rows, 4): T2, Q, and both smoothed."""
        past = self._past(rows)
        raw = np.column_stack(
            [
                np.sum(np.square(past @ self._state), axis=1),
                np.sum(np.square(past @ self._rest), axis=1),
            ]
        )
        return np.hstack([raw, _smooth(raw, self._WEIGHT)])

    def score(self, rows: Matrix) -> Matrix:
        """(rows,): the greatest of the statistics; 1 is the limit."""
        greatest: Matrix = (self._statistics(rows) / self._limits).max(axis=1)
        return greatest

    def shares(self, rows: Matrix) -> Matrix:
        """(quantities,): each quantity's part in T2 and Q of these rows; parts sum to 1."""
        past = self._past(rows)
        parts = np.zeros(rows.shape[1])
        for side, limit in ((self._state, self._limits[0]), (self._rest, self._limits[1])):
            part = past * (past @ side @ side.T)
            parts += part.reshape(len(rows), self._lags, -1).sum(axis=(0, 1)) / limit
        parts = np.maximum(parts, 0.0)
        total = parts.sum()
        return parts / total if total > 0 else np.zeros_like(parts)


class Watch:
    """Both watches as one score with its cause.

    Args:
        healthy: (rows, quantities). names: of the quantities.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> watch = Watch(rng.normal(size=(400, 2)), ("flow", "head"))
        >>> shifted = rng.normal(size=(40, 2)) + np.array([0.0, 5.0])
        >>> watch.causes(shifted)[0].quantity
        'head'
    """

    def __init__(self, healthy: Matrix, names: tuple[str, ...]) -> None:
        self.names = names
        self._middle, spread = healthy.mean(axis=0), healthy.std(axis=0)
        self._spread = np.where(spread > 0, spread, 1.0)
        self.level, self.state = LevelWatch(healthy), StateWatch(healthy)

    def score(self, rows: Matrix) -> Matrix:
        """(rows,): 1 is the limit."""
        return np.maximum(self.level.score(rows), self.state.score(rows))

    def causes(self, rows: Matrix) -> list[Cause]:
        """The quantities by their part in the score of these rows, greatest first."""
        level = np.square(self.level.deviations(rows)[-1])
        level_part = level / level.sum() if level.sum() > 0 else level
        strong = float(level.max()) ** 0.5
        state_strong = float(self.state.score(rows)[-1])
        weight = strong / (strong + state_strong) if strong + state_strong > 0 else 0.0
        share = weight * level_part + (1.0 - weight) * self.state.shares(rows)
        moved = rows.mean(axis=0) - self._middle
        return [
            Cause(
                self.names[i], float(share[i]), float(moved[i]), float(moved[i] / self._spread[i])
            )
            for i in np.argsort(-share, kind="stable")
        ]
