"""A single quantity with no healthy record: is what just came unlike anything that came before?

The last rows are compared with every stretch of the past as long as they are (a left matrix profile,
not normalised, kept up row by row). The least distance is set against the greatest such distance of late,
which fades; a score of 1 ties that record. Nothing looks ahead.
"""

from __future__ import annotations

import msgspec
import numpy as np

from asset_health.features import Matrix

_FLOOR = 0.02
_FADE = 2.0
_ROWS_MAX = 100_000
LIMIT = 1.05


class Seen(msgspec.Struct):
    """What a watch keeps between two rows, to go on from after a restart.

    Attributes:
        values: the past, as float64. record: the greatest distance of late. scale: of a value.
        silent: rows until another alarm may begin.
    """

    values: bytes = b""
    record: float = 0.0
    scale: float = 0.0
    silent: int = 0


class Novelty:
    """One quantity, fed row by row.

    Args:
        warm_up: rows before the first score; they give the scale, and a twelfth of them is a stretch.
        limit: a score from which a row is new. The record fades by half in two warm-ups.
        rows_max: of the past; the older half is forgotten when there are so many.

    Example:
        >>> novelty = Novelty(60)
        >>> waves = [float(np.sin(row / 5)) for row in range(300)] + [0.0] * 20
        >>> alarms = [novelty.feed(value)[1] for value in waves]
        >>> any(alarms[100:300]), any(alarms[300:])
        (False, True)
    """

    def __init__(self, warm_up: int, *, limit: float = LIMIT, rows_max: int = _ROWS_MAX) -> None:
        self._warm_up, self._limit, self._rows_max = warm_up, limit, rows_max
        self._length = max(4, warm_up // 12)
        self._keep = 0.5 ** (1.0 / (_FADE * warm_up))
        self._quiet = int(0.12 * warm_up)
        self._values = np.zeros(1024)
        self._count = 0
        self._scale = 0.0
        self._squares = np.zeros(0)
        self._record = 0.0
        self._silent = 0

    def feed(self, value: float) -> tuple[float, bool]:
        """Take one row.

        Returns:
            The score, 0 while it warms up, and whether an alarm begins here.
        """
        self._remember(value)
        if self._count < self._warm_up:
            return 0.0, False
        if self._count == self._warm_up:
            self._begin()
            return 0.0, False
        distance = self._advance() + _FLOOR
        score = distance / self._record if self._record > 0 else 0.0
        self._record = max(self._record * self._keep, distance)
        self._silent = max(0, self._silent - 1)
        alarm = score >= self._limit and self._silent == 0
        if alarm:
            self._silent = self._quiet
        return score, alarm

    def seen(self) -> Seen:
        """What is needed to go on."""
        kept = self._values[: self._count].tobytes()
        return Seen(values=kept, record=self._record, scale=self._scale, silent=self._silent)

    def go_on(self, seen: Seen) -> None:
        """From what another one had seen, with the same warm-up."""
        values = np.frombuffer(seen.values)
        self._count = len(values)
        self._values = np.zeros(max(1024, self._count))
        self._values[: self._count] = values
        self._record, self._scale, self._silent = seen.record, seen.scale, seen.silent
        if self._count >= self._warm_up:
            scaled = values * self._scale
            stretches = np.lib.stride_tricks.sliding_window_view(scaled, self._length)
            self._squares = np.square(stretches - scaled[-self._length :]).sum(axis=1)

    def _remember(self, value: float) -> None:
        if self._count == self._rows_max:
            half = self._rows_max // 2
            self._values[:half] = self._values[self._rows_max - half : self._rows_max]
            self._squares = self._squares[len(self._squares) - (half - self._length + 1) :]
            self._count = half
        if self._count == len(self._values):
            self._values = np.concatenate([self._values, np.zeros(self._count)])[: self._rows_max]
        self._values[self._count] = value
        self._count += 1

    def _begin(self) -> None:
        """The scale, and the distances within the warm-up, row by row, as if they had been fed."""
        warm = self._values[: self._count]
        spread = float(warm.std())
        self._scale = 1.0 / spread if spread > 0 else 1.0
        whole = self._count
        self._count = self._length
        self._squares = np.zeros(1)
        while self._count < whole:
            self._count += 1
            self._record = max(self._record * self._keep, self._advance() + _FLOOR)

    def _advance(self) -> float:
        """The least distance of the newest stretch to those before it, in spreads, a row."""
        last, length = self._count - 1, self._length
        values = self._values[: self._count] * self._scale
        came = np.square(values[last] - values[length:])
        went = np.square(values[last - length] - values[: last - length + 1])
        first = np.sum(np.square(values[:length] - values[last - length + 1 :]))
        self._squares = np.concatenate([[first], np.maximum(self._squares + came - went, 0.0)])
        before = self._squares[: max(1, len(self._squares) - 1 + length // -4)]
        return float(np.sqrt(before.min() / length))


def novelty(values: Matrix, warm_up: int) -> tuple[Matrix, Matrix]:
    """Scores and alarm rows of a whole record, as they would have come row by row."""
    watch = Novelty(warm_up)
    fed = [watch.feed(float(value)) for value in values]
    return np.array([score for score, _ in fed]), np.array([alarm for _, alarm in fed], dtype=bool)
