"""Power in bands of frequencies, of windows that are filled with evenly spaced samples.

The mean is taken off, a Hann window laid over, and the one-sided power spectrum scaled so that its sum
is the mean square of what is there (Harris 1978; Parseval): a sine of amplitude A gives A^2/2, and
neighbouring bands add up to the band of both. A window that is not filled evenly has no result: gaps
would show as vibration.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from headrace.formula.steps import Floats, Keys

SAMPLES_MIN: Final = 8
UNEVEN_MAX: Final = 0.1
_CHUNK: Final = 1 << 20


def band_mean_square(
    value: Floats,
    at_us: Keys,
    ranges: tuple[Keys, Keys],
    length_us: Keys,
    band_hz: tuple[float, ...],
) -> Floats:
    """Mean square of the frequencies ``[low, high)`` in each window; NaN where there is none.

    Args:
        value: float64, shape (n,). at_us: int64, shape (n,), their times.
        ranges: samples ``low`` to ``high`` (exclusive) of each window, int64, shape (m,) each.
        length_us: int64, shape (m,), of each window; 0 for one that has no result.
        band_hz: low and high; a high of half the sampling rate takes that one in.

    Example:
        >>> t = np.arange(100)
        >>> sine = 3.0 * np.sin(2 * np.pi * 10 * t / 100)  # 10 Hz in 1 s
        >>> whole = (np.array([0]), np.array([100]))
        >>> at_us, length_us = t * 10_000, np.array([1_000_000])
        >>> round(float(band_mean_square(sine, at_us, whole, length_us, (5.0, 15.0))[0]), 9)
        4.5
    """
    low, high = ranges
    result, count = np.full(len(low), np.nan), high - low
    filled = (length_us > 0) & (count >= SAMPLES_MIN)
    some = np.flatnonzero(filled)
    step_us = (at_us[high[some] - 1] - at_us[low[some]]) / (count[some] - 1)
    filled[some] = np.abs(count[some] * step_us - length_us[some]) <= step_us
    for n in np.unique(count[filled]).tolist():
        for windows in _chunks(np.flatnonzero((count == n) & filled), n):
            rows = low[windows][:, None] + np.arange(n)
            result[windows] = _of_equal(value[rows], at_us[rows], band_hz)
    return result


def _chunks(windows: Keys, n: int) -> Iterator[Keys]:
    step = max(1, _CHUNK // n)
    for start in range(0, len(windows), step):
        yield windows[start : start + step]


def _index(place: Floats, n: int) -> Floats:
    """The first of the frequencies k / span that is not below a limit, which may be one of them but for
    its last bit; half the sampling rate is below no limit but what lies there."""
    return np.where(place >= n / 2 - 1e-6, n // 2 + 1, np.ceil(place - 1e-6))


def _of_equal(x: Floats, at_us: Keys, band_hz: tuple[float, ...]) -> Floats:
    """Of filled windows with the same number of samples, shape (m, n)."""
    n = x.shape[1]
    step_us = (at_us[:, -1] - at_us[:, 0]) / (n - 1)
    uneven = np.abs(np.diff(at_us, axis=1) - step_us[:, None]).max(axis=1) > UNEVEN_MAX * step_us
    span_s = n * step_us * 1e-6
    first, after = (_index(limit * span_s, n) for limit in band_hz)
    beyond = band_hz[1] * span_s > n / 2 + 1e-6
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n) / n)
    spectrum = np.fft.rfft((x - x.mean(axis=1, keepdims=True)) * window, axis=1)
    power = 2.0 * (spectrum.real**2 + spectrum.imag**2) / (n * np.sum(window**2))
    power[:, 0] /= 2.0
    if n % 2 == 0:
        power[:, -1] /= 2.0
    k = np.arange(power.shape[1])
    inside = (k >= first[:, None]) & (k < after[:, None])
    total = np.where(inside, power, 0.0).sum(axis=1)
    return np.where(uneven | beyond, np.nan, total)
