"""The spindle's vibration waveform: rotation, tooth passing, outer-race defect and noise.

The ball pass frequency of the outer race is ``BPFO = n / 2 * (1 - d / D * cos(phi)) * f``, with ``n``
balls of diameter ``d`` on the pitch diameter ``D`` and contact angle ``phi``.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

BALLS: Final = 9
BALL_RATIO: Final = 0.205
CONTACT_ANGLE_RAD: Final = math.radians(15.0)


def bpfo_hz(rotation_hz: float) -> float:
    """Ball pass frequency of the outer race.

    Example:
        >>> round(bpfo_hz(100.0), 1)
        360.9
    """
    return BALLS / 2.0 * (1.0 - BALL_RATIO * math.cos(CONTACT_ANGLE_RAD)) * rotation_hz


class Waveform:
    """A continuous waveform, given in pieces.

    Args:
        generator: its own random numbers.
        sample_interval_s: time between two values.
    """

    def __init__(self, generator: np.random.Generator, sample_interval_s: float = 0.001) -> None:
        self.generator = generator
        self.sample_interval_s = sample_interval_s
        self.rotation_rad = 0.0
        self.defect_rad = 0.0

    def take(
        self, count: int, *, rotation_hz: float, removal_ratio: float, teeth: int, wear: float
    ) -> npt.NDArray[np.float64]:
        """The next ``count`` values of acceleration, shape (count,), m/s2.

        Args:
            rotation_hz: spindle speed. removal_ratio: how heavy the cut is, 0 to about 1.
            teeth: of the tool. wear: of the bearing, 0 (new) to 1 (destroyed).
        """
        ticks = np.arange(1, count + 1)
        step = 2.0 * math.pi * self.sample_interval_s
        turn = self.rotation_rad + ticks * (step * rotation_hz)
        defect = self.defect_rad + ticks * (step * bpfo_hz(rotation_hz))
        speed = rotation_hz / 100.0
        values = 0.05 * self.generator.standard_normal(count)
        values += 0.8 * speed * np.sin(turn) + 0.25 * speed * np.sin(2.0 * turn + 0.4)
        values += removal_ratio * 0.7 * np.sin(teeth * turn)
        # A defect under a turning load: its amplitude follows the rotation.
        values += (0.03 + 5.0 * wear) * speed * np.sin(defect) * (1.0 + 0.3 * np.sin(turn))
        self.rotation_rad = float(turn[-1] % (2.0 * math.pi))
        self.defect_rad = float(defect[-1] % (2.0 * math.pi))
        return np.asarray(values, np.float64)
