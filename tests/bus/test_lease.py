"""A lease has one holder, moves when the holder is gone, and never before."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.bus.client import Bus
from headrace.bus.lease import TERM_S, Lease
from headrace.model.time import US_PER_S, ManualClock


class Two:
    """Two processes with clocks of their own."""

    def __init__(self, bus: Bus, places: tuple[str, str] = ("one", "two")) -> None:
        self.clocks = (ManualClock(), ManualClock())
        self.first, self.second = (
            Lease(bus, "work", place, clock)
            for place, clock in zip(places, self.clocks, strict=True)
        )

    def pass_s(self, seconds: float) -> None:
        for clock in self.clocks:
            clock.advance_us(int(seconds * US_PER_S))


async def test_one_holds_it_and_the_other_waits(bus: Bus) -> None:
    two = Two(bus)
    assert await two.first.hold() and not await two.second.hold()
    for _ in range(10):
        two.pass_s(TERM_S / 3)
        assert await two.first.hold() and not await two.second.hold()


async def test_it_moves_when_its_holder_is_silent_for_the_term(bus: Bus) -> None:
    two = Two(bus)
    assert await two.first.hold() and not await two.second.hold()
    two.pass_s(TERM_S * 0.7)
    assert two.first.is_held and not await two.second.hold()
    two.pass_s(TERM_S * 0.31)
    assert not two.first.is_held, "the holder stops before another begins"
    assert await two.second.hold() and not await two.first.hold()


async def test_it_is_given_back_at_once(bus: Bus) -> None:
    two = Two(bus)
    assert await two.first.hold()
    await two.first.release()
    assert not two.first.is_held and await two.second.hold()


async def test_the_next_process_of_the_same_place_does_not_wait(bus: Bus) -> None:
    two = Two(bus, ("host/data", "host/data"))
    assert await two.first.hold() and await two.second.hold()


@pytest.mark.parametrize("turns", [40])
async def test_never_two_at_once(bus: Bus, turns: int) -> None:
    """Clocks that run at different speeds, renewals that come late or never."""
    chance = np.random.default_rng(1)
    two = Two(bus)
    for _ in range(turns):
        for clock in two.clocks:
            clock.advance_us(int(chance.uniform(0.9, 1.0) * US_PER_S))
        for lease in (two.first, two.second):
            if chance.random() < 0.5:
                await lease.hold()
        assert not (two.first.is_held and two.second.is_held)
