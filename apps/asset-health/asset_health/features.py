"""Windowed statistics of aligned rows, for every row at once: means, slopes, spread, change since the start.

All functions take ``values`` of shape (rows, quantities) of one asset in the order of time, look only back,
and give NaN nowhere: at the start a window is as long as what there is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def _sums(values: Matrix) -> Matrix:
    """Cumulative sums with a leading row of zeros, so that a window is one difference."""
    zeros = np.zeros((1, values.shape[1]))
    return np.concatenate([zeros, np.cumsum(values, axis=0)])


def _windows(rows: int, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    end = np.arange(1, rows + 1)
    return np.maximum(end - length, 0), end


def rolling_mean(values: Matrix, length: int) -> Matrix:
    """Mean of the last ``length`` rows.

    Example:
        >>> rolling_mean(np.array([[1.0], [3.0], [5.0]]), 2)[:, 0].tolist()
        [1.0, 2.0, 4.0]
    """
    begin, end = _windows(len(values), length)
    sums = _sums(values)
    mean: Matrix = (sums[end] - sums[begin]) / (end - begin)[:, None]
    return mean


def rolling_slope(values: Matrix, length: int) -> Matrix:
    """Least-squares slope a row over the last ``length`` rows; 0 where there is one row only.

    Example:
        >>> rolling_slope(np.array([[1.0], [3.0], [5.0]]), 3)[:, 0].tolist()
        [0.0, 2.0, 2.0]
    """
    rows = len(values)
    begin, end = _windows(rows, length)
    centred = values - values.mean(axis=0)
    position = np.arange(rows, dtype=np.float64)[:, None]
    sums, moments = _sums(centred), _sums(centred * position)
    count = (end - begin).astype(np.float64)[:, None]
    middle = (begin + end - 1)[:, None] / 2.0
    moment = moments[end] - moments[begin] - middle * (sums[end] - sums[begin])
    spread = count * (count * count - 1.0) / 12.0
    slope: Matrix = np.divide(moment, spread, out=np.zeros_like(moment), where=spread > 0)
    return slope


def rolling_std(values: Matrix, length: int) -> Matrix:
    """Standard deviation of the last ``length`` rows; 0 where there is one row only."""
    centred = values - values.mean(axis=0)
    mean = rolling_mean(centred, length)
    variance = rolling_mean(centred * centred, length) - mean * mean
    spread: Matrix = np.sqrt(np.maximum(variance, 0.0))
    return spread


def exponential_mean(values: Matrix, length: float) -> Matrix:
    """Exponentially weighted mean whose weights have the mean age ``length`` rows, unbiased at the start."""
    keep = length / (1.0 + length)
    mean, weight = np.zeros(values.shape[1]), 0.0
    smooth = np.empty_like(values)
    for row, value in enumerate(values):
        mean = keep * mean + (1.0 - keep) * value
        weight = keep * weight + (1.0 - keep)
        smooth[row] = mean / weight
    return smooth


def lagged(values: Matrix, lags: int) -> Matrix:
    """Each row with the ``lags`` rows before it side by side, newest first; rows without a past are left out.

    Example:
        >>> lagged(np.array([[1.0], [2.0], [3.0]]), 1).tolist()
        [[2.0, 1.0], [3.0, 2.0]]
    """
    rows = len(values) - lags
    return np.hstack([values[lags - lag : lags - lag + rows] for lag in range(lags + 1)])


def trend_features(values: Matrix, lengths: tuple[int, ...], baseline: int = 20) -> Matrix:
    """What a life is estimated from: means and slopes over several windows, and the change since the start.

    Args:
        values: (rows, quantities), conditions already taken out. lengths: windows in rows.
        baseline: rows at the start that count as new.

    Returns:
        (rows, features): age in rows, then for each window means and slopes, then the change of the mean
        of the middle window since the mean of the first ``baseline`` rows that had come by then.
    """
    age = np.arange(1.0, len(values) + 1.0)[:, None]
    parts = [age]
    for length in lengths:
        parts += [rolling_mean(values, length), rolling_slope(values, length) * length]
    ends = np.minimum(np.arange(1, len(values) + 1), baseline)
    start = _sums(values)[ends] / ends[:, None]
    parts.append(rolling_mean(values, lengths[len(lengths) // 2]) - start)
    return np.hstack(parts)


def newest_trend_features(
    tail: Matrix, start: Matrix, age: int, lengths: tuple[int, ...]
) -> Matrix:
    """The last row of :func:`trend_features`, from what has to be kept of a record alone.

    Args:
        tail: the newest rows, as many as the longest window or all that there are.
        start: the first rows, as many as the baseline or all that there are. age: rows of the record.

    Returns:
        (features,).
    """
    parts = [np.array([float(age)])]
    for length in lengths:
        parts += [rolling_mean(tail, length)[-1], rolling_slope(tail, length)[-1] * length]
    parts.append(rolling_mean(tail, lengths[len(lengths) // 2])[-1] - start.mean(axis=0))
    return np.concatenate(parts)
