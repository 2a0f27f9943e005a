"""Is the asset as it was when it was healthy? Two watches, fitted on healthy rows alone, and the cause.

``LevelWatch`` asks whether the mean of the last rows is further from the level before them than that level
wanders while healthy. ``StateWatch`` asks whether the quantities still move together as before (canonical
variate analysis: Larimore 1983; Russell, Chiang, Braatz 2000). Both give 1 at their limit, so that their
greatest is one score. Nothing is tuned for an asset.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtrit

from asset_health.features import Matrix, lagged, rolling_mean

_CLIP = 6.0
_FALL_OF_PEAK = 0.5
"""An alarm ends at its limit, or below this part of the greatest score since it began: a great shift need
not come back whole."""
_RATIOS = np.concatenate([[0.0], 10.0 ** np.arange(-4.0, 1.01, 0.25)])
_TINY = 1e-12
_MEANS_MIN = 12


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
    """Where a level watch stands between two windows: plain data, each a list by quantity.

    Attributes:
        level, doubt: where the level is, in spreads, and the variance of that. greatest: score since its
            alarm began. quiet: rows since its alarm ended, counted up to a bound; 0: it stands.
        far: how far the newest mean is from the level; 1 is the limit.
    """

    level: list[float] = field(default_factory=list)
    doubt: list[float] = field(default_factory=list)
    greatest: list[float] = field(default_factory=list)
    quiet: list[int] = field(default_factory=list)
    far: list[float] = field(default_factory=list)


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


@dataclass(frozen=True)
class _Wander:
    """How the level of each quantity wanders while healthy; arrays of (quantities,), in spreads squared.

    Attributes:
        level, doubt: where it is at the last row, and the variance of that. drift: variance that a row adds.
        noise: variance of a mean of ``length`` rows about the level. freedom: degrees of freedom that the
            rows leave for these variances, fewer where the model's own errors hang together.
    """

    level: Matrix
    doubt: Matrix
    drift: Matrix
    noise: Matrix
    freedom: Matrix


def _filtered(means: Matrix, ratio: Matrix) -> tuple[Matrix, Matrix, Matrix, Matrix]:
    """Kalman filter of a level that takes a random step from mean to mean.

    Args:
        means: (rows, quantities). ratio: (ratios, 1 or quantities): variance of a step over that of noise.

    Returns:
        Level and its variance (noise is 1) at the end, errors of each forecast over its deviation (rows
        less one, ...), and the sum of the logarithms of the forecasts' variances.
    """
    level, doubt = means[0] + np.zeros_like(ratio), np.ones_like(ratio)
    errors, logs = [], np.zeros_like(ratio)
    for mean in means[1:]:
        doubt = doubt + ratio
        whole = doubt + 1.0
        error = mean - level
        level = level + error * doubt / whole
        doubt = doubt / whole
        errors.append(error / np.sqrt(whole))
        logs = logs + np.log(whole)
    return level, doubt, np.array(errors), logs


def _wander(rows: Matrix, length: int) -> _Wander:
    """Fit to healthy rows, from means of ``length`` rows side by side; the ratio by its likelihood."""
    count = len(rows) // length
    means = rows[len(rows) - count * length :].reshape(count, length, -1).mean(axis=1)
    ratios = np.repeat(_RATIOS[:, None], means.shape[1], axis=1)
    level, doubt, errors, logs = _filtered(means, ratios)
    noise = np.maximum(np.mean(np.square(errors), axis=0), _TINY)
    likely = -0.5 * ((count - 1) * np.log(noise) + logs)
    weight = np.exp(likely - likely.max(axis=0))
    weight /= weight.sum(axis=0)
    step, each = np.sum(weight * ratios * noise, axis=0), np.sum(weight * noise, axis=0)
    _, _, errors, _ = _filtered(means, (step / each)[None])
    left = errors[:, 0]
    power = np.maximum(np.sum(np.square(left), axis=0), _TINY)
    together = np.clip(np.sum(left[1:] * left[:-1], axis=0) / power, 0.0, 0.95)
    return _Wander(
        level=np.sum(weight * level, axis=0),
        doubt=np.sum(weight * doubt * noise, axis=0),
        drift=step / length,
        noise=each,
        freedom=np.maximum((count - 1) * (1.0 - together) / (1.0 + together), 1.0),
    )


class LevelWatch:
    """Is the mean of the last rows further from the level before them than the level wanders while healthy?

    Each quantity is a level that takes random steps, seen through noise (Harvey 1989, the local level
    model); both variances come from the healthy rows by their likelihood. The limit is the quantile of
    Student's t for as many looks as there were at the healthy rows, with the degrees of freedom that
    errors which hang together leave (Bayley, Hammersley 1946): a quantity that the model does not explain
    has no say. The level is followed while its quantity is well and held while it alarms.

    Args:
        healthy: (rows, quantities). length: rows of a mean. gap: how many rows back the level is known.
        false_alarms: chance of one in as many rows as there are healthy ones, if the model is right.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> watch = LevelWatch(rng.normal(size=(400, 1)))
        >>> told, _ = watch.follow(rng.normal(size=(60, 1)) + 3.0)
        >>> told[-1].tolist()[1]
        1.0
    """

    def __init__(
        self, healthy: Matrix, *, length: int = 20, gap: int = 30, false_alarms: float = 0.02
    ) -> None:
        self.length = min(length, max(1, len(healthy) // _MEANS_MIN))
        self.gap = max(gap, self.length)
        self._middle = np.median(healthy, axis=0)
        spread = healthy.std(axis=0)
        self._moves = spread > 0
        self._spread = np.where(self._moves, spread, 1.0)
        self._healthy = _wander(self._scaled(healthy), self.length)
        looks = len(healthy) // self.length * max(1, int(self._moves.sum()))
        self._limit = stdtrit(self._healthy.freedom, 1.0 - false_alarms / (2.0 * looks))

    def _scaled(self, rows: Matrix) -> Matrix:
        return np.clip((rows - self._middle) / self._spread, -_CLIP, _CLIP)

    def _far(self, means: Matrix, level: Matrix, doubt: Matrix) -> Matrix:
        """How far the means are from the level, 1 at the limit; 0 for quantities that never moved."""
        apart = self.gap - 2.0 * self.length / 3.0
        whole = doubt + self._healthy.noise + self._healthy.drift * apart
        far = np.abs(means - level) / np.sqrt(whole) / self._limit
        return np.where(self._moves, far, 0.0)

    def deviations(self, rows: Matrix) -> Matrix:
        """(rows, quantities): the mean of the last rows against the level at the end of the healthy ones."""
        means = rolling_mean(self._scaled(rows), self.length)
        return self._far(means, self._healthy.level, self._healthy.doubt)

    def follow(
        self, rows: Matrix, held: Follow | None = None, *, skip: int = 0
    ) -> tuple[Matrix, Follow]:
        """The score of rows as they come, with levels that are followed while nothing is wrong.

        Args:
            rows: (rows, quantities) after those of ``held``. skip: first rows that were told already and
                are given again, ``gap`` of them, for the means and the level.

        Returns:
            (rows less those skipped, 2): the score (1 is the limit) and whether an alarm stands; then
            what to go on from.
        """
        held = held if held and len(held.quiet) == len(self._spread) else self._begin()
        level, doubt = np.array(held.level), np.array(held.doubt)
        peak, quiet = np.array(held.greatest), np.array(held.quiet)
        scaled, far = self._scaled(rows), np.array(held.far)
        means = rolling_mean(scaled, self.length)
        each = self._healthy.noise * self.length
        out = np.zeros((len(rows) - skip, 2))
        for row in range(skip, len(rows)):
            active = quiet == 0
            doubt = doubt + np.where(active, 0.0, self._healthy.drift)
            far = self._far(means[row], level, doubt)
            peak = np.where(active, np.maximum(peak, far), far)
            active = far > np.where(active, np.maximum(1.0, _FALL_OF_PEAK * peak), 1.0)
            quiet = np.where(active, 0, np.minimum(quiet + 1, self.gap + 1))
            if row >= self.gap:
                gain = np.where(quiet > self.gap, doubt / (doubt + each), 0.0)
                level = level + gain * (scaled[row - self.gap] - level)
                doubt = doubt * (1.0 - gain)
            out[row - skip] = far.max(initial=0.0), active.any()
        ends = level.tolist(), doubt.tolist(), peak.tolist(), quiet.tolist(), far.tolist()
        return out, Follow(*ends)

    def _begin(self) -> Follow:
        none = np.zeros(len(self._spread))
        return Follow(
            level=self._healthy.level.tolist(),
            doubt=self._healthy.doubt.tolist(),
            greatest=none.tolist(),
            quiet=(none + 1).astype(int).tolist(),
            far=none.tolist(),
        )

    def score(self, rows: Matrix) -> Matrix:
        """(rows,): the greatest deviation from the levels as they were; 1 is the limit."""
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

    def causes(self, rows: Matrix, held: Follow | None = None) -> list[Cause]:
        """The quantities by their part in the score of these rows, greatest first.

        Args:
            held: where the level watch stands after these rows; without it, the levels are those learnt.
        """
        level = np.square(np.array(held.far) if held else self.level.deviations(rows)[-1])
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
