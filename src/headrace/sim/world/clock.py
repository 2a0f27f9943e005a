"""Clocks of simulated machines: they drift, and they are set."""

from __future__ import annotations

from typing import Final

from headrace.model.time import US_PER_S
from headrace.sim.world.loop import VirtualLoop

START_US: Final = 1_760_000_000 * US_PER_S


class MachineClock:
    """The clock of one machine; see :class:`headrace.model.time.Clock`.

    Args:
        loop: gives the true time.
        offset_us: how wrong the wall clock is at the start.
        drift_ppm: how much too fast it goes, in millionths.

    Example:
        >>> clock = MachineClock(VirtualLoop(), offset_us=5)
        >>> clock.step_us(-3_600_000_000)
        >>> clock.now_us() - START_US, clock.monotonic_s()
        (-3599999995, 0.0)
    """

    def __init__(self, loop: VirtualLoop, *, offset_us: int = 0, drift_ppm: float = 0.0) -> None:
        self._loop = loop
        self._offset_us = offset_us
        self._rate = 1.0 + drift_ppm / 1e6

    def now_us(self) -> int:
        return START_US + round(self._loop.time() * self._rate * US_PER_S) + self._offset_us

    def monotonic_s(self) -> float:
        return self._loop.time()

    def step_us(self, step_us: int) -> None:
        """Set the wall clock by so much, as an operator or NTP would."""
        self._offset_us += step_us
