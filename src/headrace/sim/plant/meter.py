"""Power meter of a three-phase feeder: what its loads draw, as a meter shows it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from headrace.sim.plant.quantity import Quantity, Shown

NOMINAL_V: Final = 230.0
FEEDER_OHM: Final = 0.012

QUANTITIES: Final = (
    Quantity("voltage_l1", "V", "Voltage of phase 1 to neutral"),
    Quantity("voltage_l2", "V", "Voltage of phase 2 to neutral"),
    Quantity("voltage_l3", "V", "Voltage of phase 3 to neutral"),
    Quantity("current_l1", "A", "Current of phase 1"),
    Quantity("current_l2", "A", "Current of phase 2"),
    Quantity("current_l3", "A", "Current of phase 3"),
    Quantity("active_power", "kW", "Active power of all phases"),
    Quantity("reactive_power", "kvar", "Reactive power of all phases"),
    Quantity("power_factor", "", "Power factor"),
    Quantity("frequency", "Hz", "Mains frequency"),
    Quantity("active_energy", "kWh", "Active energy imported", "float64", "counter"),
)


@dataclass
class MeterState:
    """All that changes; plain data, so that it can be saved."""

    energy_kwh: float = 0.0
    power_kw: float = 0.0


class Meter:
    """One meter.

    Args:
        generator: its own random numbers.
        power_factor: of its feeder's loads.
        energy_kwh: reading at the first start.
    """

    quantities = QUANTITIES

    def __init__(
        self, generator: np.random.Generator, power_factor: float, energy_kwh: float
    ) -> None:
        self.generator = generator
        self.power_factor = power_factor
        self.state = MeterState(energy_kwh=energy_kwh)

    def step(self, dt_s: float, power_kw: float, frequency_hz: float) -> Shown:
        """Run for ``dt_s`` seconds at the loads' true power; gives what the meter shows then."""
        state = self.state
        state.power_kw = power_kw
        state.energy_kwh += power_kw * dt_s / 3600.0
        noise = self.generator.standard_normal(6)
        current = power_kw * 1000.0 / (3.0 * NOMINAL_V * self.power_factor)
        shown = Shown()
        balance = (1.01, 0.995, 0.995)
        volts = [
            NOMINAL_V - FEEDER_OHM * current * balance[i] + 0.25 * float(noise[i]) for i in range(3)
        ]
        for i, volt in enumerate(volts):
            shown[f"voltage_l{i + 1}"] = volt
        for i in range(3):
            shown[f"current_l{i + 1}"] = current * balance[i] * (1.0 + 0.002 * float(noise[3 + i]))
        shown["active_power"] = power_kw
        shown["reactive_power"] = power_kw * math.tan(math.acos(self.power_factor))
        shown["power_factor"] = self.power_factor
        shown["frequency"] = frequency_hz
        shown["active_energy"] = state.energy_kwh
        return shown
